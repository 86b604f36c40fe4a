//! AVX2: eight taps of three channels at a time, in four rows in parallel.
//!
//! 22-bit weights take two products each. So the sums use 16-bit weights first, and only where the dropped bits could
//! change the rounded value are they recomputed from both parts: for one or two pixels in a hundred.
#![allow(unsafe_code, reason = "vector loads, and instructions that are asked for first")]
use std::arch::x86_64::{
    __m256i, _mm_cvtsi32_si128, _mm_cvtsi128_si64, _mm_loadu_si128, _mm_packus_epi16, _mm_storeu_si128,
    _mm_unpackhi_epi8, _mm_unpacklo_epi8, _mm256_add_epi32, _mm256_broadcastsi128_si256, _mm256_castsi256_si128,
    _mm256_cvtepu8_epi16, _mm256_extracti128_si256, _mm256_madd_epi16, _mm256_or_si256, _mm256_packs_epi32,
    _mm256_packus_epi16, _mm256_permute2x128_si256, _mm256_permute4x64_epi64, _mm256_set_m128i, _mm256_set1_epi32,
    _mm256_setr_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sll_epi32, _mm256_slli_epi32,
    _mm256_srai_epi32, _mm256_testz_si256, _mm256_xor_si256,
};

use super::rounded;
use super::weights::{BITS, GROUP, Group, HALF, HIGH, LOW, LOW_BITS, NEAR, Weights};

/// Bytes of an output row computed at once by the column pass.
const BLOCK: usize = 16;
/// Rows that share the work on their weights.
const ROWS: usize = 4;

/// Like `plain_along_rows`; returns false and does nothing if this machine or the image does not allow it.
pub(super) fn along_rows(source: &[u8], line: usize, weights: &Weights, out: &mut [u8]) -> bool {
    let rows = source.len() / line.max(1);
    if rows < ROWS || !weights.is_grouped() || !std::arch::is_x86_feature_detected!("avx2") {
        return false;
    }
    let narrow = 3 * weights.len();
    for row in (0..rows).step_by(ROWS) {
        // The last rows may be computed twice.
        let row = row.min(rows - ROWS);
        let four = &source[row * line..(row + ROWS) * line];
        // SAFETY: AVX2 is available, as checked above.
        unsafe { four_rows(four, line, weights, &mut out[row * narrow..(row + ROWS) * narrow]) }
    }
    true
}

/// Like `plain_along_columns`; returns false and does nothing if this machine does not allow it.
pub(super) fn along_columns(picture: &[u8], first: usize, line: usize, weights: &Weights, out: &mut [u8]) -> bool {
    if line < BLOCK || !std::arch::is_x86_feature_detected!("avx2") {
        return false;
    }
    for (place, out) in out.chunks_exact_mut(line).enumerate() {
        // SAFETY: AVX2 is available, as checked above.
        unsafe { one_row(picture, first, place, weights, out) }
    }
    true
}

/// Computes the output row `place` of `picture`.
#[target_feature(enable = "avx2")]
fn one_row(picture: &[u8], first: usize, place: usize, weights: &Weights, out: &mut [u8]) {
    let line = out.len();
    let (start, count, pairs, off) = weights.pairs(place);
    let shift = _mm_cvtsi32_si128(weights.shift() as i32);
    let (least, most) = (_mm256_set1_epi32(off[0]), _mm256_set1_epi32(off[1]));
    let source = &picture[(start - first) * line..(start - first + count) * line];
    for column in (0..line).step_by(BLOCK) {
        // The last bytes may be computed twice.
        let column = column.min(line - BLOCK);
        let (mut low, mut high) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for (i, [one, two]) in pairs.iter().enumerate() {
            let upper = &source[2 * i * line + column..][..BLOCK];
            // The last pair may lack a second row; its weight is then zero.
            let lower = &source[(2 * i + 1).min(count - 1) * line + column..][..BLOCK];
            // SAFETY: both slices have 16 bytes.
            let rows = unsafe { [_mm_loadu_si128(upper.as_ptr().cast()), _mm_loadu_si128(lower.as_ptr().cast())] };
            let weights = _mm256_set1_epi32(i32::from(*two) << 16 | i32::from(*one));
            let left = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(rows[0], rows[1]));
            let right = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(rows[0], rows[1]));
            low = _mm256_add_epi32(low, _mm256_madd_epi16(left, weights));
            high = _mm256_add_epi32(high, _mm256_madd_epi16(right, weights));
        }
        let (low, high) = (_mm256_sll_epi32(low, shift), _mm256_sll_epi32(high, shift));
        let values = [_mm256_add_epi32(low, least), _mm256_add_epi32(high, least)];
        let others = [_mm256_add_epi32(low, most), _mm256_add_epi32(high, most)];
        let out = &mut out[column..column + BLOCK];
        if is_doubtful(values, others) {
            exact_block(source, line, column, weights.of(place).1, out);
            continue;
        }
        let words = _mm256_packs_epi32(
            _mm256_srai_epi32::<{ BITS as i32 }>(values[0]),
            _mm256_srai_epi32::<{ BITS as i32 }>(values[1]),
        );
        // Interleaves four values of the first eight with four of the second, twice.
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
        let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        // SAFETY: the slice has 16 bytes.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), bytes) };
    }
}

/// Computes `BLOCK` columns of one row with the exact weights.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2")]
fn exact_block(source: &[u8], line: usize, column: usize, taps: &[i32], out: &mut [u8]) {
    let mut sums = [HALF; BLOCK];
    for (row, weight) in source.chunks_exact(line).zip(taps) {
        let values = &row[column..column + BLOCK];
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += i32::from(*value) * weight);
    }
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = rounded(sum));
}

/// True if some sum rounds to a different value than its counterpart.
#[inline]
#[target_feature(enable = "avx2")]
fn is_doubtful(sums: [__m256i; 2], others: [__m256i; 2]) -> bool {
    let differ = _mm256_or_si256(_mm256_xor_si256(sums[0], others[0]), _mm256_xor_si256(sums[1], others[1]));
    _mm256_testz_si256(differ, _mm256_set1_epi32(-1 << BITS)) == 0
}

#[target_feature(enable = "avx2")]
fn four_rows(source: &[u8], line: usize, weights: &Weights, out: &mut [u8]) {
    let masks = Masks::new();
    let shift = _mm_cvtsi32_si128(weights.shift() as i32);
    let (top, bottom) = out.split_at_mut(2 * 3 * weights.len());
    let (first, second) = top.split_at_mut(3 * weights.len());
    let (third, fourth) = bottom.split_at_mut(3 * weights.len());
    let out = first.as_chunks_mut::<3>().0.iter_mut().zip(second.as_chunks_mut::<3>().0);
    let out = out.zip(third.as_chunks_mut::<3>().0.iter_mut().zip(fourth.as_chunks_mut::<3>().0));
    for (grouped, ((first, second), (third, fourth))) in weights.groups().zip(out) {
        // From each row, as many triples as there are taps; the slice ends with those of the last row.
        let at = 3 * grouped.start;
        let source = &source[at..at + (ROWS - 1) * line + 3 * GROUP * grouped.groups.len()];
        // SAFETY: the slice has that length.
        let [a, b, c, d] = unsafe { masks.sums::<NEAR, ROWS>(source, line, grouped.groups) };
        let (least, most) = (_mm256_set1_epi32(grouped.off[0]), _mm256_set1_epi32(grouped.off[1]));
        let mut values = [_mm256_sll_epi32(both(a, b), shift), _mm256_sll_epi32(both(c, d), shift)];
        let others = [_mm256_add_epi32(values[0], most), _mm256_add_epi32(values[1], most)];
        values = [_mm256_add_epi32(values[0], least), _mm256_add_epi32(values[1], least)];
        if is_doubtful(values, others) {
            for (half, (value, other)) in values.iter_mut().zip(others).enumerate() {
                if is_doubtful([*value; 2], [other; 2]) {
                    // SAFETY: as above.
                    *value = unsafe { exact(&source[2 * half * line..], line, grouped.groups) };
                }
            }
        }
        // Rows 0 and 2, then 1 and 3; each holds red, green, blue and an unused value.
        let words = _mm256_packs_epi32(
            _mm256_srai_epi32::<{ BITS as i32 }>(values[0]),
            _mm256_srai_epi32::<{ BITS as i32 }>(values[1]),
        );
        let bytes = _mm256_packus_epi16(words, words);
        let even = (_mm_cvtsi128_si64(_mm256_castsi256_si128(bytes)) as u64).to_le_bytes();
        let odd = (_mm_cvtsi128_si64(_mm256_extracti128_si256::<1>(bytes)) as u64).to_le_bytes();
        *first = [even[0], even[1], even[2]];
        *second = [odd[0], odd[1], odd[2]];
        *third = [even[4], even[5], even[6]];
        *fourth = [odd[4], odd[5], odd[6]];
    }
}

struct Masks {
    /// Two neighbouring pixels as 16-bit [r r, g g, b b]; the upper half begins 4 bytes before its pixels.
    pairs: [__m256i; 2],
    /// The weights of these pixels, out of eight.
    taps: [__m256i; 2],
}

impl Masks {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new() -> Self {
        Self {
            pairs: [
                shuffle([0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1], 4),
                shuffle([6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1], 4),
            ],
            taps: [shuffle([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3], 8), shuffle([4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7], 8)],
        }
    }

    /// Sums the three channels of each row with one part of the weights; each half of a vector holds half of the sum.
    ///
    /// # Safety
    /// From the start of each line, `source` must have as many byte triples as `groups` have taps.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums<const PART: usize, const LINES: usize>(
        &self,
        source: &[u8],
        line: usize,
        groups: &[Group],
    ) -> [__m256i; LINES] {
        let mut sums = [_mm256_setzero_si256(); LINES];
        for (i, group) in groups.iter().enumerate() {
            // SAFETY: an array of eight 16-bit numbers.
            let weights = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(group[PART].as_ptr().cast()) });
            let first = _mm256_shuffle_epi8(weights, self.taps[0]);
            let second = _mm256_shuffle_epi8(weights, self.taps[1]);
            for (row, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller guarantees 24 bytes: 0 to 16, and 8 to 24.
                let pixels = unsafe {
                    let bytes = source.as_ptr().add(row * line + 3 * GROUP * i);
                    _mm256_set_m128i(_mm_loadu_si128(bytes.add(8).cast()), _mm_loadu_si128(bytes.cast()))
                };
                let products = _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, self.pairs[0]), first);
                *sum = _mm256_add_epi32(*sum, products);
                let products = _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, self.pairs[1]), second);
                *sum = _mm256_add_epi32(*sum, products);
            }
        }
        sums
    }
}

/// The sums of two rows with both parts of the weights, plus the rounding half.
///
/// # Safety
/// As for [`Masks::sums`].
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2")]
unsafe fn exact(source: &[u8], line: usize, groups: &[Group]) -> __m256i {
    let masks = Masks::new();
    // SAFETY: guaranteed by the caller.
    let ([a, b], [c, d]) =
        unsafe { (masks.sums::<HIGH, 2>(source, line, groups), masks.sums::<LOW, 2>(source, line, groups)) };
    let whole = _mm256_add_epi32(_mm256_slli_epi32::<{ LOW_BITS as i32 }>(both(a, b)), both(c, d));
    _mm256_add_epi32(whole, _mm256_set1_epi32(HALF))
}

/// Adds the two halves of `a`, and those of `b`.
#[inline]
#[target_feature(enable = "avx2")]
fn both(a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b))
}

/// A shuffle mask for both halves; the upper half adds `more` to every index. -1 gives zero.
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
