//! Living with the machine: its service manager, its heat and its power, and which of its cores the learner may use.
mod affinity;
mod watchdog;
mod systemd;
mod throttle;

pub use affinity::pin;
pub use systemd::SystemdNotifier;
#[cfg(test)]
pub(crate) use systemd::tests::FakeManager;
pub use throttle::{ThermalMonitor, ThrottleEvent};
pub use watchdog::Watchdog;

use crate::config;
use crate::error::{Error, Result};

/// Whether this machine can do what `[host]` asks, before anything that takes long.
///
/// # Errors
/// A core that this process may not use, or nothing that tells the temperature or the power mode.
pub fn check(config: &config::Host) -> Result<()> {
    affinity::check(&config.cores().map_err(Error::config)?)?;
    ThermalMonitor::open(config).map(drop)
}
