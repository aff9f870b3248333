use std::fmt;
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

use crate::builder::Builder;
use crate::clock::{self, NANOS};
use crate::error::Error;
use crate::event::{Attempt, Event};
use crate::housekeeper::Housekeeper;
use crate::line::with_line;
use crate::open_file::{OpenFile, WriteFailed};
use crate::rotor::{LONGEST_STALL, Occasion, Rotor, copy_of};
use crate::settings::{ErrorPolicy, Settings};
use crate::successor::Target;
use crate::window::Window;

/// A log file that goes on to the next by itself, shared by threads and processes.
///
/// Each call of [`write`](Write::write), `write_all` or `writeln!` is one record: it is
/// appended by one `write(2)`, whole, to one file. Nothing is buffered; what has been
/// written outlives the process. Clones are cheap and write to the same file, and so does
/// a shared reference: `(&logs).write_all(..)`.
///
/// # Examples
///
/// ```
/// use file_rotatelogs::{Clock, RotateLogs};
/// use std::io::Write;
/// use std::time::Duration;
///
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let mut logs = RotateLogs::builder(directory.join("access.%Y%m%d.log"))
///     .link(directory.join("access.log"))
///     .clock(Clock::utc())
///     .rotate_every(Duration::from_secs(24 * 3600))
///     .rotate_at_bytes(512 * 1024 * 1024)
///     .max_age(Duration::from_secs(14 * 24 * 3600))
///     .build()?;
/// writeln!(logs, "{} {}", "GET", "/")?;
///
/// assert_eq!(std::fs::read(directory.join("access.log"))?, b"GET /\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RotateLogs {
    shared: Arc<Shared>,
}

impl RotateLogs {
    /// Begins to describe a log whose files are called by a strftime [`Pattern`](crate::Pattern).
    pub fn builder(pattern: impl AsRef<Path>) -> Builder {
        Builder::new(pattern.as_ref())
    }

    /// Opens the first file.
    pub(crate) fn open(settings: Settings) -> Result<Self, Error> {
        let settings = Arc::new(settings);
        let logs = Self {
            shared: Arc::new(Shared {
                window: Window::default(),
                state: RwLock::new(State::default()),
                rotor: Mutex::new(Rotor::default()),
                housekeeper: Housekeeper::new(Arc::clone(&settings)),
                failing: AtomicBool::new(false),
                lost: AtomicU64::new(0),
                lost_before: AtomicU64::new(0),
                settings,
            }),
        };
        let settings = &logs.shared.settings;
        if settings.lazy {
            logs.shared.housekeeper.tidy();
        } else if let Err(error) = logs.shared.tend(Occasion::Tick) {
            let path = Target::at(settings, settings.clock.nanos()).base;
            return Err(Error::io("pattern", "open", &path, error));
        }
        Ok(logs)
    }

    /// Returns the path of the file that is written, or of the one that the next record
    /// would open.
    #[must_use]
    pub fn current_path(&self) -> PathBuf {
        self.shared.path()
    }

    /// Goes on to the next file now: to the next generation, unless a new period has
    /// begun.
    ///
    /// When another process has just done so, its file is joined. Does nothing when no
    /// file has been opened yet.
    ///
    /// # Errors
    ///
    /// Returns the error of opening the next file; the open one is then written on.
    pub fn rotate(&self) -> io::Result<()> {
        self.shared.tend_patiently(Occasion::Rotate)
    }

    /// Looks now whether the file has been moved or deleted, and if so opens it anew.
    ///
    /// This is what a program does on the signal of logrotate. Without it the same is
    /// noticed within half a second, by the next record.
    ///
    /// It takes locks, so call it from a thread that waits for signals, not from a signal
    /// handler.
    ///
    /// # Errors
    ///
    /// Returns the error of opening the file.
    pub fn reopen(&self) -> io::Result<()> {
        self.shared.tend_patiently(Occasion::Reopen)
    }

    /// Opens the file if none is open, which can only be in a [`lazy`](Builder::lazy) log
    /// or after a failure.
    ///
    /// # Errors
    ///
    /// Returns the error of opening it.
    pub fn ensure_open(&self) -> io::Result<()> {
        self.shared.tend_patiently(Occasion::Record(0))
    }

    /// Begins a record that is too large to be put together first.
    ///
    /// Until it is dropped, this process goes on to no other file, so that all of it is in
    /// one. Other processes may write in between its parts.
    #[must_use]
    pub fn long_record(&self) -> LongRecord<'_> {
        // Told as an event; the parts go where they can.
        drop(self.ensure_open());
        LongRecord {
            shared: &self.shared,
            _rotor: self.shared.rotor.lock(),
        }
    }

    /// Does what the passing of time asks for, as the next record would: goes on to the
    /// file of a new period, looks after the file, has old ones removed and compressed.
    ///
    /// A program that may be idle for long calls this from time to time, once a second
    /// for instance; [`NonBlocking`](crate::NonBlocking) does it by itself. Failures are
    /// told as events.
    pub fn tick(&self) {
        if self.shared.window.is_over(&self.shared.settings.clock) {
            // Told as an event, and tried again.
            drop(self.shared.tend(Occasion::Tick));
        }
    }

    /// Waits until old files are removed, compressed and synced, as far as that has been
    /// begun, or the time is over. Returns whether it is done.
    ///
    /// For programs that end soon after they rotate, and for tests. What is not done when
    /// a program ends is done by the next.
    #[must_use]
    pub fn wait_for_housekeeping(&self, timeout: Duration) -> bool {
        self.shared.housekeeper.wait(timeout)
    }

    /// Brings what has been written to the disk, as `fdatasync(2)` does.
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn sync_data(&self) -> io::Result<()> {
        match self.shared.view(OpenFile::try_clone) {
            Some(file) => file?.sync_data(),
            None => Ok(()),
        }
    }

    /// Returns how many records could not be written since the log was opened.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Appends records that lie one after the other, with as few system calls as the
    /// limits allow.
    ///
    /// `ends` are the offsets just after each record.
    pub(crate) fn append_records(&self, bytes: &[u8], ends: &[usize]) -> io::Result<()> {
        self.shared.append_records(bytes, ends)
    }

    /// Appends one record.
    #[inline]
    fn append(&self, record: &[u8]) -> io::Result<usize> {
        let shared = &*self.shared;
        if record.is_empty() {
            return Ok(0);
        }
        let state = shared.state_for(record.len());
        let result = match &state.open {
            Some(open) => open.append(record),
            None => Err(state.unopened()),
        };
        drop(state);
        shared.settle(result).map(|()| record.len())
    }

    fn append_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let shared = &*self.shared;
        let length = parts.iter().map(|part| part.len()).sum();
        if length == 0 {
            return Ok(0);
        }
        let state = shared.state_for(length);
        let result = match &state.open {
            Some(open) => open.append_vectored(parts, length),
            None => Err(state.unopened()),
        };
        drop(state);
        shared.settle(result).map(|()| length)
    }
}

/// Appends the bytes as one record.
impl Write for RotateLogs {
    #[inline]
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        (&*self).write(record)
    }

    #[inline]
    fn write_all(&mut self, record: &[u8]) -> io::Result<()> {
        (&*self).write_all(record)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(parts)
    }

    fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> io::Result<()> {
        (&*self).write_fmt(arguments)
    }

    /// Does nothing: each record has been written when `write` returns.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends the bytes as one record.
impl Write for &RotateLogs {
    #[inline]
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.append(record)
    }

    #[inline]
    fn write_all(&mut self, record: &[u8]) -> io::Result<()> {
        self.append(record).map(drop)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.append_vectored(parts)
    }

    fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> io::Result<()> {
        with_line(arguments, |line| self.append(line).map(drop))
    }

    /// Does nothing: each record has been written when `write` returns.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for RotateLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotateLogs")
            .field("pattern", &self.shared.settings.pattern)
            .field("current_path", &self.current_path())
            .finish_non_exhaustive()
    }
}

/// A record that is written in parts, see [`RotateLogs::long_record`].
#[derive(Debug)]
pub struct LongRecord<'a> {
    shared: &'a Shared,
    /// Who has it goes on to no other file, and lets nobody else.
    _rotor: MutexGuard<'a, Rotor>,
}

/// Appends the bytes to the record.
impl Write for LongRecord<'_> {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let state = self.shared.state.read();
        let result = match &state.open {
            Some(open) => open.append(part),
            None => Err(state.unopened()),
        };
        drop(state);
        self.shared.settle(result).map(|()| part.len())
    }

    /// Does nothing: each part has been written when `write` returns.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the clones of a log have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) window: Window,
    state: RwLock<State>,
    rotor: Mutex<Rotor>,
    pub(crate) housekeeper: Housekeeper,
    /// The last record could not be written.
    failing: AtomicBool,
    lost: AtomicU64,
    /// How many were lost before the present failure.
    lost_before: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    open: Option<OpenFile>,
    /// Why there is none open.
    error: Option<io::Error>,
}

impl State {
    fn unopened(&self) -> WriteFailed {
        let error = self
            .error
            .as_ref()
            .map_or_else(|| io::Error::from(io::ErrorKind::NotFound), copy_of);
        WriteFailed { written: 0, error }
    }
}

impl Shared {
    /// Looks at the open file.
    pub(crate) fn view<T>(&self, look: impl FnOnce(&OpenFile) -> T) -> Option<T> {
        self.state.read().open.as_ref().map(look)
    }

    /// Puts another file in the place of the open one. No record is being written to the
    /// old one when this returns.
    pub(crate) fn replace(&self, open: Option<OpenFile>) -> Option<OpenFile> {
        let mut state = self.state.write();
        state.error = None;
        std::mem::replace(&mut state.open, open)
    }

    /// Gives up a file whose records nobody would see.
    pub(crate) fn lose(&self, error: &io::Error) {
        let mut state = self.state.write();
        state.open = None;
        state.error = Some(copy_of(error));
    }

    /// Returns the file for a record of so many bytes, having gone on to the next if need
    /// be.
    #[inline]
    fn state_for(&self, length: usize) -> RwLockReadGuard<'_, State> {
        if !self.window.is_over(&self.settings.clock) {
            let state = self.state.read();
            if state
                .open
                .as_ref()
                .is_some_and(|open| !open.wants_a_look(length))
            {
                return state;
            }
        }
        self.state_after_tending(length)
    }

    #[cold]
    fn state_after_tending(&self, length: usize) -> RwLockReadGuard<'_, State> {
        let has_file = self.view(|_| ()).is_some();
        // Another thread may be at it. Its rotation is worth waiting for, so that no file
        // grows past its limit, but no more than that: then the file is written as it is.
        let rotor = if has_file {
            self.rotor
                .try_lock_for(Duration::from_nanos(LONGEST_STALL.unsigned_abs()))
        } else {
            Some(self.rotor.lock())
        };
        if let Some(rotor) = rotor {
            // Told as an event; the record goes where it can.
            if let Err(error) = self.tend_with(rotor, Occasion::Record(length))
                && !has_file
            {
                self.state.write().error = Some(error);
            }
        }
        self.state.read()
    }

    fn tend(&self, occasion: Occasion) -> io::Result<()> {
        self.tend_with(self.rotor.lock(), occasion)
    }

    /// Tends on behalf of a caller who wants it done, not only tried.
    fn tend_patiently(&self, occasion: Occasion) -> io::Result<()> {
        loop {
            match self.tend(occasion) {
                // Another process rotates just now.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                result => return result,
            }
        }
    }

    fn tend_with(&self, mut rotor: MutexGuard<'_, Rotor>, occasion: Occasion) -> io::Result<()> {
        let result = rotor.tend(self, occasion);
        let events = std::mem::take(&mut rotor.events);
        drop(rotor);
        for event in &events {
            self.settings.listener.tell(event);
        }
        result
    }

    /// Counts and tells how a record fared.
    #[inline]
    fn settle(&self, result: Result<(), WriteFailed>) -> io::Result<()> {
        match result {
            Ok(()) => {
                if self.failing.load(Ordering::Relaxed) {
                    self.recovered();
                }
                Ok(())
            }
            Err(failed) => {
                self.failed(&failed.error, 1);
                match self.settings.on_error {
                    ErrorPolicy::Return => Err(failed.error),
                    ErrorPolicy::Drop => Ok(()),
                }
            }
        }
    }

    #[cold]
    fn failed(&self, error: &io::Error, records: u64) {
        let before = self.lost.fetch_add(records, Ordering::Relaxed);
        if !self.failing.swap(true, Ordering::Relaxed) {
            self.lost_before.store(before, Ordering::Relaxed);
            self.settings.listener.tell(&Event::Failed {
                attempt: Attempt::Write,
                path: self.path(),
                error: copy_of(error),
            });
        }
    }

    #[cold]
    fn recovered(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            let lost = self.lost.load(Ordering::Relaxed);
            self.settings.listener.tell(&Event::Recovered {
                attempt: Attempt::Write,
                path: self.path(),
                lost: lost - self.lost_before.load(Ordering::Relaxed),
            });
        }
    }

    fn path(&self) -> PathBuf {
        self.view(|open| open.path().to_path_buf())
            .unwrap_or_else(|| Target::at(&self.settings, self.settings.clock.nanos()).base)
    }

    fn append_records(&self, bytes: &[u8], ends: &[usize]) -> io::Result<()> {
        let mut first_error = None;
        let mut give_up_at = i64::MAX;
        let mut done = 0;
        let mut start = 0;
        while done < ends.len() {
            let first = ends[done] - start;
            let state = self.state_for(first);
            let (result, fitting) = match &state.open {
                Some(open) => {
                    // As many as fit, or one that fits nowhere; one by one when it fails.
                    let room = match first_error {
                        None => open.room().clamp(first, BATCH.max(first)),
                        Some(_) => first,
                    };
                    let fitting = ends[done..].partition_point(|&end| end - start <= room);
                    let end = ends[done + fitting - 1];
                    (open.append(&bytes[start..end]), fitting)
                }
                None => (Err(state.unopened()), 1),
            };
            drop(state);
            match result {
                Ok(()) => {
                    if self.failing.load(Ordering::Relaxed) {
                        self.recovered();
                    }
                    done += fitting;
                }
                Err(failed) => {
                    let reached = start + failed.written;
                    done += ends[done..].partition_point(|&end| end <= reached);
                    let now = clock::steady_nanos();
                    if first_error.is_none() {
                        give_up_at = now + LONGEST_STRUGGLE;
                    }
                    let lost = if now < give_up_at {
                        1
                    } else {
                        ends.len() - done
                    };
                    self.failed(&failed.error, lost as u64);
                    done += lost;
                    first_error.get_or_insert(failed.error);
                }
            }
            start = ends[done - 1];
        }
        first_error.map_or(Ok(()), Err)
    }
}

/// So many bytes are worth a system call; with more, others would wait for it.
const BATCH: usize = 256 * 1024;

/// How long, in nanoseconds, the records after one that could not be written are tried
/// before the rest of a batch is given up.
const LONGEST_STRUGGLE: i64 = NANOS / 10;
