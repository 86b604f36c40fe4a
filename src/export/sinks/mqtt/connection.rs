//! The connection thread: sends messages, keeps those not yet acknowledged, and reconnects.
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, Incoming, MqttOptions, Outgoing, PublishOptions,
    QoS, StateError,
};

use rumqttc::mqttbytes::Error as MqttError;

use super::box_requests::BoxRequestSubscriber;
use super::options::INFLIGHT;
use super::{LAST_WORDS, Message, Shared};

/// Initial and maximum pause between two attempts to connect.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A connection that lasts this long counts as stable and resets the pause between attempts.
const PROVED: Duration = Duration::from_secs(5);
/// After a message too long to read, requests are ignored for this long. The period doubles each time.
const FIRST_DEAF: Duration = Duration::from_secs(60);
const LONGEST_DEAF: Duration = Duration::from_secs(3600);
/// How often to check whether to subscribe again.
const LISTEN: Duration = Duration::from_secs(10);
/// Time limit for the farewell message.
const GOODBYE: Duration = Duration::from_millis(300);

/// State shared by the tasks of this thread.
struct Sending<'a> {
    shared: &'a Shared,
    client: AsyncClient,
    status: Arc<str>,
    qos: QoS,
    hearing: Option<BoxRequestSubscriber>,
    /// Requests are ignored until then.
    deaf_until: Option<Instant>,
    deaf: Duration,
    connected: bool,
    /// The farewell is sent: a connection error is expected from now on.
    leaving: bool,
    /// Messages in the order they were sent, with the packet number once it is known. `None` instead of a message: a
    /// status message.
    under_way: VecDeque<(Option<u16>, Option<Message>)>,
}

impl Sending<'_> {
    /// Sends waiting messages, up to the limit in flight.
    fn feed(&mut self) {
        while self.connected && self.under_way.len() < usize::from(INFLIGHT) {
            let Some(post) = self.shared.take() else { return };
            let sent = self.client.try_publish(&*post.topic, post.payload.clone(), PublishOptions::new(self.qos));
            self.under_way.push_back((None, Some(post)));
            if sent.is_err() {
                // This cannot happen: the channel has room for everything in flight. A lost connection would send the
                // message again.
                return;
            }
        }
    }

    /// Publishes our status.
    fn announce(&mut self, state: &str) {
        if self.client.try_publish(&*self.status, state, PublishOptions::at_least_once().retained()).is_ok() {
            self.under_way.push_back((None, None));
        }
    }

    fn happened(&mut self, event: &Event) {
        match event {
            Event::Incoming(Incoming::ConnAck(_)) => {
                self.connected = true;
                self.shared.connections.fetch_add(1, Ordering::Relaxed);
                self.announce("online");
                self.listen();
            }
            Event::Incoming(Incoming::Publish(heard)) => {
                if let Some(hearing) = &self.hearing {
                    hearing.heard(heard);
                }
            }
            Event::Incoming(Incoming::PubAck(ack)) => self.arrived(ack.pkid),
            // Without acknowledgements, a sent message counts as delivered. Such packets have the number 0.
            Event::Outgoing(Outgoing::Publish(0)) => {
                if let Some(at) = self.under_way.iter().position(|(_, post)| post.is_some()) {
                    self.under_way.remove(at);
                    self.shared.delivered();
                }
            }
            Event::Outgoing(Outgoing::Publish(number)) => {
                let acknowledged = |post: &Option<Message>| post.is_none() || self.qos != QoS::AtMostOnce;
                if let Some(next) = self.under_way.iter_mut().find(|(n, post)| n.is_none() && acknowledged(post)) {
                    next.0 = Some(*number);
                }
            }
            _ => {}
        }
        self.feed();
    }

    /// Subscribes to box requests, unless they are to be ignored for now.
    fn listen(&mut self) {
        let Some(hearing) = self.hearing.as_ref().filter(|_| self.connected) else { return };
        if self.deaf_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.deaf_until = None;
        // There is room: the channel holds more than the limit in flight.
        self.client.try_subscribe(hearing.filter(), QoS::AtLeastOnce).ok();
    }

    /// A message too long to read broke the connection. The next connection does without requests for a while, because
    /// a message retained by the broker would arrive again at once. Records are still sent.
    fn stop_listening(&mut self, bytes: usize) {
        let Some(hearing) = &self.hearing else { return };
        hearing.ignore(&format!(
            "{bytes} bytes, too long to be read; no requests are heard for {} s",
            self.deaf.as_secs()
        ));
        self.deaf_until = Some(Instant::now() + self.deaf);
        self.deaf = (self.deaf * 2).min(LONGEST_DEAF);
    }

    fn arrived(&mut self, number: u16) {
        if let Some(at) = self.under_way.iter().position(|(n, _)| *n == Some(number))
            && let Some((_, Some(_))) = self.under_way.remove(at)
        {
            self.shared.delivered();
        }
    }

    /// Handles a lost connection: every unacknowledged message goes back to the queue, in order.
    fn broke(&mut self, events: &mut EventLoop) {
        self.connected = false;
        events.clean();
        events.reset_session_state();
        self.shared.put_back(std::mem::take(&mut self.under_way).into_iter().filter_map(|(_, post)| post));
    }

    fn done(&self) -> bool {
        self.under_way.is_empty() && self.shared.queue().posts.is_empty()
    }
}

/// Runs the connection until the run ends.
pub(super) async fn drive(
    shared: &Shared,
    options: MqttOptions,
    status: Arc<str>,
    qos: QoS,
    hearing: Option<BoxRequestSubscriber>,
) {
    let broker = options.broker().tcp_address().map_or_else(String::new, |(host, port)| format!("{host}:{port}"));
    let (client, mut events) = AsyncClient::builder(options).capacity(usize::from(INFLIGHT) + 4).build();
    let under_way = VecDeque::new();
    let sending = RefCell::new(Sending {
        shared,
        client,
        status,
        qos,
        hearing,
        deaf_until: None,
        deaf: FIRST_DEAF,
        connected: false,
        leaving: false,
        under_way,
    });
    let listening = async {
        loop {
            tokio::time::sleep(LISTEN).await;
            let mut sending = sending.borrow_mut();
            if sending.deaf_until.is_some() {
                sending.listen();
            }
        }
    };
    let feeding = async {
        loop {
            shared.wake.notified().await;
            sending.borrow_mut().feed();
        }
    };
    let stopping = async {
        shared.stop.notified().await;
        let until = Instant::now() + LAST_WORDS;
        while sending.borrow().connected && !sending.borrow().done() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if sending.borrow().connected {
            sending.borrow_mut().announce("offline");
            sending.borrow_mut().leaving = true;
            sending.borrow().client.try_disconnect().ok();
            let until = Instant::now() + GOODBYE;
            while sending.borrow().connected && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    tokio::select! {
        () = talking(&mut events, &sending, &broker) => {}
        () = feeding => {}
        () = listening => {}
        () = stopping => {}
    }
    let mut sending = sending.borrow_mut();
    sending.broke(&mut events);
}

/// Polls the connection until the farewell. Logs each loss and each recovery once; a connection that fails again and
/// again within seconds counts as one loss.
async fn talking(events: &mut EventLoop, sending: &RefCell<Sending<'_>>, broker: &str) {
    let (mut wait, mut away, mut since) = (FIRST_WAIT, None::<Instant>, None::<Instant>);
    let mut flapping = false;
    loop {
        match events.poll().await {
            Ok(event) => {
                let proved = since.is_some_and(|since| since.elapsed() >= PROVED);
                if matches!(event, Event::Incoming(Incoming::ConnAck(_))) {
                    let after = away.map_or(String::new(), |since: Instant| {
                        format!(" after {:.1} s", since.elapsed().as_secs_f64())
                    });
                    if !flapping {
                        tracing::info!("connected to the MQTT broker {broker}{after}");
                    }
                    since = Some(Instant::now());
                } else if proved {
                    if flapping {
                        tracing::info!("the connection to the MQTT broker {broker} holds");
                    }
                    (wait, away, flapping) = (FIRST_WAIT, None, false);
                }
                sending.borrow_mut().happened(&event);
                if matches!(event, Event::Outgoing(Outgoing::Disconnect)) {
                    sending.borrow_mut().connected = false;
                }
            }
            Err(error) => {
                sending.borrow_mut().broke(events);
                if sending.borrow().leaving {
                    return;
                }
                if let Some(since) = since.take() {
                    flapping = since.elapsed() < PROVED;
                    if !flapping {
                        (wait, away) = (FIRST_WAIT, None);
                    }
                }
                if let Some(bytes) = too_long(&error) {
                    sending.borrow_mut().stop_listening(bytes);
                }
                if away.is_none() {
                    away = Some(Instant::now());
                    tracing::warn!("{}; embeddings wait for it meanwhile", reason(&error, broker));
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

/// The length of a message that was too long to read.
fn too_long(error: &ConnectionError) -> Option<usize> {
    match error {
        ConnectionError::MqttState(StateError::Deserialization(MqttError::PayloadSizeLimitExceeded(bytes))) => {
            Some(*bytes)
        }
        _ => None,
    }
}

/// The error as a message for the user.
fn reason(error: &ConnectionError, broker: &str) -> String {
    match error {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => {
            format!("the MQTT broker {broker} refuses the user or password; see mqtt.user and mqtt.password_file")
        }
        ConnectionError::Tls(error) => format!(
            "no secure connection to the MQTT broker {broker}: {error}; see mqtt.ca_file, and that the broker's \
             certificate names this host"
        ),
        other => format!("no connection to the MQTT broker {broker}: {other}"),
    }
}
