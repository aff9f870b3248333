use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::clock;
use crate::open_file::FileId;

/// The file by which the processes that share a pattern agree who rotates.
///
/// It is locked only for the moment of a rotation, and the kernel takes the lock from a
/// process that dies. In it stands which file was opened last; that is no more than a
/// note: where it is missing or wrong, the files themselves tell.
#[derive(Debug)]
pub(crate) struct RotationLock {
    path: PathBuf,
}

/// The rotation lock, held until dropped.
#[derive(Debug)]
pub(crate) struct Held {
    _file: File,
}

/// Which file was opened last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Note {
    /// The beginning of the period it was opened for.
    pub(crate) start: Option<i64>,
    /// The file.
    pub(crate) path: PathBuf,
}

impl RotationLock {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Takes the lock, or tells that another process has it.
    pub(crate) fn try_hold(&self) -> io::Result<Option<Held>> {
        loop {
            let file = self.open()?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let locked = file.metadata()?;
            // Whoever holds the lock of a file that is no longer there holds nothing.
            let there = fs::metadata(&self.path).ok();
            if there.is_some_and(|there| FileId::of(&there) == FileId::of(&locked)) {
                return Ok(Some(Held { _file: file }));
            }
        }
    }

    /// Takes the lock, waiting for it as long as given in nanoseconds.
    pub(crate) fn hold_within(&self, patience: i64) -> io::Result<Option<Held>> {
        let deadline = clock::steady_nanos() + patience;
        loop {
            let held = self.try_hold()?;
            if held.is_some() || clock::steady_nanos() >= deadline {
                return Ok(held);
            }
            thread::sleep(PAUSE);
        }
    }

    /// Reads the note. No lock is needed: what is half-written is not taken for one.
    pub(crate) fn note(&self) -> Option<Note> {
        let mut text = Vec::new();
        self.open_as(false).ok()?.read_to_end(&mut text).ok()?;
        Note::parse(&text)
    }

    /// Writes the note, if that is possible. It should be done under the lock.
    pub(crate) fn set_note(&self, note: &Note) {
        let text = note.format();
        if let Ok(file) = self.open()
            && file.write_all_at(&text, 0).is_ok()
        {
            // Only what is left of a longer one; it is not read beyond the line's end.
            let _ = file.set_len(text.len() as u64);
        }
    }

    fn open(&self) -> io::Result<File> {
        match self.open_as(true) {
            // Another user's: it can be locked, if not written.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.open_as(false),
            result => result,
        }
    }

    /// Opens the file, to write or only to read. Neither is a link followed that somebody
    /// has put in its place, nor a pipe waited for.
    fn open_as(&self, write: bool) -> io::Result<File> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        OpenOptions::new()
            .read(true)
            .write(write)
            .create(write)
            .truncate(false)
            .mode(0o644)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
            .open(&self.path)
    }
}

impl Note {
    fn format(&self) -> Vec<u8> {
        let start = self
            .start
            .map_or_else(|| "-".to_owned(), |start| start.to_string());
        [
            start.as_bytes(),
            b" ",
            self.path.as_os_str().as_bytes(),
            b"\n",
        ]
        .concat()
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let line = text.split(|&byte| byte == b'\n').next()?;
        if line.len() == text.len() {
            return None;
        }
        let space = line.iter().position(|&byte| byte == b' ')?;
        let start = std::str::from_utf8(&line[..space]).ok()?;
        Some(Self {
            start: match start {
                "-" => None,
                number => Some(number.parse().ok()?),
            },
            path: Path::new(std::ffi::OsStr::from_bytes(&line[space + 1..])).to_path_buf(),
        })
    }
}

/// How often a busy lock is tried: about as often as a rotation takes.
const PAUSE: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn note_reads_back_as_written_and_not_in_part() {
        for start in [None, Some(-5), Some(1_767_225_600)] {
            let note = Note {
                start,
                path: PathBuf::from("/var/log/a b.log.3"),
            };
            let text = note.format();
            assert_eq!(Note::parse(&text), Some(note));
            for end in 0..text.len() {
                assert_eq!(Note::parse(&text[..end]), None, "{end} bytes of it");
            }
        }
        assert_eq!(Note::parse(b"x y\n"), None);
    }

    #[test]
    fn lock_is_one_for_all_and_free_when_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let lock = RotationLock::new(directory.path().join(".log.lock"));
        let held = lock.try_hold().unwrap();
        assert!(held.is_some());
        assert!(lock.try_hold().unwrap().is_none());
        drop(held);
        assert!(lock.try_hold().unwrap().is_some());
    }

    #[test]
    fn lock_of_a_file_that_was_deleted_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let lock = RotationLock::new(directory.path().join(".log.lock"));
        let held = lock.try_hold().unwrap();
        fs::remove_file(directory.path().join(".log.lock")).unwrap();
        assert!(lock.try_hold().unwrap().is_some());
        drop(held);
    }
}
