//! One parser of `afterimage::fuzzing` under libFuzzer: `AFTERIMAGE_TARGET=uri parsers -max_total_time=60 CORPUS`.
//! `AFTERIMAGE_SEEDS=FOLDER parsers` writes the seeds of every target to `FOLDER/TARGET/` and ends. `fuzz/run.py` does both.
#![no_main]
use std::alloc::System;
use std::env;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use afterimage::fuzzing::{Parser, TARGETS, seeds, target};
use cap::Cap;

/// More memory than any input of at most 128 KiB may take, all that the target keeps between inputs included, bytes.
const MOST: usize = 512 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MOST);

static PARSER: OnceLock<Parser> = OnceLock::new();

/// Chooses the target; or writes the seeds.
fn start() {
    if let Some(folder) = env::var_os("AFTERIMAGE_SEEDS") {
        write_seeds(Path::new(&folder));
        std::process::exit(0);
    }
    let name = env::var("AFTERIMAGE_TARGET").unwrap_or_default();
    let known = || TARGETS.map(|(name, _)| name).join(", ");
    let parser = target(&name).unwrap_or_else(|| panic!("AFTERIMAGE_TARGET={name:?}: must be one of {}", known()));
    PARSER.get_or_init(|| parser);
}

fn write_seeds(folder: &Path) {
    for (name, _) in TARGETS {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).expect("cannot make the folder of the seeds");
        for (number, seed) in seeds(name).into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed).expect("cannot write a seed");
        }
    }
}

libfuzzer_sys::fuzz_target!(init: start(), |bytes: &[u8]| {
    if let Some(parser) = PARSER.get() {
        parser(bytes);
    }
});
