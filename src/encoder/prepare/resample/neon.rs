//! Rows with NEON: eight taps of three channels at a time.
#![allow(unsafe_code, reason = "vector loads")]
use std::arch::aarch64::{
    vaddvq_s32, vdupq_n_s32, vget_high_s16, vget_low_s16, vld1q_s16, vld3_u8, vmlal_s16, vmovl_u8,
    vreinterpretq_s16_u16,
};

use super::weights::{GROUP, LOW_BITS, Weights};
use super::{HALF, rounded};

/// As `plain_along_rows`; false where the picture does not allow it, and nothing was done.
pub(super) fn along_rows(source: &[u8], line: usize, weights: &Weights, out: &mut [u8]) -> bool {
    if !weights.is_grouped() {
        return false;
    }
    let narrow = 3 * weights.len();
    for (row, out) in source.chunks_exact(line).zip(out.chunks_exact_mut(narrow)) {
        for ((start, groups), out) in weights.groups().zip(out.as_chunks_mut::<3>().0) {
            *out = pixel(&row[3 * start..3 * (start + groups.len() * GROUP)], groups);
        }
    }
    true
}

/// `row`: as many triples as `groups` have taps.
fn pixel(row: &[u8], groups: &[[i16; 2 * GROUP]]) -> [u8; 3] {
    // SAFETY: NEON is part of the architecture; each load reads 24 bytes of a chunk of 24, or eight numbers of 16.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); 2]; 3];
        for (bytes, group) in row.as_chunks::<{ 3 * GROUP }>().0.iter().zip(groups) {
            let pixels = vld3_u8(bytes.as_ptr());
            let parts = [vld1q_s16(group.as_ptr()), vld1q_s16(group.as_ptr().add(GROUP))];
            for (sums, channel) in sums.iter_mut().zip([pixels.0, pixels.1, pixels.2]) {
                let values = vreinterpretq_s16_u16(vmovl_u8(channel));
                for (sum, part) in sums.iter_mut().zip(parts) {
                    *sum = vmlal_s16(*sum, vget_low_s16(values), vget_low_s16(part));
                    *sum = vmlal_s16(*sum, vget_high_s16(values), vget_high_s16(part));
                }
            }
        }
        sums.map(|[high, low]| rounded((vaddvq_s32(high) << LOW_BITS) + vaddvq_s32(low) + HALF))
    }
}
