use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use futures_core::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{Acquire, Connection, Error, SqlSafeStr, Transaction};

use crate::database::TraceDatabase;
use crate::event::{ConnectionId, Op};
use crate::executor::On;
use crate::operation::Operation;
use crate::roster::next_id;
use crate::subject::Subject;
use crate::tracer::{Tracer, default_tracer};
use crate::transaction::TracedTransaction;

/// A single connection whose statements are traced: one that was opened on its
/// own, or the one that a [`TracedPoolConnection`] or a [`TracedTransaction`]
/// dereferences to.
///
/// `&mut TracedConnection` is an [`Executor`](sqlx::Executor). The lifetime is
/// that of the transaction it belongs to, so that a function of one's own takes
/// a `&mut SqliteConnection<'_>`.
///
/// It does not dereference to the connection of sqlx, as statements would then
/// run there untraced and unnoticed; [`as_inner_mut`](Self::as_inner_mut) gives
/// it.
pub struct TracedConnection<'c, DB: TraceDatabase> {
    raw: Raw<'c, DB>,
    subject: Arc<Subject>,
    id: Option<ConnectionId>,
}

enum Raw<'c, DB: TraceDatabase> {
    Owned(DB::Connection),
    Pooled(PoolConnection<DB>),
    Begun(Transaction<'c, DB>),
    /// Taken by the method that ends it.
    Gone,
}

impl<DB: TraceDatabase> TracedConnection<'static, DB> {
    /// Opens a connection, told to the
    /// [default tracer](crate::set_default_tracer) as [`Op::Open`].
    ///
    /// # Errors
    ///
    /// Fails if the URL is not understood or the connection cannot be opened.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::connect_with(&url.parse()?).await
    }

    /// Opens a connection, told to the
    /// [default tracer](crate::set_default_tracer) as [`Op::Open`].
    ///
    /// # Errors
    ///
    /// Fails if the connection cannot be opened.
    pub async fn connect_with(
        options: &<DB::Connection as Connection>::Options,
    ) -> Result<Self, Error> {
        Self::connect_traced(options, default_tracer()).await
    }

    /// Opens a connection, told to `tracer` as [`Op::Open`].
    ///
    /// # Errors
    ///
    /// Fails if the connection cannot be opened.
    pub async fn connect_traced(
        options: &<DB::Connection as Connection>::Options,
        tracer: impl Tracer,
    ) -> Result<Self, Error> {
        let subject = Subject::new(tracer.shared(), DB::target(options));
        let mut operation = Operation::begin(&subject, Op::Open, None);
        let result = DB::Connection::connect_with(options).await;
        let id = result.is_ok().then(next_id);
        operation.on(id);
        operation.finish(result.as_ref().map(drop));
        drop(operation);
        Ok(Self {
            raw: Raw::Owned(result?),
            subject: Arc::new(subject),
            id,
        })
    }
}

impl<'c, DB: TraceDatabase> TracedConnection<'c, DB> {
    pub(crate) fn begun(
        raw: Transaction<'c, DB>,
        subject: Arc<Subject>,
        id: Option<ConnectionId>,
    ) -> Self {
        Self {
            raw: Raw::Begun(raw),
            subject,
            id,
        }
    }

    /// Its number, as it stands in [`Event::connection`](crate::Event).
    #[must_use]
    pub fn id(&self) -> Option<ConnectionId> {
        self.id
    }

    /// Begins a transaction, told as [`Op::Begin`], or as [`Op::Savepoint`]
    /// inside another.
    ///
    /// # Errors
    ///
    /// As [`sqlx::Connection::begin`].
    pub async fn begin(&mut self) -> Result<TracedTransaction<'_, DB>, Error> {
        let On { raw, subject, id } = self.on();
        let nested = raw.is_in_transaction();
        let mut operation = Operation::begin(subject, begin_op(nested), id);
        let result = raw.begin().await;
        operation.finish(result.as_ref().map(drop));
        drop(operation);
        Ok(TracedTransaction::new(
            result?,
            Arc::clone(subject),
            id,
            nested,
        ))
    }

    /// Begins a transaction with a statement of your own, such as
    /// `BEGIN IMMEDIATE`.
    ///
    /// # Errors
    ///
    /// As [`sqlx::Connection::begin_with`]; it must not be inside another
    /// transaction.
    pub async fn begin_with(
        &mut self,
        statement: impl SqlSafeStr,
    ) -> Result<TracedTransaction<'_, DB>, Error> {
        let statement = statement.into_sql_str();
        let On { raw, subject, id } = self.on();
        let nested = raw.is_in_transaction();
        let mut operation =
            Operation::begin(subject, begin_op(nested), id).statement(Some(statement.clone()));
        let result = raw.begin_with(statement).await;
        operation.finish(result.as_ref().map(drop));
        drop(operation);
        Ok(TracedTransaction::new(
            result?,
            Arc::clone(subject),
            id,
            nested,
        ))
    }

    /// Runs `callback` in a transaction, which is committed if it succeeds and
    /// rolled back if it fails.
    ///
    /// # Errors
    ///
    /// Fails with the callback's error, or that of beginning or ending the
    /// transaction.
    pub async fn transaction<'a, F, R, E>(&'a mut self, callback: F) -> Result<R, E>
    where
        for<'t> F: FnOnce(&'t mut TracedTransaction<'_, DB>) -> BoxFuture<'t, Result<R, E>>
            + Send
            + Sync
            + 'a,
        R: Send,
        E: From<Error> + Send,
    {
        let mut transaction = self.begin().await?;
        match callback(&mut transaction).await {
            Ok(value) => {
                transaction.commit().await?;
                Ok(value)
            }
            Err(e) => {
                transaction.rollback().await?;
                Err(e)
            }
        }
    }

    /// This connection, where a function of sqlx's would be given one by
    /// [`sqlx::Acquire`], whose method is not traced.
    ///
    /// # Errors
    ///
    /// Never fails.
    pub async fn acquire(&mut self) -> Result<&mut Self, Error> {
        Ok(self)
    }

    /// Whether it is inside a transaction.
    #[must_use]
    pub fn is_in_transaction(&self) -> bool {
        match &self.raw {
            Raw::Owned(raw) => raw.is_in_transaction(),
            Raw::Pooled(raw) => raw.is_in_transaction(),
            Raw::Begun(raw) => raw.is_in_transaction(),
            Raw::Gone => false,
        }
    }

    /// Tests the connection, told as [`Op::Ping`].
    ///
    /// # Errors
    ///
    /// Fails if the database does not answer.
    pub async fn ping(&mut self) -> Result<(), Error> {
        let On { raw, subject, id } = self.on();
        let mut operation = Operation::begin(subject, Op::Ping, id);
        let result = raw.ping().await;
        operation.finish(result.as_ref().copied());
        result
    }

    /// Closes the connection, told as [`Op::Close`].
    ///
    /// # Errors
    ///
    /// Fails if the database did not take note.
    pub async fn close(mut self) -> Result<(), Error> {
        let raw = std::mem::replace(&mut self.raw, Raw::Gone);
        let mut operation = Operation::begin(&self.subject, Op::Close, self.id);
        let result = match raw {
            Raw::Owned(raw) => raw.close().await,
            Raw::Pooled(raw) => raw.close().await,
            Raw::Begun(raw) => raw.rollback().await,
            Raw::Gone => Ok(()),
        };
        operation.finish(result.as_ref().copied());
        result
    }

    /// Forgets the statements that were prepared on this connection.
    ///
    /// # Errors
    ///
    /// As [`sqlx::Connection::clear_cached_statements`].
    pub async fn clear_cached_statements(&mut self) -> Result<(), Error>
    where
        DB: sqlx::database::HasStatementCache,
    {
        self.on().raw.clear_cached_statements().await
    }

    /// How many prepared statements this connection remembers.
    #[must_use]
    pub fn cached_statements_size(&self) -> usize
    where
        DB: sqlx::database::HasStatementCache,
    {
        match &self.raw {
            Raw::Owned(raw) => raw.cached_statements_size(),
            Raw::Pooled(raw) => raw.cached_statements_size(),
            Raw::Begun(raw) => raw.cached_statements_size(),
            Raw::Gone => 0,
        }
    }

    /// The connection of sqlx, for what needs that very type, such as `COPY`.
    /// What runs on it is not traced, which an [`Op::Untraced`] event says.
    pub fn as_inner_mut(&mut self) -> &mut DB::Connection {
        self.untraced("a connection of sqlx was taken by TracedConnection::as_inner_mut")
    }

    fn untraced(&mut self, what: &'static str) -> &mut DB::Connection {
        let On { raw, subject, id } = self.on();
        subject.tell_untraced(what, id);
        raw
    }

    #[inline]
    pub(crate) fn on(&mut self) -> On<'_, DB> {
        On {
            raw: match &mut self.raw {
                Raw::Owned(raw) => raw,
                Raw::Pooled(raw) => raw,
                Raw::Begun(raw) => raw,
                // Only methods that take the connection by value leave this
                // behind.
                Raw::Gone => unreachable!("a connection is used after its end"),
            },
            subject: &self.subject,
            id: self.id,
        }
    }

    pub(crate) fn subject(&self) -> &Arc<Subject> {
        &self.subject
    }

    /// Takes out the transaction that this connection is in.
    pub(crate) fn take_transaction(&mut self) -> Option<Transaction<'c, DB>> {
        match std::mem::replace(&mut self.raw, Raw::Gone) {
            Raw::Begun(raw) => Some(raw),
            other => {
                self.raw = other;
                None
            }
        }
    }
}

fn begin_op(nested: bool) -> Op {
    if nested { Op::Savepoint } else { Op::Begin }
}

impl<DB: TraceDatabase> Drop for TracedConnection<'_, DB> {
    fn drop(&mut self) {
        if let raw @ Raw::Owned(_) = std::mem::replace(&mut self.raw, Raw::Gone) {
            let started = Instant::now();
            drop(raw);
            self.subject
                .tell_on_drop(Op::Close, self.id, started.elapsed());
        }
    }
}

impl<DB: TraceDatabase> fmt::Debug for TracedConnection<'_, DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TracedConnection")
            .field("database", &DB::NAME)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// For functions that take an `impl Acquire`: they want a connection or a
/// transaction of sqlx itself, on which nothing is traced. An [`Op::Untraced`]
/// event says so.
impl<'t, DB: TraceDatabase> Acquire<'t> for &'t mut TracedConnection<'_, DB> {
    type Database = DB;
    type Connection = &'t mut DB::Connection;

    fn acquire(self) -> BoxFuture<'t, Result<Self::Connection, Error>> {
        let raw = self.untraced("a connection of sqlx was taken by Acquire::acquire");
        Box::pin(std::future::ready(Ok(raw)))
    }

    fn begin(self) -> BoxFuture<'t, Result<Transaction<'t, DB>, Error>> {
        let raw = self.untraced("a transaction of sqlx was taken by Acquire::begin");
        Box::pin(raw.begin())
    }
}

/// A connection that goes back to its pool when it is dropped, as
/// [`sqlx::pool::PoolConnection`], and dereferences to the
/// [`TracedConnection`].
#[derive(Debug)]
pub struct TracedPoolConnection<DB: TraceDatabase>(TracedConnection<'static, DB>);

impl<DB: TraceDatabase> TracedPoolConnection<DB> {
    pub(crate) fn new(
        raw: PoolConnection<DB>,
        subject: Arc<Subject>,
        id: Option<ConnectionId>,
    ) -> Self {
        Self(TracedConnection {
            raw: Raw::Pooled(raw),
            subject,
            id,
        })
    }

    /// As [`TracedConnection::begin`].
    ///
    /// It stands here too, because [`sqlx::Acquire`] in scope would otherwise
    /// be asked before the connection is.
    ///
    /// # Errors
    ///
    /// As [`TracedConnection::begin`].
    pub async fn begin(&mut self) -> Result<TracedTransaction<'_, DB>, Error> {
        self.0.begin().await
    }

    /// As [`TracedConnection::acquire`].
    ///
    /// # Errors
    ///
    /// Never fails.
    pub async fn acquire(&mut self) -> Result<&mut TracedConnection<'static, DB>, Error> {
        Ok(&mut self.0)
    }

    /// Closes the connection, told as [`Op::Close`]; the pool may open another.
    ///
    /// # Errors
    ///
    /// Fails if the database did not take note.
    pub async fn close(self) -> Result<(), Error> {
        self.0.close().await
    }

    /// Closes the connection when it is dropped, instead of giving it back.
    pub fn close_on_drop(&mut self) {
        if let Raw::Pooled(raw) = &mut self.0.raw {
            raw.close_on_drop();
        }
    }

    /// Takes the connection out of the pool, which may open another.
    #[must_use]
    pub fn detach(mut self) -> TracedConnection<'static, DB> {
        let raw = match std::mem::replace(&mut self.0.raw, Raw::Gone) {
            Raw::Pooled(raw) => Raw::Owned(raw.detach()),
            other => other,
        };
        TracedConnection {
            raw,
            subject: Arc::clone(&self.0.subject),
            id: self.0.id,
        }
    }

    /// Takes the connection out of the pool, which counts it as in use for
    /// ever.
    #[must_use]
    pub fn leak(mut self) -> TracedConnection<'static, DB> {
        let raw = match std::mem::replace(&mut self.0.raw, Raw::Gone) {
            Raw::Pooled(raw) => Raw::Owned(raw.leak()),
            other => other,
        };
        TracedConnection {
            raw,
            subject: Arc::clone(&self.0.subject),
            id: self.0.id,
        }
    }
}

impl<DB: TraceDatabase> Deref for TracedPoolConnection<DB> {
    type Target = TracedConnection<'static, DB>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<DB: TraceDatabase> DerefMut for TracedPoolConnection<DB> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// As that of [`TracedConnection`].
impl<'t, DB: TraceDatabase> Acquire<'t> for &'t mut TracedPoolConnection<DB> {
    type Database = DB;
    type Connection = &'t mut DB::Connection;

    fn acquire(self) -> BoxFuture<'t, Result<Self::Connection, Error>> {
        Acquire::acquire(&mut **self)
    }

    fn begin(self) -> BoxFuture<'t, Result<Transaction<'t, DB>, Error>> {
        Acquire::begin(&mut **self)
    }
}
