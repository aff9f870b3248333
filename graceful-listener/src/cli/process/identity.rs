#![expect(
    unsafe_code,
    reason = "what a process writes about itself between clone and exec"
)]

use std::ffi::{CStr, CString, c_void};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::{self, pid_t};
use nix::sys::stat::fstat;

use super::Process;
use super::spawn::{DIGITS, decimal};

/// Which process is meant, whatever becomes of its number: the number together
/// with what no later process of this machine has as well.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Identity {
    pub(crate) pid: pid_t,
    /// The inode of its pidfd, which the kernel gives no second process until the
    /// machine is started again (since 6.9; before it is everybody's).
    pub(crate) pidfd: u64,
    /// When it was started, in clock ticks since the machine was.
    pub(crate) start: u64,
    /// The start of the machine that the other numbers belong to.
    pub(crate) boot: String,
}

impl Identity {
    /// Notes who the process is.
    ///
    /// # Errors
    ///
    /// Fails if it is reaped, or if the kernel does not tell.
    pub(crate) fn of(process: &Process) -> io::Result<Self> {
        let stat = fs::read(format!("/proc/{}/stat", process.pid()))?;
        let start = start_time(&stat)
            .ok_or_else(|| io::Error::other("the kernel does not tell when it was started"))?;
        // What was read is of this process only if that is not reaped by now.
        process.signal_none()?;
        Ok(Self {
            pid: process.pid(),
            pidfd: fstat(process.as_fd())?.st_ino,
            start,
            boot: boot_id()?,
        })
    }

    /// Takes hold of the process; `None` if it is gone, whoever has its number now.
    ///
    /// One that has ended and is not reaped yet is held like one that runs.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does not tell who has the number.
    pub(crate) fn find(&self) -> io::Result<Option<Process>> {
        if self.boot != boot_id()? {
            return Ok(None);
        }
        let process = match Process::from_stranger(self.pid) {
            Ok(process) => process,
            // No such process; or the number is by now that of a thread.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ESRCH | libc::EINVAL | libc::ENOENT)
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match Self::of(&process) {
            Ok(found) => Ok((found == *self).then_some(process)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads what a process has written of itself, and what follows it.
    pub(crate) fn parse(text: &str) -> Option<(Self, &str)> {
        let (pid, rest) = text.split_once('\n')?;
        let (pidfd, rest) = rest.strip_prefix("pidfd ")?.split_once('\n')?;
        let (start, rest) = rest.strip_prefix("start ")?.split_once('\n')?;
        let (boot, rest) = rest.strip_prefix("boot ")?.split_once('\n')?;
        let identity = Self {
            pid: pid.parse().ok().filter(|pid| *pid > 0)?,
            pidfd: pidfd.parse().ok()?,
            start: start.parse().ok()?,
            boot: boot.into(),
        };
        Some((identity, rest))
    }

    pub(crate) fn write(&self) -> String {
        let Self {
            pid,
            pidfd,
            start,
            boot,
        } = self;
        format!("{pid}\npidfd {pidfd}\nstart {start}\nboot {boot}\n")
    }
}

/// A pid file that a new process fills in before it becomes the program.
///
/// It appears under its name complete, and while its process lives it is there:
/// whoever comes after a supervisor that was killed finds every process it has
/// started. The room for it is taken before there is a process.
#[derive(Debug)]
pub(crate) struct Certificate {
    draft: File,
    draft_path: CString,
    path: CString,
    /// What follows the numbers that only the new process knows.
    rest: Vec<u8>,
}

impl Certificate {
    /// Prepares the file, as `draft`; `rest` is appended to who the process is.
    ///
    /// If there is a draft already, its room is used.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be made, or there is no room for it.
    pub(crate) fn prepare(path: &Path, draft: &Path, rest: &str) -> io::Result<Self> {
        let mut text = String::from("\nboot ");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", boot_id()?);
        text.push_str(rest);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW)
            .open(draft)?;
        let certificate = Self {
            draft: file,
            draft_path: CString::new(draft.as_os_str().as_bytes())?,
            path: CString::new(path.as_os_str().as_bytes())?,
            rest: text.into_bytes(),
        };
        certificate
            .take_room()
            .inspect_err(|_| drop(fs::remove_file(draft)))?;
        Ok(certificate)
    }

    fn take_room(&self) -> io::Result<()> {
        let needed = Text::ROOM + self.rest.len();
        if self.draft.metadata()?.len() < needed as u64 {
            // A file that is only told its length has no room yet.
            self.draft.write_all_at(&vec![b' '; needed.max(ROOM)], 0)?;
        }
        Ok(())
    }

    /// Returns what its room is kept as, for the file of a process that has ended,
    /// or was not made.
    pub(crate) fn keep_room(path: &Path, draft: &Path) {
        match fs::rename(path, draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => drop(fs::remove_file(path)),
            _ => {}
        }
    }

    /// Removes what was prepared for a process that was not made.
    pub(crate) fn discard(&self) {
        // It has its name if the process came so far.
        for path in [&self.draft_path, &self.path] {
            // SAFETY: a string that outlives the call.
            unsafe { libc::unlink(path.as_ptr()) };
        }
    }

    /// Writes the file for a process that could not do so itself.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written; one that is there stays as it is.
    pub(crate) fn issue(path: &Path, process: &Process, rest: &str) -> io::Result<()> {
        let text = Identity::of(process)?.write() + rest;
        let draft = draft(path);
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, path));
        written.inspect_err(|_| drop(fs::remove_file(&draft)))
    }

    /// Fills the file in, and gives it its name.
    ///
    /// # Errors
    ///
    /// Fails with the number of the error.
    ///
    /// # Safety
    ///
    /// Only between clone and exec; it makes nothing but system calls.
    pub(super) unsafe fn fill_in(&self) -> Result<(), libc::c_int> {
        // SAFETY: the caller's promise; the address is always valid.
        unsafe {
            *libc::__errno_location() = 0;
            self.try_fill_in().ok_or_else(|| {
                let errno = *libc::__errno_location();
                // A short write sets no error; that is a full disk.
                if errno == 0 { libc::ENOSPC } else { errno }
            })
        }
    }

    unsafe fn try_fill_in(&self) -> Option<()> {
        let mut text = Text::default();
        // SAFETY: async-signal-safe calls on values made before, and on buffers here.
        unsafe {
            let pid = libc::getpid();
            let pidfd = valid(libc::syscall(libc::SYS_pidfd_open, pid, 0) as RawFd)?;
            let mut stat = MaybeUninit::<libc::stat>::uninit();
            valid(libc::fstat(pidfd, stat.as_mut_ptr()))?;
            libc::close(pidfd);
            let own = valid(libc::open(
                OWN_STAT.as_ptr(),
                libc::O_RDONLY | libc::O_CLOEXEC,
            ))?;
            let mut fields = [0_u8; 1024];
            let length = libc::read(own, fields.as_mut_ptr().cast::<c_void>(), fields.len());
            libc::close(own);
            let start = start_time(fields.get(..usize::try_from(length).ok()?)?)?;
            text.push_number(u64::from(pid.unsigned_abs()));
            text.push(b"\npidfd ");
            text.push_number(stat.assume_init().st_ino);
            text.push(b"\nstart ");
            text.push_number(start);
            let parts = [text.part(), part(&self.rest)];
            let expected = text.length + self.rest.len();
            let written = libc::writev(self.draft.as_raw_fd(), parts.as_ptr(), 2);
            if usize::try_from(written) != Ok(expected) {
                return None;
            }
            let expected = libc::off_t::try_from(expected).ok()?;
            valid(libc::ftruncate(self.draft.as_raw_fd(), expected))?;
            valid(libc::rename(self.draft_path.as_ptr(), self.path.as_ptr()))?;
        }
        Some(())
    }
}

impl AsRawFd for Certificate {
    /// Returns the descriptor of the draft.
    fn as_raw_fd(&self) -> RawFd {
        self.draft.as_raw_fd()
    }
}

/// Text put together without allocating; there is room for all that is pushed.
struct Text {
    bytes: [u8; Self::ROOM],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            bytes: [0; Self::ROOM],
            length: 0,
        }
    }
}

impl Text {
    const ROOM: usize = 96;

    fn push(&mut self, text: &[u8]) {
        for (place, byte) in self.bytes[self.length..].iter_mut().zip(text) {
            *place = *byte;
        }
        self.length += text.len();
    }

    fn push_number(&mut self, number: u64) {
        let mut digits = [0; DIGITS];
        let text = decimal(number, &mut digits);
        self.push(text);
    }

    fn part(&self) -> libc::iovec {
        part(&self.bytes[..self.length])
    }
}

fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast::<c_void>(),
        iov_len: bytes.len(),
    }
}

fn valid(result: libc::c_int) -> Option<libc::c_int> {
    (result != -1).then_some(result)
}

/// Finds the start time in `/proc/PID/stat`; see `proc_pid_stat(5)`.
fn start_time(stat: &[u8]) -> Option<u64> {
    // The name, in parentheses, may hold anything.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let field = stat.get(end + 2..)?.split(|&byte| byte == b' ').nth(19)?;
    let digit = |number: u64, byte: &u8| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    };
    field.iter().try_fold(0, digit)
}

/// Returns what names the time since this machine was started.
pub(crate) fn boot_id() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim_end().into())
}

/// Returns the name for a file that is not complete yet.
pub(crate) fn draft(path: &Path) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    draft.into()
}

/// What most of these files have room in, however long their numbers are.
const ROOM: usize = 256;
const OWN_STAT: &CStr = c"/proc/self/stat";

#[cfg(test)]
mod tests {
    use std::ffi::{OsStr, OsString};

    use std::os::unix::fs::MetadataExt;

    use super::super::{Exit, Signal, Spawn, SpawnError, Step};
    use super::*;

    fn start(certificate: &Certificate) -> Process {
        try_start(certificate).unwrap()
    }

    fn try_start(certificate: &Certificate) -> Result<Process, SpawnError> {
        let args: [OsString; 1] = ["600".into()];
        let env: [(OsString, OsString); 1] = [("PATH".into(), "/usr/bin:/bin".into())];
        Spawn {
            certificate: Some(certificate),
            ..Spawn::new(OsStr::new("sleep"), &args, &env)
        }
        .spawn()
    }

    fn end(process: &Process) {
        process.signal(Signal::KILL).unwrap();
        while process.try_wait().unwrap() != Some(Exit::Signal(9, false)) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn process_writes_down_who_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it.pid");
        let certificate = Certificate::prepare(&path, &draft(&path), "program it\n").unwrap();
        let process = start(&certificate);
        let text = fs::read_to_string(&path).unwrap();
        let (identity, rest) = Identity::parse(&text).unwrap();
        assert_eq!(identity, Identity::of(&process).unwrap());
        assert_eq!(identity.pid, process.pid());
        assert_eq!(rest, "program it\n");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "a draft is left"
        );

        let found = identity.find().unwrap().unwrap();
        assert_eq!(found.pid(), process.pid());
        Certificate::issue(&path, &process, "program it\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        end(&process);
        assert!(identity.find().unwrap().is_none(), "it is reaped");
    }

    #[test]
    fn process_that_only_has_the_number_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it.pid");
        let certificate = Certificate::prepare(&path, &draft(&path), "").unwrap();
        let process = start(&certificate);
        let identity = Identity::of(&process).unwrap();
        let others = [
            Identity {
                pidfd: identity.pidfd + 1,
                ..identity.clone()
            },
            Identity {
                start: identity.start + 1,
                ..identity.clone()
            },
            Identity {
                boot: "another".into(),
                ..identity
            },
        ];
        for other in others {
            assert!(other.find().unwrap().is_none(), "{other:?}");
        }
        assert!(identity.find().unwrap().is_some());
        end(&process);
    }

    #[test]
    fn program_that_cannot_be_written_down_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it.pid");
        let certificate = Certificate::prepare(&path, &draft(&path), "").unwrap();
        fs::create_dir(&path).unwrap();
        let error = try_start(&certificate).unwrap_err();
        assert_eq!(error.step, Step::Record);
        assert_eq!(error.error.raw_os_error(), Some(libc::EISDIR));
        certificate.discard();
        assert!(!draft(&path).exists(), "a draft is left");
    }

    #[test]
    fn room_of_a_process_that_has_ended_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, draft) = (dir.path().join("it.pid"), dir.path().join("it.new"));
        // Longer than what follows.
        let rest = "program it\n".repeat(20);
        let certificate = Certificate::prepare(&path, &draft, &rest).unwrap();
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let before = inode(&draft);
        let process = start(&certificate);
        assert_eq!(inode(&path), before);
        end(&process);
        Certificate::keep_room(&path, &draft);
        assert!(!path.exists());
        let certificate = Certificate::prepare(&path, &draft, "short\n").unwrap();
        let process = start(&certificate);
        assert_eq!(inode(&path), before);
        let text = fs::read_to_string(&path).unwrap();
        let (identity, rest) = Identity::parse(&text).unwrap();
        assert_eq!(identity, Identity::of(&process).unwrap());
        assert_eq!(rest, "short\n");
        end(&process);
    }

    #[test]
    fn what_is_no_certificate_is_not_taken_for_one() {
        for text in [
            "",
            "12",
            "12\n",
            "0\npidfd 1\nstart 1\nboot b\n",
            "-1\npidfd 1\nstart 1\nboot b\n",
            "1\npidfd 1\nstart 1\nboot b",
            "1\nstart 1\npidfd 1\nboot b\n",
        ] {
            assert!(Identity::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn start_time_is_the_22nd_field_whatever_the_name_holds() {
        let text = b"7 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(start_time(text), Some(4242));
        assert_eq!(start_time(b"7 (a"), None);
        assert_eq!(start_time(b"7 (a)"), None);
        assert_eq!(start_time(b"7 (a) S 1"), None);
    }
}
