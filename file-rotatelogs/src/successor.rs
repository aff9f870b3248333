use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::clock::NANOS;
use crate::event::Cause;
use crate::lock::Note;
use crate::log_file::{Form, LAST_GENERATION, generation_path};
use crate::open_file::{FileId, OpenFile};
use crate::period::Period;
use crate::retention::highest_generation;
use crate::settings::{Cadence, Settings};

/// Why another file than the open one is wanted.
#[derive(Clone, Debug)]
pub(crate) enum Reason {
    /// There is none open.
    Start,
    /// The period of the open one is over.
    Period,
    /// The clock was set back before the period of the open one.
    SetBack,
    /// The open one is full.
    Size,
    /// The caller asked for it.
    Request,
    /// The open one is no longer where it was.
    Replaced,
    /// Another process has gone on to this one.
    Noted(Note),
}

/// The file that is open.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) path: PathBuf,
    pub(crate) base: PathBuf,
    pub(crate) generation: u32,
    pub(crate) id: FileId,
}

/// The period to write in, and the path it is called by.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) period: Option<Period>,
    pub(crate) base: PathBuf,
}

impl Reason {
    pub(crate) fn cause(&self) -> Cause {
        match self {
            Self::Start | Self::Period | Self::SetBack => Cause::Time,
            Self::Size => Cause::Size,
            Self::Request => Cause::Request,
            Self::Replaced => Cause::Replaced,
            Self::Noted(_) => Cause::Other,
        }
    }

    /// Tells whether what was written so far is to be left behind.
    pub(crate) fn begins_anew(&self) -> bool {
        matches!(
            self,
            Self::Period | Self::SetBack | Self::Size | Self::Request
        )
    }
}

impl View {
    pub(crate) fn of(open: &OpenFile) -> Self {
        Self {
            path: open.path().to_path_buf(),
            base: open.base().to_path_buf(),
            generation: open.generation(),
            id: open.id(),
        }
    }
}

impl Target {
    pub(crate) fn at(settings: &Settings, wall: i64) -> Self {
        match settings.cadence.length() {
            None => Self {
                period: None,
                base: settings.pattern.render_at(
                    settings.clock.zone_ref(),
                    wall.div_euclid(NANOS),
                    u32::try_from(wall.rem_euclid(NANOS)).unwrap_or(0),
                ),
            },
            Some(length) => {
                let zone = settings.clock.zone_ref();
                let period = Period::containing(zone, length, wall.div_euclid(NANOS));
                Self {
                    period: Some(period),
                    base: settings
                        .pattern
                        .render_period(zone, period.start, period.local),
                }
            }
        }
    }

    pub(crate) fn of(period: Period, base: &Path) -> Self {
        Self {
            period: Some(period),
            base: base.to_path_buf(),
        }
    }

    /// Returns the target of another process, whose clock may be a little ahead.
    pub(crate) fn noted(settings: &Settings, note: &Note, wall: i64) -> Self {
        let start = note.start.map(|start| start.saturating_mul(NANOS));
        let target = Self::at(settings, start.unwrap_or(wall));
        Self {
            base: settings
                .pattern
                .parse(&note.path, &settings.clock)
                .map_or(target.base, |file| file.base().to_path_buf()),
            ..target
        }
    }

    /// Tells whether another period is called the same: the hour before, when clocks were
    /// set back, or any that has the name in a pattern without the year.
    fn may_be_called_as_another(&self, settings: &Settings) -> bool {
        let (Some(period), Cadence::Every(length)) = (self.period, settings.cadence) else {
            return false;
        };
        !settings.pattern.is_calendar() || period.is_repeated(settings.clock.zone_ref(), length)
    }

    /// Returns what tells the files of this period from those of another that is called
    /// the same.
    pub(crate) fn mark(&self, settings: &Settings) -> Option<i64> {
        match settings.cadence {
            Cadence::Every(_) => self.period.map(|period| period.start),
            Cadence::Never | Cadence::ByName => None,
        }
    }
}

/// Tells whether a file that another process noted comes after the open one.
pub(crate) fn is_newer(
    settings: &Settings,
    note: &Note,
    view: &View,
    period: Option<Period>,
) -> bool {
    let Some(file) = settings.pattern.parse(&note.path, &settings.clock) else {
        return false;
    };
    if settings.ring.is_some() || file.is_compressed() || !note.path.is_file() {
        return false;
    }
    if file.base() == view.base {
        return file.generation() > view.generation;
    }
    match (note.start, period) {
        (Some(theirs), Some(ours)) => theirs > ours.start,
        // Names that are not of periods: whichever was noted last.
        (None, None) => true,
        _ => false,
    }
}

/// Opens the file to write after the open one, for a reason.
///
/// A file that was begun for the target already, by this process or another, is joined;
/// where one has to be made, it gets the next generation that is not there.
pub(crate) fn open(
    settings: &Settings,
    reason: &Reason,
    view: Option<&View>,
    target: &Target,
) -> io::Result<OpenFile> {
    let base = &*target.base;
    let mine = view
        .filter(|view| view.base == base)
        .map(|view| view.generation);
    if let Some(ring) = settings.ring {
        return open_in_ring(settings, ring, reason, base, mine);
    }
    if settings.cadence == Cadence::Never
        && let (Reason::Size | Reason::Request, Some(view)) = (reason, view)
        && let Some(note) = settings.lock.note()
        && note.path != view.path
        && is_newer(settings, &note, view, None)
    {
        // Names that are of the moment differ from one process to the next: the first to
        // go on has chosen.
        let noted = Target::noted(settings, &note, 0);
        let generation = Last::of(settings, &noted, None).map_or(0, |last| last.generation);
        return join(settings, &noted.base, generation);
    }
    let last = Last::of(settings, target, mine);
    match (reason, last, mine) {
        (Reason::Noted(_), Some(last), _) => join(settings, base, last.generation),
        // Only a note tells that a higher number is a later file: who moves files away,
        // as logrotate does, gives them numbers too.
        (Reason::Replaced, Some(last), Some(mine)) if last.is_noted && last.generation > mine => {
            join(settings, base, last.generation)
        }
        (Reason::Replaced, _, _) if settings.cadence == Cadence::Never => match view {
            Some(view) => create(settings, &view.base, view.generation),
            None => create(settings, base, 0),
        },
        (Reason::Replaced, _, Some(mine)) => create(settings, base, mine),
        (_, None, None) => create(settings, base, 0),
        (_, None, Some(mine)) => create(settings, base, mine + 1),
        (_, Some(last), Some(mine)) if last.generation > mine && last.is_of_target => {
            join(settings, base, last.generation)
        }
        (_, Some(last), Some(mine)) => create(settings, base, last.generation.max(mine) + 1),
        (_, Some(last), None) => {
            let wants_new = match reason {
                Reason::Start => settings.force_new_file,
                // A note of a file we have not opened says that another process just has.
                Reason::Period => settings.force_new_file && !last.is_noted,
                Reason::SetBack => !last.is_noted,
                _ => false,
            };
            if wants_new || !last.is_of_target {
                create_new(settings, base, last.generation + 1)
            } else {
                join(settings, base, last.generation)
            }
        }
    }
}

/// Opens the next of a fixed number of files, emptied.
fn open_in_ring(
    settings: &Settings,
    ring: u32,
    reason: &Reason,
    base: &Path,
    mine: Option<u32>,
) -> io::Result<OpenFile> {
    let kept = |generation| match OpenFile::create(base, generation, settings.modes)? {
        Some(open) => Ok(Some(open)),
        None => OpenFile::join(base, generation, settings.modes),
    };
    let open = match (reason, mine) {
        (Reason::Replaced | Reason::Noted(_), Some(mine)) => kept(mine),
        (Reason::Start, _) if !settings.start_empty => kept(0),
        (_, Some(mine)) => OpenFile::overwrite(base, (mine + 1) % ring, settings.modes),
        (_, None) => OpenFile::overwrite(base, 0, settings.modes),
    };
    open?.ok_or_else(in_use)
}

/// A file cannot be emptied that another process writes to.
pub(crate) fn in_use() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "another process writes to it")
}

/// The last generation of a base path.
#[derive(Clone, Copy, Debug)]
struct Last {
    generation: u32,
    is_noted: bool,
    /// It was begun in the target's period, not in another that is called the same.
    is_of_target: bool,
}

impl Last {
    fn of(settings: &Settings, target: &Target, mine: Option<u32>) -> Option<Self> {
        let base = &*target.base;
        if let Some(note) = settings.lock.note()
            && let Some(file) = settings.pattern.parse(&note.path, &settings.clock)
            && file.base() == base
            && file.form() == Form::Plain
            && note.path.is_file()
        {
            return Some(Self {
                generation: file.generation(),
                is_noted: true,
                is_of_target: note.start == target.mark(settings)
                    || !target.may_be_called_as_another(settings),
            });
        }
        let generation = newest(base, mine)?;
        if settings.limit.is_none() && mine.is_none() && !is_there(base, 0) {
            // What has numbers was numbered by somebody else, who moved the file away.
            return None;
        }
        Some(Self {
            generation,
            is_noted: false,
            is_of_target: !is_of_another_time(settings, target, generation),
        })
    }
}

/// Finds the highest generation that is there in any form, without looking through the
/// directory where that can be avoided.
fn newest(base: &Path, mine: Option<u32>) -> Option<u32> {
    let next = mine.map_or(1, |mine| mine + 1);
    if (mine.is_some() || !is_there(base, 0)) && !is_there(base, next) {
        return mine;
    }
    highest_generation(base)
}

fn is_there(base: &Path, generation: u32) -> bool {
    let plain = generation_path(base, generation);
    [Form::Plain, Form::Gzip, Form::Zstd]
        .iter()
        .any(|form| fs::symlink_metadata(form.of(&plain)).is_ok())
}

/// Tells whether a file was last written before the period began, when its name does
/// not say which time it is of.
fn is_of_another_time(settings: &Settings, target: &Target, generation: u32) -> bool {
    let Some(period) = target.period.filter(|_| !settings.pattern.is_calendar()) else {
        return false;
    };
    fs::metadata(generation_path(&target.base, generation))
        .is_ok_and(|there| there.len() > 0 && there.mtime() < period.start)
}

/// Opens a file that is there, or goes on to the next if it is being taken away or full.
fn join(settings: &Settings, base: &Path, generation: u32) -> io::Result<OpenFile> {
    match OpenFile::join(base, generation, settings.modes)? {
        Some(open) if settings.limit.is_none_or(|limit| open.size() < limit) => Ok(open),
        _ => create(settings, base, generation + 1),
    }
}

/// Creates a file; when it is there already, another process has made it for the same
/// reason just now.
fn create(settings: &Settings, base: &Path, generation: u32) -> io::Result<OpenFile> {
    first_of(generation, |generation| {
        if is_compressed(base, generation) {
            return Ok(None);
        }
        if let Some(open) = OpenFile::create(base, generation, settings.modes)? {
            return Ok(Some(open));
        }
        let joined = OpenFile::join(base, generation, settings.modes)?;
        Ok(joined.filter(|open| settings.limit.is_none_or(|limit| open.size() < limit)))
    })
}

/// Creates a file that no other process writes to yet.
fn create_new(settings: &Settings, base: &Path, generation: u32) -> io::Result<OpenFile> {
    first_of(generation, |generation| {
        if is_compressed(base, generation) {
            return Ok(None);
        }
        OpenFile::create(base, generation, settings.modes)
    })
}

/// A name whose compressed file is there is not used again, or the one could not become
/// the other.
fn is_compressed(base: &Path, generation: u32) -> bool {
    let plain = generation_path(base, generation);
    [Form::Gzip, Form::Zstd]
        .iter()
        .any(|form| fs::symlink_metadata(form.of(&plain)).is_ok())
}

fn first_of(
    from: u32,
    attempt: impl Fn(u32) -> io::Result<Option<OpenFile>>,
) -> io::Result<OpenFile> {
    for generation in from..=LAST_GENERATION {
        if let Some(open) = attempt(generation)? {
            return Ok(open);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::QuotaExceeded,
        format!("there are {LAST_GENERATION} generations of it"),
    ))
}
