use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use super::UpgradeError;

/// What to start: how this process was started, unless the user says otherwise.
#[derive(Debug)]
pub(super) struct Program {
    /// With a slash a path, else looked up each time.
    pub(super) name: OsString,
    pub(super) args: Vec<OsString>,
    directory: PathBuf,
}

impl Program {
    pub(super) fn of_this_process() -> io::Result<Self> {
        let mut args = env::args_os();
        let name = args.next().unwrap_or_default();
        let mut program = Self {
            name,
            args: args.collect(),
            directory: directory()?,
        };
        if program.find().is_none() {
            // A name that was made up, as login shells have one.
            program.name = env::current_exe()?.into_os_string();
        }
        Ok(program)
    }

    pub(super) fn command(&self) -> Result<Command, UpgradeError> {
        // The kernel says what is the matter with a path.
        let path = self.find().or_else(|| self.path());
        let path = path.ok_or_else(|| UpgradeError::Spawn {
            program: self.name.clone().into(),
            source: io::Error::new(io::ErrorKind::NotFound, "it is not in the PATH"),
        })?;
        let mut command = Command::new(path);
        command
            .arg0(&self.name)
            .args(&self.args)
            .current_dir(&self.directory);
        Ok(command)
    }

    fn path(&self) -> Option<PathBuf> {
        let is_path = self.name.as_bytes().contains(&b'/');
        is_path.then(|| self.directory.join(&self.name))
    }

    fn find(&self) -> Option<PathBuf> {
        let executable = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|metadata| {
                metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
            })
        };
        if let Some(path) = self.path() {
            return Some(path).filter(executable);
        }
        let path = env::var_os("PATH")?;
        let mut candidates = env::split_paths(&path)
            .map(|directory| self.directory.join(directory).join(&self.name));
        candidates.find(executable)
    }
}

/// The working directory as the shell names it: `/srv/app/current` goes on
/// meaning whatever that link points to by then.
fn directory() -> io::Result<PathBuf> {
    let identity =
        |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    let here = identity(Path::new("."))?;
    match env::var_os("PWD").map(PathBuf::from) {
        Some(logical)
            if logical.is_absolute() && identity(&logical).is_ok_and(|there| there == here) =>
        {
            Ok(logical)
        }
        _ => env::current_dir(),
    }
}
