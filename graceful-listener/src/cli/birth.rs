use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::cli::log::Log;
use crate::cli::moment::Moment;
use crate::cli::process::Process;
use crate::pid_file::PidFile;

/// Waits for what a supervisor was just starting when it was killed.
///
/// Until it is a program it has all descriptors of the one that starts it: the lock on
/// the pid file at `path`, and the sockets. What else keeps that file locked is nobody's
/// to wait for.
pub(crate) fn await_birth(path: &Path, log: &Log) {
    let late = Moment::now() + BIRTH;
    let mut told = false;
    while let Ok(Some(pid)) = PidFile::holder(path) {
        if !has_ended(pid) || late < Moment::now() {
            return;
        }
        if !std::mem::replace(&mut told, true) {
            log.line(format_args!(
                "supervisor {pid} is gone, waiting for what it was starting to let go of {}",
                path.display()
            ));
        }
        sleep(LOOK_AGAIN);
    }
}

fn has_ended(pid: u32) -> bool {
    match Process::from_stranger(pid.cast_signed()) {
        Ok(process) => process.has_ended().unwrap_or(false),
        Err(error) => error.raw_os_error() == Some(nix::libc::ESRCH),
    }
}

/// How long a process may take to become a program.
const BIRTH: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
