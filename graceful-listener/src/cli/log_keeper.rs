use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice, tee};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;

use crate::cli::descriptor;
use crate::cli::failure::reason;
use crate::cli::log::Log;
use crate::cli::log_command::{self, LogCommand, own_output};
use crate::cli::log_tail::Recorder;
use crate::cli::moment::Moment;

/// A process of its own between programs and a log command: it gives the command
/// all they write, starts it again when it ends, and notes the last lines.
///
/// It reads from its standard input, and ends with that. A supervisor that dies or
/// is replaced is none of its concern; and if it dies itself, what it was about to
/// move is still in the one pipe or in the other.
#[derive(Debug)]
struct Keeper {
    source: PipeReader,
    command: LogCommand,
    recorder: Recorder,
    /// A pipe in which is looked at what is moved.
    copy: (PipeReader, PipeWriter),
    /// What was looked at last.
    bytes: Box<[u8; CHUNK]>,
    /// Nobody will write any more.
    ended: bool,
    /// The command was started once more after that.
    hurried: bool,
}

/// How far what has come could be moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Moved {
    /// There is nothing left.
    All,
    /// The command has to read first.
    UntilFull,
    /// There is nothing left, and nothing will come.
    Ended,
}

/// How a program keeps its logs.
#[derive(Debug)]
pub(crate) struct House {
    /// Its name in the lines of the log.
    pub(crate) program: &'static str,
    /// What `ps` and `top` call the process.
    pub(crate) name: &'static CStr,
    /// What the process itself has to say goes through the log command too, as
    /// everything does that the program says.
    pub(crate) is_one_log: bool,
}

impl House {
    /// Keeps the log of which the reading end is our standard input, if these are the
    /// arguments of a process that is to do that.
    pub(crate) fn keep(&self, args: &[OsString]) -> Option<ExitCode> {
        let [_, option, format, command] = args else {
            return None;
        };
        if option != OPTION {
            return None;
        }
        // It is only a name.
        let _ = prctl::set_name(self.name);
        let format = format.to_str().and_then(|text| text.parse().ok());
        let log = Log::new(self.program, format.unwrap_or_default());
        let kept = Keeper::new(command.clone()).and_then(|keeper| keeper.run(&log, self));
        Some(match kept {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                log.line(format_args!("failed to keep a log: {}", reason(&error)));
                ExitCode::FAILURE
            }
        })
    }
}

impl Keeper {
    fn new(command: OsString) -> io::Result<Self> {
        let file = descriptor::inherited(TAIL)?;
        let (reader, writer) = io::pipe()?;
        Ok(Self {
            source: io::stdin().as_fd().try_clone_to_owned()?.into(),
            command: LogCommand::resume(command, reader, writer, own_output()?),
            recorder: Recorder::new(file),
            copy: io::pipe()?,
            bytes: Box::new([0; CHUNK]),
            ended: false,
            hurried: false,
        })
    }

    fn run(mut self, log: &Log, house: &House) -> io::Result<()> {
        let mut teller = PipeWriter::from(descriptor::inherited(TELLER)?);
        match self.command.spawn_command() {
            Ok(process) => self.command.process = Some(process),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(Errno::EINVAL as i32);
                // Who waits for the answer does not want us without a command.
                if teller.write_all(&errno.to_ne_bytes()).is_ok() {
                    return Ok(());
                }
            }
        }
        drop(teller);
        if house.is_one_log {
            descriptor::redirect(&self.command.writer, 2)?;
        }
        while !self.serve(log)? {}
        // Or the command would wait for us.
        descriptor::redirect(&self.command.output[1], 2)?;
        if self.command.process.is_some() {
            self.command.finish_within(PollTimeout::NONE);
        } else {
            let lost = self.lose();
            log.line(format_args!(
                "{lost} bytes of output were lost, as the log command does not run"
            ));
        }
        Ok(())
    }

    /// Does what can be done now, and waits. Returns true if all is done.
    fn serve(&mut self, log: &Log) -> io::Result<bool> {
        self.command.revive(log);
        if self.command.process.is_none() && self.ended && !self.hurried {
            self.hurried = true;
            self.command.hurry();
            self.command.revive(log);
        }
        if self.command.process.is_none() {
            if self.ended {
                return Ok(true);
            }
            self.make_room()?;
            self.wait(PollFlags::empty())?;
            return Ok(false);
        }
        match self.move_on()? {
            Moved::Ended => return Ok(true),
            Moved::All => self.wait(PollFlags::POLLIN)?,
            Moved::UntilFull => self.wait(PollFlags::POLLOUT)?,
        }
        Ok(false)
    }

    /// Moves all that has come into the pipe of the command, as far as it has room.
    fn move_on(&mut self) -> io::Result<Moved> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        loop {
            let length = match tee(&self.source, &self.copy.1, CHUNK, flags) {
                Ok(0) => return Ok(Moved::Ended),
                Ok(length) => length,
                Err(Errno::EAGAIN) => return Ok(Moved::All),
                Err(error) => return Err(error.into()),
            };
            let bytes = &mut self.bytes[..length];
            self.copy.0.read_exact(bytes)?;
            let (source, writer) = (&self.source, &self.command.writer);
            let taken = self.recorder.take(|| {
                let moved = splice(source, None, writer, None, length, flags)?;
                Ok(&bytes[..moved])
            });
            match taken {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Moved::UntilFull);
                }
                other => other?,
            };
        }
    }

    /// Throws away the oldest output if the programs would have to wait for a
    /// command that does not run.
    fn make_room(&mut self) -> io::Result<()> {
        let Some(writer) = writer_of(&self.source) else {
            return Ok(());
        };
        let source = &mut self.source;
        let mut lost = Vec::new();
        let count = self.recorder.take(|| {
            lost = log_command::make_room(source, &writer);
            Ok(&lost)
        })?;
        self.command.thrown_away += count as u64;
        Ok(())
    }

    /// Throws everything away, which nobody adds to, and returns how much it was.
    fn lose(mut self) -> u64 {
        let LogCommand {
            mut reader,
            writer,
            thrown_away,
            ..
        } = self.command;
        drop(writer);
        let left = [&mut reader, &mut self.source]
            .map(|pipe| io::copy(pipe, &mut io::sink()).unwrap_or(0));
        thrown_away + left.iter().sum::<u64>()
    }

    /// Waits until the command has ended or is to be started, or there is something
    /// to read, or room to write.
    fn wait(&mut self, what: PollFlags) -> io::Result<()> {
        let time = match self.command.deadline() {
            None => PollTimeout::NONE,
            Some(at) => {
                let millis = (at - Moment::now()).as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
            }
        };
        let first = if what == PollFlags::POLLOUT {
            self.command.writer.as_fd()
        } else {
            self.source.as_fd()
        };
        let mut ready = vec![PollFd::new(first, what)];
        if let Some(process) = &self.command.process {
            ready.push(PollFd::new(process.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut ready, time) {
            Err(Errno::EINTR) => return Ok(()),
            other => other?,
        };
        let hung_up = ready[0]
            .revents()
            .is_some_and(|now| now.contains(PollFlags::POLLHUP));
        self.ended |= hung_up && what != PollFlags::POLLOUT;
        Ok(())
    }
}

/// Opens the other end of a pipe, and closes it again soon: while it is open, the
/// pipe does not end.
fn writer_of(pipe: &PipeReader) -> Option<File> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let mut options = File::options();
    options.write(true).custom_flags(libc::O_NONBLOCK);
    options.open(path).ok()
}

/// What this program is told to be that.
pub(crate) const OPTION: &str = "--keep-log";
/// Where the last lines are noted.
pub(crate) const TAIL: i32 = 3;
/// Where it is told why the command could not be started, if anybody listens.
pub(crate) const TELLER: i32 = 4;
/// What a pipe holds by default.
const CHUNK: usize = 1 << 16;
