//! `contact-sheet`: frames of a source with their nearest neighbours, frozen encoder against adapted head.
pub(super) mod canvas;
pub(super) mod sampler;
mod page;
pub(super) mod style;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use ndarray::{Array2, ArrayView2, Axis};
use serde_json::{Value, json};

use super::Output;
use super::common::LoadedRun;
use super::export::write;
use crate::cli;
use crate::error::{Error, Result};
use crate::knn::nearest;
use crate::linalg::product;
use crate::source::address::Address;
use crate::source::uri::is_input;

use canvas::RgbImage;
use page::{Cell, NEIGHBOURS, Page, Row, draw, picture_width};
use sampler::{FrameRef, SampledFrames, gather, pictures};

/// Frames of one segment closer in time than this, in seconds, show the same moment.
const LEAST_MOMENT_SECS: f64 = 2.0;
/// This multiple of `learn.sampling.gap_max_secs` counts as the same moment too: frames learned as a pair prove nothing
/// on the sheet.
const MOMENT_GAPS: f64 = 2.0;

pub(super) fn run(args: &cli::ContactSheetArgs) -> Result<Output> {
    check_name(&args.out)?;
    twice(&args.source)?;
    let mut run = LoadedRun::open(&args.of, &args.common)?;
    let gathered = gather(&mut run.opened, &run.config, &args.source)?;
    let moments = ShownMoments::new(&gathered, run.config.learn.sampling.gap_max_secs);
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
        "source": gathered.source,
        "queries": queries,
    });
    let against = if number > 0 { format!(", head {number}") } else { "; no head was promoted".into() };
    let text = format!(
        "{}: {} queries of {} frames in {}, frozen encoder{against}; {} x {} pixels{}",
        args.out.display(),
        page.rows.len(),
        gathered.frames,
        counted(gathered.segments),
        sheet.width,
        sheet.height,
        gathered.source.left_out.line()
    );
    Ok(Output { text, json, as_json: args.common.json })
}

/// Checks the name of the image before minutes of work.
pub(super) fn check_name(out: &Path) -> Result<()> {
    let png = out.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
    if !png || out.is_dir() {
        return Err(Error::usage(format!("--out {}: a contact sheet is a PNG file, name it OUT.png", out.display())));
    }
    Ok(())
}

/// Rejects standard input: drawing needs a second pass over the source.
pub(super) fn twice(source: &Address) -> Result<()> {
    if is_input(source.reveal()) {
        return Err(Error::usage(
            "--source - for a contact sheet: its frames are read twice, and standard input comes once; name a file or folder",
        ));
    }
    Ok(())
}

/// Decides which frames are too close to each other to show.
struct ShownMoments {
    secs: f64,
    /// Segments are separate visits, so a whole segment counts as near its query.
    visits: bool,
}

impl ShownMoments {
    fn new(gathered: &SampledFrames, gap_max_secs: f64) -> Self {
        let secs = LEAST_MOMENT_SECS.max(MOMENT_GAPS * gap_max_secs);
        Self { secs, visits: gathered.marks_cuts && gathered.segments > 1 }
    }

    /// Whether both show the same scene within [`ShownMoments::secs`].
    fn same(&self, a: FrameRef, b: FrameRef) -> bool {
        a.segment == b.segment && a.stamp.secs_since(b.stamp).abs() <= self.secs
    }

    /// Whether `other` is too close to `query` to be shown as its neighbour.
    fn near_query(&self, query: FrameRef, other: FrameRef) -> bool {
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

/// Chooses `count` queries spread evenly over the source, with their neighbours in each space.
fn choose(
    gathered: &SampledFrames,
    spaces: &[(String, Array2<f32>)],
    moments: &ShownMoments,
    count: usize,
) -> Vec<Row> {
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

/// The nearest rows to row `query` of `space: [n, d]`, with their cosines: none from the query's moment, and only the
/// nearest from each other moment.
fn neighbours(space: ArrayView2<f32>, places: &[FrameRef], query: usize, moments: &ShownMoments) -> Vec<(usize, f32)> {
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

fn counted(segments: u64) -> String {
    format!("{segments} segment{}", if segments == 1 { "" } else { "s" })
}

fn page(
    args: &cli::ContactSheetArgs,
    gathered: &SampledFrames,
    moments: &ShownMoments,
    number: u64,
    groups: Vec<String>,
    rows: Vec<Row>,
) -> Page {
    let title = match number {
        0 => "Nearest frames: frozen encoder (this run has promoted no head)".to_owned(),
        n => format!("Nearest frames: frozen encoder and adapted head {n}"),
    };
    let segments = counted(gathered.segments);
    let compared = match gathered.places.len() as u64 {
        kept if kept < gathered.frames => format!(", {kept} of them compared"),
        _ => String::new(),
    };
    let mut notes = vec![format!("{}: {} frames{compared}, {segments}", args.source, gathered.frames), moments.rule()];
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

/// Encodes an image as PNG.
pub(super) fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(&picture.pixels, picture.width as u32, picture.height as u32, ExtendedColorType::Rgb8)
        .map_err(|e| Error::runtime("the contact sheet cannot be made a PNG").with_source(e))?;
    Ok(bytes)
}
