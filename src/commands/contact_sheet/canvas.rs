//! An image to draw on: boxes, small images, and text.
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// Red, green, blue.
pub(in crate::commands) type Colour = [u8; 3];

/// An 8-bit RGB image without padding between rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::commands) struct RgbImage {
    pub(in crate::commands) width: usize,
    pub(in crate::commands) height: usize,
    pub(in crate::commands) pixels: Vec<u8>,
}

/// Position and size in pixels.
#[derive(Debug, Clone, Copy)]
pub(in crate::commands) struct Rect {
    pub(in crate::commands) x: usize,
    pub(in crate::commands) y: usize,
    pub(in crate::commands) width: usize,
    pub(in crate::commands) height: usize,
}

/// Size and colour of text.
#[derive(Debug, Clone, Copy)]
pub(in crate::commands) struct TextStyle {
    pub(in crate::commands) size: RasterHeight,
    pub(in crate::commands) weight: FontWeight,
    pub(in crate::commands) colour: Colour,
}

impl TextStyle {
    /// Width in pixels of `letters` letters.
    pub(in crate::commands) fn width(self, letters: usize) -> usize {
        letters * get_raster_width(self.weight, self.size)
    }

    /// `text`, truncated with dots if it is wider than `width` pixels. Letters outside ASCII become question marks.
    pub(in crate::commands) fn fit(self, text: &str, width: usize) -> String {
        let most = width / self.width(1);
        let plain: String = text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect();
        match plain.get(..most.saturating_sub(3)) {
            Some(start) if plain.len() > most => format!("{start}..."),
            _ => plain,
        }
    }
}

impl RgbImage {
    /// An image filled with one colour.
    pub(in crate::commands) fn new(width: usize, height: usize, colour: Colour) -> Self {
        Self { width, height, pixels: colour.repeat(width * height) }
    }

    /// The pixel at `(x, y)`; `None` outside the image.
    fn pixel(&mut self, x: usize, y: usize) -> Option<&mut [u8]> {
        if x >= self.width {
            return None;
        }
        let start = (y * self.width + x) * 3;
        self.pixels.get_mut(start..start + 3)
    }

    /// Fills a box whose corners are rounded by `radius` pixels, clipped to the image.
    pub(in crate::commands) fn fill(&mut self, area: Rect, radius: usize, colour: Colour) {
        for dy in 0..area.height {
            for dx in 0..area.width {
                // Distance into the square of a corner, along both axes.
                let into = |at: usize, side: usize| radius.saturating_sub(at.min(side - 1 - at));
                let (cx, cy) = (into(dx, area.width), into(dy, area.height));
                if cx * cx + cy * cy <= radius * radius
                    && let Some(pixel) = self.pixel(area.x + dx, area.y + dy)
                {
                    pixel.copy_from_slice(&colour);
                }
            }
        }
    }

    /// Copies `other` to the image, clipped, with its upper left corner at `(x, y)`.
    pub(in crate::commands) fn put(&mut self, other: &RgbImage, x: usize, y: usize) {
        for (dy, row) in other.pixels.chunks_exact(other.width.max(1) * 3).enumerate() {
            for (dx, colour) in row.chunks_exact(3).enumerate() {
                if let Some(pixel) = self.pixel(x + dx, y + dy) {
                    pixel.copy_from_slice(colour);
                }
            }
        }
    }

    /// Draws text with its upper left corner at `(x, y)`. Letters missing from the font stay blank.
    pub(in crate::commands) fn text(&mut self, text: &str, x: usize, y: usize, style: TextStyle) {
        for (place, letter) in text.chars().enumerate() {
            let Some(letter) = get_raster(letter, style.weight, style.size) else { continue };
            let left = x + style.width(place);
            for (dy, row) in letter.rows().enumerate() {
                for (dx, strength) in row.iter().enumerate() {
                    let Some(pixel) = self.pixel(left + dx, y + dy) else { continue };
                    let strength = u32::from(*strength);
                    for (below, ink) in pixel.iter_mut().zip(style.colour) {
                        let mixed = u32::from(ink) * strength + u32::from(*below) * (255 - strength);
                        *below = ((mixed + 127) / 255) as u8;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: TextStyle = TextStyle { size: RasterHeight::Size16, weight: FontWeight::Regular, colour: [0, 0, 0] };

    fn dark(picture: &RgbImage, from: usize, to: usize) -> usize {
        let columns = picture.pixels.chunks_exact(3 * picture.width);
        columns.flat_map(|row| row[from * 3..to * 3].iter()).filter(|v| **v < 128).count()
    }

    #[test]
    fn letters_are_drawn_where_they_belong_and_nothing_outside_the_picture() {
        let mut picture = RgbImage::new(40, 16, [255; 3]);
        picture.text("I M", 0, 0, STYLE);
        let (first, second, third) = (dark(&picture, 0, 7), dark(&picture, 7, 14), dark(&picture, 14, 21));
        assert!(first > 20 && second == 0 && third > first, "{first} {second} {third}");
        assert_eq!(dark(&picture, 21, 40), 0);
        let before = picture.clone();
        picture.text("outside", 41, 0, STYLE);
        picture.text("below", 0, 16, STYLE);
        assert_eq!(picture, before);
        picture.text("M", 36, 8, STYLE);
        assert_ne!(picture, before);
    }

    #[test]
    fn text_is_cut_to_its_width_and_made_of_known_letters() {
        assert_eq!(STYLE.fit("a straße", 7 * 8), "a stra?e");
        assert_eq!(STYLE.fit("a longer line", 7 * 8), "a lon...");
        assert_eq!(STYLE.fit("abcdef", 7), "...");
    }

    #[test]
    fn boxes_have_round_corners_and_are_cut_at_the_edge() {
        let mut picture = RgbImage::new(10, 10, [9; 3]);
        picture.fill(Rect { x: 2, y: 2, width: 20, height: 20 }, 3, [1; 3]);
        let value = |x: usize, y: usize| picture.pixels[(y * 10 + x) * 3];
        assert_eq!((value(2, 2), value(5, 2), value(2, 5), value(9, 9), value(1, 5)), (9, 1, 1, 1, 9));
        picture.put(&RgbImage::new(3, 2, [7; 3]), 8, 9);
        assert_eq!(picture.pixels.iter().filter(|v| **v == 7).count(), 2 * 3);
    }
}
