use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::{Clock, DAY, NANOS};
#[cfg(any(feature = "gzip", feature = "zstd"))]
use crate::compress::Compression;
use crate::error::Error;
use crate::event::{Event, Listener};
use crate::link::Link;
use crate::lock::RotationLock;
use crate::open_file::{Modes, create_directories};
use crate::pattern::Pattern;
use crate::period::Period;
use crate::retention::Retention;
use crate::rotatelogs::RotateLogs;
use crate::settings::{Cadence, ErrorPolicy, Settings, SyncPolicy};

/// Describes a [`RotateLogs`], and builds it.
///
/// | setting | without it |
/// |---|---|
/// | [`link`](Self::link) | no link |
/// | [`clock`](Self::clock) | the system's time zone |
/// | [`rotate_every`](Self::rotate_every) | when the name changes |
/// | [`rotate_at_bytes`](Self::rotate_at_bytes) | any size |
/// | [`max_age`](Self::max_age), [`max_files`](Self::max_files), [`max_total_bytes`](Self::max_total_bytes) | nothing is removed |
/// | [`compress`](Self::compress) | nothing is compressed |
/// | [`force_new_file`](Self::force_new_file) | an existing file is appended to |
/// | [`ring`](Self::ring), [`start_empty`](Self::start_empty) | nothing is emptied |
/// | [`mode`](Self::mode), [`dir_mode`](Self::dir_mode) | 0644 and 0755, less the umask |
/// | [`sync`](Self::sync) | left to the system |
/// | [`on_error`](Self::on_error) | the caller gets the error |
/// | [`on_event`](Self::on_event) | nobody is told |
/// | [`lazy`](Self::lazy) | the first file is opened at once |
/// | [`finish_lines`](Self::finish_lines) | an existing file is appended to as it is |
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `build` is called"]
pub struct Builder {
    pattern: PathBuf,
    link: Option<PathBuf>,
    clock: Clock,
    rotate_every: Option<Option<Duration>>,
    rotate_at_bytes: Option<u64>,
    retention: Retention,
    #[cfg(any(feature = "gzip", feature = "zstd"))]
    compression: Option<Compression>,
    modes: Modes,
    force_new_file: bool,
    ring: Option<u32>,
    start_empty: bool,
    lazy: bool,
    sync: SyncPolicy,
    on_error: ErrorPolicy,
    listener: Listener,
}

impl Builder {
    pub(crate) fn new(pattern: &Path) -> Self {
        Self {
            pattern: pattern.to_path_buf(),
            link: None,
            clock: Clock::default(),
            rotate_every: None,
            rotate_at_bytes: None,
            retention: Retention::default(),
            #[cfg(any(feature = "gzip", feature = "zstd"))]
            compression: None,
            modes: Modes {
                file: None,
                directory: None,
                finish_line: false,
            },
            force_new_file: false,
            ring: None,
            start_empty: false,
            lazy: false,
            sync: SyncPolicy::default(),
            on_error: ErrorPolicy::default(),
            listener: Listener::default(),
        }
    }

    /// Keeps a symbolic link at this path that leads to the file being written.
    ///
    /// It is replaced at one stroke, and is relative where link and file lie in one tree.
    pub fn link(mut self, path: impl Into<PathBuf>) -> Self {
        self.link = Some(path.into());
        self
    }

    /// Tells the time, and decides when midnight is. Default: [`Clock::local`].
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Begins a new file each time the clock reaches a multiple of this, in whole seconds.
    ///
    /// Multiples are counted on the wall clock from midnight: every 6 hours means at 0, 6,
    /// 12 and 18 o'clock. A week begins on Monday. The name is that of the beginning.
    ///
    /// Without this a new file begins whenever the name changes: `%H` makes it every
    /// hour, `%Y%m%d` every day. With `None` time never makes a new file, only size and
    /// [`rotate`](RotateLogs::rotate) do, and the name is that of the moment.
    pub fn rotate_every(mut self, period: impl Into<Option<Duration>>) -> Self {
        self.rotate_every = Some(period.into());
        self
    }

    /// Begins a new file, `.1`, `.2` and so on, before one would grow larger than this.
    ///
    /// Only a record that is larger by itself makes a larger file, and threads that do not
    /// wait longer than a millisecond for one that rotates. When several processes write
    /// to one file, each looks again how large it is after a part of what was left, so
    /// that it can grow past this by about a 64th part for each process.
    pub fn rotate_at_bytes(mut self, bytes: u64) -> Self {
        self.rotate_at_bytes = Some(bytes);
        self
    }

    /// Removes files all of whose records are older than this.
    ///
    /// A file's age is counted from the end of the period in its name or from its last
    /// change, whichever is later.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.retention.max_age = Some(age);
        self
    }

    /// Keeps this many files, the one being written among them, and removes the oldest of
    /// more.
    pub fn max_files(mut self, files: usize) -> Self {
        self.retention.max_files = Some(files);
        self
    }

    /// Removes the oldest files as long as all together, the one being written among
    /// them, take more bytes than this.
    pub fn max_total_bytes(mut self, bytes: u64) -> Self {
        self.retention.max_total_bytes = Some(bytes);
        self
    }

    /// Compresses files that nobody writes to any more.
    #[cfg(any(feature = "gzip", feature = "zstd"))]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "gzip", feature = "zstd"))))]
    pub fn compress(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Begins a new file at each start and each change of the name, also where there is
    /// one to append to. Default: `false`.
    pub fn force_new_file(mut self, force: bool) -> Self {
        self.force_new_file = force;
        self
    }

    /// Goes round in this many files instead of numbering on: after the last, the first is
    /// emptied and written again. With 1 the file is emptied instead of rotated.
    ///
    /// For logs that somebody else reads as they are written. What was in a file is lost;
    /// so each file is emptied only when no other process writes to it.
    pub fn ring(mut self, files: u32) -> Self {
        self.ring = Some(files);
        self
    }

    /// Empties the first file that is opened, in a [`ring`](Self::ring). Default: `false`.
    pub fn start_empty(mut self, empty: bool) -> Self {
        self.start_empty = empty;
        self
    }

    /// Gives new files these permissions, whatever the umask: `0o640` for instance.
    pub fn mode(mut self, mode: u32) -> Self {
        self.modes.file = Some(mode);
        self
    }

    /// Gives new directories these permissions, whatever the umask.
    pub fn dir_mode(mut self, mode: u32) -> Self {
        self.modes.directory = Some(mode);
        self
    }

    /// Decides when records are brought to the disk. Default: [`SyncPolicy::Never`].
    pub fn sync(mut self, policy: SyncPolicy) -> Self {
        self.sync = policy;
        self
    }

    /// Decides what becomes of a record that cannot be written. Default:
    /// [`ErrorPolicy::Return`].
    pub fn on_error(mut self, policy: ErrorPolicy) -> Self {
        self.on_error = policy;
        self
    }

    /// Calls a function for each [`Event`].
    ///
    /// It is called by the thread that rotates, which may be any that writes, or by the
    /// one that removes and compresses. It should be quick; it may write to the log, also
    /// through a [`NonBlocking`](crate::NonBlocking), which takes a record of the thread that
    /// empties it even when it is full.
    pub fn on_event(mut self, function: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.listener = Listener::new(function);
        self
    }

    /// Opens a file only when there is a record for it, so that a period without records
    /// has no file. Default: `false`.
    pub fn lazy(mut self, lazy: bool) -> Self {
        self.lazy = lazy;
        self
    }

    /// Begins on a new line where an existing file does not end with one, as a killed
    /// process may leave it. Default: `false`.
    pub fn finish_lines(mut self, finish: bool) -> Self {
        self.modes.finish_line = finish;
        self
    }

    /// Checks the settings, creates the directories, opens the file and points the link
    /// at it.
    ///
    /// # Errors
    ///
    /// Refuses settings that contradict each other or cannot work, by their name, and
    /// returns the system's error when a directory or the file cannot be made.
    pub fn build(self) -> Result<RotateLogs, Error> {
        RotateLogs::open(self.settings()?)
    }

    fn settings(self) -> Result<Settings, Error> {
        Pattern::new(&self.pattern)?;
        let absolute = |setting, path: &Path| {
            std::path::absolute(path)
                .map_err(|error| Error::io(setting, "find the directory of", path, error))
        };
        let pattern = Pattern::new(absolute("pattern", &self.pattern)?)?;
        check_name(&pattern, &self.clock)?;
        self.check_ring()?;
        let cadence = cadence(
            &pattern,
            &self.clock,
            self.rotate_every,
            self.ring.is_some(),
        )?;
        check_limits(self.rotate_at_bytes, self.retention)?;
        check_modes(self.modes)?;
        if let SyncPolicy::Every(interval) = self.sync
            && interval < Duration::from_millis(500)
        {
            return Err(Error::refused(
                "sync",
                format!("every {interval:?} is more often than every 500ms"),
            ));
        }
        let link = match &self.link {
            Some(path) => {
                let path = absolute("link", path)?;
                Some(checked_link(path, &pattern, &self.clock, self.modes)?)
            }
            None => None,
        };
        let root = pattern.root();
        create_directories(&root, self.modes.directory)
            .map_err(|error| Error::io("pattern", "create the directory", &root, error))?;
        Ok(Settings {
            lock: RotationLock::new(lock_path(&pattern, &root)),
            clock: self.clock,
            cadence,
            limit: self.rotate_at_bytes,
            retention: self.retention,
            #[cfg(any(feature = "gzip", feature = "zstd"))]
            compression: self.compression,
            link,
            modes: self.modes,
            force_new_file: self.force_new_file,
            ring: self.ring,
            start_empty: self.start_empty,
            lazy: self.lazy,
            sync: self.sync,
            on_error: self.on_error,
            listener: self.listener,
            pattern,
        })
    }
}

impl Builder {
    /// A ring keeps nothing that the other settings could be about.
    fn check_ring(&self) -> Result<(), Error> {
        let Some(files) = self.ring else {
            return if self.start_empty {
                Err(Error::refused(
                    "start_empty",
                    "only files of a ring are emptied",
                ))
            } else {
                Ok(())
            };
        };
        if files == 0 {
            return Err(Error::refused("ring", "0 would leave nothing to write to"));
        }
        #[cfg(any(feature = "gzip", feature = "zstd"))]
        let compresses = self.compression.is_some();
        #[cfg(not(any(feature = "gzip", feature = "zstd")))]
        let compresses = false;
        let others = [
            (
                "max_age, max_files or max_total_bytes",
                !self.retention.is_unlimited(),
            ),
            ("force_new_file", self.force_new_file),
            ("compress", compresses),
        ];
        match others.iter().find(|(_, is_set)| *is_set) {
            Some((other, _)) => Err(Error::refused(
                "ring",
                format!("files that are written again cannot have {other} too"),
            )),
            None => Ok(()),
        }
    }
}

fn check_name(pattern: &Pattern, clock: &Clock) -> Result<(), Error> {
    let path = pattern.path_at(clock.now(), clock);
    let name = path.file_name().unwrap_or_default().as_bytes();
    for suffix in [".gz", ".zst"] {
        if name.ends_with(suffix.as_bytes()) {
            return Err(Error::refused(
                "pattern",
                format!("{pattern} ends in {suffix}, which marks compressed files"),
            ));
        }
    }
    // Room for `.`, a generation, `.zst` and `.tmp`.
    if name.len() > LONGEST_NAME {
        return Err(Error::refused(
            "pattern",
            format!("{pattern} makes names of more than {LONGEST_NAME} bytes"),
        ));
    }
    Ok(())
}

fn cadence(
    pattern: &Pattern,
    clock: &Clock,
    rotate_every: Option<Option<Duration>>,
    is_ring: bool,
) -> Result<Cadence, Error> {
    let span = pattern.span();
    let Some(period) = rotate_every else {
        return Ok(match span {
            0 => Cadence::Never,
            1..=DAY => Cadence::Every(span),
            _ => Cadence::ByName,
        });
    };
    let Some(period) = period else {
        return Ok(Cadence::Never);
    };
    let refuse = |problem: String| Err(Error::refused("rotate_every", problem));
    if period.is_zero() || period.subsec_nanos() != 0 {
        return refuse(format!("{period:?} is not a number of whole seconds"));
    }
    let length = match i64::try_from(period.as_secs()) {
        Ok(length) if length <= LONGEST_PERIOD => length,
        _ => return refuse(format!("{period:?} is longer than a hundred years")),
    };
    if is_ring {
        return Ok(Cadence::Every(length));
    }
    // Where the name does not show each period, it does not show some of the next few.
    let zone = clock.zone_ref();
    let mut at = clock.nanos().div_euclid(NANOS);
    let mut last: Option<(PathBuf, i64)> = None;
    for _ in 0..PERIODS_TRIED {
        let period = Period::containing(zone, length, at);
        let path = pattern.render_period(zone, period.start, period.local);
        if let Some((before, local)) = last
            && before == path
            && local != period.local
        {
            return refuse(format!(
                "a new file every {length} seconds, but the name by {pattern} stays the same",
            ));
        }
        last = Some((path, period.local));
        at = period.end;
    }
    Ok(Cadence::Every(length))
}

fn check_limits(rotate_at_bytes: Option<u64>, retention: Retention) -> Result<(), Error> {
    let zero = |setting| Err(Error::refused(setting, "0 would leave nothing to write to"));
    if rotate_at_bytes == Some(0) {
        return zero("rotate_at_bytes");
    }
    if retention.max_files == Some(0) {
        return zero("max_files");
    }
    if retention.max_total_bytes == Some(0) {
        return zero("max_total_bytes");
    }
    if retention.max_age == Some(Duration::ZERO) {
        return zero("max_age");
    }
    if let (Some(file), Some(total)) = (rotate_at_bytes, retention.max_total_bytes)
        && total < file
    {
        return Err(Error::refused(
            "max_total_bytes",
            format!("{total} is less than the {file} that rotate_at_bytes allows one file"),
        ));
    }
    Ok(())
}

fn check_modes(modes: Modes) -> Result<(), Error> {
    let check = |setting, mode: Option<u32>, needed: u32| match mode {
        Some(mode) if mode > 0o777 => Err(Error::refused(
            setting,
            format!("{mode:#o} has more than permission bits"),
        )),
        Some(mode) if mode & needed != needed => Err(Error::refused(
            setting,
            format!("{mode:#o} does not let the owner write"),
        )),
        _ => Ok(()),
    };
    check("mode", modes.file, 0o200)?;
    check("dir_mode", modes.directory, 0o300)
}

fn checked_link(
    path: PathBuf,
    pattern: &Pattern,
    clock: &Clock,
    modes: Modes,
) -> Result<Link, Error> {
    if pattern.parse(&path, clock).is_some() || pattern.path_at(clock.now(), clock) == path {
        return Err(Error::refused(
            "link",
            format!("{path:?} is a name of {pattern} itself"),
        ));
    }
    if let Some(directory) = path.parent() {
        create_directories(directory, modes.directory)
            .map_err(|error| Error::io("link", "create the directory", directory, error))?;
    }
    if fs::symlink_metadata(&path).is_ok_and(|there| !there.is_symlink()) {
        return Err(Error::refused(
            "link",
            format!("{path:?} exists and is not a symbolic link"),
        ));
    }
    Ok(Link::new(path))
}

/// Returns the path of the lock of all processes that have this pattern: its text under
/// the root directory, as a hidden file there.
fn lock_path(pattern: &Pattern, root: &Path) -> PathBuf {
    let text = pattern.as_os_str().as_bytes();
    let below = text
        .strip_prefix(root.as_os_str().as_bytes())
        .unwrap_or(text);
    let below = below.strip_prefix(b"/").unwrap_or(below);
    let below = &below[below.len().saturating_sub(LONGEST_NAME)..];
    let mut name = b".".to_vec();
    name.extend(
        below
            .iter()
            .map(|&byte| if byte == b'/' { b'-' } else { byte }),
    );
    name.extend(b".lock");
    root.join(OsStr::from_bytes(&name))
}

/// What a file system takes, less what we may add.
const LONGEST_NAME: usize = 255 - 24;

const LONGEST_PERIOD: i64 = 100 * 366 * DAY;

const PERIODS_TRIED: usize = 64;
