#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::encoder::card_parser::parse;
use std::path::PathBuf;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mobilenetv2.onnx")
}

#[test]
fn bundled_cards_are_right() {
    let card = ModelCard::beside(&bundled()).unwrap();
    assert_eq!((card.size, card.multiple_of, card.fit), (Size::square(160), 32, ResizeMode::Stretch));
    assert_eq!((card.input.as_str(), card.output.as_str()), ("image", "features"));
    assert_eq!(card.sha256, crate::files::sha256_file(&bundled()).unwrap());
    assert_eq!(ModelCard::beside(&data("tiny.onnx")).unwrap().multiple_of, 8);
    assert_eq!(card.cells, None);
    assert_eq!(ModelCard::beside(&bundled().with_file_name("cpc-mobilenetv2.onnx")).unwrap().cells, Some([32.0, 32.0]));
}

#[test]
fn cells_are_said_by_both_keys_or_none() {
    let text = std::fs::read_to_string(bundled().with_file_name("cpc-mobilenetv2.toml")).unwrap();
    let without = text.replace("cell_step = 32", "");
    assert!(parse(&without, "x").unwrap_err().to_string().contains("cell_step is missing: must be a number from 0.5"));
    let wrong = text.replace("cell_first = 32", "cell_first = nan");
    assert!(parse(&wrong, "x").unwrap_err().to_string().contains("cell_first = nan: must be a number"));
    // The position of the cells does not change the latent.
    let none = parse(&without.replace("cell_first = 32", ""), "x").unwrap();
    assert_eq!(none.hash(), parse(&text, "x").unwrap().hash());
}

#[test]
fn all_mistakes_at_once() {
    let text = r#"
        name = ""
        kind = "grids"
        layout = "whd"
        taps = ["x:gem", 3]
        output = "latent"
        size = 4
        multiple_of = 0
        channels = "brg"
        mean = [0.5, nan, 0.5]
        std = [0.0, 1, 1]
        fit = "squeeze"
        exposure = 3
        source = 3
        licence = "MIT"
        sha256 = "abc"
        colour = "red"
    "#;
    let error = parse(text, "x.toml").unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Config);
    let message = error.to_string();
    for part in [
        "model card x.toml: 15 mistakes",
        "name = \"\": must be a text that is not empty",
        "kind = \"grids\": must be \"vector\" or \"grid\"",
        "layout = \"whd\": must be \"hwd\" or \"dhw\"",
        "taps = [\"x:gem\", 3]: must be a list of texts",
        "input is missing: must be a text",
        "size = 4: must be a whole number of pixels (a square), or [height, width], each from 8 to 4096",
        "multiple_of = 0: must be a whole number from 1 to 4096",
        "channels = \"brg\": must be \"rgb\" or \"bgr\"",
        "mean = [0.5, nan, 0.5]: must be three numbers",
        "std = [0.0, 1, 1]: must be three numbers from 1e-6",
        "fit = \"squeeze\": must be \"stretch\" or \"crop\"",
        "exposure = 3: must be a number from 0.05 to 0.95, or be left out",
        "source = 3: must be a text",
        "sha256 = \"abc\": must be the 64",
        "colour: unknown key; a card has name, kind, layout",
    ] {
        assert!(message.contains(part), "missing {part:?} in\n{message}");
    }
    let broken = parse("name = \"a\nsize = 3", "x.toml").unwrap_err().to_string();
    assert!(broken.starts_with("model card x.toml is not TOML: ") && broken.contains("line 1"), "{broken}");
}

#[test]
fn defaults_are_said_in_the_docs() {
    let text = std::fs::read_to_string(data("tiny.toml")).unwrap();
    let short: String = text
        .lines()
        .filter(|l| !["kind", "multiple", "fit"].iter().any(|k| l.starts_with(k)))
        .fold(String::new(), |all, line| all + line + "\n");
    let card = parse(&short, "short").unwrap();
    assert_eq!((card.kind, card.multiple_of, card.fit), (OutputKind::Vector, 1, ResizeMode::Stretch));
    assert_eq!((card.layout, card.exposure, card.taps.len()), (TensorLayout::Dhw, None, 0));
    let more = |lines: &str| parse(&format!("{short}{lines}"), "more");
    let full = more("taps = [\"output\", \"x:gem3\"]\nlayout = \"hwd\"\nexposure = 0.45").unwrap();
    assert_eq!((full.layout, full.exposure), (TensorLayout::Hwd, Some(0.45)));
    assert_eq!(full.taps.iter().map(ToString::to_string).collect::<Vec<_>>(), ["output:as-is", "x:gem3"]);
    assert!(more("taps = [\"x:gem\"]").unwrap_err().to_string().contains("taps has \"x:gem\": \"gem\": gem takes"));
    let text_of_grid = more("kind = \"grid\"\ntaps = [\"x:gem3\"]").unwrap_err().to_string();
    assert!(text_of_grid.contains("taps: a latent that is a grid has none"), "{text_of_grid}");
    assert!(text_of_grid.contains("layout is missing: a grid needs \"hwd\""), "{text_of_grid}");
    assert_eq!(more("kind = \"grid\"\nlayout = \"hwd\"").unwrap().kind, OutputKind::Grid);
    let of = format!("reference = \"tiny.onnx\"\nreference_sha256 = \"{}\"", "0a".repeat(32));
    assert_eq!(
        more(&of).unwrap().reference.unwrap(),
        ReferenceModel { file: "tiny.onnx".into(), sha256: "0a".repeat(32) }
    );
    assert_eq!(more("").unwrap().reference, None);
    let half = more("reference = \"a/b.onnx\"").unwrap_err().to_string();
    assert!(half.contains("reference_sha256 is missing") && half.contains("in the folder of the card"), "{half}");
    let odd = text.replace("size = 32", "size = 36");
    assert!(parse(&odd, "odd").unwrap_err().to_string().contains("size = 36: must be a multiple of multiple_of = 8"));
}

#[test]
fn missing_model_and_missing_card() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("street.onnx");
    let error = ModelCard::beside(&model).unwrap_err();
    assert!(error.chain().contains("street.onnx: No such file"), "{}", error.chain());
    assert_eq!(error.exit_code(), 1);
    assert!(ModelCard::beside(folder.path()).unwrap_err().to_string().contains("is a folder"));

    std::fs::copy(data("tiny.onnx"), &model).unwrap();
    let error = ModelCard::beside(&model).unwrap_err();
    assert_eq!(error.exit_code(), 78);
    let text = error.to_string();
    for part in ["street.toml is not there", "`afterimage card ", "latent: float32 [n, 32]"] {
        assert!(text.contains(part), "missing {part:?} in\n{text}");
    }
    // The drafted card works.
    let draft =
        |model: &Path| crate::encoder::draft(model, &crate::encoder::CardRequest::default()).unwrap().remove(0).card;
    assert_eq!(draft(&model).sha256, crate::files::sha256_file(&model).unwrap());

    // A model with only one size.
    std::fs::copy(data("fixed.onnx"), &model).unwrap();
    assert_eq!((draft(&model).size, draft(&model).multiple_of), (Size::square(32), 32));

    std::fs::write(&model, b"no model at all").unwrap();
    let text = ModelCard::beside(&model).unwrap_err().to_string();
    assert!(
        text.contains("is not an ONNX model") && !text.contains("street.toml"),
        "what is wrong with it, alone: {text}"
    );
}

#[test]
fn sizes() {
    let card = ModelCard::beside(&bundled()).unwrap();
    assert_eq!(card.clone().sized(Size::square(0)).unwrap(), card);
    assert_eq!(card.clone().sized(Size::square(96)).unwrap().size, Size::square(96));
    let error = card.clone().sized(Size::square(100)).unwrap_err();
    assert_eq!(error.exit_code(), 78);
    let text = error.to_string();
    assert!(text.contains("encoder.input_size = 100: mobilenetv2 takes multiples of 32"), "{text}");
    assert!(text.contains("for example 96 or 128, or 0 for the 160"), "{text}");
    assert!(card.clone().sized(Size::square(8192)).unwrap_err().to_string().contains("for example 4096, or 0"));
    assert!(ModelCard { multiple_of: 0, ..card.clone() }.sized(Size::square(7)).is_err());
    assert!(card.sized(Size::square(1)).unwrap_err().to_string().contains("for example 32 or 64"));
}

#[test]
fn the_configuration_decides_over_the_card() {
    let card = ModelCard::beside(&bundled()).unwrap();
    assert_eq!(card.exposure, Some(0.45));
    let with = |text: &str| {
        card.clone().prepared(&config::Preprocess { exposure: text.into(), ..config::Preprocess::default() })
    };
    assert_eq!(with("card").unwrap(), card);
    assert_eq!(with("off").unwrap().exposure, None);
    assert_eq!(with("0.3").unwrap().exposure, Some(0.3));
    for bad in ["on", "nan", "0", "1"] {
        assert_eq!(with(bad).unwrap_err().exit_code(), 78, "{bad}");
    }
}

#[test]
fn hash_covers_what_changes_latents_and_nothing_else() {
    let card = ModelCard::beside(&bundled()).unwrap();
    let same = ModelCard { source: "x".into(), name: "y".into(), licence: "z".into(), ..card.clone() };
    assert_eq!(same.hash(), card.hash());
    let plain = ModelCard { taps: Vec::new(), ..card.clone() };
    assert_eq!(ModelCard { layout: TensorLayout::Hwd, ..plain.clone() }.hash(), plain.hash(), "no maps, no layout");
    // Pins this version of the preprocessing: runs made with it must still be recognised as belonging to this
    // encoder.
    let tiny = ModelCard::beside(&data("tiny.onnx")).unwrap();
    assert_eq!(tiny.hash(), "df914bae07083bfe2e47b0b17d89b72429193c08ab3a35a890e42a8c36ed99b0");
    for other in [
        card.clone().sized(Size::square(96)).unwrap(),
        ModelCard { channels: ChannelOrder::Bgr, ..card.clone() },
        ModelCard { fit: ResizeMode::Crop, ..card.clone() },
        ModelCard { mean: [0.485, 0.456, 0.407], ..card.clone() },
        ModelCard { std: [0.229, 0.224, 0.226], ..card.clone() },
        ModelCard { output: "other".into(), ..card.clone() },
        ModelCard { exposure: None, ..card.clone() },
        ModelCard { exposure: Some(0.5), ..card.clone() },
        ModelCard { motion_crop: Some(600.0), ..card.clone() },
        ModelCard { motion_crop: Some(60.0), ..card.clone() },
        plain,
        ModelCard { layout: TensorLayout::Hwd, ..card.clone() },
        ModelCard { taps: card.taps[..1].to_vec(), ..card.clone() },
        ModelCard { taps: card.taps.iter().rev().cloned().collect(), ..card.clone() },
    ] {
        assert_ne!(other.hash(), card.hash(), "{other:?}");
    }
}
