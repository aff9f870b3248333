use std::future::pending;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end a service.
pub(super) struct Signals {
    watched: Option<(Signal, Signal)>,
    interrupts: u32,
}

impl Signals {
    pub(super) fn new(watch: bool) -> io::Result<Self> {
        let watched = if watch {
            Some((
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
            ))
        } else {
            None
        };
        Ok(Self {
            watched,
            interrupts: 0,
        })
    }

    /// Waits for the next one and returns its name.
    pub(super) async fn next(&mut self) -> &'static str {
        let Some((terminate, interrupt)) = &mut self.watched else {
            return pending().await;
        };
        tokio::select! {
            Some(()) = terminate.recv() => "SIGTERM",
            Some(()) = interrupt.recv() => {
                self.interrupts += 1;
                "SIGINT"
            }
            else => pending().await,
        }
    }

    /// Whether somebody has pressed Ctrl-C, and again.
    pub(super) const fn wants_to_end_now(&self) -> bool {
        self.interrupts > 1
    }
}
