use std::time::Duration;

use super::Starter;
use super::worker::{Phase, Worker};
use crate::cli::failure::reason;
use crate::cli::moment::Moment;
use crate::cli::process::lineage;

impl Starter {
    /// Takes messages from workers.
    pub(super) fn hear(&mut self) {
        let Some(receiver) = &self.readiness else {
            return;
        };
        let mut heard = Vec::new();
        loop {
            match receiver.receive() {
                // What only waits for an answer has it by now.
                Ok(Some(notification)) if notification.message.value("BARRIER").is_some() => {}
                Ok(Some(notification)) => {
                    // At once: it may end when the next message, a barrier, is taken.
                    let worker = lineage(notification.pid.cast_signed())
                        .find_map(|ancestor| self.worker_of(ancestor));
                    heard.push((worker, notification));
                }
                Ok(None) => break,
                Err(error) => {
                    self.log.line(format_args!(
                        "failed to receive from the workers: {}",
                        reason(&error)
                    ));
                    break;
                }
            }
        }
        for (pid, notification) in heard {
            let mut all = self
                .current
                .iter_mut()
                .chain(&mut self.candidate)
                .chain(&mut self.old);
            let Some(worker) = all.find(|worker| Some(worker.pid()) == pid) else {
                self.log.line(format_args!(
                    "ignored a notification from process {}, which is no worker's",
                    notification.pid
                ));
                continue;
            };
            if let Some(text) = notification.message.value("STATUS") {
                worker.status = Some(text.into());
            }
            if let Some(time) = notification.message.value("EXTEND_TIMEOUT_USEC")
                && worker.phase == Phase::Starting
                && let Ok(micros) = time.parse()
            {
                let extended = Moment::now() + Duration::from_micros(micros);
                self.verdict_at = self.verdict_at.max(Some(extended));
            }
            if notification.message.is_ready() && worker.phase == Phase::Starting {
                self.log
                    .line(format_args!("worker {} is ready", worker.pid()));
                self.accept();
            }
        }
    }

    /// Returns the number of the worker that this process is, or whose process group it
    /// belongs to.
    fn worker_of(&self, (pid, group): (i32, i32)) -> Option<i32> {
        self.workers()
            .map(Worker::pid)
            .find(|worker| [pid, group].contains(worker))
    }
}
