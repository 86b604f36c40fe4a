//! From text to a checked [`Config`]; every mistake is reported, with its key, what was found and what is allowed.
use std::path::Path;

use afterimage_learn::config::{ObjectiveSum, check_candidates};
use strsim::levenshtein;
use toml::{Table, Value};

use super::schema::{ranges, words};
use super::size::{MAX_SIDE, MIN_SIDE, Size};
use super::{Config, mqtt, providers, taps};
use crate::error::{Error, Result};
use crate::files;

/// The one key whose value is a number or a list of two.
const INPUT_SIZE: &str = "encoder.input_size";
/// A list of heads.
const CANDIDATES: &str = "head.candidates";
/// A sum of objectives.
const OBJECTIVE: &str = "learn.objective.name";
/// A config file larger than this is not one.
const MAX_BYTES: u64 = 1 << 20;
/// Fewer samples do not tell noise from motion.
const LEAST_STILL_FRAMES: u64 = 16;

/// Reads `file` (where given), lays the `key=value` overrides over it, and checks the whole.
///
/// # Errors
/// [`crate::error::ErrorKind::Config`] with one line for each mistake.
pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Config> {
    let table = match file {
        Some(path) => read(path)?,
        None => Table::new(),
    };
    let place = file.map_or("--set".to_owned(), |p| p.display().to_string());
    checked(table, &place, overrides)
}

/// Lays the `key=value` overrides over `base` (the configuration of a run), and checks the whole.
///
/// # Errors
/// As [`load`].
pub fn over(base: &Config, overrides: &[String]) -> Result<Config> {
    let table = Table::try_from(base).map_err(|e| Error::config("the configuration of the run").with_source(e))?;
    checked(table, "the run's, and --set", overrides)
}

/// Names of the keys, `a.b.c`, whose values in `one` and `other` differ.
///
/// # Errors
/// A configuration cannot be written as TOML.
pub fn differing(one: &Config, other: &Config) -> Result<Vec<String>> {
    let table = |config| Table::try_from(config).map_err(|e| Error::config("the configuration").with_source(e));
    let mut keys = Vec::new();
    collect_differing("", &table(one)?, &table(other)?, &mut keys);
    Ok(keys)
}

fn collect_differing(prefix: &str, one: &Table, other: &Table, keys: &mut Vec<String>) {
    for (key, value) in one {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (value, other.get(key)) {
            (Value::Table(inner), Some(Value::Table(theirs))) => collect_differing(&path, inner, theirs, keys),
            (value, theirs) if theirs != Some(value) => keys.push(path),
            _ => {}
        }
    }
}

fn checked(mut table: Table, place: &str, overrides: &[String]) -> Result<Config> {
    let mut problems = Vec::new();
    for text in overrides {
        if let Err(problem) = lay_over(&mut table, text) {
            problems.push(problem);
        }
    }
    let schema = schema()?;
    let mut clean = Table::new();
    compare("", &table, &schema, &mut clean, &mut problems);
    check_taps(&clean, &mut problems);
    // A value that cannot be read has its default for the checks that follow: they go on.
    for key in check_values(&clean, &mut problems).into_iter().chain(check_texts(&clean, &mut problems)) {
        remove(&mut clean, key);
    }
    let config: Option<Config> = Value::Table(complete(clean, &schema)).try_into().ok();
    if let Some(config) = &config {
        check_together(config, &mut problems);
    }
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => {
            let count = problems.len();
            let noun = if count == 1 { "mistake" } else { "mistakes" };
            Err(Error::config(format!("{count} {noun} in the configuration ({place}):\n  {}", problems.join("\n  "))))
        }
    }
}

fn read(path: &Path) -> Result<Table> {
    let size = std::fs::metadata(path)
        .map_err(|e| Error::config(format!("cannot read the config file {}", path.display())).with_source(e))?
        .len();
    if size > MAX_BYTES {
        return Err(Error::config(format!("config file {} has {size} bytes; at most {MAX_BYTES}", path.display())));
    }
    let text = files::read_text(path)
        .map_err(|e| Error::config(format!("cannot read the config file {}", path.display())).with_source(e))?;
    text.parse::<Table>()
        .map_err(|e| Error::config(format!("config file {} is not TOML", path.display())).with_source(e))
}

/// The defaults as a table: they name every key and its type.
fn schema() -> Result<Table> {
    Table::try_from(Config::default()).map_err(|e| Error::config("the default configuration").with_source(e))
}

/// `a.b=value`, the value in TOML; a bare word is taken as text.
fn lay_over(table: &mut Table, text: &str) -> std::result::Result<(), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("--set {text}: write --set key=value"))?;
    let value = value.trim();
    let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    let parts: Vec<&str> = key.trim().split('.').collect();
    let Some((last, parents)) = parts.split_last() else { return Err(format!("--set {text}: no key")) };
    let mut at = table;
    for part in parents {
        let next = at.entry((*part).to_owned()).or_insert_with(|| Value::Table(Table::new()));
        at = next.as_table_mut().ok_or_else(|| format!("{key}: {part} is a value, not a table"))?;
    }
    at.insert((*last).to_owned(), value);
    Ok(())
}

/// Copies what has a known key and the right type into `clean`, and names the rest.
fn compare(prefix: &str, given: &Table, schema: &Table, clean: &mut Table, problems: &mut Vec<String>) {
    for (key, value) in given {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (schema.get(key), value) {
            (None, _) => problems.push(format!("{path}: unknown key{}", nearest(key, schema))),
            (Some(Value::Table(inner)), Value::Table(table)) => {
                let mut part = Table::new();
                compare(&path, table, inner, &mut part, problems);
                clean.insert(key.clone(), Value::Table(part));
            }
            (Some(Value::Float(_)), Value::Integer(i)) => {
                clean.insert(key.clone(), Value::Float(*i as f64));
            }
            // A text that may be a number (`preprocess.exposure`) may be written as one.
            (Some(Value::String(_)), Value::Float(_) | Value::Integer(_)) => {
                clean.insert(key.clone(), Value::String(value.to_string()));
            }
            (Some(_), Value::Array(list)) if path == INPUT_SIZE => match Size::of_list(list) {
                Some(size) if size.is_allowed() => {
                    clean.insert(key.clone(), value.clone());
                }
                _ => problems.push(format!(
                    "{path} = {value}: must be a number of pixels, or [height, width], each from {MIN_SIDE} to {MAX_SIDE}"
                )),
            },
            (Some(Value::Integer(_)), Value::Integer(i)) if *i < 0 => {
                problems.push(format!("{path} = {i}: must not be negative"));
            }
            (Some(Value::Array(_)), Value::Array(list)) if list.iter().any(|item| !item.is_str()) => {
                problems.push(format!("{path}: must be a list of texts, found {value}"));
            }
            (Some(want), got) if want.same_type(got) => {
                clean.insert(key.clone(), got.clone());
            }
            (Some(want), got) => {
                problems.push(format!("{path} = {got}: must be {}, found {}", want.type_str(), got.type_str()));
            }
        }
    }
}

fn complete(mut clean: Table, schema: &Table) -> Table {
    for (key, value) in schema {
        match (clean.get_mut(key), value) {
            (Some(Value::Table(part)), Value::Table(inner)) => *part = complete(std::mem::take(part), inner),
            (Some(_), _) => {}
            (None, _) => {
                clean.insert(key.clone(), value.clone());
            }
        }
    }
    clean
}

fn lookup<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    match key.split_once('.') {
        Some((part, rest)) => lookup(table.get(part)?.as_table()?, rest),
        None => table.get(key),
    }
}

fn remove(table: &mut Table, key: &str) {
    match key.split_once('.') {
        Some((part, rest)) => {
            table.get_mut(part).and_then(Value::as_table_mut).into_iter().for_each(|t| remove(t, rest))
        }
        None => drop(table.remove(key)),
    }
}

/// The ranges of numbers, and the words of choices; returns the choices that are none.
fn check_values(table: &Table, problems: &mut Vec<String>) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    for (key, least, most) in ranges() {
        let number = match lookup(table, key) {
            Some(Value::Float(f)) => *f,
            Some(Value::Integer(i)) => *i as f64,
            _ => continue,
        };
        // Written so that NaN fails.
        if !(number >= *least && number <= *most) {
            problems.push(format!("{key} = {number}: must be from {least} to {most}"));
        }
    }
    for (key, words) in words() {
        let texts: Vec<&Value> = match lookup(table, key) {
            Some(Value::Array(list)) if list.is_empty() => {
                problems.push(format!("{key} = []: name at least one of {}", words.join(", ")));
                wrong.push(*key);
                continue;
            }
            Some(Value::Array(list)) => list.iter().collect(),
            Some(value) => vec![value],
            None => continue,
        };
        for text in texts {
            if !text.as_str().is_some_and(|t| words.contains(&t)) {
                problems.push(format!("{key} has {text}: must be one of {}", words.join(", ")));
                wrong.push(*key);
            }
        }
    }
    wrong
}

/// `encoder.taps`: a list of texts, each a tap.
fn check_taps(table: &Table, problems: &mut Vec<String>) {
    let Some(Value::Array(list)) = lookup(table, "encoder.taps") else { return };
    let texts: Vec<String> = list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    if let Err(wrong) = taps::parse(&texts) {
        problems.extend(wrong.into_iter().map(|why| format!("encoder.taps has {why}")));
    }
}

/// Texts with a grammar of their own, objectives and candidate heads; returns the keys of those that cannot be read.
fn check_texts(table: &Table, problems: &mut Vec<String>) -> Vec<&'static str> {
    let mut unreadable = Vec::new();
    if let Some(text) = lookup(table, OBJECTIVE).and_then(Value::as_str)
        && let Err(wrong) = text.parse::<ObjectiveSum>()
    {
        problems.extend(wrong.into_iter().map(|why| format!("{OBJECTIVE} has {why}")));
        unreadable.push(OBJECTIVE);
    }
    if let Some(list) = lookup(table, CANDIDATES).and_then(Value::as_array) {
        let texts: Vec<String> = list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect();
        let before = problems.len();
        check_candidates(&texts, problems);
        unreadable.extend((problems.len() > before).then_some(CANDIDATES));
    }
    unreadable
}

fn check_together(config: &Config, problems: &mut Vec<String>) {
    if let Err(problem) = config.preprocess.level(None) {
        problems.push(problem);
    }
    problems.extend(config.metrics.address().err());
    problems.extend(config.stream.address().err());
    problems.extend(config.box_server.address(&config.stream).err());
    if config.mqtt.boxes && config.mqtt.broker.is_empty() {
        problems.push("mqtt.boxes = true: there is no mqtt.broker to hear requests from".into());
    }
    let asked = config.mqtt.boxes || !config.box_server.listen.is_empty();
    if asked && config.preprocess.motion_crop {
        problems.push(
            "preprocess.motion_crop with box_server.listen or mqtt.boxes: the window around what moves is no frame to find boxes in; \
             leave one out"
                .into(),
        );
    }
    problems.extend(config.stream.ring_problem());
    config.host.check(&config.export, problems);
    mqtt::check(&config.mqtt, problems);
    providers::check(&config.encoder, problems);
    if config.preprocess.motion_crop && !config.promotion.probe.is_empty() {
        problems.push(
            "preprocess.motion_crop with promotion.probe: labelled images are read before there is a background to crop them \
             by; leave one of the two out"
                .into(),
        );
    }
    let learn = &config.learn;
    if learn.cpc.first > learn.cpc.steps {
        let (first, last) = (learn.cpc.first, learn.cpc.steps);
        problems.push(format!("learn.cpc.first = {first}: must not be above learn.cpc.steps = {last}"));
    }
    if learn.sampling.gap_min_secs > learn.sampling.gap_max_secs {
        let (least, most) = (learn.sampling.gap_min_secs, learn.sampling.gap_max_secs);
        problems.push(format!(
            "learn.sampling.gap_min_secs = {least}: must not be above learn.sampling.gap_max_secs = {most}"
        ));
    }
    if (1..LEAST_STILL_FRAMES).contains(&learn.sampling.still_frames) {
        let frames = learn.sampling.still_frames;
        problems.push(format!(
            "learn.sampling.still_frames = {frames}: noise is not told from motion by so few; 0 (off) or at least {LEAST_STILL_FRAMES}"
        ));
    }
    problems.extend(super::objective::check(learn));
}

/// `; did you mean ...?` where a known key is near.
fn nearest(key: &str, schema: &Table) -> String {
    let inner = schema.iter().filter_map(|(name, value)| Some((name, value.as_table()?)));
    let inner = inner.flat_map(|(name, table)| table.keys().map(move |known| (known, format!("{name}.{known}"))));
    let own = schema.keys().map(|known| (known, known.clone()));
    match own.chain(inner).map(|(known, path)| (levenshtein(key, known), path)).min() {
        Some((d, known)) if d <= 3 => format!("; did you mean {known}?"),
        _ => format!("; known here: {}", schema.keys().cloned().collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
