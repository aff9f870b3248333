use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::libc::pid_t;

/// Tells scripts which generations live: a `GENERATION:PID` line for each.
///
/// It is replaced as a whole, and removed in the end, if this process made it.
#[derive(Debug)]
pub(crate) struct StatusFile {
    path: PathBuf,
    written: bool,
}

impl StatusFile {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self {
            path,
            written: false,
        }
    }

    /// Goes on with a file that this process wrote before it executed itself.
    pub(crate) const fn resume(path: PathBuf, written: bool) -> Self {
        Self { path, written }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) const fn is_written(&self) -> bool {
        self.written
    }

    /// Finds out whether the file can be written, and leaves nothing behind.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.path.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        let draft = self.draft();
        write_new(&draft, "")?;
        fs::remove_file(&draft)
    }

    /// Replaces the file. One that cannot be written stays as it was.
    pub(crate) fn write(&mut self, workers: impl Iterator<Item = (u64, pid_t)>) -> io::Result<()> {
        let mut workers: Vec<_> = workers.collect();
        workers.sort_unstable();
        let text: String = workers
            .iter()
            .map(|(generation, pid)| format!("{generation}:{pid}\n"))
            .collect();
        let draft = self.draft();
        let replaced = write_new(&draft, &text).and_then(|()| fs::rename(&draft, &self.path));
        match replaced {
            Ok(()) => self.written = true,
            Err(_) => drop(fs::remove_file(&draft)),
        }
        replaced
    }

    pub(crate) fn remove(&mut self) {
        if std::mem::take(&mut self.written) {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn draft(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{}", std::process::id()));
        name.into()
    }
}

/// Never writes through a link that somebody has put there.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let create = || OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = create().or_else(|error| {
        // The name has our own id in it: whoever made it is gone.
        if error.kind() == io::ErrorKind::AlreadyExists {
            fs::remove_file(path)?;
            return create();
        }
        Err(error)
    })?;
    file.write_all(text.as_bytes())
}
