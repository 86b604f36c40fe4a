//! Opens a library by hand and asks it for its version, before `ort` sees it.
//!
//! `ort` panics where a library has no usable API and hides why a library does not load; this tells both.
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ort::sys::{OrtApi, OrtApiBase};

/// Least version that is used: 1.23. The bindings would take 1.22, but libraries 1.22.0 and 1.22.1 abort the process
/// when `ort` opens a session (it asks them to choose among devices, and they find none).
pub(super) const NEEDED_MINOR: u32 = 23;

/// Version of ONNX Runtime in the library at `path` (`1.31.1`), which has been looked at by [`super::elf::check`].
///
/// The library stays loaded when it can be used (ONNX Runtime does not like to be unloaded). The error is the end of
/// the sentence "the file ...".
#[allow(unsafe_code, reason = "a library can only be asked through its C interface")]
pub(super) fn version(path: &Path) -> Result<String, String> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_nul| "has a zero byte in its path".to_string())?;
    // SAFETY: `name` is a valid C string. Loading runs the library's initialisers, which is what the user asked for.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
    if handle.is_null() {
        return Err(format!("cannot be loaded: {}", loader_error()));
    }
    let version = ask(handle);
    if version.is_err() {
        // SAFETY: `handle` came from `dlopen`, is closed once, and nothing of the library is used any more. Whether
        // that works makes no difference.
        unsafe { libc::dlclose(handle) };
    }
    version
}

/// Version of the open library, if its API can be used.
#[allow(unsafe_code, reason = "a library can only be asked through its C interface")]
fn ask(handle: *mut c_void) -> Result<String, String> {
    // SAFETY: `handle` is an open library and the name is a C string.
    let symbol = unsafe { libc::dlsym(handle, c"OrtGetApiBase".as_ptr()) };
    if symbol.is_null() {
        return Err("is not ONNX Runtime: it has no OrtGetApiBase".into());
    }
    // SAFETY: this is the declaration of `OrtGetApiBase` in onnxruntime_c_api.h, and a function pointer has the size of
    // a data pointer on every system with `dlsym`.
    let get_base: extern "system" fn() -> *const OrtApiBase = unsafe { std::mem::transmute(symbol) };
    // SAFETY: ONNX Runtime returns null or a static; null is turned into `None`.
    let base = unsafe { get_base().as_ref() }.ok_or("is not a usable ONNX Runtime: OrtGetApiBase gives nothing")?;
    // SAFETY: the function takes nothing and returns a static C string.
    let text: *const c_char = unsafe { (base.GetVersionString)() };
    if text.is_null() {
        return Err("is not a usable ONNX Runtime: it has no version".into());
    }
    // SAFETY: not null, and a C string by its declaration.
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
    // SAFETY: any number may be asked for; the answer is null or a static.
    let api: *const OrtApi = unsafe { (base.GetApi)(ort::MINOR_VERSION) };
    if api.is_null() {
        let wanted = ort::MINOR_VERSION;
        return Err(format!("says it is ONNX Runtime {version} but does not offer version 1.{wanted} of the API"));
    }
    Ok(version)
}

/// What the loader says of the last failure.
#[allow(unsafe_code, reason = "the loader's message is a C string")]
fn loader_error() -> String {
    // SAFETY: `dlerror` returns null or a C string that is valid until this thread's next call into the loader.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the loader does not say why".into();
    }
    // SAFETY: not null, see above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::process::Command;

    /// A small library with this C source, made by the C compiler that also links Rust programs.
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
            (fake("\"1.23.0\""), "says it is ONNX Runtime 1.23.0 but does not offer version 1.22 of the API"),
            (fake("\"2.40.0\""), "is ONNX Runtime 2.40.0: this program needs 1.23 or a later 1.x"),
            (fake("\"unknown\""), "is ONNX Runtime unknown: this program needs"),
            (fake("0"), "it has no version"),
            ("void* OrtGetApiBase(void) { return 0; }".into(), "OrtGetApiBase gives nothing"),
            ("int something_else;".into(), "is not ONNX Runtime: it has no OrtGetApiBase"),
            ("extern int nowhere(void); int (*p)(void) = nowhere;".into(), "cannot be loaded: "),
        ] {
            let (_folder, so) = library(&source);
            let text = version(&so).unwrap_err();
            assert!(text.contains(says), "expected {says:?}, got {text:?}");
        }
    }
}
