//! What trains the residual MLP: one [`Method`] for each objective, and [`Residual`], which feeds them and takes the
//! steps.
//!
//! A method sees rows that went through the residual and gives a loss with its gradient. What has no state is a pure
//! loss over pairs ([`OverPairs`]); what has state or networks of its own keeps them here.
mod draw;
mod over_pairs;
mod residual;

use ndarray::{Array2, ArrayView2};

pub(super) use draw::{Drawn, Need};
use over_pairs::OverPairs;
pub(super) use residual::Residual;

use crate::checkpoint::{Contents, Stored};
use crate::error::Result;
use crate::optimizer::Parameters;

/// Rows of one draw, and what the residual made of them.
pub(super) struct Rows<'a> {
    /// What was drawn: latents `[m, d]` and what is known of them.
    pub(super) drawn: &'a Drawn,
    /// `y + alpha mlp(y)` with `y` the slow head of the latents: `[m, k]`.
    pub(super) out: ArrayView2<'a, f32>,
}

/// What a method makes of its rows.
#[derive(Debug)]
pub(super) struct Turn {
    /// The loss.
    pub(super) value: f32,
    /// Its gradient with respect to [`Rows::out`], `[m, k]`.
    pub(super) grad: Array2<f32>,
}

/// One objective with all that it needs; see the module.
pub(super) trait Method: std::fmt::Debug + Send {
    /// Its name in configuration and messages.
    fn name(&self) -> &'static str;

    /// The rows that it learns from.
    fn need(&self) -> Need;

    /// Loss and gradients; those of its own networks are left in what [`Method::networks`] gives.
    fn turn(&mut self, rows: &Rows<'_>) -> Turn;

    /// Its own networks with the gradients of the last turn, where it has some: they are trained with the residual.
    fn networks(&mut self) -> Option<[&mut dyn Parameters<f32>; 2]> {
        None
    }

    /// Saves what it remembers, under `prefix`.
    fn save<'a>(&'a self, _contents: &mut Contents<'a>, _prefix: &str) {}

    /// Goes on as saved; it was started with the same configuration.
    ///
    /// # Errors
    /// Parts that are missing or do not fit.
    fn restore(&mut self, _stored: &mut Stored, _prefix: &str) -> Result<()> {
        Ok(())
    }

    /// A copy.
    fn boxed(&self) -> Box<dyn Method>;
}

impl Clone for Box<dyn Method> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}

/// A method and its weight in the sum.
#[derive(Debug, Clone)]
struct Term {
    weight: f32,
    method: Box<dyn Method>,
}
