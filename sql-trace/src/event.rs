use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::args::{Args, ArgsMode};
use crate::line;

/// One operation on a database, told to a [`Tracer`](crate::Tracer) at its end.
///
/// `Display` writes the line that [`writer`](crate::writer) logs. Neither it
/// nor `Debug` shows more of bound values than the tracer's [`ArgsMode`]
/// allows.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Event<'a> {
    /// What was done.
    pub op: Op,
    /// Where it was done.
    pub database: &'a Target,
    /// The connection it was done on, where that is known for sure.
    ///
    /// `None` before a connection was had, for pools not made by
    /// [`TracedPoolOptions`](crate::TracedPoolOptions), for
    /// [`try_acquire`](crate::TracedPool::try_acquire), and in the rare case
    /// that two connections opened within the same few microseconds cannot be
    /// told apart.
    pub connection: Option<ConnectionId>,
    /// The statement's text, for operations that have one.
    pub statement: Option<&'a str>,
    /// The bound arguments; `Some` and empty for a statement without any.
    pub args: Option<Args<'a>>,
    /// How the operation ended.
    pub outcome: Outcome<'a>,
    /// Time spent waiting for a connection, for operations on a pool.
    pub acquire: Option<Duration>,
    /// Time the operation took, without [`acquire`](Self::acquire) and
    /// without [`consumer`](Self::consumer).
    ///
    /// `None` for an [`Op::Open`] that the pool's own maintenance task did:
    /// its beginning is not seen.
    pub elapsed: Option<Duration>,
    /// Time from having the connection until the first row arrived.
    pub first_row: Option<Duration>,
    /// Time between two polls in which the reader of a stream was busy with a
    /// row, and the database waited.
    pub consumer: Duration,
    /// Rows that were returned.
    pub rows_returned: u64,
    /// Rows that were changed: for an [`Op::Exec`] of `INSERT`, `UPDATE`,
    /// `DELETE`, `REPLACE` or `MERGE` only, as drivers report left-overs or
    /// other counts for the rest.
    pub rows_affected: Option<u64>,
    /// The id given to the [`trace_scope`](crate::trace_scope) it ran in.
    pub request: Option<&'a str>,
    /// The place in the program that waited for it, if `Tracer::caller` was
    /// asked to find it.
    pub caller: Option<Caller<'a>>,
    /// The query plan, for [`Op::Plan`].
    pub plan: Option<&'a str>,
    /// What [`Op::Untraced`] and [`Op::Repeated`] are about.
    pub note: Option<&'a str>,
}

impl<'a> Event<'a> {
    /// An event of an operation without statement, rows or waiting.
    pub(crate) fn plain(op: Op, database: &'a Target, outcome: Outcome<'a>) -> Self {
        Self {
            op,
            database,
            connection: None,
            statement: None,
            args: None,
            outcome,
            acquire: None,
            elapsed: Some(Duration::ZERO),
            first_row: None,
            consumer: Duration::ZERO,
            rows_returned: 0,
            rows_affected: None,
            request: None,
            caller: None,
            plan: None,
            note: None,
        }
    }

    /// Time that the caller waited for the database side: for a connection,
    /// and for the operation itself.
    ///
    /// This is what [`slow`](crate::Tracer::slow) compares.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.acquire.unwrap_or_default() + self.elapsed.unwrap_or_default()
    }

    /// How much it matters to somebody who looks after the service.
    #[cfg(any(feature = "log", feature = "tracing"))]
    pub(crate) fn severity(&self, slow: Duration) -> Severity {
        match self.outcome {
            Outcome::Err(_) | Outcome::Running => Severity::Warning,
            Outcome::Cancelled => Severity::Notice,
            Outcome::Ok | Outcome::OnDrop => match self.op {
                Op::Plan | Op::Repeated => Severity::Warning,
                Op::Untraced => Severity::Notice,
                _ if self.waited() >= slow => Severity::Warning,
                _ => Severity::Usual,
            },
        }
    }

    /// Puts the event under another tracer's mode.
    pub(crate) fn set_mode(&mut self, mode: ArgsMode) {
        if let Some(args) = &mut self.args {
            args.mode = mode;
        }
        if let Outcome::Err(failure) = &mut self.outcome {
            failure.mode = mode;
        }
    }

    /// The same event under another tracer's mode.
    pub(crate) fn with_mode(mut self, mode: ArgsMode) -> Self {
        self.set_mode(mode);
        self
    }
}

/// The line of [`writer`](crate::writer), without its end of line.
impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line::Style::default().write(f, self)
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("op", &self.op)
            .field("database", &self.database.name)
            .field("connection", &self.connection)
            .field("statement", &self.statement)
            .field("args", &self.args)
            .field("outcome", &self.outcome)
            .field("acquire", &self.acquire)
            .field("elapsed", &self.elapsed)
            .field("first_row", &self.first_row)
            .field("consumer", &self.consumer)
            .field("rows_returned", &self.rows_returned)
            .field("rows_affected", &self.rows_affected)
            .field("request", &self.request)
            .field("caller", &self.caller)
            .field("plan", &self.plan)
            .field("note", &self.note)
            .finish()
    }
}

/// What makes the level of a log record.
#[cfg(any(feature = "log", feature = "tracing"))]
pub(crate) enum Severity {
    Usual,
    Notice,
    Warning,
}

/// What an [`Event`] tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// A connection was opened.
    Open,
    /// A connection was asked of a pool by `acquire` or `begin`. Statements
    /// run on the pool itself carry the wait in [`Event::acquire`] instead.
    Acquire,
    /// A statement was prepared explicitly.
    Prepare,
    /// A statement ran by `execute` or `execute_many`.
    Exec,
    /// A statement ran by one of the `fetch` methods.
    Query,
    /// A statement was described, as the `query!` macros do.
    Describe,
    /// A transaction began.
    Begin,
    /// A transaction was committed.
    Commit,
    /// A transaction was rolled back.
    Rollback,
    /// A transaction inside a transaction began.
    Savepoint,
    /// A transaction inside a transaction was committed.
    Release,
    /// A transaction inside a transaction was rolled back.
    RollbackTo,
    /// A connection was tested. That a pool tests one before it hands it out is
    /// not seen.
    Ping,
    /// A connection or a pool was closed. That a pool closes one, for its age or
    /// because of `close_on_drop`, is not seen.
    Close,
    /// The query plan of a slow statement was asked for.
    Plan,
    /// A statement has run more often in one [scope](crate::trace_scope) than
    /// it should. [`Event::note`] says how often; it is told once.
    Repeated,
    /// Something was handed out that works on the database unseen: a raw
    /// connection or pool of sqlx. [`Event::note`] says what.
    Untraced,
}

impl Op {
    /// The name, as it stands at the beginning of a line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "Open",
            Self::Acquire => "Acquire",
            Self::Prepare => "Prepare",
            Self::Exec => "Exec",
            Self::Query => "Query",
            Self::Describe => "Describe",
            Self::Begin => "Begin",
            Self::Commit => "Commit",
            Self::Rollback => "Rollback",
            Self::Savepoint => "Savepoint",
            Self::Release => "Release",
            Self::RollbackTo => "RollbackTo",
            Self::Ping => "Ping",
            Self::Close => "Close",
            Self::Plan => "Plan",
            Self::Repeated => "Repeated",
            Self::Untraced => "Untraced",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// It was done.
    Ok,
    /// It failed.
    Err(Failure<'a>),
    /// Its future or stream was dropped before the end, by a timeout, a
    /// `select!`, or a reader that had seen enough.
    Cancelled,
    /// It was left to the driver, because a transaction or connection was
    /// dropped: the driver does the work later, and nobody sees how it went.
    OnDrop,
    /// It has not ended: the
    /// [watchdog](crate::TracedPoolOptions::still_running) tells that it is
    /// still running. The same operation is told again at its end.
    Running,
}

impl<'a> Outcome<'a> {
    /// `ok`, `error`, `cancelled`, `on_drop` or `running`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Err(_) => "error",
            Self::Cancelled => "cancelled",
            Self::OnDrop => "on_drop",
            Self::Running => "running",
        }
    }

    /// The error, if it failed.
    #[must_use]
    pub fn failure(&self) -> Option<Failure<'a>> {
        match self {
            Self::Err(failure) => Some(*failure),
            _ => None,
        }
    }
}

/// The error of a failed operation, shown as far as the tracer's [`ArgsMode`]
/// allows.
///
/// Error texts of databases quote values (`invalid input syntax for type
/// integer: "hunter2"`), so that only [`ArgsMode::Values`] shows them. In the
/// other modes `Display` writes the code alone: `SQLSTATE 23505` for
/// PostgreSQL, `SQLSTATE 23000 (1062)` for MySQL and MariaDB, `SQLite 2067`,
/// or the kind of error for those that no database reported.
#[derive(Clone, Copy)]
pub struct Failure<'a> {
    error: &'a sqlx::Error,
    mode: ArgsMode,
}

impl<'a> Failure<'a> {
    pub(crate) fn new(error: &'a sqlx::Error) -> Self {
        Self {
            error,
            mode: ArgsMode::Kinds,
        }
    }

    /// The code that the database gave: the SQLSTATE, or SQLite's extended
    /// result code.
    #[must_use]
    pub fn code(&self) -> Option<Cow<'a, str>> {
        let code = self.error.as_database_error()?.code()?;
        // A code that does not look like one could be text from elsewhere.
        code.bytes()
            .all(|b| b.is_ascii_alphanumeric())
            .then_some(code)
    }

    /// The error as sqlx gave it to the caller, whose texts may quote bound
    /// values.
    #[must_use]
    pub fn error(&self) -> &'a sqlx::Error {
        self.error
    }

    /// A short name of the kind of error that never holds a value.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.error {
            sqlx::Error::Database(_) => "database error",
            sqlx::Error::Configuration(_) => "configuration error",
            sqlx::Error::InvalidArgument(_) => "invalid argument",
            sqlx::Error::Io(_) => "i/o error",
            sqlx::Error::Tls(_) => "TLS error",
            sqlx::Error::Protocol(_) => "protocol error",
            sqlx::Error::RowNotFound => "row not found",
            sqlx::Error::TypeNotFound { .. } => "type not found",
            sqlx::Error::ColumnIndexOutOfBounds { .. } => "column index out of bounds",
            sqlx::Error::ColumnNotFound(_) => "column not found",
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => "decode error",
            sqlx::Error::Encode(_) => "encode error",
            sqlx::Error::AnyDriverError(_) => "any driver error",
            sqlx::Error::PoolTimedOut => "pool timed out",
            sqlx::Error::PoolClosed => "pool closed",
            sqlx::Error::WorkerCrashed => "worker crashed",
            sqlx::Error::InvalidSavePointStatement => "begin_with inside a transaction",
            sqlx::Error::BeginFailed => "begin failed",
            _ => "other error",
        }
    }

    fn write_code(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.error, self.code()) {
            (sqlx::Error::Database(e), Some(code)) => {
                #[cfg(feature = "mysql")]
                if let Some(e) = e.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
                    return write!(f, "SQLSTATE {code} ({})", e.number());
                }
                #[cfg(feature = "sqlite")]
                if e.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
                    return write!(f, "SQLite {code}");
                }
                let _ = e;
                write!(f, "SQLSTATE {code}")
            }
            // A kind of I/O error is one of a fixed set of words.
            (sqlx::Error::Io(e), _) => write!(f, "{}", e.kind()),
            _ => f.write_str(self.kind()),
        }
    }
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.mode, self.error) {
            (ArgsMode::Values { .. }, sqlx::Error::Database(e)) => {
                self.write_code(f)?;
                write!(f, ": {}", e.message())
            }
            (ArgsMode::Values { .. }, e) => write!(f, "{e}"),
            _ => self.write_code(f),
        }
    }
}

impl fmt::Debug for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({:?})", self.to_string())
    }
}

/// The database that an [`Event`] happened on, as far as the connection
/// options tell it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Target {
    /// sqlx's name of the database system: `SQLite`, `PostgreSQL`, `MySQL`.
    pub name: &'static str,
    /// The database: a name, or the file for SQLite.
    pub namespace: Option<String>,
    /// The server's host name, address or socket.
    pub address: Option<String>,
    /// The server's port.
    pub port: Option<u16>,
}

/// A connection's number: counted from 1 in the order of opening, in this
/// process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u64);

impl ConnectionId {
    /// The number itself.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A place in the program's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller<'a> {
    /// The file, as the compiler was told of it.
    pub file: &'a str,
    /// The line, counted from 1.
    pub line: u32,
}

impl fmt::Display for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    /// An error of a driver that is none of sqlx's own.
    #[derive(Debug)]
    struct Foreign(&'static str);

    impl fmt::Display for Foreign {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("hunter2")
        }
    }

    impl Error for Foreign {}

    impl DatabaseError for Foreign {
        fn message(&self) -> &str {
            "hunter2"
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    #[test]
    fn text_in_place_of_a_code_is_not_shown() {
        for (code, shown) in [
            ("42P01", "SQLSTATE 42P01"),
            ("hunter 2", "database error"),
            ("hunter=2", "database error"),
        ] {
            let error = sqlx::Error::Database(Box::new(Foreign(code)));
            assert_eq!(Failure::new(&error).to_string(), shown);
        }
    }
}
