use std::time::Instant;

use sqlx::{Error, SqlStr};

use crate::event::{ConnectionId, Event, Failure, Op, Outcome};
use crate::subject::Subject;

/// An operation without arguments or rows, from its first poll to its end,
/// which is told exactly once.
pub(crate) struct Operation<'a> {
    subject: &'a Subject,
    op: Op,
    connection: Option<ConnectionId>,
    statement: Option<SqlStr>,
    started: Instant,
    told: bool,
}

impl<'a> Operation<'a> {
    pub(crate) fn begin(subject: &'a Subject, op: Op, connection: Option<ConnectionId>) -> Self {
        Self {
            subject,
            op,
            connection,
            statement: None,
            started: Instant::now(),
            told: false,
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
        if !std::mem::replace(&mut self.told, true) {
            self.subject.tell_if_enabled(&Event {
                connection: self.connection,
                statement: self.statement.as_ref().map(SqlStr::as_str),
                elapsed: Some(self.started.elapsed()),
                ..Event::plain(self.op, &self.subject.target, outcome)
            });
        }
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.tell(Outcome::Cancelled);
    }
}
