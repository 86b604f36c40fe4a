//! Row resize with NEON: eight taps of three channels at a time, first with 16-bit weights, as with AVX2.
#![allow(unsafe_code, reason = "vector loads")]
use std::arch::aarch64::{
    vaddvq_s32, vdupq_n_s32, vget_high_s16, vget_low_s16, vld1q_s16, vld3_u8, vmlal_s16, vmovl_u8,
    vreinterpretq_s16_u16,
};

use super::rounded;
use super::weights::{BITS, GROUP, Group, Grouped, HALF, HIGH, LOW, LOW_BITS, NEAR, Weights};

/// Like `plain_along_rows`; returns false and does nothing if the image does not allow it.
pub(super) fn along_rows(source: &[u8], line: usize, weights: &Weights, out: &mut [u8]) -> bool {
    if !weights.is_grouped() {
        return false;
    }
    let narrow = 3 * weights.len();
    for (row, out) in source.chunks_exact(line).zip(out.chunks_exact_mut(narrow)) {
        for (grouped, out) in weights.groups().zip(out.as_chunks_mut::<3>().0) {
            let bytes = &row[3 * grouped.start..3 * (grouped.start + grouped.groups.len() * GROUP)];
            *out = pixel(bytes, grouped, weights.shift());
        }
    }
    true
}

/// `row` must hold as many triples as the groups have taps.
fn pixel(row: &[u8], grouped: Grouped<'_>, shift: u32) -> [u8; 3] {
    let near = sums::<NEAR>(row, grouped.groups).map(|sum| sum << shift);
    let [least, most] = grouped.off;
    if near.iter().all(|sum| (sum + least) >> BITS == (sum + most) >> BITS) {
        return near.map(|sum| rounded(sum + least));
    }
    let (high, low) = (sums::<HIGH>(row, grouped.groups), sums::<LOW>(row, grouped.groups));
    std::array::from_fn(|channel| rounded((high[channel] << LOW_BITS) + low[channel] + HALF))
}

/// Sums the three channels with one part of the weights.
fn sums<const PART: usize>(row: &[u8], groups: &[Group]) -> [i32; 3] {
    // SAFETY: NEON is part of the architecture; each load reads 24 bytes of a 24-byte chunk, or eight 16-bit numbers.
    unsafe {
        let mut sums = [vdupq_n_s32(0); 3];
        for (bytes, group) in row.as_chunks::<{ 3 * GROUP }>().0.iter().zip(groups) {
            let pixels = vld3_u8(bytes.as_ptr());
            let weights = vld1q_s16(group[PART].as_ptr());
            for (sum, channel) in sums.iter_mut().zip([pixels.0, pixels.1, pixels.2]) {
                let values = vreinterpretq_s16_u16(vmovl_u8(channel));
                *sum = vmlal_s16(*sum, vget_low_s16(values), vget_low_s16(weights));
                *sum = vmlal_s16(*sum, vget_high_s16(values), vget_high_s16(weights));
            }
        }
        sums.map(|sum| vaddvq_s32(sum))
    }
}
