//! Notifications to the service manager that started this process, if it wants any: sd_notify(3).
//!
//! The crate `sd-notify` is not used: its socket blocks, so a manager that does not read would stall the inference
//! loop.
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The notification socket of a service manager.
#[derive(Debug)]
pub struct SystemdNotifier {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl SystemdNotifier {
    /// Opens the socket that `NOTIFY_SOCKET` names.
    pub fn find() -> Option<Self> {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        // The watchdog may be meant for another process.
        let ours = number("WATCHDOG_PID").is_none_or(|process| process == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0).map(Duration::from_micros);
        Self::at(&std::env::var_os("NOTIFY_SOCKET")?, watchdog)
    }

    /// Connects to `name`: a path, or an abstract name that begins with `@`.
    pub(crate) fn at(name: &OsStr, watchdog: Option<Duration>) -> Option<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(name),
        };
        let socket = UnixDatagram::unbound().ok()?;
        // A manager that does not read must not block the sender.
        socket.set_nonblocking(true).ok()?;
        Some(Self { socket, address: address.ok()?, watchdog })
    }

    /// The manager kills a process that stays silent for this long.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends `state`: lines of `KEY=VALUE`. Never blocks.
    pub fn notify(&self, state: &str) {
        if let Err(e) = self.socket.send_to_addr(state.as_bytes(), &self.address) {
            tracing::debug!("cannot notify the service manager of {state:?}: {e}");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Receives the notifications in place of a service manager.
    pub(crate) struct FakeManager {
        socket: UnixDatagram,
        _folder: tempfile::TempDir,
    }

    impl FakeManager {
        pub(crate) fn new(watchdog: Option<Duration>) -> (Self, SystemdNotifier) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            (Self { socket, _folder: folder }, SystemdNotifier::at(path.as_os_str(), watchdog).unwrap())
        }

        pub(crate) fn received(&self) -> String {
            let mut bytes = [0; 512];
            let count = self.socket.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        }

        pub(crate) fn silent(&self) -> bool {
            self.socket.set_nonblocking(true).unwrap();
            let nothing = self.socket.recv(&mut [0; 8]).is_err();
            self.socket.set_nonblocking(false).unwrap();
            nothing
        }
    }

    #[test]
    fn a_manager_that_does_not_read_blocks_nobody() {
        let (fake, manager) = FakeManager::new(None);
        // More than any socket buffer holds: a blocking socket would hang here.
        (0..100_000).for_each(|_| manager.notify("STATUS=a line that nobody reads"));
        assert!(fake.received().starts_with("STATUS="));
    }
}
