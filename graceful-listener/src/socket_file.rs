use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use std::{process, thread};

use socket2::{Domain, SockAddr, Socket, Type};

/// Removes the file of a Unix socket when dropped, if it is still that socket's
/// and no process that goes on using it has taken it over.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    // A fork of this process drops a copy of this value, but the file is not its.
    owner: u32,
    in_use: Arc<AtomicBool>,
}

impl SocketFile {
    /// Binds a socket, over one that nobody listens on any more.
    pub(crate) fn bind(path: &Path) -> io::Result<(UnixListener, Self)> {
        // Two who start at once must not take each other's new socket for dead:
        // until it listens it refuses connections.
        let _turn = take_turn(path);
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_dead(path)?;
                UnixListener::bind(path)
            }
            result => result,
        }?;
        let file = Self::owned(path)?;
        Ok((listener, file))
    }

    /// Stands for the file that another process has bound and still uses.
    pub(crate) fn lent(path: &Path) -> io::Result<Self> {
        let file = Self::owned(path)?;
        file.in_use.store(true, Ordering::SeqCst);
        Ok(file)
    }

    /// Stands for the lent file too, until its fate is known.
    pub(crate) fn legacy(&self) -> Legacy {
        Legacy {
            used: Arc::downgrade(&self.in_use),
            file: Self {
                path: self.path.clone(),
                in_use: Arc::new(AtomicBool::new(true)),
                ..*self
            },
        }
    }

    fn owned(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            // A later change of directory must not change what is removed.
            path: std::path::absolute(path)?,
            identity: (metadata.dev(), metadata.ino()),
            owner: process::id(),
            in_use: Arc::default(),
        })
    }

    /// A switch that keeps the file when it is set: another process uses it.
    pub(crate) fn in_use(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.in_use)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = self.owner == process::id() && !self.in_use.load(Ordering::SeqCst);
        let same = || {
            fs::symlink_metadata(&self.path)
                .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity)
        };
        if ours && same() {
            // A dead socket that stays behind is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The file of a socket that a predecessor leaves to this process.
#[derive(Debug)]
pub(crate) struct Legacy {
    used: Weak<AtomicBool>,
    file: SocketFile,
}

impl Legacy {
    /// Leaves it to whoever uses the socket, or removes it if nobody does.
    pub(crate) fn accept(self) {
        let in_use = self.used.upgrade();
        let in_use = in_use.as_ref().unwrap_or(&self.file.in_use);
        in_use.store(false, Ordering::SeqCst);
    }
}

fn remove_dead(path: &Path) -> io::Result<()> {
    let in_use = |why| io::Error::new(io::ErrorKind::AddrInUse, why);
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(in_use("the path exists and is not a socket"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full backlog would else hold up the start.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        // Refused is what the kernel says of a socket that no process has. Full,
        // forbidden and the like are said of living ones.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) | Err(_) => Err(in_use("another process listens on the path")),
    }
}

/// Keeps other processes of this crate from binding in the same directory.
#[derive(Debug)]
struct Turn(File);

impl Drop for Turn {
    fn drop(&mut self) {
        // A process that another thread starts has a copy until it is executed, which
        // would keep the lock.
        let _ = self.0.unlock();
    }
}

/// Where the directory cannot be locked it goes without.
fn take_turn(path: &Path) -> Option<Turn> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = File::open(directory).ok()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match directory.try_lock() {
            Ok(()) => return Some(Turn(directory)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1))
            }
            Err(_) => return None,
        }
    }
}

/// How long others are waited for, of whom each needs a moment.
const PATIENCE: Duration = Duration::from_secs(5);
