//! Checks before a model is read whether it can fit into memory: otherwise the kernel would kill the process without
//! a message.
use std::path::Path;

use crate::error::{Error, Result};

/// While a model is opened, memory holds both its file and ONNX Runtime's own weights.
const TIMES: u64 = 2;

/// Bytes that this process may still allocate: available memory and free swap, within the limit of its container.
/// `None` if the system does not report them.
pub(crate) fn available() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = |key: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let free = (kibibytes("MemAvailable")? + kibibytes("SwapFree").unwrap_or(0)) * 1024;
    let group = |name: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok()?.trim().parse().ok()
    };
    match (group("max"), group("current")) {
        (Some(most), Some(taken)) => Some(free.min(most.saturating_sub(taken))),
        _ => Some(free),
    }
}

/// Refuses `model` if `available` bytes are too few.
pub(super) fn check(model: &Path, available: Option<u64>) -> Result<()> {
    let size = std::fs::metadata(model).map_err(|e| Error::io("cannot open", model, e))?.len();
    let Some(available) = available.filter(|available| size.saturating_mul(TIMES) > *available) else { return Ok(()) };
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    Err(Error::runtime(format!(
        "{} has {:.0} MB; to open it takes about {:.0} MB, and {:.0} MB of memory are free. End other programs, add swap, \
         or use a smaller or a quantised model (tools/quantize.py)",
        model.display(),
        megabytes(size),
        megabytes(size.saturating_mul(TIMES)),
        megabytes(available)
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_model_larger_than_memory_is_refused_before_it_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // A sparse file takes no disk space.
        file.as_file().set_len(2_000_000_000).unwrap();
        let text = check(file.path(), Some(3_900_000_000)).unwrap_err().to_string();
        assert!(text.contains("has 2000 MB; to open it takes about 4000 MB, and 3900 MB of memory are free"), "{text}");
        check(file.path(), Some(4_000_000_000)).unwrap();
        check(file.path(), None).unwrap();
        assert!(available().unwrap() > 1_000_000);
    }
}
