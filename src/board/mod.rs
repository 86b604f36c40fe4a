//! Living with the machine: its service manager, its heat and its power, and which of its cores the learner may use.
mod cores;
mod heart;
mod service;
mod strain;

pub use cores::pin;
pub use heart::Heart;
pub use service::Manager;
#[cfg(test)]
pub(crate) use service::tests::Ear;
pub use strain::{Change, Strain};

use crate::config;
use crate::error::{Error, Result};

/// Whether this machine can do what `[board]` asks, before anything that takes long.
///
/// # Errors
/// A core that this process may not use, or nothing that tells the temperature or the power mode.
pub fn check(config: &config::Board) -> Result<()> {
    cores::check(&config.cores().map_err(Error::config)?)?;
    Strain::open(config).map(drop)
}
