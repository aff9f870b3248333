use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::variables::{self, Variables};

/// The environment of the workers: the super-daemon's own, the options that are
/// passed on, then `--env-file`s, then `--envdir`, which are read again for each
/// new worker.
#[derive(Debug)]
pub(crate) struct Environment {
    base: Variables,
    files: Vec<PathBuf>,
}

impl Environment {
    /// Takes the environment this process was given, and adds `options`.
    pub(crate) fn new(
        options: impl IntoIterator<Item = (&'static str, OsString)>,
        files: Vec<PathBuf>,
    ) -> Self {
        let mut base: Variables = std::env::vars_os().collect();
        base.extend(
            options
                .into_iter()
                .map(|(name, value)| (name.into(), value)),
        );
        Self { base, files }
    }

    /// Reads the files as they are now.
    ///
    /// # Errors
    ///
    /// Fails on an `--env-file` that cannot be read or understood. An envdir that
    /// is missing is an empty one.
    pub(crate) fn load(&self) -> Result<Variables, String> {
        let mut variables = self.base.clone();
        for file in &self.files {
            variables::read_file(file, &mut variables)
                .map_err(|error| format!("--env-file {error}"))?;
        }
        if let Some(dir) = variables.get(OsStr::new(ENVDIR)) {
            let dir = PathBuf::from(dir);
            read_envdir(&dir, &mut variables);
        }
        variables::remove_ours(&mut variables);
        Ok(variables)
    }
}

/// Returns true if the variable is set to what Perl takes for true.
pub(crate) fn is_true(variables: &Variables, name: &str) -> bool {
    variables
        .get(OsStr::new(name))
        .is_some_and(|value| !value.is_empty() && value != "0")
}

/// Returns the seconds the variable tells: the number its text begins with, as
/// Perl reads it, or nothing if it is not set.
pub(crate) fn seconds(variables: &Variables, name: &str) -> Option<Duration> {
    let value = variables
        .get(OsStr::new(name))?
        .to_string_lossy()
        .into_owned();
    let value = value.trim_start();
    let end = value
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(value.len());
    let number = value[..end].parse().unwrap_or(0.0);
    Some(Duration::try_from_secs_f64(number).unwrap_or(Duration::MAX))
}

/// Adds every file of the directory: its name, and its first line. Files that
/// are empty or hidden, and those that cannot be read, say nothing.
fn read_envdir(dir: &Path, variables: &mut Variables) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.as_bytes().starts_with(b".") || name.as_bytes().contains(&b'=') {
            continue;
        }
        let Ok(Some(line)) = first_line(&entry.path()) else {
            continue;
        };
        variables.insert(name, line);
    }
}

fn first_line(path: &Path) -> io::Result<Option<OsString>> {
    // A FIFO that somebody put there would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut line = Vec::new();
    let file = File::open(path)?.take(MAX_VALUE);
    if BufReader::new(file).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    // The environment cannot hold what follows a NUL byte.
    if let Some(end) = line.iter().position(|&byte| byte == 0) {
        line.truncate(end);
    }
    Ok(Some(OsString::from_vec(line)))
}

pub(crate) const ENVDIR: &str = "ENVDIR";
/// The kernel refuses to execute a program with a longer string than this.
const MAX_VALUE: u64 = 128 * 1024 - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_the_number_at_the_beginning() {
        let seconds = |text: &str| {
            let variables = Variables::from([("N".into(), text.into())]);
            seconds(&variables, "N").map(|duration| duration.as_millis())
        };
        assert_eq!(seconds("5"), Some(5000));
        assert_eq!(seconds(" 2.5s"), Some(2500));
        assert_eq!(seconds("abc"), Some(0));
        assert_eq!(seconds("-3"), Some(0));
        assert!(seconds("999999999999999999999999").is_some());
    }
}
