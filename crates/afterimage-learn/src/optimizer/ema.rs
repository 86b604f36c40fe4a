//! Exponential moving averages of weights.
use super::Parameters;
use crate::linalg::Scalar;

/// `average = decay average + (1 - decay) params` for every parameter: the momentum encoder of MoCo (He et al. 2020,
/// equation 2), and the average that replaces a falling learning rate on an endless stream.
pub fn average<T: Scalar, P: Parameters<T> + ?Sized>(average: &mut P, params: &P, decay: f64) {
    let (decay, rest) = (T::of(decay), T::of(1.0 - decay));
    for (average, params) in average.parts_mut().into_iter().zip(params.parts()) {
        for (average, &x) in average.values.iter_mut().zip(params.values) {
            *average = decay * *average + rest * x;
        }
    }
}

/// The decay at step `step` (from 1) of an average that starts with the initial weights: `min(decay, (1 + step) /
/// (10 + step))`, so that it soon forgets them (as in TensorFlow's `ExponentialMovingAverage`).
pub fn average_decay(step: u64, decay: f64) -> f64 {
    decay.min((1.0 + step as f64) / (10.0 + step as f64))
}

#[cfg(test)]
mod tests {
    use super::super::tests::filled;
    use super::*;

    #[test]
    fn the_share_of_the_start_is_a_power_of_the_decay() {
        for (decay, left) in [(0.99, 0.366_032_341_3), (0.996, 0.669_782_571_3), (0.999, 0.904_792_147_1)] {
            let (mut head, params) = (filled(1.0), filled(2.0));
            (0..100).for_each(|_| average(&mut head, &params, decay));
            assert!((head.w1[[2, 1]] - (params.w1[[2, 1]] - left)).abs() < 1e-9, "{}", head.w1[[2, 1]]);
            assert!((head.b2[0] - (2.0 - left)).abs() < 1e-9);
        }
    }

    #[test]
    fn the_decay_rises_to_its_value() {
        assert_eq!((average_decay(1, 0.999), average_decay(8, 0.999)), (2.0 / 11.0, 0.5));
        assert_eq!((average_decay(1_000_000, 0.999), average_decay(5, 0.1)), (0.999, 0.1));
    }
}
