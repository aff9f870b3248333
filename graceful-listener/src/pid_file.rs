use std::error::Error;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{process, thread};

use nix::libc;

/// Holds a file that tells this process's id, locked for as long as it lives.
///
/// The file contains the id and a newline, as Server::Starter's does. Whether
/// the process still lives is told by the exclusive `flock` on the file, never
/// by the number in it: a number may by now belong to a stranger, a lock dies with
/// its holder. The file appears under its name complete and locked; nobody ever
/// reads half of it, and one that cannot be written leaves the old one as it was.
///
/// The file is removed when the value is dropped, unless another process has
/// meanwhile put its own there. It is emptied if this process may not remove it
/// (any more).
///
/// # Examples
///
/// ```
/// use graceful_listener::{PidFile, PidFileError};
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("app.pid");
///
/// let pid_file = PidFile::create(&path)?;
/// assert_eq!(PidFile::holder(&path)?, Some(std::process::id()));
/// assert!(matches!(PidFile::create(&path), Err(PidFileError::Held { .. })));
///
/// drop(pid_file);
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
    // A fork of this process drops a copy of this value, but the file is not its.
    owner: u32,
}

impl PidFile {
    /// Creates the file, or takes over one whose process is gone.
    ///
    /// # Errors
    ///
    /// Fails with [`PidFileError::Held`] if a living process holds the file, and
    /// if it cannot be written or is no regular file.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, PidFileError> {
        Self::acquire(path.as_ref(), None)
    }

    /// Creates the file, or takes it from the living process `from`, which then
    /// leaves it alone.
    ///
    /// # Errors
    ///
    /// As [`PidFile::create`], if another process than `from` holds it.
    pub fn take_over(path: impl AsRef<Path>, from: u32) -> Result<Self, PidFileError> {
        Self::acquire(path.as_ref(), Some(from))
    }

    /// Goes on holding a file whose descriptor was kept open across `exec`.
    ///
    /// # Errors
    ///
    /// Fails if `fd` is not the file at `path`, or if its lock is another's.
    pub fn from_inherited(path: impl AsRef<Path>, fd: OwnedFd) -> Result<Self, PidFileError> {
        let path = path.as_ref();
        let file = File::from(fd);
        if !is_at(&file, path) {
            return Err(PidFileError::Changed { path: path.into() });
        }
        // The lock belongs to the open file description: this succeeds on the
        // description that holds it.
        match file.try_lock() {
            Ok(()) => Ok(Self {
                path: absolute(path)?,
                file,
                owner: process::id(),
            }),
            Err(TryLockError::WouldBlock) => Err(held(path, &file)),
            Err(TryLockError::Error(error)) => Err(io_error("lock", path, error)),
        }
    }

    /// Returns the id of the living process that holds the file at `path`.
    ///
    /// A missing file and one that was left behind have no holder. A holder that
    /// has not written its id is reported as 0.
    ///
    /// # Errors
    ///
    /// Fails if the file exists and cannot be opened or locked.
    pub fn holder(path: impl AsRef<Path>) -> Result<Option<u32>, PidFileError> {
        let path = path.as_ref();
        // What is no regular file must not be waited for.
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = match options.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", path, error)),
        };
        // Shared, so that two who ask do not take each other for the holder.
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(read_pid(&file).unwrap_or(0))),
            Err(TryLockError::Error(error)) => Err(io_error("lock", path, error)),
        }
    }

    /// Returns the path, absolute and without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns true if the file under this name is still this one.
    #[must_use]
    pub fn is_current(&self) -> bool {
        is_at(&self.file, &self.path)
    }

    fn acquire(path: &Path, from: Option<u32>) -> Result<Self, PidFileError> {
        let path = absolute(path)?;
        let draft = Draft::write(&path)?;
        let mut refusals = 0;
        for _ in 0..ATTEMPTS {
            let present = match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // A link never replaces what somebody else has put there meanwhile.
                    match fs::hard_link(&draft.name.0, &path) {
                        Ok(()) => return Ok(draft.placed(path)),
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                        Err(error) => return Err(io_error("create", &path, error)),
                    }
                }
                Err(error) => return Err(io_error("open", &path, error)),
            };
            if !present.metadata().is_ok_and(|metadata| metadata.is_file()) {
                return Err(PidFileError::NotAFile { path });
            }
            match present.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if from.is_some() && read_pid(&present) == from => {}
                Err(TryLockError::WouldBlock) if refusals < REFUSALS => {
                    // Who only asks, see `holder`, shares the lock, and is waited for.
                    refusals += usize::from(present.try_lock_shared().is_err());
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
                Err(TryLockError::WouldBlock) => return Err(held(&path, &present)),
                Err(TryLockError::Error(error)) => return Err(io_error("lock", &path, error)),
            }
            // Between open and lock its last holder may have removed it, and
            // another may have made a new one.
            if is_at(&present, &path) {
                return match fs::rename(&draft.name.0, &path) {
                    Ok(()) => Ok(draft.placed(path)),
                    Err(error) => Err(io_error("replace", &path, error)),
                };
            }
        }
        Err(PidFileError::Changed { path })
    }
}

impl AsFd for PidFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if self.owner == process::id() && self.is_current() {
            // In a directory that is not ours, a number that may become a stranger's
            // is not to stay behind. That the file is stale the lock tells.
            if fs::remove_file(&self.path).is_err() {
                let _ = self.file.set_len(0);
            }
        }
    }
}

/// Tells why a pid file cannot be held.
#[derive(Debug)]
#[non_exhaustive]
pub enum PidFileError {
    /// A living process holds the lock.
    Held {
        /// The file.
        path: PathBuf,
        /// The number in it, if it contains one.
        pid: Option<u32>,
    },
    /// Something that is no regular file has this name.
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others kept replacing the file.
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl fmt::Display for PidFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held {
                path,
                pid: Some(pid),
            } => write!(
                f,
                "pid file {} is held by the running process {pid}",
                path.display()
            ),
            Self::Held { path, pid: None } => write!(
                f,
                "pid file {} is held by a running process",
                path.display()
            ),
            Self::NotAFile { path } => {
                write!(f, "pid file {} is not a regular file", path.display())
            }
            Self::Changed { path } => write!(
                f,
                "pid file {} was replaced by another process",
                path.display()
            ),
            Self::Io { action, path, .. } => {
                write!(f, "cannot {action} pid file {}", path.display())
            }
        }
    }
}

impl Error for PidFileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The complete and locked file under its temporary name.
struct Draft {
    name: TemporaryName,
    file: File,
}

impl Draft {
    fn write(target: &Path) -> Result<Self, PidFileError> {
        static DRAFTS: AtomicUsize = AtomicUsize::new(0);
        let pid = process::id();
        let mut path = target.as_os_str().to_owned();
        path.push(format!(".{pid}.{}", DRAFTS.fetch_add(1, Ordering::Relaxed)));
        let path = PathBuf::from(path);
        let create = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(&path)
        };
        let file = create()
            .or_else(|error| {
                // The name has our own id in it: its maker is dead.
                if error.kind() == io::ErrorKind::AlreadyExists {
                    fs::remove_file(&path)?;
                    return create();
                }
                Err(error)
            })
            .map_err(|error| io_error("create", &path, error))?;
        let name = TemporaryName(path);
        file.lock()
            .map_err(|error| io_error("lock", &name.0, error))?;
        (&file)
            .write_all(format!("{pid}\n").as_bytes())
            .map_err(|error| io_error("write", &name.0, error))?;
        Ok(Self { name, file })
    }

    fn placed(self, path: PathBuf) -> PidFile {
        PidFile {
            path,
            file: self.file,
            owner: process::id(),
        }
    }
}

struct TemporaryName(PathBuf);

impl Drop for TemporaryName {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _ = fs::remove_file(&self.0);
    }
}

/// Returns the path that goes on meaning this file after a change of directory.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, PidFileError> {
    let resolved = path.canonicalize().or_else(|error| {
        // The file need not exist, its directory has to.
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(error);
        };
        let directory = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            directory
        };
        Ok(directory.canonicalize()?.join(name))
    });
    resolved.map_err(|error| io_error("find the directory of", path, error))
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
}

fn read_pid(file: &File) -> Option<u32> {
    let mut buffer = [0; 32];
    let length = file.read_at(&mut buffer, 0).ok()?;
    str::from_utf8(&buffer[..length])
        .ok()?
        .trim_end()
        .parse()
        .ok()
}

fn held(path: &Path, file: &File) -> PidFileError {
    PidFileError::Held {
        path: path.into(),
        pid: read_pid(file),
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> PidFileError {
    PidFileError::Io {
        action,
        path: path.into(),
        source,
    }
}

/// Enough for any crowd of starting processes; a dangling link would go on for ever.
const ATTEMPTS: usize = 1000;

/// How often a lock has to be refused before it is believed.
const REFUSALS: usize = 10;
