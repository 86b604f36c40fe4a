//! Logging, figures of the process, and orderly stops.
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::time::uptime;
use tracing_subscriber::prelude::*;

use crate::error::{Error, Result};

/// The highest nice value there is (setpriority(2)).
const NICEST: i32 = 19;

/// Lines with this target were asked for, and are shown whatever the verbosity.
pub const ALWAYS: &str = "asked";

/// Log lines to standard error, one line an event: seconds since the start, level, text. Colour only on a terminal (and
/// not where `NO_COLOR` is set). `verbosity` is the count of `-v` less that of `-q`: 0 informs, 1 debugs, 2 traces; -1
/// warns, -2 only errors, below nothing. ONNX Runtime speaks one level lower. A second call does nothing.
pub fn init_logging(verbosity: i8) {
    let level = |verbosity: i8| match verbosity {
        ..=-3 => LevelFilter::OFF,
        -2 => LevelFilter::ERROR,
        -1 => LevelFilter::WARN,
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        2.. => LevelFilter::TRACE,
    };
    let shown = Targets::new()
        .with_default(level(verbosity))
        .with_target("ort", level(verbosity.saturating_sub(1)))
        .with_target(ALWAYS, LevelFilter::INFO);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer().compact().with_target(false).with_timer(uptime());
    let lines = lines.with_ansi(colour).map_fmt_fields(|_| Escaped).with_writer(std::io::stderr).with_filter(shown);
    // The only error is that logging is set up already.
    drop(tracing_subscriber::registry().with(lines).try_init());
}

/// Writes the text of an event with its control characters escaped: names of files and words of other programs come from
/// anybody, and a line break in them must not begin a line that looks like one of ours, nor an escape code move the cursor.
struct Escaped;

impl<'writer> FormatFields<'writer> for Escaped {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> std::fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), fields)?;
        escaped(&text, &mut writer)
    }
}

fn escaped(text: &str, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
    // What turns the direction of writing is no control character for `char`, and can make a name look like another.
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    for c in text.chars() {
        if c.is_control() || turns(c) { write!(out, "{}", c.escape_default())? } else { out.write_char(c)? }
    }
    Ok(())
}

/// An error as it is shown at the end: control characters are escaped but for the line breaks of a list, which indent.
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    for (at, part) in text.split("\n  ").enumerate() {
        out += if at == 0 { "" } else { "\n  " };
        // Writing to a string cannot fail.
        escaped(part, &mut out).ok();
    }
    out
}

/// Blocks of memory of this size and above go back to the system when they are let go, bytes.
#[cfg(target_env = "gnu")]
const RETURNED_BYTES: libc::c_int = 8 << 20;

/// Has large blocks of memory (the matrices of a fit) go back to the system as soon as they are let go. By itself glibc
/// begins to keep what it sees let go, for each thread apart: a hundred megabytes of nothing on a small board. Other
/// systems are left as they are.
#[cfg_attr(target_env = "gnu", allow(unsafe_code, reason = "no safe interface to the allocator's settings"))]
pub fn return_large_blocks() {
    // SAFETY: takes numbers only, and may be called at any time. A refusal leaves things as they were.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, RETURNED_BYTES);
    }
}

/// Most memory that this process ever held at once, in megabytes (10^6 bytes): `VmHWM` of proc(5). `None` where the
/// system does not say.
pub fn peak_memory_megabytes() -> Option<f64> {
    status_megabytes("VmHWM:")
}

/// Memory that this process holds now, in megabytes (10^6 bytes): `VmRSS` of proc(5).
pub fn resident_megabytes() -> Option<f64> {
    status_megabytes("VmRSS:")
}

fn status_megabytes(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let rest = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: f64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0 / 1e6)
}

/// Puts this thread, and no other, behind everything else that wants the processor: `SCHED_IDLE` of sched(7), so that a
/// thread that wakes up takes the core from it at once and does not crowd onto another; the highest nice value too, for
/// tools that show it. A failure is a warning in the log.
#[allow(unsafe_code, reason = "no safe interface to the priority of one thread")]
pub fn lower_priority() {
    let normal = libc::sched_param { sched_priority: 0 };
    // SAFETY: `normal` is a valid parameter that lives through the call; the other calls take numbers only. On Linux a
    // thread has a policy and a nice value of its own; 0 and its id name it.
    let done = unsafe {
        let idle = libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const normal);
        let thread = libc::gettid();
        idle == 0 && libc::setpriority(libc::PRIO_PROCESS, thread as libc::id_t, NICEST) == 0
    };
    if !done {
        let error = std::io::Error::last_os_error();
        tracing::warn!("the learner runs at a higher priority than it should, it could not be lowered: {error}");
    }
}

/// Processor time that this thread used so far; zero where the system does not say.
pub fn thread_cpu_time() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

/// Processor time of all threads of this process so far; `None` where the system does not say.
pub fn process_cpu_time() -> Option<Duration> {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

#[allow(unsafe_code, reason = "no safe interface to the clocks of processor time")]
fn clock(which: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that lives through the call, which writes to nothing else.
    let done = unsafe { libc::clock_gettime(which, &raw mut time) };
    let (secs, nanoseconds) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
    (done == 0).then(|| Duration::new(secs, nanoseconds))
}

/// A signal to stop that comes so soon after the first one is that one again: a terminal, a shell and `timeout` send theirs to
/// a process and to its group.
const AGAIN_NANOSECONDS: i64 = 1_000_000_000;

/// A flag that the first SIGINT (Ctrl-C), SIGTERM or SIGHUP sets: stop in order. One that comes more than a second later ends
/// the process at once, with the exit code 128 + signal. A SIGHUP that is ignored from the start (nohup) stays so.
/// # Errors
/// The system refuses a handler.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let first = Arc::new(AtomicI64::new(0));
    let handled: &[i32] = if ignored(SIGHUP) { &[SIGINT, SIGTERM] } else { &[SIGINT, SIGTERM, SIGHUP] };
    for signal in handled {
        on_stop(*signal, stop.clone(), first.clone())
            .map_err(|error| Error::runtime(format!("cannot handle signal {signal}")).with_source(error))?;
    }
    Ok(stop)
}

#[allow(unsafe_code, reason = "what a signal does is code of ours")]
fn on_stop(signal: i32, stop: Arc<AtomicBool>, first: Arc<AtomicI64>) -> std::io::Result<()> {
    let act = move || {
        let now =
            clock(libc::CLOCK_MONOTONIC).map_or(1, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX).max(1));
        match first.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst) {
            Err(before) if now - before >= AGAIN_NANOSECONDS => signal_hook::low_level::exit(128 + signal),
            _ => stop.store(true, Ordering::Relaxed),
        }
    };
    // SAFETY: it reads a clock, sets atomics or ends the process; all of these may be done in a signal handler.
    unsafe { signal_hook::low_level::register(signal, act) }.map(drop)
}

/// Whether whoever started this process had it ignore `signal`.
#[allow(unsafe_code, reason = "no safe interface to what a signal does now")]
fn ignored(signal: i32) -> bool {
    // SAFETY: all bits zero is a valid sigaction, which the call fills; nothing is changed where no new one is given.
    let (done, now) = unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0, now)
    };
    done && now.sa_sigaction == libc::SIG_IGN
}

/// Shortest time that [`LatencyHistogram`] tells apart, seconds.
const SHORTEST: f64 = 1e-6;

/// Width of its classes: each is so many times as long as the one before.
const GROWTH: f64 = 1.01;

/// So many classes reach from 1 microsecond to over 1000 seconds: `ln(1e9) / ln(1.01)`.
const CLASSES: usize = 2083;

/// Times, counted in classes 1 % apart (1 microsecond to 1000 seconds): memory is fixed, recording allocates nothing.
#[derive(Debug, Clone)]
pub struct LatencyHistogram {
    counts: Box<[u64]>,
    count: u64,
    max: Duration,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self { counts: vec![0; CLASSES].into_boxed_slice(), count: 0, max: Duration::ZERO }
    }
}

impl LatencyHistogram {
    /// Counts one time.
    pub fn record(&mut self, time: Duration) {
        let class = (time.as_secs_f64() / SHORTEST).max(1.0).ln() / GROWTH.ln();
        self.counts[(class as usize).min(CLASSES - 1)] += 1;
        self.count += 1;
        self.max = self.max.max(time);
    }

    /// Times counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest time.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The time that a share `p` (0 to 1) of all times does not exceed (nearest rank), within 1 %; `None` of no times.
    pub fn percentile(&self, p: f64) -> Option<Duration> {
        let rank = ((p * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0;
        let class = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        // The last class is open to the top.
        if class == CLASSES - 1 {
            return Some(self.max);
        }
        let middle = SHORTEST * GROWTH.powf(class as f64 + 0.5);
        Some(Duration::from_secs_f64(middle).min(self.max))
    }

    /// [`LatencyHistogram::percentile`] in milliseconds; 0 of no times.
    pub fn percentile_ms(&self, p: f64) -> f64 {
        self.percentile(p).unwrap_or_default().as_secs_f64() * 1e3
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn percentiles_are_within_one_percent() {
        let mut latency = LatencyHistogram::default();
        assert_eq!((latency.percentile(0.5), latency.percentile_ms(0.99)), (None, 0.0));
        for i in 1..=10_000u64 {
            latency.record(Duration::from_micros(i * i % 99_991 + 10));
        }
        let mut exact: Vec<f64> = (1..=10_000u64).map(|i| (i * i % 99_991 + 10) as f64 * 1e-6).collect();
        exact.sort_by(f64::total_cmp);
        for p in [0.01, 0.5, 0.9, 0.99, 1.0] {
            let found = latency.percentile(p).unwrap().as_secs_f64();
            let exact = exact[(p * 10_000.0) as usize - 1];
            assert!((found / exact - 1.0).abs() < 0.01, "{p}: {found} {exact}");
        }
        assert_eq!((latency.count(), latency.max().as_secs_f64()), (10_000, exact[9_999]));
    }

    #[test]
    fn times_beyond_the_classes_are_counted_at_their_ends() {
        let mut latency = LatencyHistogram::default();
        latency.record(Duration::ZERO);
        assert_eq!(latency.percentile(0.5), Some(Duration::ZERO));
        latency.record(Duration::MAX);
        assert_eq!(latency.percentile(1.0), Some(Duration::MAX));
        assert!(latency.percentile(0.5).unwrap() < Duration::from_micros(2));
        assert!(SHORTEST * GROWTH.powi(CLASSES as i32) > 1000.0);
    }

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
        assert!(process_cpu_time().unwrap() >= thread_cpu_time() - start);
    }

    #[test]
    fn only_the_thread_that_asks_is_lowered() {
        // Fields 19 and 41 of stat, counted after the bracket that closes the name: nice value and policy (proc(5)).
        let priority = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            [fields[16], fields[38]].map(|field| field.parse::<i32>().unwrap())
        };
        let before = priority();
        let lowered = std::thread::spawn(move || {
            lower_priority();
            priority()
        });
        assert_eq!((lowered.join().unwrap(), priority()), ([NICEST, libc::SCHED_IDLE], before));
        assert_ne!(before[1], libc::SCHED_IDLE);
    }

    /// This test again in a process of its own, since signals end it, with what a hangup does there; its exit code.
    #[allow(unsafe_code, reason = "what a hangup does is inherited, under `nohup` too")]
    fn inside(test: &str, hangup: libc::sighandler_t) -> Option<i32> {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args([&format!("telemetry::tests::{test}"), "--exact"]).env(INSIDE, "1");
        let set = move || {
            // SAFETY: sets what a signal does; allowed between fork and exec.
            unsafe { libc::signal(libc::SIGHUP, hangup) };
            Ok(())
        };
        // SAFETY: the closure calls signal(2) alone.
        unsafe { command.pre_exec(set) };
        command.output().unwrap().status.code()
    }

    const INSIDE: &str = "AFTERIMAGE_TEST_OF_SIGNALS";

    #[test]
    fn the_first_signal_asks_to_stop_and_a_later_one_stops() {
        if std::env::var_os(INSIDE).is_some() {
            let stop = stop_on_signals().unwrap();
            signal_hook::low_level::raise(SIGHUP).unwrap();
            assert!(stop.load(Ordering::Relaxed));
            // The same stop once more, as `timeout` and a terminal send it.
            signal_hook::low_level::raise(SIGTERM).unwrap();
            signal_hook::low_level::raise(SIGINT).unwrap();
            std::thread::sleep(Duration::from_millis(1100));
            signal_hook::low_level::raise(SIGINT).unwrap();
            unreachable!("a later signal ends the process");
        }
        let code = inside("the_first_signal_asks_to_stop_and_a_later_one_stops", libc::SIG_DFL);
        assert_eq!(code, Some(128 + SIGINT));
    }

    #[test]
    fn a_hangup_that_is_ignored_from_the_start_stays_ignored() {
        if std::env::var_os(INSIDE).is_some() {
            let stop = stop_on_signals().unwrap();
            signal_hook::low_level::raise(SIGHUP).unwrap();
            assert!(!stop.load(Ordering::Relaxed));
            return;
        }
        let code = inside("a_hangup_that_is_ignored_from_the_start_stays_ignored", libc::SIG_IGN);
        assert_eq!(code, Some(0));
    }

    #[test]
    fn names_of_files_cannot_write_log_lines_of_their_own() {
        let mut out = String::new();
        escaped("a\nb\r\u{1b}[2Jc\t\u{9b}31m\u{202e}gpj \u{e9}\u{7f}", &mut out).unwrap();
        assert_eq!(out, r"a\nb\r\u{1b}[2Jc\t\u{9b}31m\u{202e}gpj é\u{7f}");
    }

    #[test]
    fn a_list_of_mistakes_keeps_its_lines_and_nothing_else() {
        assert_eq!(printable("two mistakes:\n  a\nb: c\n  d\u{1b}[K"), "two mistakes:\n  a\\nb: c\n  d\\u{1b}[K");
    }

    #[test]
    fn logging_can_be_set_up_twice() {
        init_logging(-3);
        init_logging(i8::MIN);
        tracing::error!("not shown");
    }
}
