use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::Rc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::cli::account::Account;
use crate::cli::descriptor;
use crate::cli::failure::reason;
use crate::cli::log::{Log, LogFormat};
use crate::cli::log_keeper;
use crate::cli::log_tail::LogTail;
use crate::cli::moment::Moment;
use crate::cli::process::{Exit, Process, Signal, Spawn};

/// The command that `--log-file '| COMMAND'` names, and the pipe it reads.
///
/// Both ends of the pipe are kept here, so the command may end and be started
/// again without the workers noticing and without a line being lost. While it
/// cannot be started, what would block the writers is thrown away, and counted.
///
/// If the last lines are to be known, a process between the pipe and the command
/// notes them, and starts the command: see [`log_keeper`].
#[derive(Debug)]
pub(crate) struct LogCommand {
    pub(crate) command: OsString,
    pub(crate) reader: PipeReader,
    pub(crate) writer: PipeWriter,
    /// What the command's own standard output and error are.
    pub(crate) output: [OwnedFd; 2],
    /// The command, or whoever keeps the log for it.
    pub(crate) process: Option<Process>,
    /// What was written last, if somebody keeps the log.
    pub(crate) tail: Option<Rc<LogTail>>,
    /// The process is the command though there should be a keeper: a program that knew of
    /// none has started it.
    bare: bool,
    since: Moment,
    failures: u32,
    retry_at: Option<Moment>,
    pub(crate) thrown_away: u64,
}

impl LogCommand {
    /// Has the command started, as the user that this process is about to become, who
    /// alone can start it again.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be executed, or not as that user.
    pub(crate) fn start(
        command: OsString,
        keep_output: bool,
        account: Option<&Account>,
        format: LogFormat,
    ) -> io::Result<Self> {
        let mut log = Self::kept(command)?;
        if !keep_output {
            let null = OpenOptions::new().write(true).open("/dev/null")?;
            log.output = [null.try_clone()?.into(), null.into()];
        }
        let (mut answer, teller) = io::pipe()?;
        log.process = Some(log.spawn_keeper(format, &teller, account)?);
        drop(teller);
        let mut errno = [0; 4];
        match answer.read_exact(&mut errno) {
            Ok(()) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
            // It runs, or nobody is left to tell that it does not.
            Err(_) => Ok(log),
        }
    }

    /// A pipe of which the last lines will be known, and nobody yet who reads it.
    ///
    /// # Errors
    ///
    /// Fails if there is no room for it.
    pub(crate) fn kept(command: OsString) -> io::Result<Self> {
        let (reader, writer) = large_pipe()?;
        let tail = LogTail::new(&reader)?;
        let mut log = Self::resume(command, reader, writer, own_output()?);
        log.tail = Some(tail.into());
        Ok(log)
    }

    /// Goes on with a pipe that is there already, and no command yet.
    pub(crate) fn resume(
        command: OsString,
        reader: PipeReader,
        writer: PipeWriter,
        output: [OwnedFd; 2],
    ) -> Self {
        Self {
            command,
            reader,
            writer,
            output,
            process: None,
            tail: None,
            bare: false,
            since: Moment::now(),
            failures: 0,
            retry_at: None,
            thrown_away: 0,
        }
    }

    /// Takes over the pipe of the program that executed this one.
    ///
    /// # Errors
    ///
    /// Fails if a descriptor that was to be kept open is not.
    pub(crate) fn take_up(record: LogRecord) -> io::Result<Self> {
        let pipe = descriptor::inherited;
        let output = [pipe(record.output[0])?, pipe(record.output[1])?];
        let (reader, writer) = (pipe(record.reader)?.into(), pipe(record.writer)?.into());
        let mut log = Self::resume(record.command, reader, writer, output);
        // Before there were keepers, the command read the pipe itself.
        log.bare = record.bare || record.tail.is_none();
        let tail = match record.tail {
            None => LogTail::new(&log.reader)?,
            Some(number) => LogTail::resume(pipe(number)?, &log.reader)?,
        };
        log.tail = Some(tail.into());
        let process = record.pid.map(|pid| Process::resume(pid, record.adopted));
        log.process = process.and_then(Result::ok);
        Ok(log)
    }

    /// Writes down what the next program has to know.
    pub(crate) fn record(&self) -> LogRecord {
        LogRecord {
            command: self.command.clone(),
            reader: self.reader.as_raw_fd(),
            writer: self.writer.as_raw_fd(),
            output: [self.output[0].as_raw_fd(), self.output[1].as_raw_fd()],
            tail: self.tail.as_ref().map(|tail| tail.as_fd().as_raw_fd()),
            pid: self.pid(),
            bare: self.bare,
            adopted: self.process.as_ref().is_some_and(|it| !it.is_child()),
        }
    }

    /// Returns what has to stay open for the next program.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let pipe = [self.reader.as_fd(), self.writer.as_fd()];
        let output = self.output.iter().map(AsFd::as_fd);
        let tail = self.tail.iter().map(|tail| tail.as_fd());
        pipe.into_iter().chain(output).chain(tail)
    }

    /// Looks after the command: starts it again if it has ended.
    pub(crate) fn look_after(&mut self, log: &Log) -> Option<&Process> {
        let is_new = self.revive(log);
        if self.process.is_none() {
            self.thrown_away += make_room(&mut self.reader, &self.writer).len() as u64;
        }
        self.process.as_ref().filter(|_| is_new)
    }

    /// Starts the command if it does not run. Returns true if it was started.
    pub(crate) fn revive(&mut self, log: &Log) -> bool {
        let ended = self
            .process
            .as_ref()
            // Somebody else took its status; it has ended all the same.
            .map(|process| process.try_wait().unwrap_or(Some(Exit::Unknown)));
        let what = |is_kept| {
            if is_kept {
                "keeper of log command"
            } else {
                "log command"
            }
        };
        if let Some(Some(exit)) = ended {
            self.process = None;
            if self.since.elapsed() >= HEALTHY {
                self.failures = 0;
            }
            self.failures = self.failures.saturating_add(1);
            let pause = if self.failures == 1 {
                Duration::ZERO
            } else {
                HEALTHY * (1 << (self.failures - 2).min(6))
            };
            self.retry_at = Some(Moment::now() + pause.min(MAX_PAUSE));
            log.line(format_args!(
                "{} {exit}, starting it again: {}",
                what(self.tail.is_some() && !std::mem::take(&mut self.bare)),
                self.command.display()
            ));
        }
        if self.process.is_some() {
            self.tell_of_loss(log);
            return false;
        }
        if self.retry_at.is_some_and(|at| at > Moment::now()) {
            return false;
        }
        let started = match self.tail {
            // Whether the command can be started, it says itself.
            Some(_) => io::pipe().and_then(|(answer, unheard)| {
                drop(answer);
                self.spawn_keeper(log.format(), &unheard, None)
            }),
            None => self.spawn_command(),
        };
        match started {
            Ok(process) => {
                (self.since, self.retry_at) = (Moment::now(), None);
                self.process = Some(process);
                self.tell_of_loss(log);
                true
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let pause = MAX_PAUSE.min(HEALTHY * (1 << self.failures.min(6)));
                self.retry_at = Some(Moment::now() + pause);
                log.line(format_args!(
                    "failed to execute {} {}: {}, trying again after {} secs",
                    what(self.tail.is_some()),
                    self.command.display(),
                    reason(&error),
                    pause.as_secs()
                ));
                false
            }
        }
    }

    /// Tells what was thrown away, as soon as there is room for that: it may go the same way.
    fn tell_of_loss(&mut self, log: &Log) {
        if self.thrown_away > 0 && has_room(&self.writer) {
            let lost = std::mem::take(&mut self.thrown_away);
            log.line(format_args!(
                "{lost} bytes of output were lost while the log command did not run"
            ));
        }
    }

    /// Has it started without a pause if it does not run.
    pub(crate) const fn hurry(&mut self) {
        self.retry_at = None;
    }

    /// Returns when it has to be looked after again.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        match self.process {
            Some(_) => None,
            None => Some(
                self.retry_at
                    .unwrap_or(Moment::now())
                    .min(Moment::now() + TICK),
            ),
        }
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Closes the pipe, and gives the command some time to read what is in it.
    pub(crate) fn finish(self) {
        self.finish_within(PollTimeout::from(FINISH_MILLIS));
    }

    /// Closes the pipe, and gives the command this time to read what is in it.
    pub(crate) fn finish_within(self, time: PollTimeout) {
        let Self {
            reader,
            writer,
            process,
            ..
        } = self;
        drop((reader, writer));
        if let Some(process) = process {
            let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ended, time);
            let _ = process.try_wait();
        }
    }

    /// Starts the command itself.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be executed.
    pub(crate) fn spawn_command(&self) -> io::Result<Process> {
        let words = words(&self.command);
        let [program, args @ ..] = &words[..] else {
            let empty = "the command is empty";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, empty));
        };
        let env: Vec<_> = std::env::vars_os().collect();
        let spawn = Spawn {
            descriptors: &self.standard_descriptors(),
            default_signals: &IGNORED_BY_KEEPER,
            ..Spawn::new(program, args, &env)
        };
        Ok(spawn.spawn()?)
    }

    /// Starts this program as the one that keeps the log, and says to `teller` if the
    /// command cannot be executed.
    fn spawn_keeper(
        &self,
        format: LogFormat,
        teller: &PipeWriter,
        account: Option<&Account>,
    ) -> io::Result<Process> {
        let args = [
            log_keeper::OPTION.into(),
            format.to_string().into(),
            self.command.clone(),
        ];
        let env: Vec<_> = std::env::vars_os().collect();
        let mut descriptors = self.standard_descriptors().to_vec();
        descriptors.extend(
            self.tail
                .iter()
                .map(|tail| (tail.as_fd(), log_keeper::TAIL)),
        );
        descriptors.push((teller.as_fd(), log_keeper::TELLER));
        let spawn = Spawn {
            descriptors: &descriptors,
            // It ends with those who write, which is later.
            ignored_signals: &IGNORED_BY_KEEPER,
            account,
            // Also when there is another one, or none, under its name.
            ..Spawn::new(OsStr::new("/proc/self/exe"), &args, &env)
        };
        Ok(spawn.spawn()?)
    }

    fn standard_descriptors(&self) -> [(BorrowedFd<'_>, RawFd); 3] {
        [
            (self.reader.as_fd(), 0),
            (self.output[0].as_fd(), 1),
            (self.output[1].as_fd(), 2),
        ]
    }
}

/// What the program that this process executes next has to know of a log command.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct LogRecord {
    command: OsString,
    reader: RawFd,
    writer: RawFd,
    output: [RawFd; 2],
    /// The end of the log in memory, if somebody keeps it.
    #[serde(default)]
    tail: Option<RawFd>,
    pid: Option<i32>,
    #[serde(default)]
    bare: bool,
    /// It was not started by this process, but adopted.
    #[serde(default)]
    adopted: bool,
}

/// Throws away the oldest of what is in a pipe if it is full and nobody reads it,
/// and returns that.
pub(crate) fn make_room(reader: &mut PipeReader, writer: impl AsFd) -> Vec<u8> {
    if has_room(writer) {
        return Vec::new();
    }
    let mut chunk = vec![0; PIPE_SIZE as usize / 4];
    // The pipe is full, so this does not wait.
    let length = reader.read(&mut chunk).unwrap_or(0);
    chunk.truncate(length);
    chunk
}

/// Returns true if a line can be written without waiting.
fn has_room(writer: impl AsFd) -> bool {
    let mut full = [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)];
    poll(&mut full, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Makes a pipe of more than the usual 64 KiB, if we may: time to start who reads
/// it again in.
fn large_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
    Ok((reader, writer))
}

/// Returns where our own output goes.
pub(crate) fn own_output() -> io::Result<[OwnedFd; 2]> {
    Ok([
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
    ])
}

impl AsRawFd for LogCommand {
    /// Returns the end of the pipe that is written to.
    fn as_raw_fd(&self) -> i32 {
        self.writer.as_raw_fd()
    }
}

/// Takes the command apart as Perl's `open` does: at blanks, or by the shell if
/// there is anything in it that only a shell understands.
fn words(command: &OsStr) -> Vec<OsString> {
    let bytes = command.as_bytes().trim_ascii();
    if bytes.iter().any(|byte| METACHARACTERS.contains(byte)) || begins_as_script(bytes) {
        return vec!["/bin/sh".into(), "-c".into(), command.into()];
    }
    bytes
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

/// Returns true for `NAME=value ...`, `exec ...` and `. ...`, which no file is called.
fn begins_as_script(command: &[u8]) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let after_name = command.iter().find(|byte| !is_name(byte));
    let first_word = command.split(u8::is_ascii_whitespace).next();
    after_name == Some(&b'=') || matches!(first_word, Some(b"exec" | b"."))
}

/// Signals that are meant for others: a terminal's, or one for all of a name.
const IGNORED_BY_KEEPER: [Signal; 6] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
];
const METACHARACTERS: &[u8] = b"$&*(){}[]'\";\\|?<>~`\n";
const PIPE_SIZE: i32 = 1 << 20;
/// A command that ran this long is started again at once.
const HEALTHY: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(100);
const FINISH_MILLIS: u16 = 5000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_is_used_only_where_something_needs_it() {
        assert_eq!(
            words(OsStr::new("rotatelogs -f  log 1M")),
            ["rotatelogs", "-f", "log", "1M"]
        );
        assert_eq!(
            words(OsStr::new("cat > log")),
            ["/bin/sh", "-c", "cat > log"]
        );
        for script in ["LANG=C cat", "exec cat", ". ./log.sh"] {
            assert_eq!(words(OsStr::new(script)), ["/bin/sh", "-c", script]);
        }
        assert_eq!(words(OsStr::new("execute a=b\n")), ["execute", "a=b"]);
    }
}
