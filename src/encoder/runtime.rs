//! Finds ONNX Runtime and loads it, once per process.
//!
//! A library that the user names (`encoder.onnxruntime`, else `ORT_DYLIB_PATH`) is used, or it is an error. Otherwise
//! the first usable one of these is taken: next to the program, the project's cache, the system folders. Each file is
//! checked before it is loaded (`elf`) and its version queried before it is used (`ort_version`), so that a wrong
//! file causes neither a hang nor a panic.
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use super::ort_version::NEEDED_MINOR;
use super::{elf, ort_version};
use crate::error::{Error, ErrorKind, Result};

/// File name of the library.
const LIBRARY: &str = "libonnxruntime.so";
/// The project's folder within the user's cache folder.
const CACHE: &str = "afterimage";
/// Folder of the library within it; `tools/fetch_onnxruntime.sh` puts it there.
const LIBRARIES: &str = "onnxruntime";
/// Environment variable that keeps the library's own telemetry (a machine identifier and events sent to its vendor)
/// from starting. The Linux builds have one since 1.31, which starts together with the ONNX Runtime environment:
/// switching it off afterwards is too late for the identifier.
const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";
/// Environment variable that names the library; the configuration key takes precedence.
const VARIABLE: &str = "ORT_DYLIB_PATH";
/// System folders: those of locally built libraries first, then that of our package.
const SYSTEM: [&str; 5] = ["/usr/local/lib", "/usr/lib/afterimage", TRIPLE, "/usr/lib", "/usr/lib64"];
/// Debian's folder of libraries for this architecture.
const TRIPLE: &str =
    if cfg!(target_arch = "aarch64") { "/usr/lib/aarch64-linux-gnu" } else { "/usr/lib/x86_64-linux-gnu" };

/// The loaded library. Cheap to clone; the library stays loaded as long as the process lives.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The file that it was loaded from, with symbolic links resolved.
    pub path: PathBuf,
    /// Its version, such as `1.31.1`.
    pub version: String,
    pub(super) environment: Environment,
}

/// What names a place to look for the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LibrarySource {
    /// The key `encoder.onnxruntime`.
    Config,
    /// The environment variable `ORT_DYLIB_PATH`.
    Environment,
    /// The folder of the program.
    BesideBinary,
    /// The project's cache, `$XDG_CACHE_HOME/afterimage/onnxruntime` (`~/.cache/...`).
    Cache,
    /// A system folder.
    System,
}

/// What was found at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LibraryLookup {
    /// A library for this machine; its version is known once it is loaded.
    Library,
    /// Nothing.
    Missing,
    /// A file that cannot be used: the end of the sentence "the file ...".
    Unusable(String),
}

/// A place that was searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryCandidate {
    /// What names it.
    pub origin: LibrarySource,
    /// The file, or the one that was expected there.
    pub path: PathBuf,
    /// What was found there.
    pub found: LibraryLookup,
}

impl fmt::Display for LibrarySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "encoder.onnxruntime",
            Self::Environment => VARIABLE,
            Self::BesideBinary => "beside the program",
            Self::Cache => "cache",
            Self::System => "system",
        })
    }
}

impl fmt::Display for LibraryCandidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = match &self.found {
            LibraryLookup::Library => "a library for this machine",
            LibraryLookup::Missing => "not there",
            LibraryLookup::Unusable(why) => why,
        };
        write!(f, "{}: {}: {found}", self.origin, self.path.display())
    }
}

/// Lists every place where the library is searched for, in order of preference, with what was found there. Loads
/// nothing. `config` is the value of `encoder.onnxruntime`, empty if unset.
pub fn find(config: &str) -> Vec<LibraryCandidate> {
    let environment = std::env::var_os(VARIABLE).unwrap_or_default();
    let mut all = Vec::new();
    for (origin, path) in
        [(LibrarySource::Config, Path::new(config)), (LibrarySource::Environment, Path::new(&environment))]
    {
        if !path.as_os_str().is_empty() {
            all.push(LibraryCandidate::new(origin, std::path::absolute(path).unwrap_or_else(|_| path.into())));
        }
    }
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    all.extend(beside.map(|folder| LibraryCandidate::new(LibrarySource::BesideBinary, library_in(&folder))));
    all.extend(
        cache_folder().map(|folder| LibraryCandidate::new(LibrarySource::Cache, library_in(&folder.join(LIBRARIES)))),
    );
    all.extend(SYSTEM.map(|folder| LibraryCandidate::new(LibrarySource::System, library_in(Path::new(folder)))));
    all
}

/// Finds the library, checks it and loads it. A second call returns the loaded library, whatever else it finds,
/// because a process has only one ONNX Runtime. A library that the user names and that cannot be used is an error in
/// every call.
///
/// # Errors
/// The message lists what was searched for, what was found where, and what to do.
pub fn load(config: &str) -> Result<Runtime> {
    static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);
    let candidates = find(config);
    let named = candidates.iter().find(|c| matches!(c.origin, LibrarySource::Config | LibrarySource::Environment));
    if let Some(named) = named {
        match &named.found {
            LibraryLookup::Library => {}
            LibraryLookup::Missing => return Err(unusable(named, "is not there")),
            LibraryLookup::Unusable(why) => return Err(unusable(named, why)),
        }
    }
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = &*loaded {
        return Ok(runtime.clone());
    }
    if let Some(named) = named {
        let runtime = open(&named.path).map_err(|why| unusable(named, &why))?;
        *loaded = Some(runtime.clone());
        return Ok(runtime);
    }
    let mut looked_at = Vec::new();
    for mut candidate in candidates {
        if candidate.found == LibraryLookup::Library {
            match open(&candidate.path) {
                Ok(runtime) => {
                    *loaded = Some(runtime.clone());
                    return Ok(runtime);
                }
                Err(why) => candidate.found = LibraryLookup::Unusable(why),
            }
        }
        if let LibraryLookup::Unusable(_) = candidate.found {
            tracing::warn!("ONNX Runtime {candidate}; looking further");
        }
        looked_at.push(candidate.to_string());
    }
    Err(Error::runtime(format!(
        "ONNX Runtime ({LIBRARY}, 1.{} or later) was not found. Looked at\n  {}\n  Run tools/fetch_onnxruntime.sh for a \
         CPU build, or name a library with encoder.onnxruntime or {VARIABLE}",
        NEEDED_MINOR,
        looked_at.join("\n  ")
    )))
}

/// The error for a library that the user named and that cannot be used.
fn unusable(named: &LibraryCandidate, why: &str) -> Error {
    let (kind, hint) = match named.origin {
        LibrarySource::Config => (ErrorKind::Config, "leave the key empty"),
        _ => (ErrorKind::Runtime, "unset it"),
    };
    Error::new(
        kind,
        format!(
            "{} names {}, which {why}. Name a {LIBRARY} 1.{NEEDED_MINOR} or later for this machine, or {hint} to \
             search",
            named.origin,
            named.path.display()
        ),
    )
}

/// Forbids ONNX Runtime to report anything to its vendor. Must be the first thing that the program does.
///
/// # Safety
/// No other thread may run yet, because this changes the environment of the process (setenv(3)).
#[allow(unsafe_code, reason = "the environment is all that the library looks at")]
pub unsafe fn forbid_telemetry() {
    // SAFETY: guaranteed by the caller.
    unsafe { std::env::set_var(NO_TELEMETRY, "1") };
}

/// Loads the library at `path`; the error is the end of the sentence "the file ...".
fn open(path: &Path) -> std::result::Result<Runtime, String> {
    // Symbolic links are resolved, because ONNX Runtime looks for its providers in the folder it is loaded from.
    let path = path.canonicalize().map_err(|e| format!("cannot be opened: {e}"))?;
    let version = ort_version::version(&path)?;
    let builder = ort::init_from(&path).map_err(|e| format!("cannot be loaded: {e}"))?;
    let environment = builder
        .with_name("afterimage")
        .with_telemetry(false)
        .build()
        .map_err(|e| format!("is ONNX Runtime {version}, which does not start: {e}"))?;
    environment.set_log_level(LogLevel::Warning);
    tracing::debug!("ONNX Runtime {version} from {}", path.display());
    Ok(Runtime { path, version, environment })
}

impl LibraryCandidate {
    fn new(origin: LibrarySource, path: PathBuf) -> Self {
        let found = if path.exists() {
            elf::check(&path).map_or_else(LibraryLookup::Unusable, |()| LibraryLookup::Library)
        } else {
            LibraryLookup::Missing
        };
        Self { origin, path, found }
    }
}

/// The project's folder within the user's cache folder, if there is one.
pub(super) fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    Some(absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|h| h.join(".cache")))?.join(CACHE))
}

/// The library in `folder`: `libonnxruntime.so`, or the newest `libonnxruntime.so.1.N.M` if a package has no plain
/// name.
fn library_in(folder: &Path) -> PathBuf {
    let plain = folder.join(LIBRARY);
    if plain.exists() {
        return plain;
    }
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let versions = names.filter_map(|name| {
        let name = name.to_str()?;
        let numbers: Option<Vec<u32>> =
            name.strip_prefix(LIBRARY)?.strip_prefix('.')?.split('.').map(|n| n.parse().ok()).collect();
        Some((numbers?, folder.join(name)))
    });
    versions.max().map_or(plain, |(_, path)| path)
}

#[cfg(test)]
#[path = "runtime_tests.rs"]
mod tests;
