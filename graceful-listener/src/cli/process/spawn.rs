#![expect(
    unsafe_code,
    reason = "clone, and the steps between it and exec, where nothing but system calls may be made"
)]

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_void};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use nix::libc::{self, c_int};

use super::identity::Certificate;
use super::{Cgroup, Limit, Process, Signal, out_of_the_way};
use crate::cli::account::Account;

/// A program to be started: everything its process has when it begins to run.
///
/// The environment is complete: nothing is inherited. Descriptors that are not
/// close-on-exec stay what they are, which is meant for 0, 1 and 2; no signal is
/// blocked.
///
/// The caller stands still, and lends its memory, until the program runs
/// (`CLONE_VM` and `CLONE_VFORK`, as `posix_spawn` does it), so starting costs
/// the same however large the caller is. It must have no signal handlers: one
/// that ran in the new process would write to the caller's memory. Nor does it
/// matter how many descriptors the caller has: those above all that are passed are
/// not copied first, only to be closed.
#[derive(Debug)]
pub(crate) struct Spawn<'a> {
    /// Looked up in the `PATH` of `env` if it has no slash.
    pub(crate) program: &'a OsStr,
    pub(crate) args: &'a [OsString],
    pub(crate) env: &'a [(OsString, OsString)],
    pub(crate) dir: Option<&'a Path>,
    /// Descriptors to pass, each with the number the program finds it at.
    pub(crate) descriptors: &'a [(BorrowedFd<'a>, RawFd)],
    /// Sets `LISTEN_PID` to the process's own id.
    pub(crate) listen_pid: bool,
    /// Signals whose action is put back to the default.
    pub(crate) default_signals: &'a [Signal],
    /// Signals that are ignored.
    pub(crate) ignored_signals: &'a [Signal],
    /// Sent to the process when the caller's thread ends.
    pub(crate) death_signal: Option<Signal>,
    pub(crate) cgroup: Option<&'a Cgroup>,
    /// Where the process writes down who it is before it becomes the program, so
    /// that no program ever runs that is not written down.
    pub(crate) certificate: Option<&'a Certificate>,
    pub(crate) limits: &'a [Limit],
    pub(crate) umask: Option<libc::mode_t>,
    pub(crate) account: Option<&'a Account>,
}

impl<'a> Spawn<'a> {
    /// A program that gets nothing but arguments and an environment.
    pub(crate) const fn new(
        program: &'a OsStr,
        args: &'a [OsString],
        env: &'a [(OsString, OsString)],
    ) -> Self {
        Self {
            program,
            args,
            env,
            dir: None,
            descriptors: &[],
            listen_pid: false,
            default_signals: &DEFAULT_SIGNALS,
            ignored_signals: &[],
            death_signal: None,
            cgroup: None,
            certificate: None,
            limits: &[],
            umask: None,
            account: None,
        }
    }

    /// Starts the program at the head of a process group of its own.
    ///
    /// # Errors
    ///
    /// Fails if the program cannot be executed, and then nothing of it is left.
    pub(crate) fn spawn(&self) -> Result<Process, SpawnError> {
        let prepared = |error| SpawnError::new(Step::Prepare, error);
        let program = Program::new(self.program, self.args, self.env).map_err(prepared)?;
        let environment = Environment::new(self.env, self.listen_pid).map_err(prepared)?;
        let dir = self
            .dir
            .map(|dir| text(dir.as_os_str()))
            .transpose()
            .map_err(prepared)?;
        let cgroup = self
            .cgroup
            .map(Cgroup::procs)
            .transpose()
            .map_err(|error| SpawnError::new(Step::Cgroup, error))?;
        let limits = self.limits.iter().map(Limit::resolve);
        let limits = limits
            .collect::<Result<_, _>>()
            .map_err(|error| SpawnError::new(Step::Limits, error))?;
        let above = self.descriptors.iter().map(|(_, target)| target + 1);
        let used = self.descriptors.iter().map(|(fd, _)| fd.as_raw_fd());
        let used = used
            .chain(cgroup.iter().map(AsRawFd::as_raw_fd))
            .chain(self.certificate.map(AsRawFd::as_raw_fd))
            .max();
        let mut child = Child {
            program,
            environment,
            dir: dir.as_deref(),
            moves: self
                .descriptors
                .iter()
                .map(|(fd, target)| (fd.as_raw_fd(), *target, -1))
                .collect(),
            above: above.max().unwrap_or(0).max(3),
            unused: used.unwrap_or(0).max(2).cast_unsigned() + 1,
            default_signals: self.default_signals,
            ignored_signals: self.ignored_signals,
            death_signal: self.death_signal,
            cgroup: cgroup.as_ref().map(AsRawFd::as_raw_fd),
            certificate: self.certificate,
            limits,
            umask: self.umask,
            account: self.account,
            // SAFETY: cannot fail.
            parent: unsafe { libc::getpid() },
            failure: None,
        };
        child.start()
    }
}

/// Why a program was not started: what was attempted, and the reason.
#[derive(Debug)]
pub(crate) struct SpawnError {
    pub(crate) step: Step,
    pub(crate) error: io::Error,
}

impl SpawnError {
    const fn new(step: Step, error: io::Error) -> Self {
        Self { step, error }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}",
            self.step,
            crate::cli::failure::reason(&self.error)
        )
    }
}

impl From<SpawnError> for io::Error {
    fn from(error: SpawnError) -> Self {
        error.error
    }
}

/// What is done before a program runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Its arguments and environment are written as the kernel takes them.
    Prepare,
    /// The process is made.
    Clone,
    Group,
    Cgroup,
    /// It is written down who it is.
    Record,
    Limits,
    Descriptors,
    Signals,
    Account,
    Dir,
    /// The program is executed.
    Exec,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "failed to prepare the start",
            Self::Clone => "failed to make a process",
            Self::Group => "failed to make a process group",
            Self::Cgroup => "failed to enter the control group",
            Self::Record => "failed to write down who it is",
            Self::Limits => "failed to set the limits",
            Self::Descriptors => "failed to pass the descriptors",
            Self::Signals => "failed to set the signals",
            Self::Account => "failed to become the user",
            Self::Dir => "failed to enter the directory",
            Self::Exec => "failed to execute the program",
        })
    }
}

/// Everything the new process uses between clone and exec, made before, so that
/// it need not allocate, lock or panic there.
struct Child<'a> {
    program: Program,
    environment: Environment,
    dir: Option<&'a CStr>,
    /// Where each descriptor is, where it goes, and a copy on its way.
    moves: Vec<(RawFd, RawFd, RawFd)>,
    above: RawFd,
    /// From this number on nothing is passed.
    unused: libc::c_uint,
    default_signals: &'a [Signal],
    ignored_signals: &'a [Signal],
    death_signal: Option<Signal>,
    cgroup: Option<RawFd>,
    certificate: Option<&'a Certificate>,
    limits: Vec<(libc::__rlimit_resource_t, libc::rlimit)>,
    umask: Option<libc::mode_t>,
    account: Option<&'a Account>,
    parent: libc::pid_t,
    /// What went wrong, written by the new process.
    failure: Option<(Step, c_int)>,
}

impl Child<'_> {
    fn start(&mut self) -> Result<Process, SpawnError> {
        let mut stack = vec![MaybeUninit::<Page>::uninit(); STACK_PAGES];
        let mut pidfd: c_int = -1;
        // SAFETY: the caller goes on only when the new process has executed a
        // program or ended, so the stack and `self` outlive their use there, and
        // nobody touches them meanwhile. The stack grows down from its end, which
        // is aligned as a page is. The kernel writes one number to `pidfd`.
        let pid = unsafe {
            let top = stack.as_mut_ptr().add(STACK_PAGES);
            libc::clone(
                child,
                top.cast(),
                libc::CLONE_VM
                    | libc::CLONE_VFORK
                    | libc::CLONE_FILES
                    | libc::CLONE_PIDFD
                    | libc::SIGCHLD,
                ptr::from_mut(self).cast(),
                &raw mut pidfd,
            )
        };
        if pid == -1 {
            return Err(SpawnError::new(Step::Clone, io::Error::last_os_error()));
        }
        // SAFETY: the kernel has made the descriptor, close-on-exec, for us alone.
        let pidfd = out_of_the_way(unsafe { OwnedFd::from_raw_fd(pidfd) });
        let process = Process::new(pid, pidfd, true);
        match self.failure {
            None => Ok(process),
            Some((step, errno)) => {
                // It has ended; nothing of it is to be left.
                let _ = process.try_wait();
                Err(SpawnError::new(step, io::Error::from_raw_os_error(errno)))
            }
        }
    }

    /// Takes the steps, of which the last does not return if it succeeds.
    ///
    /// # Safety
    ///
    /// Only in the new process.
    unsafe fn run(&mut self) -> Result<(), (Step, c_int)> {
        // SAFETY: async-signal-safe calls on values made before.
        unsafe {
            // Until here the descriptors are the caller's own. A kernel before 5.9
            // copies all of them.
            let flags = libc::CLOSE_RANGE_UNSHARE;
            let last = libc::c_uint::MAX;
            if libc::syscall(libc::SYS_close_range, self.unused, last, flags) == -1 {
                check(libc::unshare(libc::CLONE_FILES), Step::Descriptors)?;
            }
            // A process that is not written down must not outlive the caller.
            if self.certificate.is_some() {
                self.die_with_parent(libc::SIGKILL)?;
            }
            check(libc::setpgid(0, 0), Step::Group)?;
            if let Some(cgroup) = self.cgroup {
                let own = b"0";
                let written = libc::write(cgroup, own.as_ptr().cast::<c_void>(), own.len());
                check_long(written as libc::c_long, Step::Cgroup)?;
            }
            if let Some(certificate) = self.certificate {
                certificate
                    .fill_in()
                    .map_err(|errno| (Step::Record, errno))?;
            }
            for (resource, limit) in &self.limits {
                check(libc::setrlimit(*resource, limit), Step::Limits)?;
            }
            if let Some(mask) = self.umask {
                libc::umask(mask);
            }
            for (source, target, spare) in &mut self.moves {
                if source != target {
                    let copy = libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, self.above);
                    *spare = check(copy, Step::Descriptors)?;
                }
            }
            for (source, target, spare) in &self.moves {
                let moved = if source == target {
                    libc::fcntl(*source, libc::F_SETFD, 0)
                } else {
                    libc::dup2(*spare, *target)
                };
                check(moved, Step::Descriptors)?;
            }
            for signal in self.default_signals {
                libc::signal(signal.number(), libc::SIG_DFL);
            }
            for signal in self.ignored_signals {
                libc::signal(signal.number(), libc::SIG_IGN);
            }
            if let Some(account) = self.account {
                become_account(account)?;
            }
            if let Some(dir) = self.dir {
                check(libc::chdir(dir.as_ptr()), Step::Dir)?;
            }
            // After the change of user, which takes it back.
            match self.death_signal {
                Some(signal) => self.die_with_parent(signal.number())?,
                None => drop(libc::prctl(libc::PR_SET_PDEATHSIG, 0)),
            }
            self.environment.set_pid();
            let mut none = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            let unblocked = libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
            check(unblocked, Step::Signals)?;
            Err((
                Step::Exec,
                self.program.exec(self.environment.pointers.as_ptr()),
            ))
        }
    }

    /// Asks for a signal when the caller's thread ends.
    ///
    /// # Safety
    ///
    /// Only in the new process.
    unsafe fn die_with_parent(&self, signal: c_int) -> Result<(), (Step, c_int)> {
        // SAFETY: async-signal-safe calls.
        unsafe {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, signal), Step::Signals)?;
            // It may have died before it was asked for.
            if libc::getppid() != self.parent {
                libc::_exit(0);
            }
        }
        Ok(())
    }
}

/// Changes groups and user by the kernel's own calls: those of the C library
/// would also look after threads, which are the caller's.
///
/// # Safety
///
/// Only in the new process.
unsafe fn become_account(account: &Account) -> Result<(), (Step, c_int)> {
    let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
    // SAFETY: system calls on numbers, and on a list that outlives the call; a
    // `Gid` is a `gid_t` and nothing else.
    unsafe {
        if let Some(groups) = &account.groups
            && (libc::getuid() == 0 || libc::getuid() != uid)
        {
            let set = libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr());
            check_long(set, Step::Account)?;
        }
        check_long(
            libc::syscall(libc::SYS_setresgid, gid, gid, gid),
            Step::Account,
        )?;
        check_long(
            libc::syscall(libc::SYS_setresuid, uid, uid, uid),
            Step::Account,
        )?;
    }
    Ok(())
}

extern "C" fn child(child: *mut c_void) -> c_int {
    // SAFETY: `start` passes a valid value, and waits.
    unsafe {
        let child = &mut *child.cast::<Child<'_>>();
        if let Err(failure) = child.run() {
            child.failure = Some(failure);
        }
        libc::_exit(127)
    }
}

/// The files that may be meant, and the arguments as exec takes them.
struct Program {
    candidates: Vec<CString>,
    // The pointers point into these.
    _args: Vec<CString>,
    /// Room for the shell and the script before the arguments: a file that the
    /// kernel does not know how to execute is a script, as `execvp` has it.
    pointers: Vec<*const c_char>,
}

impl Program {
    fn new(program: &OsStr, args: &[OsString], env: &[(OsString, OsString)]) -> io::Result<Self> {
        // An empty name is that of no file, whatever the `PATH`.
        let candidates = if program.is_empty() || program.as_bytes().contains(&b'/') {
            vec![text(program)?]
        } else {
            let path = env.iter().find(|(name, _)| name == "PATH");
            let path = path.map_or(OsStr::new("/bin:/usr/bin"), |(_, path)| path);
            std::env::split_paths(path)
                .map(|dir| text(dir.join(program).as_os_str()))
                .collect::<Result<_, _>>()?
        };
        let args = std::iter::once(program)
            .chain(args.iter().map(OsString::as_os_str))
            .map(text)
            .collect::<Result<Vec<_>, _>>()?;
        let mut pointers = vec![ptr::null()];
        pointers.extend(args.iter().map(|arg| arg.as_ptr()));
        pointers.push(ptr::null());
        Ok(Self {
            candidates,
            _args: args,
            pointers,
        })
    }

    /// Executes the first candidate that can be, and returns why none could.
    ///
    /// # Safety
    ///
    /// Only in the new process, with a list of strings that ends with null.
    unsafe fn exec(&mut self, env: *const *const c_char) -> c_int {
        let mut reason = libc::ENOENT;
        for candidate in &self.candidates {
            // SAFETY: strings and lists that outlive the call.
            unsafe {
                libc::execve(candidate.as_ptr(), self.pointers[1..].as_ptr(), env);
                let errno = *libc::__errno_location();
                if errno == libc::ENOEXEC {
                    self.pointers[0] = SHELL.as_ptr();
                    self.pointers[1] = candidate.as_ptr();
                    libc::execve(SHELL.as_ptr(), self.pointers.as_ptr(), env);
                    return errno;
                }
                match errno {
                    libc::ENOENT
                    | libc::ENOTDIR
                    | libc::ESTALE
                    | libc::ENODEV
                    | libc::ETIMEDOUT => {}
                    // One that may not be executed is told of only if no other is found.
                    libc::EACCES => reason = errno,
                    _ => return errno,
                }
            }
        }
        reason
    }
}

/// The environment as exec takes it.
struct Environment {
    // The pointers point into these.
    _entries: Vec<CString>,
    pointers: Vec<*const c_char>,
    listen_pid: Option<Box<[u8; LISTEN_PID.len() + DIGITS + 1]>>,
}

impl Environment {
    fn new(variables: &[(OsString, OsString)], listen_pid: bool) -> io::Result<Self> {
        let mut entries = Vec::with_capacity(variables.len());
        for (name, value) in variables {
            let mut entry = Vec::with_capacity(name.len() + value.len() + 2);
            entry.extend_from_slice(name.as_bytes());
            entry.push(b'=');
            entry.extend_from_slice(value.as_bytes());
            entries.push(CString::new(entry).map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("environment variable {} holds a NUL byte", name.display()),
                )
            })?);
        }
        let listen_pid = listen_pid.then(|| {
            let mut entry = Box::new([0; LISTEN_PID.len() + DIGITS + 1]);
            entry[..LISTEN_PID.len()].copy_from_slice(LISTEN_PID);
            entry
        });
        let mut pointers: Vec<_> = entries.iter().map(|entry| entry.as_ptr()).collect();
        pointers.extend(
            listen_pid
                .iter()
                .map(|entry| entry.as_ptr().cast::<c_char>()),
        );
        pointers.push(ptr::null());
        Ok(Self {
            _entries: entries,
            pointers,
            listen_pid,
        })
    }

    /// Completes `LISTEN_PID` in the new process.
    fn set_pid(&mut self) {
        if let Some(entry) = &mut self.listen_pid {
            // SAFETY: cannot fail.
            let pid = unsafe { libc::getpid() };
            let mut digits = [0; DIGITS];
            let text = decimal(u64::from(pid.unsigned_abs()), &mut digits);
            entry[LISTEN_PID.len()..LISTEN_PID.len() + text.len()].copy_from_slice(text);
            // The pointer in the list was taken before the last write through the
            // box; take it again.
            let last = self.pointers.len() - 2;
            self.pointers[last] = entry.as_ptr().cast::<c_char>();
        }
    }
}

/// Writes a number without allocating.
pub(super) fn decimal(mut number: u64, digits: &mut [u8; DIGITS]) -> &[u8] {
    let mut first = DIGITS;
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 || first == 0 {
            return &digits[first..];
        }
    }
}

fn text(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{}` holds a NUL byte", text.display()),
        )
    })
}

fn check(result: c_int, step: Step) -> Result<c_int, (Step, c_int)> {
    check_long(libc::c_long::from(result), step).map(|_| result)
}

fn check_long(result: libc::c_long, step: Step) -> Result<libc::c_long, (Step, c_int)> {
    if result == -1 {
        // SAFETY: the address is always valid.
        Err((step, unsafe { *libc::__errno_location() }))
    } else {
        Ok(result)
    }
}

/// What Perl has handlers for: they do not outlive exec.
const DEFAULT_SIGNALS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::ALRM];
const SHELL: &CStr = c"/bin/sh";
const LISTEN_PID: &[u8; 11] = b"LISTEN_PID=";
/// Enough for every number of 64 bits.
pub(super) const DIGITS: usize = 20;

/// The stack of the new process, which calls nothing deep.
#[repr(align(4096))]
#[derive(Clone, Copy)]
struct Page(#[expect(dead_code, reason = "room for the stack")] [u8; 4096]);
const STACK_PAGES: usize = 8;
