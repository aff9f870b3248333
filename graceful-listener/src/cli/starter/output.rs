use super::Starter;
use super::options::LogTarget;
use crate::cli::descriptor;
use crate::cli::failure::reason;
use crate::cli::log::append_to;

impl Starter {
    /// Starts the log command again if it has ended.
    pub(super) fn watch_log(&mut self) {
        if let Some(log) = &mut self.log_command
            && let Some(process) = log.look_after(&self.log)
        {
            // If it cannot be watched, it is looked after at the next event.
            let _ = self
                .watch
                .add(process, u64::from(process.pid().unsigned_abs()));
        }
    }

    /// Notes where the log ends now; `None` if it cannot be read again.
    pub(super) fn mark_log(&self) -> Option<u64> {
        match &self.log_command {
            Some(log) => log.tail.as_ref().map(|tail| tail.written()),
            None => self.log.mark(),
        }
    }

    /// Returns the last lines of the log since `mark`, by whomever.
    pub(super) fn log_since(&self, mark: Option<u64>) -> Vec<String> {
        let Some(mark) = mark else {
            return Vec::new();
        };
        match &self.log_command {
            Some(log) => log
                .tail
                .as_ref()
                .map_or_else(Vec::new, |tail| tail.since(mark)),
            None => self.log.since(mark),
        }
    }

    /// Opens the log file once more: it may have been moved away.
    pub(super) fn reopen_log(&self) {
        let Some(LogTarget::File(path)) = &self.options.log_file else {
            return;
        };
        let led = append_to(path, NEW_LOG).and_then(|file| {
            descriptor::redirect(&file, 1)?;
            descriptor::redirect(&file, 2)
        });
        match led {
            Ok(()) => self.log.line(format_args!(
                "received USR1, opened {} again",
                path.display()
            )),
            Err(error) => {
                self.log.line(format_args!(
                    "failed to open log file:{}: {}",
                    path.display(),
                    reason(&error)
                ));
            }
        }
    }
}

/// As the mask allows.
pub(super) const NEW_LOG: u32 = 0o666;
