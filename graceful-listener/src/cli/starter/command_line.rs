use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use super::arguments::{Arguments, Opt, UsageError, Value};
use super::control::{Request, Target};
use super::options::{LogTarget, OpenFiles, Options, WAIT_READY};
use super::{Starter, handover};
use crate::cli::log_keeper::House;
use crate::cli::succession::Invocation;

/// Runs the program `start_server` with these arguments, the first of which is
/// its own name, and returns its exit code.
///
/// The options are those of Perl's `Server::Starter` and more; `--help` tells them.
#[must_use]
pub fn start_server(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let in_order = std::env::var_os("POSIXLY_CORRECT").is_some();
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(code) = HOUSE.keep(&args) {
        return code;
    }
    let command = Arguments::parse(&TABLE, args.iter().skip(1).cloned(), in_order)
        .and_then(|arguments| Command::read(arguments).map_err(|error| vec![error]));
    match command {
        Ok(command) => command.run(args),
        Err(errors) => {
            for error in errors {
                complain(&error);
            }
            complain(&"Try `start_server --help`.");
            ExitCode::FAILURE
        }
    }
}

/// What is to be done.
#[derive(Debug)]
enum Command {
    Help,
    Version,
    Start(Box<Options>),
    CheckResume(i32),
    Control(Request, Target),
    Fail(String),
}

impl Command {
    fn read(arguments: Arguments) -> Result<Self, UsageError> {
        let mut options = Options::new(arguments.rest);
        let mut flags: Vec<&str> = Vec::new();
        let (mut timeout, mut check) = (None, None);
        for (opt, value) in arguments.options {
            match value {
                Some(value) if opt.name == "timeout" => {
                    let text = value.to_string_lossy();
                    let time = seconds(&text);
                    timeout = Some(time.map_err(|error| {
                        UsageError::Invalid(opt.name, text.into_owned(), error.into())
                    })?);
                }
                Some(value) if opt.name == handover::CHECK => {
                    check = value.to_str().and_then(|fd| fd.parse().ok())
                }
                Some(value) => assign(&mut options, opt.name, value)?,
                None => match opt.name {
                    "wait-ready" => options.wait_ready = Some(WAIT_READY),
                    "enable-auto-restart" => options.enable_auto_restart = true,
                    "daemonize" => options.daemonize = true,
                    flag => flags.push(flag),
                },
            }
        }
        let is = |name: &str| flags.contains(&name);
        if is("die-with-parent") {
            // Wherever among the options that signal is told.
            let signal = options.signal_on_term;
            options.die_with_parent.get_or_insert(signal);
        }
        Ok(if is("help") {
            Self::Help
        } else if is("version") {
            Self::Version
        } else if let Some(fd) = check {
            Self::CheckResume(fd)
        } else if let Some(request) = Request::read(&is) {
            let target = Target {
                pid_file: options.pid_file,
                status_file: options.status_file,
                timeout,
            };
            match request.check(&target, &options.exec) {
                Ok(()) => Self::Control(request, target),
                Err(message) => Self::Fail(message),
            }
        } else if is("json") {
            Self::Fail("--json option requires --status to be set as well".into())
        } else if timeout.is_some() {
            Self::Fail("--timeout option requires --restart or --stop to be set as well; did you mean --wait-ready=SECS or --stop-timeout=SECS?".into())
        } else if options.daemonize && options.log_file.is_none() {
            Self::Fail(
                "Usage: --log-file option must be specified together with --daemonize".into(),
            )
        } else if options.exec.is_empty() {
            Self::Fail("server program not specified".into())
        } else {
            Self::Start(Box::new(options))
        })
    }

    fn run(self, args: Vec<OsString>) -> ExitCode {
        match self {
            Self::Help => print(HELP),
            Self::Version => print(concat!(env!("CARGO_PKG_VERSION"), "\n")),
            Self::Fail(message) => {
                complain(&message);
                ExitCode::from(NO_ERRNO)
            }
            Self::Control(request, target) => request.run(&target),
            Self::CheckResume(fd) => match handover::check(fd) {
                Ok(answer) => print(answer),
                Err(failure) => {
                    complain(&failure);
                    ExitCode::FAILURE
                }
            },
            Self::Start(options) => {
                match Starter::main(*options, Invocation::new(args, "start_server")) {
                    Ok(code) => code,
                    Err(failure) => {
                        complain(&failure);
                        ExitCode::from(failure.code())
                    }
                }
            }
        }
    }
}

fn assign(options: &mut Options, name: &'static str, value: OsString) -> Result<(), UsageError> {
    let text = value.to_string_lossy().into_owned();
    let invalid = |reason: &dyn std::fmt::Display| {
        UsageError::Invalid(name, text.clone(), reason.to_string())
    };
    let path = |value: OsString| Some(value).filter(is_given).map(PathBuf::from);
    match name {
        "port" => options.ports.push(value),
        "path" => options.paths.push(value.into()),
        "interval" => options.interval = whole_seconds(&text),
        "log-file" => options.log_file = log_target(value),
        "pid-file" => options.pid_file = path(value),
        "status-file" => options.status_file = path(value),
        "dir" => options.dir = Some(value.into()),
        "signal-on-hup" | "signal-on-term" if !is_given(&value) => {}
        "signal-on-hup" => {
            options.signal_on_hup =
                parse(&text).map_err(|e: crate::cli::process::UnknownSignal| invalid(&e))?
        }
        "signal-on-term" => {
            options.signal_on_term =
                parse(&text).map_err(|e: crate::cli::process::UnknownSignal| invalid(&e))?
        }
        "backlog" => {
            options.backlog = match integer(&text) {
                0 => options.backlog,
                backlog => i32::try_from(backlog).unwrap_or(i32::MAX),
            }
        }
        "envdir" => options.envdir = Some(value),
        "auto-restart-interval" => options.auto_restart_interval = Some(whole_seconds(&text)),
        "kill-old-delay" => options.kill_old_delay = Some(whole_seconds(&text)),
        "wait-ready" => options.wait_ready = Some(seconds(&text).map_err(|e| invalid(&e))?),
        "stop-timeout" => {
            options.stop_timeout =
                Some(seconds(&text).map_err(|e| invalid(&e))?).filter(|time| !time.is_zero());
        }
        "max-old" => options.max_old = text.parse().map_err(|_| invalid(&"expected a number"))?,
        "retry-delay" => options.retry_delay = Some(seconds(&text).map_err(|e| invalid(&e))?),
        "retry-max-delay" => options.retry_max_delay = seconds(&text).map_err(|e| invalid(&e))?,
        "die-with-parent" => {
            options.die_with_parent =
                Some(parse(&text).map_err(|e: crate::cli::process::UnknownSignal| invalid(&e))?);
        }
        "user" => options.user = Some(text),
        "group" => options.group = Some(text),
        "umask" => options.umask = Some(octal(&text).map_err(|e| invalid(&e))?),
        "socket-mode" => options.socket_mode = octal(&text).map_err(|e| invalid(&e))?,
        "env-file" => options.env_files.push(value.into()),
        "log-format" => options.log_format = parse(&text).map_err(|e: String| invalid(&e))?,
        "open-files" => {
            options.nofile = match text.as_str() {
                "max" => OpenFiles::Max,
                "keep" => OpenFiles::Keep,
                number => OpenFiles::Soft(
                    number
                        .parse()
                        .map_err(|_| invalid(&"expected max, keep or a number"))?,
                ),
            }
        }
        "cgroup" => options.cgroup = Some(value.into()),
        _ => {}
    }
    Ok(())
}

/// Perl takes an empty text, and 0, for an option that was not given.
fn is_given(value: &OsString) -> bool {
    !value.is_empty() && value != "0"
}

fn parse<T: FromStr>(text: &str) -> Result<T, T::Err> {
    text.parse()
}

/// Reads a whole number as Perl does; it has been checked already.
fn integer(text: &str) -> i64 {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    digits.parse().unwrap_or(if digits.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    })
}

/// A negative time is none, as for Perl's `sleep`.
fn whole_seconds(text: &str) -> Duration {
    Duration::from_secs(u64::try_from(integer(text)).unwrap_or(0))
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let plain = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = plain.then(|| text.parse().ok()).flatten();
    number
        .and_then(|number| Duration::try_from_secs_f64(number).ok())
        .ok_or("expected seconds")
}

fn octal(text: &str) -> Result<u32, &'static str> {
    let plain = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let number = plain.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    number
        .filter(|mode| *mode <= 0o777)
        .ok_or("expected an octal mode up to 777")
}

/// `FILE`, or `| COMMAND`.
fn log_target(value: OsString) -> Option<LogTarget> {
    let bytes = value.as_bytes().trim_ascii_start();
    match bytes.strip_prefix(b"|") {
        Some(command) => Some(LogTarget::Command(OsString::from_vec(
            command.trim_ascii_start().to_vec(),
        ))),
        None if !is_given(&value) => None,
        None => Some(LogTarget::File(value.into())),
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(message: &dyn std::fmt::Display) {
    // Nobody is left to be told if it fails.
    let _ = writeln!(std::io::stderr(), "{message}");
}

const fn perl(name: &'static str, value: Value) -> Opt {
    Opt {
        name,
        value,
        perl: true,
    }
}

const fn own(name: &'static str, value: Value) -> Opt {
    Opt {
        name,
        value,
        perl: false,
    }
}

static TABLE: [Opt; 37] = [
    perl("port", Value::Text),
    perl("path", Value::Text),
    perl("interval", Value::Integer),
    perl("log-file", Value::Text),
    perl("pid-file", Value::Text),
    perl("dir", Value::Text),
    perl("signal-on-hup", Value::Text),
    perl("signal-on-term", Value::Text),
    perl("backlog", Value::Integer),
    perl("envdir", Value::Text),
    perl("enable-auto-restart", Value::None),
    perl("daemonize", Value::None),
    perl("auto-restart-interval", Value::Integer),
    perl("kill-old-delay", Value::Integer),
    perl("status-file", Value::Text),
    perl("restart", Value::None),
    perl("stop", Value::None),
    perl("help", Value::None),
    perl("version", Value::None),
    own("wait-ready", Value::Optional),
    own("stop-timeout", Value::Text),
    own("max-old", Value::Text),
    own("retry-delay", Value::Text),
    own("retry-max-delay", Value::Text),
    own("status", Value::None),
    own("json", Value::None),
    own("timeout", Value::Text),
    own("die-with-parent", Value::Optional),
    own("user", Value::Text),
    own("group", Value::Text),
    own("umask", Value::Text),
    own("socket-mode", Value::Text),
    own("env-file", Value::Text),
    own("log-format", Value::Text),
    own("open-files", Value::Text),
    own("cgroup", Value::Text),
    own(handover::CHECK, Value::Text),
];

const HOUSE: House = House {
    program: "start_server",
    // Not what those look for who signal all of a name.
    name: c"starter-log",
    is_one_log: true,
};

const HELP: &str = include_str!("help.txt");

const NO_ERRNO: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_be_grouped_and_are_none_below_zero() {
        let secs = |text: &str| whole_seconds(text).as_secs();
        assert_eq!((secs("1_000"), secs("+7"), secs("-1_0")), (1000, 7, 0));
    }

    #[test]
    fn defaults_are_those_that_the_help_tells() {
        let told = |option: &str| {
            let (_, text) = HELP.split_once(&format!("\n  --{option}")).unwrap();
            let text = text.split("\n  --").next().unwrap();
            let (_, text) = text.split_once('(').unwrap();
            let text = text.trim_start_matches("default: ");
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap();
            text[..end].to_owned()
        };
        let secs = |time: Duration| time.as_secs().to_string();
        let options = Options::new(Vec::new());
        assert_eq!(told("socket-mode"), format!("0{:o}", options.socket_mode));
        assert_eq!(told("backlog"), options.backlog.to_string());
        assert_eq!(told("interval"), secs(options.interval));
        assert_eq!(told("wait-ready"), secs(WAIT_READY));
        assert_eq!(told("retry-max-delay"), secs(options.retry_max_delay));
        assert_eq!(told("stop-timeout"), secs(options.stop_timeout.unwrap()));
        assert_eq!(told("max-old"), options.max_old.to_string());
    }
}
