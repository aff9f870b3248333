use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use sqlx::SqlStr;

use crate::duration::GoDuration;
use crate::event::{Event, Op, Outcome};
use crate::subject::Teller;

/// Makes a scope for the statements of one request, say, named by `id`.
///
/// What [`QueryStats::run`] runs is in the scope: each event there carries the
/// id in [`Event::request`](crate::Event::request), and is counted.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sqlx::Result<()> {
/// use sql_trace::sqlite::SqlitePoolOptions;
/// use sql_trace::{trace_scope, writer};
///
/// # let options = SqlitePoolOptions::new().tracer(writer(std::io::sink()));
/// # let pool = options.max_connections(1).connect("sqlite::memory:").await?;
/// let stats = trace_scope("GET /users 7f3a");
/// stats
///     .run(async {
///         for id in 0..3 {
///             sqlx::query("SELECT ?").bind(id).execute(&pool).await?;
///         }
///         Ok::<(), sqlx::Error>(())
///     })
///     .await?;
/// assert_eq!(stats.statements(), 3);
/// assert_eq!(stats.most_repeated(), 3);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
#[must_use]
pub fn trace_scope(id: impl Into<String>) -> QueryStats {
    QueryStats(Arc::new(Scope {
        id: id.into(),
        repeat_limit: Mutex::new(Some(REPEAT_LIMIT)),
        counts: Mutex::default(),
    }))
}

/// How often one statement may run in a scope before it is told as
/// [`Op::Repeated`](crate::Op::Repeated), unless set otherwise.
const REPEAT_LIMIT: u64 = 10;

/// What the statements in one scope came to; made by [`trace_scope`], or for
/// each request by `QueryStatsLayer`.
///
/// A clone is another handle of the same counts. They can be read at any time,
/// and go on counting: a stream of rows that was begun in the scope counts at
/// its end, wherever that is.
#[derive(Clone)]
pub struct QueryStats(Arc<Scope>);

struct Scope {
    id: String,
    repeat_limit: Mutex<Option<u64>>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    statements: u64,
    failures: u64,
    elapsed: Duration,
    acquire: Duration,
    slowest: Option<(Duration, SqlStr)>,
    /// How often each statement ran.
    repeats: HashMap<SqlStr, u64>,
    most_repeated: u64,
}

impl Counts {
    /// Counts a statement, and gives how often it ran.
    fn repeat(&mut self, text: &SqlStr) -> u64 {
        /// Enough for any one request; beyond it, new statements go uncounted.
        const DISTINCT: usize = 1000;

        let times = match self.repeats.get_mut(text.as_str()) {
            Some(times) => {
                *times += 1;
                *times
            }
            None => {
                if self.repeats.len() < DISTINCT {
                    self.repeats.insert(text.clone(), 1);
                }
                1
            }
        };
        self.most_repeated = self.most_repeated.max(times);
        times
    }
}

impl QueryStats {
    /// The scope that the present task is being polled in, if any.
    #[must_use]
    pub fn current() -> Option<Self> {
        if !ACTIVE.get() {
            return None;
        }
        CURRENT
            .try_with(|current| current.borrow().clone())
            .ok()
            .flatten()
    }

    /// Runs a future in this scope. A task that it spawns is not in it, unless
    /// that is run in the scope as well.
    pub fn run<F: Future>(&self, future: F) -> InScope<F> {
        self.hold(future)
    }

    /// Keeps something that is polled in this scope.
    pub(crate) fn hold<F>(&self, held: F) -> InScope<F> {
        InScope {
            held: Some(held),
            stats: self.clone(),
        }
    }

    /// Sets how often one statement may run in this scope before it is told,
    /// once, as [`Op::Repeated`](crate::Op::Repeated): the "N+1" of one query
    /// for a list and one more for each of its items. 10 by default; `None`
    /// for never.
    #[must_use]
    pub fn warn_repeats(self, above: impl Into<Option<u64>>) -> Self {
        *self
            .0
            .repeat_limit
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = above.into();
        self
    }

    /// The name the scope was given.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// How many statements ended, in whatever way.
    #[must_use]
    pub fn statements(&self) -> u64 {
        self.read(|counts| counts.statements)
    }

    /// How many operations failed, transactions and connections included.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.read(|counts| counts.failures)
    }

    /// The time all operations took in the database, transactions included.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.read(|counts| counts.elapsed)
    }

    /// The time spent waiting for connections.
    #[must_use]
    pub fn acquire(&self) -> Duration {
        self.read(|counts| counts.acquire)
    }

    /// The time the slowest statement took, and its text.
    #[must_use]
    pub fn slowest(&self) -> Option<(Duration, String)> {
        self.read(|counts| {
            let (elapsed, text) = counts.slowest.as_ref()?;
            Some((*elapsed, text.as_str().to_owned()))
        })
    }

    /// How often the statement ran that ran most often.
    #[must_use]
    pub fn most_repeated(&self) -> u64 {
        self.read(|counts| counts.most_repeated)
    }

    /// The statements that ran more than `times` times, and how often, the most
    /// frequent first.
    #[must_use]
    pub fn repeated(&self, times: u64) -> Vec<(u64, String)> {
        let mut repeated: Vec<(u64, String)> = self.read(|counts| {
            counts
                .repeats
                .iter()
                .filter(|(_, count)| **count > times)
                .map(|(text, count)| (*count, text.as_str().to_owned()))
                .collect()
        });
        repeated.sort_by(|a, b| b.cmp(a));
        repeated
    }

    fn read<T>(&self, read: impl FnOnce(&Counts) -> T) -> T {
        read(&self.0.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts an operation at its end; `text` is its statement, if it is one
    /// that runs. Tells when that is one time too many.
    pub(crate) fn count(&self, teller: &Teller, event: &Event<'_>, text: Option<&SqlStr>) {
        let limit = *self
            .0
            .repeat_limit
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = event.elapsed.unwrap_or_default();
        counts.failures += u64::from(matches!(event.outcome, Outcome::Err(_)));
        match event.op {
            Op::Acquire => counts.acquire += elapsed,
            _ => counts.elapsed += elapsed,
        }
        counts.acquire += event.acquire.unwrap_or_default();
        let Some(text) = text else {
            return;
        };
        counts.statements += 1;
        if counts
            .slowest
            .as_ref()
            .is_none_or(|(slowest, _)| *slowest < elapsed)
        {
            counts.slowest = Some((elapsed, text.clone()));
        }
        let times = counts.repeat(text);
        drop(counts);
        if limit.is_some_and(|limit| limit.checked_add(1) == Some(times))
            && teller.enabled(Op::Repeated)
        {
            teller.tell(&mut Event {
                connection: event.connection,
                statement: Some(text.as_str()),
                request: Some(self.id()),
                note: Some(&format!("run {times} times in one request")),
                ..Event::plain(Op::Repeated, event.database, Outcome::Ok)
            });
        }
    }

    /// Enters the scope until the guard is dropped.
    pub(crate) fn enter(&self) -> Entered {
        let outer = CURRENT
            .try_with(|current| current.replace(Some(self.clone())))
            .ok()
            .flatten();
        ACTIVE.set(true);
        Entered { outer }
    }
}

/// Whether a scope is current on this thread.
pub(crate) fn is_active() -> bool {
    ACTIVE.get()
}

thread_local! {
    // Asked by each statement; has no destructor to be registered.
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static CURRENT: RefCell<Option<QueryStats>> = const { RefCell::new(None) };
}

/// Leaves a scope when it is dropped.
pub(crate) struct Entered {
    outer: Option<QueryStats>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        ACTIVE.set(self.outer.is_some());
        let _ = CURRENT.try_with(|current| current.replace(self.outer.take()));
    }
}

/// `12 statements in 3.4ms, slowest 1.2ms, most repeated 5 times`.
impl fmt::Display for QueryStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read(|counts| {
            let slowest = counts.slowest.as_ref().map_or(Duration::ZERO, |(d, _)| *d);
            write!(
                f,
                "{} statements in {}, slowest {}, most repeated {} times",
                counts.statements,
                GoDuration(counts.elapsed),
                GoDuration(slowest),
                counts.most_repeated
            )
        })
    }
}

impl fmt::Debug for QueryStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read(|counts| {
            f.debug_struct("QueryStats")
                .field("id", &self.0.id)
                .field("statements", &counts.statements)
                .field("failures", &counts.failures)
                .field("elapsed", &counts.elapsed)
                .field("acquire", &counts.acquire)
                .field("most_repeated", &counts.most_repeated)
                .finish_non_exhaustive()
        })
    }
}

pin_project! {
    /// A future that runs in a scope; made by [`QueryStats::run`].
    ///
    /// If it is dropped before its end, that happens in the scope as well, so
    /// that what it leaves undone is told with the scope's name.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are polled"]
    pub struct InScope<F> {
        // Taken out by the drop alone.
        #[pin]
        held: Option<F>,
        stats: QueryStats,
    }

    impl<F> PinnedDrop for InScope<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _entered = this.stats.enter();
            this.held.set(None);
        }
    }
}

impl<F> InScope<F> {
    #[cfg(feature = "tower")]
    pub(crate) fn get(&self) -> Option<&F> {
        self.held.as_ref()
    }

    /// Polls what is held, in the scope.
    pub(crate) fn poll_held<T>(
        self: Pin<&mut Self>,
        poll: impl FnOnce(Pin<&mut F>) -> Poll<T>,
    ) -> Poll<T> {
        let this = self.project();
        let _entered = this.stats.enter();
        this.held.as_pin_mut().map_or(Poll::Pending, poll)
    }
}

impl<F: Future> Future for InScope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.poll_held(|future| future.poll(cx))
    }
}
