use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub(crate) use self::command::Command;
use super::directory::Directory;

mod command;

/// The commands of a fleet, each a file: its name in `inbox/` says what to do, and it
/// moves to `done/` or `failed/` with the answer in it.
///
/// A command that is under way when the supervisor dies is still there for the
/// next one.
#[derive(Debug)]
pub(crate) struct Inbox {
    inbox: PathBuf,
    done: PathBuf,
    failed: PathBuf,
}

/// What was found in the inbox.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) requests: Vec<Request>,
    /// What is there and cannot be answered.
    pub(crate) directories: BTreeSet<OsString>,
}

/// A file in the inbox.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    name: OsString,
    /// What it asks for, or why it asks for nothing.
    pub(crate) command: Result<Command, String>,
}

impl Request {
    /// Returns the name of its file, under which it is answered.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }
}

impl Inbox {
    pub(crate) fn new(directory: &Directory) -> Self {
        Self {
            inbox: directory.inbox(),
            done: directory.done(),
            failed: directory.failed(),
        }
    }

    /// Returns what has not been answered, in the order in which it came.
    ///
    /// What is no file is a request that is refused, but for directories, which may
    /// hold anything: they stay, and are only told of.
    pub(crate) fn pending(&self) -> io::Result<Found> {
        let mut requests = Vec::new();
        let mut directories = BTreeSet::new();
        for entry in fs::read_dir(&self.inbox)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_temporary(&name) {
                continue;
            }
            // It may have been withdrawn since.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                directories.insert(name);
                continue;
            }
            let arrival = (metadata.ctime(), metadata.ctime_nsec());
            let command = match (name.to_str(), what_else(&metadata)) {
                (_, Some(what)) => Err(format!("is {what}, expected a file")),
                (Some(text), None) => Command::parse(text),
                (None, None) => Err("is no UTF-8".into()),
            };
            // Clients' tags count up, for those that came at the same tick of the clock.
            let tag = tag(&name).to_vec();
            requests.push((arrival, tag, Request { name, command }));
        }
        requests.sort_by(|(one, one_tag, first), (other, other_tag, second)| {
            (one, one_tag, &first.name).cmp(&(other, other_tag, &second.name))
        });
        Ok(Found {
            requests: requests.into_iter().map(|(.., request)| request).collect(),
            directories,
        })
    }

    /// Answers a request: moves it to `done/` or `failed/` with the text in it.
    ///
    /// # Errors
    ///
    /// Fails if it could not be moved. If only the text could not be written, on a full
    /// disk, it is moved without. A request that is there no more needs no answer.
    pub(crate) fn answer(&self, name: &OsStr, answer: Result<&str, &str>) -> io::Result<()> {
        let (to, text) = match answer {
            Ok(text) => (&self.done, text),
            Err(text) => (&self.failed, text),
        };
        let request = self.inbox.join(name);
        // Earlier answers under the same name would be found first.
        let other = if answer.is_ok() {
            &self.failed
        } else {
            &self.done
        };
        ignore_missing(fs::remove_file(other.join(name)))?;
        let mut draft_name = OsString::from(".");
        draft_name.push(name);
        let draft = to.join(draft_name);
        let written = write_new(&draft, text).and_then(|()| fs::rename(&draft, to.join(name)));
        match written {
            Ok(()) => ignore_missing(fs::remove_file(request)),
            Err(error) => {
                drop(fs::remove_file(&draft));
                let metadata = match fs::symlink_metadata(&request) {
                    // Whoever asked has taken the question back.
                    Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(()),
                    other => other?,
                };
                // Who reads answers must not come upon a FIFO.
                if !metadata.is_file() {
                    return Err(error);
                }
                fs::rename(request, to.join(name))
            }
        }
    }

    /// Removes old answers, and what clients that were killed have left: all but
    /// the last thousand, and those of the last hour.
    pub(crate) fn prune(&self) -> io::Result<()> {
        let now = SystemTime::now();
        let old = |time: SystemTime| now.duration_since(time).is_ok_and(|age| age > KEPT_FOR);
        for directory in [&self.done, &self.failed, &self.inbox] {
            let mut answers = Vec::new();
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) else {
                    continue;
                };
                if is_temporary(&entry.file_name()) {
                    if old(modified) {
                        ignore_missing(fs::remove_file(entry.path()))?;
                    }
                } else if directory != &self.inbox {
                    answers.push((modified, entry.path()));
                }
            }
            answers.sort();
            let surplus = answers.len().saturating_sub(KEPT);
            for (modified, path) in answers.into_iter().take(surplus) {
                if old(modified) {
                    ignore_missing(fs::remove_file(path))?;
                }
            }
        }
        Ok(())
    }

    /// Asks for something, under a name that no other request has.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be made.
    pub(crate) fn submit(&self, command: &Command) -> io::Result<OsString> {
        let tag = unique();
        let name = OsString::from(format!("{command}@{tag}"));
        let draft = self.inbox.join(format!(".{tag}"));
        let made = write_new(&draft, "").and_then(|()| fs::rename(&draft, self.inbox.join(&name)));
        match made {
            Ok(()) => Ok(name),
            Err(error) => {
                drop(fs::remove_file(draft));
                Err(error)
            }
        }
    }

    /// Returns the answer to a request, if there is one: what was done, or why not.
    pub(crate) fn answered(&self, name: &OsStr) -> io::Result<Option<Result<String, String>>> {
        if let Some(text) = read(&self.done.join(name))? {
            return Ok(Some(Ok(text)));
        }
        Ok(read(&self.failed.join(name))?.map(Err))
    }
}

/// Returns what tells requests of the same kind apart: the part behind `@`.
fn tag(name: &OsStr) -> &[u8] {
    let name = name.as_encoded_bytes();
    match name.iter().position(|&byte| byte == b'@') {
        Some(at) => &name[at + 1..],
        None => b"",
    }
}

/// Returns what it is, if it is no file. A link is never followed.
fn what_else(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    let kinds = [
        (kind.is_dir(), "a directory"),
        (kind.is_symlink(), "a symbolic link"),
        (kind.is_fifo(), "a FIFO"),
        (kind.is_socket(), "a socket"),
        (!kind.is_file(), "a device"),
    ];
    let found = kinds.into_iter().find(|(is_one, _)| *is_one);
    found.map(|(_, what)| what)
}

/// Whether it is a file that is still being written.
fn is_temporary(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") || name.ends_with(b"~") || name.ends_with(b".tmp")
}

/// Counts up as time goes by.
fn unique() -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{:020}-{}", now.as_nanos(), std::process::id())
}

/// Never writes through a link that somebody has put there.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    ignore_missing(fs::remove_file(path))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    file.write_all(text.as_bytes())
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

const KEPT: usize = 1000;
const KEPT_FOR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
