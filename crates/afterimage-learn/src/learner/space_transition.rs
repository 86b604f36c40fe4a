//! From the space before to the one that a promotion opens: the new head is turned onto the old one, and a map is fitted.
use std::sync::Arc;

use ndarray::Array2;

use super::Learner;
use crate::error::{Error, Result};
use crate::head::Head;
use crate::spaces::{FittedMap, RetrievalSplit, fit, procrustes_rotation};

/// Latents that a map is fitted on, at most; of whole grids no more than these numbers in all.
const REFERENCES: usize = 2048;
const REFERENCE_NUMBERS: usize = 1 << 24;

/// How embeddings of the space before come into the new one.
#[derive(Debug, Clone, PartialEq)]
pub struct SpaceTransition {
    /// The space before, and the head that it is of.
    pub from: Arc<str>,
    /// Number of that head.
    pub from_head: u64,
    /// The map, and what was measured of it on held-out blocks.
    pub fitted: FittedMap,
}

impl Learner {
    /// The latents that maps are fitted on now, evenly over all that is in memory; no held-out ones.
    pub fn map_references(&self) -> Array2<f32> {
        self.data.replay.references((REFERENCE_NUMBERS / self.form.numbers().max(1)).min(REFERENCES))
    }

    /// `head` as it is promoted (turned onto the exported one, where both have an own part of one size and `head.align`
    /// says so), and the way from the exported one to it. The work does not grow with what was seen.
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
