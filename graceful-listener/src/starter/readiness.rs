use std::collections::VecDeque;
use std::time::Duration;

use super::Starter;
use super::worker::Phase;
use crate::failure::reason;
use crate::moment::Moment;

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
    let mut at = pid;
    for _ in 0..MAX_DEPTH {
        if at == worker {
            return true;
        }
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{at}/stat")) else {
            return false;
        };
        // State, parent and group follow the name, which stands in parentheses.
        let mut fields = stat
            .rsplit_once(") ")
            .map_or("", |(_, rest)| rest)
            .split(' ')
            .skip(1);
        let mut number = || {
            fields
                .next()
                .and_then(|field| field.parse().ok())
                .unwrap_or(0)
        };
        let (parent, group): (i32, i32) = (number(), number());
        if group == worker {
            return true;
        }
        if parent <= 1 {
            return false;
        }
        at = parent;
    }
    false
}

/// Process trees are not deeper, unless the table changes while it is read.
const MAX_DEPTH: usize = 64;
