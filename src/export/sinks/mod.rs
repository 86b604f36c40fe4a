//! The live sinks, which send records as they arrive: the local socket, a ring in shared memory, and an MQTT broker.
//!
//! No sink ever blocks. A message that a reader cannot take is lost to that reader, which sees a gap in the sequence
//! numbers.
pub mod mqtt;
pub mod shm_ring;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;

use super::box_api::BoxRequest;
use super::socket::{self, SocketPublisher, wire};
use crate::config::Config;
use crate::error::Result;
use crate::export::Record;
use crate::shutdown;

/// The configured sinks.
#[derive(Debug)]
pub struct LiveSinks {
    socket: Option<SocketPublisher>,
    ring: Option<shm_ring::RingWriter>,
    mqtt: Option<mqtt::Publisher>,
    seq: u64,
}

/// Counters of each open sink; `None` for a sink that is not open.
#[derive(Debug, Clone, Default)]
pub struct SinkStats {
    /// Counters of the local socket.
    pub socket: Option<Arc<socket::SocketCounts>>,
    /// Counters of the ring in shared memory.
    pub ring: Option<Arc<shm_ring::RingCounts>>,
    /// Counters of the MQTT publisher.
    pub mqtt: Option<mqtt::MqttStats>,
}

impl LiveSinks {
    /// Opens the sinks named in `[stream]` and `[mqtt]`; `None` if they name none. The broker need not be reachable
    /// yet. Box requests through the broker (`mqtt.boxes`) go to `asked`.
    /// # Errors
    /// An address is in use, there is no room for the ring, or a password or certificate cannot be read.
    pub fn open(config: &Config, asked: Option<Sender<BoxRequest>>) -> Result<Option<Self>> {
        let (live, socket) = (&config.stream, SocketPublisher::open(&config.stream)?);
        let slot_bytes = live.ring_slot_kilobytes * 1024;
        let ring = (!live.ring.is_empty())
            .then(|| shm_ring::RingWriter::create(Path::new(&live.ring), slot_bytes, live.ring_slots))
            .transpose()?;
        let mqtt = mqtt::Publisher::open(&config.mqtt, asked)?;
        let any = socket.is_some() || ring.is_some() || mqtt.is_some();
        Ok(any.then_some(Self { socket, ring, mqtt, seq: 0 }))
    }

    /// A handle that reads the counters from another thread.
    pub fn stats(&self) -> SinkStats {
        SinkStats {
            socket: self.socket.as_ref().map(|socket| socket.counts().clone()),
            ring: self.ring.as_ref().map(|ring| ring.counts().clone()),
            mqtt: self.mqtt.as_ref().map(mqtt::Publisher::watch),
        }
    }

    /// Sends one record with its embedding to all sinks. Never blocks.
    /// # Errors
    /// The record cannot be written as JSON.
    pub fn publish(&mut self, record: &Record, embedding: &[f32]) -> Result<()> {
        let seq = self.seq;
        self.seq += 1;
        let socket = self.socket.as_ref().filter(|socket| socket.has_subscribers());
        if socket.is_none() && self.ring.is_none() && self.mqtt.is_none() {
            return Ok(());
        }
        let message: Arc<[u8]> = wire::write(record, seq, embedding)?.into();
        let body = &message[wire::LENGTH_BYTES..];
        if let Some(socket) = socket {
            socket.publish(&message);
        }
        if let Some(ring) = &mut self.ring {
            ring.push(body);
        }
        if let Some(mqtt) = &self.mqtt {
            mqtt.push(seq, record, embedding, body)?;
        }
        Ok(())
    }

    /// Messages too long for the ring, and the counters of the MQTT publisher.
    pub fn counts(&self) -> (u64, Option<mqtt::MqttCounts>) {
        (self.ring.as_ref().map_or(0, shm_ring::RingWriter::too_long), self.mqtt.as_ref().map(mqtt::Publisher::counts))
    }
}

impl Drop for LiveSinks {
    /// Logs the losses. Each sink ends in its own `Drop`, all within the same second.
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            socket.request_stop(Instant::now() + shutdown::LAST_WORDS);
        }
        if let Some(counts) = self.mqtt.take().map(mqtt::Publisher::finish) {
            let mqtt::MqttCounts { delivered, lost, waiting, connections, ignored } = counts;
            let other = if ignored > 0 {
                format!("; {ignored} messages at the topics of requests ignored")
            } else {
                String::new()
            };
            let told = format!("MQTT: {delivered} records delivered over {connections} connections{other}");
            if lost + waiting > 0 {
                tracing::warn!("{told}; {lost} lost to make room, {waiting} never acknowledged");
            } else {
                tracing::info!("{told}");
            }
        }
    }
}
