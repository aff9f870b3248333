use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use futures_core::future::BoxFuture;
use sqlx::pool::{CloseEvent, PoolConnection, PoolOptions};
use sqlx::{Acquire, Connection, Error, Pool, SqlSafeStr, SqlStr, Transaction};

use crate::acquire::Acquire as Wait;
use crate::connection::TracedPoolConnection;
use crate::database::TraceDatabase;
use crate::event::{ConnectionId, Event, Failure, Op, Outcome};
use crate::operation::Operation;
use crate::options::TracedPoolOptions;
use crate::subject::Subject;
use crate::tracer::Tracer;
use crate::transaction::TracedTransaction;

/// A pool of connections, as [`sqlx::Pool`], whose statements are traced.
///
/// A clone is another handle of the same pool. `&TracedPool` is an
/// [`Executor`](sqlx::Executor), so that queries take it as they take a
/// `&Pool`.
///
/// As an [`sqlx::Acquire`] it hands out connections and transactions of sqlx,
/// on which nothing is traced; that is told by an [`Op::Untraced`] event. Its
/// own [`acquire`](Self::acquire) and [`begin`](Self::begin) give traced ones.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sqlx::Result<()> {
/// use sql_trace::sqlite::{SqlitePool, SqlitePoolOptions};
/// use sql_trace::writer;
///
/// let pool: SqlitePool = SqlitePoolOptions::new()
///     .tracer(writer(std::io::stdout()))
///     .max_connections(1)
///     .connect("sqlite::memory:")
///     .await?;
/// let (n,): (i64,) = sqlx::query_as("SELECT ?").bind(42).fetch_one(&pool).await?;
/// assert_eq!(n, 42);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
pub struct TracedPool<DB: TraceDatabase>(Arc<Shared<DB>>);

pub(crate) struct Shared<DB: TraceDatabase> {
    pub(crate) pool: Pool<DB>,
    pub(crate) subject: Arc<Subject>,
}

impl<DB: TraceDatabase> TracedPool<DB> {
    /// Traces what is done through the handle that is returned, on a pool that
    /// exists already.
    ///
    /// The opening of its connections is not seen, nor can they be told apart,
    /// nor can the wait for one from the `BEGIN` of a transaction, which is told
    /// with it; [`TracedPoolOptions`] makes pools that have all three.
    pub fn new(pool: Pool<DB>, tracer: impl Tracer) -> Self {
        let target = DB::target(&pool.connect_options());
        Self::of(pool, Arc::new(Subject::new(tracer.shared(), target)))
    }

    pub(crate) fn of(pool: Pool<DB>, subject: Arc<Subject>) -> Self {
        Self(Arc::new(Shared { pool, subject }))
    }

    /// Opens a pool with sqlx's default options and the
    /// [default tracer](crate::set_default_tracer).
    ///
    /// # Errors
    ///
    /// Fails if the URL is not understood or no connection can be opened.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        TracedPoolOptions::new().connect(url).await
    }

    /// Opens a pool with sqlx's default options and the
    /// [default tracer](crate::set_default_tracer).
    ///
    /// # Errors
    ///
    /// Fails if no connection can be opened.
    pub async fn connect_with(
        options: <DB::Connection as Connection>::Options,
    ) -> Result<Self, Error> {
        TracedPoolOptions::new().connect_with(options).await
    }

    /// Makes a pool that opens its first connection when one is asked for.
    ///
    /// # Errors
    ///
    /// Fails if the URL is not understood.
    pub fn connect_lazy(url: &str) -> Result<Self, Error> {
        TracedPoolOptions::new().connect_lazy(url)
    }

    /// Makes a pool that opens its first connection when one is asked for.
    #[must_use]
    pub fn connect_lazy_with(options: <DB::Connection as Connection>::Options) -> Self {
        TracedPoolOptions::new().connect_lazy_with(options)
    }

    /// Takes a connection from the pool, told as [`Op::Acquire`].
    ///
    /// # Errors
    ///
    /// As [`sqlx::Pool::acquire`].
    pub fn acquire(
        &self,
    ) -> impl Future<Output = Result<TracedPoolConnection<DB>, Error>> + Send + 'static {
        let shared = self.shared();
        async move {
            let (raw, wait) = shared.acquire().await?;
            Ok(TracedPoolConnection::new(
                raw,
                Arc::clone(&shared.subject),
                wait.connection(),
            ))
        }
    }

    /// Takes a connection from the pool if one is idle. Not an event: there is
    /// nothing to wait for.
    #[must_use]
    pub fn try_acquire(&self) -> Option<TracedPoolConnection<DB>> {
        let raw = self.0.pool.try_acquire()?;
        Some(TracedPoolConnection::new(
            raw,
            Arc::clone(&self.0.subject),
            None,
        ))
    }

    /// Takes a connection and begins a transaction on it, told as
    /// [`Op::Acquire`] and [`Op::Begin`].
    ///
    /// # Errors
    ///
    /// As [`sqlx::Pool::begin`].
    pub async fn begin(&self) -> Result<TracedTransaction<'static, DB>, Error> {
        let (raw, wait) = self.0.begin(self.0.pool.begin(), None).await?;
        Ok(self.0.transaction(raw, wait.connection()))
    }

    /// Takes a connection and begins a transaction with a statement of your
    /// own, such as `BEGIN IMMEDIATE`.
    ///
    /// # Errors
    ///
    /// As [`sqlx::Pool::begin_with`].
    pub async fn begin_with(
        &self,
        statement: impl SqlSafeStr,
    ) -> Result<TracedTransaction<'static, DB>, Error> {
        let statement = statement.into_sql_str();
        let begin = self.0.pool.begin_with(statement.clone());
        let (raw, wait) = self.0.begin(begin, Some(statement)).await?;
        Ok(self.0.transaction(raw, wait.connection()))
    }

    /// Begins a transaction if a connection is idle.
    ///
    /// # Errors
    ///
    /// As [`sqlx::Pool::try_begin`].
    pub async fn try_begin(&self) -> Result<Option<TracedTransaction<'static, DB>>, Error> {
        self.0.try_begin(self.0.pool.try_begin(), None).await
    }

    /// Begins a transaction with a statement of your own if a connection is
    /// idle.
    ///
    /// # Errors
    ///
    /// As [`sqlx::Pool::try_begin_with`].
    pub async fn try_begin_with(
        &self,
        statement: impl SqlSafeStr,
    ) -> Result<Option<TracedTransaction<'static, DB>>, Error> {
        let statement = statement.into_sql_str();
        let begin = self.0.pool.try_begin_with(statement.clone());
        self.0.try_begin(begin, Some(statement)).await
    }

    /// Closes the pool, from this call on; the future waits until its
    /// connections are closed, and is told as one [`Op::Close`].
    pub fn close(&self) -> impl Future<Output = ()> + '_ {
        let mut operation = Operation::begin(&self.0.subject, Op::Close, None);
        let closing = self.0.pool.close();
        async move {
            closing.await;
            operation.finish(Ok(()));
        }
    }

    /// A future that is ready when the pool is closed.
    #[must_use]
    pub fn close_event(&self) -> CloseEvent {
        self.0.pool.close_event()
    }

    /// Whether the pool is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.pool.is_closed()
    }

    /// The number of open connections, idle ones included.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.0.pool.size()
    }

    /// The number of idle connections.
    #[must_use]
    pub fn num_idle(&self) -> usize {
        self.0.pool.num_idle()
    }

    /// The options of the pool.
    #[must_use]
    pub fn options(&self) -> &PoolOptions<DB> {
        self.0.pool.options()
    }

    /// The options new connections are opened with.
    #[must_use]
    pub fn connect_options(&self) -> Arc<<DB::Connection as Connection>::Options> {
        self.0.pool.connect_options()
    }

    /// Sets the options new connections are opened with. Events go on naming
    /// the database that the pool was made for.
    pub fn set_connect_options(&self, options: <DB::Connection as Connection>::Options) {
        self.0.pool.set_connect_options(options);
    }

    /// The pool of sqlx, for what needs that very type, such as a
    /// `PgListener`. What runs on it is not traced, which an [`Op::Untraced`]
    /// event says.
    #[must_use]
    pub fn inner(&self) -> &Pool<DB> {
        self.0
            .subject
            .tell_untraced("the pool of sqlx was taken by TracedPool::inner", None);
        &self.0.pool
    }

    pub(crate) fn shared(&self) -> Arc<Shared<DB>> {
        Arc::clone(&self.0)
    }
}

impl<DB: TraceDatabase> Shared<DB> {
    /// Takes a connection, and tells of the wait.
    async fn acquire(&self) -> Result<(PoolConnection<DB>, Wait), Error> {
        let mut operation = Operation::begin(&self.subject, Op::Acquire, None);
        let mut wait = Wait::begun_at(operation.started());
        let result = wait.run(self.pool.acquire()).await;
        if let Err(e) = &result {
            wait.tell_if_failed_open(&self.subject, e);
        }
        operation.on(wait.connection());
        operation.finish(result.as_ref().map(drop));
        Ok((result?, wait))
    }

    /// Runs one of sqlx's two ways to begin a transaction on a pool, and tells
    /// of its two halves.
    async fn begin(
        &self,
        begin: impl Future<Output = Result<Transaction<'static, DB>, Error>>,
        statement: Option<SqlStr>,
    ) -> Result<(Transaction<'static, DB>, Wait), Error> {
        let mut halves = Halves {
            subject: &self.subject,
            wait: Wait::begin(),
            statement,
            told: false,
        };
        let result = halves.wait.run(begin).await;
        halves.finish(result.as_ref().map(drop));
        Ok((result?, halves.wait))
    }

    /// Runs one of sqlx's two ways to begin a transaction if a connection is
    /// idle, and tells of it if one was.
    async fn try_begin(
        &self,
        begin: impl Future<Output = Result<Option<Transaction<'static, DB>>, Error>>,
        statement: Option<SqlStr>,
    ) -> Result<Option<TracedTransaction<'static, DB>>, Error> {
        let mut operation = Operation::begin(&self.subject, Op::Begin, None).statement(statement);
        let result = begin.await;
        if let Ok(None) = result {
            operation.forget();
        }
        operation.finish(result.as_ref().map(drop));
        Ok(result?.map(|raw| self.transaction(raw, None)))
    }

    fn transaction(
        &self,
        raw: Transaction<'static, DB>,
        connection: Option<ConnectionId>,
    ) -> TracedTransaction<'static, DB> {
        TracedTransaction::new(raw, Arc::clone(&self.subject), connection, false)
    }
}

/// A wait for a connection and the `BEGIN` that follows it, in one future of
/// sqlx. The pool's hooks tell where the one ends and the other begins; without
/// them all of it is the `BEGIN`, unless the error says that it never came to
/// that.
struct Halves<'a> {
    subject: &'a Subject,
    wait: Wait,
    statement: Option<SqlStr>,
    told: bool,
}

impl Halves<'_> {
    fn finish(&mut self, result: Result<(), &Error>) {
        let outcome = match result {
            Ok(()) => Outcome::Ok,
            Err(e) => {
                if self.subject.hooked && self.wait.had().is_none() {
                    self.wait.tell_if_failed_open(self.subject, e);
                }
                Outcome::Err(Failure::new(e))
            }
        };
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Outcome<'_>) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let now = Instant::now();
        let Wait { started, .. } = self.wait;
        let event = |op, elapsed, outcome| Event {
            connection: self.wait.connection(),
            elapsed: Some(elapsed),
            ..Event::plain(op, &self.subject.target, outcome)
        };
        let begin = |elapsed, outcome| Event {
            statement: self.statement.as_ref().map(SqlStr::as_str),
            ..event(Op::Begin, elapsed, outcome)
        };
        let Some(had) = self.wait.had() else {
            let waited = now.saturating_duration_since(started);
            let is_acquire = match outcome {
                Outcome::Ok => false,
                Outcome::Err(failure) => {
                    self.subject.hooked
                        || matches!(failure.error(), Error::PoolTimedOut | Error::PoolClosed)
                }
                _ => self.subject.hooked,
            };
            return self.finish_one(&match is_acquire {
                true => event(Op::Acquire, waited, outcome),
                false => begin(waited, outcome),
            });
        };
        let waited = had.saturating_duration_since(started);
        self.finish_one(&event(Op::Acquire, waited, Outcome::Ok));
        self.finish_one(&begin(now.saturating_duration_since(had), outcome));
    }

    fn finish_one(&self, event: &Event<'_>) {
        if let Some(interest) = self.subject.interest(event.op) {
            self.subject.finish(interest, event);
        }
    }
}

impl Drop for Halves<'_> {
    fn drop(&mut self) {
        self.tell(Outcome::Cancelled);
    }
}

impl<DB: TraceDatabase> Clone for TracedPool<DB> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<DB: TraceDatabase> fmt::Debug for TracedPool<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TracedPool").field(&self.0.pool).finish()
    }
}

/// For `sqlx::migrate!().run(&pool)` and functions that take an
/// `impl Acquire`: they want connections and transactions of sqlx itself.
impl<'a, DB: TraceDatabase> Acquire<'a> for &'_ TracedPool<DB> {
    type Database = DB;
    type Connection = PoolConnection<DB>;

    fn acquire(self) -> BoxFuture<'static, Result<Self::Connection, Error>> {
        let shared = self.shared();
        Box::pin(async move {
            let (raw, wait) = shared.acquire().await?;
            shared.subject.tell_untraced(
                "a connection of sqlx was taken by Acquire::acquire",
                wait.connection(),
            );
            Ok(raw)
        })
    }

    fn begin(self) -> BoxFuture<'static, Result<Transaction<'a, DB>, Error>> {
        let shared = self.shared();
        Box::pin(async move {
            let (raw, wait) = shared.begin(shared.pool.begin(), None).await?;
            shared.subject.tell_untraced(
                "a transaction of sqlx was taken by Acquire::begin",
                wait.connection(),
            );
            Ok(raw)
        })
    }
}
