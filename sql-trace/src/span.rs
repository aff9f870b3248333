use std::sync::Mutex;
use std::time::{Duration, Instant};

use sqlx::{Arguments, Either, Error, Execute, SqlStr};

use crate::acquire::Acquire;
use crate::args::{Args, ArgsMode, Held};
use crate::database::{Step, TraceDatabase};
use crate::event::{ConnectionId, Event, Failure, Op, Outcome};
use crate::parts::Parts;
use crate::scope::QueryStats;
use crate::sql::Dialect;
use crate::statement;
use crate::subject::{Interest, Subject};
use crate::watchdog::{Progress, Running, Watched};

/// One statement from its first poll to its end, which is told exactly once:
/// when the driver says how it went, or else when the span is dropped. A
/// statement that is never polled runs nothing, and tells nothing.
pub(crate) struct Span<'a, DB: TraceDatabase> {
    subject: &'a Subject,
    interest: Interest,
    op: Op,
    text: SqlStr,
    args: Bound<DB>,
    request: Option<QueryStats>,
    connection: Option<ConnectionId>,
    /// When it was polled first.
    started: Option<Instant>,
    wait: Wait,
    first_row: Option<Duration>,
    /// Since when the reader of the stream has been busy with a row.
    reading: Option<Instant>,
    consumer: Duration,
    rows: u64,
    affected: u64,
    told: bool,
    #[cfg(feature = "tracing")]
    tracing_span: crate::tracing_span::TracingSpan,
}

enum Bound<DB: TraceDatabase> {
    Here(Held<DB::Captured>),
    /// The watchdog has them.
    Watched(Watched),
}

/// What a statement on a pool waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// It is not on a pool.
    None,
    Waiting,
    Had(Instant),
}

impl Wait {
    /// Takes the time from `started` until `now` apart: waiting for a
    /// connection, and having one.
    pub(crate) fn split(self, started: Instant, now: Instant) -> (Option<Duration>, Duration) {
        match self {
            Self::None => (None, since(now, started)),
            Self::Waiting => (Some(since(now, started)), Duration::ZERO),
            Self::Had(at) => (Some(since(at, started)), since(now, at)),
        }
    }
}

impl<'a, DB: TraceDatabase> Span<'a, DB> {
    /// Makes the span of a statement that `query` is to run.
    #[inline]
    pub(crate) fn of_query<'q, E: Execute<'q, DB>>(
        subject: &'a Subject,
        interest: Interest,
        op: Op,
        query: E,
    ) -> (Self, Parts<DB, E>) {
        let (text, mut parts) = Parts::of(query);
        let args = parts.arguments.as_mut().ok().and_then(Option::as_mut);
        (Self::of_arguments(subject, interest, op, text, args), parts)
    }

    /// Makes the span of a statement that is to run with these arguments.
    #[inline]
    pub(crate) fn of_arguments(
        subject: &'a Subject,
        interest: Interest,
        op: Op,
        text: SqlStr,
        args: Option<&mut DB::Arguments>,
    ) -> Self {
        let shown = interest.told.is_some_and(|mode| mode != ArgsMode::Hidden);
        let args = match args {
            Some(args) if shown && args.len() > 0 => Held::Captured(DB::capture(args)),
            Some(args) => Held::Hidden(args.len()),
            None => Held::Hidden(0),
        };
        Self::new(subject, interest, op, text, args)
    }

    /// Makes the span of work on a statement without arguments, such as
    /// preparing it.
    pub(crate) fn of_text(subject: &'a Subject, interest: Interest, op: Op, text: SqlStr) -> Self {
        Self::new(subject, interest, op, text, Held::None)
    }

    #[inline]
    fn new(
        subject: &'a Subject,
        interest: Interest,
        op: Op,
        text: SqlStr,
        args: Held<DB::Captured>,
    ) -> Self {
        Self {
            subject,
            interest,
            op,
            text,
            args: Bound::Here(args),
            request: None,
            connection: None,
            started: None,
            wait: Wait::None,
            first_row: None,
            reading: None,
            consumer: Duration::ZERO,
            rows: 0,
            affected: 0,
            told: false,
            #[cfg(feature = "tracing")]
            tracing_span: crate::tracing_span::TracingSpan::none(),
        }
    }

    /// The statement runs on this connection.
    #[inline]
    pub(crate) fn on(mut self, connection: Option<ConnectionId>) -> Self {
        self.connection = connection;
        self
    }

    /// The statement must wait for a connection first.
    #[inline]
    pub(crate) fn waiting(mut self) -> Self {
        self.wait = Wait::Waiting;
        self
    }

    /// Notes the first poll; does nothing at later ones.
    #[inline]
    pub(crate) fn start(&mut self) -> Instant {
        if let Some(started) = self.started {
            return started;
        }
        self.request = QueryStats::current();
        #[cfg(feature = "tracing")]
        {
            let text = Some(self.text.as_str());
            self.tracing_span =
                crate::tracing_span::TracingSpan::begin(self.subject, self.op, text);
        }
        let now = Instant::now();
        self.started = Some(now);
        if let (Some(watchdog), Some(_)) = (&self.subject.watchdog, self.interest.told)
            && let Bound::Here(args) = std::mem::replace(&mut self.args, Bound::Here(Held::None))
        {
            self.args = Bound::Watched(watchdog.watch(Running {
                op: self.op,
                text: self.text.clone(),
                args: args.boxed(),
                request: self.request.clone(),
                started: now,
                progress: Mutex::new(Progress::of(self.wait, self.connection)),
            }));
        }
        now
    }

    /// Notes the connection that the pool gave.
    pub(crate) fn acquired(&mut self, acquire: &Acquire) {
        self.wait = Wait::Had(acquire.had().unwrap_or_else(Instant::now));
        self.connection = acquire.connection();
        if let Bound::Watched(watched) = &self.args {
            watched.acquired(self.wait, self.connection);
        }
    }

    /// Notes a step that the reader is about to be handed.
    pub(crate) fn step(&mut self, step: &Step<DB>) {
        let now = Instant::now();
        match step {
            Either::Left(result) => self.result(result),
            Either::Right(_) => self.row(now),
        }
        self.reading = Some(now);
    }

    /// Notes that the reader asks for more.
    pub(crate) fn reader_is_back(&mut self) {
        if let Some(reading) = self.reading.take() {
            self.consumer += reading.elapsed();
        }
    }

    /// Notes a row that stays in our hands.
    pub(crate) fn row_kept(&mut self) {
        if self.rows == 0 {
            self.row(Instant::now());
        } else {
            self.rows += 1;
        }
    }

    fn row(&mut self, now: Instant) {
        self.rows += 1;
        if let (1, Some(started)) = (self.rows, self.started) {
            self.first_row = Some(self.wait.split(started, now).1);
        }
    }

    /// Notes the end of a set of rows.
    pub(crate) fn result(&mut self, result: &DB::QueryResult) {
        self.affected += DB::rows_affected(result);
    }

    /// Tells how a statement that gives at most one row ended: with that row,
    /// if it gave one.
    #[inline]
    pub(crate) fn finish_optional(&mut self, result: Result<bool, &Error>) {
        if let Ok(true) = result {
            self.rows = 1;
        }
        self.finish(result.map(drop));
    }

    /// Tells how the statement ended.
    #[inline]
    pub(crate) fn finish(&mut self, result: Result<(), &Error>) {
        self.tell(match result {
            Ok(()) => Outcome::Ok,
            Err(e) => Outcome::Err(Failure::new(e)),
        });
    }

    fn tell(&mut self, outcome: Outcome<'_>) {
        let (Some(started), false) = (self.started, self.told) else {
            return;
        };
        self.told = true;
        let now = Instant::now();
        if let Some(reading) = self.reading.take() {
            self.consumer += since(now, reading);
        }
        let (acquire, busy) = self.wait.split(started, now);
        let elapsed = busy.saturating_sub(self.consumer);
        if self.rows > 0 && self.first_row.is_none() {
            // The only row, which came with the end.
            self.first_row = Some(elapsed);
        }
        let source = match &self.args {
            Bound::Here(args) => args.source(),
            Bound::Watched(watched) => watched.end(),
        };
        let affected = self.op == Op::Exec
            && matches!(outcome, Outcome::Ok)
            && statement::changes_rows(self.text.as_str(), Dialect::of(self.subject.target.name));
        let mut event = Event {
            connection: self.connection,
            statement: Some(self.text.as_str()),
            args: source.map(Args::of),
            acquire,
            elapsed: Some(elapsed),
            first_row: self.first_row,
            consumer: self.consumer,
            rows_returned: self.rows,
            rows_affected: affected.then_some(self.affected),
            request: self.request.as_ref().map(QueryStats::id),
            ..Event::plain(self.op, &self.subject.target, outcome)
        };
        #[cfg(feature = "tracing")]
        self.tracing_span.end(&event);
        if let Some(mode) = self.interest.told {
            self.subject.tell_in(mode, &mut event);
        }
        if let Some(stats) = &self.request {
            let runs = matches!(self.op, Op::Exec | Op::Query);
            stats.count(self.subject, &event, runs.then_some(&self.text));
        }
        #[cfg(feature = "sqlite")]
        if let Some(plans) = &self.subject.plans {
            plans.consider(&event);
        }
    }
}

impl<DB: TraceDatabase> Drop for Span<'_, DB> {
    fn drop(&mut self) {
        self.tell(Outcome::Cancelled);
    }
}

pub(crate) fn since(later: Instant, earlier: Instant) -> Duration {
    later.saturating_duration_since(earlier)
}
