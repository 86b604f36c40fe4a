//! Tests that cannot run on this machine report that clearly, and fail if everything is required.
//!
//! - A skip is a line `skipped: TEST: NEED: REASON` on standard error, which `cargo test` does not hide. It is also
//!   appended to the file that `SKIPPED_TESTS` names; `make test` prints that file at the end.
//! - With `REQUIRE_ALL=1` a skip is a failure, unless `ALLOW_SKIP` (words separated by spaces) lists its need.
#![allow(dead_code, reason = "each file of tests uses its part")]

use std::env;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};

/// What a test needs beyond a Rust toolchain and ONNX Runtime.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Needs {
    /// An NVIDIA GPU with its driver and libraries.
    Gpu,
    /// The GPU build of ONNX Runtime.
    GpuRuntime,
    /// A machine on which CUDA does not work.
    NoCuda,
    /// A machine without an ONNX Runtime that is installed for everybody.
    NoSystemRuntime,
    /// A machine that has no power modes.
    NoPowerModes,
    /// The virtual machine with a camera.
    Camera,
    /// The program for 64-bit Arm and an emulator.
    Aarch64,
    /// The right to mount a file system.
    Root,
    /// A C compiler and binutils.
    Compiler,
    /// The C headers of ONNX Runtime.
    RuntimeHeaders,
    /// `ffmpeg`.
    Ffmpeg,
    /// GStreamer and its plug-ins.
    Gstreamer,
    /// An RTSP server.
    RtspServer,
    /// An MQTT broker with its clients.
    Broker,
    /// Python 3.
    Python,
    /// `openssl`, which makes certificates.
    Openssl,
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpu => "gpu",
            Self::GpuRuntime => "gpu-runtime",
            Self::NoCuda => "no-cuda",
            Self::NoSystemRuntime => "no-system-runtime",
            Self::NoPowerModes => "no-power-modes",
            Self::Camera => "camera",
            Self::Aarch64 => "aarch64",
            Self::Root => "root",
            Self::Compiler => "compiler",
            Self::RuntimeHeaders => "runtime-headers",
            Self::Ffmpeg => "ffmpeg",
            Self::Gstreamer => "gstreamer",
            Self::RtspServer => "rtsp-server",
            Self::Broker => "broker",
            Self::Python => "python",
            Self::Openssl => "openssl",
        })
    }
}

/// Says that the calling test cannot run here; the caller returns at once.
#[track_caller]
pub(crate) fn skip(needs: Needs, reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or("tests");
    let line = format!("skipped: {}::{test}: {needs}: {reason}\n", env!("CARGO_CRATE_NAME"));
    // In one write, since tests run beside each other; not through `eprint!`, which is hidden where the test passes.
    io::stderr().write_all(line.as_bytes()).ok();
    if let Some(path) = env::var_os("SKIPPED_TESTS") {
        // The line above was said in any case.
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .ok();
    }
    let required = env::var("REQUIRE_ALL").is_ok_and(|value| value == "1");
    let allowed = env::var("ALLOW_SKIP").unwrap_or_default();
    let allowed = allowed.split_whitespace().any(|name| name == needs.to_string());
    assert!(!required || allowed, "REQUIRE_ALL=1 and {needs} is not in ALLOW_SKIP: {reason}");
}

/// True where each of `programs` is installed; skips the test where one is not.
#[track_caller]
pub(crate) fn installed(needs: Needs, programs: &[&str]) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // Servers may be where only root looks.
    let folders: Vec<_> = env::split_paths(&path).chain(["/usr/sbin".into()]).collect();
    let missing = programs.iter().find(|program| !folders.iter().any(|folder| folder.join(program).is_file()));
    if let Some(program) = missing {
        skip(needs, &format!("{program} is not installed"));
    }
    missing.is_none()
}
