//! Describes the latents of an open encoder.
use afterimage_learn::LatentSpec;

use super::{Encoder, ModelCard};

impl Encoder {
    /// Identity of its latents if it was opened with `card`: heads and spaces belong to it.
    pub fn latent_spec(&self, card: &ModelCard) -> LatentSpec {
        LatentSpec {
            encoder_sha256: self.sha256().to_owned(),
            card_hash: card.hash(),
            dim: self.dim(),
            parts: self.parts().to_vec(),
            grid: self.grid(),
        }
    }
}
