use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::log_file::generation_path;

/// The file that is being written, held so that nobody compresses or removes it.
///
/// Every writer has a shared lock on its file. Whoever wants to take a file away gets the
/// exclusive one first, so it never is taken from under a writer, however slow, idle or
/// stopped, and the lock of a dead one is gone with it.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: File,
    path: PathBuf,
    base: PathBuf,
    generation: u32,
    id: FileId,
    /// What is known of its size: all that we wrote, others as of the last look.
    size: AtomicU64,
    /// The size at which to look again how large it really is.
    look_at: AtomicU64,
    /// What others wrote between the last two looks, for each 16 bytes of ours.
    pace: AtomicU64,
    last_look: AtomicU64,
    /// The last line may have no end: a write failed midway, of ours or, when the disk is
    /// full, of another process.
    torn: AtomicBool,
    /// Held while such a line is ended.
    mending: Mutex<()>,
}

/// Which file it is, whatever it is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

/// How new files and directories are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Modes {
    pub(crate) file: Option<u32>,
    pub(crate) directory: Option<u32>,
    /// Whether to end an unfinished last line before writing the first record.
    pub(crate) finish_line: bool,
}

/// A record could not be written whole.
#[derive(Debug)]
pub(crate) struct WriteFailed {
    /// How much of it is in the file all the same.
    pub(crate) written: usize,
    pub(crate) error: io::Error,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

impl OpenFile {
    /// Creates a file that does not exist, with its directories. `None` when it does.
    pub(crate) fn create(base: &Path, generation: u32, modes: Modes) -> io::Result<Option<Self>> {
        let path = generation_path(base, generation);
        let mut options = OpenOptions::new();
        options
            .append(true)
            .create_new(true)
            .mode(modes.file.unwrap_or(0o644));
        let mut result = options.open(&path);
        // An empty directory may be removed again before we are in it.
        for _ in 0..3 {
            match &result {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => break,
            }
            if let Some(directory) = path.parent() {
                create_directories(directory, modes.directory)?;
            }
            result = options.open(&path);
        }
        match result {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error),
            Ok(file) => {
                if let Some(mode) = modes.file {
                    file.set_permissions(Permissions::from_mode(mode))?;
                }
                Self::hold(file, path, base, generation)
            }
        }
    }

    /// Opens a file that exists. `None` when it is gone or is being taken away.
    pub(crate) fn join(base: &Path, generation: u32, modes: Modes) -> io::Result<Option<Self>> {
        let path = generation_path(base, generation);
        let flags = rustix::fs::OFlags::NONBLOCK.bits();
        let result = OpenOptions::new()
            .append(true)
            // A pipe nobody reads from would keep us waiting.
            .custom_flags(i32::try_from(flags).unwrap_or(0))
            .open(&path);
        let file = match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        let open = Self::hold(file, path, base, generation)?;
        if let Some(open) = &open
            && modes.finish_line
            && open.ends_a_line() == Some(false)
        {
            open.torn.store(true, Ordering::Relaxed);
        }
        Ok(open)
    }

    /// Creates a file, or empties the one that is there. `None` when somebody writes to
    /// it.
    pub(crate) fn overwrite(
        base: &Path,
        generation: u32,
        modes: Modes,
    ) -> io::Result<Option<Self>> {
        if let Some(open) = Self::create(base, generation, modes)? {
            return Ok(Some(open));
        }
        let Some(open) = Self::join(base, generation, modes)? else {
            return Ok(None);
        };
        open.empty().map(|is_empty| is_empty.then_some(open))
    }

    /// Removes all that is in the file, unless somebody else writes to it.
    pub(crate) fn empty(&self) -> io::Result<bool> {
        let is_ours = match self.file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => return Err(error),
        };
        let emptied = if is_ours {
            self.file.set_len(0)
        } else {
            Ok(())
        };
        // Asking for the exclusive lock may have cost us the shared one.
        self.file.lock_shared()?;
        emptied?;
        if is_ours {
            self.size.store(0, Ordering::Relaxed);
            self.torn.store(false, Ordering::Relaxed);
        }
        Ok(is_ours)
    }

    fn hold(file: File, path: PathBuf, base: &Path, generation: u32) -> io::Result<Option<Self>> {
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // A file system without locks: nobody there can get the exclusive one either.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        let id = FileId::of(&metadata);
        // It may have been taken away between opening and locking it.
        if !fs::metadata(&path).is_ok_and(|there| FileId::of(&there) == id) {
            return Ok(None);
        }
        Ok(Some(Self {
            file,
            path,
            base: base.to_path_buf(),
            generation,
            id,
            size: AtomicU64::new(metadata.len()),
            look_at: AtomicU64::new(0),
            pace: AtomicU64::new(UNKNOWN_PACE),
            last_look: AtomicU64::new(metadata.len()),
            torn: AtomicBool::new(false),
            mending: Mutex::new(()),
        }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Tells whether it has no name any more, so that what is written is lost.
    pub(crate) fn is_gone(&self) -> bool {
        self.file.metadata().is_ok_and(|there| there.nlink() == 0)
    }

    pub(crate) fn try_clone(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    pub(crate) fn into_file(self) -> File {
        self.file
    }

    /// Tells whether it must be looked at before so much more is written.
    #[inline]
    pub(crate) fn wants_a_look(&self, more: usize) -> bool {
        self.size().saturating_add(more as u64) > self.look_at.load(Ordering::Relaxed)
    }

    /// Returns how many bytes can be written before it must be looked at.
    pub(crate) fn room(&self) -> usize {
        let room = self
            .look_at
            .load(Ordering::Relaxed)
            .saturating_sub(self.size());
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Takes note of how large the file really is, and until when that may be relied on
    /// to keep it under `limit`.
    ///
    /// Others may write to it too. So that it does not grow much past the limit unseen,
    /// we look again after a part of what is left, the smaller the faster others write
    /// beside us. A single process looks about ten times per file.
    pub(crate) fn look(&self, real: u64, limit: Option<u64>) {
        let Some(limit) = limit else {
            self.look_at.store(u64::MAX, Ordering::Relaxed);
            self.size.store(real, Ordering::Relaxed);
            return;
        };
        let before = self.last_look.swap(real, Ordering::Relaxed);
        let ours = self.size().saturating_sub(before);
        let others = real.saturating_sub(before).saturating_sub(ours);
        if let Some(pace) = others.saturating_mul(16).checked_div(ours) {
            self.pace.store(pace, Ordering::Relaxed);
        }
        let pace = self.pace.load(Ordering::Relaxed);
        let left = limit.saturating_sub(real);
        let share = (left / 2).saturating_mul(16) / (16 + pace);
        let step = share.max(limit / 128).min(left);
        self.size.store(real, Ordering::Relaxed);
        self.look_at.store(real + step, Ordering::Relaxed);
    }

    /// Puts off the next look, when it is full but nothing can be done about it now.
    pub(crate) fn look_later(&self, limit: u64) {
        let size = self.size();
        self.look_at.store(size + limit / 16, Ordering::Relaxed);
    }

    /// Appends one record by one system call.
    #[inline]
    pub(crate) fn append(&self, record: &[u8]) -> Result<(), WriteFailed> {
        if self.torn.load(Ordering::Relaxed) {
            return self.append_after_torn(record);
        }
        self.append_at_once(record)
    }

    #[inline]
    fn append_at_once(&self, record: &[u8]) -> Result<(), WriteFailed> {
        match (&self.file).write(record) {
            Ok(written) if written == record.len() => {
                self.size.fetch_add(written as u64, Ordering::Relaxed);
                Ok(())
            }
            Ok(written) => self.append_rest(record, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.append_rest(record, 0),
            Err(error) => {
                self.torn.store(true, Ordering::Relaxed);
                Err(WriteFailed { written: 0, error })
            }
        }
    }

    /// Appends one record made of several parts by one system call.
    pub(crate) fn append_vectored(
        &self,
        parts: &[IoSlice<'_>],
        length: usize,
    ) -> Result<(), WriteFailed> {
        if !self.torn.load(Ordering::Relaxed) && parts.len() <= MOST_PARTS {
            match (&self.file).write_vectored(parts) {
                Ok(written) if written == length => {
                    self.size.fetch_add(written as u64, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(0) | Err(_) => {}
                Ok(written) => {
                    let whole: Vec<u8> =
                        parts.iter().flat_map(|part| part.iter().copied()).collect();
                    return self.append_rest(&whole, written);
                }
            }
        }
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.append(&whole)
    }

    /// Goes on where the system stopped midway: the disk filled up, or a signal came.
    #[cold]
    fn append_rest(&self, record: &[u8], mut written: usize) -> Result<(), WriteFailed> {
        let error = loop {
            if written == record.len() {
                self.size.fetch_add(written as u64, Ordering::Relaxed);
                return Ok(());
            }
            match (&self.file).write(&record[written..]) {
                Ok(0) => break io::Error::from(io::ErrorKind::WriteZero),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
        };
        self.size.fetch_add(written as u64, Ordering::Relaxed);
        self.torn.store(true, Ordering::Relaxed);
        Err(WriteFailed { written, error })
    }

    /// Tells whether a record would begin on a line of its own. `None` when the file cannot
    /// be read, or is elsewhere by now.
    fn ends_a_line(&self) -> Option<bool> {
        let mut file = File::open(&self.path).ok()?;
        let there = file.metadata().ok()?;
        if FileId::of(&there) != self.id {
            return None;
        }
        if there.len() == 0 {
            return Some(true);
        }
        let mut last = [0];
        file.seek(SeekFrom::End(-1)).ok()?;
        file.read_exact(&mut last).ok()?;
        Some(last == *b"\n")
    }

    /// Ends the line that could not be finished, unless somebody has, and begins the record
    /// on its own.
    #[cold]
    fn append_after_torn(&self, record: &[u8]) -> Result<(), WriteFailed> {
        // Whoever waits here would write on the unfinished line.
        let _alone = self.mending.lock();
        if !self.torn.load(Ordering::Relaxed) || self.ends_a_line() == Some(true) {
            self.torn.store(false, Ordering::Relaxed);
            return self.append_at_once(record);
        }
        let parts = [IoSlice::new(b"\n"), IoSlice::new(record)];
        let written = match (&self.file).write_vectored(&parts) {
            Ok(0) => Err(io::Error::from(io::ErrorKind::WriteZero)),
            result => result,
        }
        .map_err(|error| WriteFailed { written: 0, error })?;
        self.size.fetch_add(1, Ordering::Relaxed);
        self.torn.store(false, Ordering::Relaxed);
        self.append_rest(record, written - 1)
    }
}

/// Gets a file for oneself alone, to take it away: `None` when somebody writes to it or
/// it is gone.
pub(crate) fn take(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let taken = FileId::of(&file.metadata()?);
    let there = fs::symlink_metadata(path);
    Ok(there
        .is_ok_and(|there| FileId::of(&there) == taken)
        .then_some(file))
}

/// Creates a directory and those above it that are missing.
pub(crate) fn create_directories(path: &Path, mode: Option<u32>) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_directories(parent, mode)?;
    }
    match DirBuilder::new().mode(mode.unwrap_or(0o755)).create(path) {
        Ok(()) => match mode {
            // As asked for, whatever the umask.
            Some(mode) => fs::set_permissions(path, Permissions::from_mode(mode)),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Until there is a first look, others may be many.
const UNKNOWN_PACE: u64 = 16 * 64;

/// As many parts as one writev(2) takes.
const MOST_PARTS: usize = 1024;
