//! One learner through several data sets, one after the other, as a camera whose scene changes: what is forgotten.
use serde::Serialize;

use super::dataset::{Accuracy, DataSet};
use crate::config::Config;
use crate::error::Result;
use crate::frame::Timestamp;
use crate::head::Head;
use crate::learner::{LatentSpec, Learner};
use crate::sampling::Sample;

/// Between the last frame of a set and the first of the next, nanoseconds.
const APART_NS: i64 = 3_600_000_000_000;

/// Where a stream made of several sets stands: the next frame, time and segment.
#[derive(Default)]
pub(in crate::commands::bench) struct Stream {
    pub(in crate::commands::bench) index: u64,
    stamp: i64,
    segment: u64,
}

impl Stream {
    /// A sample of the set at hand as it comes in this stream.
    pub(in crate::commands::bench) fn moved(&self, sample: &Sample) -> Sample {
        Sample {
            index: sample.index + self.index,
            stamp: Timestamp(sample.stamp.0 + self.stamp),
            segment: sample.segment + self.segment,
            ..sample.clone()
        }
    }

    /// The set at hand is over.
    pub(in crate::commands::bench) fn end(&mut self, set: &DataSet) {
        if let Some(last) = set.samples.last() {
            (self.index, self.segment) = (self.index + last.index + 1, self.segment + last.segment + 1);
            self.stamp += last.stamp.0 + APART_NS;
        }
    }
}

/// One set under the head that is exported after so many sets.
#[derive(Debug, Clone, Serialize)]
pub(super) struct After {
    pub(super) seed: u64,
    /// Sets that the learner has seen.
    pub(super) seen: usize,
    /// Number of the set in the order given, from 0.
    pub(super) set: usize,
    pub(super) frozen: Accuracy,
    pub(super) adapted: Accuracy,
}

/// Every set that was seen, after each; the learner ends there as at the end of its stream (a copy of it does, so that
/// the learner itself goes on).
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
