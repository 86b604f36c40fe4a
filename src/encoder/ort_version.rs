//! Opens a library and queries its version before `ort` does.
//!
//! `ort` panics if a library has no usable API, and hides why a library cannot be loaded; this module reports both.
use std::error::Error as _;
use std::ffi::{CStr, c_char};
use std::path::Path;

use libloading::Library;
use ort::sys::{OrtApi, OrtApiBase};

/// The oldest supported version is 1.23. The bindings accept 1.22, but libraries 1.22.0 and 1.22.1 abort the process
/// when `ort` opens a session (it lets them choose among devices, and they find none).
pub(super) const NEEDED_MINOR: u32 = 23;

/// Returns the version of ONNX Runtime in the library at `path` (`1.31.1`), which [`super::elf::check`] has accepted.
///
/// A usable library stays loaded, because ONNX Runtime does not support being unloaded. The error completes the
/// sentence "the file ...".
#[allow(unsafe_code, reason = "loading a library runs its code")]
pub(super) fn version(path: &Path) -> Result<String, String> {
    // SAFETY: loading runs the library's initialisers, which is what the user asked for.
    let library = unsafe { Library::new(path) }.map_err(|e| format!("cannot be loaded: {}", reason(&e)))?;
    let version = query(&library)?;
    std::mem::forget(library);
    Ok(version)
}

/// The loader's description of a failure.
fn reason(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Returns the version of the open library if its API is usable.
#[allow(unsafe_code, reason = "a C library is called through declarations that only its header proves")]
fn query(library: &Library) -> Result<String, String> {
    type GetApiBase = extern "system" fn() -> *const OrtApiBase;
    // SAFETY: this is the declaration of `OrtGetApiBase` in onnxruntime_c_api.h.
    let get_base = unsafe { library.get::<GetApiBase>(c"OrtGetApiBase") }
        .map_err(|_missing| "is not ONNX Runtime: it has no OrtGetApiBase")?;
    // SAFETY: ONNX Runtime returns null or a static; null becomes `None`.
    let base = unsafe { get_base().as_ref() }.ok_or("is not a usable ONNX Runtime: OrtGetApiBase returns nothing")?;
    // SAFETY: the function takes no arguments and returns a static C string.
    let text: *const c_char = unsafe { (base.GetVersionString)() };
    if text.is_null() {
        return Err("is not a usable ONNX Runtime: it has no version".into());
    }
    // SAFETY: not null, and declared as a C string.
    let version = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    let needed = NEEDED_MINOR;
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(minor))) if minor >= needed => {}
        (Some(Ok(1)), Some(Ok(_))) => {
            return Err(format!("is ONNX Runtime {version}: too old, this program needs 1.{needed} or later"));
        }
        _ => return Err(format!("is ONNX Runtime {version}: this program needs 1.{needed} or a later 1.x")),
    }
    // SAFETY: any number is allowed; the result is null or a static.
    let api: *const OrtApi = unsafe { (base.GetApi)(ort::MINOR_VERSION) };
    if api.is_null() {
        let wanted = ort::MINOR_VERSION;
        return Err(format!("says it is ONNX Runtime {version} but does not support version 1.{wanted} of the API"));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::process::Command;

    /// Compiles a small library from C source with the C compiler that also links Rust programs.
    fn library(source: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (c, so) = (folder.path().join("x.c"), folder.path().join("libonnxruntime.so"));
        std::fs::write(&c, source).unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&so).arg(&c).status();
        assert!(built.is_ok_and(|s| s.success()), "this test needs a C compiler named cc");
        super::super::elf::check(&so).unwrap();
        (folder, so)
    }

    fn fake(version: &str) -> String {
        format!(
            "static const void* api(unsigned v) {{ return 0; }}\n\
             static const char* text(void) {{ return {version}; }}\n\
             static const struct {{ const void* (*a)(unsigned); const char* (*t)(void); }} base = {{ api, text }};\n\
             const void* OrtGetApiBase(void) {{ return &base; }}\n"
        )
    }

    #[test]
    fn old_and_foreign_libraries_are_told_apart() {
        for (source, says) in [
            (fake("\"1.17.3\""), "is ONNX Runtime 1.17.3: too old, this program needs 1.23 or later"),
            (fake("\"1.22.1\""), "is ONNX Runtime 1.22.1: too old, this program needs 1.23 or later"),
            (fake("\"1.23.0\""), "says it is ONNX Runtime 1.23.0 but does not support version 1.22 of the API"),
            (fake("\"2.40.0\""), "is ONNX Runtime 2.40.0: this program needs 1.23 or a later 1.x"),
            (fake("\"unknown\""), "is ONNX Runtime unknown: this program needs"),
            (fake("0"), "it has no version"),
            ("void* OrtGetApiBase(void) { return 0; }".into(), "OrtGetApiBase returns nothing"),
            ("int something_else;".into(), "is not ONNX Runtime: it has no OrtGetApiBase"),
            ("extern int nowhere(void); int (*p)(void) = nowhere;".into(), "cannot be loaded: "),
        ] {
            let (_folder, so) = library(&source);
            let text = version(&so).unwrap_err();
            assert!(text.contains(says), "expected {says:?}, got {text:?}");
        }
    }
}
