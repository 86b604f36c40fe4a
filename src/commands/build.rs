//! `build`: opens an encoder on its providers ahead of time, so that slow compilation is done before a run starts.
use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::Output;
use super::common::LoadedEncoder;
use crate::cli;
use crate::config::loader::load;
use crate::encoder::cache_of;
use crate::error::Result;

pub(super) fn run(args: &cli::BuildArgs) -> Result<Output> {
    let config = load(args.common.config.as_deref(), &args.common.set)?;
    let began = Instant::now();
    let opened = LoadedEncoder::open(&args.encoder, &config)?;
    let (encoder, secs) = (&opened.encoder, began.elapsed().as_secs_f64());
    let folder = cache_of(encoder.provider(), &config.encoder);
    let kept = folder.as_deref().map(kept);
    let mut lines = vec![format!(
        "opened     {} on {} in {secs:.1} s, first inference {:.1} ms",
        args.encoder.display(),
        encoder.provider(),
        encoder.first_millis()
    )];
    lines.extend(encoder.fallback().map(|why| format!("fallback   {why}")));
    lines.extend(encoder.placement().map(|placement| format!("placement  {}", placement.describe())));
    lines.extend(encoder.parity().map(|parity| format!("parity     {}", parity.describe())));
    lines.push(match (&folder, kept) {
        (Some(folder), Some((files, bytes))) => {
            format!("kept       {files} files, {:.1} MB in {}", bytes as f64 / 1e6, folder.display())
        }
        _ => format!("kept       nothing: {} builds nothing that could be kept", encoder.provider()),
    });
    let json = json!({
        "encoder": args.encoder.display().to_string(),
        "provider": encoder.provider(),
        "fallback": encoder.fallback(),
        "parity": encoder.parity(),
        "placement": encoder.placement(),
        "secs": secs,
        "first_ms": encoder.first_millis(),
        "cache": folder.map(|folder| folder.display().to_string()),
        "files": kept.map(|(files, _)| files),
        "bytes": kept.map(|(_, bytes)| bytes),
    });
    Ok(Output { text: lines.join("\n"), json, as_json: args.common.json })
}

/// Number of files in `folder` and their bytes; zero if it does not exist.
fn kept(folder: &Path) -> (u64, u64) {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| file.metadata().ok()).filter(fs::Metadata::is_file).map(|about| about.len());
    sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn on_the_cpu_nothing_is_kept_and_it_is_said() {
        let encoder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny.onnx").into();
        let output = run(&cli::BuildArgs { encoder, common: cli::CommonArgs::default() }).unwrap();
        assert!(
            output.text.contains("tiny.onnx on cpu in ") && output.text.contains("placement  CPU "),
            "{}",
            output.text
        );
        assert!(output.text.ends_with("kept       nothing: cpu builds nothing that could be kept"), "{}", output.text);
        assert_eq!((&output.json["provider"], &output.json["files"]), (&json!("cpu"), &json!(null)));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.engine"), [0; 10]).unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        assert_eq!((kept(folder.path()), kept(&folder.path().join("none"))), ((1, 10), (0, 0)));
    }
}
