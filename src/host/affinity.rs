//! Which cores a thread may run on: sched_setaffinity(2).
#![allow(unsafe_code, reason = "no safe interface to the cores of one thread")]
use std::mem;

use crate::error::{Error, Result};

/// Every one of `cores` is there for this process.
///
/// # Errors
/// Which are not, and which are.
pub(super) fn check(cores: &[usize]) -> Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    let there = allowed()?;
    let missing: Vec<String> = cores.iter().filter(|core| !there.contains(core)).map(usize::to_string).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let there: Vec<String> = there.iter().map(usize::to_string).collect();
    Err(Error::config(format!(
        "host.learner_cores names {}: this process may use the cores {}",
        missing.join(", "),
        there.join(", ")
    )))
}

/// Keeps this thread, and no other, on `cores`; none named: leaves it as it is.
///
/// # Errors
/// A core that this process may not use, or the system refuses.
pub fn pin(cores: &[usize]) -> Result<()> {
    check(cores)?;
    if cores.is_empty() {
        return Ok(());
    }
    // SAFETY: all zeroes are the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for core in cores {
        // SAFETY: `check` has found the core in a set of this size, so the bit lies within it.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    // SAFETY: `set` is a valid set of the size given, and lives through the call; 0 is this thread.
    let done = unsafe { libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw const set) };
    if done == 0 {
        return Ok(());
    }
    let why = std::io::Error::last_os_error();
    Err(Error::runtime(format!("the learner cannot be kept on the cores {cores:?} (host.learner_cores)"))
        .with_source(why))
}

/// Cores that this thread may run on.
fn allowed() -> Result<Vec<usize>> {
    // SAFETY: all zeroes are the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is of the size given and lives through the call, which writes to nothing else; 0 is this thread.
    let done = unsafe { libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw mut set) };
    if done != 0 {
        return Err(Error::runtime("the system does not say which cores may be used")
            .with_source(std::io::Error::last_os_error()));
    }
    let size = mem::size_of::<libc::cpu_set_t>() * 8;
    // SAFETY: every number is below the count of bits of the set.
    Ok((0..size).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_the_thread_that_asks_is_pinned() {
        let before = allowed().unwrap();
        let last = *before.last().unwrap();
        let pinned = std::thread::spawn(move || {
            pin(&[last]).unwrap();
            allowed().unwrap()
        });
        assert_eq!((pinned.join().unwrap(), allowed().unwrap()), (vec![last], before));
    }

    #[test]
    fn a_core_that_is_not_there_is_named_with_those_that_are() {
        let there = allowed().unwrap();
        let said = pin(&[there[0], 1023]).unwrap_err().to_string();
        assert!(said.contains("names 1023: this process may use the cores") && said.contains(&there[0].to_string()));
        assert_eq!(allowed().unwrap(), there);
        pin(&[]).unwrap();
        assert_eq!(allowed().unwrap(), there);
    }
}
