use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::warn;

use crate::notify::{Notifier, NotifyMessage};

/// The service manager that wants to know how the service is doing, if there is one.
pub(super) struct Manager(Arc<Notifier>);

impl Manager {
    pub(super) fn from_env() -> Self {
        let notifier = Notifier::from_env().unwrap_or_else(|error| {
            warn!(error = report(&error), "nobody will be notified");
            Notifier::silent()
        });
        Self(Arc::new(notifier))
    }

    /// Sends a message, and logs if that fails: the service goes on without.
    pub(super) async fn tell(&self, message: NotifyMessage) {
        let mut sent = self.0.try_send(&message);
        if let Ok(false) = sent {
            // A manager that does not listen must not hold up a thread that serves.
            let notifier = Arc::clone(&self.0);
            let waiting = spawn_blocking(move || notifier.send(&message));
            sent = waiting.await.unwrap_or(Ok(false));
        }
        if let Err(error) = sent {
            warn!(error = report(&error), "cannot notify");
        }
    }

    /// When to say that the service is alive.
    pub(super) fn watchdog(&self) -> Option<Interval> {
        let mut interval = interval(self.0.watchdog()? / 2);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(interval)
    }
}

/// The error and its cause, on one line.
pub(super) fn report(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
