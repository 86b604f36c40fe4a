//! The learner's output for the inference loop: an immutable head with everything that belongs to it.
use std::sync::Arc;

use ndarray::Array2;

use crate::LatentSpec;
use crate::head::Head;
use crate::linalg::dot;
use crate::spaces::space_of;

/// A head in use; immutable.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Version of the head: 0 is the frozen encoder, and each promotion adds one.
    pub number: u64,
    /// The head that computes the embeddings.
    pub head: Arc<Head>,
    /// Name of the space of its embeddings.
    pub space: Arc<str>,
    /// `[m, d]` unit rows: earlier latents as references for novelty. Empty before the first fit.
    pub references: Array2<f32>,
    /// Index of the first frame that may be embedded with it.
    pub activate_at: u64,
}

impl Snapshot {
    /// The frozen latents themselves, pooled if they are grids.
    pub fn frozen(latents: &LatentSpec) -> Self {
        let dim = latents.pooled_dim();
        let head = Arc::new(Head::Identity { dim });
        let space = space_of(&latents.encoder_sha256, &latents.card_hash, &head).into();
        Self { number: 0, head, space, references: Array2::zeros((0, dim)), activate_at: 0 }
    }

    /// `1 - max_j f . r_j` over the references `r`, from 0 (seen before) to 2; `None` if there are no references yet.
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
