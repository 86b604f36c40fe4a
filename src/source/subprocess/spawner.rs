//! Children that do not outlive this process, not even where it is killed (`kill -9`).
//!
//! The kernel ends a child with its parent where the child has asked for it (`PR_SET_PDEATHSIG`); its parent is there the
//! *thread* that started it, and sources are opened on threads that end. So one thread, which never ends, starts all.
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;

use crossbeam_channel::{Sender, bounded};

/// A command, and where its child goes.
type Job = (Command, Sender<io::Result<Child>>);

/// Starts `command`, whose child will be killed when this process ends in whatever way.
pub(super) fn spawn(mut command: Command) -> io::Result<Child> {
    die_with_parent(&mut command);
    let (answer, child) = bounded(1);
    let gone = || io::Error::other("the thread that starts decoders has ended");
    jobs()?.send((command, answer)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

fn jobs() -> io::Result<&'static Sender<Job>> {
    static JOBS: OnceLock<Sender<Job>> = OnceLock::new();
    if let Some(jobs) = JOBS.get() {
        return Ok(jobs);
    }
    let (jobs, todo) = bounded::<Job>(1);
    std::thread::Builder::new().name("decoder-starter".into()).spawn(move || {
        for (mut command, answer) in todo {
            // Who asked may have given up: then the child ends with the answer.
            if let Err(unwanted) = answer.send(command.spawn())
                && let Ok(mut child) = unwanted.into_inner()
            {
                child.kill().and_then(|()| child.wait()).ok();
            }
        }
    })?;
    // Where two came at once, the thread of the second ends with its channel.
    Ok(JOBS.get_or_init(|| jobs))
}

#[allow(unsafe_code, reason = "what a child does before it becomes another program can be said in no other way")]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only system calls are made that are safe there, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have ended before the line above: then nothing would end this child.
            if libc::getppid().unsigned_abs() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}
