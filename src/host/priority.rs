//! The scheduling priority of a thread.
use std::io;

use rustix::process::setpriority_process;
use rustix::thread::gettid;

/// The highest nice value (setpriority(2)).
const NICEST: i32 = 19;

/// Gives the calling thread, and no other, the lowest priority: `SCHED_IDLE` of sched(7), so that any other thread that
/// wakes up preempts it at once, and the highest nice value, for tools that show it. A failure is logged as a warning.
pub fn lower_priority() {
    // On Linux each thread has its own nice value, under its thread id.
    let lowered = idle_policy().and_then(|()| Ok(setpriority_process(Some(gettid()), NICEST)?));
    if let Err(error) = lowered {
        tracing::warn!("cannot lower the priority of the learner thread: {error}");
    }
}

#[allow(unsafe_code, reason = "rustix does not cover sched_setscheduler")]
fn idle_policy() -> io::Result<()> {
    let normal = libc::sched_param { sched_priority: 0 };
    // SAFETY: `normal` is a valid parameter that outlives the call; 0 names the calling thread.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const normal) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_asks_is_lowered() {
        // Fields 19 and 41 of stat, counted after the bracket that closes the name (proc(5)): nice value and policy.
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
}
