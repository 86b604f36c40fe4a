//! Converts random bits to numbers. The generator is ChaCha8: small, fast, and the same on every machine; its state
//! (seed and word position) can be saved.
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

/// A number in `[0, 1)`, one of `2^53` equally likely values. Takes one `u64`.
pub fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// An integer in `[0, n)`, all values equally likely; 0 when `n` is 0.
///
/// Multiply and shift with rejection (Lemire 2019, "Fast random integer generation in an interval", algorithm 5).
pub fn uniform_below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    let n = n as u64;
    if n == 0 {
        return 0;
    }
    // A low half below `2^64 mod n` marks the draws that would make some results more likely than others.
    let unfair = n.wrapping_neg() % n;
    loop {
        let wide = u128::from(rng.next_u64()) * u128::from(n);
        if wide as u64 >= unfair {
            return (wide >> 64) as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn uniform_fills_the_unit_interval_evenly() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let x: Vec<f64> = (0..100_000).map(|_| uniform(&mut rng)).collect();
        assert!(x.iter().all(|x| (0.0..1.0).contains(x)));
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        // Five standard errors.
        assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0f64 / 1e5).sqrt(), "{mean}");
        assert!((variance - 1.0 / 12.0).abs() < 2e-3, "{variance}");
    }

    #[test]
    fn below_is_fair_and_bounded() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[uniform_below(&mut rng, 7)] += 1;
        }
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 500), "{counts:?}");
        assert_eq!((uniform_below(&mut rng, 0), uniform_below(&mut rng, 1)), (0, 0));
    }

    #[test]
    fn the_stream_goes_on_from_a_saved_position() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        for _ in 0..5 {
            uniform_below(&mut rng, 1000);
        }
        let mut other = ChaCha8Rng::from_seed(rng.get_seed());
        other.set_word_pos(rng.get_word_pos());
        assert_eq!(uniform(&mut rng).to_bits(), uniform(&mut other).to_bits());
    }
}
