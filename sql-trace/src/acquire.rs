//! What happens inside the pool between asking it for a connection and having
//! one: the pool's hooks run inside the poll of the task that asks, and find
//! in a thread-local what that task wants to know.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use sqlx::Error;

use crate::event::{ConnectionId, Event, Failure, Op, Outcome};
use crate::subject::Subject;

/// One wait for a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acquire {
    pub(crate) started: Instant,
    /// The beginning of the present poll.
    pub(crate) polled: Instant,
    /// Since when the next connection may have been being opened.
    opening: Instant,
    /// When a hook last saw a connection that was about to be handed out, and
    /// which.
    had: Option<(Instant, Option<ConnectionId>)>,
}

impl Acquire {
    pub(crate) fn begin() -> Self {
        Self::begun_at(Instant::now())
    }

    pub(crate) fn begun_at(started: Instant) -> Self {
        Self {
            started,
            polled: started,
            opening: started,
            had: None,
        }
    }

    /// Runs a future that takes a connection from the pool.
    pub(crate) fn run<F: Future>(&mut self, future: F) -> Acquiring<'_, F> {
        Acquiring {
            future,
            acquire: self,
            again: false,
        }
    }

    /// When the connection was had; `None` if no hook saw it.
    pub(crate) fn had(&self) -> Option<Instant> {
        self.had.map(|(at, _)| at)
    }

    pub(crate) fn connection(&self) -> Option<ConnectionId> {
        self.had.and_then(|(_, id)| id)
    }

    /// Tells of an attempt to open a connection that failed.
    pub(crate) fn tell_failed_open(&self, subject: &Subject, error: &Error) {
        subject.tell_if_enabled(&Event {
            elapsed: Some(self.opening.elapsed()),
            ..Event::plain(Op::Open, &subject.target, Outcome::Err(Failure::new(error)))
        });
    }

    /// The same, if the error of waiting on the pool is one of opening.
    pub(crate) fn tell_if_failed_open(&self, subject: &Subject, error: &Error) {
        if !matches!(error, Error::PoolTimedOut | Error::PoolClosed) {
            self.tell_failed_open(subject, error);
        }
    }
}

pin_project! {
    /// A future that takes a connection from the pool.
    ///
    /// Not an `async` block around the pool's future: that would hold it twice,
    /// and it is large.
    pub(crate) struct Acquiring<'a, F> {
        #[pin]
        future: F,
        acquire: &'a mut Acquire,
        again: bool,
    }
}

impl<F: Future> Future for Acquiring<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if std::mem::replace(this.again, true) {
            this.acquire.polled = Instant::now();
        }
        let _entered = Entered::enter(this.acquire);
        this.future.poll(cx)
    }
}

thread_local!(static CURRENT: Cell<Option<Acquire>> = const { Cell::new(None) });

/// Puts an acquire into the thread-local for one poll, and takes it back.
struct Entered<'a> {
    acquire: &'a mut Acquire,
    outer: Option<Acquire>,
}

impl<'a> Entered<'a> {
    fn enter(acquire: &'a mut Acquire) -> Self {
        let outer = CURRENT.replace(Some(*acquire));
        Self { acquire, outer }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if let Some(acquire) = CURRENT.replace(self.outer) {
            *self.acquire = acquire;
        }
    }
}

/// The wait that the present poll belongs to.
pub(crate) fn current() -> Option<Acquire> {
    CURRENT.get()
}

/// Notes that a connection is about to be handed out.
pub(crate) fn note_had(at: Instant, id: Option<ConnectionId>) {
    if let Some(acquire) = CURRENT.get() {
        CURRENT.set(Some(Acquire {
            had: Some((at, id)),
            ..acquire
        }));
    }
}

/// The time that opening a connection took, at its end.
///
/// sqlx has no hook at the beginning of opening, so that is taken for the time
/// since the pool was asked, or had opened the connection before this one. It
/// includes a wait for a free place in the pool, should there have been one,
/// and earlier attempts that were refused.
pub(crate) fn opened() -> Option<Duration> {
    let acquire = CURRENT.get()?;
    let now = Instant::now();
    CURRENT.set(Some(Acquire {
        opening: now,
        ..acquire
    }));
    Some(now.saturating_duration_since(acquire.opening))
}
