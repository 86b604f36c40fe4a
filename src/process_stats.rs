//! Memory and processor time of this process.
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Peak resident memory of this process in megabytes (10^6 bytes): `VmHWM` of proc(5). `None` where the system does not
/// tell.
pub fn peak_memory_megabytes() -> Option<f64> {
    status_megabytes("VmHWM:")
}

/// Resident memory of this process in megabytes (10^6 bytes): `VmRSS` of proc(5).
pub fn resident_megabytes() -> Option<f64> {
    status_megabytes("VmRSS:")
}

fn status_megabytes(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let rest = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: f64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0 / 1e6)
}

/// Processor time that this thread has used.
pub fn thread_cpu_time() -> Duration {
    duration(clock_gettime(ClockId::ThreadCPUTime))
}

/// Processor time that all threads of this process have used.
pub fn process_cpu_time() -> Duration {
    duration(clock_gettime(ClockId::ProcessCPUTime))
}

fn duration(time: Timespec) -> Duration {
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn memory_is_that_of_this_process() {
        let ballast = vec![1u8; 50_000_000];
        let now = resident_megabytes().unwrap();
        let peak = peak_memory_megabytes().unwrap();
        assert!(now > 50.0 && peak >= now && peak < 100_000.0, "{now} {peak}");
        assert_eq!(ballast.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 50_000_000);
    }

    #[test]
    fn processor_time_is_that_of_this_thread() {
        let start = thread_cpu_time();
        let slept = std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            thread_cpu_time()
        });
        assert!(slept.join().unwrap() < Duration::from_millis(40));
        let mut sum = 0u64;
        while thread_cpu_time() - start < Duration::from_millis(20) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 1);
        assert!(process_cpu_time() >= thread_cpu_time() - start);
    }
}
