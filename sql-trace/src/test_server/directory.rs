use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::account::Account;

/// A server's own directory, which is removed with this value.
///
/// It is locked while its process lives. One whose lock is free was left by a
/// process that had no time to remove it, so the next one does.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Held open for its lock.
    _lock: File,
}

impl Directory {
    /// Makes a directory for a server that `account` runs.
    pub(super) fn create(account: Option<Account>) -> io::Result<Self> {
        static SWEEP: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);

        let base = base();
        SWEEP.call_once(|| sweep(&base));
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.subsec_nanos());
        let name = format!(
            "{PREFIX}{}-{}-{nanos:x}",
            process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        // Nobody may find it before it is locked.
        let hidden = base.join(format!(".{name}"));
        DirBuilder::new().mode(0o700).create(&hidden)?;
        let lock = File::create(hidden.join(LOCK))?;
        lock.lock()?;
        if let Some(account) = account {
            account.own(&hidden)?;
        }
        let path = base.join(name);
        fs::rename(&hidden, &path)?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(super) fn log(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
    }

    pub(super) fn read_log(&self) -> String {
        match fs::read(self.log_path()) {
            Ok(log) => String::from_utf8_lossy(&log).into_owned(),
            Err(e) => format!("(cannot read {}: {e})", self.log_path().display()),
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if preserve() {
            // Unlocked, but not to be taken for one that was left behind.
            let _ = File::create(self.path.join(PRESERVED));
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

const PREFIX: &str = "sql-trace-test-";
const LOCK: &str = "owner.lock";
const PRESERVED: &str = "preserved";

/// Whether directories are to be kept for a look at them.
fn preserve() -> bool {
    std::env::var_os("TEST_SERVER_PRESERVE").is_some_and(|value| value == "1")
}

/// Where servers are put: the directory that `TMPDIR` names, or else memory, if
/// there is plenty, or else `/tmp`.
///
/// A data directory is a thousand small files, which some file systems take
/// seconds to make, and nothing of it is to last.
fn base() -> PathBuf {
    /// The address of a Unix socket holds 107 bytes.
    const LONGEST: usize = 50;
    const PLENTY: u64 = 1 << 30;

    let base = std::env::temp_dir();
    if std::env::var_os("TMPDIR").is_some() && base.as_os_str().len() <= LONGEST {
        return base;
    }
    let memory = Path::new("/dev/shm");
    match rustix::fs::statvfs(memory) {
        Ok(stat) if stat.f_bavail * stat.f_frsize >= PLENTY => memory.to_owned(),
        _ => PathBuf::from("/tmp"),
    }
}

/// Removes the directories of processes that are gone.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    let me = rustix::process::geteuid();
    for entry in entries.flatten() {
        let path = entry.path();
        let ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX));
        if !ours || path.join(PRESERVED).exists() {
            continue;
        }
        // The lock is ours even where the directory is the server's.
        let Ok(lock) = OpenOptions::new().write(true).open(path.join(LOCK)) else {
            continue;
        };
        let owned = lock.metadata().is_ok_and(|meta| meta.uid() == me.as_raw());
        if owned && !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}
