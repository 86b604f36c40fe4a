//! Fuzz targets for text by people and other programs: configuration, sources, boxes.
use super::requests::embedded;
use super::{file, text};
use afterimage_learn::config::ObjectiveSum;

use crate::config::{self, HeadSpec, loader, taps};
use crate::detection::mot::parse;
use crate::source::address::Address;
use crate::source::uri::Uri;

/// A configuration file and, after a NUL, the overrides, one per line.
pub(super) fn config(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let (toml, overrides) = text.split_once('\0').unwrap_or((&text, ""));
    let path = file("config.toml", toml.as_bytes());
    let overrides: Vec<String> = overrides.lines().map(str::to_owned).collect();
    let Ok(config) = loader::load(Some(&path), &overrides) else { return false };
    // A valid configuration must be usable; an address may still be invalid.
    let _ = (config.stream.address(), config.metrics.address());
    loader::over(&config, &overrides).is_ok()
}

/// A source's URI. Its password must not appear in the displayed form.
pub(super) fn uri(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let shown = Address::from(text.as_str()).shown();
    let Ok(uri) = Uri::parse(&text) else { return false };
    if let Uri::Rtsp(_) = &uri
        && let Some(password) = password(&text).filter(|password| password.len() > 5)
    {
        // The same letters may appear in the path, where nothing marks them as a secret.
        assert!(!shown.contains(&format!(":{password}@")), "the password of {text:?} survives as {shown:?}");
    }
    true
}

/// The text between `:` and the last `@` before the path, which is how FFmpeg splits it.
fn password(address: &str) -> Option<&str> {
    let (_, rest) = address.split_once("://")?;
    let authority = rest.find(['/', '?', '#']).map_or(rest, |end| &rest[..end]);
    authority.rsplit_once('@')?.0.split_once(':').map(|(_, password)| password)
}

pub(super) fn mot(bytes: &[u8]) -> bool {
    let Ok(boxes) = parse(&text(bytes), "the boxes") else { return false };
    boxes.iter().take(50).for_each(|found| embedded(found.rect));
    true
}

/// Single words of the configuration, and the camera's name in a topic.
pub(super) fn words(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    crate::export::sinks::mqtt::in_topic(&text);
    [
        text.parse::<config::BrokerUrl>().is_ok(),
        text.parse::<taps::FeatureTap>().is_ok(),
        HeadSpec::parse(&text).is_ok(),
        text.parse::<ObjectiveSum>().is_ok(),
        taps::parse(&lines).is_ok(),
    ]
    .contains(&true)
}
