//! Short sketches of keys, to find similar ones without reading every latent.
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::linalg::normalise;

/// Number of values in a sketch.
pub(super) const LEN: usize = 64;
/// A sketch: a unit vector in 127ths.
pub(super) type Sketch = [i8; LEN];

/// Makes sketches by feature hashing (Weinberger et al. 2009): each coordinate of a key is added, with a random sign,
/// to one of 64 sums, and the sums are normalised to unit length.
///
/// The cosine of two sketches is that of the keys with a standard error near `(1 - cos^2) / 8`: small where it matters,
/// for keys that are near each other.
#[derive(Debug, Clone)]
pub(super) struct Sketcher {
    /// `[d]`: the target sum of each coordinate (6 bits) and its sign (the seventh bit).
    places: Vec<u8>,
}

impl Sketcher {
    /// Creates a sketcher for keys of length `dim`. The same seed gives the same sketches.
    pub(super) fn new(dim: usize, seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        let mut places = vec![0; dim];
        rng.fill_bytes(&mut places);
        Self { places }
    }

    pub(super) fn sketch(&self, key: &[f32]) -> Sketch {
        let mut sums = [0.0; LEN];
        for (&x, &place) in key.iter().zip(&self.places) {
            sums[usize::from(place) % LEN] += if usize::from(place) & LEN == 0 { x } else { -x };
        }
        normalise(&mut sums);
        sums.map(|x| (x * 127.0).round() as i8)
    }
}

/// Cosine of two sketches, times 127 squared.
pub(super) fn similarity(a: &Sketch, b: &Sketch) -> i32 {
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}

/// The best of many scores with their indices, best first; among equals, the one offered first.
#[derive(Debug)]
pub(super) struct TopK {
    keep: usize,
    pub(super) list: Vec<(i32, usize)>,
}

impl TopK {
    pub(super) fn new(keep: usize) -> Self {
        Self { keep, list: Vec::new() }
    }

    pub(super) fn offer(&mut self, score: i32, index: usize) {
        if self.list.len() >= self.keep {
            match self.list.last() {
                Some(&(least, _)) if score > least => self.list.pop(),
                _ => return,
            };
        }
        let at = self.list.partition_point(|&(better, _)| better >= score);
        self.list.insert(at, (score, index));
    }
}
