//! Boxes in the MOTChallenge format (`det.txt`, `gt.txt`): one box per line, comma-separated numbers
//!
//! `frame, id, left, top, width, height [, conf [, class [, visibility]]]`
//!
//! `frame` counts from 1; an `id` below 0 means no track; a `conf` or `class` of -1 means unknown. Further columns are
//! ignored (tracker results have a position in space there).
//!
//! The crate `csv` is not used: it counts the empty lines and comments before a record as part of it, so messages would
//! name the wrong line.
use std::collections::HashMap;

use super::{BBox, Detection};
use crate::error::{Error, Result};

/// Maximum number of boxes in a file.
const MAX_BOXES: usize = 10_000_000;
/// Maximum number of invalid lines that a message lists.
const SHOWN: usize = 5;

/// Parses all boxes in `text`, ordered by frame and then as in the file. Ignores empty lines and lines that begin with
/// `#`. `what` names the file in errors.
///
/// # Errors
/// A usage error: invalid lines (the message lists the first five), the same track twice in one frame, or no boxes at
/// all.
pub fn parse(text: &str, what: &str) -> Result<Vec<Detection>> {
    let (mut found, mut mistakes, mut count) = (Vec::new(), Vec::new(), 0usize);
    let mut seen: HashMap<(u64, i64), usize> = HashMap::new();
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let read = row(line, number).and_then(|detection| match detection.track {
            Some(track) => match seen.insert((detection.frame, track), number) {
                Some(before) => Err(format!("track {track} already has a box in this frame, in line {before}")),
                None => Ok(detection),
            },
            None => Ok(detection),
        });
        match read {
            Ok(_) if found.len() >= MAX_BOXES => {
                return Err(Error::usage(format!("{what}: more than {MAX_BOXES} boxes; split the file")));
            }
            Ok(detection) => found.push(detection),
            Err(why) => {
                count += 1;
                if mistakes.len() < SHOWN {
                    mistakes.push(format!("line {number}: {why}"));
                }
            }
        }
    }
    if count > 0 {
        let more = if count > SHOWN { format!("\n  and {} more", count - SHOWN) } else { String::new() };
        return Err(Error::usage(format!(
            "{what}: {count} lines are not boxes (frame,id,left,top,width,height[,conf[,class[,visibility]]], frames \
             from 1):\n  {}{more}",
            mistakes.join("\n  ")
        )));
    }
    if found.is_empty() {
        return Err(Error::usage(format!("{what} has no boxes")));
    }
    found.sort_by_key(|detection| detection.frame);
    Ok(found)
}

/// Parses one line.
fn row(line: &str, number: usize) -> std::result::Result<Detection, String> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    if fields.len() < 6 {
        return Err(format!("{} numbers; a box has at least 6", fields.len()));
    }
    let value = |i: usize, name: &str| {
        let text = fields[i];
        let value: f64 = text.parse().map_err(|_| format!("{name} is {text:?}, not a number"))?;
        if value.is_finite() { Ok(value) } else { Err(format!("{name} is {text}, not finite")) }
    };
    let optional = |i: usize, name: &str| if fields.len() > i { value(i, name).map(Some) } else { Ok(None) };
    let whole = |value: f64, name: &str, least: f64| {
        // Larger floating-point numbers are not exact integers.
        if value.fract() == 0.0 && (least..=9.0e15).contains(&value) {
            Ok(value as i64)
        } else {
            Err(format!("{name} is {value}; it must be a whole number of at least {least}"))
        }
    };
    let frame = whole(value(0, "frame")?, "frame", 1.0)?;
    let id = whole(value(1, "id")?, "id", -9.0e15)?;
    let [left, top] = [value(2, "left")?, value(3, "top")?];
    let [width, height] = [value(4, "width")?, value(5, "height")?];
    let score = optional(6, "conf")?;
    let class = optional(7, "class")?.map(|class| whole(class, "class", -9.0e15)).transpose()?;
    Ok(Detection {
        frame: frame.unsigned_abs() - 1,
        rect: BBox { left, top, right: left + width, bottom: top + height },
        track: (id >= 0).then_some(id),
        score: score.filter(|score| *score != -1.0).map(|score| score as f32),
        class: class.filter(|class| *class != -1),
        line: number,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_lengths_are_parsed_and_ordered_by_frame() {
        let text = "# made by hand\n2, 7, 10.5, 20, 30, 40, 0.75, 1, 0.5\n\n1,-1,1,2,3,4,-1,-1,-1,-1\n1,3,5,6,7,8\n";
        let found = parse(text, "x").unwrap();
        let first = &found[0];
        assert_eq!((first.frame, first.track, first.score, first.class, first.line), (0, None, None, None, 4));
        assert_eq!(first.rect, BBox { left: 1.0, top: 2.0, right: 4.0, bottom: 6.0 });
        assert_eq!((found[1].frame, found[1].track, found[1].score), (0, Some(3), None));
        let last = &found[2];
        assert_eq!((last.frame, last.track, last.score, last.class), (1, Some(7), Some(0.75), Some(1)));
        assert_eq!(last.rect, BBox { left: 10.5, top: 20.0, right: 40.5, bottom: 60.0 });
    }

    #[test]
    fn mistakes_are_named_with_their_lines() {
        let text = "1,1,2,3,4\n0,1,2,3,4,5\n1,x,2,3,4,5\n1,1,nan,3,4,5\n1.5,1,2,3,4,5\n1,2,0,0,9,9\n1,2,0,0,8,8\n\
                    1,3,0,0,8,8,1,0.5\n";
        let error = parse(text, "det.txt").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        for part in [
            "det.txt: 7 lines are not boxes",
            "line 1: 5 numbers; a box has at least 6",
            "line 2: frame is 0; it must be a whole number of at least 1",
            "line 3: id is \"x\", not a number",
            "line 4: left is nan, not finite",
            "line 5: frame is 1.5",
            "and 2 more",
        ] {
            assert!(text.contains(part), "missing {part:?} in\n{text}");
        }
        assert!(
            parse("1,2,0,0,9,9\n1,2,0,0,8,8", "x")
                .unwrap_err()
                .to_string()
                .contains("line 2: track 2 already has a box")
        );
        assert!(parse("1,3,0,0,8,8,1,0.5", "x").unwrap_err().to_string().contains("class is 0.5"));
        assert!(parse(" \n# nothing", "x").unwrap_err().to_string().contains("x has no boxes"));
    }
}
