#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

/// A folder with the files of a fake machine.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for (zone, name, temp) in [(0, "CPU-therm", "40000"), (1, "GPU-therm", "45500"), (2, "PMIC-Die", "100000")] {
            machine.write(&format!("sys/class/thermal/thermal_zone{zone}/type"), name);
            machine.write(&format!("sys/class/thermal/thermal_zone{zone}/temp"), temp);
        }
        machine.write("sys/class/thermal/cooling_device0/type", "pwm-fan");
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn heat(&self, zone: usize, thousandths: u32) {
        self.write(&format!("sys/class/thermal/thermal_zone{zone}/temp"), &thousandths.to_string());
    }

    fn strain(&self, config: Host) -> Result<ThermalMonitor> {
        ThermalMonitor::under(self.0.path(), &config)
    }
}

/// Polls again after the polling interval.
fn look(strain: &mut ThermalMonitor) -> Option<ThrottleEvent> {
    strain.next = None;
    strain.poll(Instant::now())
}

fn hot(celsius: f64, zones: &[&str]) -> Host {
    Host { pause_celsius: celsius, pause_zones: zones.iter().map(ToString::to_string).collect(), ..Host::default() }
}

#[test]
fn heat_pauses_and_goes_on_five_degrees_below() {
    let machine = Machine::new();
    let mut strain = machine.strain(hot(70.0, &[])).unwrap();
    assert_eq!(look(&mut strain), None);
    machine.heat(1, 70_100);
    let Some(ThrottleEvent::Pause(why)) = look(&mut strain) else { panic!("{strain:?}") };
    assert_eq!(why, "GPU-therm has 70.1 degrees Celsius (host.pause_celsius = 70)");
    assert_eq!(strain.paused(), Some(&*why));
    machine.heat(1, 66_000);
    assert_eq!(look(&mut strain), None);
    assert!(strain.paused().is_some());
    machine.heat(1, 64_900);
    assert_eq!(look(&mut strain), Some(ThrottleEvent::Resume(why)));
    assert_eq!(look(&mut strain), None);
    assert_eq!(strain.paused(), None);
    // No check before the interval has passed.
    machine.heat(0, 99_000);
    assert_eq!(strain.poll(Instant::now()), None);
    assert!(matches!(look(&mut strain), Some(ThrottleEvent::Pause(_))));
}

#[test]
fn only_the_zones_named_count() {
    let machine = Machine::new();
    let mut strain = machine.strain(hot(70.0, &["CPU-therm"])).unwrap();
    machine.heat(1, 99_000);
    assert_eq!(look(&mut strain), None);
    machine.heat(0, 71_000);
    assert!(matches!(look(&mut strain), Some(ThrottleEvent::Pause(why)) if why.starts_with("CPU-therm")));
    let said = machine.strain(hot(70.0, &["cpu"])).unwrap_err().to_string();
    assert!(said.contains("has \"cpu\": the zones here are [CPU-therm, GPU-therm, PMIC-Die]"), "{said}");
}

#[test]
fn a_machine_without_sensors_is_told() {
    let machine = Machine(tempfile::tempdir().unwrap());
    machine.strain(Host::default()).unwrap();
    let said = machine.strain(hot(70.0, &[])).unwrap_err().to_string();
    assert!(said.contains("no thermal zone") && said.contains("set it to 0"), "{said}");
    // A zone that cannot be read at the moment is not hot.
    let machine = Machine::new();
    let mut strain = machine.strain(hot(30.0, &["CPU-therm"])).unwrap();
    machine.write("sys/class/thermal/thermal_zone0/temp", "N/A");
    assert_eq!(look(&mut strain), None);
}

#[test]
fn a_battery_that_is_emptied_pauses() {
    let machine = Machine::new();
    let mut strain = machine.strain(Host { pause_on_battery: true, ..Host::default() }).unwrap();
    assert_eq!(look(&mut strain), None);
    for (name, scope) in [("hidpp_battery_0", "Device"), ("BAT0", "System")] {
        machine.write(&format!("sys/class/power_supply/{name}/type"), "Battery");
        machine.write(&format!("sys/class/power_supply/{name}/status"), "Discharging");
        machine.write(&format!("sys/class/power_supply/{name}/scope"), scope);
    }
    assert!(matches!(look(&mut strain), Some(ThrottleEvent::Pause(why)) if why.starts_with("battery BAT0")));
    machine.write("sys/class/power_supply/BAT0/status", "Charging");
    assert!(matches!(look(&mut strain), Some(ThrottleEvent::Resume(_))));
}

#[test]
fn power_modes_are_known_by_number_and_by_name() {
    let machine = Machine::new();
    let modes =
        |modes: &[&str]| Host { pause_power_modes: modes.iter().map(ToString::to_string).collect(), ..Host::default() };
    let said = machine.strain(modes(&["15W"])).unwrap_err().to_string();
    assert!(said.contains("/var/lib/nvpmodel/status"), "{said}");
    machine.write("var/lib/nvpmodel/status", "pmode:0000 fmode:quiet");
    machine.write(
        "etc/nvpmodel.conf",
        "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=15W >",
    );
    let said = machine.strain(modes(&["7W"])).unwrap_err().to_string();
    assert!(said.contains("has \"7W\"") && said.contains("[0 MAXN, 2 15W]"), "{said}");
    for named in ["15W", "2"] {
        machine.write("var/lib/nvpmodel/status", "pmode:0000 fmode:quiet");
        let mut strain = machine.strain(modes(&[named])).unwrap();
        assert_eq!(look(&mut strain), None);
        machine.write("var/lib/nvpmodel/status", "pmode:0002 fmode:quiet");
        assert!(matches!(look(&mut strain), Some(ThrottleEvent::Pause(why)) if why.contains("power mode 2")));
    }
}
