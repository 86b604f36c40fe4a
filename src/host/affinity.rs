//! CPU affinity of a thread.
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::{Error, Result};

/// Checks that this process may use all of `cores`.
///
/// # Errors
/// Names the cores that it may not use, and those that it may.
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

/// Restricts the calling thread, and no other, to `cores`; an empty list changes nothing.
///
/// # Errors
/// This process may not use one of the cores, or the system refuses.
pub fn pin(cores: &[usize]) -> Result<()> {
    check(cores)?;
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set).map_err(|errno| {
        Error::runtime(format!("cannot pin the learner thread to the cores {cores:?} (host.learner_cores)"))
            .with_source(std::io::Error::from(errno))
    })
}

/// The cores that the calling thread may run on.
fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).map_err(|errno| {
        Error::runtime("cannot find out which cores may be used").with_source(std::io::Error::from(errno))
    })?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
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
