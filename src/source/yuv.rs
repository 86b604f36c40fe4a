//! YUV to RGB: ITU-R BT.601 with limited range (Y 16 to 235), in integer arithmetic:
//! `R = (298 (Y-16) + 409 (V-128) + 128) >> 8`, `G = (298 (Y-16) - 100 (U-128) - 208 (V-128) + 128) >> 8`,
//! `B = (298 (Y-16) + 516 (U-128) + 128) >> 8`, within 1 of the exact values.

/// Writes one or two neighbouring pixels that share their chroma.
pub(super) fn write_two(out: &mut [u8], y: [u8; 2], u: u8, v: u8) {
    let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
    let (red, green, blue) = (409 * v + 128, -100 * u - 208 * v + 128, 516 * u + 128);
    for (rgb, y) in out.chunks_exact_mut(3).zip(y) {
        let luma = 298 * (i32::from(y) - 16);
        rgb.copy_from_slice(&[red, green, blue].map(|c| ((luma + c) >> 8).clamp(0, 255) as u8));
    }
}

/// Converts a row of luma, with the `(u, v)` of each pair of pixels, to RGB.
pub(super) fn row(out: &mut [u8], luma: &[u8], chroma: impl Iterator<Item = (u8, u8)>) {
    for ((two, y), (u, v)) in out.chunks_mut(6).zip(luma.chunks(2)).zip(chroma) {
        write_two(two, [y[0], y[y.len() - 1]], u, v);
    }
}
