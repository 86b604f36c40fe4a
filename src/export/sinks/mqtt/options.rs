//! Translates the configuration into options of the MQTT client library.
use std::path::Path;

use rumqttc::{LastWill, MqttOptions, QoS, Transport};

use crate::config::{BrokerUrl, Mqtt};
use crate::error::{Error, Result};
use crate::files;

/// Limit on messages in flight, sent but not yet acknowledged.
pub(super) const INFLIGHT: u16 = 100;
/// Maximum size of a password or certificate file.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Maximum size of a sent message.
const MAX_PACKET_BYTES: usize = 64 << 20;
/// Maximum size of a received message when box requests are accepted. A message longer than a request is ignored; one
/// longer than this breaks the connection.
const MAX_HEARD_BYTES: usize = 8 << 20;
const OFFLINE: &str = "offline";

/// All options of the connection; `None` if no broker is configured.
pub(super) fn options(config: &Mqtt) -> Result<Option<MqttOptions>> {
    if config.broker.is_empty() {
        return Ok(None);
    }
    let broker: BrokerUrl = config.broker.parse().map_err(|why| Error::config(format!("mqtt.broker: {why}")))?;
    let mut options = MqttOptions::new(client_id(&config.client_id), (broker.host, broker.port));
    // The configuration's limits are far below this.
    options.set_keep_alive(u16::try_from(config.keep_alive_secs).unwrap_or(u16::MAX));
    options.set_inflight(INFLIGHT);
    options.set_max_packet_size(if config.boxes { MAX_HEARD_BYTES } else { 1 << 16 }, MAX_PACKET_BYTES);
    // Unacknowledged messages are kept here, so the broker need not remember the session.
    options.set_clean_session(true);
    options.set_last_will(LastWill::new(status_topic(&config.topic), OFFLINE, QoS::AtLeastOnce, true));
    if !config.user.is_empty() {
        if !broker.tls {
            tracing::warn!(
                "mqtt.broker = {:?}: mqtt.user and its password go to the broker as plain text, for everybody on the way to \
                 read; use mqtts://",
                config.broker
            );
        }
        options.set_credentials(config.user.as_str(), password(&config.password_file)?);
    }
    if broker.tls {
        options.set_transport(tls(config)?);
    }
    Ok(Some(options))
}

/// `TOPIC/status`
pub(super) fn status_topic(topic: &str) -> String {
    format!("{topic}/status")
}

/// `TOPIC/CAMERA/what`
pub(super) fn topic(topic: &str, camera: &str, what: &str) -> String {
    format!("{topic}/{}/{what}", in_topic(camera))
}

/// The camera's name as a topic level: characters with a meaning in topics become `_`.
pub fn in_topic(camera: &str) -> String {
    camera.chars().map(|c| if matches!(c, '/' | '+' | '#' | '\0') { '_' } else { c }).collect()
}

/// 0 or 1; the configuration has been validated.
pub(super) fn qos(number: u32) -> QoS {
    if number == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce }
}

/// Two connections with the same client ID disconnect each other, so the default ID includes the process number.
fn client_id(wanted: &str) -> String {
    if !wanted.is_empty() {
        return wanted.to_owned();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("afterimage-{}-{}", host.trim(), std::process::id())
}

fn password(file: &str) -> Result<String> {
    if file.is_empty() {
        return Ok(String::new());
    }
    let text = read("mqtt.password_file", file)?;
    let text = String::from_utf8(text)
        .map_err(|_| Error::config(format!("mqtt.password_file = {file:?}: the password must be UTF-8")))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn tls(config: &Mqtt) -> Result<Transport> {
    // Fails only if a provider is already installed: ours, for an earlier broker.
    rustls::crypto::ring::default_provider().install_default().ok();
    let own = if config.certificate_file.is_empty() {
        None
    } else {
        let certificate = pem("mqtt.certificate_file", &config.certificate_file, "CERTIFICATE-----")?;
        Some((certificate, pem("mqtt.key_file", &config.key_file, "PRIVATE KEY-----")?))
    };
    if !config.ca_file.is_empty() {
        return Ok(Transport::tls(pem("mqtt.ca_file", &config.ca_file, "CERTIFICATE-----")?, own, None));
    }
    let mut all = Vec::new();
    for path in SYSTEM_CERTIFICATES.iter().map(Path::new).filter(|path| path.is_file()) {
        all = files::read_bounded(path, MAX_FILE_BYTES)?;
    }
    if all.is_empty() {
        return Err(Error::config(format!(
            "mqtt.ca_file is empty and this system has no certificates of its own (looked for {}); install \
             ca-certificates or name a file",
            SYSTEM_CERTIFICATES.join(", ")
        )));
    }
    Ok(Transport::tls(all, own, None))
}

/// On Debian and its derivatives; on Red Hat and its derivatives.
const SYSTEM_CERTIFICATES: [&str; 2] = ["/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt"];

fn pem(key: &str, file: &str, mark: &str) -> Result<Vec<u8>> {
    let text = read(key, file)?;
    if !text.windows(mark.len()).any(|part| part == mark.as_bytes()) {
        return Err(Error::config(format!("{key} = {file:?}: no PEM file with \"{mark}\" in it")));
    }
    Ok(text)
}

fn read(key: &str, file: &str) -> Result<Vec<u8>> {
    files::read_bounded(Path::new(file), MAX_FILE_BYTES)
        .map_err(|error| Error::config(format!("{key} = {file:?} cannot be read")).with_source(error))
}

#[cfg(test)]
mod tests {
    use rumqttc::ConnectAuth;

    use super::*;

    #[test]
    fn cameras_cannot_leave_their_part_of_the_topic() {
        assert_eq!(topic("site", "gate", "embedding"), "site/gate/embedding");
        assert_eq!(topic("site", "a/+#b", "box"), "site/a___b/box");
    }

    #[test]
    fn files_that_do_not_help_are_named_with_their_key() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("x");
        std::fs::write(&path, "nothing").expect("written");
        let file = path.display().to_string();
        let base = Mqtt { broker: "mqtts://hub".into(), user: "me".into(), ..Mqtt::default() };
        let none = "/nowhere/at/all".to_owned();
        for (config, says) in [
            (Mqtt { password_file: none.clone(), ..base.clone() }, "mqtt.password_file"),
            (Mqtt { ca_file: none, ..base.clone() }, "mqtt.ca_file"),
            (Mqtt { ca_file: file.clone(), ..base.clone() }, "no PEM file"),
            (Mqtt { certificate_file: file.clone(), key_file: file, ..base.clone() }, "mqtt.certificate_file"),
        ] {
            let error = options(&config).expect_err("refused");
            assert!(error.chain().contains(says), "{}", error.chain());
        }
        assert!(options(&Mqtt::default()).expect("nothing to do").is_none());
        std::fs::write(&path, "geheim\n").expect("written");
        let config = Mqtt { broker: "mqtt://hub".into(), password_file: path.display().to_string(), ..base };
        let options = options(&config).expect("taken").expect("a broker");
        let login = ConnectAuth::UsernamePassword { username: "me".into(), password: "geheim".into() };
        assert_eq!(options.auth(), &login);
    }
}
