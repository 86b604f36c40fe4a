//! Gaussian blur.

/// How many standard deviations the kernel extends to each side.
const REACH: f32 = 3.0;

/// Convolves an image of `[height, width]` RGB pixels with a Gaussian of standard deviation `sigma` pixels, truncated
/// at three standard deviations. The image is reflected at its borders (without repeating the border pixel), as in
/// torchvision's `GaussianBlur`. `scratch` is working memory.
pub(super) fn gaussian([height, width]: [usize; 2], pixels: &mut [u8], sigma: f32, scratch: &mut Vec<f32>) {
    let radius = (REACH * sigma).ceil() as usize;
    scratch.clear();
    scratch.extend((0..=radius).map(|i| (-0.5 * (i as f32 / sigma).powi(2)).exp()));
    let sum = scratch[0] + 2.0 * scratch[1..].iter().sum::<f32>();
    scratch.iter_mut().for_each(|w| *w /= sum);
    scratch.extend(pixels.iter().map(|x| f32::from(*x)));
    scratch.resize(radius + 1 + 2 * pixels.len(), 0.0);
    let (kernel, planes) = scratch.split_at_mut(radius + 1);
    let (whole, rows) = planes.split_at_mut(pixels.len());
    // Rows first, then columns.
    pass(width, 3, whole, kernel, |at| rows[at.0] = at.1);
    pass(height, 3 * width, rows, kernel, |at| pixels[at.0] = at.1.round() as u8);
}

/// Convolves every value along the axis whose neighbours are `step` apart, and passes each index and result to `out`.
fn pass(side: usize, step: usize, from: &[f32], kernel: &[f32], mut out: impl FnMut((usize, f32))) {
    for at in 0..from.len() {
        let place = at / step % side;
        let start = at - place * step;
        let value = |offset: i64| from[start + reflected(place as i64 + offset, side) * step];
        let sides = kernel.iter().enumerate().skip(1).map(|(i, w)| w * (value(-(i as i64)) + value(i as i64)));
        out((at, kernel[0] * from[at] + sides.sum::<f32>()));
    }
}

/// Maps `i` to the index in `0..n` that an image reflected at its borders shows there.
pub(in crate::encoder) fn reflected(i: i64, n: usize) -> usize {
    let last = n as i64 - 1;
    if last <= 0 {
        return 0;
    }
    let i = i.rem_euclid(2 * last);
    (if i > last { 2 * last - i } else { i }) as usize
}
