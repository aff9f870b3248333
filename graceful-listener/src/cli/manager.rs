use crate::cli::moment::Moment;
use crate::notify::{Notifier, NotifyMessage};

/// The service manager above us: systemd, or nobody.
#[derive(Debug)]
pub(crate) struct Manager {
    notifier: Notifier,
    reloading: bool,
    alive_at: Option<Moment>,
}

impl Manager {
    pub(crate) fn new(notifier: Notifier) -> Self {
        let alive_at = notifier.watchdog().map(|_| Moment::now());
        Self {
            notifier,
            reloading: false,
            alive_at,
        }
    }

    /// A generation serves: the start, or a reload, is complete.
    pub(crate) fn ready(&mut self, generation: u64) {
        self.reloading = false;
        self.send(
            &NotifyMessage::new()
                .ready()
                .status(&format!("Generation {generation} serves")),
        );
    }

    /// A new generation is being started beside the one that serves.
    pub(crate) fn reloading(&mut self) {
        if !self.reloading {
            self.reloading = true;
            self.send(&NotifyMessage::new().reloading());
        }
    }

    /// Tells people how it stands; a reload that was under way has ended.
    pub(crate) fn failed(&mut self, text: &str, serving: bool) {
        let mut message = NotifyMessage::new().status(text);
        if std::mem::take(&mut self.reloading) && serving {
            message = message.ready();
        }
        self.send(&message);
    }

    /// Tells anything else.
    pub(crate) fn tell(&self, message: &NotifyMessage) {
        self.send(message);
    }

    pub(crate) fn stopping(&self) {
        self.send(&NotifyMessage::new().stopping());
    }

    /// Feeds the watchdog when it is time.
    pub(crate) fn keep_alive(&mut self) {
        let Some(patience) = self.notifier.watchdog() else {
            return;
        };
        let now = Moment::now();
        if self.alive_at.is_none_or(|at| at <= now) {
            self.send(&NotifyMessage::new().watchdog());
            self.alive_at = Some(now + patience / 2);
        }
    }

    /// Returns when the watchdog is to be fed.
    pub(crate) const fn deadline(&self) -> Option<Moment> {
        self.alive_at
    }

    fn send(&self, message: &NotifyMessage) {
        // A manager that does not listen is no reason to disturb the service.
        let _ = self.notifier.send(message);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn watchdog_is_fed_again_after_half_its_time() {
        let patience = Duration::from_secs(3600);
        let mut notifier = Notifier::silent();
        notifier.watchdog = Some(patience);
        let mut manager = Manager::new(notifier);
        let before = Moment::now();
        manager.keep_alive();
        let next = manager.deadline().unwrap();
        assert!(next >= before + patience / 2, "{next:?} is too early");
        assert!(next <= Moment::now() + patience / 2, "{next:?} is too late");
    }
}
