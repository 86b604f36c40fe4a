#![allow(clippy::unwrap_used, reason = "tests")]
use std::path::Path;

use afterimage_learn::config::AugmentationSettings;
use serde_json::Value;

use super::*;

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/views/golden.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn pixels(value: &Value) -> Vec<u8> {
    numbers(value).into_iter().map(|x| x as u8).collect()
}

fn seen(golden: &Value, view: Augmentation) -> Vec<u8> {
    let mut out = pixels(&golden["picture"]);
    view.apply([golden["side"].as_u64().unwrap() as usize; 2], &mut out, &mut Vec::new());
    out
}

#[test]
fn colour_is_pillows_to_the_bit() {
    let golden = golden();
    let cases = golden["colour"].as_array().unwrap();
    assert!(cases.len() >= 4);
    for case in cases {
        let factors = numbers(&case["factors"]);
        let colour = Some([0, 1, 2].map(|i| factors[i] as f32));
        assert_eq!(
            seen(&golden, Augmentation { colour, ..Augmentation::default() }),
            pixels(&case["pixels"]),
            "{factors:?}"
        );
    }
    // The last case has no saturation, which is what grey produces.
    assert_eq!(
        seen(&golden, Augmentation { grey: true, ..Augmentation::default() }),
        pixels(&cases.last().unwrap()["pixels"])
    );
    assert_eq!(seen(&golden, Augmentation { flip: true, ..Augmentation::default() }), pixels(&golden["flip"]));
    assert_eq!(seen(&golden, Augmentation::default()), pixels(&golden["picture"]));
}

#[test]
fn blur_is_the_convolution() {
    let golden = golden();
    let side = golden["side"].as_u64().unwrap() as f32;
    for case in golden["blur"].as_array().unwrap() {
        let sigma = case["sigma"].as_f64().unwrap() as f32;
        let blurred = seen(&golden, Augmentation { blur: Some(sigma * 224.0 / side), ..Augmentation::default() });
        for (ours, right) in blurred.into_iter().zip(numbers(&case["pixels"])) {
            assert!((f64::from(ours) - right).abs() < 0.51, "sigma {sigma}: {ours}, not {right}");
        }
    }
}

#[test]
fn views_follow_from_seed_and_position() {
    let learn = |share: f64, kinds: &[&str], seed: u64| Training {
        augmentation: AugmentationSettings {
            share,
            kinds: kinds.iter().map(|k| k.parse().unwrap()).collect(),
            ..AugmentationSettings::default()
        },
        seed,
        ..Training::default()
    };
    assert!(Augmenter::new(&learn(0.0, &["colour"], 0)).is_none());
    let all = Augmenter::new(&learn(0.25, &["flip", "crop", "colour", "grey", "blur"], 3)).unwrap();
    let drawn: Vec<Option<Augmentation>> = (0..4000).map(|i| all.of(i)).collect();
    assert_eq!(drawn, (0..4000).map(|i| all.of(i)).collect::<Vec<_>>());
    let views: Vec<Augmentation> = drawn.iter().copied().flatten().collect();
    assert!((900..1100).contains(&views.len()), "{}", views.len());
    let share = |has: fn(&Augmentation) -> bool| views.iter().filter(|v| has(v)).count() as f64 / views.len() as f64;
    assert!((share(|v| v.flip) - 0.5).abs() < 0.06 && (share(|v| v.grey) - 0.2).abs() < 0.06);
    assert!((share(|v| v.blur.is_some()) - 0.5).abs() < 0.06);
    for view in &views {
        let [brightness, contrast, saturation] = view.colour.unwrap();
        assert!((0.6..=1.4).contains(&brightness) && (0.6..=1.4).contains(&contrast));
        assert!((0.5..=1.5).contains(&saturation));
        let [r, x, y] = view.crop.unwrap();
        assert!((0.5..=1.0).contains(&(r * r)) && (0.0..1.0).contains(&x) && (0.0..1.0).contains(&y));
    }
    // A kind draws the same numbers alone as together with others; another seed draws different ones.
    let alone = Augmenter::new(&learn(0.25, &["colour"], 3)).unwrap();
    let colours = |views: &Augmenter| (0..100).map(|i| views.of(i).map(|v| v.colour)).collect::<Vec<_>>();
    assert_eq!(colours(&alone), colours(&all));
    assert!(alone.of(views.len() as u64).is_none_or(|v| v.crop.is_none() && !v.flip));
    assert_ne!(colours(&alone), colours(&Augmenter::new(&learn(0.25, &["colour"], 4)).unwrap()));
}
