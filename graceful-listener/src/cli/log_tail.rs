use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, tee};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::cli::log;

/// What a log command was given last, for whoever wants to know what a program has
/// said before it failed.
///
/// Who keeps the log writes it into a file in memory; who supervises the program
/// reads it there, together with what is still in the pipe, whenever it likes:
/// neither waits for the other, and each may die.
#[derive(Debug)]
pub(crate) struct LogTail {
    file: File,
    pipe: PipeReader,
}

impl LogTail {
    /// Nothing was given yet of what comes through `pipe`.
    pub(crate) fn new(pipe: &PipeReader) -> io::Result<Self> {
        let file = memfd_create(NAME, MFdFlags::MFD_CLOEXEC)?;
        Self::resume(file, pipe)
    }

    /// Goes on with the file of somebody else.
    pub(crate) fn resume(file: OwnedFd, pipe: &PipeReader) -> io::Result<Self> {
        Ok(Self {
            file: file.into(),
            pipe: pipe.try_clone()?,
        })
    }

    /// Returns how many bytes were written to the pipe since it is there.
    pub(crate) fn written(&self) -> u64 {
        let (record, unread) = self.read();
        record.given + unread.count
    }

    /// Returns the last lines written to the pipe since that was `mark` bytes.
    pub(crate) fn since(&self, mark: u64) -> Vec<String> {
        let (record, unread) = self.read();
        let news = (record.given + unread.count).saturating_sub(mark);
        let mut text = record.last;
        text.extend(unread.last);
        let length = text.len().min(usize::try_from(news).unwrap_or(usize::MAX));
        log::last_lines(&text[text.len().saturating_sub(length.min(MAX))..])
    }

    /// Reads the file and the pipe as they are at one time.
    fn read(&self) -> (Record, Unread) {
        let mut before = Record::read(&self.file);
        for _ in 0..TRIES {
            let unread = Unread::read(&self.pipe);
            let after = Record::read(&self.file);
            if before == after && !before.moving {
                return (before, unread);
            }
            before = after;
            thread::sleep(PAUSE);
        }
        // Whoever moves it has been stopped there, or does nothing else.
        let unread = Unread::read(&self.pipe);
        (before, unread)
    }
}

impl AsFd for LogTail {
    /// Returns the file.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The side of a [`LogTail`] that gives the log command what comes.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: File,
    record: Record,
}

impl Recorder {
    /// Goes on where another one has stopped, or begins.
    pub(crate) fn new(file: OwnedFd) -> Self {
        let file = file.into();
        let record = Record::read(&file);
        Self { file, record }
    }

    /// Takes something out of the pipe, and notes what `take` returns of it.
    pub(crate) fn take<'b>(
        &mut self,
        take: impl FnOnce() -> io::Result<&'b [u8]>,
    ) -> io::Result<usize> {
        self.record.moving = true;
        self.record.write(&self.file)?;
        let taken = take();
        if let Ok(bytes) = &taken {
            self.record.given += bytes.len() as u64;
            keep_last(&mut self.record.last, bytes);
        }
        self.record.moving = false;
        self.record.write(&self.file)?;
        taken.map(<[u8]>::len)
    }
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Record {
    /// Something is neither in the pipe nor here, or in both.
    moving: bool,
    /// How much the command was given.
    given: u64,
    /// The end of that.
    last: Vec<u8>,
}

impl Record {
    fn read(file: &File) -> Self {
        let mut bytes = [0; HEAD + MAX];
        let mut length = 0;
        while let Ok(more @ 1..) = file.read_at(&mut bytes[length..], length as u64) {
            length += more;
        }
        let (head, last) = bytes[..length].split_at(length.min(HEAD));
        let Some((moving, given)) = head.split_first() else {
            return Self::default();
        };
        Self {
            moving: *moving != 0,
            given: given.try_into().map_or(0, u64::from_ne_bytes),
            last: last.to_vec(),
        }
    }

    /// Writes what others find there; it only ever grows.
    fn write(&self, file: &File) -> io::Result<()> {
        let mut bytes = [0; HEAD + MAX];
        bytes[0] = self.moving.into();
        bytes[1..HEAD].copy_from_slice(&self.given.to_ne_bytes());
        let end = HEAD + self.last.len();
        bytes[HEAD..end].copy_from_slice(&self.last);
        file.write_all_at(&bytes[..end], 0)
    }
}

/// What is in the pipe.
#[derive(Debug, Default)]
struct Unread {
    count: u64,
    last: Vec<u8>,
}

impl Unread {
    /// Reads it and leaves it there.
    fn read(pipe: &PipeReader) -> Self {
        let mut unread = Self::default();
        let _ = look(pipe, |bytes| {
            unread.count += bytes.len() as u64;
            keep_last(&mut unread.last, bytes);
        });
        unread
    }
}

/// Shows what is in a pipe, and leaves it there.
fn look(pipe: &PipeReader, mut show: impl FnMut(&[u8])) -> io::Result<()> {
    let (mut copy, writer) = io::pipe()?;
    // Else only the beginning would fit.
    let size = fcntl(pipe, FcntlArg::F_GETPIPE_SZ)?;
    let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(size));
    let mut left = match tee(
        pipe,
        &writer,
        usize::MAX >> 1,
        SpliceFFlags::SPLICE_F_NONBLOCK,
    ) {
        Err(Errno::EAGAIN) => 0,
        other => other?,
    };
    let mut chunk = [0; 4 * MAX];
    while left > 0 {
        let room = left.min(chunk.len());
        let length = copy.read(&mut chunk[..room])?;
        show(&chunk[..length]);
        left -= length;
    }
    Ok(())
}

/// Appends to what is known of the end of something.
fn keep_last(last: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[bytes.len().saturating_sub(MAX)..];
    let surplus = (last.len() + bytes.len()).saturating_sub(MAX);
    last.drain(..surplus);
    last.extend_from_slice(bytes);
}

/// What the file in memory is called where open files are listed.
pub(crate) const NAME: &str = "log-tail";
/// A byte, and a number of eight.
const HEAD: usize = 9;
/// So many of the last bytes are known.
const MAX: usize = log::MAX_OUTPUT as usize;
/// How often it is looked again while something is being moved, which takes the
/// time of two system calls, unless its process has to wait for the processor.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Pair {
        pipe: PipeReader,
        writer: io::PipeWriter,
        tail: LogTail,
        recorder: Recorder,
    }

    impl Pair {
        fn new() -> Self {
            let (pipe, writer) = io::pipe().unwrap();
            let tail = LogTail::new(&pipe).unwrap();
            let recorder = Recorder::new(tail.as_fd().try_clone_to_owned().unwrap());
            Self {
                pipe,
                writer,
                tail,
                recorder,
            }
        }

        fn write(&mut self, text: &str) {
            self.writer.write_all(text.as_bytes()).unwrap();
        }

        fn give(&mut self, count: usize) {
            let mut bytes = vec![0; count];
            let pipe = &mut self.pipe;
            let taken = self.recorder.take(|| {
                pipe.read_exact(&mut bytes)?;
                Ok(&bytes)
            });
            assert_eq!(taken.unwrap(), count);
        }
    }

    #[test]
    fn last_lines_are_known_whether_they_were_given_or_not() {
        let mut pair = Pair::new();
        assert_eq!(pair.tail.since(0), [""; 0]);
        pair.write("one\ntwo\n");
        assert_eq!(pair.tail.since(0), ["one", "two"]);
        pair.give(4);
        assert_eq!(pair.tail.since(0), ["one", "two"]);
        let mark = pair.tail.written();
        assert_eq!(mark, 8);
        pair.write("three\n");
        assert_eq!(pair.tail.since(mark), ["three"]);
        pair.give(10);
        assert_eq!(pair.tail.since(mark), ["three"]);
        assert_eq!(pair.tail.since(0), ["one", "two", "three"]);
    }

    #[test]
    fn next_keeper_goes_on_where_the_last_one_has_stopped() {
        let mut pair = Pair::new();
        pair.write("one\ntwo\n");
        pair.give(8);
        pair.recorder = Recorder::new(pair.tail.as_fd().try_clone_to_owned().unwrap());
        pair.write("three\n");
        pair.give(6);
        assert_eq!(pair.tail.since(4), ["two", "three"]);
    }

    #[test]
    fn keeper_that_died_while_it_moved_something_hides_nothing() {
        let mut pair = Pair::new();
        pair.write("one\n");
        pair.give(4);
        pair.recorder.record.moving = true;
        pair.recorder.record.write(&pair.tail.file).unwrap();
        pair.write("two\n");
        assert_eq!(pair.tail.since(0), ["one", "two"]);
    }

    #[test]
    fn long_output_is_known_from_its_end() {
        let mut pair = Pair::new();
        let text: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        pair.write(&text);
        let expected: Vec<_> = (990..1000).map(|number| format!("line {number}")).collect();
        assert_eq!(pair.tail.since(0), expected);
        pair.give(text.len());
        assert_eq!(pair.tail.since(0), expected);
        assert_eq!(pair.tail.written(), text.len() as u64);
        assert_eq!(pair.tail.since(text.len() as u64), [""; 0]);
    }
}
