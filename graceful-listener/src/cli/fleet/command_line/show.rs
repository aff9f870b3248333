use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::failure::Failure;
use crate::cli::fleet::directory::Directory;
use crate::cli::fleet::state::State;
use crate::cli::fleet::status::Status;
use crate::cli::moment::Moment;

use super::{ERROR, FAILED, Stop, print, supervisor_of, table};

/// Prints how the programs are, once or again and again.
pub(super) fn status(
    directory: &Directory,
    names: &[String],
    json: bool,
    watch: Option<Duration>,
) -> Result<ExitCode, Stop> {
    loop {
        let code = once(directory, names, json, watch.is_some())?;
        match watch {
            None => return Ok(code),
            Some(pause) => thread::sleep(pause.max(SHORTEST_PAUSE)),
        }
    }
}

fn once(
    directory: &Directory,
    names: &[String],
    json: bool,
    watched: bool,
) -> Result<ExitCode, Stop> {
    let Some(mut status) = current(directory)? else {
        if json {
            print(json!({ "running": false }).to_string() + "\n");
        }
        return Err(Stop::not_running(directory));
    };
    for name in names {
        if !status.programs.iter().any(|program| program.name == *name) {
            let message = format!("{name}: there is no such program");
            return Err(Stop::new(FAILED, message));
        }
    }
    if !names.is_empty() {
        status
            .programs
            .retain(|program| names.contains(&program.name));
    }
    let text = if json {
        to_json(&status)?
    } else {
        table::render(&status, !names.is_empty())
    };
    if watched && io::stdout().is_terminal() && !json {
        print(CLEAR);
    }
    if !print(text) {
        return Err(Stop::told(ERROR));
    }
    let up = status.programs.iter().all(|program| {
        let mut instances = program.instances.iter();
        program.error.is_none() && instances.all(|instance| instance.state == State::Running)
    });
    Ok(if up {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

/// Reads what the supervisor that runs now has written; `None` if there is none.
fn current(directory: &Directory) -> Result<Option<Status>, Stop> {
    let begun = Moment::now();
    loop {
        let Some(pid) = supervisor_of(directory)? else {
            return Ok(None);
        };
        let read = Status::read(&directory.status());
        // One that has just been started has not written anything yet. Whether the number
        // is the same in our pid namespace is not for us to know.
        match read {
            Ok(status) if u32::try_from(status.pid) == Ok(pid) => return Ok(Some(status)),
            _ if begun.elapsed() < PATIENCE => thread::sleep(PAUSE),
            Ok(status) => return Ok(Some(status)),
            Err(error) => {
                let attempt = format!("failed to read {}", directory.status().display());
                return Err(Failure::io(attempt, &error).into());
            }
        }
    }
}

fn to_json(status: &Status) -> Result<String, Stop> {
    let failed = |error: serde_json::Error| Stop::new(ERROR, error.to_string());
    let mut value = serde_json::to_value(status).map_err(failed)?;
    if let Value::Object(fields) = &mut value {
        fields.insert("running".into(), true.into());
    }
    Ok(format!("{value:#}\n"))
}

const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
/// Of `--watch`: nobody reads faster, and `--watch=0` must not take a core.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
