//! Tests an encoder for `doctor` and `check`: its card, the model, and one picture through both.
use std::path::Path;
use std::time::{Duration, Instant};

use super::common::{FrameEncoder, LoadedEncoder};
use super::diagnostics::Diagnostics;
use crate::config::{self, Config};
use crate::encoder::ModelCard;
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::source::{self, Pull};

/// The picture to encode, always the same.
const PICTURE: &str = "pattern://7?frames=1&segments=1";
/// Number of timed inferences, of which the median counts.
const TIMED: usize = 5;

/// Reports the card of `model`, whether it opens under `config`, and how long one picture takes. Stops at the first
/// problem.
pub(super) fn encoder(all: &mut Diagnostics, model: &Path, config: &Config) -> Option<LoadedEncoder> {
    match ModelCard::beside(model) {
        Ok(card) => {
            let found = format!("{}, {} px, licence {}; {}", card.name, card.size, card.licence, card.source);
            all.ok("model card", found);
        }
        Err(error) => {
            all.error("model card", &error);
            return None;
        }
    }
    let mut opened = LoadedEncoder::open(model, config).map_err(|error| all.error("encoder", &error)).ok()?;
    let encoder = &opened.encoder;
    let (size, dim, provider) = (encoder.size(), encoder.dim(), encoder.provider());
    let found = format!("{}: {size} px to {dim} values on {provider}", model.display());
    match encoder.fallback() {
        Some(why) => all.warn("encoder", format!("{found}; {why}"), ""),
        None => all.ok("encoder", found),
    }
    encoder.doubts().iter().for_each(|doubt| all.warn("output", doubt.as_str(), "docs/encoders.md"));
    match encoder.placement() {
        Some(placement) => all.ok("placement", placement.describe()),
        None => all.warn("placement", "could not be measured", "set TMPDIR to a folder that can be written"),
    }
    match encoder.parity() {
        Some(parity) => all.ok("parity", parity.describe()),
        None if config.encoder.parity.min_cosine == 0.0 => {
            all.warn("parity", "not asked: encoder.parity.min_cosine = 0", "leave the key out");
        }
        None => all.ok("parity", "need not be asked: 32-bit floats on the CPU"),
    }
    if !opened.card.taps.is_empty() {
        let parts = opened.encoder.parts().iter().map(|part| format!("{} of {}", part.len, part.name));
        all.ok("taps", parts.collect::<Vec<_>>().join(", "));
    }
    match inference(&mut opened) {
        Ok(time) => {
            let millis = time.as_secs_f64() * 1e3;
            let found = format!("{millis:.2} ms from picture to latent, {} threads", opened.encoder.threads());
            all.ok("inference", found);
            Some(opened)
        }
        Err(error) => {
            all.error("inference", &error);
            None
        }
    }
}

/// Median time from a picture to its unit latent.
fn inference(opened: &mut LoadedEncoder) -> Result<Duration> {
    let mut frame = Frame::default();
    if source::open(PICTURE, &config::Source::default())?.next(&mut frame, Duration::from_secs(1))? != Pull::Frame {
        return Err(Error::runtime(format!("{PICTURE} gave no frame")));
    }
    let mut single = FrameEncoder::new(opened)?;
    let mut times = Vec::with_capacity(TIMED);
    for _ in 0..TIMED {
        let began = Instant::now();
        single.latent(opened, &frame)?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[TIMED / 2])
}

/// Opens `model` on `provider` alone, without a fallback, and describes the result.
pub(super) fn provider(model: &Path, provider: &str, config: &Config) -> Result<String> {
    let mut alone = config.clone();
    alone.encoder.providers = vec![provider.parse().map_err(Error::usage)?];
    alone.encoder.fallback = false;
    let mut opened = LoadedEncoder::open(model, &alone)?;
    let millis = inference(&mut opened)?.as_secs_f64() * 1e3;
    Ok(format!("works: {millis:.2} ms from picture to latent"))
}
