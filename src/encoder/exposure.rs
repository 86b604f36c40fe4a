//! Exposure normalisation: brings every frame to the same mean brightness, so that light that changes between visits
//! matters less.

/// Upper bound on the gain: a nearly black frame holds only noise.
pub const MAX_GAIN: f32 = 8.0;

/// `g = min(level / mean(x), 8)` for `x = value / 255` over all `pixels` (of all channels): the gain that brings
/// their mean to `level`, before values above 1 are clipped. Black pixels, or no pixels, give 8.
pub(super) fn gain(level: f32, pixels: &[u8]) -> f32 {
    let sum = sum(pixels);
    if sum == 0 {
        return MAX_GAIN;
    }
    let mean = sum as f64 / (255.0 * pixels.len() as f64);
    (f64::from(level) / mean).min(f64::from(MAX_GAIN)) as f32
}

/// Sums all values. Partial sums are kept in 32 bits, so that the loop vectorises.
pub(super) fn sum(pixels: &[u8]) -> u64 {
    pixels.chunks(1 << 16).map(|part| u64::from(part.iter().map(|v| u32::from(*v)).sum::<u32>())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brings_the_mean_to_the_level_within_bounds() {
        let pixels: Vec<u8> = (0..300_000u32).map(|i| (i * 7 % 120) as u8).collect();
        let mean = pixels.iter().map(|v| f64::from(*v) / 255.0).sum::<f64>() / pixels.len() as f64;
        assert!((f64::from(gain(0.45, &pixels)) * mean - 0.45).abs() < 1e-6);
        assert!((gain(0.45, &[255; 7]) - 0.45).abs() < 1e-6);
        for dark in [&[0; 9][..], &[1; 9], &[]] {
            assert_eq!(gain(0.45, dark), MAX_GAIN);
        }
    }
}
