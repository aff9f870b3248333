use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::Rc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::account::Account;
use crate::failure::reason;
use crate::log::{Log, LogFormat};
use crate::log_keeper;
use crate::log_tail::LogTail;
use crate::moment::Moment;
use crate::process::{Exit, Process, Signal, Spawn};

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
    since: Moment,
    failures: u32,
    retry_at: Option<Moment>,
    pub(crate) thrown_away: u64,
}

impl LogCommand {
    /// Starts the command, as the user that this process is about to become, who alone
    /// can start it again.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be executed, or not as that user.
    pub(crate) fn start(
        command: OsString,
        keep_output: bool,
        account: Option<&Account>,
    ) -> io::Result<Self> {
        let (reader, writer) = large_pipe()?;
        let output = if keep_output {
            own_output()?
        } else {
            let null = || {
                OpenOptions::new()
                    .write(true)
                    .open("/dev/null")
                    .map(OwnedFd::from)
            };
            [null()?, null()?]
        };
        let mut log = Self::resume(command, reader, writer, output);
        log.process = Some(log.spawn(&log.command_itself(), account)?);
        Ok(log)
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

    /// Goes on with a pipe that was kept across exec, and no command yet.
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
            since: Moment::now(),
            failures: 0,
            retry_at: None,
            thrown_away: 0,
        }
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
        let what = match self.tail {
            Some(_) => "keeper of log command",
            None => "log command",
        };
        if let Some(Some(exit)) = ended {
            self.process = None;
            if self.since.elapsed() >= HEALTHY {
                self.failures = 0;
            }
            self.failures += 1;
            let pause = if self.failures == 1 {
                Duration::ZERO
            } else {
                HEALTHY * (1 << (self.failures - 2).min(6))
            };
            self.retry_at = Some(Moment::now() + pause.min(MAX_PAUSE));
            log.line(format_args!(
                "{what} {exit}, starting it again: {}",
                self.command.display()
            ));
        }
        if self.process.is_some() || self.retry_at.is_some_and(|at| at > Moment::now()) {
            return false;
        }
        let words = match self.tail {
            Some(_) => self.keeper(log.format()),
            None => self.command_itself(),
        };
        match self.spawn(&words, None) {
            Ok(process) => {
                (self.since, self.retry_at) = (Moment::now(), None);
                self.process = Some(process);
                let lost = std::mem::take(&mut self.thrown_away);
                if lost > 0 {
                    log.line(format_args!(
                        "{lost} bytes of output were lost while the log command did not run"
                    ));
                }
                true
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let pause = MAX_PAUSE.min(HEALTHY * (1 << self.failures.min(6)));
                self.retry_at = Some(Moment::now() + pause);
                log.line(format_args!(
                    "failed to execute {what} {}: {}, trying again after {} secs",
                    self.command.display(),
                    reason(&error),
                    pause.as_secs()
                ));
                false
            }
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

    fn command_itself(&self) -> Vec<OsString> {
        words(&self.command)
    }

    /// Returns how this program is called to keep the log.
    fn keeper(&self, format: LogFormat) -> Vec<OsString> {
        // Also when there is another one, or none, under its name.
        let program = "/proc/self/exe".into();
        let option = format!("--{}", log_keeper::OPTION).into();
        vec![
            program,
            option,
            format.to_string().into(),
            self.command.clone(),
        ]
    }

    fn spawn(&self, words: &[OsString], account: Option<&Account>) -> io::Result<Process> {
        let env: Vec<_> = std::env::vars_os().collect();
        let [program, args @ ..] = words else {
            let empty = "the command is empty";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, empty));
        };
        let mut descriptors: Vec<(BorrowedFd<'_>, i32)> = vec![
            (self.reader.as_fd(), 0),
            (self.output[0].as_fd(), 1),
            (self.output[1].as_fd(), 2),
        ];
        let mut spawn = Spawn::new(program, args, &env);
        if let Some(tail) = &self.tail {
            descriptors.push((tail.as_fd(), log_keeper::TAIL));
            // It ends with those who write, which is later.
            spawn.ignored_signals = &[Signal::HUP, Signal::INT, Signal::TERM];
        }
        spawn.descriptors = &descriptors;
        spawn.account = account;
        Ok(spawn.spawn()?)
    }
}

/// Throws away the oldest of what is in a pipe if it is full and nobody reads it,
/// and returns that.
pub(crate) fn make_room(reader: &mut PipeReader, writer: impl AsFd) -> Vec<u8> {
    let mut full = [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut full, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
        return Vec::new();
    }
    let mut chunk = vec![0; PIPE_SIZE as usize / 4];
    // The pipe is full, so this does not wait.
    let length = reader.read(&mut chunk).unwrap_or(0);
    chunk.truncate(length);
    chunk
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
