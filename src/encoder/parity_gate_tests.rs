#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::encoder::tests::runtime;
use crate::error::ErrorKind;
use std::path::PathBuf;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Copies the test models to a temporary folder: `model`, and optionally a card that names `tiny.onnx` as its
/// reference.
fn place(model: &str, reference: bool) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for name in [model, "tiny.onnx"] {
        std::fs::copy(data(name), folder.path().join(name)).unwrap();
    }
    let path = folder.path().join(model);
    let own = sha256_hex(&std::fs::read(&path).unwrap());
    let original = sha256_hex(&std::fs::read(data("tiny.onnx")).unwrap());
    let mut card = std::fs::read_to_string(data("tiny.toml")).unwrap().replace(&original, &own);
    if reference {
        card += &format!("reference = \"tiny.onnx\"\nreference_sha256 = \"{original}\"\n");
    }
    std::fs::write(path.with_extension("toml"), card).unwrap();
    (folder, path)
}

fn config(min_cosine: f64) -> config::Encoder {
    let parity = config::providers::Parity { min_cosine, ..Default::default() };
    config::Encoder { threads: 1, parity, ..Default::default() }
}

fn open(path: &Path, config: &config::Encoder) -> Result<Encoder> {
    Encoder::open(&runtime(), path, &ModelCard::beside(path).unwrap(), config)
}

#[test]
fn a_quantised_model_passes_and_says_how_near_it_is() {
    let (_folder, path) = place("tiny_int8.onnx", true);
    let encoder = open(&path, &config(0.95)).unwrap();
    let parity = encoder.parity().unwrap();
    assert!(parity.cosine > 0.95 && parity.cosine < 0.999_999, "{parity:?}");
    assert!(parity.least <= parity.cosine && parity.neighbours > 0.5 && parity.frames == 16, "{parity:?}");
    assert_eq!(parity.reference, "tiny.onnx");
    // The model really runs in integers.
    let nodes = &encoder.placement().unwrap().providers["CPUExecutionProvider"].operators;
    assert!(nodes.contains_key("QLinearConv"), "{nodes:?}");
}

#[test]
fn the_bundled_encoder_in_8_bits_is_near_its_original() {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if cfg!(target_arch = "x86_64") && !processor.contains("vnni") {
        println!("skipped: sums of 8 bits overflow on a processor without VNNI");
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/moco-mobilenetv2-int8.onnx");
    let encoder = open(&path, &config(0.9)).unwrap();
    let parity = encoder.parity().unwrap();
    assert!(parity.cosine > 0.95 && parity.reference == "moco-mobilenetv2.onnx", "{parity:?}");
    assert_eq!(encoder.dim(), 2240);
}

#[test]
fn a_damaged_model_is_refused_with_the_way_out() {
    let (_folder, path) = place("tiny_damaged.onnx", true);
    let error = open(&path, &config(0.95)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CheckFailed);
    let text = error.to_string();
    for part in [
        "tiny_damaged.onnx on cpu: its latents are not those of tiny.onnx: centred cosine ",
        "encoder.parity.min_cosine = 0.95 is needed",
        "Use the reference itself, or quantise anew",
        "encoder.parity.min_cosine = 0 goes on without asking",
    ] {
        assert!(text.contains(part), "missing {part:?} in\n{text}");
    }
    // The raw cosine, which the message also shows, hides much of it.
    let number =
        |name: &str| text.split(name).nth(1).unwrap().split([',', ' ']).next().unwrap().parse::<f64>().unwrap();
    let (raw, centred) = (number("raw cosine "), number("centred cosine "));
    assert!(centred < 0.95 && raw > centred + 0.02, "{text}");
    // The only provider is refused even though a fallback is allowed.
    let allowed = config::Encoder { fallback: true, ..config(0.95) };
    assert_eq!(open(&path, &allowed).unwrap_err().kind(), ErrorKind::CheckFailed);
    assert!(open(&path, &config(0.0)).unwrap().parity().is_none());
}

#[test]
fn a_quantised_model_needs_a_reference() {
    let (_folder, path) = place("tiny_int8.onnx", false);
    let error = open(&path, &config(0.95)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CheckFailed);
    let text = error.to_string();
    assert!(text.contains("is quantised (") && text.contains("Write reference = \"MODEL.onnx\""), "{text}");
    open(&path, &config(0.0)).unwrap();
}

#[test]
fn the_reference_must_be_the_file_of_the_card_and_in_floats() {
    let (folder, path) = place("tiny_int8.onnx", true);
    let reference = folder.path().join("tiny.onnx");
    std::fs::copy(data("fixed.onnx"), &reference).unwrap();
    let text = open(&path, &config(0.95)).unwrap_err().to_string();
    assert!(text.contains("tiny.onnx (the reference of ") && text.contains("is not the file of the card"), "{text}");
    std::fs::remove_file(&reference).unwrap();
    assert!(open(&path, &config(0.95)).unwrap_err().chain().contains("No such file"));
    let own = ModelCard::beside(&path).unwrap().sha256;
    let card = std::fs::read_to_string(path.with_extension("toml")).unwrap();
    let (before, _) = card.split_once("reference =").unwrap();
    let selfish = format!("{before}reference = \"tiny_int8.onnx\"\nreference_sha256 = \"{own}\"\n");
    std::fs::write(path.with_extension("toml"), selfish).unwrap();
    let text = open(&path, &config(0.95)).unwrap_err().to_string();
    assert!(text.contains("itself: a reference must be in 32-bit floats"), "{text}");
}

#[test]
fn a_model_in_floats_on_the_cpu_is_not_asked() {
    let encoder = open(&data("tiny.onnx"), &config(0.95)).unwrap();
    assert!(encoder.parity().is_none());
    let placement = encoder.placement().unwrap();
    assert_eq!(placement.providers.keys().collect::<Vec<_>>(), ["CPUExecutionProvider"]);
    assert!(placement.describe().starts_with("CPU "), "{}", placement.describe());
}
