//! The residual MLP with its training state.
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::collapse_guard::CollapseGuard;
use super::trainer::Residual;

/// The residual, its random number generator and its collapse guard.
#[derive(Debug, Clone)]
pub(super) struct ResidualTrainer {
    pub(super) residual: Option<Residual>,
    pub(super) rng: ChaCha8Rng,
    /// Training samples for which gradient steps are still due.
    pub(super) credit: u64,
    pub(super) guard: CollapseGuard,
    /// The guard holds because a measure warned, not because the stream brings nothing new.
    pub(super) warned: bool,
}

impl ResidualTrainer {
    /// Creates a trainer without a residual.
    pub(super) fn new(seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { residual: None, rng, credit: 0, guard: CollapseGuard::new(), warned: false }
    }

    /// Gradient steps on the current slow head.
    pub(super) fn steps(&self) -> u64 {
        self.residual.as_ref().map_or(0, Residual::steps)
    }
}
