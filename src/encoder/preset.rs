//! Named presets for `channels`, `mean` and `std` of a card.
use super::model_card::ChannelOrder;

/// A preset; `mean` and `std` refer to pixel values of 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preset {
    /// Name of the preset in a card.
    pub name: &'static str,
    /// Description of the values that the model receives.
    pub what: &'static str,
    pub(super) channels: ChannelOrder,
    pub(super) mean: [f32; 3],
    pub(super) std: [f32; 3],
}

const fn rgb(name: &'static str, what: &'static str, mean: [f32; 3], std: [f32; 3]) -> Preset {
    Preset { name, what, channels: ChannelOrder::Rgb, mean, std }
}

/// The usual preset of torchvision and timm.
pub(super) const IMAGENET: Preset =
    rgb("imagenet", "mean and standard deviation of ImageNet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// All presets.
pub const PRESETS: [Preset; 6] = [
    IMAGENET,
    rgb(
        "clip",
        "those of CLIP's pictures",
        [0.481_454_66, 0.457_827_5, 0.408_210_73],
        [0.268_629_54, 0.261_302_6, 0.275_777_1],
    ),
    rgb("half", "-1 to 1", [0.5; 3], [0.5; 3]),
    rgb("unit", "0 to 1", [0.0; 3], [1.0; 3]),
    rgb("raw255", "0 to 255", [0.0; 3], [1.0 / 255.0; 3]),
    Preset {
        name: "caffe",
        what: "blue first, 0 to 255 less the mean of ImageNet",
        channels: ChannelOrder::Bgr,
        mean: [103.939 / 255.0, 116.779 / 255.0, 123.68 / 255.0],
        std: [1.0 / 255.0; 3],
    },
];

/// Finds the preset with this name.
pub(super) fn named(name: &str) -> Option<Preset> {
    PRESETS.into_iter().find(|preset| preset.name == name)
}

/// All names, as readable text.
pub(super) fn names() -> String {
    PRESETS.map(|preset| format!("\"{}\"", preset.name)).join(", ")
}
