//! Why a provider's library does not load: which shared libraries it needs and the system has not.
//!
//! The loader stops at the first one that is missing; here all are named at once. Looked for as the loader does: in the
//! library's own `RUNPATH`, then as `dlopen` finds a bare name.
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::encoder::elf_deps;

/// The library of TensorRT that tells its version.
const TENSORRT: &[&str] = &["libnvinfer.so.10", "libnvinfer.so.11", "libnvinfer.so.8"];

/// File of a provider that lies beside ONNX Runtime; `None` for those that are part of it.
pub(super) fn library(runtime: &Path, provider: &str) -> Option<PathBuf> {
    let name = match provider {
        "tensorrt" | "cuda" | "openvino" => format!("libonnxruntime_providers_{provider}.so"),
        _ => return None,
    };
    Some(runtime.parent()?.join(name))
}

/// Names of libraries that `library` needs and that cannot be loaded, sorted; the provider's own file, and the one that
/// connects it with ONNX Runtime, among them where they are not there.
pub(super) fn missing(library: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    let bridge = library.with_file_name("libonnxruntime_providers_shared.so");
    for file in [&bridge, library] {
        if !file.exists() {
            missing.push(file.display().to_string());
        }
    }
    let Ok(needs) = elf_deps::read(library) else { return missing };
    let beside = |name: &str| needs.paths.iter().any(|folder| folder.join(name).exists());
    missing.extend(needs.libraries.into_iter().filter(|name| !beside(name) && !loads(name)));
    missing.sort();
    missing.dedup();
    missing
}

/// Can the library `name` be loaded? It stays loaded where it can: its provider wants it next.
fn loads(name: &str) -> bool {
    open(name).is_some()
}

#[allow(unsafe_code, reason = "only the loader knows what it finds")]
fn open(name: &str) -> Option<std::ptr::NonNull<libc::c_void>> {
    let name = CString::new(std::ffi::OsStr::new(name).as_bytes()).ok()?;
    // SAFETY: `name` is a C string. Loading runs the library's initialisers, as loading the provider would.
    std::ptr::NonNull::new(unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) })
}

/// Version of TensorRT on this machine, as it counts itself (101600: 10.16.0); `None` where there is none.
#[allow(unsafe_code, reason = "TensorRT tells its version through its C interface")]
pub(super) fn tensorrt_version() -> Option<i32> {
    let library = TENSORRT.iter().find_map(|name| open(name))?;
    // SAFETY: `library` is open and the name is a C string.
    let symbol = unsafe { libc::dlsym(library.as_ptr(), c"getInferLibVersion".as_ptr()) };
    if symbol.is_null() {
        return None;
    }
    // SAFETY: `int32_t getInferLibVersion() noexcept` (NvInferRuntime.h), and a function pointer has the size of a data
    // pointer on every system with `dlsym`.
    let version: extern "C" fn() -> i32 = unsafe { std::mem::transmute(symbol) };
    Some(version())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::process::Command;

    #[test]
    fn all_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let provider = at("libonnxruntime_providers_cuda.so");
        assert_eq!(library(&at("libonnxruntime.so"), "cuda").unwrap(), provider);
        assert_eq!(library(&at("libonnxruntime.so"), "cpu"), None);
        assert_eq!(missing(&provider).len(), 2, "neither file is there");
        // A library that needs two others, made with a C compiler (the one that also links Rust programs); then one of
        // the two is taken away, and the other is found through RUNPATH.
        std::fs::write(at("x.c"), "int x;").unwrap();
        let make = |name: &str, with: &[&str]| {
            let mut cc = Command::new("cc");
            cc.args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"]).arg(at(name)).arg(at("x.c"));
            let built = cc.arg(format!("-L{}", folder.path().display())).args(with).status();
            assert!(built.is_ok_and(|s| s.success()), "this test needs a C compiler named cc");
        };
        make("libafterimage_one.so", &[]);
        make("libafterimage_two.so", &[]);
        make("libonnxruntime_providers_shared.so", &[]);
        make(
            "libonnxruntime_providers_cuda.so",
            &["-lafterimage_one", "-lafterimage_two", "-Wl,-rpath,$ORIGIN", "-Wl,--enable-new-dtags"],
        );
        assert_eq!(missing(&provider), Vec::<String>::new());
        std::fs::remove_file(at("libafterimage_two.so")).unwrap();
        assert_eq!(missing(&provider), ["libafterimage_two.so"]);
    }
}
