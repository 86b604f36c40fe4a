//! Starts child processes that do not outlive this process, even if it is killed (`kill -9`).
//!
//! The kernel kills a child when its parent ends, if the child asks for it (`PR_SET_PDEATHSIG`). The parent is the
//! *thread* that started the child, and sources are opened on threads that end; so one thread that never ends starts
//! all children.
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;

use crossbeam_channel::{Sender, bounded};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// A command, and the channel for its child.
type Job = (Command, Sender<io::Result<Child>>);

/// Starts `command`; its child is killed when this process ends in any way.
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
            // The caller may have given up: then the child ends with the answer.
            if let Err(unwanted) = answer.send(command.spawn())
                && let Ok(mut child) = unwanted.into_inner()
            {
                child.kill().and_then(|()| child.wait()).ok();
            }
        }
    })?;
    // If two callers came at once, the thread of the second ends with its channel.
    Ok(JOBS.get_or_init(|| jobs))
}

#[allow(unsafe_code, reason = "code between fork and exec must be async-signal-safe")]
fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure only makes two system calls and does not allocate.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have ended before the line above; then nothing would kill this child.
            if getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
        });
    }
}
