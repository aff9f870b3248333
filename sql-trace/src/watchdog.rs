use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sqlx::SqlStr;

use crate::args::{ArgSource, Args, Held, Source};
use crate::event::{ConnectionId, Event, Op, Outcome};
use crate::scope::QueryStats;
use crate::span::{Wait, since};
use crate::subject::Teller;

/// Looks after statements under way, and tells of those that take long, while
/// they do.
///
/// One thread looks at all of them several times within the threshold, so that
/// a statement pays for its entry in a list and for nothing else.
#[derive(Debug)]
pub(crate) struct Watchdog(Arc<Shared>);

struct Shared {
    teller: Teller,
    threshold: Duration,
    list: Mutex<List>,
    wake: Condvar,
    /// The thread has had nothing to do for a round, and sleeps until it is
    /// woken. Set with the list locked, so that an entry made after that sees
    /// it.
    asleep: AtomicBool,
}

#[derive(Default)]
struct List {
    entries: Vec<Option<Arc<Running>>>,
    free: Vec<usize>,
    /// Whether anything was entered since the last round.
    busy: bool,
    closed: bool,
}

impl Watchdog {
    /// Starts watching. Without a thread, nothing is told.
    pub(crate) fn start(teller: Teller, threshold: Duration) -> Self {
        let shared = Arc::new(Shared {
            teller,
            threshold,
            list: Mutex::default(),
            wake: Condvar::new(),
            asleep: AtomicBool::new(false),
        });
        let watching = Arc::clone(&shared);
        let _ = thread::Builder::new()
            .name("sql-trace-watch".to_owned())
            .spawn(move || watching.run());
        Self(shared)
    }

    /// Takes a statement into the list.
    pub(crate) fn watch(&self, running: Running) -> Watched {
        let running = Arc::new(running);
        let mut list = self.0.list();
        list.busy = true;
        let place = match list.free.pop() {
            Some(place) => {
                list.entries[place] = Some(Arc::clone(&running));
                place
            }
            None => {
                list.entries.push(Some(Arc::clone(&running)));
                list.entries.len() - 1
            }
        };
        drop(list);
        if self.0.asleep.load(Ordering::Relaxed) {
            self.0.wake.notify_one();
        }
        Watched {
            running,
            shared: Arc::clone(&self.0),
            place,
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.list().closed = true;
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let round = (self.threshold / 4).clamp(Duration::from_millis(1), Duration::from_secs(1));
        let mut late = Vec::new();
        let mut list = self.list();
        while !list.closed {
            let now = Instant::now();
            late.extend(
                list.entries
                    .iter()
                    .flatten()
                    .filter(|running| running.is_late(now, self.threshold))
                    .cloned(),
            );
            if !late.is_empty() {
                // Telling may take its time; statements must not wait for it.
                drop(list);
                for running in late.drain(..) {
                    running.tell(&self.teller);
                }
                list = self.list();
            }
            let idle = !std::mem::take(&mut list.busy) && list.entries.len() == list.free.len();
            list = if idle {
                self.asleep.store(true, Ordering::Relaxed);
                let list = self.wake.wait(list).unwrap_or_else(PoisonError::into_inner);
                self.asleep.store(false, Ordering::Relaxed);
                list
            } else {
                self.wake
                    .wait_timeout(list, round)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            };
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("threshold", &self.threshold)
            .finish_non_exhaustive()
    }
}

/// A statement under way, as far as it is needed to tell of it.
pub(crate) struct Running {
    pub(crate) op: Op,
    pub(crate) text: SqlStr,
    pub(crate) args: Held<Box<dyn ArgSource>>,
    pub(crate) request: Option<QueryStats>,
    pub(crate) started: Instant,
    pub(crate) progress: Mutex<Progress>,
}

/// What changes while a statement runs.
pub(crate) struct Progress {
    wait: Wait,
    connection: Option<ConnectionId>,
    /// Told, or at its end, after which it must not be told.
    done: bool,
}

impl Progress {
    pub(crate) fn of(wait: Wait, connection: Option<ConnectionId>) -> Self {
        Self {
            wait,
            connection,
            done: false,
        }
    }
}

impl Running {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_late(&self, now: Instant, threshold: Duration) -> bool {
        since(now, self.started) >= threshold && !self.progress().done
    }

    /// Tells that it is running, unless it has ended meanwhile. It cannot end
    /// before it is told, so that the two are told in order.
    fn tell(&self, teller: &Teller) {
        let mut progress = self.progress();
        if std::mem::replace(&mut progress.done, true) {
            return;
        }
        let (acquire, elapsed) = progress.wait.split(self.started, Instant::now());
        teller.tell(&mut Event {
            connection: progress.connection,
            statement: Some(self.text.as_str()),
            args: self.args.source().map(Args::of),
            acquire,
            elapsed: Some(elapsed),
            request: self.request.as_ref().map(QueryStats::id),
            ..Event::plain(self.op, &teller.target, Outcome::Running)
        });
    }
}

/// A statement's entry in the list, which ends with this value.
pub(crate) struct Watched {
    running: Arc<Running>,
    shared: Arc<Shared>,
    place: usize,
}

impl Watched {
    /// Notes that the statement has its connection.
    pub(crate) fn acquired(&self, wait: Wait, connection: Option<ConnectionId>) {
        let mut progress = self.running.progress();
        progress.wait = wait;
        progress.connection = connection;
    }

    /// Notes the statement's end, and gives its arguments back.
    pub(crate) fn end(&self) -> Option<Source<'_>> {
        self.running.progress().done = true;
        self.running.args.source()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut list = self.shared.list();
        list.entries[self.place] = None;
        list.free.push(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Target;
    use crate::tracer::Tracer;

    #[test]
    fn place_of_a_statement_that_ended_is_used_again() {
        let teller = Teller {
            tracer: (|_: &Event<'_>| ()).shared(),
            target: Target::default(),
        };
        let watchdog = Watchdog::start(teller, Duration::from_secs(3600));
        let running = || Running {
            op: Op::Exec,
            text: sqlx::SqlSafeStr::into_sql_str("SELECT 1"),
            args: Held::None,
            request: None,
            started: Instant::now(),
            progress: Mutex::new(Progress::of(Wait::None, None)),
        };
        for _ in 0..10 {
            let (first, second) = (watchdog.watch(running()), watchdog.watch(running()));
            drop((first, second));
        }
        assert_eq!(watchdog.0.list().entries.len(), 2);
    }
}
