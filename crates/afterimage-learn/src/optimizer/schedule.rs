//! The learning rate schedule.

/// The schedule after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// A constant rate, for endless streams.
    Constant,
    /// Half a cosine down to zero (Loshchilov, Hutter 2017, "SGDR", equation 5, without restarts), for a known number
    /// of steps. Afterwards it stays zero.
    Cosine {
        /// Total number of steps, including the warm-up.
        steps: u64,
    },
}

impl Schedule {
    /// Factor of the learning rate at step `step` (from 0). During the first `warmup` steps it is `(step + 1) /
    /// warmup`; then it is 1, or `(1 + cos(pi x)) / 2` with `x` the completed fraction of the remaining steps.
    pub fn factor(self, step: u64, warmup: u64) -> f64 {
        if step + 1 < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        match self {
            Self::Constant => 1.0,
            Self::Cosine { .. } => 0.5 * (1.0 + (std::f64::consts::PI * self.progress(step, warmup)).cos()),
        }
    }

    /// `1 - (1 - momentum) (1 + cos(pi x)) / 2`: the momentum of a momentum network, which rises to 1 if the number
    /// of steps is known (Grill et al. 2020, "Bootstrap Your Own Latent", section 3.3), and stays constant otherwise.
    pub fn momentum(self, step: u64, momentum: f64) -> f64 {
        1.0 - (1.0 - momentum) * self.factor(step, 0)
    }

    /// The completed fraction of the steps after the warm-up, at most 1.
    fn progress(self, step: u64, warmup: u64) -> f64 {
        match self {
            Self::Constant => 0.0,
            Self::Cosine { steps } => {
                let left = steps.saturating_sub(warmup).max(1) as f64;
                (step.saturating_sub(warmup) as f64 / left).min(1.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warmup_rises_to_one() {
        let factors: Vec<f64> = (0..6).map(|step| Schedule::Constant.factor(step, 4)).collect();
        assert_eq!(factors, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
        let last = Schedule::Constant.factor(u64::MAX - 1, 50);
        assert_eq!((Schedule::Constant.factor(0, 0), Schedule::Constant.factor(0, 1), last), (1.0, 1.0, 1.0));
    }

    #[test]
    fn a_cosine_falls_to_zero_and_stays() {
        let factor = |step| Schedule::Cosine { steps: 110 }.factor(step, 10);
        assert_eq!((factor(0), factor(9), factor(10)), (0.1, 1.0, 1.0));
        assert!((factor(60) - 0.5).abs() < 1e-12 && (factor(35) - 0.853_553_390_6).abs() < 1e-9);
        assert_eq!((factor(110), factor(1000)), (0.0, 0.0));
    }

    #[test]
    fn momentum_rises_only_to_a_known_end() {
        assert!((Schedule::Constant.momentum(1_000_000, 0.996) - 0.996).abs() < 1e-15);
        let cosine = Schedule::Cosine { steps: 100 };
        assert!((cosine.momentum(0, 0.996) - 0.996).abs() < 1e-12);
        assert!((cosine.momentum(50, 0.996) - 0.998).abs() < 1e-12);
        assert_eq!(cosine.momentum(100, 0.996), 1.0);
    }
}
