#![expect(unsafe_code, reason = "what happens between fork and exec")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;

use crate::notify::NotifyError;

/// The process that has taken this one's place.
#[derive(Debug)]
pub struct Successor {
    child: Child,
    not_told: Option<NotifyError>,
}

impl Successor {
    /// Starts it with these descriptors and no others.
    pub(super) fn spawn(command: &mut Command, fds: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let pass = move || {
            // Ours are closed by `exec` already; a library's may not be.
            // SAFETY: system calls on numbers; the closure neither allocates nor
            // locks, as is due in a child of a process that may have threads.
            // Kernels before 5.11 do not know the flag, and leave things as they were.
            unsafe {
                libc::syscall(
                    libc::SYS_close_range,
                    3,
                    libc::c_uint::MAX,
                    libc::CLOSE_RANGE_CLOEXEC,
                );
            }
            for &fd in &fds {
                // SAFETY: as above.
                if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } == -1 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: the closure does only what is allowed after `fork`.
        unsafe { command.pre_exec(pass) };
        let child = command.spawn()?;
        Ok(Self {
            child,
            not_told: None,
        })
    }

    /// Returns its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns why the service manager could not be told of it, if it could not.
    ///
    /// The upgrade has succeeded all the same, but a manager that watches this
    /// process takes its end for the service's.
    #[must_use]
    pub const fn notify_error(&self) -> Option<&NotifyError> {
        self.not_told.as_ref()
    }

    /// Waits until it has ended, which it should not before this process.
    ///
    /// # Errors
    ///
    /// Fails if somebody else has waited for it.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    pub(super) fn told(mut self, told: Result<(), NotifyError>) -> Self {
        self.not_told = told.err();
        self
    }

    /// How it has ended, if it does so within the time.
    pub(super) fn ended_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + time;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
                status => return status.ok().flatten(),
            }
        }
    }

    /// Ends it, and leaves no trace of it in the process table.
    pub(super) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
