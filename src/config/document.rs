//! The configuration for people and editors: its JSON Schema, and a file of every key with its default. Both are made of
//! the types and their comments.
use schemars::schema_for;
use serde_json::Value;

use super::Config;
use super::schema::ranges;
use crate::error::{Error, Result};

/// Longest line of a comment.
const WIDTH: usize = 110;

/// The JSON Schema of the configuration, with the range of every number; choices know their words.
pub fn json_schema() -> Value {
    let mut schema = schema_for!(Config).to_value();
    for (key, least, most) in ranges() {
        let bounds = [("minimum", *least), ("maximum", *most)];
        if let Some(node) = property(&mut schema, key).and_then(Value::as_object_mut) {
            node.extend(bounds.map(|(name, bound)| (name.to_owned(), bound.into())));
        }
    }
    schema
}

/// The node of `key` (`a.b.c`) in a schema; references to `$defs` are followed.
fn property<'s>(schema: &'s mut Value, key: &str) -> Option<&'s mut Value> {
    let mut pointer = String::new();
    for part in key.split('.') {
        if let Some(name) = schema.pointer(&format!("{pointer}/$ref")).and_then(Value::as_str) {
            pointer = name.trim_start_matches('#').to_owned();
        }
        pointer = format!("{pointer}/properties/{part}");
    }
    schema.pointer_mut(&pointer)
}

/// Every key with its default, each below what it means.
///
/// # Errors
/// The defaults cannot be written as TOML.
pub fn default_toml() -> Result<String> {
    let text =
        toml::to_string(&Config::default()).map_err(|e| Error::config("the default configuration").with_source(e))?;
    let mut schema = json_schema();
    let mut out =
        "#:schema ./schema.json\n# Every key with its default. Copy what you change; a configuration needs only \
                   that.\n# `afterimage check --config FILE` names every mistake in one.\n"
            .to_owned();
    let mut table = String::new();
    for line in text.lines() {
        let header = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|_| !line.contains('='));
        let key = match header {
            Some(name) => {
                name.clone_into(&mut table);
                Some(name.to_owned())
            }
            None => line.split_once(" = ").map(|(key, _)| format!("{table}.{key}")),
        };
        if header.is_none() && line.is_empty() {
            continue;
        }
        if header.is_some() {
            out.push('\n');
        }
        if let Some(about) = key.and_then(|key| description(&mut schema, &key)) {
            comment(&about, &mut out);
        }
        out.push_str(line);
        out.push('\n');
    }
    Ok(out)
}

fn description(schema: &mut Value, key: &str) -> Option<String> {
    property(schema, key)?.get("description")?.as_str().map(|text| text.replace('`', "").replace('\n', " "))
}

/// `text` in lines that begin with `# `.
fn comment(text: &str, out: &mut String) {
    let mut line = "#".to_owned();
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            "#".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What is committed must be what the types say; `UPDATE_GENERATED=1` writes it.
    fn committed(file: &str, text: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&path, text).expect("writes");
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == text,
            "{file} is out of date; write it anew with UPDATE_GENERATED=1 cargo test --lib config::document"
        );
    }

    #[test]
    fn the_schema_is_that_of_the_types() {
        let schema = json_schema();
        assert_eq!(schema["properties"]["learn"]["$ref"], "#/$defs/Training");
        let mut schema = schema;
        assert_eq!(property(&mut schema, "learn.cpu_share").expect("a key")["maximum"], 1.0);
        let format = property(&mut schema, "export.format").expect("a key");
        assert_eq!((&format["$ref"], &format["default"]), (&"#/$defs/Format".into(), &"npy".into()));
        assert_eq!(schema["$defs"]["Format"]["oneOf"][1]["const"], "parquet");
        let kinds = property(&mut schema, "learn.augmentation.kinds").expect("a key");
        assert_eq!(kinds["items"]["$ref"], "#/$defs/AugmentationKind");
        committed("configs/schema.json", &format!("{:#}\n", json_schema()));
    }

    #[test]
    fn the_commented_defaults_are_those_of_the_types() {
        let text = default_toml().expect("defaults");
        assert!(text.contains("\n[learn.sampling]\n") && text.contains("\ngap = \"range\"\n"), "{text}");
        committed("configs/default.toml", &text);
    }
}
