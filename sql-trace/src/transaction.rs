use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_core::future::BoxFuture;
use sqlx::{Acquire, Error, Transaction};

use crate::connection::TracedConnection;
use crate::database::TraceDatabase;
use crate::event::{ConnectionId, Op};
use crate::operation::Operation;
use crate::subject::Subject;

/// A transaction, as [`sqlx::Transaction`], whose statements are traced.
///
/// Dropped without [`commit`](Self::commit) or [`rollback`](Self::rollback) it
/// is rolled back: sqlx queues the `ROLLBACK`, which runs before the
/// connection's next statement, and an [`Op::Rollback`] with
/// [`Outcome::OnDrop`](crate::Outcome::OnDrop) tells of it.
///
/// `&mut *transaction` is the [`TracedConnection`] it runs on.
pub struct TracedTransaction<'c, DB: TraceDatabase> {
    connection: TracedConnection<'c, DB>,
    nested: bool,
}

impl<'c, DB: TraceDatabase> TracedTransaction<'c, DB> {
    pub(crate) fn new(
        raw: Transaction<'c, DB>,
        subject: Arc<Subject>,
        id: Option<ConnectionId>,
        nested: bool,
    ) -> Self {
        Self {
            connection: TracedConnection::begun(raw, subject, id),
            nested,
        }
    }

    /// Begins a transaction inside this one, told as [`Op::Savepoint`].
    ///
    /// It stands here too, because [`sqlx::Acquire`] in scope would otherwise
    /// be asked before the connection is.
    ///
    /// # Errors
    ///
    /// As [`TracedConnection::begin`].
    pub async fn begin(&mut self) -> Result<TracedTransaction<'_, DB>, Error> {
        self.connection.begin().await
    }

    /// As [`TracedConnection::acquire`].
    ///
    /// # Errors
    ///
    /// Never fails.
    pub async fn acquire(&mut self) -> Result<&mut TracedConnection<'c, DB>, Error> {
        Ok(&mut self.connection)
    }

    /// Commits, told as [`Op::Commit`], or as [`Op::Release`] inside another
    /// transaction.
    ///
    /// # Errors
    ///
    /// Fails if the database refuses; the transaction is rolled back then.
    pub async fn commit(mut self) -> Result<(), Error> {
        let raw = self.take()?;
        let (subject, id) = (self.connection.subject(), self.connection.id());
        // Dropped after the operation, which it follows.
        let mut rollback = Rollback {
            subject,
            op: self.rollback_op(),
            id,
            queued: true,
        };
        let op = if self.nested { Op::Release } else { Op::Commit };
        let mut operation = Operation::begin(subject, op, id);
        let result = raw.commit().await;
        operation.finish(result.as_ref().copied());
        rollback.queued = result.is_err();
        result
    }

    /// Rolls back, told as [`Op::Rollback`], or as [`Op::RollbackTo`] inside
    /// another transaction.
    ///
    /// # Errors
    ///
    /// Fails if the database refuses.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let raw = self.take()?;
        let op = self.rollback_op();
        let mut operation = Operation::begin(self.connection.subject(), op, self.connection.id());
        let result = raw.rollback().await;
        operation.finish(result.as_ref().copied());
        result
    }

    fn rollback_op(&self) -> Op {
        if self.nested {
            Op::RollbackTo
        } else {
            Op::Rollback
        }
    }

    fn take(&mut self) -> Result<Transaction<'c, DB>, Error> {
        // Whoever holds two connections can swap what they contain.
        self.connection.take_transaction().ok_or_else(|| {
            Error::Configuration("another connection was swapped into this transaction".into())
        })
    }
}

/// A `ROLLBACK` that sqlx queues when it drops an open transaction.
struct Rollback<'a> {
    subject: &'a Subject,
    op: Op,
    id: Option<ConnectionId>,
    queued: bool,
}

impl Drop for Rollback<'_> {
    fn drop(&mut self) {
        if self.queued {
            self.subject.tell_on_drop(self.op, self.id, Duration::ZERO);
        }
    }
}

impl<DB: TraceDatabase> Drop for TracedTransaction<'_, DB> {
    fn drop(&mut self) {
        if let Some(raw) = self.connection.take_transaction() {
            let started = Instant::now();
            drop(raw);
            self.connection.subject().tell_on_drop(
                self.rollback_op(),
                self.connection.id(),
                started.elapsed(),
            );
        }
    }
}

impl<'c, DB: TraceDatabase> Deref for TracedTransaction<'c, DB> {
    type Target = TracedConnection<'c, DB>;

    fn deref(&self) -> &Self::Target {
        &self.connection
    }
}

impl<DB: TraceDatabase> DerefMut for TracedTransaction<'_, DB> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.connection
    }
}

impl<DB: TraceDatabase> fmt::Debug for TracedTransaction<'_, DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TracedTransaction")
            .field("connection", &self.connection)
            .field("nested", &self.nested)
            .finish()
    }
}

/// As that of [`TracedConnection`].
impl<'t, DB: TraceDatabase> Acquire<'t> for &'t mut TracedTransaction<'_, DB> {
    type Database = DB;
    type Connection = &'t mut DB::Connection;

    fn acquire(self) -> BoxFuture<'t, Result<Self::Connection, Error>> {
        Acquire::acquire(&mut **self)
    }

    fn begin(self) -> BoxFuture<'t, Result<Transaction<'t, DB>, Error>> {
        Acquire::begin(&mut **self)
    }
}
