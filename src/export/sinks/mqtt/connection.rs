//! The thread of the connection: sends, remembers what is not acknowledged, comes back.
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

/// Between two attempts to connect: the first time, and at most.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A connection that held for so long was one: after it the pauses between attempts begin anew.
const PROVED: Duration = Duration::from_secs(5);
/// After a message too long to be read nobody is heard for so long, and twice as long each time.
const FIRST_DEAF: Duration = Duration::from_secs(60);
const LONGEST_DEAF: Duration = Duration::from_secs(3600);
/// Between two looks whether it is time to hear again.
const LISTEN: Duration = Duration::from_secs(10);
/// For the farewell.
const GOODBYE: Duration = Duration::from_millis(300);

/// The state that the parts of this thread share.
struct Sending<'a> {
    shared: &'a Shared,
    client: AsyncClient,
    status: Arc<str>,
    qos: QoS,
    hearing: Option<BoxRequestSubscriber>,
    /// Nobody is heard until then.
    deaf_until: Option<Instant>,
    deaf: Duration,
    connected: bool,
    /// We have said goodbye: what follows is no fault.
    leaving: bool,
    /// In the order they were sent, with the number of the packet once that is known; `None`: a word on our state.
    under_way: VecDeque<(Option<u16>, Option<Message>)>,
}

impl Sending<'_> {
    /// Hands over what waits, as much as may be under way at once.
    fn feed(&mut self) {
        while self.connected && self.under_way.len() < usize::from(INFLIGHT) {
            let Some(post) = self.shared.take() else { return };
            let sent = self.client.try_publish(&*post.topic, post.payload.clone(), PublishOptions::new(self.qos));
            self.under_way.push_back((None, Some(post)));
            if sent.is_err() {
                // Cannot be: the channel has room for all that may be under way. The break of connection sends it again.
                return;
            }
        }
    }

    /// Says how we are.
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
            // Without acknowledgements, sent is all that can be known; such packets have the number 0.
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

    /// Asks for the requests of detectors, unless it is not time yet.
    fn listen(&mut self) {
        let Some(hearing) = self.hearing.as_ref().filter(|_| self.connected) else { return };
        if self.deaf_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.deaf_until = None;
        // There is room: the channel is for more than may be under way.
        self.client.try_subscribe(hearing.filter(), QoS::AtLeastOnce).ok();
    }

    /// A message too long to be read broke the connection. The next goes without requests for a while: a message that the
    /// broker keeps would come again at once. Records go on.
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

    /// The connection broke: all that is not acknowledged waits again, in its order.
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

/// Until the run ends.
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

/// Polls the connection until the farewell; tells of each break once, and of each return. One that breaks at once, again and
/// again, is one break.
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

/// The length of a message that is longer than any that is read.
fn too_long(error: &ConnectionError) -> Option<usize> {
    match error {
        ConnectionError::MqttState(StateError::Deserialization(MqttError::PayloadSizeLimitExceeded(bytes))) => {
            Some(*bytes)
        }
        _ => None,
    }
}

/// What to tell a user.
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
