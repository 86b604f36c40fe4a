//! Errors of the program: the exit code of the error kind, a message with what was requested, what was found and what
//! to do, and no half-written files.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use afterimage::encoder::runtime::{LibraryLookup, LibrarySource, find};
use afterimage::files::sha256_file;
use common::skip::{Needs, installed, skip};
use common::{ENCODER, Output, PATTERN, TestDir, learn_args, search_first, tree, write_folder, write_image};

/// A pattern that takes no time.
const SHORT: &str = "pattern://1?frames=60&segments=6&width=64&height=48";

/// `learn` must fail so, and leave no run behind.
fn refused(place: &TestDir, source: &str, more: &[&str], code: i32, parts: &[&str]) {
    place.learn(source, "run", more).fails(code, parts);
    nothing_in(&place.at("run"));
}

fn nothing_in(folder: &Path) {
    assert!(!folder.exists() || tree(folder).is_empty(), "{:?}", tree(folder).keys());
}

/// `learn` on [`SHORT`] with another encoder of this folder.
fn learn_with(place: &TestDir, encoder: &str, more: &[&str]) -> Output {
    let mut args = learn_args(SHORT, "run");
    let at = args.iter().position(|arg| *arg == ENCODER).unwrap();
    args[at] = encoder;
    place.run(&[&args[..], more].concat())
}

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A model of the test data as `model.onnx`, with the test encoder's card for it, changed by `card`.
fn model(place: &TestDir, name: &str, card: impl FnOnce(String) -> String) {
    fs::copy(data(name), place.at("model.onnx")).unwrap();
    let text = fs::read_to_string(data("tiny.toml")).unwrap();
    let [tiny, this] = [Path::new(ENCODER), &place.at("model.onnx")].map(|path| sha256_file(path).unwrap());
    fs::write(place.at("model.toml"), card(text.replace(&tiny, &this))).unwrap();
}

#[test]
fn a_command_line_that_makes_no_sense() {
    let place = TestDir::new();
    place.run(&["lern"]).fails(2, &["unrecognized subcommand 'lern'", "learn"]);
    place.run(&["learn", "--sauce", "x"]).fails(2, &["unexpected argument '--sauce'", "--source"]);
    place.run(&["learn", "--source", SHORT]).fails(2, &["--encoder <MODEL.onnx>", "--out <DIR>"]);
    place.run(&["embed", "--source", SHORT, "--out", "run"]).fails(2, &["--run <DIR>"]);
    refused(&place, "pattern://1?colour=red&rate=nan", &[], 2, &["unknown option `colour`", "rate"]);
    refused(&place, "ftp://host/clip.mp4", &[], 2, &["unknown kind of source `ftp:`", "pattern://SEED"]);
    refused(&place, "rtsp://", &[], 2, &["rtsp://HOST/PATH"]);
    refused(&place, "https://", &[], 2, &["https://HOST/PATH"]);
    place.run(&["embed", "--run", "none", "--source", SHORT, "--out", "run"]).fails(2, &["none", "run.json", "learn"]);
    nothing_in(&place.at("run"));
}

#[test]
fn a_configuration_with_mistakes() {
    let place = TestDir::new();
    fs::write(
        place.at("learn.toml"),
        "learn = { cpu_share = 7.0, optimizer.learning_rate = nan, temprature = 0.1 }\n\
         head = { dim = \"many\", hidden = -3 }\n[promotion]\nquantile = -nan\n[sauce]\nx = 1\n",
    )
    .unwrap();
    let parts = [
        "7 mistakes in the configuration (learn.toml)",
        "learn.cpu_share = 7: must be from 0.01 to 1",
        "learn.optimizer.learning_rate = NaN: must be from 0 to 1",
        "learn.temprature: unknown key; did you mean objective.temperature?",
        "head.dim = \"many\": must be integer, found string",
        "head.hidden = -3: must not be negative",
        "promotion.quantile = NaN: must be from 0.001 to 0.5",
        "sauce: unknown key",
    ];
    refused(&place, SHORT, &[], 78, &parts);
    fs::write(place.at("learn.toml"), "learn = {{").unwrap();
    refused(&place, SHORT, &[], 78, &["learn.toml is not TOML", "line 1"]);
    fs::remove_file(place.at("learn.toml")).unwrap();
    refused(&place, SHORT, &[], 78, &["cannot read the config file learn.toml", "No such file"]);
    let place = TestDir::new();
    let typo = ["--set", "learn.cpu_shar=0.5", "--set", "export.dtype=f64", "--set", "nonsense"];
    let parts = ["3 mistakes", "learn.cpu_shar: unknown key; did you mean cpu_share?", "f16", "--set nonsense: write"];
    refused(&place, SHORT, &typo, 78, &parts);
    let gaps = ["--set", "learn.sampling.gap_min_secs=5"];
    refused(
        &place,
        SHORT,
        &gaps,
        78,
        &["learn.sampling.gap_min_secs = 5: must not be above learn.sampling.gap_max_secs = 1.2"],
    );
    let size = ["--set", "encoder.input_size=33"];
    refused(&place, SHORT, &size, 78, &["encoder.input_size = 33", "multiples of 8", "32 or 40"]);
}

#[test]
fn an_onnx_runtime_that_cannot_be_used() {
    let place = TestDir::new();
    let named = |path: &str| format!("encoder.onnxruntime={path}");
    let missing = named("/nowhere/libonnxruntime.so");
    let parts = ["encoder.onnxruntime names /nowhere/libonnxruntime.so", "is not there", "1.23 or later"];
    refused(&place, SHORT, &["--set", &missing], 78, &parts);
    // A library for another machine: as far as its header tells.
    let (machine, name) = if cfg!(target_arch = "aarch64") { (62, "x86-64") } else { (183, "AArch64") };
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(64, 0);
    (header[16], header[18]) = (3, machine);
    fs::write(place.at("foreign.so"), header).unwrap();
    refused(&place, SHORT, &["--set", &named("foreign.so")], 78, &["foreign.so", name, "for this machine"]);
    refused(&place, SHORT, &["--set", &named("learn.toml")], 78, &["learn.toml", "libonnxruntime.so"]);
    let variable = |command: &mut Command| {
        command.env("ORT_DYLIB_PATH", "/nowhere/x.so");
    };
    let ran = place.start_with(&learn_args(SHORT, "run"), variable).end();
    ran.fails(1, &["ORT_DYLIB_PATH names /nowhere/x.so", "is not there", "unset it"]);
    // Nowhere at all.
    let installed =
        find("").into_iter().any(|c| c.origin == LibrarySource::System && c.found == LibraryLookup::Library);
    if installed {
        return skip(Needs::NoSystemRuntime, "in part: ONNX Runtime is installed for the whole system");
    }
    let empty = |command: &mut Command| {
        command.env("HOME", "/nowhere").env_remove("XDG_CACHE_HOME").env_remove("ORT_DYLIB_PATH");
    };
    let ran = place.start_with(&learn_args(SHORT, "run"), empty).end();
    ran.fails(1, &["1.23 or later) was not found", "/nowhere/.cache/afterimage", "tools/fetch_onnxruntime.sh"]);
    nothing_in(&place.at("run"));
}

#[test]
fn a_provider_that_is_not_there() {
    let place = TestDir::new();
    let asked = ["--set", "encoder.providers=[\"cuda\",\"cpu\"]"];
    let ran = place.learn(SHORT, "run", &asked);
    if ran.status.success() {
        return skip(Needs::NoCuda, "this machine has CUDA");
    }
    ran.fails(1, &["encoder.providers asks for cuda", "not in this build", "encoder.fallback = true"]);
    nothing_in(&place.at("run"));
    let report = place.learn(SHORT, "run", &[&asked[..], &["--set", "encoder.fallback=true"]].concat()).ok();
    let report = report.said(&["runs on cpu", "asks for cuda"]).json();
    assert_eq!(report["encoder"]["provider"], "cpu");
    assert!(report["encoder"]["fallback"].as_str().unwrap().contains("cuda"), "{report}");
    let events = afterimage::journal::read(&place.at("run")).unwrap();
    assert!(events[0]["fallback"].as_str().unwrap().contains("cuda"), "{}", events[0]);
}

#[test]
fn a_model_that_is_not_what_its_card_says() {
    let place = TestDir::new();
    fs::copy(ENCODER, place.at("model.onnx")).unwrap();
    let shown = ["no model card", "model.toml", "`afterimage card model.onnx`", "image"];
    learn_with(&place, "model.onnx", &[]).fails(78, &shown);
    model(&place, "tiny.onnx", |card| card.replace("size = 32", "size = 0").replace("\"rgb\"", "\"rbg\""));
    learn_with(&place, "model.onnx", &[]).fails(78, &["size", "channels", "bgr"]);
    model(&place, "tiny.onnx", |card| card.replace("\"image\"", "\"picture\""));
    learn_with(&place, "model.onnx", &[]).fails(3, &["does not fit its card", "no input \"picture\"", "image"]);
    model(&place, "fixed.onnx", |card| card);
    learn_with(&place, "model.onnx", &["--set", "encoder.input_size=64"])
        .fails(3, &["does not fit its card", "64 x 64"]);
    model(&place, "nan.onnx", |card| card);
    learn_with(&place, "model.onnx", &[]).fails(3, &["model.onnx on cpu", "not finite", "export it again"]);
    model(&place, "tiny.onnx", |card| card.replace("sha256 = \"", "sha256 = \"00").replace("f13e\"", "f1\""));
    learn_with(&place, "model.onnx", &[]).fails(3, &["is not the model of its card", "SHA-256"]);
    model(&place, "tiny.toml", |card| card);
    learn_with(&place, "model.onnx", &[]).fails(1, &["model.onnx is not an ONNX model", "Give the .onnx file"]);
    fs::remove_file(place.at("model.onnx")).unwrap();
    learn_with(&place, "model.onnx", &[]).fails(1, &["cannot open model.onnx", "No such file"]);
    nothing_in(&place.at("run"));
}

#[test]
fn a_source_that_is_not_there() {
    let place = TestDir::new();
    refused(&place, "nowhere", &[], 1, &["cannot open the source nowhere", "No such file", "pattern://SEED"]);
    refused(&place, "dir:nowhere", &[], 1, &["nowhere", "No such file"]);
    refused(&place, "file:nowhere.mp4", &[], 1, &["nowhere.mp4", "No such file"]);
    fs::create_dir_all(place.at("empty/below")).unwrap();
    fs::write(place.at("empty/notes.txt"), "no image").unwrap();
    refused(&place, "empty", &[], 1, &["no images in the folder empty", "JPEG"]);
    let camera = (1, "no camera at /dev/video97");
    refused(&place, "v4l2:///dev/video97", &[], camera.0, &[camera.1]);
    refused(&place, "/dev/video97", &[], camera.0, &[camera.1]);
    refused(&place, "/dev/null", &[], 1, &["/dev/null"]);
    place.learn(SHORT, "learn.toml", &[]).fails(1, &["learn.toml"]);
    assert!(fs::read_to_string(place.at("learn.toml")).unwrap().contains("first_fit_frames"));
}

#[test]
fn images_that_cannot_be_read_are_skipped_counted_and_named() {
    let place = TestDir::new();
    write_folder(&place.at("frames"), SHORT, "jpg");
    let cut = place.at("frames/003/00025.jpg");
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 3]).unwrap();
    fs::write(place.at("frames/004/00033.jpg"), "no image").unwrap();
    // Another size is no fault.
    let wide = common::frames("pattern://2?frames=1&width=200&height=40").remove(0);
    write_image(&place.at("frames/005/00041.jpg"), &wide);
    let ran = place.learn("frames", "run", &[]).ok();
    let ran =
        ran.said(&["003/00025.jpg", "004/00033.jpg", "skipped in the folder frames: images that cannot be read (2)"]);
    let report = ran.json();
    assert_eq!((&report["drops"]["unreadable"], &report["frames"]), (&2.into(), &58.into()), "{report}");
    assert_eq!(report["segments"], 6);
    let rows = common::rows(&place.at("run/embeddings"));
    assert!(rows.iter().all(|(record, _)| record.frame != 25 && record.frame != 33) && rows.len() == 58);
    for item in fs::read_dir(place.at("frames/001")).unwrap() {
        fs::write(item.unwrap().path(), "no image").unwrap();
    }
    place.learn("frames/001", "none", &[]).fails(1, &["none of the 10 images in the folder frames/001 can be read"]);
}

#[test]
fn videos_that_break_off_change_size_or_stall() {
    let place = TestDir::new();
    fs::write(place.at("clip.mp4"), "\0for a decoder that does not look").unwrap();
    let learn = |decoder: &str, run: &str, more: &[&str]| {
        let args = [&learn_args("file:clip.mp4", run), more].concat();
        place.start_with(&args, search_first(data("decoders").join(decoder).as_os_str())).end()
    };
    // Two frames of different sizes, then the decoder fails.
    let ran = learn("fails", "fails", &[]).ok();
    let ran =
        ran.said(&["parts of the video clip.mp4 could not be read", "ffmpeg gave 2 frames", "the disk is on fire"]);
    assert_eq!((&ran.json()["frames"], &ran.json()["drops"]["unreadable"]), (&2.into(), &1.into()));
    let ran = learn("breaks", "breaks", &[]).ok().said(&["ffmpeg gave 1 frames", "in the middle of a frame"]);
    assert_eq!((&ran.json()["frames"], &ran.json()["drops"]["unreadable"]), (&1.into(), &1.into()));
    let stall = ["--set", "source.stall_secs=0.5"];
    let ran = learn("stalls", "stalls", &stall);
    ran.fails(1, &["the video decoder ffmpeg stalled", "0.5 s", "source.stall_secs", "clip.mp4", "last words"]);
    // The frames before the fault are told, so that the run goes on behind them.
    let events = afterimage::journal::read(&place.at("stalls")).unwrap();
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["frames"], &last["ended"]), (&"stop".into(), &1.into(), &false.into()), "{last}");
    // The decoder and what it had started are gone.
    for id in fs::read_to_string(place.at("clip.mp4.pids")).unwrap().split_whitespace() {
        let state = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "process {id} still runs: {state}");
    }
    if !installed(Needs::Ffmpeg, &["ffmpeg"]) {
        return;
    }
    refused(&place, "file:clip.mp4", &[], 1, &["ffmpeg cannot read the video clip.mp4"]);
    // A real video, cut off in its middle.
    write_folder(&place.at("frames"), SHORT, "png");
    let mut draw = Command::new("ffmpeg");
    draw.args(["-v", "error", "-framerate", "10", "-pattern_type", "glob", "-i"]).arg(place.at("frames/*/*.png"));
    assert!(draw.args(["-c:v", "mjpeg"]).arg(place.at("real.avi")).status().unwrap().success());
    let bytes = fs::read(place.at("real.avi")).unwrap();
    fs::write(place.at("real.avi"), &bytes[..bytes.len() / 2]).unwrap();
    let ran = place.learn("real.avi", "real", &[]).ok();
    let report = ran.said(&["parts of the video real.avi could not be read"]).json();
    let frames = report["frames"].as_u64().unwrap();
    assert!(frames > 20 && frames < 60 && report["drops"]["unreadable"] == 1, "{report}");
}

#[test]
fn a_run_goes_on_only_as_it_was_begun() {
    let place = TestDir::new();
    place.learn(SHORT, "run", &[]).ok();
    let before = tree(&place.at("run"));
    place.learn(SHORT, "run", &[]).fails(2, &["run holds a run already", "--resume"]);
    let set = ["--resume", "--set", "learn.seed=5", "--set", "head.dim=8"];
    let parts = ["another configuration", "learn.seed: 0 -> 5", "head.dim: 24 -> 8"];
    place.learn(SHORT, "run", &set).fails(78, &parts);
    place.learn("pattern://2?frames=60", "run", &["--resume"]).fails(2, &["run run was made from", "same --source"]);
    let size = ["--set", "encoder.input_size=64"];
    let parts = ["another preparation", "different spaces", "make a run of its own"];
    place.learn(SHORT, "run", &[&size[..], &["--resume"]].concat()).fails(3, &parts);
    place.run(&[&["embed", "--run", "run", "--source", SHORT, "--out", "e"], &size[..]].concat()).fails(3, &parts);
    model(&place, "fixed.onnx", |card| card);
    let parts = ["another encoder", "different spaces"];
    learn_with(&place, "model.onnx", &["--resume"]).fails(3, &parts);
    let other = ["embed", "--run", "run", "--encoder", "model.onnx", "--source", SHORT, "--out", "e"];
    place.run(&other).fails(3, &parts);
    let other = ["export", "--run", "run", "--encoder", "model.onnx", "--onnx", "e/m.onnx"];
    place.run(&other).fails(3, &parts);
    nothing_in(&place.at("e"));
    common::assert_same(&tree(&place.at("run")), &before);
    // What is there is not written over.
    place.run(&["embed", "--run", "run", "--source", SHORT, "--out", "run"]).fails(2, &["has embeddings already"]);
    place.run(&["replay", "--run", "run", "--out", "again"]).fails(2, &["recorded no latents", "export.latents=true"]);
    nothing_in(&place.at("again"));
    common::assert_same(&tree(&place.at("run")), &before);
}

#[test]
fn data_that_is_not_laid_out_as_eval_needs_it() {
    let place = TestDir::new();
    place.learn(SHORT, "run", &[]).ok();
    let eval = |parts: &[&str], code| drop(place.run(&["eval", "--data", "data", "--run", "run"]).fails(code, parts));
    eval(&["data/gallery", "No such file"], 1);
    write_folder(&place.at("data/gallery"), SHORT, "png");
    eval(&["data/query", "No such file"], 1);
    let frame = common::frames(SHORT).remove(0);
    write_image(&place.at("data/query/1.png"), &frame);
    eval(&["data/query/1.png lies in no class folder", "CLASS"], 2);
    fs::remove_file(place.at("data/query/1.png")).unwrap();
    fs::create_dir_all(place.at("data/query/001")).unwrap();
    fs::write(place.at("data/query/001/1.png"), "no image").unwrap();
    eval(&["no image in gallery or query could be read"], 1);
    // Classes that cannot be told apart, or cannot be found.
    write_image(&place.at("data/query/unknown/1.png"), &frame);
    eval(&["data/query has 1 class that data/gallery lacks", "unknown", "Put images"], 3);
    fs::remove_dir_all(place.at("data/query/unknown")).unwrap();
    write_image(&place.at("data/query/001/1.png"), &frame);
    let said = place.run(&["eval", "--data", "data", "--run", "run"]).ok();
    said.said(&["data/query lacks", "5 classes of the gallery, which only distract: 002, 003"]);
    let probe = ["--set", "promotion.probe=data"];
    place.learn(SHORT, "other", &probe).fails(78, &["promotion.probe", "two classes of each", "data/gallery"]);
    for class in fs::read_dir(place.at("data/gallery")).unwrap().map(|class| class.unwrap().path()) {
        if !class.ends_with("001") {
            fs::remove_dir_all(class).unwrap();
        }
    }
    eval(&["data/gallery has 1 class: at least 2"], 3);
    let probe = ["--set", "promotion.probe=data/gallery"];
    place.learn(SHORT, "other", &probe).fails(78, &["promotion.probe", "1 classes; at least 2"]);
    let gone = ["eval", "--data", "data", "--run", "run", "--encoder", "model.onnx"];
    place.run(&gone).fails(2, &["model.onnx", "is not there", "--encoder"]);
}

#[test]
fn text_and_json_tell_the_same() {
    let place = TestDir::new();
    let report = place.learn(PATTERN, "run", &[]).ok().json();
    let text =
        place.run(&["learn", "--config", "learn.toml", "--encoder", ENCODER, "--source", PATTERN, "--out", "b"]).ok();
    let (head, space) = (&report["head"]["number"], report["head"]["space"].as_str().unwrap());
    for part in [format!("exported: head {head}"), space.into(), format!("{} gradient steps", report["steps"])] {
        assert!(text.out.contains(&part), "{part:?} is not in\n{}", text.out);
    }
    for key in ["frames", "drops", "pairs", "segments", "steps", "promotions", "health", "gain", "speed"] {
        assert!(!report[key].is_null(), "{key} is missing: {report}");
    }
    for key in ["first_embedding_ms", "latency_p50_ms", "latency_p99_ms", "frames_per_sec", "peak_megabytes"] {
        assert!(report["speed"][key].as_f64().unwrap() > 0.0, "{key}: {report}");
    }
}
