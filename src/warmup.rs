//! Signs of life while an encoder opens: building an engine of TensorRT takes minutes on a board, and silence looks like
//! death.
//!
//! After 3 s and then every 5 s a line in the log says what is waited for and since when. A service manager that
//! asks for it (`NOTIFY_SOCKET`, sd_notify(3)) is told the same as `STATUS=`, with more time to start
//! (`EXTEND_TIMEOUT_USEC=`), and `READY=1` once the encoder is open.
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::error::Result;

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
    let manager = Manager::find();
    let opened = beating(what, [FIRST, BEAT], manager.as_ref(), open);
    if let (Some(manager), Ok(_)) = (&manager, &opened) {
        manager.tell(&format!("READY=1\nSTATUS=running, {what}"));
    }
    opened
}

fn beating<T>(
    what: &str,
    [first, beat]: [Duration; 2],
    manager: Option<&Manager>,
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
                    manager.tell(&format!("STATUS=warming up for {secs} s: {what}\nEXTEND_TIMEOUT_USEC={more}"));
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

/// The socket of a service manager.
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Manager {
    /// The one that started this process and wants to hear of it.
    fn find() -> Option<Self> {
        Self::at(&std::env::var_os("NOTIFY_SOCKET")?)
    }

    /// A path, or a name that begins with `@` (no file).
    fn at(name: &std::ffi::OsStr) -> Option<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(name),
        };
        Some(Self { socket: UnixDatagram::unbound().ok()?, address: address.ok()? })
    }

    fn tell(&self, state: &str) {
        if let Err(e) = self.socket.send_to_addr(state.as_bytes(), &self.address) {
            tracing::debug!("the service manager cannot be told {state:?}: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_service_manager_hears_that_it_still_lives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        ear.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let hear = || {
            let mut bytes = [0; 512];
            let count = ear.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        };
        let manager = Manager::at(path.as_os_str()).unwrap();
        let beats = [Duration::from_millis(1); 2];
        // Ends once two signs were heard.
        let opened = beating("encoder m.onnx on tensorrt", beats, Some(&manager), || Ok((hear(), hear())));
        let (one, two) = opened.unwrap();
        for text in [one, two] {
            assert!(
                text.starts_with("STATUS=warming up for 0 s: encoder m.onnx on tensorrt\nEXTEND_TIMEOUT"),
                "{text}"
            );
        }
        let failed = beating("x", [FIRST; 2], None, || Err::<(), _>(Error::work("broken")));
        assert_eq!(failed.unwrap_err().to_string(), "broken");
    }
}
