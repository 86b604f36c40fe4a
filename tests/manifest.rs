//! Every dependency in a `Cargo.toml` has a comment on the line above it that says why it is needed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::Path;

use toml::{Table, Value};

/// Names of dependencies without a comment right above them.
fn without_reason(manifest: &str) -> Vec<String> {
    let names = dependencies(&manifest.parse::<Table>().unwrap());
    let lines: Vec<&str> = manifest.lines().map(str::trim).collect();
    let mut missing = Vec::new();
    for (kind, name) in names {
        let mut section = String::new();
        let declared = lines.iter().position(|line| {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']).into();
            }
            let key = line.split('=').next().unwrap_or_default().trim().trim_matches('"');
            let own_section = section.ends_with(&format!("{kind}.{name}")) && line.starts_with('[');
            own_section || (section.ends_with(&kind) && (key == name || key.starts_with(&format!("{name}."))))
        });
        let reason = declared.and_then(|n| n.checked_sub(1)).map(|n| lines[n].trim_start_matches('#').trim());
        let commented = declared.is_some_and(|n| n > 0 && lines[n - 1].starts_with('#'));
        if !commented || reason.is_none_or(str::is_empty) {
            missing.push(name);
        }
    }
    missing
}

/// Every dependency of the manifest with the table it stands in, also those of one platform (`[target...]`).
fn dependencies(table: &Table) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(entries) if key.ends_with("dependencies") => {
                out.extend(entries.keys().map(|name| (key.clone(), name.clone())));
            }
            Value::Table(platforms) if key == "target" => {
                out.extend(platforms.values().filter_map(Value::as_table).flat_map(dependencies));
            }
            _ => {}
        }
    }
    out
}

#[test]
fn every_dependency_says_why_it_is_there() {
    for file in ["Cargo.toml", "crates/afterimage-learn/Cargo.toml"] {
        let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(dependencies(&manifest.parse().unwrap()).len() > 5, "hardly any dependency was found in {file}");
        let missing = without_reason(&manifest);
        assert!(missing.is_empty(), "{file}: a comment line that says why belongs right above each of {missing:?}");
    }
}

#[test]
fn a_missing_reason_is_found() {
    let text = "[dependencies]\n# why\na = \"1\"\nb = \"1\"\n# why\n\nc = { version = \"1\" }\n#\nd = \"1\"\n\
                [dev-dependencies]\ne.version = \"1\"\n# why\n[dependencies.f]\nversion = \"1\"\n\
                [target.'cfg(unix)'.dependencies]\ng = \"1\"\n# why\nh = \"1\"\n";
    let mut missing = without_reason(text);
    missing.sort();
    assert_eq!(missing, ["b", "c", "d", "e", "g"]);
}
