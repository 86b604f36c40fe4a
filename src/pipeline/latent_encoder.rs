//! What the inference loop needs of an encoder.
use crate::encoder::Encoder;
use crate::error::Result;

/// Turns prepared frames into latents.
pub trait LatentEncoder {
    /// The latent of one prepared frame, `[3, height, width]`.
    ///
    /// # Errors
    /// The inference fails. A latent that is zero or not finite is no error: the pipeline counts it and goes on.
    fn encode(&mut self, tensor: &[f32], latent: &mut [f32]) -> Result<()>;

    /// The latents of several prepared frames, one after the other, in one pass.
    ///
    /// # Errors
    /// The inference fails.
    fn encode_batch(&mut self, tensors: &[f32], latents: &mut [f32]) -> Result<()>;
}

impl LatentEncoder for Encoder {
    fn encode(&mut self, tensor: &[f32], latent: &mut [f32]) -> Result<()> {
        Encoder::encode(self, tensor, latent)
    }

    fn encode_batch(&mut self, tensors: &[f32], latents: &mut [f32]) -> Result<()> {
        Encoder::encode_batch(self, tensors, latents)
    }
}
