//! Compares latents with those of 32-bit floats on the CPU, for every accelerator and every quantised model.
//!
//! The same `n` frames (synthetic scenes, so that every machine uses the same ones) give `a` and `b`, `[n, d]` each.
//! The main measure is the mean over frames of `cos(a_i - mean a, b_i - mean b)`: without centring, the part that all
//! frames share hides the loss. The report adds the minimum of these cosines and the share of frames with the same
//! nearest other frame.
use std::time::Duration;

use ndarray::{Array2, Axis};
use serde::Serialize;

use super::model_card::ModelCard;
use super::preprocess::Preprocessor;
use crate::config;
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::source::{self, Pull};

/// A spread below this fraction of a latent's length counts as none.
const NO_SPREAD: f64 = 1e-6;

/// How closely two encoders agree on the same frames.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParityReport {
    /// Mean cosine after centring.
    pub cosine: f64,
    /// Minimum cosine after centring.
    pub least: f64,
    /// Mean cosine without centring, which reveals little.
    pub raw: f64,
    /// Share of frames whose nearest other frame is the same.
    pub neighbours: f64,
    /// Number of frames.
    pub frames: usize,
    /// Name of the reference model.
    pub reference: String,
}

impl ParityReport {
    /// Compares the latents `found` with those of `reference`, `[n, d]` each, row by row.
    pub(super) fn measure(reference: &Array2<f32>, found: &Array2<f32>, name: &str) -> Self {
        let (a, b) = (reference.mapv(f64::from), found.mapv(f64::from));
        let (a_centred, b_centred) = (centred(&a), centred(&b));
        let cosines: Vec<f64> = (0..a.nrows())
            .map(|i| {
                let still = |whole: &Array2<f64>, part: &Array2<f64>| {
                    length(part.row(i)) <= NO_SPREAD * length(whole.row(i)).max(f64::MIN_POSITIVE)
                };
                match (still(&a, &a_centred), still(&b, &b_centred)) {
                    // An encoder that gives every frame the same latent matches another one that does so too.
                    (true, true) => 1.0,
                    _ => cosine(a_centred.row(i), b_centred.row(i)),
                }
            })
            .collect();
        let n = cosines.len().max(1) as f64;
        let (near_a, near_b) = (nearest(&a_centred), nearest(&b_centred));
        Self {
            cosine: cosines.iter().sum::<f64>() / n,
            least: cosines.iter().copied().fold(f64::INFINITY, f64::min),
            raw: (0..a.nrows()).map(|i| cosine(a.row(i), b.row(i))).sum::<f64>() / n,
            neighbours: near_a.iter().zip(&near_b).filter(|(a, b)| a == b).count() as f64 / n,
            frames: a.nrows(),
            reference: name.to_owned(),
        }
    }

    /// Written so that NaN fails.
    pub(super) fn passes(&self, least: f64) -> bool {
        self.cosine >= least
    }

    /// A summary for the log, `doctor` and messages.
    pub fn describe(&self) -> String {
        format!(
            "centred cosine {:.4} (least {:.4}), same nearest frame for {:.0} %, raw cosine {:.4}, over {} frames against {}",
            self.cosine,
            self.least,
            100.0 * self.neighbours,
            self.raw,
            self.frames,
            self.reference
        )
    }
}

fn centred(rows: &Array2<f64>) -> Array2<f64> {
    match rows.mean_axis(Axis(0)) {
        Some(mean) => rows - &mean,
        None => rows.clone(),
    }
}

fn length(row: ndarray::ArrayView1<f64>) -> f64 {
    row.dot(&row).sqrt()
}

/// 0 if either vector has zero length.
fn cosine(a: ndarray::ArrayView1<f64>, b: ndarray::ArrayView1<f64>) -> f64 {
    let lengths = length(a) * length(b);
    if lengths == 0.0 { 0.0 } else { a.dot(&b) / lengths }
}

/// For each row, the index of the other row with the largest cosine.
fn nearest(rows: &Array2<f64>) -> Vec<Option<usize>> {
    let near = |i: usize| {
        let others = (0..rows.nrows()).filter(|j| *j != i).map(|j| (cosine(rows.row(i), rows.row(j)), j));
        others.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, j)| j)
    };
    (0..rows.nrows()).map(near).collect()
}

/// `count` preprocessed images for `card`: one frame from each of as many synthetic scenes.
pub(super) fn images(card: &ModelCard, count: usize) -> Result<Vec<Vec<f32>>> {
    // A motion crop would show another place in each scene.
    let card = ModelCard { motion_crop: None, ..card.clone() };
    let mut prepare = Preprocessor::new(&card, card.size)?;
    let mut scenes = source::open(format!("pattern://11?frames={count}&segments={count}"), &config::Source::default())?;
    let (mut frame, mut all) = (Frame::default(), Vec::with_capacity(count));
    while all.len() < count {
        if scenes.next(&mut frame, Duration::from_secs(1))? != Pull::Frame {
            return Err(Error::runtime("the synthetic scenes of the parity gate have ended early"));
        }
        let mut image = vec![0.0; card.size.values()];
        prepare.run(&frame, &mut image)?;
        all.push(image);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centring_shows_what_the_raw_cosine_hides() {
        // A large common part; the part that distinguishes the frames is reversed in one of the two.
        let a = Array2::from_shape_fn((16, 8), |(i, j)| 100.0 + ((i * 7 + j * 3) % 11) as f32);
        let b = a.mapv(|v| 210.0 - v);
        let bad = ParityReport::measure(&a, &b, "a");
        assert!(bad.raw > 0.99 && bad.cosine < -0.99 && !bad.passes(0.5), "{bad:?}");
        let same = ParityReport::measure(&a, &a.mapv(|v| 3.0 * v), "a");
        assert!(same.cosine > 0.999_999 && same.neighbours == 1.0 && same.passes(0.95), "{same:?}");
        let text = same.describe();
        assert!(text.starts_with("centred cosine 1.0000 (least 1.0000), same nearest frame for 100 %"), "{text}");
    }

    #[test]
    fn nothing_and_nan_do_not_pass() {
        let a = Array2::from_shape_fn((8, 4), |(i, j)| ((i * 5 + j) % 7) as f32);
        let constant = Array2::from_elem((8, 4), 1.0);
        assert_eq!(ParityReport::measure(&a, &constant, "a").cosine, 0.0);
        assert_eq!(ParityReport::measure(&constant, &constant, "a").cosine, 1.0);
        let nan = Array2::from_elem((8, 4), f32::NAN);
        assert!(!ParityReport::measure(&a, &nan, "a").passes(0.0));
    }
}
