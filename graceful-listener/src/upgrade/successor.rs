#![expect(unsafe_code, reason = "what happens between fork and exec")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;

/// The process that has taken this one's place.
#[derive(Debug)]
pub struct Successor(Child);

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
        command.spawn().map(Self)
    }

    /// Returns its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it has ended, which it should not before this process.
    ///
    /// # Errors
    ///
    /// Fails if somebody else has waited for it.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }

    /// How it has ended, if it does so within the time.
    pub(super) fn ended_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + time;
        loop {
            match self.0.try_wait() {
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
                status => return status.ok().flatten(),
            }
        }
    }

    /// Ends it, and leaves no trace of it in the process table.
    pub(super) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
