//! One segment of a synthetic source: a background and the shapes that move over it.
//!
//! Uses only integers and IEEE sums and products, no `sin`: the bits are the same on every machine.
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::SyntheticSpec;
use crate::frame::Frame;

/// The appearance of a shape. The same for every seed, so that the same kinds recur in all segments and runs.
#[derive(Debug, Clone, Copy)]
struct Kind {
    form: Form,
    paint: Paint,
    colours: [[u8; 3]; 2],
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Disc,
    Square,
    Diamond,
    Ring,
}

#[derive(Debug, Clone, Copy)]
enum Paint {
    Stripes,
    Checks,
}

const KINDS: [Kind; 8] = [
    Kind { form: Form::Disc, paint: Paint::Stripes, colours: [[220, 40, 40], [250, 220, 210]] },
    Kind { form: Form::Square, paint: Paint::Checks, colours: [[30, 90, 220], [230, 230, 60]] },
    Kind { form: Form::Diamond, paint: Paint::Stripes, colours: [[30, 160, 60], [10, 30, 20]] },
    Kind { form: Form::Ring, paint: Paint::Checks, colours: [[240, 150, 20], [90, 20, 90]] },
    Kind { form: Form::Disc, paint: Paint::Checks, colours: [[20, 20, 30], [245, 245, 245]] },
    Kind { form: Form::Square, paint: Paint::Stripes, colours: [[190, 60, 190], [60, 220, 220]] },
    Kind { form: Form::Diamond, paint: Paint::Checks, colours: [[250, 250, 120], [200, 60, 20]] },
    Kind { form: Form::Ring, paint: Paint::Stripes, colours: [[40, 200, 230], [20, 60, 120]] },
];

/// A moving shape: position in pixels, speed in pixels per second, reflected at the borders.
#[derive(Debug)]
struct Shape {
    kind: Kind,
    place: [f64; 2],
    speed: [f64; 2],
    radius: i32,
}

/// One segment, ready to draw any of its frames.
#[derive(Debug)]
pub(super) struct Scene {
    seed: u64,
    segment: u64,
    width: u32,
    height: u32,
    background: Vec<u8>,
    shapes: Vec<Shape>,
    /// Period of the light in seconds, and its phase at the start of the segment (0 to 1).
    light: (f64, f64),
}

impl Scene {
    /// The scene of `segment`. The ranges in `recipe` must have been checked.
    pub(super) fn new(recipe: &SyntheticSpec, segment: u64) -> Self {
        let mut dice = generator(recipe.seed, segment.wrapping_mul(2));
        let (width, height) = (recipe.width, recipe.height);
        let background = background(&mut dice, width, height);
        let unit = f64::from(width.min(height));
        let mut shapes = Vec::new();
        for _ in 0..2 + below(&mut dice, 2) {
            let radius = (unit * (0.14 + 0.12 * fraction(&mut dice))) as i32;
            let direction = |dice: &mut ChaCha8Rng| if below(dice, 2) == 0 { -1.0 } else { 1.0 };
            shapes.push(Shape {
                kind: KINDS[below(&mut dice, KINDS.len() as u32) as usize],
                place: [fraction(&mut dice) * f64::from(width), fraction(&mut dice) * f64::from(height)],
                speed: [
                    direction(&mut dice) * unit * (0.05 + 0.3 * fraction(&mut dice)),
                    direction(&mut dice) * unit * (0.05 + 0.3 * fraction(&mut dice)),
                ],
                radius,
            });
        }
        let light = (2.0 + 6.0 * fraction(&mut dice), fraction(&mut dice));
        Self { seed: recipe.seed, segment, width, height, background, shapes, light }
    }

    /// The segment that this scene belongs to.
    pub(super) fn segment(&self) -> u64 {
        self.segment
    }

    /// Draws the frame at `index`, `secs` after the segment began, into `frame` (pixels and size only).
    pub(super) fn draw(&self, index: u64, secs: f64, frame: &mut Frame) {
        frame.width = self.width;
        frame.height = self.height;
        frame.pixels.clear();
        frame.pixels.extend_from_slice(&self.background);
        for shape in &self.shapes {
            shape.draw(secs, self.width as i32, self.height as i32, &mut frame.pixels);
        }
        let swing = reflect(secs / self.light.0 + self.light.1, 0.5) * 2.0;
        let level = 236 + (swing * 40.0) as i32;
        let mut dice = generator(self.seed, index.wrapping_mul(2).wrapping_add(1));
        let mut noise = [0u8; 1024];
        for pixels in frame.pixels.chunks_mut(noise.len()) {
            dice.fill_bytes(&mut noise);
            for (value, noise) in pixels.iter_mut().zip(&noise) {
                let lit = ((i32::from(*value) * level) >> 8) + i32::from(noise & 7) - 4;
                *value = lit.clamp(0, 255) as u8;
            }
        }
    }
}

impl Shape {
    fn draw(&self, secs: f64, width: i32, height: i32, pixels: &mut [u8]) {
        let at = |axis: usize, most: i32| reflect(self.place[axis] + self.speed[axis] * secs, f64::from(most)) as i32;
        let (cx, cy, r) = (at(0, width - 1), at(1, height - 1), self.radius);
        let cell = (r / 3).max(1);
        for y in (cy - r).max(0)..=(cy + r).min(height - 1) {
            for x in (cx - r).max(0)..=(cx + r).min(width - 1) {
                let (dx, dy) = (x - cx, y - cy);
                if self.kind.form.covers(dx, dy, r) {
                    // Shifted by r: without divisions of negative numbers all cells have the same size.
                    let (column, row) = ((dx + r) / cell, (dy + r) / cell);
                    let colour = match self.kind.paint {
                        Paint::Stripes => (row & 1) as usize,
                        Paint::Checks => ((column + row) & 1) as usize,
                    };
                    let start = (y * width + x) as usize * 3;
                    if let Some(pixel) = pixels.get_mut(start..start + 3) {
                        pixel.copy_from_slice(&self.kind.colours[colour]);
                    }
                }
            }
        }
    }
}

impl Form {
    fn covers(self, dx: i32, dy: i32, r: i32) -> bool {
        let square = dx * dx + dy * dy;
        match self {
            Form::Disc => square <= r * r,
            Form::Square => dx.abs().max(dy.abs()) * 5 <= r * 4,
            Form::Diamond => dx.abs() + dy.abs() <= r,
            Form::Ring => square <= r * r && square * 4 >= r * r,
        }
    }
}

/// A gradient between two colours, overlaid with stripes or checks of another brightness.
fn background(dice: &mut ChaCha8Rng, width: u32, height: u32) -> Vec<u8> {
    let mut colour = || [0; 3].map(|_: i32| 48 + below(dice, 160) as i32);
    let (from, to) = (colour(), colour());
    let upright = below(dice, 2) == 0;
    let checks = below(dice, 2) == 0;
    let cell = width.min(height) / (4 + below(dice, 12)) + 1;
    let (lean_x, lean_y) = (1 + below(dice, 3), below(dice, 3));
    let contrast = 8 + below(dice, 24) as i32;
    let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
    for y in 0..height {
        for x in 0..width {
            let share = if upright { y * 256 / height } else { x * 256 / width } as i32;
            let mark = if checks { x / cell + y / cell } else { (lean_x * x + lean_y * y) / cell };
            let offset = if mark & 1 == 0 { contrast } else { -contrast };
            for channel in 0..3 {
                let base = from[channel] + (((to[channel] - from[channel]) * share) >> 8);
                pixels.push((base + offset).clamp(0, 255) as u8);
            }
        }
    }
    pixels
}

/// A triangle wave between 0 and `most` with unit slope.
fn reflect(x: f64, most: f64) -> f64 {
    let there = x.rem_euclid(2.0 * most);
    if there > most { 2.0 * most - there } else { there }
}

fn generator(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    dice.set_stream(stream);
    dice
}

fn below(dice: &mut ChaCha8Rng, n: u32) -> u32 {
    dice.next_u32() % n
}

/// A random number from 0 up to but not including 1.
fn fraction(dice: &mut ChaCha8Rng) -> f64 {
    f64::from(dice.next_u32()) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_stay_inside_at_any_time() {
        assert!((reflect(-3.0, 10.0) - 3.0).abs() < 1e-12);
        assert!((reflect(13.0, 10.0) - 7.0).abs() < 1e-12);
        let mut frame = Frame::default();
        for (width, height) in [(16, 16), (16, 400), (161, 37)] {
            let recipe = SyntheticSpec { width, height, ..SyntheticSpec::default() };
            for segment in 0..20 {
                let scene = Scene::new(&recipe, segment);
                assert!((2..=3).contains(&scene.shapes.len()));
                scene.draw(segment, 1e6, &mut frame);
                assert_eq!(frame.pixels.len(), (width * height * 3) as usize);
            }
        }
    }

    #[test]
    fn all_kinds_appear() {
        let mut seen: Vec<[u8; 3]> = Vec::new();
        for segment in 0..60 {
            seen.extend(Scene::new(&SyntheticSpec::default(), segment).shapes.iter().map(|s| s.kind.colours[0]));
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), KINDS.len());
    }
}
