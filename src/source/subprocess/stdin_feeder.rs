//! Copies a stream to the standard input of a decoder, on a separate thread.
use std::io::{ErrorKind, Read, Write};
use std::process::ChildStdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Runs the copying thread until the stream or the decoder ends.
#[derive(Debug)]
pub(super) struct StdinFeeder {
    began: Instant,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The thread is waiting for the sender.
    waits: AtomicBool,
    /// Milliseconds from the start to the sender's last bytes.
    last: AtomicU64,
}

impl StdinFeeder {
    /// Copies `stream` to `decoder`, and closes it at the end.
    /// # Errors
    /// A runtime error: the thread cannot be started.
    pub(super) fn start(mut decoder: ChildStdin, mut stream: impl Read + Send + 'static) -> Result<Self> {
        let (began, state) = (Instant::now(), Arc::new(State::default()));
        let shared = state.clone();
        let work = move || {
            let mut piece = vec![0; 1 << 16];
            loop {
                shared.waits.store(true, Ordering::Release);
                let read = stream.read(&mut piece);
                let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                shared.last.store(millis, Ordering::Relaxed);
                shared.waits.store(false, Ordering::Release);
                let sent = match read {
                    Ok(0) => break,
                    Ok(n) => decoder.write_all(piece.get(..n).unwrap_or_default()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => {
                        tracing::warn!("the stream of the video broke off: {error}");
                        break;
                    }
                };
                // A decoder that has ended takes no more; it explains why itself.
                if sent.is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("decoder-feed".into()).spawn(work);
        thread.map_err(|e| Error::runtime("cannot start the thread that feeds the video decoder").with_source(e))?;
        Ok(Self { began, state })
    }

    /// When the sender last sent something; now while the thread waits for it: a slow sender is not a stalled decoder.
    pub(super) fn last_byte(&self) -> Instant {
        if self.state.waits.load(Ordering::Acquire) {
            return Instant::now();
        }
        let last = Duration::from_millis(self.state.last.load(Ordering::Relaxed));
        self.began.checked_add(last).unwrap_or(self.began)
    }
}
