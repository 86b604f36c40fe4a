//! From the previous space to the one that a promotion opens: rotates the new head onto the old one and fits a map.
use std::sync::Arc;

use ndarray::Array2;

use super::Learner;
use crate::error::{Error, Result};
use crate::head::Head;
use crate::spaces::{FittedMap, RetrievalSplit, fit, procrustes_rotation};

/// Maximum number of latents to fit a map on; for whole grids, the same number of values in total.
const REFERENCES: usize = 2048;
const REFERENCE_NUMBERS: usize = 1 << 24;

/// How embeddings of the previous space map to the new one.
#[derive(Debug, Clone, PartialEq)]
pub struct SpaceTransition {
    /// The previous space.
    pub from: Arc<str>,
    /// Version of the head that the previous space belongs to.
    pub from_head: u64,
    /// The map and its scores on held-out blocks.
    pub fitted: FittedMap,
}

impl Learner {
    /// The latents that maps are fitted on now, sampled evenly from everything in memory, without held-out ones.
    pub fn map_references(&self) -> Array2<f32> {
        self.data.replay.references((REFERENCE_NUMBERS / self.form.numbers().max(1)).min(REFERENCES))
    }

    /// Returns `head` as it is promoted, and the transition from the exported head to it. If `head.align` is set and
    /// both heads have an own part of the same size, the new head is rotated onto the exported one. The cost does not
    /// grow with the stream.
    pub(super) fn passage_to(&self, head: Arc<Head>) -> (Arc<Head>, Result<SpaceTransition>) {
        let old = &*self.spaces.exported.head;
        let references = self.map_references();
        if references.nrows() == 0 {
            return (head, Err(Error::runtime("no latents are in memory to fit a map on")));
        }
        let turned = (self.config.head.align && !old.is_frozen() && !head.is_frozen()).then(|| {
            let (x, y) = (old.embed_rows(references.view()), head.embed_rows(references.view()));
            let turn = procrustes_rotation(old.own_part(x.view()), head.own_part(y.view())).ok()?;
            head.turned(turn.view()).filter(Head::finite)
        });
        let head = turned.flatten().map_or(head, Arc::new);
        self.governor.rest();
        let held = RetrievalSplit::of(self.data.holdout.blocks());
        let fitted = fit(old, &head, references.view(), held.as_ref());
        self.governor.rest();
        let (from, from_head) = (self.spaces.exported.space.clone(), self.spaces.exported.number);
        (head, fitted.map(|fitted| SpaceTransition { from, from_head, fitted }))
    }
}
