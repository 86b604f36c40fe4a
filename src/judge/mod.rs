//! May a learned head take the place of the exported one? Decided on blocks that are never learned from ([`Held`]), in
//! two measures that need no labels ([`scores`]), by what resampling the blocks says of their differences ([`gate`]).
//! Where there are labelled images, they must agree ([`probe`]).
mod gate;
mod held;
pub mod probe;
mod scores;

pub use gate::{Side, Verdict, gate, replaces, worse};
pub use held::{Held, HeldBlock, HeldState};
pub use scores::{Scores, scores};
