use std::ffi::OsString;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use crate::cli::failure::Failure;
use crate::cli::fleet::directory::Directory;
use crate::cli::fleet::inbox::{Command, Inbox};
use crate::cli::moment::Moment;

use super::{FAILED, NOT_RUNNING, Stop, TIMED_OUT, complain, print, supervisor_of};

/// Asks for each of the commands, and waits until all have been answered.
pub(super) fn ask(
    directory: &Directory,
    commands: &[Command],
    timeout: Option<Duration>,
) -> Result<ExitCode, Stop> {
    if supervisor_of(directory)?.is_none() {
        return Err(Stop::not_running(directory));
    }
    let end = timeout.map(|timeout| Moment::now() + timeout);
    let inbox = Inbox::new(directory);
    let mut waiting: Vec<(OsString, &Command)> = Vec::new();
    for command in commands {
        let name = inbox.submit(command).map_err(|error| {
            Failure::io(
                format_args!(
                    "failed to write {command} to {}",
                    directory.inbox().display()
                ),
                &error,
            )
        })?;
        waiting.push((name, command));
    }
    let mut failed = false;
    let mut missing_since = None;
    let mut pause = FIRST_PAUSE;
    let mut looked = Moment::now();
    loop {
        let before = waiting.len();
        let mut left = Vec::new();
        for (name, command) in waiting {
            let answer = inbox.answered(&name).map_err(|error| {
                Failure::io(
                    format_args!("failed to read the answer to {command}"),
                    &error,
                )
            })?;
            match answer {
                Some(Ok(text)) => {
                    print(tell(command, &text, "done") + "\n");
                }
                Some(Err(text)) => {
                    failed = true;
                    complain(&tell(command, &text, "failed, see the log of fleet"));
                }
                None => left.push((name, command)),
            }
        }
        waiting = left;
        if waiting.is_empty() {
            break;
        }
        if end.is_some_and(|end| Moment::now() >= end) {
            let time = humantime::format_duration(timeout.unwrap_or_default());
            return Err(Stop::new(
                TIMED_OUT,
                format!("timed out after {time}: {} under way", list(&waiting)),
            ));
        }
        if looked.elapsed() >= LOOK {
            looked = Moment::now();
            if supervisor_of(directory)?.is_some() {
                missing_since = None;
            } else {
                // Another one may be about to follow, and go on with it.
                let since = *missing_since.get_or_insert(looked);
                if since.elapsed() >= PATIENCE {
                    return Err(Stop::new(
                        NOT_RUNNING,
                        format!(
                            "fleet has ended in {}: {} left for the next one",
                            directory.root().display(),
                            list(&waiting)
                        ),
                    ));
                }
            }
        }
        pause = if waiting.len() < before {
            FIRST_PAUSE
        } else {
            (pause * 2).min(LAST_PAUSE)
        };
        thread::sleep(pause);
    }
    if failed {
        return Err(Stop::told(FAILED));
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(command: &Command, answer: &str, otherwise: &str) -> String {
    let answer = answer.trim();
    let answer = if answer.is_empty() { otherwise } else { answer };
    format!("{command}: {answer}")
}

fn list(waiting: &[(OsString, &Command)]) -> String {
    let shown: Vec<_> = waiting
        .iter()
        .take(MAX_SHOWN)
        .map(|(_, command)| command.to_string())
        .collect();
    let (text, more) = (shown.join(", "), waiting.len() - shown.len());
    let verb = if waiting.len() == 1 { "is" } else { "are" };
    match more {
        0 => format!("{text} {verb}"),
        more => format!("{text} and {more} more {verb}"),
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LAST_PAUSE: Duration = Duration::from_millis(50);
/// How often it is found out whether the supervisor still runs.
const LOOK: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(2);
const MAX_SHOWN: usize = 5;
