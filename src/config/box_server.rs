//! `[box_server]`: embeddings of boxes for detectors that ask.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ListenAddress, Stream};

/// Embeddings of boxes for detectors that ask. A run does not keep it: it belongs to the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BoxServer {
    /// A socket where detectors ask, written like `stream.socket`; empty: none.
    pub listen: String,
    /// Memory for recent frames (or their grids) that requests may name, megabytes.
    pub window_megabytes: f64,
    /// Longest time that a request waits for its frame, and each of its boxes for the encoder, seconds.
    pub wait_secs: f64,
    /// When all places are taken, a detector that has asked nothing for so long makes room for a new one, seconds.
    pub idle_secs: f64,
    /// A run whose newest head embeds boxes, such as one that learned from boxes; empty: the head that embeds frames.
    pub run: String,
}

impl Default for BoxServer {
    fn default() -> Self {
        Self { listen: String::new(), window_megabytes: 64.0, wait_secs: 1.0, idle_secs: 5.0, run: String::new() }
    }
}

impl BoxServer {
    /// The address of [`BoxServer::listen`]; `None` where there is to be none.
    ///
    /// # Errors
    /// The key, what it is and what it must be; or it is the address of `stream`.
    pub fn address(&self, stream: &Stream) -> Result<Option<ListenAddress>, String> {
        let address = Stream::parse("box_server.listen", &self.listen)?;
        // Port 0 is any that is free.
        let taken = !self.listen.is_empty() && self.listen == stream.socket && !self.listen.ends_with(":0");
        if taken {
            return Err(format!(
                "box_server.listen = {:?}: stream.socket has that address; give it one of its own",
                self.listen
            ));
        }
        Ok(address)
    }
}
