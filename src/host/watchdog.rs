//! The heartbeat of the hot path: to a service manager with a watchdog, and to whoever sends SIGUSR1.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::SIGUSR1;

use super::SystemdNotifier;
use crate::error::{Error, Result};
use crate::shutdown::Shutdown;

/// A service manager hears at least this often.
const STATUS: Duration = Duration::from_secs(10);

/// Beats as long as the hot path turns: also while a camera is gone and waited for, but not while an inference hangs.
/// The default beats for nobody.
#[derive(Debug, Default)]
pub struct Watchdog {
    manager: Option<SystemdNotifier>,
    /// When it is time again; `None`: at once.
    next: Option<Instant>,
    /// Somebody asks for health.
    asked: Arc<AtomicBool>,
    shutdown: Shutdown,
}

impl Watchdog {
    /// For the service manager of this process, where there is one, and for SIGUSR1 from now on; the end that `stop` asks
    /// for is watched over, with `stop_secs` for what must be saved.
    ///
    /// # Errors
    /// The system refuses the handler or the thread.
    pub fn of_process(stop: &Arc<AtomicBool>, stop_secs: f64) -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGUSR1, asked.clone())
            .map_err(|error| Error::runtime("cannot handle SIGUSR1").with_source(error))?;
        let shutdown = Shutdown::watch(stop.clone(), Duration::from_secs_f64(stop_secs.clamp(0.0, 1e6)))?;
        Ok(Self { manager: SystemdNotifier::find(), next: None, asked, shutdown })
    }

    /// Frames can come.
    pub fn ready(&self) {
        if let Some(manager) = &self.manager {
            manager.notify("READY=1");
        }
    }

    /// One turn of the hot path. `status` is made where somebody hears it: twice in the watchdog's time and at least
    /// every 10 s the service manager, and the log after SIGUSR1.
    pub fn beat(&mut self, status: impl Fn() -> String) {
        if self.asked.swap(false, Ordering::Relaxed) {
            tracing::info!(target: crate::telemetry::ALWAYS, "health: {}", status());
        }
        let Some(manager) = &self.manager else { return };
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) {
            return;
        }
        self.next = Some(now + manager.watchdog().map_or(STATUS, |time| STATUS.min(time / 2)));
        manager.notify(&format!("WATCHDOG=1\nSTATUS={}", status()));
    }

    /// Where the end stands.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// The end has begun: what is left is to save.
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
    fn the_manager_hears_in_time_and_not_more() {
        let (ear, manager) = FakeManager::new(Some(Duration::from_millis(200)));
        let mut heart = Watchdog { manager: Some(manager), ..Watchdog::default() };
        heart.ready();
        assert_eq!(ear.received(), "READY=1");
        let began = Instant::now();
        heart.beat(|| "ok: 1 frame".into());
        assert_eq!(ear.received(), "WATCHDOG=1\nSTATUS=ok: 1 frame");
        let mut turns = 0;
        while began.elapsed() < Duration::from_millis(90) {
            heart.beat(|| "too soon".into());
            turns += 1;
        }
        // Where this thread was not held up, nothing came in between.
        assert!(turns > 0 && (ear.silent() || began.elapsed() > Duration::from_millis(100)));
        std::thread::sleep(Duration::from_millis(110));
        heart.beat(|| "ok: 2 frames".into());
        let heard = std::iter::repeat_with(|| ear.received()).find(|text| !text.contains("too soon"));
        assert_eq!(heard.as_deref(), Some("WATCHDOG=1\nSTATUS=ok: 2 frames"));
        heart.stopping();
        assert!(ear.received().starts_with("STOPPING=1"));
    }

    #[test]
    fn without_a_manager_nothing_is_made() {
        Watchdog::default().beat(|| unreachable!("nobody hears it"));
    }
}
