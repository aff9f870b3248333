use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::clock::NANOS;
#[cfg(any(feature = "gzip", feature = "zstd"))]
use crate::compress::Compression;
use crate::event::{Attempt, Event};
use crate::log_file::Form;
use crate::open_file::take;
use crate::period::Period;
use crate::precedence::Precedence;
use crate::retention::{Log, Survey, end_of};
use crate::settings::{Cadence, Settings};

/// Removes, compresses and syncs closed files on a thread of its own, so that writing
/// never waits for it.
///
/// The thread lives only while there is something to do: an idle program has none, and a
/// forked one gets its own.
#[derive(Debug)]
pub(crate) struct Housekeeper {
    work: Arc<Work>,
}

#[derive(Debug)]
struct Work {
    settings: Arc<Settings>,
    desk: Mutex<Desk>,
    done: Condvar,
    /// Something was left because somebody still wrote to it.
    left_over: AtomicBool,
    precedence: Precedence,
}

#[derive(Debug, Default)]
struct Desk {
    /// The process whose thread is at work.
    worker: Option<u32>,
    tidy: bool,
    to_sync: Vec<(PathBuf, File)>,
    failed: Vec<(Attempt, PathBuf)>,
}

impl Housekeeper {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        Self {
            work: Arc::new(Work {
                settings,
                desk: Mutex::new(Desk::default()),
                done: Condvar::new(),
                left_over: AtomicBool::new(false),
                precedence: Precedence::default(),
            }),
        }
    }

    /// Asks for old files to be compressed and removed.
    pub(crate) fn tidy(&self) {
        if self.work.settings.has_chores() {
            self.ask(|desk| desk.tidy = true);
        }
    }

    /// Asks for a file to be brought to the disk, and closed unless it is shared.
    pub(crate) fn sync(&self, path: PathBuf, file: File) {
        self.ask(|desk| desk.to_sync.push((path, file)));
    }

    /// Tells whose turn it is in the directory.
    pub(crate) fn precedence(&self) -> &Precedence {
        &self.work.precedence
    }

    /// Tells whether a file was left alone because somebody still wrote to it, once.
    pub(crate) fn has_left_over(&self) -> bool {
        self.work.left_over.swap(false, Ordering::Relaxed)
    }

    /// Waits until all that was asked for is done. Returns whether it is.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut desk = self.work.desk.lock();
        while desk.worker == Some(std::process::id()) {
            match deadline {
                Some(deadline) if self.work.done.wait_until(&mut desk, deadline).timed_out() => {
                    return desk.worker != Some(std::process::id());
                }
                Some(_) => {}
                None => self.work.done.wait(&mut desk),
            }
        }
        true
    }

    fn ask(&self, note: impl FnOnce(&mut Desk)) {
        let mut desk = self.work.desk.lock();
        note(&mut desk);
        let this_process = std::process::id();
        if desk.worker == Some(this_process) {
            return;
        }
        let work = Arc::clone(&self.work);
        let thread = thread::Builder::new()
            .name("rotatelogs-tidy".to_owned())
            .spawn(move || work.run());
        // Without a thread it stays noted, for the next time.
        desk.worker = thread.is_ok().then_some(this_process);
    }
}

impl Work {
    fn run(&self) {
        loop {
            let mut desk = self.desk.lock();
            let tidy = std::mem::take(&mut desk.tidy);
            let to_sync = std::mem::take(&mut desk.to_sync);
            if !tidy && to_sync.is_empty() {
                desk.worker = None;
                self.done.notify_all();
                return;
            }
            drop(desk);
            for (path, file) in to_sync {
                self.report(Attempt::Sync, &path, file.sync_data());
            }
            for _ in 0..LOOKS {
                if !tidy || !self.put_in_order() {
                    break;
                }
                // A program that is just being started has a copy of every open file, for
                // a moment, and of its lock.
                thread::sleep(MOMENT);
            }
        }
    }

    /// Returns whether something was left because somebody still writes to it.
    fn put_in_order(&self) -> bool {
        self.left_over.store(false, Ordering::Relaxed);
        let settings = &self.settings;
        let mut survey = Survey::take(&settings.pattern, &settings.clock, &self.precedence);
        for (directory, listed) in std::mem::take(&mut survey.directories) {
            self.report(Attempt::List, &directory, listed);
        }
        let now = settings.clock.nanos();
        let surplus = settings.retention.surplus(&survey.logs, now, |log| {
            end_of(log, self.period_end(log), now)
        });
        self.remove(&mut survey.logs, &surplus);
        #[cfg(any(feature = "gzip", feature = "zstd"))]
        if let Some(compression) = settings.compression {
            self.compress(&mut survey.logs, compression);
        }
        let overweight = settings.retention.overweight(&survey.logs);
        self.remove(&mut survey.logs, &overweight);
        // As long as the original is there, somebody may be compressing it.
        for (unfinished, original) in &survey.unfinished {
            if unfinished.exists() && !original.exists() {
                self.report(Attempt::Remove, unfinished, fs::remove_file(unfinished));
            }
        }
        self.left_over.load(Ordering::Relaxed)
    }

    /// Removes the files that are marked, except those somebody writes to or will.
    fn remove(&self, logs: &mut Vec<Log>, marked: &[bool]) {
        let kept_back = self.kept_back(logs);
        let mut marks = marked.iter();
        logs.retain(|log| {
            marks.next() != Some(&true) || kept_back.contains(&log.plain) || !self.remove_log(log)
        });
    }

    fn remove_log(&self, log: &Log) -> bool {
        let mut gone = true;
        for kept in &log.forms {
            self.precedence.give_way();
            let held = match kept.form {
                Form::Plain => match take(&kept.path) {
                    Ok(None) if kept.path.exists() => {
                        self.left_over.store(true, Ordering::Relaxed);
                        gone = false;
                        continue;
                    }
                    Ok(file) => file,
                    Err(error) => {
                        self.report(Attempt::Remove, &kept.path, Err(error));
                        gone = false;
                        continue;
                    }
                },
                Form::Gzip | Form::Zstd => None,
            };
            match fs::remove_file(&kept.path) {
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.report(Attempt::Remove, &kept.path, Err(error));
                    gone = false;
                }
                Ok(()) => {
                    self.report(Attempt::Remove, &kept.path, Ok(()));
                    self.settings.listener.tell(&Event::Removed {
                        path: kept.path.clone(),
                    });
                    self.remove_empty_directories(&kept.path);
                }
            }
            drop(held);
        }
        gone
    }

    /// Removes the directories that the pattern made for a time gone by.
    fn remove_empty_directories(&self, file: &Path) {
        let root = self.settings.pattern.root();
        let above = file.ancestors().skip(1);
        for directory in above.take_while(|directory| *directory != root) {
            if fs::remove_dir(directory).is_err() {
                return;
            }
        }
    }

    #[cfg(any(feature = "gzip", feature = "zstd"))]
    fn compress(&self, logs: &mut [Log], compression: Compression) {
        let kept_back = self.kept_back(logs);
        for log in logs {
            let is_plain = log.forms.iter().any(|kept| kept.form == Form::Plain);
            if !is_plain || kept_back.contains(&log.plain) {
                continue;
            }
            let path = log.plain.clone();
            self.precedence.give_way();
            let result = compression.compress(&path, &self.precedence);
            match &result {
                Ok(Some(target)) => {
                    log.forms.retain(|kept| kept.form != Form::Plain);
                    if let Ok(metadata) = fs::metadata(target) {
                        log.forms.retain(|kept| kept.path != *target);
                        log.forms.push(crate::retention::Kept::new(
                            compression.form(),
                            target.clone(),
                            &metadata,
                        ));
                    }
                    self.settings.listener.tell(&Event::Compressed {
                        from: path.clone(),
                        to: target.clone(),
                    });
                }
                Ok(None) => {
                    if path.exists() {
                        self.left_over.store(true, Ordering::Relaxed);
                    }
                    continue;
                }
                Err(_) => {}
            }
            self.report(Attempt::Compress, &path, result.map(drop));
        }
    }

    /// Lists the files that are not to be touched though nobody may write to them just
    /// now: the newest, the one opened last, and the link's target.
    fn kept_back(&self, logs: &[Log]) -> Vec<PathBuf> {
        let newest = logs.last().map(|log| log.plain.clone());
        let noted = self.settings.lock.note().map(|note| note.path);
        let linked = self.settings.link.as_ref().and_then(|link| {
            let id = link.leads_to()?;
            let is_it = |log: &&Log| log.forms.iter().any(|kept| kept.id == id);
            Some(logs.iter().find(is_it)?.plain.clone())
        });
        [newest, noted, linked].into_iter().flatten().collect()
    }

    fn period_end(&self, log: &Log) -> Option<i64> {
        let settings = &self.settings;
        let start = log.start?;
        Some(match settings.cadence {
            Cadence::Every(length) => {
                Period::containing(settings.clock.zone_ref(), length, start).end
            }
            Cadence::ByName => start + settings.pattern.span(),
            Cadence::Never => start,
        })
    }

    /// Tells of a failure, once until it is done.
    fn report(&self, attempt: Attempt, path: &Path, result: io::Result<()>) {
        let mut desk = self.desk.lock();
        let known = desk
            .failed
            .iter()
            .position(|(failed, of)| *failed == attempt && of == path);
        let event = match (result, known) {
            (Ok(()), None) | (Err(_), Some(_)) => return,
            (Ok(()), Some(index)) => {
                desk.failed.swap_remove(index);
                Event::Recovered {
                    attempt,
                    path: path.to_path_buf(),
                    lost: 0,
                }
            }
            (Err(error), None) => {
                if desk.failed.len() >= MOST_FAILURES {
                    desk.failed.clear();
                }
                desk.failed.push((attempt, path.to_path_buf()));
                Event::Failed {
                    attempt,
                    path: path.to_path_buf(),
                    error,
                }
            }
        };
        drop(desk);
        self.settings.listener.tell(&event);
    }
}

/// How often old files are looked at when nothing is rotated.
pub(crate) const ROUND: i64 = 3600 * NANOS;

/// How soon files are looked at again that somebody still wrote to.
pub(crate) const SOON: i64 = 5 * NANOS;

/// How often to look again at once, and after what time.
const LOOKS: usize = 3;
const MOMENT: Duration = Duration::from_millis(20);

/// So many failures are told apart.
const MOST_FAILURES: usize = 1000;
