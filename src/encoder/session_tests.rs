#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::encoder::Preprocessor;
use crate::encoder::tests::runtime;
use crate::frame::Frame;
use std::path::PathBuf;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn card() -> ModelCard {
    ModelCard::beside(&data("tiny.onnx")).unwrap()
}

fn config() -> config::Encoder {
    config::Encoder { threads: 1, ..config::Encoder::default() }
}

/// The message that refuses a test model under the card of the test encoder with `output`.
fn refused(name: &str, output: &str) -> String {
    let bytes = std::fs::read(data(name)).unwrap();
    Encoder::from_bytes(&runtime(), &bytes, "image", output, Size::square(32), &config(), name).unwrap_err().to_string()
}

fn frame(width: u32, height: u32) -> Frame {
    let pixels = (0..width * height * 3).map(|i| (i * 7 % 256) as u8).collect();
    Frame { width, height, pixels, ..Frame::default() }
}

#[test]
fn encodes_frames() {
    let mut encoder = Encoder::open(&runtime(), &data("tiny.onnx"), &card(), &config()).unwrap();
    assert_eq!(
        (encoder.size(), encoder.dim(), encoder.provider(), encoder.threads()),
        (Size::square(32), 32, "cpu", 1)
    );
    assert_eq!((encoder.fallback(), encoder.sha256()), (None, card().sha256.as_str()));
    let mut prepare = Preprocessor::new(&card(), Size::square(32)).unwrap();
    let (mut tensor, mut one, mut two) = (vec![0.0; 3 * 32 * 32], vec![0.0; 32], vec![0.0; 32]);
    prepare.run(&frame(64, 48), &mut tensor).unwrap();
    encoder.encode(&tensor, &mut one).unwrap();
    prepare.run(&frame(48, 64), &mut tensor).unwrap();
    encoder.encode(&tensor, &mut two).unwrap();
    assert_ne!(one, two);
    prepare.run(&frame(64, 48), &mut tensor).unwrap();
    encoder.encode(&tensor, &mut two).unwrap();
    assert_eq!(one, two, "same input, same bits");
    for (tensor, out) in [(&tensor[1..], 32), (&tensor[..], 31)] {
        let text = encoder.encode(tensor, &mut vec![0.0; out]).unwrap_err().to_string();
        assert!(text.contains("takes 3072 values and gives 32"), "{text}");
    }
}

#[test]
fn agrees_with_arithmetic() {
    // root.onnx is the mean over the image of sqrt(value + 3), so the answer is known.
    let bytes = std::fs::read(data("root.onnx")).unwrap();
    let mut encoder =
        Encoder::from_bytes(&runtime(), &bytes, "image", "latent", Size::square(16), &config(), "root").unwrap();
    let tensor: Vec<f32> = (0..3 * 256).map(|i| (i / 256) as f32).collect();
    let mut out = [0.0; 3];
    encoder.encode(&tensor, &mut out).unwrap();
    for (plane, value) in out.iter().enumerate() {
        assert!((value - (plane as f32 + 3.0).sqrt()).abs() < 1e-5);
    }
    // The caller must notice a frame that gives NaN; the next good frame works again.
    encoder.encode(&vec![-10.0; 768], &mut out).unwrap();
    assert!(out.iter().all(|v| v.is_nan()));
    encoder.encode(&tensor, &mut out).unwrap();
    assert!(out.iter().all(|v| v.is_finite()));
}

#[test]
fn threads_do_not_change_the_bits() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mobilenetv2.onnx");
    let card = ModelCard::beside(&model).unwrap();
    let mut latents = Vec::new();
    for threads in [1, 2] {
        let config = config::Encoder { threads, input_size: Size::square(96), ..config() };
        let mut encoder = Encoder::open(&runtime(), &model, &card, &config).unwrap();
        assert_eq!((encoder.size(), encoder.dim(), encoder.threads()), (Size::square(96), 2240, threads as usize));
        let mut tensor = vec![0.0; 3 * 96 * 96];
        Preprocessor::new(&card, encoder.size()).unwrap().run(&frame(320, 240), &mut tensor).unwrap();
        let mut out = vec![0.0; 2240];
        encoder.encode(&tensor, &mut out).unwrap();
        latents.push(out);
    }
    assert_eq!(latents[0], latents[1]);
}

#[test]
fn the_card_picks_the_output() {
    let bytes = std::fs::read(data("two_outputs.onnx")).unwrap();
    let encoder =
        Encoder::from_bytes(&runtime(), &bytes, "image", "latent", Size::square(32), &config(), "two").unwrap();
    assert_eq!(encoder.dim(), 4);
    let text = refused("two_outputs.onnx", "pooled");
    assert!(text.contains("it has no output \"pooled\""), "{text}");
    assert!(text.contains("outputs grid: float32 [n, 4, gh, gw], latent: float32 [n, 4]"), "{text}");
    assert!(
        refused("two_outputs.onnx", "grid").contains("output grid: float32 [n, 4, gh, gw]: a latent must be [n, d]")
    );
}

#[test]
fn models_with_faults_are_refused() {
    for (name, says) in [
        ("nan.onnx", "nan.onnx on cpu: 4 of 4 values are not finite for a test image"),
        ("half.onnx", "input image: float16 [n, 3, h, w]: must be [n, 3, h, w] of float32"),
        ("undeclared.onnx", "output latent is [1, 3, 1, 1] for one image: a latent must be [n, d]"),
        ("two_inputs.onnx", "it has 2 inputs; an encoder takes one image"),
        ("bytes.onnx", "input image: uint8 [n, 3, h, w]: must be [n, 3, h, w] of float32"),
        ("channels_last.onnx", "input image: float32 [n, h, w, 3]: must be [n, 3, h, w] of float32"),
        ("tall.onnx", "input image: float32 [n, 3, 64, w]: cannot take one image of 32 x 32 pixels"),
        ("opset.onnx", "The model is of a newer opset than this library knows: export it with an older one"),
        ("format.onnx", "The model is of a newer ONNX format than this library knows"),
        ("operator.onnx", "The model has an operator that this library does not know"),
        ("huge.onnx", "There is not memory enough for this model: end other programs"),
        ("external.onnx", "its weights are in another file (external.bin); an encoder is one file"),
    ] {
        let text = refused(name, "latent");
        assert!(text.contains(says), "{name}: expected {says:?}, got\n{text}");
    }
    let bytes = std::fs::read(data("tiny.onnx")).unwrap();
    let error =
        Encoder::from_bytes(&runtime(), &bytes, "pixels", "features", Size::square(32), &config(), "tiny").unwrap_err();
    assert_eq!(error.exit_code(), 3);
    let text = error.to_string();
    for part in
        ["tiny does not fit its card:", "it has no input \"pixels\"", "it has no output \"features\"", "inputs image:"]
    {
        assert!(text.contains(part), "missing {part:?} in\n{text}");
    }
}

#[test]
fn a_fixed_size_is_kept_to() {
    let bytes = std::fs::read(data("fixed.onnx")).unwrap();
    let open =
        |side| Encoder::from_bytes(&runtime(), &bytes, "image", "latent", Size::square(side), &config(), "fixed");
    assert_eq!(open(32).unwrap().dim(), 4);
    let text = open(64).unwrap_err().to_string();
    assert!(text.contains("image: float32 [1, 3, 32, 32]: cannot take one image of 64 x 64 pixels"), "{text}");
}

#[test]
fn files_that_are_not_the_cards_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.onnx");
    let open = || Encoder::open(&runtime(), &path, &card(), &config()).unwrap_err();
    assert!(open().chain().contains("x.onnx: No such file"));
    std::fs::write(&path, b"garbage, not a model").unwrap();
    assert!(open().to_string().contains("x.onnx is not an ONNX model"));
    std::fs::copy(data("root.onnx"), &path).unwrap();
    let error = open();
    assert_eq!(error.exit_code(), 3);
    let text = error.to_string();
    let found = crate::files::sha256_file(&path).unwrap();
    assert!(text.contains(&format!("its SHA-256 is {found}, the card says {}", card().sha256)), "{text}");

    // A complete file whose graph ONNX Runtime cannot run: one weight has become another operator's name.
    let mut bytes = std::fs::read(data("tiny.onnx")).unwrap();
    let at = bytes.windows(4).position(|w| w == b"Relu").unwrap();
    bytes[at..at + 4].copy_from_slice(b"Rulu");
    let error =
        Encoder::from_bytes(&runtime(), &bytes, "image", "latent", Size::square(32), &config(), "rulu").unwrap_err();
    assert!(error.to_string().starts_with("rulu cannot be opened by ONNX Runtime "), "{error}");
}

#[test]
fn input_size_follows_the_card() {
    let size = |side| config::Encoder { input_size: Size::square(side), ..config() };
    let encoder = Encoder::open(&runtime(), &data("tiny.onnx"), &card(), &size(64)).unwrap();
    assert_eq!(encoder.size(), Size::square(64));
    let error = Encoder::open(&runtime(), &data("tiny.onnx"), &card(), &size(60)).unwrap_err();
    assert!(error.to_string().contains("encoder.input_size = 60: tiny takes multiples of 8"), "{error}");
}

#[test]
fn the_first_provider_is_required() {
    let runtime = runtime();
    let with = |providers: &[&str], fallback| {
        let providers = providers.iter().map(|provider| provider.parse().unwrap()).collect();
        let config = config::Encoder { providers, fallback, ..config() };
        Encoder::open(&runtime, &data("tiny.onnx"), &card(), &config)
    };
    // Holds for CPU builds (not in the build) and for GPU builds on a machine without a GPU (cannot be used).
    for provider in ["cuda", "tensorrt"] {
        let Err(error) = with(&[provider, "cpu"], false) else { continue };
        assert_eq!(error.exit_code(), 1);
        let text = error.to_string();
        for part in
            [&format!("encoder.providers asks for {provider}"), runtime.path.to_str().unwrap(), &runtime.version]
        {
            assert!(text.contains(part), "missing {part:?} in\n{text}");
        }
        assert!(text.contains("encoder.fallback = true"), "{text}");

        let encoder = with(&[provider, "cpu"], true).unwrap();
        assert_eq!(encoder.provider(), "cpu");
        assert!(encoder.fallback().unwrap().contains(&format!("asks for {provider}")));
        let text = with(&[provider], true).unwrap_err().to_string();
        assert!(text.starts_with("none of encoder.providers can be used: "), "{text}");
    }
    assert!(with(&[], true).unwrap_err().to_string().contains("encoder.providers is empty"));
    assert_eq!(with(&["cpu"], false).unwrap().fallback(), None);
}
