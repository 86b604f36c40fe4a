//! What of this module reads bytes of others, for [`crate::fuzzing`].
use std::path::Path;

use super::outline::Outline;
use super::{card_text, elf, needs};

/// The signature of an ONNX model.
pub(crate) fn outline(model: &[u8]) -> bool {
    let Ok(outline) = Outline::read(model, "the model") else { return false };
    outline.describe();
    outline.fixed_images("image");
    true
}

/// A model card.
pub(crate) fn card(text: &str) -> bool {
    let Ok(card) = card_text::parse(text, "the card") else { return false };
    card.hash();
    // The smallest input size and a large one; either may be refused, neither may panic.
    let _ = (card.clone().sized(32), card.sized(4096));
    true
}

/// The card that is proposed for a model without one.
pub(crate) fn proposed_card(model: &Path) {
    card_text::missing(model, Path::new("model.toml"));
}

/// A shared library's headers and the libraries that it needs.
pub(crate) fn library(path: &Path) -> bool {
    let whole = elf::check(path).is_ok();
    needs::read(path).is_ok() && whole
}
