use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::state::State;

/// How a fleet is: the contents of `status.json`.
///
/// Times are milliseconds since 1970. Fields may be added; those that an older program
/// did not write have defaults.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Status {
    /// The version of the program that wrote it.
    pub(crate) version: String,
    pub(crate) pid: i32,
    /// When the supervisor was started.
    pub(crate) since: u64,
    /// Starts that wait for their turn.
    pub(crate) starts_waiting: usize,
    pub(crate) programs: Vec<ProgramStatus>,
}

/// One program.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct ProgramStatus {
    pub(crate) name: String,
    /// How many instances there should be.
    pub(crate) wanted: u32,
    /// It was stopped by a command.
    pub(crate) stopped: bool,
    pub(crate) generation: u64,
    /// What is wrong: its definition was refused, and the one before it holds; a
    /// restart has halted; or it cannot be told how many instances are wanted.
    pub(crate) error: Option<String>,
    /// The program that must be up before it is started.
    pub(crate) waiting_for: Option<String>,
    pub(crate) instances: Vec<InstanceStatus>,
}

/// One instance of a program.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct InstanceStatus {
    pub(crate) index: u32,
    pub(crate) state: State,
    #[serde(default)]
    pub(crate) pid: Option<i32>,
    /// When it came into this state.
    #[serde(default)]
    pub(crate) since: u64,
    /// It has said that it is ready.
    #[serde(default)]
    pub(crate) ready: bool,
    /// What it last said of itself with `STATUS=`.
    #[serde(default)]
    pub(crate) status: Option<String>,
    /// How often it was started.
    #[serde(default)]
    pub(crate) starts: u64,
    /// How it ended last.
    #[serde(default)]
    pub(crate) exit: Option<String>,
    /// The last lines of its output, if it failed.
    #[serde(default)]
    pub(crate) output: Vec<String>,
}

impl Status {
    /// Replaces the file. One that cannot be written stays as it was.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".tmp");
        let draft = path.with_file_name(name);
        let replaced = self
            .write_new(&draft)
            .and_then(|()| fs::rename(&draft, path));
        if replaced.is_err() {
            drop(fs::remove_file(&draft));
        }
        replaced
    }

    fn write_new(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)?;
        let mut writer = BufWriter::new(file);
        serde_json::to_writer(&mut writer, self)?;
        writer.write_all(b"\n")?;
        writer.flush()
    }

    /// Reads the file.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }
}

#[cfg(test)]
mod tests;
