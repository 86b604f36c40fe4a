//! Groups samples into blocks: skips what is not worth learning from, and cuts the rest into units that are held out or
//! learned from as a whole.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::open_block::{OpenBlock, OpenBlockState};
use super::static_scene::{StaticSceneDetector, StaticSceneState};
use super::{Block, Sample};
use crate::config::{Promotion, Training};
use crate::error::{Error, Result};
use crate::linalg::dot;

/// Groups samples into [`Block`]s, separately for each camera.
///
/// - *Rate*: keeps at most `learn.frames_per_sec` samples per second. A sample is kept if its timestamp is at most a
///   quarter of a period before it is due. The next sample is due one period after this one was due (or, after a late
///   sample, three quarters of a period after its timestamp). With a limit of 10, 30 frames per second keep every third
///   frame, 10 keep all of them despite jitter, and 25 keep 10 on average (two or three frames apart). Over `t` seconds
///   of a segment, never more than `10 t + 1.25` are kept.
/// - *Static scenes*: skips a sample whose cosine distance to the last kept one of its segment is below
///   `learn.sampling.still_distance`, and a sample of a static scene under noise of any level; see
///   `StaticSceneDetector` in `static_scene.rs`.
/// - *Blocks* end when the segment changes, before a sample that comes `promotion.block_secs` or more after the block's
///   first sample or after the last kept one, and when the timestamp steps back. The first sample of a segment, and the
///   first one after a step back, is always kept.
/// - *Flashes*: when its segment ends, a block is held back until the next segment has lasted
///   `learn.sampling.flash_secs` or has ended itself. If the stream returns to the old segment before that (see
///   [`super::ShotDetector`]), the block continues, and the samples in between are dropped.
#[derive(Debug, Clone)]
pub struct BlockBuilder {
    period_ns: i64,
    block_ns: i64,
    flash_ns: i64,
    still_distance: f64,
    still_frames: u64,
    number: u64,
    counts: BlockCounts,
    cameras: BTreeMap<u16, CameraState>,
}

/// The blocks of one camera.
#[derive(Debug, Clone, Default)]
struct CameraState {
    /// Number of blocks closed so far.
    closed: u64,
    /// The previous block, while it may still continue.
    before: Option<OpenBlock>,
    open: Option<OpenBlock>,
    still: StaticSceneDetector,
}

/// Counts what happened to the samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockCounts {
    /// Samples added to a block.
    pub kept: u64,
    /// Skipped samples: too soon after the previous one.
    pub rate_limited: u64,
    /// Skipped samples: the scene was static.
    pub still: u64,
    /// Dropped samples: a flash.
    #[serde(default)]
    pub flashes: u64,
}

/// The state of a [`BlockBuilder`] for a checkpoint, without the latents of its open blocks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockBuilderState {
    /// Number of blocks closed so far.
    pub number: u64,
    /// Sample counts so far.
    pub counts: BlockCounts,
    /// Each camera's number, its count of closed blocks, its held-back block and its open block; their latents are
    /// stored in this order.
    pub cameras: Vec<(u16, u64, Option<OpenBlockState>, Option<OpenBlockState>)>,
    /// The static scenes of each of these cameras; their latents follow those of the open blocks.
    #[serde(default)]
    pub still: Vec<StaticSceneState>,
}

/// Whether a block is held out for the promotion gate and never learned from: every `hold_every`th block of a camera,
/// starting with its first. `turn` is [`Block::camera_block_index`].
pub fn held(turn: u64, hold_every: u64) -> bool {
    hold_every > 0 && turn.is_multiple_of(hold_every)
}

impl BlockBuilder {
    /// Creates an empty builder.
    pub fn new(learn: &Training, judge: &Promotion) -> Self {
        Self {
            period_ns: nanos(1.0 / learn.frames_per_sec),
            block_ns: nanos(judge.block_secs),
            flash_ns: nanos(learn.sampling.flash_secs),
            still_distance: learn.sampling.still_distance,
            still_frames: learn.sampling.still_frames,
            number: 0,
            counts: BlockCounts::default(),
            cameras: BTreeMap::new(),
        }
    }

    /// Takes the next sample of the stream and returns the blocks that it closes, oldest first.
    ///
    /// A latent whose length differs from those of the open block closes it like a scene cut.
    pub fn push(&mut self, sample: &Sample) -> Vec<Block> {
        let mut lane = self.cameras.remove(&sample.camera).unwrap_or_default();
        let mut ended = Vec::new();
        self.take(&mut lane, sample, &mut ended);
        let closed = ended.into_iter().filter_map(|open| self.close(sample.camera, &mut lane, open)).collect();
        self.cameras.insert(sample.camera, lane);
        closed
    }

    fn take(&mut self, lane: &mut CameraState, sample: &Sample, ended: &mut Vec<OpenBlock>) {
        let (stamp, segment) = (sample.stamp.0, sample.segment);
        if let Some(before) = lane.before.take_if(|b| b.state.segment == segment && b.state.dim == sample.latent.len())
        {
            // The flash is over: continue as if it had not happened.
            let flash = lane.open.replace(before).map_or(0, |flash| flash.state.index.len() as u64);
            self.counts.kept -= flash;
            self.counts.flashes += flash;
        }
        let Some(open) = &mut lane.open else {
            self.begin(lane, sample);
            return;
        };
        let (first, last) = open.span().unwrap_or((stamp, stamp));
        if segment != open.state.segment {
            ended.extend(std::mem::replace(&mut lane.before, lane.open.take()));
            self.begin(lane, sample);
            return;
        }
        if sample.latent.len() != open.state.dim || stamp < last {
            ended.extend(lane.before.take().into_iter().chain(lane.open.take()));
            self.begin(lane, sample);
            return;
        }
        if stamp.saturating_sub(open.state.since) > self.flash_ns {
            ended.extend(lane.before.take());
        }
        let quarter = self.period_ns / 4;
        if stamp < open.state.due.saturating_sub(quarter) {
            self.counts.rate_limited += 1;
            return;
        }
        let noise = self.still_frames > 0 && lane.still.holds(sample, self.still_frames);
        if 1.0 - f64::from(dot(open.last_row(), &sample.latent)) < self.still_distance {
            self.counts.still += 1;
            return;
        }
        let due = open.state.due.max(stamp.saturating_sub(quarter)).saturating_add(self.period_ns);
        if noise {
            open.state.due = due;
            self.counts.still += 1;
            return;
        }
        if stamp.saturating_sub(first) >= self.block_ns || stamp.saturating_sub(last) >= self.block_ns {
            ended.extend(lane.before.take().into_iter().chain(lane.open.take()));
            self.begin(lane, sample);
        } else {
            open.keep(sample);
            self.counts.kept += 1;
        }
        if let Some(open) = &mut lane.open {
            open.state.due = due;
        }
    }

    /// Closes the open blocks at the end of the stream.
    pub fn finish(&mut self) -> Vec<Block> {
        let mut closed = Vec::new();
        for (camera, mut lane) in std::mem::take(&mut self.cameras) {
            let open = lane.before.take().into_iter().chain(lane.open.take()).collect::<Vec<_>>();
            closed.extend(open.into_iter().filter_map(|open| self.close(camera, &mut lane, open)));
            self.cameras.insert(camera, lane);
        }
        closed
    }

    /// Sample counts so far.
    pub fn counts(&self) -> BlockCounts {
        self.counts
    }

    /// Number of samples in the open blocks.
    pub fn open(&self) -> u64 {
        self.all_open().map(|open| open.state.index.len() as u64).sum()
    }

    /// The state to save, the latents of open blocks and static scenes, and the latents of views, row after row.
    pub fn save(&self) -> (BlockBuilderState, Vec<f32>, Vec<f32>) {
        let state = |open: &Option<OpenBlock>| open.as_ref().map(|open| open.state.clone());
        let lane =
            |(camera, lane): (&u16, &CameraState)| (*camera, lane.closed, state(&lane.before), state(&lane.open));
        let cameras = self.cameras.iter().map(lane).collect();
        let mut rows = self.all_open().flat_map(|open| open.rows.iter().copied()).collect();
        let still = self.cameras.values().map(|lane| lane.still.save(&mut rows)).collect();
        let views = self.all_open().flat_map(|open| open.view_rows.iter().copied()).collect();
        (BlockBuilderState { number: self.number, counts: self.counts, cameras, still }, rows, views)
    }

    /// Restores a saved `state` with its two lists of rows.
    ///
    /// # Errors
    /// The parts do not fit together; nothing is changed then.
    pub fn restore(&mut self, state: BlockBuilderState, mut rows: Vec<f32>, mut views: Vec<f32>) -> Result<()> {
        let mut cameras = BTreeMap::new();
        for (camera, closed, before, open) in state.cameras {
            let mut one = |state: Option<OpenBlockState>| {
                state.map(|state| OpenBlock::restore(state, &mut rows, &mut views)).transpose()
            };
            cameras.insert(
                camera,
                CameraState { closed, before: one(before)?, open: one(open)?, ..CameraState::default() },
            );
        }
        for (lane, still) in cameras.values_mut().zip(state.still) {
            lane.still = StaticSceneDetector::restore(still, &mut rows)?;
        }
        if !rows.is_empty() || !views.is_empty() {
            return Err(Error::runtime(format!(
                "saved open blocks: {} numbers of latents and {} of views belong to none",
                rows.len(),
                views.len()
            )));
        }
        (self.number, self.counts, self.cameras) = (state.number, state.counts, cameras);
        Ok(())
    }

    fn all_open(&self) -> impl Iterator<Item = &OpenBlock> {
        self.cameras.values().flat_map(|lane| lane.before.iter().chain(&lane.open))
    }

    fn begin(&mut self, lane: &mut CameraState, sample: &Sample) {
        lane.open = Some(OpenBlock::begin(sample, self.period_ns));
        self.counts.kept += 1;
    }

    fn close(&mut self, camera: u16, lane: &mut CameraState, open: OpenBlock) -> Option<Block> {
        let block = open.close(camera, lane.closed, self.number)?;
        lane.closed += 1;
        self.number += 1;
        Some(block)
    }
}

/// Converts seconds to whole nanoseconds.
fn nanos(secs: f64) -> i64 {
    (secs * 1e9).round() as i64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "block_builder_tests.rs"]
mod tests;
