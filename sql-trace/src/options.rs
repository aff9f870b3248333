#[cfg(feature = "sqlite")]
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use sqlx::pool::{PoolConnectionMetadata, PoolOptions};
use sqlx::{Connection, Error};

use crate::acquire::Acquire;
use crate::database::TraceDatabase;
use crate::hooks::{Hook, Hooks};
#[cfg(feature = "sqlite")]
use crate::plan::Plans;
use crate::pool::TracedPool;
use crate::subject::Subject;
use crate::tracer::{SharedTracer, Tracer, default_tracer};
use crate::watchdog::Watchdog;

/// The options of a [`TracedPool`]: those of [`sqlx::pool::PoolOptions`], and
/// who is told.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sqlx::Result<()> {
/// use std::time::Duration;
/// use sql_trace::sqlite::SqlitePoolOptions;
/// use sql_trace::{Tracer, writer};
///
/// let pool = SqlitePoolOptions::new()
///     .tracer(writer(std::io::stderr()).slow(Duration::from_millis(200)))
///     .max_connections(5)
///     .connect("sqlite::memory:")
///     .await?;
/// # let _ = pool;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
pub struct TracedPoolOptions<DB: TraceDatabase> {
    options: PoolOptions<DB>,
    hooks: Hooks<DB>,
    tracer: Option<SharedTracer>,
    still_running: Option<Duration>,
    /// From when on a statement's plan is asked for, and how often at most.
    #[cfg(feature = "sqlite")]
    explain_slow: Option<(Duration, Duration)>,
    #[cfg(feature = "tracing")]
    spans: Option<tracing::Level>,
}

impl<DB: TraceDatabase> TracedPoolOptions<DB> {
    /// Begins with sqlx's defaults and the
    /// [default tracer](crate::set_default_tracer).
    #[must_use]
    pub fn new() -> Self {
        Self {
            options: PoolOptions::new(),
            hooks: Hooks::default(),
            tracer: None,
            still_running: None,
            #[cfg(feature = "sqlite")]
            explain_slow: None,
            #[cfg(feature = "tracing")]
            spans: None,
        }
    }

    /// Sets who is told.
    #[must_use]
    pub fn tracer(mut self, tracer: impl Tracer) -> Self {
        self.tracer = Some(tracer.shared());
        self
    }

    /// Tells of a statement that is still running after `threshold`, with
    /// [`Outcome::Running`](crate::Outcome::Running): once, while it runs; its
    /// end is told as any other. Off by default.
    ///
    /// One thread for the pool looks four times within the threshold, so that
    /// it is told up to a quarter of it late. The tracer is called on that
    /// thread.
    #[must_use]
    pub fn still_running(mut self, threshold: Duration) -> Self {
        self.still_running = Some(threshold);
        self
    }

    /// Makes a [`tracing`] span of each statement and each other operation, at
    /// this level, as OpenTelemetry's conventions for databases have it.
    ///
    /// The span `db` has the target `sql_trace` and the attributes that
    /// [`to_tracing`](crate::to_tracing) lists; `otel.name`, `otel.kind` and
    /// `otel.status_code` are for `tracing-opentelemetry`. It begins where the
    /// operation begins, inside the span that is current there, and lasts until
    /// its end. It is not entered.
    #[cfg(feature = "tracing")]
    #[must_use]
    pub fn spans(mut self, level: tracing::Level) -> Self {
        self.spans = Some(level);
        self
    }

    /// Applies setters of sqlx's that this type does not repeat.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// use sql_trace::sqlite::SqlitePoolOptions;
    ///
    /// let options = SqlitePoolOptions::new()
    ///     .configure(|options| options.acquire_slow_threshold(std::time::Duration::from_secs(1)));
    /// # let _ = options; }
    /// ```
    ///
    /// The hooks `after_connect` and `before_acquire` are better set by this
    /// type's own methods. Set in here, or contained in other options that are
    /// returned, they replace the ones that tracing needs: the opening of
    /// connections is not seen then, nor are connections told apart, which an
    /// [`Op::Untraced`](crate::Op::Untraced) event says when the pool is made.
    #[must_use]
    pub fn configure(mut self, configure: impl FnOnce(PoolOptions<DB>) -> PoolOptions<DB>) -> Self {
        self.options = self.hooks.watch(self.options, configure);
        self
    }

    fn with(mut self, configure: impl FnOnce(PoolOptions<DB>) -> PoolOptions<DB>) -> Self {
        self.options = configure(self.options);
        self
    }

    /// Sets the most connections that the pool opens: 10 by default.
    #[must_use]
    pub fn max_connections(self, max: u32) -> Self {
        self.with(|options| options.max_connections(max))
    }

    /// Sets how many connections the pool keeps open at least: 0 by default.
    #[must_use]
    pub fn min_connections(self, min: u32) -> Self {
        self.with(|options| options.min_connections(min))
    }

    /// Sets how long to wait for a connection: 30 s by default.
    #[must_use]
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.acquire_timeout(timeout))
    }

    /// Sets the age at which a connection is closed: 30 min by default.
    #[must_use]
    pub fn max_lifetime(self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.with(|options| options.max_lifetime(lifetime))
    }

    /// Sets how long a connection may be idle: 10 min by default.
    #[must_use]
    pub fn idle_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        self.with(|options| options.idle_timeout(timeout))
    }

    /// Sets whether a connection is pinged before it is handed out: yes by
    /// default.
    #[must_use]
    pub fn test_before_acquire(self, test: bool) -> Self {
        self.with(|options| options.test_before_acquire(test))
    }

    /// Sets what is done with each new connection. What it runs there is not
    /// traced.
    #[must_use]
    pub fn after_connect<F>(mut self, hook: F) -> Self
    where
        for<'c> F: Fn(&'c mut DB::Connection, PoolConnectionMetadata) -> BoxFuture<'c, Result<(), Error>>
            + Send
            + Sync
            + 'static,
    {
        self.hooks.after_connect = Hook::Ours(Some(Arc::new(hook)));
        self
    }

    /// Sets what decides whether an idle connection is good enough to be
    /// handed out. What it runs there is not traced.
    #[must_use]
    pub fn before_acquire<F>(mut self, hook: F) -> Self
    where
        for<'c> F: Fn(&'c mut DB::Connection, PoolConnectionMetadata) -> BoxFuture<'c, Result<bool, Error>>
            + Send
            + Sync
            + 'static,
    {
        self.hooks.before_acquire = Hook::Ours(Some(Arc::new(hook)));
        self
    }

    /// Sets what decides whether a connection that is given back may be used
    /// again. What it runs there is not traced.
    #[must_use]
    pub fn after_release<F>(self, hook: F) -> Self
    where
        for<'c> F: Fn(&'c mut DB::Connection, PoolConnectionMetadata) -> BoxFuture<'c, Result<bool, Error>>
            + Send
            + Sync
            + 'static,
    {
        self.with(|options| options.after_release(hook))
    }

    /// Opens a pool, and its first connection.
    ///
    /// # Errors
    ///
    /// Fails if the URL is not understood or no connection can be opened.
    pub async fn connect(self, url: &str) -> Result<TracedPool<DB>, Error> {
        let options = url.parse()?;
        self.connect_with(options).await
    }

    /// Opens a pool, and its first connection.
    ///
    /// # Errors
    ///
    /// Fails if no connection can be opened.
    pub async fn connect_with(
        self,
        options: <DB::Connection as Connection>::Options,
    ) -> Result<TracedPool<DB>, Error> {
        let (pool_options, subject) = self.finish(&options);
        let mut acquire = Acquire::begin();
        let result = acquire.run(pool_options.connect_with(options)).await;
        if let Err(e) = &result {
            acquire.tell_failed_open(&subject, e);
        }
        Ok(TracedPool::of(result?, subject))
    }

    /// Makes a pool that opens its first connection when one is asked for.
    ///
    /// # Errors
    ///
    /// Fails if the URL is not understood.
    pub fn connect_lazy(self, url: &str) -> Result<TracedPool<DB>, Error> {
        Ok(self.connect_lazy_with(url.parse()?))
    }

    /// Makes a pool that opens its first connection when one is asked for.
    #[must_use]
    pub fn connect_lazy_with(
        self,
        options: <DB::Connection as Connection>::Options,
    ) -> TracedPool<DB> {
        let (pool_options, subject) = self.finish(&options);
        TracedPool::of(pool_options.connect_lazy_with(options), subject)
    }

    fn finish(
        self,
        options: &<DB::Connection as Connection>::Options,
    ) -> (PoolOptions<DB>, Arc<Subject>) {
        let tracer = self.tracer.unwrap_or_else(default_tracer);
        let mut subject = Subject::new(tracer, DB::target(options));
        subject.hooked = self.hooks.are_ours();
        subject.watchdog = self
            .still_running
            .map(|threshold| Watchdog::start(subject.teller().clone(), threshold));
        #[cfg(feature = "sqlite")]
        if let Some((threshold, every)) = self.explain_slow {
            let options: &dyn Any = options;
            subject.plans = options
                .downcast_ref()
                .map(|options| Plans::new(subject.teller().clone(), options, threshold, every));
        }
        #[cfg(feature = "tracing")]
        {
            subject.spans = self.spans;
        }
        let subject = Arc::new(subject);
        (self.hooks.install(self.options, &subject), subject)
    }
}

#[cfg(feature = "sqlite")]
impl TracedPoolOptions<sqlx::Sqlite> {
    /// Finds out the query plan of a statement that took `threshold` or longer,
    /// and tells it as [`Op::Plan`](crate::Op::Plan): at most one plan each
    /// `every`. Off by default.
    ///
    /// The plan is SQLite's `EXPLAIN QUERY PLAN`, which does not run the
    /// statement, and is asked for statements that only read. It is asked on a
    /// connection of its own that cannot write, in a thread of its own; the
    /// pool's connections and the tasks that wait for them are not touched. So
    /// it does not see what only the statement's connection sees, such as
    /// temporary tables, functions and databases that were attached; and it is
    /// made without the arguments.
    #[must_use]
    pub fn explain_slow(mut self, threshold: Duration, every: Duration) -> Self {
        self.explain_slow = Some((threshold, every));
        self
    }
}

impl<DB: TraceDatabase> Default for TracedPoolOptions<DB> {
    fn default() -> Self {
        Self::new()
    }
}

impl<DB: TraceDatabase> Clone for TracedPoolOptions<DB> {
    fn clone(&self) -> Self {
        Self {
            options: self.options.clone(),
            hooks: self.hooks.clone(),
            tracer: self.tracer.clone(),
            still_running: self.still_running,
            #[cfg(feature = "sqlite")]
            explain_slow: self.explain_slow,
            #[cfg(feature = "tracing")]
            spans: self.spans,
        }
    }
}

impl<DB: TraceDatabase> fmt::Debug for TracedPoolOptions<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TracedPoolOptions")
            .field(&self.options)
            .finish()
    }
}
