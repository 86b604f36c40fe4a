//! Signs of life while an encoder opens: building an engine of TensorRT takes minutes on a board, and silence looks like
//! death.
//!
//! After 3 s and then every 5 s a line in the log says what is waited for and since when. A service manager that
//! asks for it (`NOTIFY_SOCKET`, sd_notify(3)) is told the same as `STATUS=`, with more time to start
//! (`EXTEND_TIMEOUT_USEC=`).
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::error::Result;
use crate::host::SystemdNotifier;

/// Nothing is said of what opens sooner.
const FIRST: Duration = Duration::from_secs(3);
/// Time between two signs of life.
const BEAT: Duration = Duration::from_secs(5);
/// Time that each sign asks for, as sd_notify(3) counts it.
const MORE: Duration = Duration::from_secs(60);

/// Does `open`, with signs of life; `what` says what is opened (`encoder m.onnx on tensorrt`).
///
/// # Errors
/// Those of `open`.
pub fn while_opening<T>(what: &str, open: impl FnOnce() -> Result<T>) -> Result<T> {
    beating(what, [FIRST, BEAT], SystemdNotifier::find().as_ref(), open)
}

fn beating<T>(
    what: &str,
    [first, beat]: [Duration; 2],
    manager: Option<&SystemdNotifier>,
    open: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (done, wait) = bounded::<()>(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let signs = move || {
            let mut next = first;
            // Hanging up ends it.
            while wait.recv_timeout(next) == Err(RecvTimeoutError::Timeout) {
                next = beat;
                let secs = began.elapsed().as_secs();
                tracing::info!(
                    "warming up: {what} is opening for {secs} s (an engine that is built for the first time takes minutes)"
                );
                if let Some(manager) = manager {
                    let more = MORE.as_micros();
                    manager.notify(&format!("STATUS=warming up for {secs} s: {what}\nEXTEND_TIMEOUT_USEC={more}"));
                }
            }
        };
        let started = std::thread::Builder::new().name("warmup".into()).spawn_scoped(scope, signs);
        if let Err(e) = started {
            tracing::debug!("no signs of life while an encoder opens: {e}");
        }
        let opened = open();
        drop(done);
        opened
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::error::Error;
    use crate::host::FakeManager;

    #[test]
    fn a_service_manager_hears_that_it_still_lives() {
        let (ear, manager) = FakeManager::new(None);
        let beats = [Duration::from_millis(1); 2];
        // Ends once two signs were heard.
        let opened =
            beating("encoder m.onnx on tensorrt", beats, Some(&manager), || Ok((ear.received(), ear.received())));
        let (one, two) = opened.unwrap();
        for text in [one, two] {
            assert!(
                text.starts_with("STATUS=warming up for 0 s: encoder m.onnx on tensorrt\nEXTEND_TIMEOUT"),
                "{text}"
            );
        }
        let failed = beating("x", [FIRST; 2], None, || Err::<(), _>(Error::runtime("broken")));
        assert_eq!(failed.unwrap_err().to_string(), "broken");
    }
}
