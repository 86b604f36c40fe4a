//! May a learned head take the place of the exported one? Decided on blocks that are never learned from ([`Holdout`]), in
//! two measures that need no labels ([`scores`]), by what resampling the blocks says of their differences ([`gate`]).
//! Where there are labelled images, they must agree ([`probe`]).
mod decide;
mod holdout;
pub mod probe;
mod scores;

pub use decide::{GateResult, PairedBootstrap, gate, non_inferior, regression};
pub use holdout::{Holdout, HoldoutBlock, HoldoutState};
pub use scores::{Scores, scores};
