use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;

use super::{name, owner};

/// The directory by which a fleet is commanded, and in which it tells how it is.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    root: PathBuf,
}

/// What `programs/` has in it.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Definitions, by the name of their program.
    pub(crate) programs: BTreeMap<String, PathBuf>,
    /// What was meant as a definition, and has a name that cannot be one's, with the
    /// reason.
    pub(crate) refused: BTreeMap<PathBuf, String>,
}

impl Directory {
    /// Takes the directory for a supervisor, and makes what it needs in it.
    ///
    /// # Errors
    ///
    /// Fails if it is none, or if anybody but this user and root may write it or
    /// what is in it.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let directory = Self::at(path)?;
        check(&directory.root)?;
        for own in directory.own() {
            match DirBuilder::new().mode(0o755).create(&own) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Failure::io(
                        format_args!("failed to make {}", own.display()),
                        &error,
                    ));
                }
                _ => check(&own)?,
            }
        }
        Ok(directory)
    }

    /// Finds out whether a supervisor would take it, and makes nothing.
    ///
    /// # Errors
    ///
    /// Fails as [`Directory::open`] does.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        check(&self.root)?;
        self.own()
            .iter()
            .filter(|own| fs::symlink_metadata(own).is_ok())
            .try_for_each(|own| check(own))
    }

    fn own(&self) -> [PathBuf; 6] {
        [
            self.programs(),
            self.inbox(),
            self.done(),
            self.failed(),
            self.run(),
            self.log(),
        ]
    }

    /// Names the directory of a supervisor that somebody else runs.
    ///
    /// # Errors
    ///
    /// Fails if there is no such directory.
    pub(crate) fn at(path: &Path) -> Result<Self, Failure> {
        let root = fs::canonicalize(path).map_err(|error| failed(path, &error))?;
        if !root.is_dir() {
            return Err(failed(path, &io::ErrorKind::NotADirectory.into()));
        }
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What is wanted.
    pub(crate) fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    /// Commands that wait to be carried out.
    pub(crate) fn inbox(&self) -> PathBuf {
        self.root.join("inbox")
    }

    /// Commands that were carried out.
    pub(crate) fn done(&self) -> PathBuf {
        self.root.join("done")
    }

    /// Commands that were refused, or could not be carried out.
    pub(crate) fn failed(&self) -> PathBuf {
        self.root.join("failed")
    }

    /// What the supervisor notes for the one after it.
    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Output of those programs that do not say where theirs goes.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn status(&self) -> PathBuf {
        self.root.join("status.json")
    }

    /// The pid file, which a supervisor holds by its lock as long as it runs.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("fleet.pid")
    }

    /// Lists the definitions. What editors and copies under way leave is not seen.
    pub(crate) fn scan(&self) -> io::Result<Scan> {
        let mut scan = Scan::default();
        for entry in fs::read_dir(self.programs())? {
            let file_name = entry?.file_name();
            let path = self.programs().join(&file_name);
            // Temporary names begin with a dot or a hash, or end otherwise.
            let Some(stem) = file_name.as_encoded_bytes().strip_suffix(b".toml") else {
                continue;
            };
            if file_name.as_encoded_bytes().starts_with(b".") || stem.starts_with(b"#") {
                continue;
            }
            let name = String::from_utf8_lossy(stem).into_owned();
            match name::check(&name) {
                Ok(()) => drop(scan.programs.insert(name, path)),
                Err(why) => {
                    let message = format!("{}: `{name}` {why}", path.display());
                    scan.refused.insert(path, message);
                }
            }
        }
        Ok(scan)
    }
}

fn check(path: &Path) -> Result<(), Failure> {
    // Not through a link, which could lead anywhere.
    let metadata = fs::symlink_metadata(path).map_err(|error| failed(path, &error))?;
    if !metadata.is_dir() {
        return Err(failed(path, &io::ErrorKind::NotADirectory.into()));
    }
    owner::check(&metadata).map_err(|why| Failure::new(format!("{}: {why}", path.display())))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::io(path.display(), error)
}

#[cfg(test)]
mod tests;
