//! Measures where each node of the opened graph really ran: ONNX Runtime profiles the first inference (JSON,
//! `args.provider` of each node), which every version supports. The nodes are those left after ONNX Runtime's
//! optimisations; each part that TensorRT or OpenVINO takes is one node.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

/// Upper bound on the size of a profile of one inference, bytes.
const MAX_BYTES: u64 = 64 << 20;
/// Number of operators that a description names for each provider other than the requested one.
const SHOWN: usize = 4;

/// The nodes that ran on one provider.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ProviderStats {
    /// Number of nodes.
    pub nodes: usize,
    /// Operators of these nodes, and how often each ran.
    pub operators: BTreeMap<String, usize>,
    /// Total time of these nodes in the first inference, milliseconds.
    #[serde(skip)]
    pub millis: f64,
}

/// Which nodes ran on which provider (`CPUExecutionProvider`, ...).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Placement {
    /// Keyed by ONNX Runtime's name of the provider.
    pub providers: BTreeMap<String, ProviderStats>,
}

impl Placement {
    /// Parses the profile of one inference; `None` if it is not one.
    pub(super) fn read(profile: &str) -> Option<Self> {
        let events: Value = serde_json::from_str(profile).ok()?;
        let mut found = Self::default();
        // Capturing a CUDA graph runs each node more than once.
        let mut seen = BTreeSet::new();
        for event in events.as_array()? {
            let node = event["cat"] == "Node" && event["name"].as_str().is_some_and(|n| n.ends_with("_kernel_time"));
            let (Some(provider), true) = (event["args"]["provider"].as_str(), node) else { continue };
            if !seen.insert((event["name"].as_str(), event["args"]["node_index"].to_string())) {
                continue;
            }
            let share = found.providers.entry(provider.to_owned()).or_default();
            share.nodes += 1;
            share.millis += event["dur"].as_f64().unwrap_or(0.0) / 1e3;
            let operator = event["args"]["op_name"].as_str().unwrap_or("unknown");
            *share.operators.entry(operator.to_owned()).or_default() += 1;
        }
        (!found.providers.is_empty()).then_some(found)
    }

    /// For example `CUDA 50 nodes (97 % of the time), CPU 2 nodes (3 %: Shape, Gather)`.
    pub fn describe(&self) -> String {
        let total: f64 = self.providers.values().map(|share| share.millis).sum();
        let one = |(name, share): (&String, &ProviderStats)| {
            let name = name.strip_suffix("ExecutionProvider").unwrap_or(name);
            let noun = if share.nodes == 1 { "node" } else { "nodes" };
            let percent = 100.0 * share.millis / total.max(f64::MIN_POSITIVE);
            let mut operators: Vec<(&String, &usize)> = share.operators.iter().collect();
            operators.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
            let more = if operators.len() > SHOWN { ", ..." } else { "" };
            let operators: Vec<String> =
                operators.into_iter().take(SHOWN).map(|(name, count)| format!("{count} {name}")).collect();
            format!("{name} {} {noun} ({percent:.0} % of the time: {}{more})", share.nodes, operators.join(", "))
        };
        self.providers.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

/// A temporary file for the profile of one session, removed when dropped.
#[derive(Debug)]
pub(super) struct Profile {
    folder: TempDir,
}

/// Prefix of its folder; the process ID follows.
const NAME: &str = "afterimage-profile-";

impl Profile {
    /// `None` if the folder cannot be created: then nothing is measured.
    pub(super) fn new() -> Option<Self> {
        let all = std::env::temp_dir();
        sweep(&all);
        match tempfile::Builder::new().prefix(&format!("{NAME}{}-", std::process::id())).tempdir_in(&all) {
            Ok(folder) => Some(Self { folder }),
            Err(e) => {
                tracing::debug!("where nodes run is not measured: {}: {e}", all.display());
                None
            }
        }
    }

    /// Prefix of the file name.
    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("profile")
    }

    /// Reads the profile in `file`.
    pub(super) fn read(&self, file: &str) -> Option<Placement> {
        let file = Path::new(file);
        if std::fs::metadata(file).ok()?.len() > MAX_BYTES {
            return None;
        }
        Placement::read(&std::fs::read_to_string(file).ok()?)
    }
}

/// Removes the folders in `all` of processes that were killed.
fn sweep(all: &Path) {
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(NAME)?.split('-').next()?.parse::<u32>().ok());
        // A folder of another user cannot be removed, so it stays.
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_a_killed_process_left_goes_and_no_other() {
        let all = tempfile::tempdir().unwrap();
        let folders = [format!("{NAME}{}-a", std::process::id()), format!("{NAME}4194305-b"), "other".to_owned()];
        folders.iter().for_each(|name| std::fs::create_dir(all.path().join(name)).unwrap());
        sweep(all.path());
        assert_eq!(folders.map(|name| all.path().join(name).exists()), [true, false, true]);
    }

    #[test]
    fn nodes_are_counted_where_they_ran() {
        let node = |name: &str, op: &str, provider: &str, dur: u32| {
            format!(
                r#"{{"cat":"Node","name":"{name}","dur":{dur},"args":{{"op_name":"{op}","provider":"{provider}"}}}}"#
            )
        };
        let text = format!(
            r#"[{{"cat":"Session","name":"model_run","dur":9,"args":{{}}}},{},{},{},{},{}]"#,
            node("a_kernel_time", "Conv", "CUDAExecutionProvider", 3000),
            node("b_kernel_time", "Conv", "CUDAExecutionProvider", 500),
            node("c_kernel_time", "Shape", "CPUExecutionProvider", 500),
            node("b_kernel_time", "Conv", "CUDAExecutionProvider", 400),
            node("c_fence_before", "Shape", "CPUExecutionProvider", 70),
        );
        let found = Placement::read(&text).unwrap();
        assert_eq!(found.describe(), "CPU 1 node (12 % of the time: 1 Shape); CUDA 2 nodes (88 % of the time: 2 Conv)");
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(json["CUDAExecutionProvider"], serde_json::json!({"nodes": 2, "operators": {"Conv": 2}}));
        for not in ["", "{}", "[]", r#"[{"cat":"Node","name":"x_kernel_time","args":3}]"#, "[1, null]"] {
            assert_eq!(Placement::read(not), None, "{not}");
        }
    }

    #[test]
    fn a_profile_leaves_nothing_behind() {
        let profile = Profile::new().unwrap();
        let folder = profile.folder.path().to_owned();
        std::fs::write(profile.file(), "[]").unwrap();
        assert_eq!(profile.read(profile.file().to_str().unwrap()), None);
        drop(profile);
        assert!(!folder.exists());
    }
}
