use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::recipe::{INSTANCE, PROGRAM};
use crate::cli::moment::Moment;
use crate::cli::process::{Cgroup, Identity, Leftovers};

/// What the pid file of an instance says beside who its process is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Note {
    pub(crate) program: String,
    pub(crate) index: u32,
    pub(crate) generation: u64,
    pub(crate) started: Moment,
    /// The control group that holds it and what it has started.
    pub(crate) cgroup: Option<PathBuf>,
    /// It has said that it is ready.
    pub(crate) ready: bool,
}

impl Note {
    /// Returns the control group, if it is still there.
    pub(crate) fn cgroup(&self) -> Option<Cgroup> {
        let path = self.cgroup.clone()?;
        path.exists().then(|| Cgroup::from_path(path))
    }

    /// Returns the place of the pid file.
    pub(crate) fn path(run: &Path, program: &str, index: u32, generation: u64) -> PathBuf {
        run.join(format!("{program}.{index}.{generation}.{EXTENSION}"))
    }

    /// Returns what keeps the room for a pid file while there is no process.
    pub(crate) fn draft(run: &Path, program: &str, index: u32) -> PathBuf {
        run.join(format!("{program}.{index}.{DRAFT}"))
    }

    /// Returns the place of the file that tells of what a process has left that had the
    /// pid file `path`.
    pub(crate) fn left(path: &Path, pid: i32) -> PathBuf {
        path.with_extension(format!("{pid}.{LEFT}"))
    }

    /// Returns what a process that has ended has left, if anything.
    pub(crate) fn find_left(
        &self,
        identity: &Identity,
        kill_at: Option<Moment>,
    ) -> Option<Leftovers> {
        let (pid, cgroup) = (identity.pid, self.cgroup());
        let left = match (identity.find(), cgroup) {
            // While nobody has reaped it, its group is its own.
            (Ok(Some(process)), cgroup) => return Leftovers::of(process, cgroup, kill_at),
            (_, Some(cgroup)) => Leftovers::new(pid, None, Some(cgroup), kill_at),
            (_, None) => Leftovers::in_group(pid, |pid| self.has_started(pid), kill_at),
        };
        (!left.are_gone()).then_some(left)
    }

    /// Returns true if a process has been started by the instance, or by what that has
    /// started, as its environment tells.
    fn has_started(&self, pid: i32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let has = |name: &str, value: &str| {
            let expected = format!("{name}={value}");
            let mut variables = environment.split(|byte| *byte == 0);
            variables.any(|variable| variable == expected.as_bytes())
        };
        has(PROGRAM, &self.program) && has(INSTANCE, &self.index.to_string())
    }

    /// Writes the lines that follow the identity.
    pub(crate) fn write(&self) -> String {
        let Self {
            program,
            index,
            generation,
            started,
            cgroup,
            ready,
        } = self;
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "program {program}\ninstance {index}\ngeneration {generation}\nstarted {}\n",
            started.as_millis()
        );
        if let Some(cgroup) = cgroup {
            let _ = writeln!(text, "cgroup {}", cgroup.display());
        }
        if *ready {
            text.push_str("ready\n");
        }
        text
    }

    /// Reads the lines that follow the identity.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (program, rest) = text.strip_prefix("program ")?.split_once('\n')?;
        let (index, rest) = rest.strip_prefix("instance ")?.split_once('\n')?;
        let (generation, rest) = rest.strip_prefix("generation ")?.split_once('\n')?;
        let (started, rest) = rest.strip_prefix("started ")?.split_once('\n')?;
        let cgroup = rest
            .strip_prefix("cgroup ")
            .and_then(|rest| rest.split_once('\n'));
        let (cgroup, rest) = match cgroup {
            Some((path, rest)) => (Some(path.into()), rest),
            None => (None, rest),
        };
        Some(Self {
            program: program.into(),
            index: index.parse().ok()?,
            generation: generation.parse().ok()?,
            started: Moment::from_millis(started.parse().ok()?),
            cgroup,
            ready: rest == "ready\n",
        })
    }
}

/// How the names of pid files end.
pub(crate) const EXTENSION: &str = "pid";
/// How the names of files end that tell what processes have left.
pub(crate) const LEFT: &str = "left";
/// How the names of files end that are not complete.
pub(crate) const DRAFT: &str = "new";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn note_is_read_back(
            program in "[a-z][a-z0-9_.-]{0,8}", index: u32, generation: u64, started: u32, ready: bool,
            cgroup in proptest::option::of("/[a-z/ .-]{0,12}"),
        ) {
            let note = Note {
                program, index, generation, ready,
                cgroup: cgroup.map(PathBuf::from),
                started: Moment::from_millis(started.into()),
            };
            prop_assert_eq!(Note::parse(&note.write()), Some(note));
        }

        #[test]
        fn no_note_panics(text in "(program |instance |cgroup |\n|[a-z0-9]){0,12}") {
            let _ = Note::parse(&text);
        }
    }
}
