use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::args::ArgsMode;
use crate::event::{Event, Op, Outcome};
use crate::obfuscate::obfuscate;
use crate::sql::Dialect;

/// Is told of every operation on a database.
///
/// A closure is a tracer; [`writer`](crate::writer) makes one that writes
/// lines. The methods combine tracers into others:
///
/// ```
/// use std::time::Duration;
/// use sql_trace::{ArgsMode, Op, Tracer, writer};
///
/// let everything = writer(std::io::stdout()).args(ArgsMode::Values { max: 64 });
/// let slow = writer(std::io::stderr()).slow(Duration::from_millis(200));
/// let tracer = everything
///     .filter(|event| event.op != Op::Acquire)
///     .and(slow);
/// # let _ = tracer;
/// ```
///
/// A tracer is called on the task that ran the statement, while that task is
/// being polled, so it should not block for long; of a statement that still runs,
/// and of plans, on a thread of this crate's. A panic in any of the methods
/// is caught: the statement's result reaches its caller all the same, and so do
/// the events reach the tracers beside it.
pub trait Tracer: Send + Sync + 'static {
    /// Whether events of this kind are wanted, asked before anything is
    /// captured. `false` makes an operation all but free of tracing.
    fn enabled(&self, op: Op) -> bool {
        let _ = op;
        true
    }

    /// How much of arguments and error texts this tracer shows:
    /// [`ArgsMode::Kinds`] by default. [`ArgsMode::Hidden`] keeps arguments
    /// from being captured at all.
    fn args_mode(&self) -> ArgsMode {
        ArgsMode::Kinds
    }

    /// Takes note of an event.
    fn trace(&self, event: &Event<'_>);

    /// Sets how much of arguments and error texts is shown.
    fn args(self, mode: ArgsMode) -> impl Tracer
    where
        Self: Sized,
    {
        WithArgs { tracer: self, mode }
    }

    /// Masks the numbers and strings in statements: `WHERE id = 42` becomes
    /// `WHERE id = ?`. Comments, which may hold values too, are left out.
    ///
    /// Strings are told from identifiers as the database's defaults have it:
    /// `"…"` is a string in MySQL, and an identifier in PostgreSQL and SQLite.
    fn obfuscate(self) -> impl Tracer
    where
        Self: Sized,
    {
        Obfuscated { tracer: self }
    }

    /// Finds the place in the program that waited for each operation, as
    /// [`Event::caller`]: for development.
    ///
    /// It walks the stack and reads debug information, which takes a fraction
    /// of a millisecond for each event, and a tenth of a second for the first.
    /// What a task was not polled for has no place of interest: there are no
    /// lines for the watchdog's reports, or in a program without debug
    /// information.
    #[cfg(feature = "caller")]
    fn caller(self) -> impl Tracer
    where
        Self: Sized,
    {
        crate::caller::WithCaller { tracer: self }
    }

    /// Tells `other` as well, each in its own [`ArgsMode`].
    fn and(self, other: impl Tracer) -> impl Tracer
    where
        Self: Sized,
    {
        And {
            first: self,
            second: other,
        }
    }

    /// Keeps the events for which `wanted` is true.
    fn filter<F>(self, wanted: F) -> impl Tracer
    where
        Self: Sized,
        F: Fn(&Event<'_>) -> bool + Send + Sync + 'static,
    {
        Filter {
            tracer: self,
            wanted,
        }
    }

    /// Keeps what made the caller wait for `threshold` or longer, and every
    /// event that is not a success: a failure is never too fast to be told.
    ///
    /// The time compared is [`Event::waited`]. The watchdog's reports,
    /// [`Op::Plan`], [`Op::Repeated`] and [`Op::Untraced`] are kept as well.
    fn slow(self, threshold: Duration) -> impl Tracer
    where
        Self: Sized,
    {
        self.filter(move |event| is_notable(event) || event.waited() >= threshold)
    }

    /// Keeps one in `n` successes, beginning with the first, and every event
    /// that is not a success.
    ///
    /// Every [`Op::Plan`], [`Op::Repeated`] and [`Op::Untraced`] is kept as well.
    ///
    /// # Panics
    ///
    /// Panics if `n` is 0.
    fn sample(self, n: u64) -> impl Tracer
    where
        Self: Sized,
    {
        assert!(n > 0, "cannot keep one in 0 events");
        let seen = AtomicU64::new(0);
        self.filter(move |event| {
            is_notable(event) || seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(n)
        })
    }

    /// Makes a tracer that can be cloned, for several pools to share.
    fn shared(self) -> SharedTracer
    where
        Self: Sized,
    {
        SharedTracer(Arc::new(self))
    }
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Tracer for F {
    fn trace(&self, event: &Event<'_>) {
        self(event);
    }
}

/// A tracer that can be cloned; made by [`Tracer::shared`].
#[derive(Clone)]
pub struct SharedTracer(Arc<dyn Tracer>);

impl Tracer for SharedTracer {
    fn enabled(&self, op: Op) -> bool {
        self.0.enabled(op)
    }

    fn args_mode(&self) -> ArgsMode {
        self.0.args_mode()
    }

    fn trace(&self, event: &Event<'_>) {
        self.0.trace(event);
    }

    fn shared(self) -> SharedTracer {
        self
    }
}

impl fmt::Debug for SharedTracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTracer").finish_non_exhaustive()
    }
}

/// Sets the tracer of pools and connections that are made without naming one.
///
/// Without it they write [lines](crate::writer) to standard error.
///
/// # Errors
///
/// Gives the tracer back if one was set before.
pub fn set_default_tracer(tracer: impl Tracer) -> Result<(), SharedTracer> {
    DEFAULT.set(tracer.shared())
}

pub(crate) fn default_tracer() -> SharedTracer {
    DEFAULT
        .get_or_init(|| crate::writer(std::io::stderr()).shared())
        .clone()
}

static DEFAULT: OnceLock<SharedTracer> = OnceLock::new();

struct WithArgs<T> {
    tracer: T,
    mode: ArgsMode,
}

impl<T: Tracer> Tracer for WithArgs<T> {
    fn enabled(&self, op: Op) -> bool {
        self.tracer.enabled(op)
    }

    fn args_mode(&self) -> ArgsMode {
        self.mode
    }

    fn trace(&self, event: &Event<'_>) {
        self.tracer.trace(&event.with_mode(self.mode));
    }
}

struct Obfuscated<T> {
    tracer: T,
}

impl<T: Tracer> Tracer for Obfuscated<T> {
    fn enabled(&self, op: Op) -> bool {
        self.tracer.enabled(op)
    }

    fn args_mode(&self) -> ArgsMode {
        self.tracer.args_mode()
    }

    fn trace(&self, event: &Event<'_>) {
        let Some(statement) = event.statement else {
            return self.tracer.trace(event);
        };
        let masked = obfuscate(statement, Dialect::of(event.database.name));
        self.tracer.trace(&Event {
            statement: Some(&masked),
            ..*event
        });
    }
}

struct And<A, B> {
    first: A,
    second: B,
}

impl<A: Tracer, B: Tracer> Tracer for And<A, B> {
    fn enabled(&self, op: Op) -> bool {
        wants(&self.first, op) || wants(&self.second, op)
    }

    fn args_mode(&self) -> ArgsMode {
        mode_of(&self.first).max(mode_of(&self.second))
    }

    fn trace(&self, event: &Event<'_>) {
        // What one of them asked for is captured for both, and must not be
        // shown by the other.
        if wants(&self.first, event.op) {
            tell(&self.first, &event.with_mode(mode_of(&self.first)));
        }
        if wants(&self.second, event.op) {
            tell(&self.second, &event.with_mode(mode_of(&self.second)));
        }
    }
}

/// Whether an event is kept however short its time is, and however many there are.
fn is_notable(event: &Event<'_>) -> bool {
    !matches!(event.outcome, Outcome::Ok)
        || matches!(event.op, Op::Plan | Op::Repeated | Op::Untraced)
}

/// Whether a tracer wants events of this kind.
///
/// Tracers run inside the service's own statements, and in destructors: their
/// panics must not become those of whoever asks or tells them.
pub(crate) fn wants(tracer: &impl Tracer, op: Op) -> bool {
    catch_unwind(AssertUnwindSafe(|| tracer.enabled(op))).unwrap_or(true)
}

/// How much a tracer shows; nothing, if that cannot be learnt.
pub(crate) fn mode_of(tracer: &impl Tracer) -> ArgsMode {
    catch_unwind(AssertUnwindSafe(|| tracer.args_mode())).unwrap_or(ArgsMode::Hidden)
}

/// Tells a tracer of an event.
pub(crate) fn tell(tracer: &impl Tracer, event: &Event<'_>) {
    let _ = catch_unwind(AssertUnwindSafe(|| tracer.trace(event)));
}

struct Filter<T, F> {
    tracer: T,
    wanted: F,
}

impl<T, F> Tracer for Filter<T, F>
where
    T: Tracer,
    F: Fn(&Event<'_>) -> bool + Send + Sync + 'static,
{
    fn enabled(&self, op: Op) -> bool {
        self.tracer.enabled(op)
    }

    fn args_mode(&self) -> ArgsMode {
        self.tracer.args_mode()
    }

    fn trace(&self, event: &Event<'_>) {
        if (self.wanted)(event) {
            self.tracer.trace(event);
        }
    }
}
