use std::collections::VecDeque;
use std::time::Duration;

use super::Starter;
use super::worker::Phase;
use crate::failure::reason;
use crate::moment::Moment;
use crate::process::lineage;

impl Starter {
    /// Takes messages from workers.
    pub(super) fn hear(&mut self) {
        let Some(receiver) = &self.readiness else {
            return;
        };
        let mut heard = VecDeque::new();
        loop {
            match receiver.receive() {
                Ok(Some(notification)) => heard.push_back(notification),
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
        for notification in heard {
            let pid = notification.pid.cast_signed();
            let mut all = self
                .current
                .iter_mut()
                .chain(&mut self.candidate)
                .chain(&mut self.old);
            let Some(worker) = all.find(|worker| is_descendant(pid, worker.pid())) else {
                self.log.line(format_args!(
                    "ignored a notification from process {pid}, which is no worker's"
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
}

/// Returns true if `pid` is the worker, was started by it or by what it started,
/// or belongs to its process group.
fn is_descendant(pid: i32, worker: i32) -> bool {
    lineage(pid).any(|(pid, group)| pid == worker || group == worker)
}
