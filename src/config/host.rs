//! `[host]`: how a run lives with the machine that it is on. A run does not keep it.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Export;

/// Cores have numbers below this (the size of `cpu_set_t`, sched_setaffinity(2)).
const MOST_CORES: usize = 1024;

/// `[host]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Host {
    /// Cores that the learner may run on, as `2` or `0-1,3`; empty: all.
    pub learner_cores: String,
    /// The learner of a live source pauses where a thermal zone is hotter than this, degrees Celsius, until all are 5
    /// below; 0: never.
    pub pause_celsius: f64,
    /// The zones that count, by their `type` under `/sys/class/thermal`; empty: all.
    pub pause_zones: Vec<String>,
    /// The learner of a live source pauses while the machine runs on its battery.
    pub pause_on_battery: bool,
    /// Power modes of a Jetson (`nvpmodel`) in which the learner of a live source pauses, by number or name; empty: none.
    pub pause_power_modes: Vec<String>,
    /// Exported files of a run take at most so much, megabytes: the oldest go first, heads and state never; 0: no limit.
    pub disk_budget_megabytes: f64,
    /// After a stop, a thread that has not saved what it has within so many seconds is named and the program ends without
    /// it. Less than the service manager waits (`TimeoutStopSec`).
    pub stop_secs: f64,
    /// The journal of a run takes at most so much, megabytes: an eighth at a time becomes a part, and the oldest parts go.
    pub journal_megabytes: f64,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            learner_cores: String::new(),
            pause_celsius: 0.0,
            pause_zones: Vec::new(),
            pause_on_battery: false,
            pause_power_modes: Vec::new(),
            disk_budget_megabytes: 0.0,
            stop_secs: 20.0,
            journal_megabytes: 64.0,
        }
    }
}

impl Host {
    /// The numbers of [`Host::learner_cores`], each once, in order; empty: all cores.
    ///
    /// # Errors
    /// The key, what it is and what it must be.
    pub fn cores(&self) -> Result<Vec<usize>, String> {
        let text = &self.learner_cores;
        let wrong = || {
            format!(
                "host.learner_cores = {text:?}: must be numbers or ranges of cores from 0 to {}, such as \"2\" or \
                 \"0-1,3\", or empty",
                MOST_CORES - 1
            )
        };
        let mut cores = Vec::new();
        for part in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<usize>().ok().filter(|core| *core < MOST_CORES);
            match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => cores.extend(first..=last),
                _ => return Err(wrong()),
            }
        }
        cores.sort_unstable();
        cores.dedup();
        Ok(cores)
    }

    /// What is wrong with it, by itself and beside `[export]`.
    pub(super) fn check(&self, export: &Export, problems: &mut Vec<String>) {
        problems.extend(self.cores().err());
        if !self.pause_zones.is_empty() && self.pause_celsius == 0.0 {
            problems.push("host.pause_zones without host.pause_celsius: say above which temperature".into());
        }
        let least = export.rotate_megabytes * (export.kinds() + 1) as f64;
        if self.disk_budget_megabytes > 0.0 && self.disk_budget_megabytes < least {
            problems.push(format!(
                "host.disk_budget_megabytes = {}: must be 0 (no limit) or at least {least}: room for the open files of \
                 export.rotate_megabytes = {}, and one more",
                self.disk_budget_megabytes, export.rotate_megabytes
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_read_as_the_kernel_writes_them() {
        let cores = |text: &str| Host { learner_cores: text.into(), ..Host::default() }.cores();
        assert_eq!(cores(""), Ok(vec![]));
        assert_eq!(cores(" 3 "), Ok(vec![3]));
        assert_eq!(cores("4-5, 0-1,1"), Ok(vec![0, 1, 4, 5]));
        for wrong in ["a", "1-", "-1", "2-1", "1,,2", "1024", "0-99999999999"] {
            let said = cores(wrong).unwrap_err();
            assert!(said.contains("host.learner_cores") && said.contains("from 0 to 1023"), "{said}");
        }
    }

    #[test]
    fn a_budget_holds_the_open_files() {
        let told = |megabytes: f64, export: Export| {
            let mut problems = Vec::new();
            Host { disk_budget_megabytes: megabytes, ..Host::default() }.check(&export, &mut problems);
            problems
        };
        assert!(told(0.0, Export::default()).is_empty() && told(128.0, Export::default()).is_empty());
        assert!(told(128.0, Export { latents: true, ..Export::default() })[0].contains("at least 192"));
    }
}
