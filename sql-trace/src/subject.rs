use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::event::{ConnectionId, Event, Op, Outcome, Target};
use crate::tracer::{SharedTracer, Tracer};

/// What all operations on one pool or connection have in common: who is told,
/// and of which database.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) tracer: SharedTracer,
    pub(crate) target: Target,
}

impl Subject {
    pub(crate) fn new(tracer: SharedTracer, target: Target) -> Self {
        Self { tracer, target }
    }

    pub(crate) fn enabled(&self, op: Op) -> bool {
        self.tracer.enabled(op)
    }

    /// Tells the tracer. It runs inside the service's own statements, and in
    /// destructors: its panic must not become theirs.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        let event = event.with_mode(self.tracer.args_mode());
        let _ = catch_unwind(AssertUnwindSafe(|| self.tracer.trace(&event)));
    }

    pub(crate) fn tell_if_enabled(&self, event: &Event<'_>) {
        if self.enabled(event.op) {
            self.tell(event);
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
