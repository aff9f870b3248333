use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::descriptor;
use crate::cli::failure::reason;
use crate::cli::moment::Moment;
use crate::cli::process::{Process, Signal, Spawn};

/// How a supervisor and the program that it executes in its own place, under the
/// same process id, find each other.
#[derive(Debug)]
pub(crate) struct Succession {
    /// The variable that tells the program executed where the state is.
    pub(crate) variable: &'static str,
    /// The option, not for people, that asks whether a program can take over.
    pub(crate) option: &'static str,
    /// What a program says that can.
    pub(crate) answer: &'static str,
}

/// How this program was called, to be called again.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    /// The file found under the name by which it was called; a link is not
    /// followed, so that what it leads to may change.
    pub(crate) program: PathBuf,
    /// All arguments, with the name.
    pub(crate) args: Vec<OsString>,
}

/// A new program that is being asked whether it can take over.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) process: Process,
    reader: PipeReader,
    pub(crate) deadline: Moment,
}

/// What a program under trial has said.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// It can take over.
    Able,
    /// It cannot, for this reason.
    Unable(String),
}

impl Invocation {
    /// Finds the program by which this one was called.
    pub(crate) fn new(args: Vec<OsString>, name: &str) -> Self {
        let called = args.first().cloned().unwrap_or_else(|| name.into());
        let path = std::env::var_os("PATH");
        let program = crate::cli::process::find_program(&called, path.as_deref())
            .or_else(|_| std::env::current_exe())
            .unwrap_or_else(|_| PathBuf::from(name));
        Self { program, args }
    }
}

impl Succession {
    /// Asks the program that is now under our name whether it can go on with our
    /// state; nothing has changed until it has said so.
    pub(crate) fn try_program(
        &self,
        invocation: &Invocation,
        record: &OwnedFd,
    ) -> io::Result<Trial> {
        let (reader, writer) = io::pipe()?;
        let mut args = vec![OsString::from(format!(
            "--{}={CHECK_DESCRIPTOR}",
            self.option
        ))];
        args.extend(invocation.args.iter().skip(1).cloned());
        let env: Vec<_> = std::env::vars_os()
            .filter(|(name, _)| name != self.variable)
            .collect();
        let descriptors: [(BorrowedFd<'_>, RawFd); 2] =
            [(writer.as_fd(), 1), (record.as_fd(), CHECK_DESCRIPTOR)];
        let process = Spawn {
            descriptors: &descriptors,
            death_signal: Some(Signal::KILL),
            ..Spawn::new(invocation.program.as_os_str(), &args, &env)
        }
        .spawn()?;
        Ok(Trial {
            process,
            reader,
            deadline: Moment::now() + TRIAL_TIME,
        })
    }

    /// Looks whether the program has answered; `None` if it may still do so.
    pub(crate) fn verdict(&self, trial: &mut Option<Trial>) -> Option<Verdict> {
        let asked = trial.as_ref()?;
        let late = asked.deadline <= Moment::now();
        if late {
            // It fails only for one that has ended already.
            let _ = asked.process.signal_group(Signal::KILL);
        }
        let exit = match asked.process.try_wait() {
            Ok(None) if !late => return None,
            Ok(exit) => exit,
            Err(_) => None,
        };
        let mut asked = trial.take()?;
        let mut answer = String::new();
        let able =
            !late && asked.reader.read_to_string(&mut answer).is_ok() && answer == self.answer;
        Some(match exit {
            _ if able => Verdict::Able,
            _ if late => Verdict::Unable(format!(
                "did not answer within {} secs",
                TRIAL_TIME.as_secs()
            )),
            Some(exit) => Verdict::Unable(exit.to_string()),
            None => Verdict::Unable("did not answer".into()),
        })
    }

    /// Becomes the program, which finds the record and `kept` open. Returns only
    /// if that fails, and then nothing has changed.
    pub(crate) fn execute<'a>(
        &self,
        invocation: &Invocation,
        record: &'a OwnedFd,
        mut kept: Vec<BorrowedFd<'a>>,
    ) -> io::Error {
        kept.push(record.as_fd());
        let keep = |flag: FdFlag| {
            kept.iter()
                .try_for_each(|fd| fcntl(fd, FcntlArg::F_SETFD(flag)).map(drop))
        };
        if let Err(errno) = keep(FdFlag::empty()) {
            let _ = keep(FdFlag::FD_CLOEXEC);
            return errno.into();
        }
        let mut command = Command::new(&invocation.program);
        if let Some((name, args)) = invocation.args.split_first() {
            command.arg0(name).args(args);
        }
        command.env(
            self.variable,
            format!("{}:{}", std::process::id(), record.as_raw_fd()),
        );
        // Signals stay blocked, and those that come meanwhile stay pending.
        let error = command.exec();
        let _ = keep(FdFlag::FD_CLOEXEC);
        error
    }

    /// Returns the record that the program that executed this one has left to it.
    pub(crate) fn left_to_us(&self) -> Option<io::Result<File>> {
        let text = std::env::var(self.variable).ok()?;
        let (pid, fd) = text.split_once(':')?;
        // In any other process it has leaked from somewhere, and means nothing.
        if pid.parse() != Ok(std::process::id()) {
            return None;
        }
        let fd = fd.parse().ok()?;
        Some(descriptor::inherited(fd).map(File::from))
    }
}

/// Says in a few words why a program that was tried does not take over.
pub(crate) fn refusal(invocation: &Invocation, error: &io::Error) -> String {
    format!(
        "failed to execute {}: {}; going on with the old program",
        invocation.program.display(),
        reason(error)
    )
}

/// Writes a state to a new file in memory, which is close-on-exec.
pub(crate) fn write(name: &str, state: &impl Serialize) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&serde_json::to_vec(state)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// Reads what [`write`] wrote.
pub(crate) fn read<T: DeserializeOwned>(mut file: File) -> io::Result<T> {
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

const CHECK_DESCRIPTOR: RawFd = 3;
const TRIAL_TIME: Duration = Duration::from_secs(10);
