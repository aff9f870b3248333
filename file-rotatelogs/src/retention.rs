use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::{Clock, NANOS, to_nanos};
use crate::log_file::{Form, LogFile, generation_path, original_of_temporary};
use crate::open_file::FileId;
use crate::pattern::{Component, Pattern};
use crate::precedence::Precedence;

/// How many old files are kept: each limit that is set, all of them together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Retention {
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_files: Option<usize>,
    pub(crate) max_total_bytes: Option<u64>,
}

impl Retention {
    pub(crate) fn is_unlimited(self) -> bool {
        self.max_age.is_none() && self.max_files.is_none() && self.max_total_bytes.is_none()
    }

    /// Tells of each file, the oldest first, whether number or age forbid to keep it.
    ///
    /// `end_of` tells when the last record of a file can have been written.
    pub(crate) fn surplus(self, logs: &[Log], now: i64, end_of: impl Fn(&Log) -> i64) -> Vec<bool> {
        let too_many = self
            .max_files
            .map_or(0, |most| logs.len().saturating_sub(most));
        let age = self
            .max_age
            .map(|age| i64::try_from(age.as_nanos()).unwrap_or(i64::MAX));
        let is_too_old = |log| age.is_some_and(|age| now.saturating_sub(end_of(log)) > age);
        logs.iter()
            .enumerate()
            .map(|(index, log)| index < too_many || is_too_old(log))
            .collect()
    }

    /// Tells of each file, the oldest first, whether it and the newer ones take more bytes
    /// than allowed.
    pub(crate) fn overweight(self, logs: &[Log]) -> Vec<bool> {
        let most = self.max_total_bytes.unwrap_or(u64::MAX);
        let mut total = 0_u64;
        let mut overweight: Vec<bool> = logs
            .iter()
            .rev()
            .map(|log| {
                total = total.saturating_add(log.bytes());
                total > most
            })
            .collect();
        overweight.reverse();
        overweight
    }
}

/// One log file in all its forms: as written, compressed, or for a moment both.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) start: Option<i64>,
    pub(crate) plain: PathBuf,
    pub(crate) generation: u32,
    pub(crate) forms: Vec<Kept>,
}

#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) form: Form,
    pub(crate) path: PathBuf,
    pub(crate) id: FileId,
    pub(crate) bytes: u64,
    /// When it was last written to, in nanoseconds since 1970.
    pub(crate) modified: i64,
}

impl Log {
    pub(crate) fn bytes(&self) -> u64 {
        self.forms.iter().map(|kept| kept.bytes).sum()
    }

    pub(crate) fn modified(&self) -> i64 {
        self.forms
            .iter()
            .map(|kept| kept.modified)
            .max()
            .unwrap_or(0)
    }
}

impl Kept {
    pub(crate) fn new(form: Form, path: PathBuf, metadata: &Metadata) -> Self {
        Self {
            form,
            path,
            id: FileId::of(metadata),
            bytes: metadata.len(),
            modified: metadata.modified().map_or(0, to_nanos),
        }
    }
}

/// What is there of a pattern's files.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The oldest first.
    pub(crate) logs: Vec<Log>,
    /// Compressed files that are not complete, each with its original.
    pub(crate) unfinished: Vec<(PathBuf, PathBuf)>,
    /// The directories, and whether they could be listed.
    pub(crate) directories: Vec<(PathBuf, io::Result<()>)>,
}

impl Survey {
    /// Looks through the directories of a pattern.
    ///
    /// What cannot be read is left out and told, and what is left out is neither removed
    /// nor compressed.
    pub(crate) fn take(pattern: &Pattern, clock: &Clock, precedence: &Precedence) -> Self {
        let components = pattern.components();
        let mut walk = Walk {
            pattern,
            clock,
            precedence,
            logs: HashMap::new(),
            unfinished: Vec::new(),
            directories: Vec::new(),
        };
        walk.directory(&pattern.root(), &components);
        let mut logs: Vec<Log> = walk.logs.into_values().collect();
        let by_name = pattern.is_calendar() || pattern.is_fixed();
        logs.sort_by_cached_key(|log| {
            let time = if by_name {
                log.start.unwrap_or(0)
            } else {
                log.modified()
            };
            (time, log.generation, log.plain.clone())
        });
        Self {
            logs,
            unfinished: walk.unfinished,
            directories: walk.directories,
        }
    }
}

struct Walk<'a> {
    pattern: &'a Pattern,
    clock: &'a Clock,
    precedence: &'a Precedence,
    logs: HashMap<PathBuf, Log>,
    unfinished: Vec<(PathBuf, PathBuf)>,
    directories: Vec<(PathBuf, io::Result<()>)>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, components: &[Component]) {
        let Some((component, deeper)) = components.split_first() else {
            return;
        };
        if let (Some(name), false) = (component.name(), deeper.is_empty()) {
            return self.directory(&path.join(name), deeper);
        }
        let here = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let mut listed = Ok(());
        let entries = fs::read_dir(here).map_err(|error| match error.kind() {
            // Then nothing of ours is in it.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {}
            _ => listed = Err(error),
        });
        for entry in entries.into_iter().flatten() {
            self.precedence.give_way();
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    listed = Err(error);
                    continue;
                }
            };
            let name = entry.file_name();
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if deeper.is_empty() {
                if kind.is_file() {
                    self.file(path.join(name), || entry.metadata().ok());
                }
            } else if kind.is_dir() && component.admits(&name) {
                self.directory(&path.join(name), deeper);
            }
        }
        self.directories.push((here.to_path_buf(), listed));
    }

    fn file(&mut self, path: PathBuf, metadata: impl Fn() -> Option<Metadata>) {
        if let Some(original) = original_of_temporary(&path) {
            if self.pattern.parse(&original, self.clock).is_some() {
                self.unfinished.push((path, original));
            }
            return;
        }
        let Some(file) = self.pattern.parse(&path, self.clock) else {
            return;
        };
        let Some(metadata) = metadata() else {
            return;
        };
        let plain = generation_path(file.base(), file.generation());
        let log = match self.logs.entry(plain) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let plain = entry.key().clone();
                entry.insert(Log {
                    start: file.start(),
                    plain,
                    generation: file.generation(),
                    forms: Vec::new(),
                })
            }
        };
        log.forms.push(Kept::new(file.form(), path, &metadata));
    }
}

/// Finds the highest generation of a base path that is there in any form.
pub(crate) fn highest_generation(base: &Path) -> Option<u32> {
    let directory = base.parent()?;
    let stem = base.file_name()?.as_bytes();
    let entries = fs::read_dir(directory).ok()?;
    entries
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name.as_bytes().starts_with(stem))
        .filter_map(|name| {
            let path = directory.join(name);
            LogFile::parse(&path, |candidate| (candidate == base).then_some(None))
        })
        .map(|file| file.generation())
        .max()
}

/// Returns when the last record of a file can have been written: the end of its period,
/// or its last change if that came later.
pub(crate) fn end_of(log: &Log, period_end: Option<i64>, now: i64) -> i64 {
    let by_name = period_end.map(|end| end.saturating_mul(NANOS));
    let modified = log.modified();
    match by_name {
        // A file cannot have been written in the future, whatever its time says.
        Some(by_name) if modified > now => by_name,
        Some(by_name) => by_name.max(modified),
        None => modified,
    }
}
