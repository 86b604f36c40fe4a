//! The heartbeat of the inference loop, for the watchdog of a service manager; SIGUSR1 logs its health.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::SIGUSR1;

use super::SystemdNotifier;
use crate::error::{Error, Result};
use crate::shutdown::Shutdown;

/// Maximum time between two status messages to the service manager.
const STATUS: Duration = Duration::from_secs(10);

/// Sends heartbeats while the inference loop runs: also while it waits for a disconnected camera, but not while an
/// inference hangs. The default sends none.
#[derive(Debug, Default)]
pub struct Watchdog {
    manager: Option<SystemdNotifier>,
    /// When the next heartbeat is due; `None`: now.
    next: Option<Instant>,
    /// SIGUSR1 asked for the health.
    asked: Arc<AtomicBool>,
    shutdown: Shutdown,
}

impl Watchdog {
    /// Notifies the service manager of this process, if there is one, and handles SIGUSR1 from now on. Once `stop` is
    /// set, saving may take `stop_secs`.
    ///
    /// # Errors
    /// The system refuses the signal handler or the thread.
    pub fn of_process(stop: &Arc<AtomicBool>, stop_secs: f64) -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGUSR1, asked.clone())
            .map_err(|error| Error::runtime("cannot handle SIGUSR1").with_source(error))?;
        let shutdown = Shutdown::watch(stop.clone(), Duration::from_secs_f64(stop_secs.clamp(0.0, 1e6)))?;
        Ok(Self { manager: SystemdNotifier::find(), next: None, asked, shutdown })
    }

    /// Tells the service manager that the pipeline is ready for frames.
    pub fn ready(&self) {
        if let Some(manager) = &self.manager {
            manager.notify("READY=1");
        }
    }

    /// Call once per iteration of the inference loop. Calls `status` only when needed: for the service manager, twice
    /// per watchdog interval and at least every 10 s, and for the log after SIGUSR1.
    pub fn beat(&mut self, status: impl Fn() -> String) {
        if self.asked.swap(false, Ordering::Relaxed) {
            tracing::info!(target: crate::logging::ALWAYS, "health: {}", status());
        }
        let Some(manager) = &self.manager else { return };
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) {
            return;
        }
        self.next = Some(now + manager.watchdog().map_or(STATUS, |time| STATUS.min(time / 2)));
        manager.notify(&format!("WATCHDOG=1\nSTATUS={}", status()));
    }

    /// The progress of the shutdown.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Tells the service manager that the pipeline has ended and only saving remains.
    pub fn stopping(&self) {
        self.shutdown.begin();
        if let Some(manager) = &self.manager {
            manager.notify("STOPPING=1\nSTATUS=saving the state");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::systemd::tests::FakeManager;
    use super::*;

    #[test]
    fn the_manager_is_notified_in_time_and_not_more_often() {
        let (fake, manager) = FakeManager::new(Some(Duration::from_millis(200)));
        let mut watchdog = Watchdog { manager: Some(manager), ..Watchdog::default() };
        watchdog.ready();
        assert_eq!(fake.received(), "READY=1");
        let began = Instant::now();
        watchdog.beat(|| "ok: 1 frame".into());
        assert_eq!(fake.received(), "WATCHDOG=1\nSTATUS=ok: 1 frame");
        let mut turns = 0;
        while began.elapsed() < Duration::from_millis(90) {
            watchdog.beat(|| "too soon".into());
            turns += 1;
        }
        // Unless this thread was delayed, nothing arrived in between.
        assert!(turns > 0 && (fake.silent() || began.elapsed() > Duration::from_millis(100)));
        std::thread::sleep(Duration::from_millis(110));
        watchdog.beat(|| "ok: 2 frames".into());
        let received = std::iter::repeat_with(|| fake.received()).find(|text| !text.contains("too soon"));
        assert_eq!(received.as_deref(), Some("WATCHDOG=1\nSTATUS=ok: 2 frames"));
        watchdog.stopping();
        assert!(fake.received().starts_with("STOPPING=1"));
    }

    #[test]
    fn without_a_manager_no_status_is_made() {
        Watchdog::default().beat(|| unreachable!("nobody reads it"));
    }
}
