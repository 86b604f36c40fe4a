//! What strains the machine so that the learner should pause: heat, running on battery, a low power mode.
//!
//! Read from `/sys/class/thermal` and `/sys/class/power_supply` of the kernel, and from what `nvpmodel` of a Jetson keeps.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Host;
use crate::error::{Error, Result};

/// Time between two looks.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Paused for heat, it goes on when all zones are so far below, degrees.
const HYSTERESIS: f64 = 5.0;
/// On Jetsons a zone that always says 100 degrees.
const NO_SENSOR: &str = "PMIC-Die";

/// Looks at the machine from time to time.
#[derive(Debug)]
pub struct ThermalMonitor {
    root: PathBuf,
    config: Host,
    /// Files of the zones that count, with their types.
    zones: Vec<(String, PathBuf)>,
    /// Numbers of the modes to pause in.
    modes: Vec<u32>,
    next: Option<Instant>,
    paused: Option<String>,
}

/// The learner is to pause, or to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThrottleEvent {
    /// Why.
    Pause(String),
    /// After this reason.
    Resume(String),
}

impl ThermalMonitor {
    /// Of this machine.
    ///
    /// # Errors
    /// There is nothing that tells what `[host]` asks to look at.
    pub fn open(config: &Host) -> Result<Self> {
        Self::under(Path::new("/"), config)
    }

    fn under(root: &Path, config: &Host) -> Result<Self> {
        let zones = if config.pause_celsius > 0.0 { zones(root, &config.pause_zones)? } else { Vec::new() };
        let modes = config.pause_power_modes.iter().map(|mode| number_of(root, mode)).collect::<Result<_>>()?;
        Ok(Self { root: root.to_owned(), config: config.clone(), zones, modes, next: None, paused: None })
    }

    /// Why the learner pauses now.
    pub fn paused(&self) -> Option<&str> {
        self.paused.as_deref()
    }

    /// Looks, where it is time to: what changed.
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

    /// A battery that is being emptied; those of mice and headsets do not count.
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

/// The zones named, or all, with the files of their temperatures.
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

/// The number of a mode, which may be named as in `/etc/nvpmodel.conf`: `< POWER_MODEL ID=2 NAME=15W >`.
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

/// The entries of a folder, in order; none where it cannot be read.
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
