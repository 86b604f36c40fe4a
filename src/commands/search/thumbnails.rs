//! The images of hits, taken from the source of their rows.
use std::collections::BTreeMap;

use super::contact_sheet::{HIGH, WIDE};
use crate::commands::contact_sheet::canvas::{Rect, RgbImage};
use crate::commands::contact_sheet::sampler::{for_each, scaled};
use crate::commands::contact_sheet::style::ACCENT;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::export::{Granularity, Record};
use crate::frame::Frame;
use crate::pipeline::box_encoder::cut;
use crate::source;
use crate::source::address::Address;

/// The images of `records`, in the same order, taken from the sources of the rows.
///
/// # Errors
/// A source is live, lacks some of these frames, or fails.
pub(super) fn pictures(sources: &[Address], config: &Config, records: &[&Record]) -> Result<Vec<RgbImage>> {
    let named = sources.iter().map(Address::to_string).collect::<Vec<_>>().join(", ");
    let mut source = source::open_all(sources, &config.source)?;
    if source.live() {
        return Err(Error::usage(format!(
            "{named} is live: the pictures of a search are of the past; name the file or folder that the rows were made from"
        )));
    }
    let mut wanted: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, record) in records.iter().enumerate() {
        wanted.entry(record.frame).or_default().push(at);
    }
    let mut found = vec![RgbImage::default(); records.len()];
    let (mut frames, mut shifted) = (0, None);
    if !wanted.is_empty() {
        for_each(source.as_mut(), &mut |frame| {
            frames = frame.index + 1;
            for at in wanted.remove(&frame.index).unwrap_or_default() {
                if records[at].stamp_ns != frame.stamp.0 {
                    shifted = Some(frame.index);
                }
                found[at] = picture(frame, records[at])?;
            }
            Ok(!wanted.is_empty())
        })?;
    }
    if let Some(frame) = wanted.keys().next() {
        return Err(Error::runtime(format!(
            "{named} has no frame {frame} (its last is {}), which was found: it is not what the rows were made from. Name that \
             source, or leave --source and --out out",
            frames.saturating_sub(1)
        )));
    }
    if let Some(frame) = shifted {
        tracing::warn!(
            "frame {frame} of {named} has another time than its record: is it what the rows were made from? The pictures may \
             be others"
        );
    }
    Ok(found)
}

/// A box is cropped; a frame is shown whole with its encoded window outlined.
fn picture(frame: &Frame, record: &Record) -> Result<RgbImage> {
    let Some([left, top, right, bottom]) = record.window else { return scaled(frame, WIDE, HIGH) };
    let (x, y) = (|x: i32| x.clamp(0, frame.width as i32) as u32, |y: i32| y.clamp(0, frame.height as i32) as u32);
    let area = [x(left), y(top), x(right), y(bottom)];
    if area[2] <= area[0] || area[3] <= area[1] {
        return scaled(frame, WIDE, HIGH);
    }
    if record.level == Granularity::Box {
        let mut part = Frame::default();
        cut(frame, area, &mut part);
        return scaled(&part, WIDE, HIGH);
    }
    let mut whole = scaled(frame, WIDE, HIGH)?;
    let scale = whole.width as f64 / f64::from(frame.width);
    let [left, top, right, bottom] = area.map(|side| (f64::from(side) * scale).round() as usize);
    let (width, height) = (right - left, bottom - top);
    for (x, y, width, height) in [
        (left, top, width, 2),
        (left, bottom.saturating_sub(2), width, 2),
        (left, top, 2, height),
        (right.saturating_sub(2), top, 2, height),
    ] {
        whole.fill(Rect { x, y, width, height }, 0, ACCENT);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(level: Granularity, window: Option<[i32; 4]>) -> Record {
        let text = r#"{"camera":"a","frame":3,"stamp_ns":4,"segment":0,"space":"s","head":1,"novelty":null}"#;
        let record: Record = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}"));
        Record { level, window, ..record }
    }

    #[test]
    fn a_box_is_shown_by_itself_and_a_window_on_its_frame() {
        let mut frame = Frame { width: 200, height: 100, pixels: vec![9; 200 * 100 * 3], ..Frame::default() };
        for y in 40..60 {
            frame.pixels[(y * 200 + 50) * 3..(y * 200 + 70) * 3].fill(90);
        }
        let shown = |level, window| picture(&frame, &record(level, window)).unwrap_or_default();
        let whole = shown(Granularity::Frame, None);
        assert_eq!((whole.width, whole.height), (WIDE, WIDE / 2));
        let part = shown(Granularity::Box, Some([50, 40, 70, 60]));
        assert_eq!((part.width, part.height), (WIDE, WIDE));
        assert!(part.pixels.iter().all(|value| *value == 90));
        let marked = shown(Granularity::Frame, Some([-50, 0, 70, 500]));
        let accents = marked.pixels.chunks_exact(3).filter(|pixel| *pixel == ACCENT).count();
        assert!(accents > 200 && accents < 1000 && (marked.width, marked.height) == (WIDE, WIDE / 2), "{accents}");
        // A degenerate box.
        assert_eq!(shown(Granularity::Box, Some([300, 0, 400, 50])), whole);
    }
}
