//! Reasons to pause the learner: heat, running on battery, or a low power mode.
//!
//! Reads `/sys/class/thermal` and `/sys/class/power_supply` of the kernel, and the files of `nvpmodel` on a Jetson.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Host;
use crate::error::{Error, Result};

/// Time between two checks.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// After a pause for heat the learner resumes when all zones are this many degrees below the limit.
const HYSTERESIS: f64 = 5.0;
/// A zone on Jetsons that always reports 100 degrees.
const NO_SENSOR: &str = "PMIC-Die";

/// Polls the temperature and the power state of the machine.
#[derive(Debug)]
pub struct ThermalMonitor {
    root: PathBuf,
    config: Host,
    /// The files of the monitored zones, with their types.
    zones: Vec<(String, PathBuf)>,
    /// Numbers of the power modes to pause in.
    modes: Vec<u32>,
    next: Option<Instant>,
    paused: Option<String>,
}

/// The learner should pause or resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThrottleEvent {
    /// Pause, for this reason.
    Pause(String),
    /// Resume after a pause for this reason.
    Resume(String),
}

impl ThermalMonitor {
    /// Opens the sensors of this machine.
    ///
    /// # Errors
    /// Nothing reports what `[host]` asks to monitor.
    pub fn open(config: &Host) -> Result<Self> {
        Self::under(Path::new("/"), config)
    }

    fn under(root: &Path, config: &Host) -> Result<Self> {
        let zones = if config.pause_celsius > 0.0 { zones(root, &config.pause_zones)? } else { Vec::new() };
        let modes = config.pause_power_modes.iter().map(|mode| number_of(root, mode)).collect::<Result<_>>()?;
        Ok(Self { root: root.to_owned(), config: config.clone(), zones, modes, next: None, paused: None })
    }

    /// Why the learner is paused now.
    pub fn paused(&self) -> Option<&str> {
        self.paused.as_deref()
    }

    /// Checks the machine if a check is due; returns what changed.
    pub fn poll(&mut self, now: Instant) -> Option<ThrottleEvent> {
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + POLL_INTERVAL);
        let reason = self.battery().or_else(|| self.mode()).or_else(|| self.heat());
        match (reason, &mut self.paused) {
            (Some(reason), paused @ None) => {
                *paused = Some(reason.clone());
                Some(ThrottleEvent::Pause(reason))
            }
            (Some(_), Some(_)) => None,
            (None, paused) => paused.take().map(ThrottleEvent::Resume),
        }
    }

    /// A zone above the limit, or not yet far enough below it.
    fn heat(&self) -> Option<String> {
        let limit = self.config.pause_celsius - if self.paused.is_some() { HYSTERESIS } else { 0.0 };
        let read = self.zones.iter().filter_map(|(name, file)| Some((name, celsius(file)?)));
        let (name, hottest) = read.max_by(|one, other| one.1.total_cmp(&other.1))?;
        let limits = self.config.pause_celsius;
        (hottest > limit).then(|| format!("{name} has {hottest:.1} degrees Celsius (host.pause_celsius = {limits})"))
    }

    /// A discharging battery; batteries of mice and headsets do not count.
    fn battery(&self) -> Option<String> {
        let on = self.config.pause_on_battery;
        let folder = self.root.join("sys/class/power_supply");
        let supplies = on.then(|| entries(&folder)).into_iter().flatten();
        let empties = |supply: &PathBuf| {
            let is = |file: &str, word: &str| text(&supply.join(file)).is_some_and(|found| found == word);
            is("type", "Battery") && is("status", "Discharging") && !is("scope", "Device")
        };
        let found = supplies.into_iter().find(empties)?;
        Some(format!("battery {} is discharging (host.pause_on_battery)", name_of(&found)))
    }

    fn mode(&self) -> Option<String> {
        let mode = mode_of(&self.root).filter(|mode| self.modes.contains(mode))?;
        Some(format!("the machine is in power mode {mode} (host.pause_power_modes)"))
    }
}

/// The zones in `wanted`, or all, with their temperature files.
fn zones(root: &Path, wanted: &[String]) -> Result<Vec<(String, PathBuf)>> {
    let folder = root.join("sys/class/thermal");
    let there: Vec<(String, PathBuf)> = entries(&folder)
        .into_iter()
        .filter(|zone| name_of(zone).starts_with("thermal_zone"))
        .filter_map(|zone| Some((text(&zone.join("type"))?, zone.join("temp"))))
        .collect();
    let names = || there.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(missing) = wanted.iter().find(|name| there.iter().all(|(there, _)| there != *name)) {
        return Err(Error::config(format!("host.pause_zones has {missing:?}: the zones here are [{}]", names())));
    }
    let counts = |name: &String| if wanted.is_empty() { name != NO_SENSOR } else { wanted.contains(name) };
    let found: Vec<_> = there.iter().filter(|(name, _)| counts(name)).cloned().collect();
    if found.iter().all(|(_, file)| celsius(file).is_none()) {
        return Err(Error::config(format!(
            "host.pause_celsius is set, but no thermal zone under {} tells a temperature (found [{}]); set it to 0 on \
             this machine",
            folder.display(),
            names()
        )));
    }
    Ok(found)
}

/// `temp` is in thousandths of a degree.
fn celsius(file: &Path) -> Option<f64> {
    text(file)?.parse::<f64>().ok().map(|thousandths| thousandths / 1000.0)
}

/// The mode that `nvpmodel` has set: `pmode:0002 fmode:quiet`.
fn mode_of(root: &Path) -> Option<u32> {
    let status = text(&root.join("var/lib/nvpmodel/status"))?;
    status.split_whitespace().find_map(|word| word.strip_prefix("pmode:")?.parse().ok())
}

/// The number of a mode, which may be given by its name in `/etc/nvpmodel.conf`: `< POWER_MODEL ID=2 NAME=15W >`.
fn number_of(root: &Path, mode: &str) -> Result<u32> {
    if mode_of(root).is_none() {
        return Err(Error::config(
            "host.pause_power_modes is set, but /var/lib/nvpmodel/status does not tell the power mode; leave it empty on \
             a machine that is no Jetson",
        ));
    }
    if let Ok(number) = mode.parse() {
        return Ok(number);
    }
    let table = fs::read_to_string(root.join("etc/nvpmodel.conf")).unwrap_or_default();
    let modes = table.lines().filter(|line| line.contains("POWER_MODEL")).filter_map(|line| {
        let field = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key));
        Some((field("ID=")?.parse::<u32>().ok()?, field("NAME=")?))
    });
    let modes: Vec<_> = modes.collect();
    modes.iter().find(|(_, name)| *name == mode).map(|(number, _)| *number).ok_or_else(|| {
        let there: Vec<String> = modes.iter().map(|(number, name)| format!("{number} {name}")).collect();
        Error::config(format!(
            "host.pause_power_modes has {mode:?}: must be a number or a name of /etc/nvpmodel.conf, which has [{}]",
            there.join(", ")
        ))
    })
}

/// The entries of a folder, sorted; empty if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    found.sort();
    found
}

fn text(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
#[path = "throttle_tests.rs"]
mod tests;
