use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;
use nix::sys::resource::Resource;

use crate::cli::failure::reason;
use crate::cli::process::{Limit, Signal, Value as LimitValue};

use super::owner;
use super::state::Restart;

use self::document::{Document, Table};

mod document;
mod value;

/// What is wanted of one program: the contents of `programs/NAME.toml`.
///
/// Relative paths are relative to the directory that `programs/` is in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Definition {
    /// The program, looked for in the `PATH` if it has no slash.
    pub(crate) command: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) instances: Instances,
    /// Where it runs.
    pub(crate) directory: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) umask: Option<u32>,
    /// Added to what the supervisor has, after the files.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Files of `NAME=VALUE` lines, read before each start.
    pub(crate) env_files: Vec<PathBuf>,
    /// Where its output goes; `log/NAME.log` by default.
    pub(crate) log: Option<LogTarget>,
    pub(crate) restart: Restart,
    /// How long an instance must live to be found running.
    pub(crate) start_seconds: Duration,
    /// How many starts may fail after the first, in a row.
    pub(crate) retries: u32,
    /// The pause before the first retry, doubled for each further one.
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
    /// Those that are no failure.
    pub(crate) exit_codes: Vec<i32>,
    pub(crate) stop_signal: Signal,
    /// From the signal to SIGKILL.
    pub(crate) stop_timeout: Duration,
    pub(crate) max_lifetime: Option<Duration>,
    /// Lower ones start first and stop last.
    pub(crate) priority: i32,
    /// Whether it runs without having been asked to.
    pub(crate) autostart: bool,
    /// Those that must be up before it is started.
    pub(crate) depends_on: Vec<String>,
    pub(crate) ready: Ready,
    pub(crate) limits: Vec<Limit>,
    /// Specifications of the sockets that it is given.
    pub(crate) listen: Vec<String>,
}

/// How many of it are to run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Instances {
    Count(u32),
    /// As many as a command prints.
    Command {
        /// What the shell runs.
        command: OsString,
        /// How often.
        interval: Duration,
        /// Never more than this.
        max: u32,
    },
}

/// Where output goes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LogTarget {
    /// A file that is appended to.
    File(PathBuf),
    /// A command that reads it.
    Command(OsString),
}

/// When others that depend on it may start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ready {
    /// When it has lived for its start seconds.
    Running,
    /// When it has said so through `NOTIFY_SOCKET`; it has failed to start if it
    /// has not by then.
    Notify { timeout: Duration },
}

impl Definition {
    /// Reads the text of a file, if nobody can have written it who may not command
    /// this fleet.
    ///
    /// # Errors
    ///
    /// Fails with the file and the reason.
    pub(crate) fn text(file: &Path) -> Result<String, String> {
        let refused = |why: &str| format!("{}: {why}", file.display());
        let io = |error| refused(&reason(&error));
        // What blocks when it is opened is no file.
        let mut opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(file)
            .map_err(io)?;
        let metadata = opened.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(refused("is no file"));
        }
        owner::check(&metadata).map_err(|why| refused(&why))?;
        let mut text = Vec::new();
        Read::by_ref(&mut opened)
            .take(MAX_SIZE + 1)
            .read_to_end(&mut text)
            .map_err(io)?;
        if text.len() as u64 > MAX_SIZE {
            return Err(refused(&format!("is larger than {MAX_SIZE} bytes")));
        }
        String::from_utf8(text).map_err(|error| {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
            format!("{}:{line}: is no UTF-8", file.display())
        })
    }

    /// Reads the definition that is the text of a file.
    ///
    /// # Errors
    ///
    /// Fails with all that is wrong in it, one mistake a line: file, line, key and
    /// value, and what is allowed.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, String> {
        let document = Document::new(file, text);
        let mut table = document.root()?;
        let definition = Self::take(&mut table);
        let mistaken_for_itself = |definition: &Self| {
            let name = file.file_stem().and_then(|stem| stem.to_str());
            definition.depends_on.iter().any(|on| Some(&**on) == name)
        };
        if definition.as_ref().is_some_and(mistaken_for_itself) {
            table.refuse("depends_on", "a program cannot depend on itself");
        }
        table.end();
        document.conclude(definition)
    }

    /// `None` if something is wrong without which there is no definition.
    fn take(table: &mut Table<'_, '_>) -> Option<Self> {
        let words = table.take("command", value::command);
        if words.is_none() {
            table.require("command", "the program to run");
        }
        let args = table.take("arguments", value::words).unwrap_or_default();
        let backoff = table.take("backoff", value::pause);
        let backoff_max = table
            .take("backoff_max", value::pause)
            .unwrap_or(BACKOFF_MAX);
        if backoff.is_some_and(|backoff| backoff > backoff_max) {
            let max = humantime::format_duration(backoff_max);
            table.refuse("backoff", format_args!("longer than backoff_max, {max}"));
        }
        let notify = table.take("ready", value::notify).unwrap_or(false);
        let ready_timeout = table.take("ready_timeout", value::positive);
        if ready_timeout.is_some() && !notify {
            table.refuse(
                "ready_timeout",
                "has a meaning with ready = \"notify\" only",
            );
        }
        let definition = Self {
            command: OsString::new(),
            args: Vec::new(),
            instances: instances(table),
            directory: table.take("directory", value::path),
            user: table.take("user", value::account),
            group: table.take("group", value::account),
            umask: table.take("umask", value::umask),
            environment: environment(table),
            env_files: table.take("env_file", value::paths).unwrap_or_default(),
            log: table.take("log", value::log),
            restart: table
                .take("restart", value::restart)
                .unwrap_or(Restart::OnFailure),
            start_seconds: table
                .take("start_seconds", value::duration)
                .unwrap_or(Duration::from_secs(1)),
            retries: table.take("retries", value::retries).unwrap_or(3),
            backoff: backoff.unwrap_or(BACKOFF.min(backoff_max)),
            backoff_max,
            exit_codes: table
                .take("exit_codes", value::exit_codes)
                .unwrap_or_else(|| vec![0]),
            stop_signal: table
                .take("stop_signal", value::signal)
                .unwrap_or(Signal::TERM),
            stop_timeout: table
                .take("stop_timeout", value::duration)
                .unwrap_or(Duration::from_secs(10)),
            max_lifetime: table.take("max_lifetime", value::positive),
            priority: table.take("priority", value::priority).unwrap_or(999),
            autostart: table.take("autostart", value::boolean).unwrap_or(true),
            depends_on: table.take("depends_on", value::names).unwrap_or_default(),
            ready: if notify {
                Ready::Notify {
                    timeout: ready_timeout.unwrap_or(Duration::from_secs(60)),
                }
            } else {
                Ready::Running
            },
            limits: limits(table),
            listen: table.take("listen", value::listen).unwrap_or_default(),
        };
        let mut words = words?.into_iter();
        let command = words.next()?;
        let mut args: Vec<_> = words.chain(args).collect();
        args.shrink_to_fit();
        Some(Self {
            command,
            args,
            ..definition
        })
    }
}

fn instances(table: &mut Table<'_, '_>) -> Instances {
    let Some(mut polled) = table.table("instances") else {
        let count = table.take("instances", value::count);
        return Instances::Count(count.unwrap_or(1));
    };
    let command = polled.take("command", value::shell);
    if command.is_none() {
        polled.require("command", "what prints the number of instances wanted");
    }
    let interval = polled.take("interval", value::positive);
    let max = polled.take("max", value::count);
    polled.end();
    Instances::Command {
        command: command.unwrap_or_default(),
        interval: interval.unwrap_or(Duration::from_secs(10)),
        max: max.unwrap_or(1000),
    }
}

fn environment(table: &mut Table<'_, '_>) -> Vec<(OsString, OsString)> {
    let Some(mut variables) = table.table("environment") else {
        table.expect("environment", "a table of NAME = \"VALUE\"");
        return Vec::new();
    };
    let mut pairs = Vec::new();
    for name in variables.keys() {
        if name.is_empty() || name.contains(['=', '\0']) {
            variables.refuse(&name, "is no name of a variable");
        } else if let Some(value) = variables.take(&name, value::text) {
            pairs.push((name.into(), value.into()));
        }
    }
    pairs
}

fn limits(table: &mut Table<'_, '_>) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut open_files = Some(LimitValue::Max);
    if let Some(mut wanted) = table.table("limits") {
        for name in Limit::names() {
            let value = wanted.take(name, value::limit);
            match (Limit::resource(name), value) {
                (Some(Resource::RLIMIT_NOFILE), Some(value)) => open_files = value,
                (Some(resource), Some(Some(value))) => limits.push(Limit { resource, value }),
                _ => {}
            }
        }
        wanted.end();
    } else {
        table.expect("limits", "a table such as { nofile = \"max\", core = 0 }");
    }
    limits.extend(open_files.map(|value| Limit {
        resource: Resource::RLIMIT_NOFILE,
        value,
    }));
    limits.shrink_to_fit();
    limits
}

/// More than a machine could take is a mistake.
pub(crate) const MAX_INSTANCES: u32 = 100_000;
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
const MAX_SIZE: u64 = 1 << 20;

#[cfg(test)]
mod tests;
