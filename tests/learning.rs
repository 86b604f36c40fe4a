//! Learning helps on unseen frames, does no harm where there is nothing to learn, and exports to one ONNX file that
//! gives the same results.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::path::Path;

use afterimage::config;
use afterimage::encoder::{Encoder, ModelCard, Preprocessor, runtime};
use afterimage::frame::Frame;
use common::{ENCODER, PATTERN, TestDir, frames, rows, write_folder, write_image};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Scenes that no learner saw as classes: their first frames as gallery, later ones as queries.
fn write_data(folder: &Path, uri: &str) {
    let (mut scene, mut place) = (0, 0);
    for frame in frames(uri) {
        (scene, place) = if frame.cut { (scene + 1, 0) } else { (scene, place + 1) };
        let half = if place < 4 { "gallery" } else { "query" };
        write_image(&folder.join(format!("{half}/{scene:03}/{place}.png")), &frame);
    }
}

#[test]
fn a_promoted_head_beats_the_frozen_encoder_on_scenes_it_never_saw() {
    let place = TestDir::new();
    let report = place.learn("pattern://7?frames=4000&segments=400&width=64&height=48", "run", &[]).ok().json();
    for side in ["next_frame", "auc"] {
        let gain = &report["gain"][side];
        assert!(gain["lower_bound"].as_f64().unwrap() > 0.0, "{side}: {gain}");
        assert!(gain["candidate"].as_f64() > gain["reference"].as_f64(), "{side}: {gain}");
    }
    let mut gain = [0.0; 2];
    for seed in [101, 102, 103] {
        let data = format!("data{seed}");
        write_data(&place.at(&data), &format!("pattern://{seed}?frames=1200&segments=100&width=64&height=48"));
        let eval = place.run(&["eval", "--data", &data, "--run", "run", "--json"]).ok().json();
        assert_eq!((eval["classes"].as_u64(), eval["queries"].as_u64()), (Some(100), Some(800)));
        assert!(eval["own_output"].is_null(), "no taps, no second baseline: {eval}");
        for (gain, key) in gain.iter_mut().zip(["knn1", "knn5"]) {
            *gain += (eval["adapted"][key].as_f64().unwrap() - eval["frozen"][key].as_f64().unwrap()) / 3.0;
        }
    }
    assert!(gain[0] > 0.005 && gain[1] > 0.02, "mean gain in 1-NN and 5-NN: {gain:?}");
}

fn noise(dice: &mut ChaCha8Rng) -> Frame {
    let mut pixels = vec![0; 64 * 48 * 3];
    dice.fill_bytes(&mut pixels);
    Frame { width: 64, height: 48, pixels, ..Frame::default() }
}

#[test]
fn nothing_is_promoted_where_there_is_nothing_to_learn() {
    let place = TestDir::new();
    // As strict as by default, but with fewer frames.
    let strict = ["--set", "promotion.quantile=0.05", "--set", "promotion.min_blocks=14"];
    let still = frames("pattern://1?frames=1&width=64&height=48").remove(0);
    for seed in 0..3 {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let (noise_only, scene) = (format!("noise{seed}"), format!("scene{seed}"));
        for i in 0..1500 {
            // Frames that have nothing in common, in shots of 20.
            write_image(&place.at(&noise_only).join(format!("{:03}/{i:05}.png", i / 20)), &noise(&mut dice));
            // One scene, with the noise of a sensor.
            let mut frame = still.clone();
            for pixel in &mut frame.pixels {
                *pixel = pixel.saturating_add((dice.next_u32() & 7) as u8);
            }
            write_image(&place.at(&scene).join(format!("{i:05}.png")), &frame);
        }
        for source in [noise_only, scene] {
            let report = place.learn(&source, &format!("run-{source}"), &strict).ok().json();
            if source.starts_with("noise") {
                assert!(report["learned"]["fits"].as_u64().unwrap() > 3, "{source}: {report}");
            } else {
                // The noise is known for what it is after seconds.
                assert!(report["left_out"]["still"].as_u64().unwrap() > 1300, "{source}: {report}");
            }
            assert_eq!(report["promotions"], 0, "{source}: {report}");
            assert_eq!(report["head"]["number"], 0, "{source}: {report}");
            assert!(!place.at(&format!("run-{source}/latest")).exists());
        }
    }
    // A scene in which nothing stirs at all is left out whole.
    for i in 0..200 {
        write_image(&place.at(&format!("still/{i:05}.png")), &still);
    }
    let report = place.learn("still", "run-still", &strict).ok().json();
    assert_eq!((&report["left_out"]["still"], &report["promotions"]), (&199.into(), &0.into()), "{report}");
}

#[test]
fn the_exported_model_gives_the_rows_of_embed() {
    let place = TestDir::new();
    place.learn(PATTERN, "run", &[]).ok();
    let report = place.run(&["export", "--run", "run", "--onnx", "out/merged.onnx", "--json"]).ok().json();
    assert!(report["least_cosine"].as_f64().unwrap() >= 0.99999, "{report}");
    assert!(report["head"].as_u64().unwrap() >= 1);
    write_folder(&place.at("frames"), "pattern://9?frames=60&segments=6&width=80&height=50", "png");
    place.run(&["embed", "--run", "run", "--source", "frames", "--out", "embedded"]).ok();
    let rows = rows(&place.at("embedded/embeddings"));
    let frames = frames(place.at("frames").to_str().unwrap());
    assert_eq!(rows.len(), frames.len());

    let card = ModelCard::beside(Path::new(ENCODER)).unwrap();
    let runtime = runtime::load("").unwrap();
    let merged = std::fs::read(place.at("out/merged.onnx")).unwrap();
    let config = config::Encoder::default();
    let mut model =
        Encoder::from_bytes(&runtime, &merged, &card.input, "embedding", card.size, &config, "merged").unwrap();
    assert_eq!(Some(model.dim() as u64), report["dim"].as_u64());
    let mut prepare = Preprocessor::new(&card, card.size).unwrap();
    let mut tensor = vec![0.0; card.size.values()];
    let mut embedding = vec![0.0; model.dim()];
    let mut distinct = std::collections::BTreeSet::new();
    for (frame, (record, row)) in frames.iter().zip(&rows) {
        prepare.run(frame, &mut tensor).unwrap();
        model.encode(&tensor, &mut embedding).unwrap();
        let row: Vec<f32> = row.iter().map(|bits| f32::from_bits(*bits)).collect();
        let worst = row.iter().zip(&embedding).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "frame {}: {worst}", record.frame);
        let cosine: f32 = row.iter().zip(&embedding).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.99999, "frame {}: {cosine}", record.frame);
        distinct.insert(row[0].to_bits());
    }
    assert!(distinct.len() > 50, "all frames look alike: this shows nothing");
}

#[test]
fn a_run_over_taps_is_evaluated_exported_and_kept_apart() {
    let place = TestDir::new();
    let taps = "encoder.taps=[\"grid4:max\",\"grid4:gem2\"]";
    place.learn(PATTERN, "run", &["--set", taps, "--set", "export.latents=true"]).ok();
    let info: serde_json::Value = serde_json::from_slice(&std::fs::read(place.at("run/run.json")).unwrap()).unwrap();
    assert_eq!((&info["latent_dim"], &info["latent_parts"][1]["name"]), (&24.into(), &"grid4:gem2".into()), "{info}");

    write_data(&place.at("data"), "pattern://101?frames=240&segments=20&width=64&height=48");
    let eval = place.run(&["eval", "--data", "data", "--run", "run", "--json"]).ok().json();
    for features in ["own_output", "frozen", "adapted"] {
        let mean = eval[features]["mean"].as_f64().unwrap();
        assert!(mean > 0.2 && mean <= 1.0, "{features}: {eval}");
    }
    assert_ne!(eval["own_output"], eval["frozen"], "{eval}");

    let report = place.run(&["export", "--run", "run", "--onnx", "merged.onnx", "--json"]).ok().json();
    assert!(report["least_cosine"].as_f64().unwrap() >= 0.99999 && report["head"].as_u64() >= Some(1), "{report}");
    let merged = std::fs::read(place.at("merged.onnx")).unwrap();
    for part in ["afterimage.taps", "grid4:max", "afterimage.fit\x12\x07stretch", "afterimage.input_size\x12\x0532 32"]
    {
        assert!(merged.windows(part.len()).any(|bytes| bytes == part.as_bytes()), "no {part} in the merged model");
    }

    // Latents of other taps are another space.
    let other = ["--set", "encoder.taps=[\"output\"]"];
    for verb in [
        vec!["embed", "--run", "run", "--source", PATTERN, "--out", "other"],
        vec!["eval", "--run", "run", "--data", "data"],
        vec!["replay", "--run", "run", "--out", "other"],
    ] {
        place.run(&[verb.as_slice(), &other].concat()).fails(3, &["encoder.taps"]);
    }
}
