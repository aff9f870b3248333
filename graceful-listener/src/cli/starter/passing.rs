use super::Starter;
use crate::cli::process::Signal;

impl Starter {
    /// Passes a signal on to the workers that are prepared for it.
    pub(super) fn forward(&self, signal: Signal) {
        for worker in self.current.iter().chain(&self.candidate) {
            if catches(worker.pid(), signal) {
                let _ = worker.process.signal(signal);
            } else {
                self.log.line(format_args!(
                    "received {signal}, not passed on: worker {} does not handle it",
                    worker.pid()
                ));
            }
        }
    }
}

/// Returns true if the process has a handler for the signal.
fn catches(pid: i32, signal: Signal) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return false;
    };
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask >> (signal.number() - 1) & 1 == 1)
}
