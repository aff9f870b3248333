#![expect(unsafe_code, reason = "the kernel's process interface: pidfds, waitid")]

use std::ffi::{CString, OsStr, c_void};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_int, c_uint, pid_t};

pub(crate) use self::cgroup::Cgroup;
pub(crate) use self::exit::Exit;
pub(crate) use self::identity::{Certificate, Identity, boot_id, draft};
pub(crate) use self::leftovers::Leftovers;
pub(crate) use self::limit::{Limit, Value};
pub(crate) use self::lineage::lineage;
use self::members::Members;
pub(crate) use self::signal::{Signal, UnknownSignal};
pub(crate) use self::spawn::{Spawn, SpawnError, Step};
pub(crate) use crate::detach::{Side, detach};

mod cgroup;
mod exit;
mod identity;
mod leftovers;
mod limit;
mod lineage;
mod members;
#[cfg(test)]
mod old_kernel;
mod signal;
mod spawn;

/// A running or just ended process, held by a pidfd: its id is never a stranger's.
#[derive(Debug)]
pub(crate) struct Process {
    pid: pid_t,
    pidfd: OwnedFd,
    child: bool,
}

impl Process {
    const fn new(pid: pid_t, pidfd: OwnedFd, child: bool) -> Self {
        Self { pid, pidfd, child }
    }

    /// Takes hold of a process that this one did not start.
    ///
    /// Whoever calls has to look after this call whether it is the process meant.
    pub(crate) fn from_stranger(pid: pid_t) -> io::Result<Self> {
        Ok(Self::new(pid, pidfd_open(pid)?, false))
    }

    /// Goes on holding a process after `exec`: a child, or one that was adopted.
    pub(crate) fn resume(pid: pid_t, adopted: bool) -> io::Result<Self> {
        Ok(Self::new(pid, pidfd_open(pid)?, !adopted))
    }

    /// Goes on holding a process whose pidfd was kept open across `exec`, and which
    /// is reaped.
    pub(crate) const fn from_inherited(pid: pid_t, pidfd: OwnedFd) -> Self {
        Self::new(pid, pidfd, false)
    }

    pub(crate) const fn pid(&self) -> pid_t {
        self.pid
    }

    /// Returns true if this process started it.
    pub(crate) const fn is_child(&self) -> bool {
        self.child
    }

    /// Sends a signal to the process alone.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        self.send(signal.number(), 0)
    }

    /// Sends a signal to the process group, if the process leads one, else to the
    /// process.
    ///
    /// Where the kernel does not know how to do that by the pidfd (before 6.9), it
    /// fails for a process that is reaped: the group's number may be a stranger's.
    pub(crate) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        match self.send(signal.number(), PIDFD_SIGNAL_PROCESS_GROUP) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return self.signal(signal),
            other => return other,
        }
        // SAFETY: plain system calls.
        unsafe {
            if libc::getpgid(self.pid) == self.pid && !self.is_reaped() {
                return check(libc::kill(-self.pid, signal.number())).map(drop);
            }
        }
        self.signal(signal)
    }

    /// Kills the process and everything it has started: its control group if it has
    /// one, and its process group.
    pub(crate) fn kill_all(&self, cgroup: Option<&Cgroup>) -> io::Result<()> {
        let killed = cgroup.is_some_and(|cgroup| cgroup.kill().is_ok());
        match self.signal_group(Signal::KILL) {
            Err(_) if killed => Ok(()),
            other => other,
        }
    }

    /// Returns true if processes are left in the group that the process led, also
    /// when it is reaped; `None` from kernels before 6.9, which cannot tell.
    pub(crate) fn has_group(&self) -> Option<bool> {
        match self.send(0, PIDFD_SIGNAL_PROCESS_GROUP) {
            Ok(()) => Some(true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => None,
            Err(error) => Some(error.raw_os_error() == Some(libc::EPERM)),
        }
    }

    /// Returns true if the process has ended, and its parent knows.
    pub(crate) fn is_reaped(&self) -> bool {
        let sent = self.signal_none();
        sent.is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
    }

    /// Fails if the process is reaped, and does nothing to it.
    fn signal_none(&self) -> io::Result<()> {
        match self.send(0, 0) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
            other => other,
        }
    }

    fn send(&self, signal: c_int, flags: c_uint) -> io::Result<()> {
        // SAFETY: a system call on a descriptor that is open, without memory.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal,
                ptr::null::<c_void>(),
                flags,
            )
        };
        check_long(sent).map(drop)
    }

    /// Returns how the process ended, and reaps it; `None` while it runs.
    ///
    /// The end of a process that is nobody's child here is told by the kernel
    /// where it can, and else is [`Exit::Unknown`].
    pub(crate) fn try_wait(&self) -> io::Result<Option<Exit>> {
        if self.child {
            return wait(libc::P_PIDFD, self.pidfd.as_raw_fd().cast_unsigned(), 0)
                .map(|ended| ended.map(|(_, exit)| exit));
        }
        Ok(self.has_ended()?.then(|| self.foreign_exit()))
    }

    /// Returns true if the process has ended, reaped or not.
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        let mut poll = libc::pollfd {
            fd: self.pidfd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid pollfd, and no time to wait.
        let ready = check(unsafe { libc::poll(&raw mut poll, 1, 0) })?;
        Ok(ready > 0)
    }

    fn foreign_exit(&self) -> Exit {
        // SAFETY: the structure is plain numbers, and the kernel writes no more
        // of it than the size in the request's number allows.
        unsafe {
            let mut info: libc::pidfd_info = std::mem::zeroed();
            info.mask = u64::from(libc::PIDFD_INFO_EXIT);
            let asked = libc::ioctl(
                self.pidfd.as_raw_fd(),
                libc::PIDFD_GET_INFO as _,
                &raw mut info,
            );
            if asked == 0 && info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0 {
                return Exit::from_raw(info.exit_code);
            }
        }
        self.zombie_exit().unwrap_or(Exit::Unknown)
    }

    /// Returns how the process ended, if its parent has not taken note of that yet.
    fn zombie_exit(&self) -> Option<Exit> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        let raw: c_int = fields.trim_end().rsplit(' ').next()?.parse().ok()?;
        // To those who may not know it the kernel says 0.
        let told = raw != 0 || nix::unistd::geteuid().is_root();
        // What was read is of this process only if that is not reaped by now.
        (fields.starts_with('Z') && told && self.signal_none().is_ok()).then(|| Exit::from_raw(raw))
    }

    /// Copies a descriptor out of the process, which this one must be allowed to trace.
    pub(crate) fn copy_descriptor(&self, fd: RawFd) -> io::Result<OwnedFd> {
        // SAFETY: the system call returns a new descriptor, which is ours alone.
        unsafe {
            let copy = check_long(libc::syscall(
                libc::SYS_pidfd_getfd,
                self.pidfd.as_raw_fd(),
                fd,
                0,
            ))?;
            Ok(OwnedFd::from_raw_fd(copy as RawFd))
        }
    }
}

impl AsFd for Process {
    /// Returns the pidfd, which becomes readable when the process ends.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Reaps one ended child that `ours` does not know; `None` if there is none.
///
/// Children that `ours` knows are left to their owner; the second value tells
/// that one of them waits.
pub(crate) fn reap_stranger(ours: impl Fn(pid_t) -> bool) -> io::Result<Reaped> {
    match wait(libc::P_ALL, 0, libc::WNOWAIT) {
        Ok(None) => Ok(Reaped::Nothing),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(Reaped::Nothing),
        Err(error) => Err(error),
        Ok(Some((pid, _))) if ours(pid) => Ok(Reaped::Ours(pid)),
        Ok(Some((pid, _))) => {
            wait(libc::P_PID, pid.cast_unsigned(), 0)?;
            Ok(Reaped::Stranger)
        }
    }
}

/// What [`reap_stranger`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reaped {
    /// No child has ended.
    Nothing,
    /// A process that came to us as an orphan is reaped.
    Stranger,
    /// This child of ours has ended, and is not reaped.
    Ours(pid_t),
}

/// Puts the action of a signal back to the default, whatever the parent had set.
pub(crate) fn default_action(signal: Signal) -> io::Result<()> {
    // SAFETY: no handler is installed, so none can be called.
    if unsafe { libc::signal(signal.number(), libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Finds the file that `exec` would take for `program`.
pub(crate) fn find_program(program: &OsStr, path: Option<&OsStr>) -> io::Result<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return std::path::absolute(program);
    }
    let path = path.unwrap_or(OsStr::new("/bin:/usr/bin"));
    for dir in std::env::split_paths(path) {
        let file = dir.join(program);
        if fs::metadata(&file).is_ok_and(|metadata| metadata.is_file()) {
            return std::path::absolute(file);
        }
    }
    Err(io::Error::from(io::ErrorKind::NotFound))
}

fn pidfd_open(pid: pid_t) -> io::Result<OwnedFd> {
    // SAFETY: the system call returns a new descriptor, close-on-exec, which is
    // ours alone.
    unsafe {
        let fd = check_long(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(out_of_the_way(OwnedFd::from_raw_fd(fd as RawFd)))
    }
}

/// Gives the descriptor of a process a number above those of what is passed on to
/// programs: there may be thousands, and a start looks at all below the highest.
fn out_of_the_way(pidfd: OwnedFd) -> OwnedFd {
    // Where fewer are allowed, there are not as many.
    let moved = fcntl(&pidfd, FcntlArg::F_DUPFD_CLOEXEC(PIDFDS));
    match moved {
        // SAFETY: the kernel has made it just now, for us alone.
        Ok(number) => unsafe { OwnedFd::from_raw_fd(number) },
        Err(_) => pidfd,
    }
}

fn wait(kind: libc::idtype_t, id: u32, flags: c_int) -> io::Result<Option<(pid_t, Exit)>> {
    // SAFETY: the structure is plain numbers, filled in by the kernel; its fields
    // are read only for the reasons that set them.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        check(libc::waitid(
            kind,
            id,
            &raw mut info,
            libc::WEXITED | libc::WNOHANG | flags,
        ))?;
        let pid = info.si_pid();
        if pid == 0 {
            return Ok(None);
        }
        let status = info.si_status();
        let exit = match info.si_code {
            libc::CLD_EXITED => Exit::Code(status),
            libc::CLD_KILLED => Exit::Signal(status, false),
            libc::CLD_DUMPED => Exit::Signal(status, true),
            _ => Exit::Unknown,
        };
        Ok(Some((pid, exit)))
    }
}

/// Returns true if the file has this extended attribute.
fn has_attribute(path: &Path, name: &std::ffi::CStr) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: two C strings, and no room to write a value to.
    unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), ptr::null_mut(), 0) >= 0 }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The first number of a pidfd.
const PIDFDS: RawFd = 1024;
/// Not in libc yet.
const PIDFD_SIGNAL_PROCESS_GROUP: c_uint = 1 << 2;

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs::File;

    use super::*;

    fn spawn(
        program: &str,
        args: &[&str],
        descriptors: &[(BorrowedFd<'_>, RawFd)],
    ) -> Result<Process, SpawnError> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let env = [("PATH".into(), "/usr/bin:/bin".into())];
        Spawn {
            descriptors,
            listen_pid: true,
            ..Spawn::new(OsStr::new(program), &args, &env)
        }
        .spawn()
    }

    fn wait_for(process: &Process) -> Exit {
        loop {
            if let Some(exit) = process.try_wait().unwrap() {
                return exit;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn failure_to_execute_is_told_whatever_numbers_the_descriptors_get() {
        // The standard library tells it through a pipe of its own, whose number is
        // the lowest that is free.
        let null = File::open("/dev/null").unwrap();
        let descriptors: Vec<_> = (3..60).map(|number| (null.as_fd(), number)).collect();
        // Numbers that are in use are other tests' business.
        let free = |number: &RawFd| !Path::new(&format!("/proc/self/fd/{number}")).exists();
        let descriptors: Vec<_> = descriptors
            .into_iter()
            .filter(|(_, number)| free(number))
            .collect();
        let error = spawn("/nowhere/program", &[], &descriptors).unwrap_err();
        assert_eq!(error.step, Step::Exec);
        assert_eq!(error.error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn descriptors_may_change_places() {
        let (one, two) = (
            File::open("/dev/null").unwrap(),
            File::open("/dev/zero").unwrap(),
        );
        let (a, b) = (one.as_raw_fd(), two.as_raw_fd());
        let script = format!(
            "[ $(readlink /proc/$$/fd/{a}) = /dev/zero ] && [ $(readlink /proc/$$/fd/{b}) = /dev/null ]"
        );
        let process = spawn(
            "sh",
            &["-c", &script],
            &[(one.as_fd(), b), (two.as_fd(), a)],
        )
        .unwrap();
        assert_eq!(wait_for(&process), Exit::Code(0));
    }

    #[test]
    fn listen_pid_is_the_programs_own() {
        let process = spawn("sh", &["-c", "[ \"$LISTEN_PID\" = $$ ]"], &[]).unwrap();
        assert_eq!(wait_for(&process), Exit::Code(0));
    }

    #[test]
    fn end_of_a_process_tells_how() {
        let process = spawn("sh", &["-c", "exit 7"], &[]).unwrap();
        assert_eq!(wait_for(&process), Exit::Code(7));
        let process = spawn("sleep", &["600"], &[]).unwrap();
        assert_eq!(process.try_wait().unwrap(), None);
        process.signal(Signal::KILL).unwrap();
        assert_eq!(wait_for(&process), Exit::Signal(9, false));
        assert!(
            process.signal(Signal::KILL).is_err(),
            "nobody is left to be signalled"
        );
    }
}
