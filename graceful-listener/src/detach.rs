#![expect(
    unsafe_code,
    reason = "fork, which only a process without threads may do"
)]

use std::io::{self, PipeReader, PipeWriter};

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, setsid};

/// Where [`detach`] returns: twice, once in each process.
#[derive(Debug)]
pub(crate) enum Side {
    /// The process that was started from the terminal. The daemon reports to it.
    Launcher(PipeReader),
    /// The process that goes on, without a terminal.
    Daemon(PipeWriter),
    /// The process in between, which has to end at once.
    Between,
}

/// Forks, begins a new session, and forks again, so that the daemon can never
/// get a terminal again.
///
/// Only a process of one thread may call this.
///
/// # Errors
///
/// Fails if there cannot be more processes or descriptors.
pub(crate) fn detach() -> io::Result<Side> {
    let (reader, writer) = io::pipe()?;
    // SAFETY: the caller has no other threads, so the child may run any code.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(writer);
            waitpid(child, None)?;
            return Ok(Side::Launcher(reader));
        }
        ForkResult::Child => drop(reader),
    }
    setsid()?;
    // SAFETY: as above.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(Side::Between),
        ForkResult::Child => Ok(Side::Daemon(writer)),
    }
}
