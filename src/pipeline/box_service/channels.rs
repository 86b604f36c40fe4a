//! The ways between the desk and the hot path.
use crossbeam_channel::{Receiver, Sender, bounded};

use super::frame_cache::CachedFrame;

/// Frames on their way to the desk; the hot path waits for none of them.
const KEPT: usize = 4;

/// The hot path's end.
pub(in crate::pipeline) struct BoxServiceInput {
    pub(in crate::pipeline) kept: Sender<CachedFrame>,
    /// Empty ones coming back, for their buffers.
    pub(in crate::pipeline) spare: Receiver<CachedFrame>,
    pub(in crate::pipeline) crops: Receiver<Crop>,
    pub(in crate::pipeline) latents: Sender<Crop>,
    /// Boxes are cut out of frames, not pooled out of grids.
    pub(in crate::pipeline) pixels: bool,
}

/// The desk's end.
pub(in crate::pipeline) struct BoxChannels {
    pub(super) kept: Receiver<CachedFrame>,
    pub(super) spare: Sender<CachedFrame>,
    pub(super) crops: Sender<Crop>,
    /// A crop that nobody has begun with can be taken back.
    pub(super) withdrawn: Receiver<Crop>,
    pub(super) latents: Receiver<Crop>,
}

/// A prepared box on its way to the encoder and back.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Crop {
    pub(in crate::pipeline) tensor: Vec<f32>,
    pub(in crate::pipeline) latent: Vec<f32>,
}

/// Both ends.
pub(in crate::pipeline) fn channels(pixels: bool) -> (BoxServiceInput, BoxChannels) {
    let (kept_in, kept) = bounded(KEPT);
    let (spare_in, spare) = bounded(KEPT);
    let (crops, crops_out) = bounded(1);
    let (latents_in, latents) = bounded(1);
    let withdrawn = crops_out.clone();
    (
        BoxServiceInput { kept: kept_in, spare, crops: crops_out, latents: latents_in, pixels },
        BoxChannels { kept, spare: spare_in, crops, withdrawn, latents },
    )
}
