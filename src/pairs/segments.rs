//! Where one shot ends and the next begins. See [`Segmenter`].
use serde::{Deserialize, Serialize};

use crate::config::Learn;
use crate::linalg::dot;

/// Numbers the segments of a stream: frames between two scene cuts, from 0.
///
/// Cut where the source says so. Where the source does not mark its cuts, also where both the latents and the pictures
/// of two neighbouring frames differ: `1 - f . f' > learn.cut_latent_distance` and mean `|luma - luma'| >
/// learn.cut_luma_distance`. Either alone misleads: a lamp changes every pixel of the same scene, and an encoder may
/// jump on a small thing that moves.
#[derive(Debug, Clone)]
pub struct Segmenter {
    latent_distance: f64,
    luma_distance: f64,
    state: SegmenterState,
}

/// What a [`Segmenter`] remembers, for a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SegmenterState {
    /// Number of the current segment.
    pub number: u64,
    /// `[d]`, latent of the frame before; empty before the first frame.
    pub latent: Vec<f32>,
    /// Luma thumbnail of the frame before, values from 0 to 1.
    pub luma: Vec<f32>,
}

impl Segmenter {
    /// At the start of a stream.
    pub fn new(config: &Learn) -> Self {
        Self {
            latent_distance: config.cut_latent_distance,
            luma_distance: config.cut_luma_distance,
            state: SegmenterState::default(),
        }
    }

    /// The segment of the next frame. The first frame begins segment 0, marked or not.
    ///
    /// `latent: [d]`, unit length; `luma`: thumbnail, values from 0 to 1, the same size every time. `source_cut`: the
    /// source knows that a shot begins here; `marks_cuts`: it does so at every cut, so that none is looked for.
    pub fn step(&mut self, latent: &[f32], luma: &[f32], source_cut: bool, marks_cuts: bool) -> u64 {
        let first = self.state.latent.is_empty();
        if !first && (source_cut || (!marks_cuts && self.jumps(latent, luma))) {
            self.state.number += 1;
        }
        self.state.latent.clear();
        self.state.latent.extend_from_slice(latent);
        self.state.luma.clear();
        self.state.luma.extend_from_slice(luma);
        self.state.number
    }

    /// What to save.
    pub fn save(&self) -> &SegmenterState {
        &self.state
    }

    /// Goes on where `state` was saved.
    pub fn restore(&mut self, state: SegmenterState) {
        self.state = state;
    }

    fn jumps(&self, latent: &[f32], luma: &[f32]) -> bool {
        let distance = 1.0 - f64::from(dot(&self.state.latent, latent));
        if distance <= self.latent_distance {
            return false;
        }
        let sum: f64 = self.state.luma.iter().zip(luma).map(|(a, b)| f64::from((a - b).abs())).sum();
        sum / luma.len().max(1) as f64 > self.luma_distance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segmenter() -> Segmenter {
        Segmenter::new(&Learn { cut_latent_distance: 0.35, cut_luma_distance: 0.08, ..Learn::default() })
    }

    /// Unit latent at `angle` degrees: the cosine distance of two is `1 - cos` of their difference.
    fn at(angle: f32) -> [f32; 2] {
        [angle.to_radians().cos(), angle.to_radians().sin()]
    }

    #[test]
    fn a_cut_needs_both_the_latent_and_the_picture() {
        let mut s = segmenter();
        assert_eq!(s.step(&at(0.0), &[0.5; 4], false, false), 0);
        assert_eq!(s.step(&at(60.0), &[0.55; 4], false, false), 0, "the latent alone");
        assert_eq!(s.step(&at(70.0), &[0.9; 4], false, false), 0, "the picture alone");
        assert_eq!(s.step(&at(130.0), &[0.5; 4], false, false), 1, "both");
        // Slow drift is no cut, however far it goes.
        for i in 0..20 {
            assert_eq!(s.step(&at(130.0 + 20.0 * i as f32), &[0.5 - 0.02 * i as f32; 4], false, false), 1);
        }
    }

    #[test]
    fn the_source_is_believed() {
        let mut s = segmenter();
        assert_eq!(s.step(&at(0.0), &[0.0; 4], true, true), 0, "a mark on the first frame begins segment 0");
        assert_eq!(s.step(&at(180.0), &[1.0; 4], false, true), 0, "no cut is looked for where the source marks them");
        assert_eq!(s.step(&at(180.0), &[1.0; 4], true, true), 1);
        assert_eq!(s.step(&at(180.0), &[1.0; 4], true, false), 2, "a marked cut counts on any source");
    }

    #[test]
    fn goes_on_from_a_saved_state() {
        let mut s = segmenter();
        s.step(&at(0.0), &[0.1; 4], false, false);
        s.step(&at(0.1), &[0.9; 4], true, false);
        let text = serde_json::to_string(s.save()).expect("state");
        let mut other = segmenter();
        other.restore(serde_json::from_str(&text).expect("state"));
        assert_eq!(s.save(), other.save());
        for (angle, luma) in [(0.2, 0.9), (90.0, 0.1), (91.0, 0.2)] {
            assert_eq!(s.step(&at(angle), &[luma; 4], false, false), other.step(&at(angle), &[luma; 4], false, false));
        }
        assert_eq!(s.save().number, 2);
    }
}
