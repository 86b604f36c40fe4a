//! The promotion gate: may a learned head replace the exported one? The gate uses blocks that are never learned from
//! ([`Holdout`]) and two measures that need no labels ([`scores`]), and bootstraps their differences over the blocks
//! ([`gate`]). If there are labelled images, they must agree ([`probe`]).
mod decide;
mod holdout;
pub mod probe;
mod scores;

pub use decide::{GateResult, PairedBootstrap, gate, non_inferior, regression};
pub use holdout::{Holdout, HoldoutBlock, HoldoutState};
pub use scores::{Scores, scores};
