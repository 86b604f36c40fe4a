#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

/// Generates images as `tools/make_resize_golden.py` does.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// FNV-1a, 64 bits.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn every_pair_of_sizes_is_pillows_to_the_bit() {
    let golden = include_str!("../../../../tests/data/prepare/resize.txt");
    let mut resizes = 0;
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let numbers: Vec<u32> = line.split(' ').take(5).map(|n| n.parse().unwrap()).collect();
        let &[seed, width, height, to_width, to_height] = numbers.as_slice() else { panic!("{line}") };
        let pixels = noise(seed, (3 * width * height) as usize);
        let size = Size { height: to_height, width: to_width };
        let mut resample = Resample::new(size);
        resample.whole(&pixels, width, height).unwrap();
        let expected = u64::from_str_radix(line.rsplit(' ').next().unwrap(), 16).unwrap();
        assert_eq!(digest(resample.pixels()), expected, "{width} x {height} to {to_width} x {to_height}");
        resizes += 1;
    }
    assert!(resizes >= 300, "{resizes}");
}

#[test]
fn vectors_and_plain_code_give_the_same() {
    for (from, rows, to) in [(64, 9, 20), (8, 4, 3), (31, 5, 64), (500, 6, 11), (7, 5, 3), (64, 3, 20)] {
        let pixels = noise(from, (3 * from * rows) as usize);
        let mut weights = Weights::default();
        weights.prepare(Span::whole(from, to), from);
        let mut found = [vec![0; (3 * to * rows) as usize], vec![0; (3 * to * rows) as usize]];
        along_rows(&pixels, 3 * from as usize, &weights, &mut found[0]);
        plain_along_rows(&pixels, 3 * from as usize, &weights, &mut found[1]);
        assert_eq!(found[0], found[1], "{from} to {to}");

        // The same values as an image of `rows` columns and `from` rows.
        let (line, mut sums) = (3 * rows as usize, vec![0; 3 * rows as usize]);
        let mut found = [vec![0; line * to as usize], vec![0; line * to as usize]];
        along_columns(&pixels, 0, &weights, &mut sums, &mut found[0]);
        plain_along_columns(&pixels, 0, &weights, &mut sums, &mut found[1]);
        assert_eq!(found[0], found[1], "columns, {from} to {to}");
    }
}

/// Sums just below, at and above the rounding threshold, which 16-bit weights cannot distinguish.
#[test]
fn sums_between_two_values_are_rounded_like_the_exact_ones() {
    for (from, to) in [(24, 12), (240, 20), (48, 31), (96, 160), (1000, 7)] {
        let mut weights = Weights::default();
        weights.prepare(Span::whole(from, to), from);
        for step in 0..40u32 {
            // Two alternating values, in numbers that put the mean about halfway between them.
            let pixels: Vec<u8> = (0..3 * from * 8).map(|i| 100 + u8::from((i / 3 * (20 + step)) % 80 < 40)).collect();
            let line = 3 * from as usize;
            let mut found = [vec![0; (3 * to * 8) as usize], vec![0; (3 * to * 8) as usize]];
            along_rows(&pixels, line, &weights, &mut found[0]);
            plain_along_rows(&pixels, line, &weights, &mut found[1]);
            assert_eq!(found[0], found[1], "{from} to {to}, step {step}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut resample = Resample::new(Size::square(8));
    let whole = [Span::whole(4, 8), Span::whole(4, 8)];
    assert!(resample.run(&[0; 48], 4, 4, whole).is_ok());
    for (bytes, spans) in [
        (47, whole),
        (48, [Span::whole(5, 8), whole[1]]),
        (48, [whole[0], Span::whole(4, 9)]),
        (48, [Span { start: 1, ..whole[0] }, whole[1]]),
        (48, [Span { first: f64::NAN, ..whole[0] }, whole[1]]),
    ] {
        assert!(resample.run(&vec![0; bytes], 4, 4, spans).is_err(), "{spans:?}");
    }
    assert!(resample.whole(&[], 0, 0).is_err());
}
