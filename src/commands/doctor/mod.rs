//! `doctor`: what is installed, what works, and how to fix what does not.
mod power;
mod disk;
mod host;
mod tools;

use std::path::Path;

use super::CommandResult;
use super::diagnostics::Diagnostics;
use super::encoder_check;
use crate::cli;
use crate::config::Config;
use crate::config::loader::load;
use crate::encoder::runtime::{self, LibraryLookup, LibrarySource, Runtime};
use crate::encoder::{cache_of, compiled, missing_libraries};
use crate::error::Result;

/// With less free disk space than this, in bytes, a run of some hours may fill the disk.
const LEAST_ROOM: u64 = 1_000_000_000;

pub(super) fn run(args: &cli::DoctorArgs) -> Result<CommandResult> {
    let config = load(args.common.config.as_deref(), &args.common.set)?;
    let model = args.encoder.as_deref();
    let mut all = Diagnostics::default();
    host::program(&mut all);
    host::processor(&mut all);
    host::memory(&mut all);
    power::jetson(&mut all, Path::new("/"));
    if let Some(runtime) = onnxruntime(&mut all, &config) {
        providers(&mut all, &runtime, &config, model);
        if let Some(model) = model {
            encoder_check::encoder(&mut all, model, &config);
        }
    }
    tools::decoders(&mut all, &config.source, &std::env::var_os("PATH").unwrap_or_default());
    host::cameras(&mut all, &config.source);
    cache(&mut all, &config);
    match std::env::current_dir() {
        Ok(folder) => room(&mut all, "current folder", &folder, "name an --out elsewhere"),
        Err(error) => all.warn("current folder", error.to_string(), "change to a folder that is there"),
    }
    Ok(all.done(args.common.json, Some(3)))
}

/// Reports every location searched for ONNX Runtime, and the one in use.
fn onnxruntime(all: &mut Diagnostics, config: &Config) -> Option<Runtime> {
    let loaded = runtime::load(&config.encoder.onnxruntime);
    let used = loaded.as_ref().ok().map(|runtime| runtime.path.as_path());
    for candidate in runtime::find(&config.encoder.onnxruntime) {
        let what = format!("looked for ONNX Runtime, {}", candidate.origin);
        let path = candidate.path.display();
        match candidate.found {
            LibraryLookup::Library if used.is_some() && candidate.path.canonicalize().ok().as_deref() == used => {
                all.ok(what, format!("{path}, used"));
            }
            LibraryLookup::Library => all.ok(what, format!("{path}, a library for this machine, not used")),
            LibraryLookup::Missing => all.ok(what, format!("{path}, not there")),
            LibraryLookup::Unusable(why) => all.warn(what, format!("{path} {why}"), "remove it, or name another"),
        }
    }
    match loaded {
        Ok(runtime) => {
            all.ok("ONNX Runtime", format!("{} from {}", runtime.version, runtime.path.display()));
            Some(runtime)
        }
        Err(error) => {
            all.error("ONNX Runtime", &error);
            None
        }
    }
}

/// Reports the providers compiled into the library, and whether each one works.
fn providers(all: &mut Diagnostics, runtime: &Runtime, config: &Config, model: Option<&Path>) {
    let compiled = match compiled(runtime) {
        Ok(list) => list,
        Err(error) => return all.error("providers", &error),
    };
    let gpu = host::gpu();
    let has_gpu_provider = compiled.iter().any(|(name, there)| *there && *name != "cpu");
    for (name, there) in compiled {
        let what = format!("provider {name}");
        let asked = config.encoder.providers.iter().any(|asked| asked.as_str() == name);
        let required =
            !config.encoder.fallback && config.encoder.providers.first().is_some_and(|first| first.as_str() == name);
        let tried = match (there, model) {
            (true, Some(model)) if name != "cpu" => encoder_check::provider(model, name, config).map_err(|e| e.chain()),
            (true, _) if name == "cpu" => Ok("in this build".to_owned()),
            (true, _) => match missing_libraries(&runtime.path, name) {
                missing if missing.is_empty() => {
                    Ok("in this build, and its libraries are there; name an --encoder to try it".to_owned())
                }
                missing => Err(format!("in this build, but these libraries cannot be loaded: {}", missing.join(", "))),
            },
            (false, _) => Err("not in this build of ONNX Runtime".to_owned()),
        };
        match tried {
            Ok(found) => all.ok(what, found),
            Err(why) if required => all.fail(
                what,
                format!("{why}; encoder.providers asks for it first"),
                format!(
                    "install what is missing, name a build with {name} in encoder.onnxruntime, or take it out of \
                     encoder.providers"
                ),
            ),
            Err(why) if asked => all.warn(what, why, "the next of encoder.providers is used"),
            Err(why) if there => all.ok(what, format!("{why}; not asked for")),
            Err(why) => all.ok(what, format!("{why}; asking for it is an error unless encoder.fallback = true")),
        }
    }
    match gpu {
        Some(mark) if !has_gpu_provider => all.warn(
            "GPU",
            format!("NVIDIA ({mark}), but this build of ONNX Runtime cannot use it"),
            "name a GPU build in encoder.onnxruntime and set encoder.providers = [\"tensorrt\", \"cuda\", \"cpu\"]",
        ),
        Some(mark) => all.ok("GPU", format!("NVIDIA ({mark})")),
        None => all.ok("GPU", "none found; the CPU does the work"),
    }
    for name in config.encoder.providers.iter().map(|provider| provider.as_str()) {
        if let Some(folder) = cache_of(name, &config.encoder) {
            room(all, &format!("cache of {name}"), &folder, "name another cache_folder in the options of the provider");
        }
    }
}

/// Checks the folder that `tools/fetch_onnxruntime.sh` fills.
fn cache(all: &mut Diagnostics, config: &Config) {
    let places = runtime::find(&config.encoder.onnxruntime);
    let cached = places.iter().find(|candidate| candidate.origin == LibrarySource::Cache);
    match cached.and_then(|candidate| candidate.path.parent()) {
        Some(folder) => room(all, "cache folder", folder, "set XDG_CACHE_HOME to a folder that can be written"),
        None => all.warn("cache folder", "none: neither XDG_CACHE_HOME nor HOME is set", "set one of them"),
    }
}

/// Checks whether `folder` (or its nearest existing parent) is writable, and reports its free space.
fn room(all: &mut Diagnostics, what: &str, folder: &Path, todo: &str) {
    let Some(there) = folder.ancestors().find(|path| path.is_dir()) else {
        return all.warn(what, format!("{} is not there", folder.display()), todo);
    };
    let yet = if there == folder { "" } else { " (not there yet)" };
    let found = format!("{}{yet}", folder.display());
    match disk::writable(there).and_then(|()| disk::free_bytes(there)) {
        Ok(free) => {
            let found = format!("{found}, writable, {:.1} GB free", free as f64 / 1e9);
            if free < LEAST_ROOM {
                all.warn(what, found, "make room: exports take about 1 KB a frame");
            } else {
                all.ok(what, found);
            }
        }
        Err(error) => all.warn(what, format!("{found} cannot be written: {error}"), todo),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn line(ask: impl FnOnce(&mut Diagnostics)) -> (String, u8) {
        let mut all = Diagnostics::default();
        ask(&mut all);
        let done = all.done(false, None);
        (done.output.text, done.exit_code)
    }

    #[test]
    fn a_folder_that_is_not_there_yet_counts_as_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        let (text, _) = line(|all| room(all, "place", &folder.path().join("a/b"), "elsewhere"));
        assert!(text.contains("a/b (not there yet), writable"), "{text}");
        let Some(disk) = crate::files::small_disk::SmallDisk::mount(256) else { return };
        let (text, code) = line(|all| room(all, "place", disk.path(), "elsewhere"));
        assert!(code == 0 && text.starts_with("warn  place") && text.contains("make room"), "{text}");
    }

    #[test]
    fn a_provider_fails_only_where_it_is_required() {
        let runtime = runtime::load("").unwrap();
        if compiled(&runtime).unwrap().contains(&("cuda", true)) {
            println!("skipped: this ONNX Runtime has CUDA");
            return;
        }
        let asked = |providers: &[&str], fallback| {
            let mut config = Config::default();
            config.encoder.providers = providers.iter().map(|p| p.parse().unwrap()).collect();
            config.encoder.fallback = fallback;
            line(|all| super::providers(all, &runtime, &config, None))
        };
        let (text, code) = asked(&["cpu"], false);
        assert!(code == 0 && text.contains("ok    provider cuda: not in this build"), "{text}");
        let (text, code) = asked(&["cuda", "cpu"], true);
        assert!(code == 0 && text.contains("warn  provider cuda"), "{text}");
        let (text, code) = asked(&["cuda", "cpu"], false);
        assert!(code == 3 && text.contains("fail  provider cuda") && text.contains("ok    provider cpu"), "{text}");
    }

    #[test]
    fn an_onnx_runtime_that_is_named_and_not_there_fails_with_every_place() {
        let mut config = Config::default();
        config.encoder.onnxruntime = "/nowhere/libonnxruntime.so".into();
        let (text, code) = line(|all| {
            onnxruntime(all, &config);
        });
        assert!(code != 0 && text.contains("encoder.onnxruntime: /nowhere/libonnxruntime.so, not there"), "{text}");
        assert!(text.contains("fail  ONNX Runtime") && text.contains("system: "), "{text}");
    }
}
