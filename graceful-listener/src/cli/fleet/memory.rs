use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::state::State;

/// What a supervisor has to know of a program after it was killed: how far it had
/// come with the wishes of its masters.
#[derive(Clone, Debug, Deserialize, Hash, Serialize)]
pub(crate) struct Memory {
    /// The start of the machine for which this holds.
    pub(crate) boot: String,
    /// The file of the program as it was last accepted.
    pub(crate) definition: String,
    pub(crate) generation: u64,
    /// It was stopped by a command.
    pub(crate) stopped: bool,
    /// The number of instances that a command has set.
    pub(crate) scale: Option<u32>,
    /// Instances that have come to an end, which nobody is to start again.
    pub(crate) ended: Vec<(u32, State)>,
}

impl Memory {
    /// Returns a number that another memory does not have, as far as can be told.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Writes it down; who reads it finds the old one or the new one.
    pub(crate) fn write(&self, run: &Path, program: &str) -> io::Result<()> {
        let path = path(run, program);
        let draft = path.with_added_extension("new");
        let written =
            fs::write(&draft, serde_json::to_vec(self)?).and_then(|()| fs::rename(&draft, &path));
        written.inspect_err(|_| drop(fs::remove_file(&draft)))
    }

    /// Reads what was written since this machine was started.
    pub(crate) fn read(run: &Path, program: &str, boot: &str) -> Option<Self> {
        let text = fs::read(path(run, program)).ok()?;
        let memory: Self = serde_json::from_slice(&text).ok()?;
        (memory.boot == boot).then_some(memory)
    }

    /// Forgets the program.
    pub(crate) fn remove(run: &Path, program: &str) -> io::Result<()> {
        match fs::remove_file(path(run, program)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

fn path(run: &Path, program: &str) -> PathBuf {
    run.join(format!("{program}.{EXTENSION}"))
}

/// How the names of these files end.
pub(crate) const EXTENSION: &str = "json";
