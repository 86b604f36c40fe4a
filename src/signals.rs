//! Orderly stops on SIGINT, SIGTERM and SIGHUP.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Instant;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::{Error, Result};

/// A second stop signal within this time repeats the first one: terminals, shells and `timeout` signal both a process and
/// its group.
const REPEAT_NANOS: i64 = 1_000_000_000;

/// Returns a flag that the first SIGINT (Ctrl-C), SIGTERM or SIGHUP sets: the process should stop in order. A signal more
/// than a second later ends the process at once, with exit code 128 + signal. A SIGHUP that is ignored when the process
/// starts (nohup) stays ignored.
///
/// # Errors
/// The system refuses a handler.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let (started, first) = (Instant::now(), Arc::new(AtomicI64::new(0)));
    let handled: &[i32] = if ignored(SIGHUP) { &[SIGINT, SIGTERM] } else { &[SIGINT, SIGTERM, SIGHUP] };
    for signal in handled {
        on_stop(*signal, stop.clone(), started, first.clone())
            .map_err(|error| Error::runtime(format!("cannot handle signal {signal}")).with_source(error))?;
    }
    Ok(stop)
}

#[allow(unsafe_code, reason = "a signal handler must be async-signal-safe")]
fn on_stop(signal: i32, stop: Arc<AtomicBool>, started: Instant, first: Arc<AtomicI64>) -> std::io::Result<()> {
    let act = move || {
        let now = i64::try_from(started.elapsed().as_nanos()).unwrap_or(i64::MAX).max(1);
        match first.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst) {
            Err(before) if now - before >= REPEAT_NANOS => signal_hook::low_level::exit(128 + signal),
            _ => stop.store(true, Ordering::Relaxed),
        }
    };
    // SAFETY: the handler reads a clock, sets atomics or ends the process, all of which are async-signal-safe.
    unsafe { signal_hook::low_level::register(signal, act) }.map(drop)
}

/// Whether this process was started with `signal` ignored.
#[allow(unsafe_code, reason = "no safe interface to the disposition of a signal")]
fn ignored(signal: i32) -> bool {
    // SAFETY: all zeros is a valid sigaction; with a null pointer for the new action the call only fills it.
    let (done, now) = unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0, now)
    };
    done && now.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Runs `test` again in a child process, because signals end it, with the given disposition of SIGHUP; its exit code.
    #[allow(unsafe_code, reason = "the disposition of SIGHUP is inherited, as under `nohup`")]
    fn inside(test: &str, hangup: libc::sighandler_t) -> Option<i32> {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args([&format!("signals::tests::{test}"), "--exact"]).env(INSIDE, "1");
        let set = move || {
            // SAFETY: signal(2) may be called between fork and exec.
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
            // The same stop again, as `timeout` and terminals send it.
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
}
