use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::supervisor::WAKEUP;
use crate::cli::failure::reason;
use crate::cli::log::Log;
use crate::cli::moment::Moment;
use crate::cli::watch::Watch;

/// Is told by the kernel that it is worth looking into the directories again.
///
/// What it says is never more than that: what is true is what is found there.
/// Where the kernel has no room for a watch, it is looked every second.
#[derive(Debug)]
pub(crate) struct Wakeup {
    inbox: PathBuf,
    watched: Option<Watched>,
    look_at: Moment,
}

#[derive(Debug)]
struct Watched {
    inotify: Inotify,
    programs: WatchDescriptor,
    inbox: WatchDescriptor,
}

/// Where something has happened.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) programs: bool,
    pub(crate) inbox: bool,
    /// Programs whose files were written.
    pub(crate) names: Vec<String>,
}

impl Wakeup {
    pub(crate) fn new(programs: &Path, inbox: &Path, watch: &Watch, log: &Log) -> Self {
        let watched = Watched::new(programs, inbox)
            .and_then(|watched| watch.add(&watched.inotify, WAKEUP).map(|()| watched));
        let watched = watched
            .inspect_err(|error| {
                log.line(format_args!(
                    "failed to watch {}: {}; looking into it every second",
                    programs.display(),
                    reason(error)
                ));
            })
            .ok();
        Self {
            inbox: inbox.into(),
            watched,
            look_at: Moment::now(),
        }
    }

    /// Takes what the kernel has told.
    pub(crate) fn read(&self) -> Seen {
        let everything = || Seen {
            programs: true,
            inbox: true,
            names: Vec::new(),
        };
        let Some(watched) = &self.watched else {
            return everything();
        };
        let Ok(events) = watched.inotify.read_events() else {
            return everything();
        };
        let mut seen = Seen::default();
        for event in events {
            if event.wd == watched.programs {
                seen.programs = true;
                let name = event.name.as_deref().and_then(|name| name.to_str());
                let name = name.and_then(|name| name.strip_suffix(".toml"));
                seen.names.extend(name.map(str::to_owned));
            } else if event.wd == watched.inbox {
                // A file that was made just now is still being written.
                let is_file = |name: &OsStr| {
                    let metadata = self.inbox.join(name).symlink_metadata();
                    metadata.is_ok_and(|metadata| metadata.is_file())
                };
                let made = event.mask.contains(AddWatchFlags::IN_CREATE);
                seen.inbox |= !made || !event.name.as_deref().is_some_and(is_file);
            } else {
                // Some of what there was to tell is lost.
                (seen.programs, seen.inbox) = (true, true);
            }
        }
        seen
    }

    /// Returns true if it is time to look without having been told to.
    pub(crate) fn is_due(&mut self, now: Moment) -> bool {
        let due = self.watched.is_none() && self.look_at <= now;
        if due {
            self.look_at = now + EVERY;
        }
        due
    }

    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.watched.is_none().then_some(self.look_at)
    }
}

impl Watched {
    fn new(programs: &Path, inbox: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_ONLYDIR;
        let programs = inotify.add_watch(programs, changes)?;
        // What is moved away from here is moved by us. What is no file is never closed.
        let arrivals = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_ONLYDIR;
        let inbox = inotify.add_watch(inbox, arrivals)?;
        Ok(Self {
            inotify,
            programs,
            inbox,
        })
    }
}

const EVERY: Duration = Duration::from_secs(1);
