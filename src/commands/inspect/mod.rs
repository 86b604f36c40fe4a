//! `inspect`: the history of a run from its journal, as text and as a plot.
mod plot;
mod timeline;

use std::io::Write;

use serde_json::{Value, json};

use super::Output;
use crate::cli;
use crate::error::{Error, Result};
use crate::files;
use crate::journal;
use crate::pipeline::run_dir::RunManifest;

pub(super) fn run(args: &cli::InspectArgs) -> Result<Output> {
    let run = args.run.as_path();
    let info = RunManifest::load(run)?;
    let mut events: Vec<Value> = Vec::new();
    let bad = journal::for_each(run, |event| events.push(event))?.bad;
    if events.is_empty() {
        return Err(Error::usage(format!(
            "run {} has no journal that can be read; `afterimage check --run {0}` says what is left of it",
            run.display()
        )));
    }
    let (mut text, mut json) = timeline::tell(&info, &events);
    if bad > 0 {
        text.push(format!("journal    {bad} lines cannot be read; they are left out"));
    }
    if let Some(object) = json.as_object_mut() {
        object.insert("run".into(), run.display().to_string().into());
        object.insert("bad_lines".into(), bad.into());
    }
    if let Some(path) = &args.plot {
        if path.extension().is_none_or(|end| end != "svg") {
            return Err(Error::usage(format!("--plot {}: the drawing is an SVG; name it OUT.svg", path.display())));
        }
        let svg = plot::draw(&run.display().to_string(), &events)?;
        files::replace(path, |out| out.write_all(svg.as_bytes()))?;
        text.push(format!("drawing    {}", path.display()));
        if let Some(object) = json.as_object_mut() {
            object.insert("plot".into(), json!(path.display().to_string()));
        }
    }
    Ok(Output { text: text.join("\n"), json, as_json: args.common.json })
}
