//! Rows with AVX2: eight taps of three channels at a time, four rows beside each other.
#![allow(unsafe_code, reason = "vector loads, and instructions that are asked for first")]
use std::arch::x86_64::{
    __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_packs_epi32, _mm_packus_epi16, _mm_set1_epi32,
    _mm_srai_epi32, _mm256_add_epi32, _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_extracti128_si256,
    _mm256_madd_epi16, _mm256_set_m128i, _mm256_setr_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8,
    _mm256_slli_epi32,
};

use super::HALF;
use super::weights::{BITS, GROUP, LOW_BITS, Weights};

/// Rows that share the work on their weights.
const ROWS: usize = 4;

/// As `plain_along_rows`; false where this machine or the picture does not allow it, and nothing was done.
pub(super) fn along_rows(source: &[u8], line: usize, weights: &Weights, out: &mut [u8]) -> bool {
    let rows = source.len() / line.max(1);
    if rows < ROWS || !weights.is_grouped() || !std::arch::is_x86_feature_detected!("avx2") {
        return false;
    }
    let narrow = 3 * weights.len();
    for row in (0..rows).step_by(ROWS) {
        // The last rows may be made twice.
        let row = row.min(rows - ROWS);
        let four = &source[row * line..(row + ROWS) * line];
        // SAFETY: AVX2 is there.
        unsafe { four_rows(four, line, weights, &mut out[row * narrow..(row + ROWS) * narrow]) }
    }
    true
}

#[target_feature(enable = "avx2")]
fn four_rows(source: &[u8], line: usize, weights: &Weights, out: &mut [u8]) {
    let narrow = 3 * weights.len();
    // Two neighbouring pixels as [r r, g g, b b] of 16 bits; the upper half begins 4 bytes before its pixels.
    let pairs = [
        shuffle([0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1], 4),
        shuffle([6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1], 4),
    ];
    // Weights of these pixels, out of eight.
    let taps = [shuffle([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3], 8), shuffle([4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7], 8)];
    for (place, (start, groups)) in weights.groups().enumerate() {
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for (i, group) in groups.iter().enumerate() {
            let parts = [0, GROUP].map(|from| {
                let part = &group[from..from + GROUP];
                // SAFETY: a slice of eight numbers of 16 bits.
                _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(part.as_ptr().cast()) })
            });
            let weights = parts.map(|part| taps.map(|taps| _mm256_shuffle_epi8(part, taps)));
            for (row, sums) in sums.iter_mut().enumerate() {
                let at = row * line + 3 * (start + i * GROUP);
                let bytes = &source[at..at + 3 * GROUP];
                // SAFETY: a slice of 24 bytes: 0 to 16, and 8 to 24.
                let pixels = unsafe {
                    _mm256_set_m128i(
                        _mm_loadu_si128(bytes.as_ptr().add(8).cast()),
                        _mm_loadu_si128(bytes.as_ptr().cast()),
                    )
                };
                let pixels = pairs.map(|pairs| _mm256_shuffle_epi8(pixels, pairs));
                for (sum, weights) in sums.iter_mut().zip(&weights) {
                    for (pixels, weights) in pixels.iter().zip(weights) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(*pixels, *weights));
                    }
                }
            }
        }
        for (row, [high, low]) in sums.into_iter().enumerate() {
            let sum = _mm256_add_epi32(_mm256_slli_epi32::<{ LOW_BITS as i32 }>(high), low);
            let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let sum = _mm_srai_epi32::<{ BITS as i32 }>(_mm_add_epi32(sum, _mm_set1_epi32(HALF)));
            let words = _mm_packs_epi32(sum, sum);
            let [r, g, b, _] = _mm_cvtsi128_si32(_mm_packus_epi16(words, words)).to_le_bytes();
            out[row * narrow + 3 * place..][..3].copy_from_slice(&[r, g, b]);
        }
    }
}

/// For both halves; in the upper one every place is `more` further on. -1 gives zero.
#[target_feature(enable = "avx2")]
fn shuffle(places: [i8; 12], more: i8) -> __m256i {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = places;
    let up = |place: i8| if place < 0 { place } else { place + more };
    _mm256_setr_epi8(
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        i,
        j,
        k,
        l,
        -1,
        -1,
        -1,
        -1,
        up(a),
        up(b),
        up(c),
        up(d),
        up(e),
        up(f),
        up(g),
        up(h),
        up(i),
        up(j),
        up(k),
        up(l),
        -1,
        -1,
        -1,
        -1,
    )
}
