//! The contact sheet of a search: the query on the left and the hits beside it, with images from the source.
use std::path::Path;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight};
use serde_json::{Value, json};

use super::query::Query;
use super::report::time;
use super::thumbnails::pictures;
use crate::cli;
use crate::commands::contact_sheet::canvas::{Rect, RgbImage, TextStyle};
use crate::commands::contact_sheet::png;
use crate::commands::contact_sheet::sampler::scaled;
use crate::commands::contact_sheet::style::{
    ACCENT, APART, BETWEEN, BORDER, CAPTION_GAP, INK, INSIDE, MARGIN, NOTE, PANEL, PAPER, ROW_GAP, TITLE,
};
use crate::commands::export::write as write_file;
use crate::config::Config;
use crate::error::Result;
use crate::export::Record;
use crate::search::Hit;

/// Hits per row.
const COLUMNS: usize = 5;
/// Width of an image in pixels; an image higher than [`HIGH`] becomes narrower.
pub(super) const WIDE: usize = 202;
pub(super) const HIGH: usize = 300;

const BOLD: TextStyle = TextStyle { size: RasterHeight::Size16, weight: FontWeight::Bold, colour: INK };
const LINE: usize = 18;
/// Lines below an image.
const LINES: usize = 3;

/// An image with its caption: bold text on the left and on the right, and two lines.
struct ResultCell {
    picture: RgbImage,
    left: String,
    right: String,
    lines: [String; LINES - 1],
}

/// Draws the sheet and writes it to `out`. Returns a description for scripts.
pub(super) fn write(
    out: &Path,
    args: &cli::SearchArgs,
    config: &Config,
    query: &Query,
    hits: &[Hit],
    notes: Vec<String>,
) -> Result<Value> {
    let mut records: Vec<&Record> = hits.iter().map(|hit| &hit.record).collect();
    records.extend(&query.record);
    let mut pictures = pictures(&args.source, config, &records)?;
    let own = match (&query.picture, &query.record) {
        (Some(frame), _) => scaled(frame, WIDE, HIGH)?,
        (None, Some(_)) => pictures.pop().unwrap_or_default(),
        (None, None) => RgbImage::default(),
    };
    let under = query.record.as_ref().map_or_else(|| [query.name.clone(), String::new()], lines);
    let own = ResultCell { picture: own, left: "query".into(), right: String::new(), lines: under };
    let cells = (1..).zip(hits).zip(pictures).map(|((rank, hit), picture): ((usize, &Hit), RgbImage)| ResultCell {
        picture,
        left: rank.to_string(),
        right: format!("{:.4}", hit.place.similarity),
        lines: lines(&hit.record),
    });
    let sheet = draw(&format!("Nearest to {}", query.name), &notes, &own, &cells.collect::<Vec<_>>());
    write_file(out, &png(&sheet)?)?;
    Ok(json!({ "path": out.display().to_string(), "width": sheet.width, "height": sheet.height }))
}

/// The time and the source of a record.
fn lines(record: &Record) -> [String; LINES - 1] {
    let track = record.track.map(|track| format!(" #{track}")).unwrap_or_default();
    [time(record), format!("{} {}{track}", record.camera, record.frame)]
}

fn draw(title: &str, notes: &[String], query: &ResultCell, hits: &[ResultCell]) -> RgbImage {
    let panel_width = COLUMNS * WIDE + (COLUMNS - 1) * BETWEEN + 2 * INSIDE;
    let width = 2 * MARGIN + WIDE + APART + panel_width;
    let high = hits.iter().chain([query]).map(|cell| cell.picture.height).max().unwrap_or(0);
    let row = high + CAPTION_GAP + LINES * LINE + ROW_GAP;
    let panel = MARGIN + TITLE.size.val() + 10 + notes.len() * LINE + 18;
    let rows = hits.len().div_ceil(COLUMNS).max(1);
    let panel_height = 2 * INSIDE + rows * row - ROW_GAP;
    let mut sheet = RgbImage::new(width, panel + panel_height + MARGIN, PAPER);
    sheet.text(&TITLE.fit(title, width - 2 * MARGIN), MARGIN, MARGIN, TITLE);
    for (i, line) in notes.iter().enumerate() {
        sheet.text(&NOTE.fit(line, width - 2 * MARGIN), MARGIN, MARGIN + TITLE.size.val() + 10 + i * LINE, NOTE);
    }
    let left = MARGIN + WIDE + APART;
    sheet.fill(Rect { x: left, y: panel, width: panel_width, height: panel_height }, 10, PANEL);
    draw_cell(&mut sheet, query, MARGIN, panel + INSIDE, high, true);
    for (i, cell) in hits.iter().enumerate() {
        let (x, y) = (left + INSIDE + i % COLUMNS * (WIDE + BETWEEN), panel + INSIDE + i / COLUMNS * row);
        draw_cell(&mut sheet, cell, x, y, high, false);
    }
    sheet
}

fn draw_cell(sheet: &mut RgbImage, cell: &ResultCell, x: usize, y: usize, high: usize, framed: bool) {
    // Align lower images with the caption, and center narrower ones.
    let RgbImage { width, height, .. } = cell.picture;
    let (left, top) = (x + WIDE.saturating_sub(width) / 2, y + high.saturating_sub(height));
    if framed {
        let around = Rect { x: left - BORDER, y: top - BORDER, width: width + 2 * BORDER, height: height + 2 * BORDER };
        sheet.fill(around, 0, ACCENT);
    }
    sheet.put(&cell.picture, left, top);
    let y = y + high + CAPTION_GAP;
    sheet.text(&BOLD.fit(&cell.left, WIDE), x, y, BOLD);
    sheet.text(&cell.right, x + WIDE.saturating_sub(BOLD.width(cell.right.len())), y, BOLD);
    for (i, line) in (1..).zip(&cell.lines) {
        sheet.text(&NOTE.fit(line, WIDE), x, y + i * LINE, NOTE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_stand_in_rows_of_five() {
        let cell = |shade| ResultCell {
            picture: RgbImage::new(WIDE, 60, [shade; 3]),
            left: "1".into(),
            right: ".5".into(),
            lines: ["a".into(), "b".into()],
        };
        let height = |hits: u8| draw("t", &["n".into()], &cell(1), &(2..2 + hits).map(cell).collect::<Vec<_>>()).height;
        assert_eq!((height(0), height(1)), (height(5), height(5)));
        assert_eq!(height(10) - height(5), 60 + CAPTION_GAP + LINES * LINE + ROW_GAP);
        let sheet = draw("t", &[], &cell(1), &(2..9).map(cell).collect::<Vec<_>>());
        let left = |shade: u8| {
            let mut rows = sheet.pixels.chunks_exact(sheet.width * 3);
            rows.find_map(|row| row.chunks_exact(3).position(|pixel| pixel == [shade; 3]))
        };
        assert_eq!((left(1), left(2), left(7)), (Some(MARGIN), left(7), left(2)));
        assert_eq!(left(6).zip(left(2)).map(|(a, b)| a - b), Some(4 * (WIDE + BETWEEN)));
    }
}
