use std::ops::Deref;
use std::time::Duration;

use crate::args::ArgsMode;
use crate::event::{ConnectionId, Event, Op, Outcome, Target};
use crate::scope::{self, QueryStats};
use crate::tracer::{self, SharedTracer};
use crate::watchdog::Watchdog;

/// What all operations on one pool or connection have in common: who is told,
/// of which database, and who else is to know.
#[derive(Debug)]
pub(crate) struct Subject {
    teller: Teller,
    /// Whether the pool's hooks tell when it has a connection.
    pub(crate) hooked: bool,
    pub(crate) watchdog: Option<Watchdog>,
    #[cfg(feature = "sqlite")]
    pub(crate) plans: Option<crate::plan::Plans>,
    #[cfg(feature = "tracing")]
    pub(crate) spans: Option<tracing::Level>,
}

impl Subject {
    pub(crate) fn new(tracer: SharedTracer, target: Target) -> Self {
        Self {
            teller: Teller { tracer, target },
            hooked: false,
            watchdog: None,
            #[cfg(feature = "sqlite")]
            plans: None,
            #[cfg(feature = "tracing")]
            spans: None,
        }
    }

    pub(crate) fn teller(&self) -> &Teller {
        &self.teller
    }

    /// Who wants to know of an operation; `None` if nobody does.
    pub(crate) fn interest(&self, op: Op) -> Option<Interest> {
        let told = self.enabled(op);
        let spans = {
            #[cfg(feature = "tracing")]
            {
                self.spans.is_some()
            }
            #[cfg(not(feature = "tracing"))]
            {
                false
            }
        };
        (told || spans || scope::is_active()).then(|| Interest {
            told: told.then(|| tracer::mode_of(&self.tracer)),
        })
    }

    /// Tells of an operation at its end, and counts it in the scope that is
    /// current.
    pub(crate) fn finish(&self, interest: Interest, event: &Event<'_>) {
        let stats = QueryStats::current();
        let mut event = Event {
            request: stats.as_ref().map(QueryStats::id),
            ..*event
        };
        if let Some(mode) = interest.told {
            self.tell_in(mode, &mut event);
        }
        if let Some(stats) = &stats {
            stats.count(self, &event, None);
        }
    }
}

impl Deref for Subject {
    type Target = Teller;

    fn deref(&self) -> &Teller {
        &self.teller
    }
}

/// That somebody wants to know of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interest {
    /// How much the tracer shows, if it is among them.
    pub(crate) told: Option<ArgsMode>,
}

/// Who is told, and of which database.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    pub(crate) tracer: SharedTracer,
    pub(crate) target: Target,
}

impl Teller {
    pub(crate) fn enabled(&self, op: Op) -> bool {
        tracer::wants(&self.tracer, op)
    }

    pub(crate) fn tell(&self, event: &mut Event<'_>) {
        self.tell_in(tracer::mode_of(&self.tracer), event);
    }

    pub(crate) fn tell_in(&self, mode: ArgsMode, event: &mut Event<'_>) {
        event.set_mode(mode);
        tracer::tell(&self.tracer, event);
    }

    /// Tells an event of the scope that is current, if it is wanted.
    pub(crate) fn tell_if_enabled(&self, event: &Event<'_>) {
        if self.enabled(event.op) {
            let stats = QueryStats::current();
            self.tell(&mut Event {
                request: stats.as_ref().map(QueryStats::id),
                ..*event
            });
        }
    }

    /// Tells that something was handed out whose work is not seen.
    pub(crate) fn tell_untraced(&self, what: &'static str, connection: Option<ConnectionId>) {
        self.tell_if_enabled(&Event {
            connection,
            note: Some(what),
            ..Event::plain(Op::Untraced, &self.target, Outcome::Ok)
        });
    }

    /// Tells that something was dropped, and that the driver does the rest.
    pub(crate) fn tell_on_drop(&self, op: Op, connection: Option<ConnectionId>, took: Duration) {
        self.tell_if_enabled(&Event {
            connection,
            elapsed: Some(took),
            ..Event::plain(op, &self.target, Outcome::OnDrop)
        });
    }
}
