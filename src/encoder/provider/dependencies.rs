//! Explains why a provider's library does not load: finds the shared libraries that it needs and the system lacks.
//!
//! The loader stops at the first missing library; this finds all of them. It searches as the loader does: in the
//! library's own `RUNPATH`, then wherever `dlopen` finds a bare name.
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use libloading::Library;

use crate::encoder::elf_deps;

/// Names of the TensorRT library that reports its version.
const TENSORRT: &[&str] = &["libnvinfer.so.10", "libnvinfer.so.11", "libnvinfer.so.8"];

/// The provider's own library, next to ONNX Runtime; `None` for providers that are built into ONNX Runtime.
pub(super) fn library(runtime: &Path, provider: &str) -> Option<PathBuf> {
    let name = match provider {
        "tensorrt" | "cuda" | "openvino" => format!("libonnxruntime_providers_{provider}.so"),
        _ => return None,
    };
    Some(runtime.parent()?.join(name))
}

/// Sorted names of the libraries that `library` needs and that cannot be loaded, including the provider's own file
/// and the one that connects it to ONNX Runtime if those are missing.
pub(super) fn missing(library: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    let bridge = library.with_file_name("libonnxruntime_providers_shared.so");
    for file in [&bridge, library] {
        if !file.exists() {
            missing.push(file.display().to_string());
        }
    }
    let Ok(deps) = elf_deps::read(library) else { return missing };
    let beside = |name: &str| deps.paths.iter().any(|folder| folder.join(name).exists());
    missing.extend(deps.libraries.into_iter().filter(|name| !beside(name) && open(name).is_none()));
    missing.sort();
    missing.dedup();
    missing
}

/// Opens the library `name` as the loader finds it, and leaves it loaded, because its provider needs it next.
#[allow(unsafe_code, reason = "loading a library runs its code")]
fn open(name: &str) -> Option<ManuallyDrop<Library>> {
    // SAFETY: loading runs the library's initialisers, as loading the provider would.
    unsafe { Library::new(name) }.ok().map(ManuallyDrop::new)
}

/// Version of TensorRT on this machine in TensorRT's notation (101600 is 10.16.0); `None` if it is not installed.
#[allow(unsafe_code, reason = "a C library is called through declarations that only its header proves")]
pub(super) fn tensorrt_version() -> Option<i32> {
    let library = TENSORRT.iter().find_map(|name| open(name))?;
    // SAFETY: NvInferRuntime.h declares it as `int32_t getInferLibVersion() noexcept`.
    let version = unsafe { library.get::<extern "C" fn() -> i32>(c"getInferLibVersion") }.ok()?;
    Some(version())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::process::Command;

    #[test]
    fn every_missing_library_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let provider = at("libonnxruntime_providers_cuda.so");
        assert_eq!(library(&at("libonnxruntime.so"), "cuda").unwrap(), provider);
        assert_eq!(library(&at("libonnxruntime.so"), "cpu"), None);
        assert_eq!(missing(&provider).len(), 2, "neither file is there");
        // Builds a library that needs two others with the C compiler that also links Rust programs. Then one of the
        // two is deleted, and the other is found through RUNPATH.
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
