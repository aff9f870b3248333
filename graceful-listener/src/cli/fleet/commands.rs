use std::ffi::{OsStr, OsString};

use super::inbox::Command;
use super::program::Program;
use super::state::State;
use super::supervisor::{AGAIN, Supervisor};
use crate::cli::failure::reason;
use crate::cli::log::printable;
use crate::cli::moment::Moment;

/// A command that is being carried out.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The name of its file.
    pub(super) name: OsString,
    pub(super) command: Command,
    /// How it went, if that could not be written yet.
    answer: Option<Result<String, String>>,
    /// When it is tried again to write it.
    again_at: Option<Moment>,
}

impl Supervisor {
    /// Begins to carry out the commands that have come.
    pub(super) fn take_commands(&mut self) {
        let found = match self.inbox.pending() {
            Ok(found) => found,
            Err(error) => {
                self.host.log.line(format_args!(
                    "failed to read {}: {}",
                    self.directory.inbox().display(),
                    reason(&error)
                ));
                self.scan_at = Some(Moment::now() + AGAIN);
                return;
            }
        };
        if self.answers >= PRUNE {
            self.answers = 0;
            if let Err(error) = self.inbox.prune() {
                self.host.log.line(format_args!(
                    "failed to remove old answers: {}",
                    reason(&error)
                ));
            }
        }
        for name in found.directories.difference(&self.told) {
            self.host.log.line(format_args!(
                "ignored {} in {}: it is a directory, expected a file",
                printable(&name.to_string_lossy()),
                self.directory.inbox().display()
            ));
        }
        self.told = found.directories;
        for request in found.requests {
            self.answers = self.answers.saturating_add(1);
            let name = request.name().to_owned();
            if self.pending.iter().any(|pending| pending.name == name) {
                continue;
            }
            match request.command {
                Ok(command) => {
                    self.host.log.line(format_args!("command {command}"));
                    let answer = self.begin(&name, &command);
                    self.pending.push(Pending {
                        name,
                        command,
                        answer,
                        again_at: None,
                    });
                }
                Err(why) => {
                    self.host.log.line(format_args!(
                        "refused command {}: {}",
                        printable(&name.to_string_lossy()),
                        printable(&why)
                    ));
                    if let Err(error) = self.inbox.answer(&name, Err(&why)) {
                        self.cannot_answer(&name, &error);
                    }
                }
            }
        }
    }

    /// Returns the answer if there is one at once.
    fn begin(&mut self, file: &OsStr, command: &Command) -> Option<Result<String, String>> {
        let name = match command {
            Command::Upgrade => {
                let asked = self.upgraded.iter().position(|name| name == file);
                if let Some(asked) = asked {
                    self.upgraded.swap_remove(asked);
                    return Some(Ok(format!("fleet {} goes on", env!("CARGO_PKG_VERSION"))));
                }
                self.upgrade = true;
                return None;
            }
            Command::Start(name)
            | Command::Stop(name)
            | Command::Restart(name)
            | Command::Signal(name, _)
            | Command::Scale(name, _) => name,
        };
        let found = self.find(name).and_then(|_| self.names.get(name.as_str()));
        let Some(&position) = found else {
            return Some(Err(match self.refused.get(name) {
                Some(why) => why.clone(),
                None => format!(
                    "there is no program {name}: no file {}",
                    self.directory
                        .programs()
                        .join(format!("{name}.toml"))
                        .display()
                ),
            }));
        };
        self.supersede(command, name);
        let (program, host) = (&mut self.programs[position], &self.host);
        host.changed.set(true);
        match command {
            Command::Start(_) => {
                program.set_stopped(false);
                program.revive(host);
                None
            }
            Command::Stop(_) => {
                program.set_stopped(true);
                None
            }
            Command::Restart(_) => {
                program.set_stopped(false);
                program.renew();
                None
            }
            Command::Scale(_, count) => {
                program.set_scale(*count);
                None
            }
            Command::Signal(_, signal) => Some(match program.signal(*signal) {
                Ok(0) => Err(format!("{name} has no process")),
                Ok(count) => Ok(format!("{signal} sent to {count} processes")),
                Err(why) => Err(why),
            }),
            Command::Upgrade => None,
        }
    }

    /// Gives up on the commands that this one is the opposite of.
    fn supersede(&mut self, command: &Command, name: &str) {
        for pending in &mut self.pending {
            let opposed = match (&pending.command, command) {
                (Command::Stop(other), Command::Start(_) | Command::Restart(_))
                | (
                    Command::Start(other) | Command::Restart(other) | Command::Scale(other, _),
                    Command::Stop(_),
                )
                | (Command::Scale(other, _), Command::Scale(..)) => other == name,
                _ => false,
            };
            if opposed && pending.answer.is_none() {
                pending.answer = Some(Err(format!("{command} came in between")));
            }
        }
    }

    /// Answers the commands that are carried out.
    pub(super) fn answer(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        for index in 0..self.pending.len() {
            if self.pending[index].answer.is_none() {
                self.pending[index].answer = self.outcome(&self.pending[index].command);
            }
        }
        let now = Moment::now();
        let is_due = |pending: &Pending| {
            pending.answer.is_some() && pending.again_at.is_none_or(|at| at <= now)
        };
        if !self.pending.iter().any(is_due) {
            return;
        }
        // Whoever has the answer finds the state that belongs to it.
        if self.host.changed.get() {
            self.write_status();
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain_mut(|pending| {
            let Some(answer) = pending.answer.as_ref().filter(|_| is_due(pending)) else {
                return true;
            };
            let text = match answer {
                Ok(text) => {
                    self.host
                        .log
                        .line(format_args!("command {}: done", pending.command));
                    Ok(text.as_str())
                }
                Err(why) => {
                    // Output lines that follow are in the log already.
                    let first = why.lines().next().unwrap_or_default();
                    self.host
                        .log
                        .line(format_args!("command {}: failed: {first}", pending.command));
                    Err(why.as_str())
                }
            };
            match self.inbox.answer(&pending.name, text) {
                Ok(()) => false,
                Err(error) => {
                    pending.again_at = Some(now + AGAIN);
                    self.cannot_answer(&pending.name, &error);
                    true
                }
            }
        });
        self.pending = pending;
    }

    /// Has it tried again.
    fn cannot_answer(&mut self, name: &OsStr, error: &std::io::Error) {
        self.host.log.line(format_args!(
            "failed to answer {}: {}",
            printable(&name.to_string_lossy()),
            reason(error)
        ));
        self.scan_at = Some(Moment::now() + AGAIN);
    }

    /// Returns how a command went; `None` if that is still to be seen.
    fn outcome(&self, command: &Command) -> Option<Result<String, String>> {
        let program = |name: &str| self.find(name);
        let gone = |name: &str| Err(format!("the file of {name} is gone"));
        match command {
            Command::Upgrade | Command::Signal(..) => None,
            Command::Stop(name) => match program(name) {
                Some(program) if !program.is_down() => None,
                _ => Some(Ok(format!("{name} is stopped"))),
            },
            Command::Scale(name, count) => match program(name) {
                None => Some(gone(name)),
                Some(program) if program.stopped => Some(Ok(format!(
                    "{name} will have {count} instances when it is started"
                ))),
                Some(program) => program.progress(),
            },
            Command::Start(name) | Command::Restart(name) => match program(name) {
                None => Some(gone(name)),
                Some(program) => program.progress(),
            },
        }
    }

    /// Returns the commands that ask for an upgrade: one is enough for all.
    pub(super) fn upgrades(&self) -> Vec<OsString> {
        self.pending
            .iter()
            .filter(|pending| matches!(pending.command, Command::Upgrade))
            .map(|pending| pending.name.clone())
            .collect()
    }

    /// Answers what cannot be done any more.
    pub(super) fn fail_upgrade(&mut self, why: &str) {
        for pending in &mut self.pending {
            if matches!(pending.command, Command::Upgrade) {
                pending.answer = Some(Err(why.into()));
            }
        }
    }
}

impl Program {
    /// Returns whether everything that is wanted runs, or why it will not;
    /// `None` while it is being started.
    fn progress(&self) -> Option<Result<String, String>> {
        if let Some(why) = &self.halted {
            return Some(Err(why.clone()));
        }
        let count = self.count()?;
        let whole = usize::try_from(count) == Ok(self.instances.len());
        let current = |instance: &super::instance::Instance| {
            instance.generation == self.generation && instance.is_up()
        };
        if whole && self.instances.iter().all(current) {
            return Some(Ok(match count {
                1 => format!("{} runs", self.name),
                _ => format!("{} runs {count} times", self.name),
            }));
        }
        let moving = self
            .instances
            .iter()
            .any(|instance| instance.machine.is_moving() || instance.generation != self.generation);
        if moving || !whole {
            return None;
        }
        let failed = self.instances.iter().find(|instance| {
            matches!(instance.state(), State::Fatal | State::Exited) && !instance.is_up()
        })?;
        let mut why = format!("{}:{} is {}", self.name, failed.index, failed.state());
        if let Some(exit) = &failed.exit {
            why = format!("{why}: {exit}");
        }
        for line in &failed.output {
            why = format!("{why}\n{line}");
        }
        Some(Err(why))
    }
}

/// After so many commands old answers are removed.
const PRUNE: u32 = 100;
