//! `examples/c`: an independent program embeds pictures with merged models exactly as `embed` does. (`make test-tools`
//! compares the Python example with it.)
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use afterimage::encoder::runtime;
use common::skip::{Needs, installed, skip};
use common::{ENCODER, PATTERN, TestDir, frames, rows, write_image};

/// Pictures that are not square, larger than the input and smaller.
const PICTURES: [&str; 3] = [
    "pattern://3?frames=6&segments=6&width=80&height=50",
    "pattern://4?frames=3&segments=3&width=21&height=40",
    "pattern://5?frames=3&segments=3&width=32&height=32",
];

/// The folder of ONNX Runtime's C headers: `ONNXRUNTIME_INCLUDE`, or where examples/c/Makefile looks without it.
fn headers() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(named) = variable("ONNXRUNTIME_INCLUDE") {
        return Some(named);
    }
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let fetched = cache.map(|cache| cache.join("afterimage/onnxruntime-include"));
    let folders = fetched.into_iter().chain(["/usr/include/onnxruntime".into()]);
    folders.into_iter().find(|folder| folder.join("onnxruntime_c_api.h").exists())
}

/// The program, built; `None` where there is no C compiler or no header, and the test is skipped.
fn program(place: &TestDir) -> Option<PathBuf> {
    if !installed(Needs::Compiler, &["cc"]) {
        return None;
    }
    let Some(headers) = headers() else {
        skip(
            Needs::RuntimeHeaders,
            "no onnxruntime_c_api.h; name its folder with ONNXRUNTIME_INCLUDE (examples/c/README.md)",
        );
        return None;
    };
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/c");
    let program = place.at("embed_image");
    let made = Command::new("cc")
        .args(["-std=c11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-isystem"])
        .arg(headers)
        .arg("-o")
        .arg(&program)
        .args(["embed_image.c", "prepare.c", "-ldl", "-lm"])
        .current_dir(sources)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(program)
}

fn call(program: &Path, place: &TestDir, arguments: &[&str]) -> Output {
    let library = runtime::load("").unwrap().path;
    Command::new(program).args(arguments).env("ORT_DYLIB_PATH", library).current_dir(place.path()).output().unwrap()
}

/// The rows that were printed, and the line before them.
fn printed(output: &Output) -> (String, Vec<Vec<f32>>) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let row = |line: &str| line.split(' ').map(|number| number.parse().unwrap()).collect();
    (first.to_owned(), rest.lines().map(row).collect())
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Pictures as PNG for `embed` and as PPM for the program, in the same order; the names of the latter.
fn pictures(place: &TestDir) -> Vec<String> {
    let mut names = Vec::new();
    for (i, frame) in PICTURES.iter().flat_map(|uri| frames(uri)).enumerate() {
        write_image(&place.at(&format!("pictures/{i:03}.png")), &frame);
        let mut bytes = format!("P6\n# one\n{} {}\n255\n", frame.width, frame.height).into_bytes();
        bytes.extend_from_slice(&frame.pixels);
        names.push(format!("{i:03}.ppm"));
        fs::write(place.at(&names[i]), bytes).unwrap();
    }
    names
}

#[test]
fn the_program_in_c_embeds_as_the_runtime_does() {
    let place = TestDir::new();
    let Some(program) = program(&place) else { return };
    let names = pictures(&place);
    // Every kind of preparation that a card can ask for.
    let other = fs::read_to_string(Path::new(ENCODER).with_extension("toml")).unwrap();
    let other = other.replace("\"rgb\"", "\"bgr\"").replace("\"stretch\"", "\"crop\"") + "exposure = 0.45\n";
    fs::write(place.at("other.toml"), other).unwrap();
    fs::copy(ENCODER, place.at("other.onnx")).unwrap();
    for (encoder, run) in [(ENCODER, "run"), ("other.onnx", "other")] {
        let learn = ["learn", "--config", "learn.toml", "--encoder", encoder, "--source", PATTERN, "--out", run];
        place.run(&learn).ok();
        let out = format!("{run}-embedded");
        place.run(&["embed", "--run", run, "--source", "pictures", "--out", &out]).ok();
        let own = rows(&place.at(&out).join("embeddings"));
        assert_eq!(own.len(), names.len());
        for (more, needed) in [
            (&[][..], 0.9999),
            (&["--batch", "3"], 0.9999),
            (&["--dtype", "f16", "--io", "f16", "--batch", "2"], 0.999),
        ] {
            place.run(&[&["export", "--run", run, "--onnx", "m.onnx"], more].concat()).ok();
            let arguments: Vec<&str> = ["m.onnx"].into_iter().chain(names.iter().map(String::as_str)).collect();
            let (line, found) = printed(&call(&program, &place, &arguments));
            assert_eq!(found.len(), own.len());
            let (record, row) = &own[0];
            assert_eq!(line, format!("# space {} head {} dim {}", record.space, record.head, row.len()));
            for (found, (record, row)) in found.iter().zip(&own) {
                let row: Vec<f32> = row.iter().map(|bits| f32::from_bits(*bits)).collect();
                let cosine = cosine(found, &row);
                assert!(cosine >= needed, "{run} {more:?}, picture {}: {cosine}", record.frame);
            }
            assert!(cosine(&found[0], &found[7]) < 0.999, "all pictures look alike: this shows nothing");
        }
    }
}

#[test]
fn what_it_cannot_use_is_named() {
    let place = TestDir::new();
    let Some(program) = program(&place) else { return };
    place.learn("pattern://7?frames=40&width=64&height=48", "run", &[]).ok();
    place.run(&["export", "--run", "run", "--onnx", "m.onnx"]).ok();
    let large = format!("P6 32768 32768 255\n{}", "a".repeat(100));
    let bad: [(&str, &str, &str); 7] = [
        ("text.ppm", "P5 2 2 255\n0123", "no binary PPM"),
        ("empty.ppm", "", "no binary PPM"),
        ("cut.ppm", "P6 20 20 255\nabc", "is cut off"),
        ("large.ppm", &large, "is cut off"),
        ("wide.ppm", "P6 99999 2 255\n", "width or height"),
        ("none.ppm", "P6 0 2 255\n", "width or height"),
        ("deep.ppm", "P6 1 1 65535\n012345", "255 levels"),
    ];
    for (name, text, part) in bad {
        fs::write(place.at(name), text).unwrap();
        refused(&call(&program, &place, &["m.onnx", name]), &[name, part]);
    }
    fs::write(place.at("good.ppm"), "P6 1 2 255\nabcdef").unwrap();
    printed(&call(&program, &place, &["m.onnx", "good.ppm"]));
    refused(&call(&program, &place, &["m.onnx", "nowhere.ppm"]), &["nowhere.ppm", "cannot be opened"]);
    refused(&call(&program, &place, &["nowhere.onnx", "good.ppm"]), &["nowhere.onnx"]);
    refused(&call(&program, &place, &["good.ppm", "good.ppm"]), &["good.ppm", "Load model"]);
    refused(&call(&program, &place, &[ENCODER, "good.ppm"]), &["no entry afterimage.schema", "afterimage export"]);
    let usage = call(&program, &place, &["m.onnx"]);
    assert_eq!(usage.status.code(), Some(2));
    let mut named = Command::new(&program);
    named.args(["m.onnx", "good.ppm"]).env("ORT_DYLIB_PATH", "/nowhere.so").current_dir(place.path());
    refused(&named.output().unwrap(), &["ORT_DYLIB_PATH", "/nowhere.so"]);
}

/// It ended with exit code 1 and these words.
fn refused(output: &Output, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in parts {
        assert!(text.starts_with("embed_image: ") && text.contains(part), "no {part:?} in {text}");
    }
}
