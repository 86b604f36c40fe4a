//! Augmented views of a frame for instance discrimination: changes that leave the content of the frame the same.
//!
//! The seed and the frame's position alone decide which frames get a view, and which view.
mod blur;
mod colour;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

pub(super) use blur::reflected;

use afterimage_learn::config::AugmentationKind;

use crate::config::Training;
use crate::linalg::random::uniform;

/// Selects the random stream of a frame's view: this constant plus the frame's position.
const STREAM: u64 = 0x7669_6577 << 32;

/// How a view differs from its frame. Fields that are `None` or false change nothing.
///
/// The changes are applied in the order of the fields. Colour changes follow Pillow's `ImageEnhance` (and therefore
/// torchvision's `ColorJitter` on PIL images), in the order brightness, contrast, saturation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Augmentation {
    /// `[r, x, y]`, each 0 to 1: crops a window of `r` times both sides, placed at `x` and `y` of the remaining
    /// space. The area `r^2` is .5 to 1 (torchvision's `RandomResizedCrop` with the aspect ratio of the frame).
    pub crop: Option<[f64; 3]>,
    /// Flips the view horizontally; every second view on average.
    pub flip: bool,
    /// Factors for brightness (.6 to 1.4), contrast (.6 to 1.4) and saturation (.5 to 1.5).
    pub colour: Option<[f32; 3]>,
    /// Converts the view to greyscale; one view in five on average.
    pub grey: bool,
    /// Standard deviation of a Gaussian blur (.1 to 2), in pixels of an input whose shorter side is 224; every second
    /// view on average.
    pub blur: Option<f32>,
}

/// Draws the augmented views of a run.
#[derive(Debug, Clone)]
pub struct Augmenter {
    seed: u64,
    share: f64,
    kinds: Vec<AugmentationKind>,
}

impl Augmenter {
    /// Configured by `learn.augmentation.share` and `learn.augmentation.kinds`; `None` when augmentation is off.
    pub fn new(learn: &Training) -> Option<Self> {
        let (seed, share, kinds) = (learn.seed, learn.augmentation.share, learn.augmentation.kinds.clone());
        (share > 0.0).then_some(Self { seed, share, kinds })
    }

    /// Returns the view of the frame at `index`, or `None` if that frame gets none. The same seed and index give the
    /// same view.
    pub fn of(&self, index: u64) -> Option<Augmentation> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(STREAM.wrapping_add(index));
        if uniform(&mut rng) >= self.share {
            return None;
        }
        // Draws every number whatever the kinds, so that enabling one kind does not change another.
        let [area, x, y, flip, light, contrast, saturation, grey, whether, width] =
            std::array::from_fn(|_| uniform(&mut rng));
        let has = |kind| self.kinds.contains(&kind);
        let factor = |least: f64, most: f64, u: f64| (least + (most - least) * u) as f32;
        let colour = [factor(0.6, 1.4, light), factor(0.6, 1.4, contrast), factor(0.5, 1.5, saturation)];
        Some(Augmentation {
            crop: has(AugmentationKind::Crop).then_some([(0.5 + 0.5 * area).sqrt(), x, y]),
            flip: has(AugmentationKind::Flip) && flip < 0.5,
            colour: has(AugmentationKind::Colour).then_some(colour),
            grey: has(AugmentationKind::Grey) && grey < 0.2,
            blur: (has(AugmentationKind::Blur) && whether < 0.5).then(|| factor(0.1, 2.0, width)),
        })
    }
}

impl Augmentation {
    /// Applies everything but the crop to `pixels` (`[height, width]` RGB triples). `scratch` is working memory.
    pub(super) fn apply(&self, [height, width]: [usize; 2], pixels: &mut [u8], scratch: &mut Vec<f32>) {
        if self.flip {
            for row in pixels.chunks_exact_mut(3 * width) {
                for x in 0..width / 2 {
                    (0..3).for_each(|c| row.swap(3 * x + c, 3 * (width - 1 - x) + c));
                }
            }
        }
        if let Some([brightness, contrast, saturation]) = self.colour {
            colour::brightness(pixels, brightness);
            colour::contrast(pixels, contrast);
            colour::saturation(pixels, saturation);
        }
        if self.grey {
            colour::saturation(pixels, 0.0);
        }
        if let Some(sigma) = self.blur {
            blur::gaussian([height, width], pixels, sigma * height.min(width) as f32 / 224.0, scratch);
        }
    }
}

#[cfg(test)]
mod tests;
