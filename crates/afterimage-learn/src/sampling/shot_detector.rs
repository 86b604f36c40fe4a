//! Detects where one shot ends and the next begins. See [`ShotDetector`].
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::config::SamplingSettings;
use crate::error::{Error, Result};
use crate::linalg::dot;

/// Numbers the segments of a stream: the frames of one camera between two scene cuts. Numbers rise from 0 in the order
/// in which segments begin, across all cameras.
///
/// The source may report a cut. If it does not mark its cuts, there is also a cut where both the latents and the images
/// of two neighbouring frames differ: `1 - f . f'` is above `learn.sampling.cut_latent_distance`, and the mean of
/// `|luma - luma'|` is above `learn.sampling.cut_luma_distance`. Either one alone is misleading: a lamp changes every
/// pixel of the same scene, and an encoder may jump when a small thing moves.
///
/// *Flashes* (lightning, a headlight, a broken frame) are jumps that are undone. A jump starts a new segment at once,
/// so that no embedding and no record has to wait. But if the next frame, or one within `learn.sampling.flash_secs` of
/// the jump, is back, that frame continues the *old* segment under its number. A frame is back if there is no jump from
/// the frame before the flash to it, and it is nearer to that frame than to its direct predecessor. So a flash is a
/// separate segment of one or a few frames, and the scene around it stays one segment. [`super::BlockBuilder`] leaves
/// flash frames out.
#[derive(Debug, Clone)]
pub struct ShotDetector {
    latent_distance: f64,
    luma_distance: f64,
    flash_ns: i64,
    state: ShotDetectorState,
}

/// The state of a [`ShotDetector`] for a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShotDetectorState {
    /// Number of the next segment.
    pub next: u64,
    /// The state of each camera, by camera number.
    pub cameras: BTreeMap<u16, ShotState>,
}

/// The state of one camera.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShotState {
    /// Number of the current segment.
    pub segment: u64,
    /// Signature of the previous frame.
    pub last: FrameSignature,
    /// The previous segment and its last frame, while the jump that ended it may still turn out to be a flash.
    pub before: Option<PendingShot>,
}

/// What the detector compares of a frame.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FrameSignature {
    /// `[d]`, the frame's latent.
    pub latent: Vec<f32>,
    /// The frame's luma thumbnail, values from 0 to 1.
    pub luma: Vec<f32>,
}

/// A segment that may still continue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PendingShot {
    /// Number of the segment.
    pub segment: u64,
    /// Signature of its last frame.
    pub look: FrameSignature,
    /// Capture time of the first frame after it, in nanoseconds.
    pub since: i64,
    /// Whether that frame is the most recent one.
    pub just: bool,
}

impl ShotDetectorState {
    /// The values of all remembered frames, latent and luma in turn, which are stored separately.
    pub fn looks(&mut self) -> impl Iterator<Item = &mut Vec<f32>> {
        let looks = self.cameras.values_mut().flat_map(|camera| {
            std::iter::once(&mut camera.last).chain(camera.before.as_mut().map(|before| &mut before.look))
        });
        looks.flat_map(|look| [&mut look.latent, &mut look.luma])
    }

    /// Checks a state read from a file: every remembered latent has `dim` values, and all thumbnails have the same
    /// size.
    ///
    /// # Errors
    /// Something does not fit.
    pub fn check(&self, dim: usize) -> Result<()> {
        let looks = self
            .cameras
            .values()
            .flat_map(|camera| std::iter::once(&camera.last).chain(camera.before.as_ref().map(|before| &before.look)));
        let looks: Vec<&FrameSignature> = looks.collect();
        let luma = looks.first().map_or(0, |look| look.luma.len());
        match looks.iter().find(|look| look.latent.len() != dim || look.luma.len() != luma) {
            None => Ok(()),
            Some(look) => Err(Error::runtime(format!(
                "saved segmenter: a frame with a latent of {} and a thumbnail of {}, {dim} and {luma} expected",
                look.latent.len(),
                look.luma.len()
            ))),
        }
    }
}

/// A frame that needs a segment.
#[derive(Debug, Clone, Copy)]
pub struct ShotInput<'a> {
    /// Number of its camera.
    pub camera: u16,
    /// Capture time of the frame.
    pub stamp: Timestamp,
    /// The frame's latent: `[d]`, unit length.
    pub latent: &'a [f32],
    /// Luma thumbnail of the frame: values from 0 to 1, always the same size.
    pub luma: &'a [f32],
    /// Whether the source reports that a shot begins here.
    pub source_cut: bool,
    /// Whether the source marks every cut, so that no cut has to be detected.
    pub marks_cuts: bool,
}

impl ShotDetector {
    /// Creates a detector for the start of a stream.
    pub fn new(config: &SamplingSettings) -> Self {
        Self {
            latent_distance: config.cut_latent_distance,
            luma_distance: config.cut_luma_distance,
            flash_ns: (config.flash_secs * 1e9) as i64,
            state: ShotDetectorState::default(),
        }
    }

    /// Returns the segment of the next frame. The first frame of a camera starts a segment, whether it is marked or
    /// not.
    pub fn step(&mut self, frame: ShotInput<'_>) -> u64 {
        let (latent_distance, luma_distance) = (self.latent_distance, self.luma_distance);
        let jumps = |from: &FrameSignature| {
            from.latent_distance(frame.latent) > latent_distance && from.luma_distance(frame.luma) > luma_distance
        };
        let first = !self.state.cameras.contains_key(&frame.camera);
        let camera = self.state.cameras.entry(frame.camera).or_default();
        let mut begins = first || frame.source_cut;
        if begins || frame.marks_cuts {
            camera.before = None;
        } else {
            let since = |before: &PendingShot| frame.stamp.0.saturating_sub(before.since);
            camera.before.take_if(|before| !before.just && since(before) > self.flash_ns);
            let back = camera.before.take_if(|before| {
                let nearer = before.look.latent_distance(frame.latent) < camera.last.latent_distance(frame.latent);
                nearer && !jumps(&before.look)
            });
            if let Some(before) = back {
                camera.segment = before.segment;
            } else {
                begins = jumps(&camera.last);
                if let Some(before) = &mut camera.before {
                    before.just = false;
                } else if begins {
                    let (segment, look, since) = (camera.segment, camera.last.clone(), frame.stamp.0);
                    camera.before = Some(PendingShot { segment, look, since, just: true });
                }
            }
        }
        if begins {
            camera.segment = self.state.next;
            self.state.next += 1;
        }
        camera.last.set(frame.latent, frame.luma);
        camera.segment
    }

    /// The state to save.
    pub fn save(&self) -> &ShotDetectorState {
        &self.state
    }

    /// Restores a saved `state`.
    pub fn restore(&mut self, state: ShotDetectorState) {
        self.state = state;
    }
}

impl FrameSignature {
    fn set(&mut self, latent: &[f32], luma: &[f32]) {
        self.latent.clear();
        self.latent.extend_from_slice(latent);
        self.luma.clear();
        self.luma.extend_from_slice(luma);
    }

    fn latent_distance(&self, latent: &[f32]) -> f64 {
        1.0 - f64::from(dot(&self.latent, latent))
    }

    fn luma_distance(&self, luma: &[f32]) -> f64 {
        let sum: f64 = self.luma.iter().zip(luma).map(|(a, b)| f64::from((a - b).abs())).sum();
        sum / luma.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segmenter() -> ShotDetector {
        let (cut_latent_distance, cut_luma_distance, flash_secs) = (0.35, 0.08, 0.25);
        let config =
            SamplingSettings { cut_latent_distance, cut_luma_distance, flash_secs, ..SamplingSettings::default() };
        ShotDetector::new(&config)
    }

    /// A frame of camera 0 whose latent is at `angle` degrees: the cosine distance of two is `1 - cos` of their
    /// difference.
    fn step(s: &mut ShotDetector, millis: i64, angle: f32, luma: f32) -> u64 {
        marked(s, 0, millis, angle, luma, (false, false))
    }

    fn marked(s: &mut ShotDetector, camera: u16, millis: i64, angle: f32, luma: f32, marks: (bool, bool)) -> u64 {
        let latent = [angle.to_radians().cos(), angle.to_radians().sin()];
        let (stamp, (source_cut, marks_cuts)) = (Timestamp(millis * 1_000_000), marks);
        s.step(ShotInput { camera, stamp, latent: &latent, luma: &[luma; 4], source_cut, marks_cuts })
    }

    #[test]
    fn a_cut_needs_both_the_latent_and_the_picture() {
        let mut s = segmenter();
        assert_eq!(step(&mut s, 0, 0.0, 0.5), 0);
        assert_eq!(step(&mut s, 100, 60.0, 0.55), 0, "the latent alone");
        assert_eq!(step(&mut s, 200, 70.0, 0.9), 0, "the picture alone");
        assert_eq!(step(&mut s, 300, 130.0, 0.5), 1, "both");
        // Slow drift is not a cut, however far it goes.
        for i in 0..20 {
            assert_eq!(step(&mut s, 400 + i * 100, 130.0 + 20.0 * i as f32, 0.5 - 0.02 * i as f32), 1);
        }
    }

    #[test]
    fn a_flash_is_no_cut() {
        let mut s = segmenter();
        let mut segments = |frames: &[(i64, f32, f32)]| -> Vec<u64> {
            frames.iter().map(|&(millis, angle, luma)| step(&mut s, millis, angle, luma)).collect()
        };
        let (dark, bright) = ((0.0, 0.2), (90.0, 1.0));
        let at = |millis, (angle, luma): (f32, f32)| (millis, angle, luma);
        // One frame at 1 frame per second, then three frames at 30 per second.
        let one = [at(0, dark), at(1000, bright), at(2000, dark), at(3000, dark)];
        assert_eq!(segments(&one), [0, 1, 0, 0]);
        let three = [at(3033, bright), at(3066, bright), at(3100, (80.0, 0.9)), at(3133, (5.0, 0.25)), at(3166, dark)];
        assert_eq!(segments(&three), [2, 2, 2, 0, 0]);
        // A stroboscope: the scene between its flashes is one segment.
        let strobe = [at(4000, bright), at(4033, dark), at(4066, bright), at(4100, dark)];
        assert_eq!(segments(&strobe), [3, 0, 4, 0]);
        // Back after a second: too long for a flash, so it counts as another scene.
        let cut = [at(5000, bright), at(5500, bright), at(6000, dark), at(6500, dark)];
        assert_eq!(segments(&cut), [5, 5, 6, 6]);
    }

    #[test]
    fn a_new_scene_that_drifts_towards_the_old_one_stays_new() {
        let mut s = segmenter();
        let frames = [(0, 0.0, 0.5), (33, 60.0, 0.6), (66, 48.0, 0.57), (100, 47.0, 0.57)];
        let segments: Vec<u64> = frames.iter().map(|&(t, angle, luma)| step(&mut s, t, angle, luma)).collect();
        assert_eq!(segments, [0, 1, 1, 1], "no jump from the old one any more, but nearer to the new one");
    }

    #[test]
    fn the_source_is_believed() {
        let mut s = segmenter();
        let mut step = |angle, luma, marks| marked(&mut s, 0, 0, angle, luma, marks);
        assert_eq!(step(0.0, 0.0, (true, true)), 0, "a mark on the first frame begins segment 0");
        assert_eq!(step(180.0, 1.0, (false, true)), 0, "no cut is looked for where the source marks them");
        assert_eq!(step(180.0, 1.0, (true, true)), 1);
        assert_eq!(step(180.0, 1.0, (true, false)), 2, "a marked cut counts on any source");
        assert_eq!(step(0.0, 0.0, (false, false)), 3);
        assert_eq!(step(180.0, 1.0, (true, false)), 4, "and is no end of a flash");
    }

    #[test]
    fn cameras_share_no_segment_and_know_nothing_of_each_other() {
        let mut s = segmenter();
        let no = (false, false);
        let mut segments = Vec::new();
        for i in 0..4 {
            // Camera 0 has a cut at its third frame; camera 7 shows something else all along.
            let angle = if i < 2 { 0.0 } else { 90.0 };
            segments.push(marked(&mut s, 0, 500 * i, angle, angle / 90.0, no));
            segments.push(marked(&mut s, 7, 500 * i, 180.0, 0.5, no));
        }
        assert_eq!(segments, [0, 1, 0, 1, 2, 1, 2, 1]);
    }

    #[test]
    fn goes_on_from_a_saved_state() {
        let mut s = segmenter();
        for (i, (angle, luma)) in [(0.0, 0.1), (90.0, 0.9), (0.0, 0.1), (90.0, 0.9)].into_iter().enumerate() {
            step(&mut s, 33 * i as i64, angle, luma);
        }
        let text = serde_json::to_string(s.save()).expect("state");
        let mut other = segmenter();
        other.restore(serde_json::from_str(&text).expect("state"));
        assert_eq!(s.save(), other.save());
        let mut seen = Vec::new();
        for (i, (angle, luma)) in [(0.1, 0.1), (0.2, 0.1), (91.0, 0.8)].into_iter().enumerate() {
            let millis = 133 + 33 * i as i64;
            seen.push(step(&mut s, millis, angle, luma));
            assert_eq!(seen.last(), Some(&step(&mut other, millis, angle, luma)));
        }
        assert_eq!(seen, [0, 0, 3], "the flash that was saved was undone");
    }
}
