//! `sheet`: a contact sheet: frames of a source with their nearest frames, frozen encoder against adapted head.
mod canvas;
mod gather;
mod page;

use std::collections::BTreeSet;
use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use ndarray::{Array2, ArrayView2, Axis};
use serde_json::{Value, json};

use super::Output;
use super::common::OpenedRun;
use super::export::write;
use crate::cli;
use crate::error::{Error, Result};
use crate::knn::nearest;
use crate::linalg::product;

use canvas::Picture;
use gather::{Gathered, Place, gather, pictures};
use page::{Cell, NEIGHBOURS, Page, Row, draw, picture_width};

/// Frames of one segment nearer than this in time are the same moment, seconds.
const LEAST_MOMENT_SECS: f64 = 2.0;
/// So many times `learn.gap_max_secs` too: what was learned as a pair proves nothing on the sheet.
const MOMENT_GAPS: f64 = 2.0;

pub(super) fn run(args: &cli::Sheet) -> Result<Output> {
    check_name(&args.out)?;
    let mut run = OpenedRun::open(&args.of, &args.common)?;
    let gathered = gather(&mut run.opened, &run.config, &args.source)?;
    let moments = Moments::new(&gathered, run.config.learn.gap_max_secs);
    let (head, number) = (&run.adapted.head, run.adapted.number);
    let mut spaces = vec![("frozen encoder".to_owned(), gathered.latents.clone())];
    if number > 0 {
        spaces.push((format!("adapted head {number}"), head.embed_rows(gathered.latents.view())));
    }
    let rows = choose(&gathered, &spaces, &moments, args.queries as usize);
    if rows.iter().all(|row| row.groups.iter().all(Vec::is_empty)) {
        return Err(Error::usage(format!(
            "{} is too short for a contact sheet: all its {} frames are of one moment ({:.1} s); name a longer source",
            args.source, gathered.frames, moments.secs
        )));
    }
    let page = page(args, &gathered, &moments, number, spaces.into_iter().map(|(name, _)| name).collect(), rows);
    let cells = page.rows.iter().flat_map(|row| row.groups.iter().flatten().chain([&row.query]));
    let shown: BTreeSet<u64> = cells.map(|cell| cell.frame).collect();
    let width = picture_width(page.groups.len());
    let sheet = draw(&page, &pictures(&args.source, &run.config, &shown, width, width * 3 / 2)?);
    write(&args.out, &png(&sheet)?)?;
    let queries: Vec<Value> = page.rows.iter().map(row_json).collect();
    let json = json!({
        "path": args.out.display().to_string(), "width": sheet.width, "height": sheet.height,
        "head": number, "space": run.adapted.space.as_ref(),
        "frames": gathered.frames, "segments": gathered.segments, "compared": gathered.places.len(),
        "queries": queries,
    });
    let against = if number > 0 { format!(", head {number}") } else { "; no head was promoted".into() };
    let text = format!(
        "{}: {} queries of {} frames in {} segments, frozen encoder{against}; {} x {} pixels",
        args.out.display(),
        page.rows.len(),
        gathered.frames,
        gathered.segments,
        sheet.width,
        sheet.height
    );
    Ok(Output { text, json, as_json: args.common.json })
}

/// Before minutes of work: can this be the picture's name?
fn check_name(out: &Path) -> Result<()> {
    let png = out.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
    if !png || out.is_dir() {
        return Err(Error::usage(format!("--out {}: a contact sheet is a PNG file, name it OUT.png", out.display())));
    }
    Ok(())
}

/// Which frames are too near each other to show anything.
struct Moments {
    secs: f64,
    /// Segments are visits of their own, so a whole one counts as near its query.
    visits: bool,
}

impl Moments {
    fn new(gathered: &Gathered, gap_max_secs: f64) -> Self {
        let secs = LEAST_MOMENT_SECS.max(MOMENT_GAPS * gap_max_secs);
        Self { secs, visits: gathered.marks_cuts && gathered.segments > 1 }
    }

    /// The same scene within [`Moments::secs`].
    fn same(&self, a: Place, b: Place) -> bool {
        a.segment == b.segment && a.stamp.secs_since(b.stamp).abs() <= self.secs
    }

    /// `other` is no neighbour to show for `query`.
    fn near_query(&self, query: Place, other: Place) -> bool {
        self.same(query, other) || (self.visits && query.segment == other.segment)
    }

    fn rule(&self) -> String {
        let secs = self.secs;
        let left_out = if self.visits {
            format!("the query's own segment, and frames within {secs:.1} s of a nearer neighbour")
        } else {
            format!("frames within {secs:.1} s of the query or of a nearer neighbour")
        };
        format!("Nearest by cosine (bold). Left out: {left_out} in the same segment.")
    }
}

/// `count` queries spread evenly over the source, with their neighbours in each space.
fn choose(gathered: &Gathered, spaces: &[(String, Array2<f32>)], moments: &Moments, count: usize) -> Vec<Row> {
    let places = &gathered.places;
    let count = count.min(places.len());
    let cell = |i: usize, cosine| Cell { frame: places[i].index, segment: places[i].segment, cosine };
    let row = |q: usize| {
        let query = (2 * q + 1) * places.len() / (2 * count);
        let group = |space: &Array2<f32>| {
            let found = neighbours(space.view(), places, query, moments);
            found.into_iter().map(|(i, cosine)| cell(i, Some(cosine))).collect()
        };
        Row { query: cell(query, None), groups: spaces.iter().map(|(_, space)| group(space)).collect() }
    };
    (0..count).map(row).collect()
}

/// The nearest rows to row `query` of `space: [n, d]`, with their cosines: none of the query's moment, and of each
/// other moment only the nearest.
fn neighbours(space: ArrayView2<f32>, places: &[Place], query: usize, moments: &Moments) -> Vec<(usize, f32)> {
    let similar = product(space.row(query).insert_axis(Axis(0)), space.t()).into_raw_vec_and_offset().0;
    let mut found: Vec<(usize, f32)> = Vec::with_capacity(NEIGHBOURS);
    for i in nearest(&similar, similar.len(), |i| !moments.near_query(places[query], places[i])) {
        if found.len() == NEIGHBOURS {
            break;
        }
        if !found.iter().any(|(j, _)| moments.same(places[*j], places[i])) {
            found.push((i, similar[i]));
        }
    }
    found
}

fn page(
    args: &cli::Sheet,
    gathered: &Gathered,
    moments: &Moments,
    number: u64,
    groups: Vec<String>,
    rows: Vec<Row>,
) -> Page {
    let title = match number {
        0 => "Nearest frames: frozen encoder (this run has promoted no head)".to_owned(),
        n => format!("Nearest frames: frozen encoder and adapted head {n}"),
    };
    let segments = if gathered.segments == 1 { "segment" } else { "segments" };
    let compared = match gathered.places.len() as u64 {
        kept if kept < gathered.frames => format!(", {kept} of them compared"),
        _ => String::new(),
    };
    let mut notes = vec![
        format!("{}: {} frames{compared}, {} {segments}", args.source, gathered.frames, gathered.segments),
        moments.rule(),
    ];
    if number == 0 {
        notes
            .push("Until a head is promoted the run's embeddings are the frozen encoder's: there is one group.".into());
    }
    Page { title, notes, groups, rows }
}

fn row_json(row: &Row) -> Value {
    let cells = |cells: &[Cell]| -> Vec<Value> {
        let cell = |c: &Cell| json!({ "frame": c.frame, "segment": c.segment, "cosine": c.cosine });
        cells.iter().map(cell).collect()
    };
    json!({
        "frame": row.query.frame,
        "segment": row.query.segment,
        "frozen": row.groups.first().map(|g| cells(g)),
        "adapted": row.groups.get(1).map(|g| cells(g)),
    })
}

fn png(picture: &Picture) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(&picture.pixels, picture.width as u32, picture.height as u32, ExtendedColorType::Rgb8)
        .map_err(|e| Error::work("the contact sheet cannot be made a PNG").because(e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Stamp;

    /// Frames at 1 a second; the space is an angle for each.
    fn gathered(angles: &[f32], segments: &[u64], marks_cuts: bool) -> Gathered {
        let latents = Array2::from_shape_fn((angles.len(), 2), |(i, j)| [angles[i].cos(), angles[i].sin()][j]);
        let place = |(i, segment): (usize, &u64)| Place {
            index: 10 * i as u64,
            stamp: Stamp(i as i64 * 1_000_000_000),
            segment: *segment,
        };
        let places = segments.iter().enumerate().map(place).collect();
        let segments = segments.last().map_or(0, |s| s + 1);
        Gathered { latents, places, marks_cuts, frames: angles.len() as u64, segments }
    }

    fn shown(gathered: &Gathered, query: usize) -> Vec<usize> {
        let moments = Moments::new(gathered, 0.5);
        let found = neighbours(gathered.latents.view(), &gathered.places, query, &moments);
        found.into_iter().map(|(i, _)| i).collect()
    }

    #[test]
    fn the_querys_moment_is_left_out_and_others_are_shown_once() {
        // The nearest of all (1, 2) are within 2 s of the query; 6 and 7 are one moment.
        let angles = [0.0, 0.01, 0.02, 0.9, 0.8, 1.2, 0.1, 0.11, 0.7, 0.3];
        let one = gathered(&angles, &[0; 10], false);
        assert_eq!(shown(&one, 0), [6, 9, 3]);
        // A cut after frame 0 makes the frames behind it another scene.
        assert_eq!(shown(&gathered(&angles, &[0, 1, 1, 1, 1, 1, 1, 1, 1, 1], false), 0), [1, 6, 9]);
    }

    #[test]
    fn where_cuts_are_marked_the_querys_own_segment_is_left_out() {
        let angles = [0.0, 0.5, 0.01, 0.02, 0.03, 0.6, 0.7, 0.8];
        let segments = [0, 0, 0, 0, 0, 1, 1, 1];
        assert_eq!(shown(&gathered(&angles, &segments, false), 0), [3, 5]);
        assert_eq!(shown(&gathered(&angles, &segments, true), 0), [5]);
        // With a single segment that would leave nothing: time decides.
        assert_eq!(shown(&gathered(&angles, &[0; 8], true), 0), [3, 6]);
    }

    #[test]
    fn queries_are_spread_evenly_and_no_more_than_frames() {
        let angles: Vec<f32> = (0..20).map(|i| i as f32 / 10.0).collect();
        let gathered = gathered(&angles, &[0; 20], false);
        let spaces = [("frozen".to_owned(), gathered.latents.clone())];
        let moments = Moments::new(&gathered, 0.5);
        let queries = |count| -> Vec<u64> {
            choose(&gathered, &spaces, &moments, count).iter().map(|row| row.query.frame).collect()
        };
        assert_eq!(queries(4), [20, 70, 120, 170]);
        assert_eq!(queries(50).len(), 20);
        let row = &choose(&gathered, &spaces, &moments, 1)[0];
        assert_eq!(row.groups[0][0].frame, 70);
        assert!((row.groups[0][0].cosine.unwrap_or(0.0) - 0.3_f32.cos()).abs() < 1e-6);
    }

    #[test]
    fn the_picture_is_a_png_of_its_size() {
        let bytes = png(&Picture::new(31, 7, [1, 2, 3])).map(|bytes| image::load_from_memory(&bytes));
        let picture = bytes.ok().and_then(std::result::Result::ok).map(|p| (p.width(), p.height(), p.to_rgb8()));
        assert_eq!(picture.map(|(w, h, p)| (w, h, p.get_pixel(30, 6).0)), Some((31, 7, [1, 2, 3])));
    }

    #[test]
    fn only_png_names_are_taken() {
        assert!(check_name(Path::new("a/b.PNG")).is_ok());
        for name in ["sheet", "sheet.jpg", "."] {
            assert_eq!(check_name(Path::new(name)).map_err(|e| e.exit_code()), Err(2), "{name}");
        }
    }
}
