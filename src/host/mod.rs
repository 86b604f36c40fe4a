//! The host machine: its service manager, its temperature and power, and the cores and priority of the learner.
mod affinity;
mod allocator;
mod priority;
mod watchdog;
mod systemd;
mod throttle;

pub use affinity::pin;
pub use allocator::return_large_blocks;
pub use priority::lower_priority;
pub use systemd::SystemdNotifier;
#[cfg(test)]
pub(crate) use systemd::tests::FakeManager;
pub use throttle::{ThermalMonitor, ThrottleEvent};
pub use watchdog::Watchdog;

use crate::config;
use crate::error::{Error, Result};

/// Checks that this machine supports what `[host]` asks for, before anything slow starts.
///
/// # Errors
/// This process may not use a core, or nothing reports the temperature or the power mode.
pub fn check(config: &config::Host) -> Result<()> {
    affinity::check(&config.cores().map_err(Error::config)?)?;
    ThermalMonitor::open(config).map(drop)
}
