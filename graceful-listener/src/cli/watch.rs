use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::cli::moment::Moment;
use crate::cli::process::Signal;

/// Waits for signals, ended processes, readable descriptors and a deadline, all
/// in one place, and sleeps until one of them is there.
///
/// The signals are blocked and read from a descriptor, so none is lost between
/// two waits, nor across an `exec`; a process started from here unblocks them for
/// itself.
#[derive(Debug)]
pub(crate) struct Watch {
    epoll: Epoll,
    signals: SignalFd,
}

/// What [`Watch::wait`] saw.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// A signal arrived; several of one kind count as one.
    Signal(Signal),
    /// The descriptor added under this key is readable, or at its end.
    Readable(u64),
}

impl Watch {
    /// Blocks the [`WATCHED`] signals for the process and starts to watch them.
    pub(crate) fn new() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in WATCHED {
            set.add(nix::sys::signal::Signal::try_from(signal.number())?);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        Ok(Self { epoll, signals })
    }

    /// Watches a descriptor under `key`, which has to be below [`u64::MAX`], until its
    /// last copy is closed.
    pub(crate) fn add(&self, fd: impl AsFd, key: u64) -> io::Result<()> {
        debug_assert_ne!(key, SIGNALS);
        Ok(self
            .epoll
            .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, key))?)
    }

    /// Watches the descriptor no longer.
    pub(crate) fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    /// Watches what is added under `key` only for its being hung up.
    pub(crate) fn await_hang_up(&self, fd: impl AsFd, key: u64) -> io::Result<()> {
        let mut event = EpollEvent::new(EpollFlags::empty(), key);
        Ok(self.epoll.modify(fd, &mut event)?)
    }

    /// Waits until something happens or the deadline has come, and puts what
    /// happened into `events`.
    pub(crate) fn wait(&self, deadline: Option<Moment>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        let mut ready = [EpollEvent::empty(); 64];
        let count = loop {
            match self.epoll.wait(&mut ready, timeout(deadline)) {
                Ok(count) => break count,
                // A stopped and continued process sees this.
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        for event in &ready[..count] {
            if event.data() == SIGNALS {
                self.read_signals(events)?;
            } else {
                events.push(Event::Readable(event.data()));
            }
        }
        Ok(())
    }

    fn read_signals(&self, events: &mut Vec<Event>) -> io::Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
            events.extend(Signal::from_number(number).map(Event::Signal));
        }
        Ok(())
    }
}

/// Rounded up: a wait that ends early would have to be waited again.
fn timeout(deadline: Option<Moment>) -> EpollTimeout {
    let Some(deadline) = deadline else {
        return EpollTimeout::NONE;
    };
    let left = deadline - Moment::now();
    let millis = left.as_nanos().div_ceil(1_000_000);
    // Longer than the kernel can count: wake up once in between.
    EpollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::MAX)
}

const SIGNALS: u64 = u64::MAX;

/// Everything that must not kill a supervisor.
const WATCHED: [Signal; 11] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::ALRM,
    Signal::USR1,
    Signal::USR2,
    Signal::CHLD,
    Signal::TTIN,
    Signal::TTOU,
    Signal::WINCH,
];
