use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};

/// Standard input, by whole lines.
pub(crate) struct Input<'a> {
    wake: &'a UnixStream,
    buffer: Vec<u8>,
    /// How much of the buffer is read, and how much of that was handed out.
    filled: usize,
    used: usize,
    ended: bool,
}

/// What there is next.
pub(crate) enum Next<'a> {
    /// Whole lines.
    Lines(&'a [u8]),
    /// A line that does not fit the buffer: its parts are to be asked for.
    LongLine,
    /// The last line, which may have no end or not be there at all.
    End(&'a [u8]),
    /// A signal came.
    Signal,
}

impl<'a> Input<'a> {
    pub(crate) fn new(wake: &'a UnixStream) -> Self {
        Self {
            wake,
            buffer: vec![0; FIRST_BUFFER],
            filled: 0,
            used: 0,
            ended: false,
        }
    }

    /// Waits for whole lines, the end, or a signal.
    pub(crate) fn next(&mut self) -> io::Result<Next<'_>> {
        self.shift();
        if self.filled == self.buffer.len() {
            if self.buffer.len() >= LONGEST_LINE {
                return Ok(Next::LongLine);
            }
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        if !self.wait()? {
            return Ok(Next::Signal);
        }
        let before = self.filled;
        self.fill()?;
        if self.ended {
            return Ok(Next::End(self.rest()));
        }
        let end = self.buffer[before..self.filled]
            .iter()
            .rposition(|&byte| byte == b'\n');
        self.used = end.map_or(0, |end| before + end + 1);
        Ok(Next::Lines(&self.buffer[..self.used]))
    }

    /// Returns the next part of a long line, `None` after its end.
    pub(crate) fn part(&mut self) -> io::Result<Option<&[u8]>> {
        if self.used > 0 && self.buffer[self.used - 1] == b'\n' {
            return Ok(None);
        }
        if self.used == self.filled {
            (self.used, self.filled) = (0, 0);
            while self.filled == 0 && !self.ended {
                // Signals are seen to after the line.
                self.wait()?;
                self.fill()?;
            }
        }
        let from = self.used;
        let end = self.buffer[from..self.filled]
            .iter()
            .position(|&byte| byte == b'\n');
        self.used = end.map_or(self.filled, |end| from + end + 1);
        Ok((self.used > from).then_some(&self.buffer[from..self.used]))
    }

    /// Returns what was read and not handed out yet.
    pub(crate) fn rest(&mut self) -> &[u8] {
        let from = std::mem::replace(&mut self.used, self.filled);
        &self.buffer[from..self.filled]
    }

    /// Moves what was not handed out yet to the beginning.
    fn shift(&mut self) {
        self.buffer.copy_within(self.used..self.filled, 0);
        self.filled -= self.used;
        self.used = 0;
    }

    /// Waits until there is something to read. `false` when a signal came instead.
    fn wait(&mut self) -> io::Result<bool> {
        let stdin = io::stdin();
        let mut wanted = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::new(self.wake, PollFlags::IN),
        ];
        match poll(&mut wanted, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        if wanted[1].revents().is_empty() {
            return Ok(true);
        }
        let mut bytes = [0; 64];
        while matches!((&mut &*self.wake).read(&mut bytes), Ok(1..)) {}
        Ok(false)
    }

    fn fill(&mut self) -> io::Result<()> {
        let stdin = io::stdin();
        match rustix::io::read(&stdin, &mut self.buffer[self.filled..]) {
            Ok(0) => self.ended = true,
            Ok(length) => self.filled += length,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => {
                let told = format!("cannot read standard input: {error}");
                return Err(io::Error::new(error.kind(), told));
            }
        }
        Ok(())
    }
}

const FIRST_BUFFER: usize = 64 * 1024;

/// A line up to this is put together before it is written.
const LONGEST_LINE: usize = 1024 * 1024;
