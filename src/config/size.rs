//! Height and width of an encoder's input: one number for a square, `[height, width]` for anything else.
use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most pixels along one side.
pub const MAX_SIDE: u32 = 4096;
/// Fewest pixels along one side.
pub const MIN_SIDE: u32 = 8;

/// Pixels, rows first, as tensors have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

/// As it is written: `160`, or `[256, 128]`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SizeText {
    Square(u32),
    Sides([u32; 2]),
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let side = json_schema!({ "type": "integer", "minimum": 0, "maximum": MAX_SIDE });
        json_schema!({ "anyOf": [side, { "type": "array", "items": side, "minItems": 2, "maxItems": 2 }] })
    }
}

impl Size {
    /// No pixels: "take the size of the card".
    pub const UNSET: Self = Self::square(0);

    /// `side` x `side` pixels.
    pub const fn square(side: u32) -> Self {
        Self { height: side, width: side }
    }

    /// Whether this is [`Size::UNSET`].
    pub fn is_unset(self) -> bool {
        self == Self::UNSET
    }

    /// Height and width as lengths of tensors.
    pub fn dims(self) -> [usize; 2] {
        [self.height as usize, self.width as usize]
    }

    /// Pixels of one image.
    pub fn pixels(self) -> usize {
        let [height, width] = self.dims();
        height * width
    }

    /// Values of one image in three planes.
    pub fn values(self) -> usize {
        3 * self.pixels()
    }

    /// Height, then width.
    pub fn sides(self) -> [u32; 2] {
        [self.height, self.width]
    }

    /// Every side is within the bounds of an encoder's input.
    pub fn is_allowed(self) -> bool {
        self.sides().into_iter().all(|side| (MIN_SIDE..=MAX_SIDE).contains(&side))
    }

    /// As in a card or in the configuration: `160`, `[256, 128]`.
    pub fn written(self) -> String {
        match self.into() {
            SizeText::Square(side) => side.to_string(),
            SizeText::Sides([height, width]) => format!("[{height}, {width}]"),
        }
    }

    /// The size that a list in TOML stands for.
    pub fn of_list(list: &[toml::Value]) -> Option<Self> {
        let side = |value: &toml::Value| u32::try_from(value.as_integer()?).ok();
        match list {
            [height, width] => Some(Self { height: side(height)?, width: side(width)? }),
            _ => None,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { height, width } = self;
        let order = if height == width { "" } else { " (height x width)" };
        write!(f, "{height} x {width}{order}")
    }
}

impl From<Size> for SizeText {
    fn from(size: Size) -> Self {
        let Size { height, width } = size;
        if height == width { Self::Square(height) } else { Self::Sides([height, width]) }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        SizeText::from(*self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match SizeText::deserialize(deserializer)? {
            SizeText::Square(side) => Self::square(side),
            SizeText::Sides([height, width]) => Self { height, width },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_number_is_a_square_and_two_are_height_and_width() {
        let reid = Size { height: 256, width: 128 };
        for (size, json, text) in
            [(Size::square(160), "160", "160 x 160"), (reid, "[256,128]", "256 x 128 (height x width)")]
        {
            assert_eq!(serde_json::to_string(&size).unwrap(), json);
            assert_eq!(serde_json::from_str::<Size>(json).unwrap(), size);
            assert_eq!(size.to_string(), text);
        }
        assert_eq!((reid.written(), reid.values()), ("[256, 128]".into(), 3 * 256 * 128));
        assert!(serde_json::from_str::<Size>("[1, 2, 3]").is_err() && serde_json::from_str::<Size>("-1").is_err());
        assert!(reid.is_allowed() && !Size { height: 256, width: 7 }.is_allowed() && Size::UNSET.is_unset());
    }
}
