//! Entry points of this module that read untrusted bytes, for [`crate::fuzzing`].
use std::path::Path;

use super::onnx_signature::ModelSignature;
use super::{card_parser, elf, elf_deps};
use crate::config::Size;

/// Reads the signature of an ONNX model.
pub(crate) fn outline(model: &[u8]) -> bool {
    let Ok(outline) = ModelSignature::read(model, "the model") else { return false };
    outline.describe();
    outline.fixed_images("image");
    true
}

/// Parses a model card.
pub(crate) fn card(text: &str) -> bool {
    let Ok(card) = card_parser::parse(text, "the card") else { return false };
    card.hash();
    // A small input size, a large one and a narrow one; any of them may be refused, none may panic.
    let sizes = [Size::square(32), Size::square(4096), Size { height: 8, width: 4096 }];
    let _ = sizes.map(|size| card.clone().sized(size));
    true
}

/// Drafts a card for a model without one.
pub(crate) fn proposed_card(model: &Path) {
    card_parser::missing(model, Path::new("model.toml"));
}

/// Reads the headers of a shared library and its dependencies.
pub(crate) fn library(path: &Path) -> bool {
    let whole = elf::check(path).is_ok();
    elf_deps::read(path).is_ok() && whole
}
