//! Draws the contact sheet: one row per query, with its image on the left and the groups of neighbours beside it.
use std::collections::BTreeMap;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight};

use super::canvas::{Colour, Rect, RgbImage, TextStyle};
use super::style::{
    ACCENT, APART, BETWEEN, BORDER, CAPTION_GAP, INK, INSIDE, MARGIN, NOTE, PANEL, PAPER, ROW_GAP, TITLE,
};

/// Width of the whole sheet in pixels.
pub(super) const WIDTH: usize = 1400;
/// Neighbours per group.
pub(super) const NEIGHBOURS: usize = 4;

const PANELS: [Colour; 2] = [[237, 236, 231], PANEL];

const HEADING: TextStyle = TextStyle { size: RasterHeight::Size20, weight: FontWeight::Bold, colour: INK };
const FRAME: TextStyle = TextStyle { size: RasterHeight::Size16, weight: FontWeight::Regular, colour: INK };
const COSINE: TextStyle = TextStyle { size: RasterHeight::Size16, weight: FontWeight::Bold, colour: INK };

/// An image with its caption.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cell {
    pub(super) frame: u64,
    pub(super) segment: u64,
    /// Cosine to the query; `None` for the query itself.
    pub(super) cosine: Option<f32>,
}

/// One query with its neighbours in each group.
pub(super) struct Row {
    pub(super) query: Cell,
    pub(super) groups: Vec<Vec<Cell>>,
}

/// The contents of the sheet.
pub(super) struct Page {
    pub(super) title: String,
    pub(super) notes: Vec<String>,
    /// Headings of the groups, one or two.
    pub(super) groups: Vec<String>,
    pub(super) rows: Vec<Row>,
}

/// Width in pixels of an image on a sheet with `groups` groups.
pub(super) fn picture_width(groups: usize) -> usize {
    let around = APART + 2 * INSIDE + (NEIGHBOURS - 1) * BETWEEN;
    (WIDTH - 2 * MARGIN - groups * around) / (1 + groups * NEIGHBOURS)
}

/// Draws the page. `pictures` holds every frame that it shows, at most [`picture_width`] wide.
pub(super) fn draw(page: &Page, pictures: &BTreeMap<u64, RgbImage>) -> RgbImage {
    let wide = picture_width(page.groups.len());
    let high = pictures.values().map(|p| p.height).max().unwrap_or(0);
    let note = NOTE.size.val() + 4;
    let panels = MARGIN + TITLE.size.val() + 10 + page.notes.len() * note + 18;
    let first_row = panels + INSIDE + HEADING.size.val() + 12;
    let row = high + CAPTION_GAP + 2 * NOTE.size.val() + ROW_GAP;
    let bottom = first_row + page.rows.len() * row - ROW_GAP + INSIDE;
    let mut sheet = RgbImage::new(WIDTH, bottom + MARGIN, PAPER);
    sheet.text(&TITLE.fit(&page.title, WIDTH - 2 * MARGIN), MARGIN, MARGIN, TITLE);
    for (i, line) in page.notes.iter().enumerate() {
        let y = MARGIN + TITLE.size.val() + 10 + i * note;
        sheet.text(&NOTE.fit(line, WIDTH - 2 * MARGIN), MARGIN, y, NOTE);
    }
    sheet.text("query", MARGIN, panels + INSIDE, HEADING);
    let panel = NEIGHBOURS * wide + (NEIGHBOURS - 1) * BETWEEN + 2 * INSIDE;
    for (g, (heading, colour)) in page.groups.iter().zip(PANELS).enumerate() {
        let x = MARGIN + wide + APART + g * (panel + APART);
        sheet.fill(Rect { x, y: panels, width: panel, height: bottom - panels }, 10, colour);
        sheet.text(&HEADING.fit(heading, panel - 2 * INSIDE), x + INSIDE, panels + INSIDE, HEADING);
    }
    for (r, content) in page.rows.iter().enumerate() {
        let y = first_row + r * row;
        let slot = |x| Rect { x, y, width: wide, height: high };
        draw_cell(&mut sheet, &content.query, slot(MARGIN), pictures);
        for (g, group) in content.groups.iter().enumerate() {
            let left = MARGIN + wide + APART + g * (panel + APART) + INSIDE;
            for (i, cell) in group.iter().enumerate() {
                draw_cell(&mut sheet, cell, slot(left + i * (wide + BETWEEN)), pictures);
            }
        }
    }
    sheet
}

fn draw_cell(sheet: &mut RgbImage, cell: &Cell, slot: Rect, pictures: &BTreeMap<u64, RgbImage>) {
    if let Some(picture) = pictures.get(&cell.frame) {
        // Align lower images with the caption, and center narrower ones.
        let x = slot.x + slot.width.saturating_sub(picture.width) / 2;
        let y = slot.y + slot.height.saturating_sub(picture.height);
        if cell.cosine.is_none() {
            let (width, height) = (picture.width + 2 * BORDER, picture.height + 2 * BORDER);
            sheet.fill(Rect { x: x - BORDER, y: y - BORDER, width, height }, 0, ACCENT);
        }
        sheet.put(picture, x, y);
    }
    let y = slot.y + slot.height + CAPTION_GAP;
    sheet.text(&FRAME.fit(&format!("frame {}", cell.frame), slot.width), slot.x, y, FRAME);
    let y = y + FRAME.size.val();
    sheet.text(&NOTE.fit(&format!("seg {}", cell.segment), slot.width), slot.x, y, NOTE);
    if let Some(cosine) = cell.cosine {
        let text = format!("{cosine:.3}");
        sheet.text(&text, slot.x + slot.width - COSINE.width(text.len()), y, COSINE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(groups: usize, rows: usize) -> Page {
        let cell = |frame, cosine| Cell { frame, segment: 1, cosine };
        let group: Vec<Cell> = (1..5).map(|i| cell(i, Some(0.5))).collect();
        let rows = (0..rows).map(|_| Row { query: cell(0, None), groups: vec![group.clone(); groups] }).collect();
        Page { title: "title".into(), notes: vec!["note".into()], groups: vec!["heading".into(); groups], rows }
    }

    fn pictures(width: usize) -> BTreeMap<u64, RgbImage> {
        (0..5).map(|i| (i, RgbImage::new(width, 60, [i as u8, 1, 2]))).collect()
    }

    /// Left edge of the image in `colour`, for each pixel row that contains it.
    fn left_edges(sheet: &RgbImage, colour: Colour) -> Vec<usize> {
        let rows = sheet.pixels.chunks_exact(sheet.width * 3);
        rows.filter_map(|row| row.chunks_exact(3).position(|p| p == colour)).collect()
    }

    #[test]
    fn pictures_stand_in_columns_inside_the_margins() {
        for groups in [1, 2] {
            let wide = picture_width(groups);
            let sheet = draw(&page(groups, 3), &pictures(wide));
            assert_eq!(sheet.width, WIDTH);
            assert_eq!(left_edges(&sheet, [0, 1, 2]), vec![MARGIN; 3 * 60]);
            let last = WIDTH - MARGIN - INSIDE - wide;
            let edges = left_edges(&sheet, [4, 1, 2]);
            let spill = 1 + groups * NEIGHBOURS;
            if groups == 1 {
                assert!(edges.len() == 3 * 60 && edges.iter().all(|x| x.abs_diff(last) <= spill), "{edges:?} {last}");
            }
            let margin = sheet.pixels.chunks_exact(sheet.width * 3).flat_map(|row| &row[(WIDTH - MARGIN) * 3..]);
            assert!(margin.zip(PAPER.iter().cycle()).all(|(a, b)| a == b), "the right margin is empty");
        }
    }

    #[test]
    fn each_row_adds_the_same_height() {
        let height = |rows| draw(&page(2, rows), &pictures(picture_width(2))).height;
        assert_eq!(height(3) - height(2), height(2) - height(1));
        assert_eq!(height(2) - height(1), 60 + CAPTION_GAP + 32 + ROW_GAP);
    }

    #[test]
    fn small_pictures_stand_in_the_middle_of_their_place() {
        let mut pictures = pictures(picture_width(1));
        pictures.insert(0, RgbImage::new(10, 20, [0, 1, 2]));
        let edges = left_edges(&draw(&page(1, 1), &pictures), [0, 1, 2]);
        assert_eq!(edges, vec![MARGIN + (picture_width(1) - 10) / 2; 20]);
    }
}
