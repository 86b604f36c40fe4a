//! The channels between the box service and the inference loop.
use crossbeam_channel::{Receiver, Sender, bounded};

use super::frame_cache::CachedFrame;
use crate::pipeline::spare::Spare;

/// Frames under way to the box service. The inference loop never waits for it.
const KEPT: usize = 4;

/// The inference loop's end.
pub(in crate::pipeline) struct BoxServiceInput {
    pub(in crate::pipeline) kept: Sender<CachedFrame>,
    /// Empty ones coming back, for their buffers.
    pub(in crate::pipeline) spare: Spare<CachedFrame>,
    pub(in crate::pipeline) crops: Receiver<Crop>,
    pub(in crate::pipeline) latents: Sender<Crop>,
    /// Boxes are cut out of frames, not pooled from grids.
    pub(in crate::pipeline) pixels: bool,
}

/// The box service's end.
pub(in crate::pipeline) struct BoxChannels {
    pub(super) kept: Receiver<CachedFrame>,
    pub(super) spare: Sender<CachedFrame>,
    pub(super) crops: Sender<Crop>,
    /// Takes back a crop that the inference loop has not begun to encode.
    pub(super) withdrawn: Receiver<Crop>,
    pub(super) latents: Receiver<Crop>,
}

/// A preprocessed box under way to the encoder and back.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Crop {
    pub(in crate::pipeline) tensor: Vec<f32>,
    pub(in crate::pipeline) latent: Vec<f32>,
}

pub(in crate::pipeline) fn channels(pixels: bool) -> (BoxServiceInput, BoxChannels) {
    let (kept_in, kept) = bounded(KEPT);
    let (spare_in, spare) = bounded(KEPT);
    let (crops, crops_out) = bounded(1);
    let (latents_in, latents) = bounded(1);
    let withdrawn = crops_out.clone();
    (
        BoxServiceInput { kept: kept_in, spare: Spare::new(spare), crops: crops_out, latents: latents_in, pixels },
        BoxChannels { kept, spare: spare_in, crops, withdrawn, latents },
    )
}
