use std::time::Instant;

use sqlx::{Error, SqlStr};

use crate::event::{ConnectionId, Event, Failure, Op, Outcome};
use crate::subject::{Interest, Subject};

/// An operation without arguments or rows, from its first poll to its end,
/// which is told exactly once.
pub(crate) struct Operation<'a> {
    subject: &'a Subject,
    interest: Option<Interest>,
    op: Op,
    connection: Option<ConnectionId>,
    statement: Option<SqlStr>,
    started: Instant,
    told: bool,
    #[cfg(feature = "tracing")]
    tracing_span: crate::tracing_span::TracingSpan,
}

impl<'a> Operation<'a> {
    pub(crate) fn begin(subject: &'a Subject, op: Op, connection: Option<ConnectionId>) -> Self {
        Self {
            subject,
            interest: subject.interest(op),
            op,
            connection,
            statement: None,
            started: Instant::now(),
            told: false,
            #[cfg(feature = "tracing")]
            tracing_span: crate::tracing_span::TracingSpan::begin(subject, op, None),
        }
    }

    pub(crate) fn statement(mut self, statement: Option<SqlStr>) -> Self {
        self.statement = statement;
        self
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn on(&mut self, connection: Option<ConnectionId>) {
        self.connection = connection;
    }

    /// Leaves an operation untold that came to nothing.
    pub(crate) fn forget(&mut self) {
        self.told = true;
    }

    pub(crate) fn finish(&mut self, result: Result<(), &Error>) {
        self.tell(match result {
            Ok(()) => Outcome::Ok,
            Err(e) => Outcome::Err(Failure::new(e)),
        });
    }

    fn tell(&mut self, outcome: Outcome<'_>) {
        let Some(interest) = self.interest else {
            return;
        };
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let event = Event {
            connection: self.connection,
            statement: self.statement.as_ref().map(SqlStr::as_str),
            elapsed: Some(self.started.elapsed()),
            ..Event::plain(self.op, &self.subject.target, outcome)
        };
        #[cfg(feature = "tracing")]
        self.tracing_span.end(&event);
        self.subject.finish(interest, &event);
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.tell(Outcome::Cancelled);
    }
}
