//! `card`: encoders as people have them get a working model card, or one reason why that is impossible
//! (`tests/data/models`).
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::path::Path;

use common::{Output, TestDir, rows, write_image};
use serde_json::Value;

/// A place with the model `name` in it.
fn with(name: &str) -> TestDir {
    let place = TestDir::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/models").join(format!("{name}.onnx"));
    fs::copy(from, place.at("m.onnx")).unwrap();
    place
}

fn card(place: &TestDir, more: &[&str]) -> Output {
    place.run(&[&["card", "m.onnx", "--json"], more].concat())
}

/// Five pictures of different colours and sizes in `pictures`.
fn pictures(place: &TestDir) {
    let pictures = place.at("pictures");
    fs::create_dir(&pictures).unwrap();
    for (i, (width, height)) in [(64, 48), (40, 90), (96, 96), (33, 21), (128, 256)].into_iter().enumerate() {
        let source = format!("pattern://{i}?frames=1&width={width}&height={height}");
        let frame = common::frames(&source).remove(0);
        write_image(&pictures.join(format!("{i}.png")), &frame);
    }
}

#[test]
fn each_form_gets_a_card_that_runs() {
    // Name, size, values, and what the card holds.
    let forms: [(&str, Value, u64, &str); 18] = [
        ("nonsquare_256x128", Value::from(vec![256, 128]), 64, "size = [256, 128]"),
        ("batch_minus1", 96.into(), 64, "size = 96"),
        ("batch16", 96.into(), 64, "size = 96"),
        ("f32_nhwc_pre", 96.into(), 64, "preset = "),
        ("uint8_nhwc_pre", 96.into(), 64, "preset = \"raw255\""),
        ("fp16_io", 96.into(), 64, "size = 96"),
        ("out_nd11", 96.into(), 32, "size = 96"),
        ("optimum_two_outputs", 224.into(), 32, "output = \"pooler_output\""),
        ("three_outputs", 96.into(), 64, "output = \"embedding\""),
        ("tf_names", 96.into(), 64, "size = 96"),
        ("unbatched_chw", 96.into(), 64, "size = 96"),
        ("softmax_onehot", 96.into(), 64, "output = \"prob\""),
        ("scale255", 96.into(), 64, "size = 96"),
        ("f16_out", 96.into(), 12, "size = 96"),
        ("out_d_squeezed", 96.into(), 8, "output = \"y\""),
        ("paddle_three_inputs", 96.into(), 12, "input = \"x\""),
        ("fc_wants_96", 96.into(), 2, "size = 96"),
        ("old_format", 96.into(), 8, "taps = [\"f:as-is\"]"),
    ];
    for (name, size, dim, text) in forms {
        let place = with(name);
        let report = card(&place, &[]).ok().json();
        assert_eq!((&report["size"], &report["dim"]), (&size, &dim.into()), "{name}: {report}");
        let written = fs::read_to_string(place.at("m.toml")).unwrap();
        assert!(written.contains(text), "{name}: no {text} in\n{written}");
        // What was written is what runs: the second command of a newcomer.
        pictures(&place);
        let args = ["embed", "--source", "pictures", "--encoder", "m.onnx", "--out", "out", "--json"];
        let report = place.run(&args).ok().json();
        assert_eq!(report["frames"], 5, "{name}: {report}");
        let found = rows(&place.at("out/embeddings"));
        assert!(found.windows(2).all(|pair| pair[0].1 != pair[1].1), "{name}: pictures that differ have one embedding");
    }
}

#[test]
fn what_is_no_encoder_is_refused_in_one_line_and_nothing_is_written() {
    let refused: [(&str, &[&str]); 6] = [
        ("constant_output", &["m.onnx", "the same latent", "taps = ["]),
        ("dropout_training", &["m.onnx", "another latent each time", "Dropout", "model.eval()"]),
        ("video_5d", &["m.onnx", "five dimensions", "clips of a video"]),
        ("grey", &["m.onnx", "images of one channel"]),
        ("labels_only", &["m.onnx", "no output that could be a latent", "int64"]),
        ("ext", &["m.onnx", "weights are in another file (ext.onnx.data)", "onnx.save"]),
    ];
    for (name, parts) in refused {
        let place = with(name);
        card(&place, &[]).fails(3, parts);
        assert!(!place.at("m.toml").exists(), "{name}");
    }
    let texts = [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        ("<!DOCTYPE html>\n<html><body>a page</body></html>\n", "web page"),
    ];
    for (text, part) in texts {
        let place = TestDir::new();
        fs::write(place.at("m.onnx"), text).unwrap();
        for verb in [&["card", "m.onnx"][..], &["embed", "--source", ".", "--out", "out", "--encoder", "m.onnx"]] {
            let ran = place.run(verb).fails(1, &["m.onnx", part]);
            assert!(!ran.err.contains("sha256 ="), "no card is shown: {}", ran.err);
        }
        let ran = place.run(&["check", "--encoder", "m.onnx"]);
        assert!(ran.out.contains(part) && !ran.out.contains("sha256 ="), "{}", ran.out);
    }
}

#[test]
fn a_graph_that_holds_its_batch_goes_without_one() {
    let place = with("reshape_holds_batch");
    card(&place, &[]).ok();
    pictures(&place);
    let args = ["embed", "--source", "pictures", "--encoder", "m.onnx", "--out", "out"];
    place.run(&[&args[..], &["--batch", "4"]].concat()).fails(3, &["--batch 4", "Leave --batch out"]);
    place.run(&args).ok();
}

#[test]
fn a_card_that_is_there_is_kept_and_options_are_taken() {
    let place = with("scale255");
    fs::write(place.at("m.toml"), "mine").unwrap();
    card(&place, &[]).fails(2, &["m.toml is there already", "--force"]);
    assert_eq!(fs::read_to_string(place.at("m.toml")).unwrap(), "mine");
    card(&place, &["--force", "--preset", "half"]).ok();
    assert!(fs::read_to_string(place.at("m.toml")).unwrap().contains("preset = \"half\""));
    card(&place, &["--force", "--preset", "guess"]).fails(2, &["guess", "\"imagenet\""]);
    card(&place, &["--force", "--size", "64"]).fails(3, &["96", "64"]);
}

#[test]
fn mean_and_std_of_another_scale_are_doubted() {
    let place = with("scale255");
    card(&place, &[]).ok();
    let text = fs::read_to_string(place.at("m.toml")).unwrap();
    let recipe = "mean = [123.675, 116.28, 103.53]\nstd = [58.395, 57.12, 57.375]\nchannels = \"rgb\"";
    fs::write(place.at("m.toml"), text.replace("preset = \"imagenet\"", recipe)).unwrap();
    let ran = place.run(&["check", "--encoder", "m.onnx"]);
    assert!(ran.out.contains("255") && ran.out.to_lowercase().contains("warn"), "{}\n{}", ran.out, ran.err);
}

#[test]
fn a_pipe_is_no_model_card_or_library_and_nobody_waits_for_it() {
    let place = with("nonsquare_256x128");
    pictures(&place);
    card(&place, &[]).ok();
    let pipe = |name: &str| {
        fs::remove_file(place.at(name)).ok();
        assert!(std::process::Command::new("mkfifo").arg(place.at(name)).status().unwrap().success());
    };
    let embed = |more: &[&str]| place.run(&[&["embed", "--source", "pictures", "--out", "out"], more].concat());
    pipe("pipe");
    let library = ["--encoder", "m.onnx", "--set", "encoder.onnxruntime=pipe"];
    embed(&library).fails(78, &["pipe", "is not a regular file"]);
    place.run(&["card", "pipe"]).fails(1, &["pipe is not a regular file"]);
    embed(&["--encoder", "pipe"]).fails(1, &["pipe is not a regular file"]);
    pipe("m.toml");
    embed(&["--encoder", "m.onnx"]).fails(1, &["m.toml is not a regular file"]);
}
