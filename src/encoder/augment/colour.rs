//! Colour changes, bit-identical to Pillow's `ImageEnhance`.

/// `factor * x`.
pub(super) fn brightness(pixels: &mut [u8], factor: f32) {
    pixels.iter_mut().for_each(|x| *x = blend(0, *x, factor));
}

/// `m + factor * (x - m)`, where `m` is the rounded mean of the grey values.
pub(super) fn contrast(pixels: &mut [u8], factor: f32) {
    let (triples, _) = pixels.as_chunks::<3>();
    let sum: u64 = triples.iter().map(|rgb| u64::from(grey(*rgb))).sum();
    let mean = (sum as f64 / triples.len().max(1) as f64 + 0.5) as u8;
    pixels.iter_mut().for_each(|x| *x = blend(mean, *x, factor));
}

/// `g + factor * (x - g)`, where `g` is the grey value of the pixel.
pub(super) fn saturation(pixels: &mut [u8], factor: f32) {
    let (triples, _) = pixels.as_chunks_mut::<3>();
    for rgb in triples {
        let grey = grey(*rgb);
        rgb.iter_mut().for_each(|x| *x = blend(grey, *x, factor));
    }
}

/// Rec. 601 luma in integer arithmetic: `(19595 R + 38470 G + 7471 B + 32768) / 65536`.
fn grey([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

/// `from + factor * (to - from)`, clamped to 0..=255 and rounded down.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    // The conversion saturates.
    (f32::from(from) + factor * (f32::from(to) - f32::from(from))) as u8
}
