//! The machine: processor, memory, GPU, cameras.
use std::fs;
use std::path::Path;

use crate::commands::diagnostics::Diagnostics;
use crate::config;

/// With less free memory than this, in megabytes, other programs suffer.
const LEAST_MEMORY: f64 = 500.0;
/// Files created by the driver of an NVIDIA GPU, on cards and on Jetson boards.
const GPU_MARKS: [&str; 3] = ["/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/nvhost-gpu"];

pub(super) fn program(all: &mut Diagnostics) {
    let version = env!("CARGO_PKG_VERSION");
    all.ok("afterimage", format!("{version}, built for {}", std::env::consts::ARCH));
}

pub(super) fn processor(all: &mut Diagnostics) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let board = fs::read_to_string("/proc/device-tree/model").unwrap_or_default();
    let name = field(&info, "model name").or_else(|| Some(board.trim_matches(['\0', '\n'])).filter(|b| !b.is_empty()));
    let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
    let plural = if cores == 1 { "core" } else { "cores" };
    let found = format!("{}{name}, {cores} {plural}, {}", std::env::consts::ARCH, vector_units());
    match cores {
        1 => {
            all.warn("processor", found, "capture, encoder and learner share one core; expect fewer frames per second")
        }
        _ => all.ok("processor", found),
    }
}

#[cfg(target_arch = "x86_64")]
fn vector_units() -> &'static str {
    match (is_x86_feature_detected!("avx512f"), is_x86_feature_detected!("avx2")) {
        (true, _) => "AVX-512",
        (_, true) => "AVX2",
        _ => "no AVX2 (slow)",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn vector_units() -> &'static str {
    if cfg!(target_arch = "aarch64") { "NEON" } else { "vector units not known" }
}

pub(super) fn memory(all: &mut Diagnostics) {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (Some(total), Some(free)) = (megabytes(&info, "MemTotal"), megabytes(&info, "MemAvailable")) else {
        all.warn("memory", "cannot be read from /proc/meminfo", "a run takes about 300 MB");
        return;
    };
    // A container may have a lower limit than the machine.
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse::<f64>().ok());
    let limit = limit.map(|bytes| bytes / 1e6).filter(|limit| *limit < total);
    let allowed = limit.map(|limit| format!(", at most {limit:.0} MB for this container")).unwrap_or_default();
    let found = format!("{total:.0} MB, {free:.0} MB free{allowed}");
    if free.min(limit.unwrap_or(free)) < LEAST_MEMORY {
        all.warn("memory", found, "a run takes about 300 MB; end other programs, or lower learn.replay.megabytes");
    } else {
        all.ok("memory", found);
    }
}

/// Detects an NVIDIA GPU by the files of its driver.
pub(super) fn gpu() -> Option<String> {
    let mark = GPU_MARKS.into_iter().find(|mark| Path::new(mark).exists())?;
    let names = crate::encoder::gpus(Path::new("/"));
    Some(if names.is_empty() { mark.to_owned() } else { format!("{names}; {mark}") })
}

pub(super) fn cameras(all: &mut Diagnostics, config: &config::Source) {
    let devices = devices(Path::new("/sys/class/video4linux"));
    if devices.is_empty() {
        all.ok("cameras", "none (no /dev/video*); folders and video files work without");
    }
    for (number, name) in devices {
        let device = format!("/dev/video{number}");
        match crate::source::camera::describe(Path::new(&device), config) {
            Ok(found) => all.ok(format!("camera {device}"), format!("{name}; {found}")),
            Err(error) => all.warn(format!("camera {device}"), name, error.chain()),
        }
    }
}

/// Number and name of every video device that the kernel lists in `class`.
fn devices(class: &Path) -> Vec<(u32, String)> {
    let entries = fs::read_dir(class).into_iter().flatten().flatten();
    let mut all: Vec<(u32, String)> = entries
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("video")?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            Some((number, if name.trim().is_empty() { "no name".into() } else { name.trim().to_owned() }))
        })
        .collect();
    all.sort_unstable();
    all
}

/// The first value after `key` and a colon, in text like /proc/cpuinfo.
fn field<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|k| k.trim() == key))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

/// A size in megabytes, in text like /proc/meminfo.
fn megabytes(text: &str, key: &str) -> Option<f64> {
    let kibibytes: f64 = field(text, key)?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let cpu = "processor\t: 0\nmodel name\t: Fast One: 3\nmodel name\t: other\n";
        assert_eq!(field(cpu, "model name"), Some("Fast One: 3"));
        assert_eq!(field(cpu, "model"), None);
        let memory = "MemTotal:       1000000 kB\nMemFree: 5 kB\nMemAvailable:  x kB\n";
        assert!((megabytes(memory, "MemTotal").unwrap() - 1024.0).abs() < 1e-9);
        assert_eq!(megabytes(memory, "MemAvailable"), None);
    }

    #[test]
    fn cameras_are_listed_by_number_with_their_names() {
        let class = tempfile::tempdir().unwrap();
        for (device, name) in [("video10", Some("Door\n")), ("video2", Some("")), ("video1", None), ("radio0", None)] {
            fs::create_dir(class.path().join(device)).unwrap();
            if let Some(name) = name {
                fs::write(class.path().join(device).join("name"), name).unwrap();
            }
        }
        let expected = [(1, "no name".to_owned()), (2, "no name".to_owned()), (10, "Door".to_owned())];
        assert_eq!(devices(class.path()), expected);
        assert!(devices(&class.path().join("missing")).is_empty());
    }
}
