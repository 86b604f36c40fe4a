//! `[stream]`: where records can be read as they come.
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[stream]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Stream {
    /// A socket for programs of the same machine: `unix:PATH`, or a loopback address and a port (`127.0.0.1:9300`); empty:
    /// none. A run does not keep it: it belongs to the machine.
    pub socket: String,
    /// Records that may wait for a reader; what it has no room for is left out.
    pub queue_records: usize,
    /// File of the ring in shared memory, such as `/dev/shm/afterimage`; empty: none.
    pub ring: String,
    /// Messages that the ring holds.
    pub ring_slots: usize,
    /// Room for one of them: 4 bytes a value and about 1 kB for the record.
    pub ring_slot_kilobytes: usize,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            socket: String::new(),
            queue_records: 256,
            ring: String::new(),
            ring_slots: 256,
            ring_slot_kilobytes: 16,
        }
    }
}

/// Where readers come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A port of the loopback device.
    Tcp(SocketAddr),
}

impl Stream {
    /// The address of [`Stream::socket`]; `None` where there is to be none.
    ///
    /// # Errors
    /// The key, what it is and what it must be.
    pub fn address(&self) -> Result<Option<ListenAddress>, String> {
        Self::parse("stream.socket", &self.socket)
    }

    /// The address that `key` names.
    pub(super) fn parse(key: &str, text: &str) -> Result<Option<ListenAddress>, String> {
        let wrong = |why: &str| format!("{key} = {text:?}: {why}");
        if text.is_empty() {
            return Ok(None);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() || path.contains('\0') {
                return Err(wrong("unix: must be followed by a path"));
            }
            return Ok(Some(ListenAddress::Unix(path.into())));
        }
        let Ok(address) = text.parse::<SocketAddr>() else {
            return Err(wrong("must be unix:PATH, or a loopback address and a port such as 127.0.0.1:9300, or empty"));
        };
        if !address.ip().is_loopback() {
            return Err(wrong("is open to other machines, without a password; only loopback addresses are taken"));
        }
        Ok(Some(ListenAddress::Tcp(address)))
    }

    /// What is wrong with [`Stream::ring`].
    pub(super) fn ring_problem(&self) -> Option<String> {
        let wrong = !self.ring.is_empty() && !std::path::Path::new(&self.ring).is_absolute();
        wrong.then(|| format!("stream.ring = {:?}: must be a whole path, such as /dev/shm/afterimage", self.ring))
    }
}
