//! The GPU build of ONNX Runtime on a machine without a GPU: missing parts are named, a fallback is reported
//! everywhere, and the real library accepts our CUDA and TensorRT options.
//!
//! Skipped with a message if the library is missing: `tools/fetch_onnxruntime.sh --gpu` fetches it, or
//! `AFTERIMAGE_GPU_ONNXRUNTIME` names its `libonnxruntime.so`.
#![allow(unsafe_code, reason = "what the library has read can only be asked through its C interface")]
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use afterimage::config::loader::load;
use afterimage::encoder::{SessionContext, missing_libraries, options_of, runtime};
use common::skip::{Needs, installed, skip};
use common::{ENCODER, TestDir, gpu_library as library, learn_args};

const SHORT: &str = "pattern://7?frames=40&segments=4&width=64&height=48";
const SET: [&str; 3] = ["tensorrt", "cuda", "cpu"];

/// The library, on a machine where its providers cannot be loaded.
fn library_without_cuda() -> Option<PathBuf> {
    let library = library()?;
    if missing_libraries(&library, "cuda").is_empty() {
        skip(Needs::NoCuda, "this machine has the libraries of CUDA");
        return None;
    }
    Some(library)
}

fn named(command: &mut Command, library: &Path) {
    command.env("ORT_DYLIB_PATH", library);
}

fn providers(names: &[&str]) -> String {
    format!("encoder.providers={names:?}")
}

#[test]
fn a_gpu_that_is_not_there_fails_at_once_with_every_missing_library() {
    let Some(library) = library_without_cuda() else { return };
    let place = TestDir::new();
    for (name, wants) in [("cuda", ["libcublasLt.so", "libcudart.so"]), ("tensorrt", ["libnvinfer.so", "libcudnn.so"])]
    {
        let set = providers(&[name, "cpu"]);
        let args = [&learn_args(SHORT, "run")[..], &["--set", &set]].concat();
        let ran = place.start_with(&args, |command| named(command, &library)).end();
        let asks = format!("asks for {name}, whose libraries cannot be loaded: ");
        ran.fails(1, &[&asks, "encoder.fallback = true"]).fails(1, &wants);
        assert!(!place.at("run").exists());
    }
}

#[test]
fn a_fallback_is_told_in_log_journal_report_and_doctor() {
    let Some(library) = library_without_cuda() else { return };
    let place = TestDir::new();
    let set = providers(&SET);
    let allowed = ["--set", &set, "--set", "encoder.fallback=true"];
    let with = |command: &mut Command| named(command, &library);
    let args = [&learn_args(SHORT, "run")[..], &allowed].concat();
    let ran = place.start_with(&args, with).end().ok();
    let report = ran.said(&["runs on cpu", "libnvinfer.so", "libcublasLt.so"]).json();
    assert_eq!(report["encoder"]["provider"], "cpu");
    let told = |why: &serde_json::Value| {
        let why = why.as_str().unwrap();
        assert!(why.contains("libnvinfer.so") && why.contains("libcublasLt.so"), "{why}");
    };
    told(&report["encoder"]["fallback"]);
    let events = afterimage::journal::read(&place.at("run")).unwrap();
    told(&events[0]["fallback"]);
    assert!(events[0]["placement"]["CPUExecutionProvider"]["nodes"].as_u64().unwrap() > 0, "{}", events[0]);
    let doctor = [&["doctor", "--encoder", ENCODER][..], &allowed].concat();
    let with = |command: &mut Command| named(command, &library);
    let text = place.start_with(&doctor, with).end().out;
    for part in
        ["warn  provider tensorrt", "warn  provider cuda", "libcublasLt.so", "warn  encoder", "32 values on cpu"]
    {
        assert!(text.contains(part), "missing {part:?} in\n{text}");
    }
}

/// An object all of whose methods do nothing.
const OBJECT: &str = "static long none(void) { return 0; }\nstatic void *table[64] = {[0 ... 63] = (void *)none};\n\
                      static void *object = table;\n";

/// A function in C. Those that are called while options are read answer as on a machine with eight GPUs.
fn stand_in(symbol: &str) -> String {
    match symbol {
        "getPluginRegistry" => "void *getPluginRegistry(void) { return &object; }\n".into(),
        "cudaGetDeviceCount" => "int cudaGetDeviceCount(int *count) { *count = 8; return 0; }\n".into(),
        name if name.ends_with("GetErrorString") || name.ends_with("GetErrorName") => {
            format!("const char *{name}(int error) {{ return \"none\"; }}\n")
        }
        name => format!("long {name}(void) {{ return 100; }}\n"),
    }
}

/// Libraries that the providers need, with the names that they take of them; made of functions that say "no device" (100).
fn stand_ins(library: &Path, folder: &Path) {
    let read = |program: &str, args: &[&str], file: &Path| {
        let read = Command::new(program).args(args).arg(file).output().unwrap();
        String::from_utf8(read.stdout).unwrap()
    };
    let (mut wanted, mut bare) = (BTreeMap::<String, BTreeSet<String>>::new(), BTreeSet::new());
    for provider in ["cuda", "tensorrt"] {
        let file = library.with_file_name(format!("libonnxruntime_providers_{provider}.so"));
        for line in read("readelf", &["-dW"], &file).lines().filter(|line| line.contains("(NEEDED)")) {
            let name = line.split(['[', ']']).nth(1).unwrap();
            if ["libcu", "libnv"].iter().any(|start| name.starts_with(start)) {
                wanted.entry(name.into()).or_default();
            }
        }
        for line in read("nm", &["-D", "--undefined-only"], &file).lines() {
            let Some(symbol) = line.trim().strip_prefix("U ") else { continue };
            match symbol.split_once('@') {
                Some((name, from)) => drop(wanted.get_mut(from).map(|names| names.insert(name.into()))),
                None if symbol != "Provider_GetHost" => drop(bare.insert(symbol.to_owned())),
                None => {}
            }
        }
    }
    for (name, symbols) in &wanted {
        let all = symbols.iter().chain(bare.iter().filter(|_| symbols.is_empty()));
        let text: String = all.map(|symbol| stand_in(symbol)).collect();
        let (source, map) = (folder.join("x.c"), folder.join("x.map"));
        fs::write(&source, format!("{OBJECT}{text}int afterimage_stands_in;\n")).unwrap();
        fs::write(&map, format!("{name} {{ global: *; }};\n")).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-w", "-fno-builtin", "-o"]).arg(folder.join(name)).arg(&source);
        cc.arg(format!("-Wl,-soname,{name}"));
        if !symbols.is_empty() {
            cc.arg(format!("-Wl,--version-script={}", map.display()));
        }
        assert!(cc.status().unwrap().success(), "a stand-in for {name}");
    }
}

#[test]
fn the_library_reads_every_option_as_it_was_meant() {
    const INSIDE: &str = "AFTERIMAGE_TEST_OF_OPTIONS";
    let Some(library) = library() else { return };
    if std::env::var_os(INSIDE).is_some() {
        return read_back(&library);
    }
    // They make stand-ins for the libraries of CUDA.
    if !installed(Needs::Compiler, &["cc", "nm", "readelf"]) {
        return;
    }
    // In a process of its own, since the loader reads its path at the start.
    let folder = tempfile::tempdir().unwrap();
    stand_ins(&library, folder.path());
    let this = std::env::current_exe().unwrap();
    let mut inside = Command::new(this);
    inside.args(["the_library_reads_every_option_as_it_was_meant", "--exact", "--nocapture"]).env(INSIDE, "1");
    let ran = inside.env("LD_LIBRARY_PATH", folder.path()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("options were read back"), "{}\n{said}", ran.status);
}

/// Hands options to the library and asks it what it has understood.
fn read_back(library: &Path) {
    runtime::load(library.to_str().unwrap()).unwrap();
    let sets = [
        "tensorrt.precision=int8",
        "tensorrt.dla=true",
        "tensorrt.dla_core=1",
        "tensorrt.builder_level=4",
        "tensorrt.workspace_megabytes=300",
        "tensorrt.auxiliary_streams=2",
        "tensorrt.cuda_graph=true",
        "tensorrt.dump_subgraphs=true",
        "tensorrt.detailed_build_log=true",
        "tensorrt.max_batch=4",
        "tensorrt.device=1",
        "cuda.arena_megabytes=700",
        "cuda.arena_extend=next-power-of-two",
        "cuda.conv_search=default",
        "cuda.conv_max_workspace=true",
        "cuda.tf32=true",
        "cuda.nhwc=true",
        "cuda.device=1",
    ];
    let sets: Vec<String> = sets.iter().map(|set| format!("encoder.{set}")).collect();
    let folder = Some(PathBuf::from("/engines"));
    let about = SessionContext {
        input: "image".into(),
        size: afterimage::config::Size::square(96),
        threads: 1,
        engines: folder,
        blobs: None,
        prefix: "afterimage-0123".into(),
    };
    for config in [load(None, &[]).unwrap().encoder, load(None, &sets).unwrap().encoder] {
        for provider in ["tensorrt", "cuda"] {
            let given = options_of(provider, &config, &about);
            let read = understood(provider, &given).unwrap();
            assert!(given.len() >= 7);
            // This one is read but not told again (onnxruntime 1.31, `CUDAExecutionProviderInfo::ToProviderOptions`).
            for (name, value) in given.into_iter().filter(|(name, _)| *name != "enable_cuda_graph") {
                assert_eq!(read.get(name), Some(&value), "{provider} {name}, of {read:?}");
            }
        }
    }
    // And it does read them: what it does not know or cannot read it refuses.
    let wrong = |provider, name, value: &str| understood(provider, &[(name, value.to_owned())]).unwrap_err();
    assert!(wrong("tensorrt", "trt_fp17_enable", "1").contains("trt_fp17_enable"));
    assert!(wrong("cuda", "cudnn_conv_algo_search", "ALL").contains("ALL"));
    assert!(wrong("cuda", "enable_cuda_graph", "maybe").contains("enable_cuda_graph"));
    println!("options were read back");
}

/// What `provider` understands of `options`; the error is what it says.
fn understood(provider: &str, options: &[(&'static str, String)]) -> Result<BTreeMap<String, String>, String> {
    let api = ort::api();
    let text = |text: &str| CString::new(text).unwrap();
    let (names, values): (Vec<CString>, Vec<CString>) = options.iter().map(|(n, v)| (text(n), text(v))).unzip();
    let pointers = |all: &[CString]| all.iter().map(|text| text.as_ptr()).collect::<Vec<*const c_char>>();
    let (names, values, count) = (pointers(&names), pointers(&values), options.len());
    let done = |status: ort::sys::OrtStatusPtr| {
        // SAFETY: the status comes from the library and is handed back to it once.
        unsafe { ort::Error::result_from_status(status) }.map_err(|e| e.to_string())
    };
    let (mut allocator, mut found): (_, *mut c_char) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: each function is used as onnxruntime_c_api.h says: out-pointers are valid, names and values live through the
    // calls, what was made is released once, and the text is freed by the allocator that it came from.
    unsafe {
        done((api.GetAllocatorWithDefaultOptions)(&raw mut allocator))?;
        if provider == "cuda" {
            let mut made = std::ptr::null_mut();
            done((api.CreateCUDAProviderOptions)(&raw mut made))?;
            let read = done((api.UpdateCUDAProviderOptions)(made, names.as_ptr(), values.as_ptr(), count))
                .and_then(|()| done((api.GetCUDAProviderOptionsAsString)(made, allocator, &raw mut found)));
            (api.ReleaseCUDAProviderOptions)(made);
            read?;
        } else {
            let mut made = std::ptr::null_mut();
            done((api.CreateTensorRTProviderOptions)(&raw mut made))?;
            let read = done((api.UpdateTensorRTProviderOptions)(made, names.as_ptr(), values.as_ptr(), count))
                .and_then(|()| done((api.GetTensorRTProviderOptionsAsString)(made, allocator, &raw mut found)));
            (api.ReleaseTensorRTProviderOptions)(made);
            read?;
        }
        let text = CStr::from_ptr(found).to_string_lossy().into_owned();
        done((api.AllocatorFree)(allocator, found.cast()))?;
        Ok(text.split(';').filter_map(|pair| pair.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect())
    }
}
