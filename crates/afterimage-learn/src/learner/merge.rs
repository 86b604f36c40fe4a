//! Merges learners: their statistics add up exactly.
use super::Learner;
use crate::error::Result;
use crate::sampling::Block;

impl Learner {
    /// Merges what `other`, a learner over the same encoder, has seen. The slow-head statistics are added, so that the
    /// next fit equals that of one learner that has seen everything (up to rounding of sums). Held-out and replayed
    /// blocks are added as if they arrived now, as far as memory allows. Blocks, segments and cameras stay separate.
    /// Heads, a residual and an open block of `other` are not merged.
    ///
    /// # Errors
    /// The latents differ in length; nothing is merged then.
    pub fn join(&mut self, other: &Learner) -> Result<()> {
        self.data.scatter.merge(&other.data.scatter)?;
        self.data.holdout_scatter.merge(&other.data.holdout_scatter)?;
        let place = self.data.joined;
        let mut next = place;
        let mut moved = |block: &Block| {
            let (number, segment, camera) =
                (place.0 + block.number, place.1 + block.segment, place.2.saturating_add(block.camera));
            next = (next.0.max(number + 1), next.1.max(segment + 1), next.2.max(camera.saturating_add(1)));
            Block { number, segment, camera, ..block.clone() }
        };
        for block in other.data.replay.blocks() {
            self.data.replay.insert(&moved(&block));
        }
        for block in other.data.reference.blocks() {
            if self.data.reference.frames() + block.stamps.len()
                <= self.form.reference_frames(&self.selection.promotion_config)
            {
                self.data.reference.push(moved(block));
            }
        }
        for block in other.data.holdout.blocks() {
            self.data.holdout.push(moved(block));
        }
        self.data.joined = next;
        self.counts.samples += other.counts.samples;
        self.counts.held_out += other.counts.held_out;
        self.counts.blocks += other.counts.blocks;
        self.now = self.now.max(other.now);
        self.frame = self.frame.max(other.frame);
        Ok(())
    }

    /// Index and capture time of the newest frame learned from.
    pub fn newest_frame(&self) -> (u64, crate::Timestamp) {
        (self.frame, self.now)
    }
}
