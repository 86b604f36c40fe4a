//! The query of a search: a picture, embedded with the head of the space, or an existing row.
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::embedding_store::{EmbeddingStore, StoredSpace};
use crate::checkpoint::{head_path, load_own_head};
use crate::cli;
use crate::commands::common::{FrameEncoder, LoadedRun};
use crate::detection::{BBox, Detection};
use crate::error::{Error, Result};
use crate::export::{Granularity, Record};
use crate::frame::Frame;
use crate::head::{Head, Scratch};
use crate::linalg::normalise;
use crate::pipeline::box_encoder::{BoxEncoder, BoxMethod};
use crate::source::folder::read_image;
use crate::spaces::space_of;

/// A query as given on the command line.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum QuerySpec {
    Picture(PathBuf),
    /// A row of a file, by the file's name.
    Row {
        file: PathBuf,
        row: u64,
    },
    /// A frame of a camera.
    Frame {
        camera: String,
        frame: u64,
    },
}

/// A query, ready to search for.
pub(super) struct Query {
    /// Unit length.
    pub(super) embedding: Vec<f32>,
    /// The record of an existing row.
    pub(super) record: Option<Record>,
    /// The given picture.
    pub(super) picture: Option<Frame>,
    /// Name shown for the query.
    pub(super) name: String,
}

impl QuerySpec {
    pub(super) fn new(args: &cli::SearchArgs) -> Result<Self> {
        let numbered = |text: &str, flag: &str, example: &str| {
            let parts = text.rsplit_once(':').filter(|(before, _)| !before.is_empty());
            let parts = parts.and_then(|(before, number)| Some((before.to_owned(), number.parse::<u64>().ok()?)));
            parts.ok_or_else(|| {
                Error::usage(format!("{flag} {text:?}: write a number from 0 behind a colon, as in {example}"))
            })
        };
        match (&args.image, &args.row, &args.frame) {
            (Some(path), _, _) => Ok(QuerySpec::Picture(path.clone())),
            (_, Some(text), _) => numbered(text, "--row", "--row 0003.npy:17")
                .map(|(file, row)| QuerySpec::Row { file: file.into(), row }),
            (_, _, Some(text)) => numbered(text, "--frame", "--frame camera:120")
                .map(|(camera, frame)| QuerySpec::Frame { camera, frame }),
            _ => Err(Error::usage("name an --image, a --row or a --frame to look for")),
        }
    }
}

impl Query {
    pub(super) fn new(
        wanted: &QuerySpec,
        args: &cli::SearchArgs,
        exports: &EmbeddingStore,
        space: &StoredSpace,
    ) -> Result<Self> {
        match wanted {
            QuerySpec::Picture(path) => {
                let mut picture = Frame::default();
                read_image(path, &mut picture)?;
                let embedding = embedded(args, space, &picture)?;
                let name = path.display().to_string();
                Ok(Self { embedding, record: None, picture: Some(picture), name })
            }
            QuerySpec::Row { file, row } => {
                let stored = space.file(file).ok_or_else(|| {
                    Error::usage(format!("--row: {} is of another space than {}", file.display(), space.name))
                })?;
                let found = stored.row(*row)?.ok_or_else(|| {
                    let (file, rows) = (stored.path().display(), stored.rows());
                    Error::usage(format!("--row: {file} has {rows} rows, from 0; there is no row {row}"))
                })?;
                Ok(Self::of_row(found, format!("row {row} of {}", file.display())))
            }
            QuerySpec::Frame { camera, frame } => {
                for stored in space.all() {
                    let rows: Vec<u64> = (0..stored.rows()).collect();
                    for rows in rows.chunks(1 << 12) {
                        let records = stored.records(rows)?;
                        let here = |record: &Record| *record.camera == **camera && record.frame == *frame;
                        if let Some(at) = records.iter().position(here)
                            && let Some(found) = stored.row(rows[at])?
                        {
                            return Ok(Self::of_row(found, format!("frame {frame} of {camera}")));
                        }
                    }
                }
                Err(Error::usage(format!(
                    "--frame {camera}:{frame}: no such frame among the {} rows of space {}; {}",
                    space.rows,
                    space.name,
                    match exports.others(space).count() {
                        0 => "look up camera and frame in the records".to_owned(),
                        n => format!("it may be of another one ({n} more: --space NAME)"),
                    }
                )))
            }
        }
    }

    fn of_row((record, embedding): (Record, Vec<f32>), name: String) -> Self {
        Self { embedding, record: Some(record), picture: None, name }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.name, "camera": self.record.as_ref().map(|record| record.camera.as_ref()),
            "frame": self.record.as_ref().map(|record| record.frame),
        })
    }
}

/// Embeds `picture` in the space of the rows, with the encoder and the head that made them.
fn embedded(args: &cli::SearchArgs, space: &StoredSpace, picture: &Frame) -> Result<Vec<f32>> {
    let mut run = LoadedRun::open_for_boxes(&args.of, &args.common)?;
    let head = head(&run, &args.of.run, space)?;
    let mut latent = Vec::new();
    if space.level == Granularity::Box {
        let (config, opened) = (&run.config, &mut run.opened);
        let size = opened.encoder.size();
        let method = BoxMethod::new(&config.boxes, &opened.card, &opened.origin, size)?;
        let mut boxer = BoxEncoder::new(method, config, opened.prepare()?, &opened.origin, size);
        let (right, bottom) = (f64::from(picture.width), f64::from(picture.height));
        let rect = BBox { left: 0.0, top: 0.0, right, bottom };
        let whole = Detection { frame: 0, rect, track: None, score: None, class: None, line: 1 };
        boxer.frame(&mut opened.encoder, picture, &[whole], |_, _, found| {
            latent.extend_from_slice(found);
            Ok(())
        })?;
    } else {
        let mut single = FrameEncoder::new(&run.opened)?;
        latent.extend_from_slice(single.latent(&mut run.opened, picture)?);
        if let Some(grid) = run.opened.origin.shape().filter(|_| head.dim_in() != latent.len()) {
            let mut pooled = vec![0.0; grid.dim];
            grid.pool(&latent, &mut pooled);
            latent = pooled;
        }
    }
    if latent.len() != head.dim_in() {
        return Err(Error::runtime(format!(
            "the picture has a latent of {} numbers, head {} takes {}",
            latent.len(),
            space.head,
            head.dim_in()
        )));
    }
    let mut embedding = vec![0.0; head.dim_out()];
    head.embed(&latent, &mut embedding, &mut Scratch::new());
    let length = normalise(&mut embedding);
    if length.is_finite() && length > 0.0 {
        return Ok(embedding);
    }
    Err(Error::check_failed("the picture has an embedding that is zero or not finite"))
}

/// The head that made the rows of `space`, from the run.
fn head(run: &LoadedRun, folder: &std::path::Path, space: &StoredSpace) -> Result<Arc<Head>> {
    let frozen = run.opened.frozen();
    let (mut head, mut name) = (frozen.head, frozen.space);
    if space.head > 0 {
        let path = head_path(folder, space.head);
        let file = load_own_head(&path, &run.info.owner()).map_err(|e| {
            Error::new(
                e.kind(),
                format!(
                    "a picture cannot be brought into space {}: its head {} is not there any more, or not whole. Search \
                     another space (--space NAME), or for a row (--row FILE:ROW), which needs no head",
                    space.name, space.head
                ),
            )
            .with_source(e)
        })?;
        (head, name) = (Arc::new(file.head), file.space.into());
    }
    if space.level == Granularity::Box && name != space.name {
        let opened = &run.opened;
        let method = BoxMethod::new(&run.config.boxes, &opened.card, &opened.origin, opened.encoder.size())?;
        let origin = method.origin(&opened.origin);
        head = Arc::new(head.of_cells().into_owned());
        name = space_of(&origin.encoder_sha256, &origin.card_hash, &head).into();
    }
    if name == space.name {
        return Ok(head);
    }
    Err(Error::check_failed(format!(
        "rows of space {} say that they are of head {}, which with this encoder is of space {name}: they were made by another \
         run, encoder or preparation. Name that run, or bring the rows over with `afterimage migrate`",
        space.name, space.head
    )))
}
