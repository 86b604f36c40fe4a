//! What the hot path uses of the learner: an immutable head with all that belongs to it.
use std::sync::Arc;

use ndarray::Array2;

use crate::LatentSpec;
use crate::head::Head;
use crate::linalg::dot;
use crate::spaces::space_of;

/// A head in use, never changed once made.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Version of the head: 0 is the frozen encoder, each promotion adds one.
    pub number: u64,
    /// The head.
    pub head: Arc<Head>,
    /// The space of its embeddings.
    pub space: Arc<str>,
    /// `[m, d]` unit rows: latents seen before, for novelty. Empty before the first fit.
    pub references: Array2<f32>,
    /// First frame that may be embedded with it.
    pub activate_at: u64,
}

impl Snapshot {
    /// The frozen latents as they are, pooled where they are grids.
    pub fn frozen(latents: &LatentSpec) -> Self {
        let dim = latents.pooled_dim();
        let head = Arc::new(Head::Identity { dim });
        let space = space_of(&latents.encoder_sha256, &latents.card_hash, &head).into();
        Self { number: 0, head, space, references: Array2::zeros((0, dim)), activate_at: 0 }
    }

    /// `1 - max_j f . r_j` over the references `r`, 0 (seen before) to 2; `None` before there are references.
    pub fn novelty(&self, latent: &[f32]) -> Option<f32> {
        let rows = self.references.rows().into_iter();
        let nearest = rows.filter_map(|row| row.to_slice().map(|r| dot(latent, r))).reduce(f32::max)?;
        Some((1.0 - nearest).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn novelty_is_the_distance_to_the_nearest_reference() {
        let head = Arc::new(Head::Identity { dim: 2 });
        let references = array![[1.0, 0.0], [0.0, 1.0]];
        let mut snapshot = Snapshot { number: 0, head, space: "s".into(), references, activate_at: 0 };
        assert_eq!(snapshot.novelty(&[0.0, 1.0]), Some(0.0));
        assert!((snapshot.novelty(&[0.8, 0.6]).unwrap_or(9.0) - 0.2).abs() < 1e-6);
        assert_eq!(snapshot.novelty(&[-1.0, 0.0]), Some(1.0));
        snapshot.references = Array2::zeros((0, 2));
        assert_eq!(snapshot.novelty(&[0.0, 1.0]), None);
    }
}
