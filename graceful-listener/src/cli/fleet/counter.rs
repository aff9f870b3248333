use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::definition::Instances;
use super::host::Host;
use super::instance::key;
use super::recipe::Recipe;
use crate::cli::failure::reason;
use crate::cli::log::printable;
use crate::cli::moment::Moment;
use crate::cli::process::{Certificate, Exit, Identity, Process, Signal, Spawn, draft};

/// Asks a command, from time to time, how many instances there are to be.
#[derive(Debug)]
pub(crate) struct Counter {
    command: OsString,
    interval: Duration,
    max: u32,
    /// What it has said last.
    pub(crate) count: Option<u32>,
    /// Why that is not known, or not any more.
    pub(crate) complaint: Option<String>,
    asked: Option<Asked>,
    /// When it is asked next.
    due: Moment,
}

#[derive(Debug)]
struct Asked {
    process: Process,
    /// Where it is written down who is asked.
    path: PathBuf,
    answer: PipeReader,
    /// When it is killed.
    late_at: Option<Moment>,
}

impl Drop for Asked {
    /// Leaves nothing of it.
    fn drop(&mut self) {
        // It fails only for one that has ended already.
        let _ = self.process.signal_group(Signal::KILL);
        let _ = fs::remove_file(&self.path);
    }
}

impl Counter {
    /// Returns who is to be asked, if anybody.
    pub(crate) fn of(instances: &Instances) -> Option<Self> {
        match instances {
            Instances::Count(_) => None,
            Instances::Command {
                command,
                interval,
                max,
            } => Some(Self {
                command: command.clone(),
                interval: *interval,
                max: *max,
                count: None,
                complaint: None,
                asked: None,
                due: Moment::now(),
            }),
        }
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.asked.as_ref().map(|asked| asked.process.pid())
    }

    pub(crate) fn deadline(&self) -> Option<Moment> {
        match &self.asked {
            Some(asked) => asked.late_at,
            None => Some(self.due),
        }
    }

    /// Does what is due. Returns the id of a process that was started.
    pub(crate) fn advance(&mut self, program: &str, recipe: &Recipe, host: &Host) -> Option<i32> {
        let now = Moment::now();
        if let Some(asked) = &mut self.asked {
            if asked.late_at.is_some_and(|at| at <= now) {
                asked.late_at = None;
                host.log.line(format_args!(
                    "{program}: {} has not answered within {} secs, sending KILL to it",
                    self.command.display(),
                    PATIENCE.as_secs()
                ));
                // It fails only for one that has ended already.
                let _ = asked.process.signal_group(Signal::KILL);
            }
            return None;
        }
        if self.due > now {
            return None;
        }
        self.due = now + self.interval;
        match self.ask(program, recipe, host) {
            Ok(asked) => {
                let pid = asked.process.pid();
                self.asked = Some(asked);
                Some(pid)
            }
            Err(why) => {
                self.complain(why, program, host);
                None
            }
        }
    }

    /// Tells what is wrong, once.
    fn complain(&mut self, why: String, program: &str, host: &Host) {
        if self.complaint.as_ref() != Some(&why) {
            host.log.line(format_args!(
                "{program}: {why}; {} instances go on being wanted",
                self.count.unwrap_or(0)
            ));
            self.complaint = Some(why);
            host.changed.set(true);
        }
    }

    /// Ends the command, whose answer nobody waits for any more.
    pub(crate) fn give_up(&mut self) {
        if self.asked.take().is_some() {
            self.due = Moment::now();
        }
    }

    /// Ends a command that a supervisor has left that was killed.
    pub(crate) fn end_left(path: &Path) {
        let text = fs::read_to_string(path).unwrap_or_default();
        let left = Identity::parse(&text).and_then(|(identity, _)| identity.find().ok()?);
        if let Some(process) = left {
            let _ = process.signal_group(Signal::KILL);
        }
        let _ = fs::remove_file(path);
    }

    /// Takes the answer, if the command has ended.
    pub(crate) fn hear(&mut self, program: &str, host: &Host) {
        let Some(asked) = &self.asked else {
            return;
        };
        if !asked.process.has_ended().unwrap_or(true) {
            return;
        }
        // While the number of its group is still its own.
        let _ = asked.process.signal_group(Signal::KILL);
        let exit = match asked.process.try_wait() {
            Ok(None) => return,
            Ok(Some(exit)) => exit,
            Err(_) => Exit::Unknown,
        };
        let Some(mut asked) = self.asked.take() else {
            return;
        };
        match self.read(&mut asked.answer, exit) {
            Ok(count) => {
                if self.count != Some(count) {
                    host.log.line(format_args!(
                        "{program}: {count} instances are wanted by {}",
                        self.command.display()
                    ));
                }
                if self.count != Some(count) || self.complaint.is_some() {
                    host.changed.set(true);
                }
                (self.count, self.complaint) = (Some(count), None);
            }
            Err(why) => {
                let why = format!("{} {why}", self.command.display());
                self.complain(why, program, host);
            }
        }
    }

    fn read(&self, answer: &mut PipeReader, exit: Exit) -> Result<u32, String> {
        if exit != Exit::Code(0) {
            return Err(exit.to_string());
        }
        let mut text = [0; 64];
        // What it has started may hold the pipe open: only what is there is read.
        let length = answer
            .read(&mut text)
            .map_err(|error| format!("printed nothing: {}", reason(&error)))?;
        let text = printable(&String::from_utf8_lossy(&text[..length]));
        let text = text.trim();
        let count: u32 = text
            .parse()
            .map_err(|_| format!("printed `{text}`, expected a number"))?;
        Ok(count.min(self.max))
    }

    fn ask(&self, program: &str, recipe: &Recipe, host: &Host) -> Result<Asked, String> {
        let failed = |error: io::Error| {
            format!(
                "failed to execute {}: {}",
                self.command.display(),
                reason(&error)
            )
        };
        let (answer, writer) = io::pipe().map_err(failed)?;
        nix::fcntl::fcntl(
            &answer,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )
        .map_err(|errno| failed(errno.into()))?;
        let account = recipe.account()?;
        let env: Vec<_> = recipe
            .variables(host, program, account.as_ref())?
            .into_iter()
            .collect();
        let directory = recipe.directory(host);
        let descriptors: [(BorrowedFd<'_>, i32); 2] = [(host.null.as_fd(), 0), (writer.as_fd(), 1)];
        let args = [OsString::from("-c"), self.command.clone()];
        // Who comes after us finds all of it only while the shell lives, which
        // therefore does not die with us.
        let path = host.run.join(format!("{program}.{EXTENSION}"));
        // On a full disk it is asked all the same.
        let certificate = Certificate::prepare(&path, &draft(&path), "").ok();
        let process = Spawn {
            dir: Some(&directory),
            descriptors: &descriptors,
            account: account.as_ref(),
            certificate: certificate.as_ref(),
            ..Spawn::new(OsStr::new("/bin/sh"), &args, &env)
        }
        .spawn()
        .map_err(|error| {
            certificate.iter().for_each(Certificate::discard);
            failed(error.into())
        })?;
        let asked = Asked {
            process,
            path,
            answer,
            late_at: Some(Moment::now() + PATIENCE),
        };
        host.watch
            .add(&asked.process, key(&asked.process))
            .map_err(failed)?;
        Ok(asked)
    }
}

/// How the names of the files end that say who is asked.
pub(crate) const EXTENSION: &str = "counter";
/// How long the command may think.
const PATIENCE: Duration = Duration::from_secs(30);
