//! Runs one learner through several data sets in sequence, like a camera whose scene changes, and measures forgetting.
use serde::Serialize;

use super::dataset::{Accuracy, DataSet};
use crate::config::Config;
use crate::error::Result;
use crate::frame::Timestamp;
use crate::head::Head;
use crate::learner::{LatentSpec, Learner};
use crate::sampling::Sample;

/// Time between the last frame of a set and the first frame of the next, in nanoseconds.
const APART_NS: i64 = 3_600_000_000_000;

/// Position in a stream made of several sets: the next frame, time and segment.
#[derive(Default)]
pub(in crate::commands::bench) struct Stream {
    pub(in crate::commands::bench) index: u64,
    stamp: i64,
    segment: u64,
}

impl Stream {
    /// A sample of the current set, shifted to its position in this stream.
    pub(in crate::commands::bench) fn moved(&self, sample: &Sample) -> Sample {
        Sample {
            index: sample.index + self.index,
            stamp: Timestamp(sample.stamp.0 + self.stamp),
            segment: sample.segment + self.segment,
            ..sample.clone()
        }
    }

    /// Moves past the end of the current set.
    pub(in crate::commands::bench) fn end(&mut self, set: &DataSet) {
        if let Some(last) = set.samples.last() {
            (self.index, self.segment) = (self.index + last.index + 1, self.segment + last.segment + 1);
            self.stamp += last.stamp.0 + APART_NS;
        }
    }
}

/// The results on one set with the head exported after `seen` sets.
#[derive(Debug, Clone, Serialize)]
pub(super) struct After {
    pub(super) seed: u64,
    /// Sets that the learner has seen.
    pub(super) seen: usize,
    /// Index of the set in the given order, from 0.
    pub(super) set: usize,
    pub(super) frozen: Accuracy,
    pub(super) adapted: Accuracy,
}

/// Evaluates every set seen so far after each set. For this a copy of the learner ends its stream there, while the
/// learner itself continues.
pub(super) fn run(sets: &[DataSet], origin: &LatentSpec, jobs: &[Config]) -> Result<Vec<After>> {
    let mut rows = Vec::new();
    for config in jobs {
        let seed = config.learn.seed;
        let mut learner = Learner::new(&config.learner(), origin.clone(), None)?;
        let mut stream = Stream::default();
        for (place, set) in sets.iter().enumerate() {
            for sample in &set.samples {
                learner.learn(&stream.moved(sample))?;
            }
            stream.end(set);
            let mut ended = learner.clone();
            ended.finish(stream.index.saturating_sub(1))?;
            let frozen = Head::Identity { dim: origin.pooled_dim() };
            for (number, set) in sets[..=place].iter().enumerate() {
                let (frozen, adapted) = (set.accuracy(&frozen)?, set.accuracy(&ended.exported().head)?);
                tracing::info!(
                    "seed {seed}, {} sets seen: {} frozen {:.3}, adapted {:.3}",
                    place + 1,
                    set.name,
                    frozen.mean(),
                    adapted.mean()
                );
                rows.push(After { seed, seen: place + 1, set: number, frozen, adapted });
            }
        }
    }
    Ok(rows)
}
