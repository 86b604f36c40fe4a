//! `[mqtt]`: which broker gets embeddings as they come.
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Payload;

/// `[mqtt]`: readers anywhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Mqtt {
    /// `mqtt://HOST[:1883]` or, with TLS, `mqtts://HOST[:8883]`; empty: none.
    pub broker: String,
    /// First part of the topics: `TOPIC/CAMERA/embedding` and `TOPIC/status`.
    pub topic: String,
    /// 0: at most once; 1: acknowledged, and sent again where it was not.
    pub qos: u32,
    /// `binary` (the layout of the local sockets) or `json`.
    pub payload: Payload,
    /// Name towards the broker; each connection needs its own. Empty: `afterimage-` and the name of the machine.
    pub client_id: String,
    /// User; empty: none.
    pub user: String,
    /// File that holds the password, so that it stands in no configuration, journal or list of processes.
    pub password_file: String,
    /// Certificates (PEM) that the broker's is checked with; empty: those of the system.
    pub ca_file: String,
    /// Own certificate (PEM), for brokers that ask for one; empty: none.
    pub certificate_file: String,
    /// Key of the own certificate (PEM).
    pub key_file: String,
    /// Seconds without traffic after which the connection is tried; the last will comes after one and a half of these.
    pub keep_alive_secs: u32,
    /// Memory for messages that wait for the broker; when full, the oldest go (counted).
    pub buffer_megabytes: u32,
    /// Detectors ask for embeddings of boxes at `TOPIC/CAMERA/boxes`, and are answered at `TOPIC/CAMERA/box`.
    pub boxes: bool,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            broker: String::new(),
            topic: "afterimage".into(),
            qos: 1,
            payload: Payload::Binary,
            client_id: String::new(),
            user: String::new(),
            password_file: String::new(),
            ca_file: String::new(),
            certificate_file: String::new(),
            key_file: String::new(),
            keep_alive_secs: 30,
            buffer_megabytes: 16,
            boxes: false,
        }
    }
}

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Over TLS.
    pub tls: bool,
}

impl FromStr for BrokerUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        // A text with a password in it is not repeated.
        if text.contains('@') {
            return Err("must not hold a user or password; use mqtt.user and mqtt.password_file".into());
        }
        let wrong = || format!("{text:?}: write mqtt://HOST[:PORT] or mqtts://HOST[:PORT]");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            _ => return Err(wrong()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // The colons of an IPv6 address stand in brackets.
        let at = rest.rfind(':').filter(|at| !rest[*at..].contains(']'));
        let (host, port) = match at {
            Some(at) => (&rest[..at], rest[at + 1..].parse().map_err(|_| wrong())?),
            None => (rest, if tls { 8883 } else { 1883 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains('/') {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port, tls })
    }
}

/// Every mistake in the table.
pub(super) fn check(mqtt: &Mqtt, problems: &mut Vec<String>) {
    if !mqtt.broker.is_empty()
        && let Err(why) = mqtt.broker.parse::<BrokerUrl>()
    {
        problems.push(format!("mqtt.broker: {why}"));
    }
    let topic = &mqtt.topic;
    if topic.is_empty() || topic.contains(['+', '#', '\0']) || topic.starts_with(['/', '$']) || topic.ends_with('/') {
        problems
            .push(format!("mqtt.topic = {topic:?}: must not be empty, hold + or #, begin with / or $ or end with /"));
    }
    if mqtt.certificate_file.is_empty() != mqtt.key_file.is_empty() {
        problems.push("mqtt.certificate_file and mqtt.key_file: give both or none".into());
    }
    if !mqtt.password_file.is_empty() && mqtt.user.is_empty() {
        problems.push("mqtt.password_file without mqtt.user: MQTT knows no password without a user".into());
    }
    let plain = mqtt.broker.parse::<BrokerUrl>().is_ok_and(|broker| !broker.tls);
    if plain && !(mqtt.ca_file.is_empty() && mqtt.certificate_file.is_empty()) {
        problems.push(format!("mqtt.broker = {:?} with certificates: they need mqtts://", mqtt.broker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_have_a_scheme_and_no_password() {
        let broker = |host: &str, port, tls| Ok(BrokerUrl { host: host.into(), port, tls });
        assert_eq!("mqtt://hub".parse(), broker("hub", 1883, false));
        assert_eq!("mqtts://hub/".parse(), broker("hub", 8883, true));
        assert_eq!("mqtts://hub:1".parse(), broker("hub", 1, true));
        assert_eq!("mqtt://[::1]:7".parse(), broker("::1", 7, false));
        assert_eq!("mqtt://[::1]".parse(), broker("::1", 1883, false));
        for text in ["hub", "http://hub", "mqtt://", "mqtt://hub:x", "mqtt://hub:70000", "mqtt://a/b"] {
            assert!(text.parse::<BrokerUrl>().is_err(), "{text}");
        }
        let secret = "mqtt://me:geheim@hub".parse::<BrokerUrl>().expect_err("refused");
        assert!(!secret.contains("geheim") && secret.contains("password_file"), "{secret}");
    }

    #[test]
    fn mistakes_are_told_all_at_once() {
        let mqtt = Mqtt {
            broker: "mqtt://hub".into(),
            topic: "a/#".into(),
            ca_file: "ca.pem".into(),
            key_file: "key.pem".into(),
            password_file: "p".into(),
            ..Mqtt::default()
        };
        let mut problems = Vec::new();
        check(&mqtt, &mut problems);
        assert_eq!(problems.len(), 4, "{problems:#?}");
        problems.clear();
        check(&Mqtt::default(), &mut problems);
        assert!(problems.is_empty());
    }
}
