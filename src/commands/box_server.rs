//! Starts the box service of a running pipeline (`box_server.listen`, `mqtt.boxes`).
use std::path::Path;
use std::sync::Arc;

use super::common::{LoadedEncoder, newest};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::export::box_api::BoxServer;
use crate::learner::Snapshot;
use crate::pipeline::box_encoder::BoxMethod;
use crate::pipeline::box_service::BoxService;
use crate::pipeline::run_dir::RunManifest;

/// Creates the box service for requests through `asked`, before the first frames of `cameras`.
///
/// # Errors
/// The frames are not live, or the method or the run does not match the encoder.
pub(super) fn desk(
    asked: Option<&BoxServer>,
    config: &Config,
    opened: &LoadedEncoder,
    cameras: &[String],
    live: bool,
) -> Result<Option<BoxService>> {
    let Some(asked) = asked else { return Ok(None) };
    if !live {
        return Err(Error::usage(
            "box_server.listen or mqtt.boxes with a source that is not live: boxes of a folder or a video come in a file (--boxes)",
        ));
    }
    let size = opened.encoder.size();
    let method = BoxMethod::new(&config.boxes, &opened.card, &opened.origin, size)?;
    let own = match config.box_server.run.as_str() {
        "" => None,
        run => Some(head_of(Path::new(run), opened, method)?),
    };
    let cameras: Vec<Arc<str>> = cameras.iter().map(|name| name.as_str().into()).collect();
    let how = (method, opened.prepare()?, size);
    Ok(Some(BoxService::new(asked.requests(), cameras, how, config, &opened.origin, own)))
}

/// The newest head of `run`, which learned from frames, or from boxes embedded with this method.
fn head_of(run: &Path, opened: &LoadedEncoder, method: BoxMethod) -> Result<Snapshot> {
    let told = |error: Error| Error::config(format!("box_server.run = {:?}", run.display())).with_source(error);
    let info = RunManifest::load(run).map_err(told)?;
    let of_boxes = method.origin(&opened.origin);
    let origin = if info.card_hash == of_boxes.card_hash { of_boxes } else { opened.origin.clone() };
    info.same_origin(run, &origin).map_err(told)?;
    newest(run, &info, opened).map_err(told)
}
