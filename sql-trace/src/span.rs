use std::time::{Duration, Instant};

use sqlx::{Arguments, Either, Error, Execute, SqlStr};

use crate::acquire::Acquire;
use crate::args::{ArgSource, Args, ArgsMode, Source};
use crate::database::{Step, TraceDatabase};
use crate::event::{ConnectionId, Event, Failure, Op, Outcome};
use crate::parts::Parts;
use crate::statement;
use crate::subject::Subject;
use crate::tracer::Tracer;

/// One statement from its first poll to its end, which is told exactly once:
/// when the driver says how it went, or else when the span is dropped.
pub(crate) struct Span<'a, DB: TraceDatabase> {
    subject: &'a Subject,
    op: Op,
    text: SqlStr,
    args: Bound<DB>,
    connection: Option<ConnectionId>,
    started: Instant,
    /// When the connection was had, for a statement on a pool.
    wait: Wait,
    first_row: Option<Duration>,
    /// Since when the reader of the stream has been busy with a row.
    reading: Option<Instant>,
    consumer: Duration,
    rows: u64,
    affected: u64,
    told: bool,
}

enum Bound<DB: TraceDatabase> {
    /// The operation has no arguments, such as preparing.
    None,
    Hidden(usize),
    Captured(DB::Captured),
}

#[derive(Clone, Copy)]
enum Wait {
    /// Not on a pool.
    None,
    Waiting,
    Had(Instant),
}

impl<'a, DB: TraceDatabase> Span<'a, DB> {
    /// Begins a statement that `query` is to run.
    pub(crate) fn of_query<'q, E: Execute<'q, DB>>(
        subject: &'a Subject,
        op: Op,
        query: E,
    ) -> (Self, Parts<DB, E>) {
        let (text, mut parts) = Parts::of(query);
        let args = match (&mut parts.arguments, subject.tracer.args_mode()) {
            (Ok(Some(args)), ArgsMode::Hidden) => Bound::Hidden(args.len()),
            (Ok(Some(args)), _) if args.len() > 0 => Bound::Captured(DB::capture(args)),
            _ => Bound::Hidden(0),
        };
        (Self::begin(subject, op, text, args), parts)
    }

    /// Begins work on a statement without arguments, such as preparing it.
    pub(crate) fn of_text(subject: &'a Subject, op: Op, text: SqlStr) -> Self {
        Self::begin(subject, op, text, Bound::None)
    }

    fn begin(subject: &'a Subject, op: Op, text: SqlStr, args: Bound<DB>) -> Self {
        Self {
            subject,
            op,
            text,
            args,
            connection: None,
            started: Instant::now(),
            wait: Wait::None,
            first_row: None,
            reading: None,
            consumer: Duration::ZERO,
            rows: 0,
            affected: 0,
            told: false,
        }
    }

    pub(crate) fn on(mut self, connection: Option<ConnectionId>) -> Self {
        self.connection = connection;
        self
    }

    /// The statement must wait for a connection first.
    pub(crate) fn waiting(mut self) -> Self {
        self.wait = Wait::Waiting;
        self
    }

    /// The wait for a connection, which begins with the statement.
    pub(crate) fn acquire(&self) -> Acquire {
        Acquire::begun_at(self.started)
    }

    /// Notes the connection that the pool gave.
    pub(crate) fn acquired(&mut self, acquire: &Acquire) {
        self.wait = Wait::Had(acquire.had().unwrap_or_else(Instant::now));
        self.connection = acquire.connection();
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
        if self.rows == 1 {
            self.first_row = Some(since(now, self.origin()));
        }
    }

    /// Notes the end of a set of rows.
    pub(crate) fn result(&mut self, result: &DB::QueryResult) {
        self.affected += DB::rows_affected(result);
    }

    /// Tells how a statement that gives at most one row ended.
    pub(crate) fn finish_optional(&mut self, result: &Result<Option<DB::Row>, Error>) {
        let now = Instant::now();
        match result {
            Ok(row) => {
                if row.is_some() {
                    self.row(now);
                }
                self.tell(now, Outcome::Ok);
            }
            Err(e) => self.tell(now, Outcome::Err(Failure::new(e))),
        }
    }

    /// Tells how the statement ended.
    pub(crate) fn finish(&mut self, result: Result<(), &Error>) {
        let outcome = match result {
            Ok(()) => Outcome::Ok,
            Err(e) => Outcome::Err(Failure::new(e)),
        };
        self.tell(Instant::now(), outcome);
    }

    /// Since when the database has been at work.
    fn origin(&self) -> Instant {
        match self.wait {
            Wait::Had(at) => at,
            Wait::None | Wait::Waiting => self.started,
        }
    }

    fn tell(&mut self, now: Instant, outcome: Outcome<'_>) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        if let Some(reading) = self.reading.take() {
            self.consumer += since(now, reading);
        }
        let (acquire, elapsed) = match self.wait {
            Wait::None => (None, since(now, self.started)),
            Wait::Waiting => (Some(since(now, self.started)), Duration::ZERO),
            Wait::Had(at) => (Some(since(at, self.started)), since(now, at)),
        };
        let args = match &self.args {
            Bound::None => None,
            Bound::Hidden(len) => Some(Source::Hidden(*len)),
            Bound::Captured(captured) => Some(Source::Captured(captured as &dyn ArgSource)),
        };
        let affected = self.op == Op::Exec
            && matches!(outcome, Outcome::Ok)
            && statement::changes_rows(self.text.as_str());
        self.subject.tell(&Event {
            connection: self.connection,
            statement: Some(self.text.as_str()),
            args: args.map(|source| Args {
                source,
                mode: ArgsMode::Kinds,
            }),
            acquire,
            elapsed: Some(elapsed.saturating_sub(self.consumer)),
            first_row: self.first_row,
            consumer: self.consumer,
            rows_returned: self.rows,
            rows_affected: affected.then_some(self.affected),
            ..Event::plain(self.op, &self.subject.target, outcome)
        });
    }
}

impl<DB: TraceDatabase> Drop for Span<'_, DB> {
    fn drop(&mut self) {
        if !self.told {
            self.tell(Instant::now(), Outcome::Cancelled);
        }
    }
}

fn since(later: Instant, earlier: Instant) -> Duration {
    later.saturating_duration_since(earlier)
}
