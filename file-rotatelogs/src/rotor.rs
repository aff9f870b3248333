use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::clock::{self, DAY, NANOS};
use crate::event::{Attempt, Event};
use crate::housekeeper::{ROUND, SOON};
use crate::lock::{Held, Note};
use crate::open_file::{FileId, OpenFile};
use crate::period::Period;
use crate::rotatelogs::Shared;
use crate::settings::{Cadence, Settings, SyncPolicy};
use crate::successor::{self, Reason, Target, View};

/// Decides which file is written, and goes on to the next.
///
/// Every step leaves the files such that any process, this one or another, can go on from
/// there: files are created only where there is none, opened only as long as nobody takes
/// them away, and never renamed or truncated.
#[derive(Debug, Default)]
pub(crate) struct Rotor {
    period: Option<Period>,
    /// What the file was called that a lazy log closed at the end of its period.
    left: Option<PathBuf>,
    /// When to look at the file, the note and the link again, by the steady clock.
    look_at: i64,
    /// Until when not to try again what has failed.
    retry_at: i64,
    /// Since when another process has held the rotation lock.
    busy_since: Option<i64>,
    failed: Vec<(Attempt, PathBuf)>,
    synced_at: i64,
    tidied_at: i64,
    /// How long to wait before trying again to tidy what somebody still wrote to.
    left_over: Option<i64>,
    pub(crate) events: Vec<Event>,
}

/// What the rotor is called for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Occasion {
    /// A record of so many bytes is about to be written.
    Record(usize),
    /// Time has passed.
    Tick,
    /// The caller wants a new file.
    Rotate,
    /// The caller wants to know whether the file is still in its place.
    Reopen,
}

impl Rotor {
    /// Does what there is to do before the next record.
    pub(crate) fn tend(&mut self, shared: &Shared, occasion: Occasion) -> io::Result<()> {
        let wall = shared.settings.clock.nanos();
        let steady = clock::steady_nanos();
        let result = self.attend(shared, occasion, wall, steady);
        let retry = match &result {
            Ok(()) => None,
            Err(error) => {
                let pause = if error.kind() == io::ErrorKind::WouldBlock {
                    RETRY_LOCK
                } else {
                    RETRY
                };
                self.retry_at = steady + pause;
                if let Some(limit) = shared.settings.limit {
                    shared.view(|open| open.look_later(limit));
                }
                Some(pause)
            }
        };
        self.set_window(shared, wall, steady, retry);
        result
    }

    fn attend(
        &mut self,
        shared: &Shared,
        occasion: Occasion,
        wall: i64,
        steady: i64,
    ) -> io::Result<()> {
        let settings = &*shared.settings;
        let asked = matches!(occasion, Occasion::Rotate | Occasion::Reopen);
        if steady < self.retry_at && !asked {
            let length = match occasion {
                Occasion::Record(length) => length,
                _ => 0,
            };
            if shared.view(|open| !open.wants_a_look(length)) == Some(true) {
                return Ok(());
            }
        }
        let Some(view) = shared.view(View::of) else {
            if settings.lazy && !matches!(occasion, Occasion::Record(_)) {
                return Ok(());
            }
            let base = Target::at(settings, wall).base;
            let reason = match &self.left {
                Some(left) if *left != base => Reason::Period,
                _ => Reason::Start,
            };
            return self.change(shared, &reason, None, wall, steady);
        };
        let looks = steady >= self.look_at || occasion == Occasion::Reopen;
        let reason = self
            .time_reason(settings, &view, wall)
            .or_else(|| (occasion == Occasion::Rotate).then_some(Reason::Request))
            .or_else(|| size_reason(shared, occasion, looks))
            .or_else(|| {
                if looks {
                    self.look(shared, &view, steady)
                } else {
                    None
                }
            });
        match reason {
            None => Ok(()),
            Some(Reason::Period) if settings.lazy && occasion == Occasion::Tick => {
                self.period = None;
                self.left = Some(view.base);
                self.put_away(shared, shared.replace(None));
                Ok(())
            }
            Some(reason) => self.change(shared, &reason, Some(&view), wall, steady),
        }
    }

    /// Tells whether the clock has left the period of the open file.
    fn time_reason(&mut self, settings: &Settings, view: &View, wall: i64) -> Option<Reason> {
        let period = self.period?;
        let now = wall.div_euclid(NANOS);
        let reason = if now >= period.end {
            Reason::Period
        } else if now < period.start - (period.end - period.start).max(PATIENCE_WITH_CLOCKS) {
            Reason::SetBack
        } else {
            return None;
        };
        let target = Target::at(settings, wall);
        if settings.cadence == Cadence::ByName && target.base == view.base {
            self.period = target.period;
            return None;
        }
        Some(reason)
    }

    /// Looks whether all is still as we left it.
    fn look(&mut self, shared: &Shared, view: &View, steady: i64) -> Option<Reason> {
        let settings = &*shared.settings;
        self.look_at = steady + LOOK_EVERY;
        self.chores(shared, view, steady);
        if !fs::metadata(&view.path).is_ok_and(|there| FileId::of(&there) == view.id) {
            return Some(Reason::Replaced);
        }
        let note = settings.lock.note();
        if let Some(note) = note.filter(|note| note.path != view.path)
            && successor::is_newer(settings, &note, view, self.period)
        {
            return Some(Reason::Noted(note));
        }
        self.point_link(settings, &view.path, view.id);
        None
    }

    /// Hands on what is to be done from time to time.
    fn chores(&mut self, shared: &Shared, view: &View, steady: i64) {
        if let SyncPolicy::Every(interval) = shared.settings.sync
            && steady - self.synced_at >= i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX)
        {
            self.synced_at = steady;
            if let Some(Ok(file)) = shared.view(OpenFile::try_clone) {
                shared.housekeeper.sync(view.path.clone(), file);
            }
        }
        if shared.housekeeper.has_left_over() {
            self.left_over = Some(self.left_over.map_or(SOON, |wait| (wait * 2).min(ROUND)));
        }
        if steady - self.tidied_at >= self.left_over.unwrap_or(ROUND) {
            self.tidied_at = steady;
            shared.housekeeper.tidy();
        }
    }

    /// Goes on to another file. When it cannot, the open one stays, if it is still
    /// somewhere.
    fn change(
        &mut self,
        shared: &Shared,
        reason: &Reason,
        view: Option<&View>,
        wall: i64,
        steady: i64,
    ) -> io::Result<()> {
        let settings = &*shared.settings;
        let claim = shared.housekeeper.precedence().claim();
        let target = match (reason, view, self.period) {
            (Reason::Size | Reason::Request | Reason::Replaced, Some(view), Some(period)) => {
                // The clock may be a little before the period: it stays.
                Target::of(period, &view.base)
            }
            (Reason::Noted(note), ..) => Target::noted(settings, note, wall),
            _ => Target::at(settings, wall),
        };
        let attempt = self
            .hold(settings, view.is_some(), steady)
            .and_then(|held| {
                if let (Some(1), Some(view), true) = (settings.ring, view, reason.begins_anew())
                    && view.base == target.base
                {
                    return match shared.view(OpenFile::empty) {
                        Some(Ok(true)) => Ok((held, None)),
                        Some(Err(error)) => Err(error),
                        Some(Ok(false)) | None => Err(successor::in_use()),
                    };
                }
                let open = successor::open(settings, reason, view, &target)?;
                Ok((held, Some(open)))
            });
        let (held, open) = match attempt {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(error) => {
                self.report(Attempt::Rotate, &target.base, Err(copy_of(&error)));
                if shared.view(OpenFile::is_gone) == Some(true) {
                    shared.lose(&error);
                }
                return Err(error);
            }
        };
        self.period = target.period;
        self.left = None;
        self.look_at = steady + LOOK_EVERY;
        self.retry_at = 0;
        // Where the file was only emptied, it is still the open one.
        let old = open.and_then(|open| shared.replace(Some(open)));
        let Some((path, id)) = shared.view(|open| {
            open.look(open.size(), settings.limit);
            (open.path().to_path_buf(), open.id())
        }) else {
            return Ok(());
        };
        if !matches!(reason, Reason::Noted(_)) {
            settings.lock.set_note(&Note {
                start: target.mark(settings),
                path: path.clone(),
            });
        }
        self.report(Attempt::Rotate, &path, Ok(()));
        self.point_link(settings, &path, id);
        self.events.push(match view {
            None => Event::Opened { path },
            Some(view) => Event::Rotated {
                from: view.path.clone(),
                to: path,
                cause: reason.cause(),
            },
        });
        self.put_away(shared, old);
        drop(held);
        drop(claim);
        self.left_over = None;
        self.tidied_at = steady;
        shared.housekeeper.tidy();
        Ok(())
    }

    /// Takes the rotation lock.
    ///
    /// It is busy only for moments. A process that holds it for long has been stopped in
    /// such a moment, and nobody need wait for it: what the lock gives is order, while
    /// each step is safe by itself.
    fn hold(
        &mut self,
        settings: &Settings,
        has_file: bool,
        steady: i64,
    ) -> io::Result<Option<Held>> {
        let patience = if has_file {
            LONGEST_STALL
        } else {
            PATIENCE_WITH_OTHERS
        };
        let result = settings.lock.hold_within(patience);
        match result {
            Ok(Some(held)) => {
                self.busy_since = None;
                Ok(Some(held))
            }
            Ok(None) if has_file => {
                let since = *self.busy_since.get_or_insert(steady);
                if steady - since < PATIENCE_WITH_OTHERS {
                    return Err(io::Error::from(io::ErrorKind::WouldBlock));
                }
                Ok(None)
            }
            // A directory that only its files may be written in, or a file system without
            // locks, or nothing there at all yet.
            Ok(None) | Err(_) => Ok(None),
        }
    }

    fn put_away(&mut self, shared: &Shared, old: Option<OpenFile>) {
        if let Some(old) = old
            && shared.settings.sync != SyncPolicy::Never
        {
            let path = old.path().to_path_buf();
            shared.housekeeper.sync(path, old.into_file());
        }
    }

    fn point_link(&mut self, settings: &Settings, file: &Path, id: FileId) {
        if let Some(link) = &settings.link
            && link.leads_to() != Some(id)
        {
            let result = link.point_at(file);
            self.report(Attempt::Link, link.path(), result);
        }
    }

    /// Tells of a failure, once until it is done.
    fn report(&mut self, attempt: Attempt, path: &Path, result: io::Result<()>) {
        let known = self
            .failed
            .iter()
            .position(|(failed, _)| *failed == attempt);
        match (result, known) {
            (Ok(()), None) | (Err(_), Some(_)) => {}
            (Ok(()), Some(index)) => {
                let (_, path) = self.failed.swap_remove(index);
                self.events.push(Event::Recovered {
                    attempt,
                    path,
                    lost: 0,
                });
            }
            (Err(error), None) => {
                self.failed.push((attempt, path.to_path_buf()));
                self.events.push(Event::Failed {
                    attempt,
                    path: path.to_path_buf(),
                    error,
                });
            }
        }
    }

    /// Tells the writers for how long they need not call.
    fn set_window(&self, shared: &Shared, wall: i64, steady: i64, retry: Option<i64>) {
        let look = match retry {
            Some(retry) => retry,
            None => (self.look_at - steady).clamp(0, LOOK_EVERY),
        };
        let until_end = match self.period {
            Some(period) if retry.is_none() => {
                let left = period.end.saturating_mul(NANOS).saturating_sub(wall);
                if left > 0 { left } else { look }
            }
            _ => i64::MAX,
        };
        shared
            .window
            .open(wall, until_end, steady, look, &shared.settings.clock);
    }
}

/// Tells whether the record would make the file too large.
fn size_reason(shared: &Shared, occasion: Occasion, looks: bool) -> Option<Reason> {
    let limit = shared.settings.limit?;
    let more = match occasion {
        Occasion::Record(length) => length,
        _ if looks => 0,
        _ => return None,
    };
    shared.view(|open| {
        if !looks && !open.wants_a_look(more) {
            return None;
        }
        let real = open
            .metadata()
            .map_or_else(|_| open.size(), |there| there.len());
        open.look(real, Some(limit));
        let full = real > 0 && real.saturating_add(more as u64) > limit;
        (full && more > 0).then_some(Reason::Size)
    })?
}

/// An equal error, to tell twice.
pub(crate) fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(
        || io::Error::new(error.kind(), error.to_string()),
        io::Error::from_raw_os_error,
    )
}

/// How soon a file is noticed that was moved, deleted or left by another process.
pub(crate) const LOOK_EVERY: i64 = NANOS / 2;

/// How soon what has failed is tried again, as long as there is a file to write to.
const RETRY: i64 = NANOS / 10;

/// How soon the rotation lock is tried again that another process held for longer than a
/// record waits.
const RETRY_LOCK: i64 = NANOS / 100;

/// How long a record waits for another process, or another thread, that rotates.
pub(crate) const LONGEST_STALL: i64 = NANOS / 1000;

/// How long another process may hold the rotation lock.
const PATIENCE_WITH_OTHERS: i64 = NANOS;

/// How far, in seconds, clocks may be set back with the file staying the same.
const PATIENCE_WITH_CLOCKS: i64 = DAY;
