use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use crate::cli::fleet::name;
use crate::cli::fleet::state::Restart;
use crate::cli::process::{Limit, Signal, Value as LimitValue};
use crate::spec::Spec;

use super::document::{elements, kind};
use super::{LogTarget, MAX_INSTANCES};

/// What was expected instead, or what is wrong.
type Read<T> = Result<T, String>;

/// A string without NUL, which nothing in Unix can take.
pub(super) fn text(value: &DeValue<'_>) -> Read<String> {
    let text = value.as_str().ok_or_else(|| wrong("a string", value))?;
    if text.contains('\0') {
        return Err("contains a NUL byte".into());
    }
    Ok(text.into())
}

fn filled(value: &DeValue<'_>) -> Read<String> {
    filled_or(value, "a string")
}

/// A string with something in it, of a value that could be something else.
fn filled_or(value: &DeValue<'_>, expected: &str) -> Read<String> {
    if !value.is_str() {
        return Err(wrong(expected, value));
    }
    let text = text(value)?;
    if text.trim().is_empty() {
        return Err("is empty".into());
    }
    Ok(text)
}

pub(super) fn path(value: &DeValue<'_>) -> Read<PathBuf> {
    filled(value).map(PathBuf::from)
}

/// One path, or an array of them.
pub(super) fn paths(value: &DeValue<'_>) -> Read<Vec<PathBuf>> {
    match elements(value) {
        Some(all) => all.into_iter().map(path).collect(),
        None => {
            let one = filled_or(value, "a path or an array of paths")?;
            Ok(vec![one.into()])
        }
    }
}

/// The program; in an array, with its arguments.
pub(super) fn command(value: &DeValue<'_>) -> Read<Vec<OsString>> {
    if value.is_array() {
        let words = words(value)?;
        return match words.first() {
            Some(program) if !program.is_empty() => Ok(words),
            _ => Err("has no program in it".into()),
        };
    }
    let program = filled_or(value, "a string or an array of strings")?;
    if program.contains(char::is_whitespace) {
        return Err(
            "is the program alone: its arguments go into `arguments`, and one with spaces \
             in its name into an array"
                .into(),
        );
    }
    Ok(vec![program.into()])
}

pub(super) fn words(value: &DeValue<'_>) -> Read<Vec<OsString>> {
    elements(value)
        .ok_or_else(|| wrong("an array of strings", value))?
        .into_iter()
        .map(|word| text(word).map(OsString::from))
        .collect()
}

/// A line for the shell.
pub(super) fn shell(value: &DeValue<'_>) -> Read<OsString> {
    filled(value).map(OsString::from)
}

/// A user or group, by name or number.
pub(super) fn account(value: &DeValue<'_>) -> Read<String> {
    match whole(value) {
        Some(number) => u32::try_from(number)
            .map(|number| number.to_string())
            .map_err(|_| "is no id".into()),
        None => filled_or(value, "a name or a number"),
    }
}

/// An octal mask.
pub(super) fn umask(value: &DeValue<'_>) -> Read<u32> {
    let expected = "expected an octal mask up to 777, such as \"022\" or 0o022";
    let mask = match value {
        DeValue::String(text) => {
            let plain = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
            plain.then(|| u32::from_str_radix(text, 8).ok()).flatten()
        }
        DeValue::Integer(number) if number.radix() == 8 => {
            u32::from_str_radix(number.as_str(), 8).ok()
        }
        _ => None,
    };
    mask.filter(|mask| *mask <= 0o777)
        .ok_or_else(|| expected.into())
}

/// `PATH`, or `| COMMAND`.
pub(super) fn log(value: &DeValue<'_>) -> Read<LogTarget> {
    let text = filled(value)?;
    match text.trim_start().strip_prefix('|').map(str::trim) {
        Some("") => Err("has no command behind the |".into()),
        Some(command) => Ok(LogTarget::Command(command.into())),
        None => Ok(LogTarget::File(text.into())),
    }
}

pub(super) fn restart(value: &DeValue<'_>) -> Read<Restart> {
    match value.as_str() {
        Some("always") => Ok(Restart::Always),
        Some("on-failure") => Ok(Restart::OnFailure),
        Some("never") => Ok(Restart::Never),
        _ => Err("expected \"always\", \"on-failure\" or \"never\"".into()),
    }
}

/// Whether readiness is told.
pub(super) fn notify(value: &DeValue<'_>) -> Read<bool> {
    match value.as_str() {
        Some("running") => Ok(false),
        Some("notify") => Ok(true),
        _ => Err("expected \"running\" or \"notify\"".into()),
    }
}

pub(super) fn boolean(value: &DeValue<'_>) -> Read<bool> {
    value.as_bool().ok_or_else(|| wrong("true or false", value))
}

/// `"1m 30s"`, or a number of seconds.
pub(super) fn duration(value: &DeValue<'_>) -> Read<Duration> {
    let expected = || "expected a duration such as \"1m 30s\", or a number of seconds".to_owned();
    let seconds = |text: &str| {
        let seconds = text.parse().ok();
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    };
    let duration = match value {
        DeValue::String(text) => humantime::parse_duration(text).ok(),
        DeValue::Integer(_) => whole(value)
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
        DeValue::Float(number) => seconds(number.as_str()),
        _ => None,
    };
    duration
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(expected)
}

/// A duration that is not zero.
pub(super) fn positive(value: &DeValue<'_>) -> Read<Duration> {
    match duration(value)? {
        Duration::ZERO => Err("is no time at all".into()),
        duration => Ok(duration),
    }
}

/// A pause, which zero would make a busy loop.
pub(super) fn pause(value: &DeValue<'_>) -> Read<Duration> {
    match duration(value)? {
        short if short < SHORTEST_PAUSE => Err("is shorter than 1ms".into()),
        pause => Ok(pause),
    }
}

/// How many instances.
pub(super) fn count(value: &DeValue<'_>) -> Read<u32> {
    number(value, 0..=MAX_INSTANCES, &|| {
        format!(
            "a number of instances from 0 to {MAX_INSTANCES}, or {{ command = \"what prints it\" }}"
        )
    })
}

pub(super) fn retries(value: &DeValue<'_>) -> Read<u32> {
    if value.as_str() == Some("unlimited") {
        return Ok(u32::MAX);
    }
    number(value, 0..=u32::MAX, &|| "a number or \"unlimited\"".into())
}

pub(super) fn exit_codes(value: &DeValue<'_>) -> Read<Vec<i32>> {
    let expected = || "exit codes from 0 to 255 in an array".to_owned();
    elements(value)
        .ok_or_else(|| wrong(&expected(), value))?
        .into_iter()
        .map(|code| number(code, 0..=255, &expected))
        .collect()
}

pub(super) fn signal(value: &DeValue<'_>) -> Read<Signal> {
    match value {
        DeValue::String(text) => text.parse::<Signal>().map_err(|error| error.to_string()),
        DeValue::Integer(_) => whole(value)
            .and_then(|number| Signal::from_number(i32::try_from(number).ok()?))
            .ok_or_else(|| "is no signal's number".into()),
        _ => Err(wrong("a signal's name, such as \"TERM\"", value)),
    }
}

pub(super) fn priority(value: &DeValue<'_>) -> Read<i32> {
    number(value, i32::MIN..=i32::MAX, &|| "a whole number".into())
}

/// Names of other programs.
pub(super) fn names(value: &DeValue<'_>) -> Read<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    let listed = elements(value).ok_or_else(|| wrong("an array of names of programs", value))?;
    for element in listed {
        let text = text(element)?;
        name::check(&text).map_err(|why| format!("`{text}` {why}"))?;
        if !names.contains(&text) {
            names.push(text);
        }
    }
    Ok(names)
}

/// Sockets, as `start_server` takes them.
pub(super) fn listen(value: &DeValue<'_>) -> Read<Vec<String>> {
    let mut specs: Vec<Spec> = Vec::new();
    let mut texts = Vec::new();
    let listed = elements(value).ok_or_else(|| wrong("an array of addresses", value))?;
    for element in listed {
        let text = text(element)?;
        let spec = Spec::parse(OsStr::new(&text)).map_err(|error| error.to_string())?;
        if specs.contains(&spec) {
            return Err(format!("`{text}` is listed twice"));
        }
        specs.push(spec);
        texts.push(text);
    }
    Ok(texts)
}

/// A limit; `None` leaves it as it is.
pub(super) fn limit(value: &DeValue<'_>) -> Read<Option<LimitValue>> {
    let expected = || {
        "expected a number, \"SOFT:HARD\", \"unlimited\", \"max\" (the hard limit) or \"keep\""
            .to_owned()
    };
    let one = |text: &str| match text {
        "unlimited" => Some(Limit::UNLIMITED),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    };
    let pair = match value {
        DeValue::Integer(_) => whole(value)
            .and_then(|number| u64::try_from(number).ok())
            .map(|number| (number, number)),
        DeValue::String(text) => match &**text {
            "max" => return Ok(Some(LimitValue::Max)),
            "keep" => return Ok(None),
            text => match text.split_once(':') {
                Some((soft, hard)) => one(soft).zip(one(hard)),
                None => one(text).map(|number| (number, number)),
            },
        },
        _ => None,
    };
    let (soft, hard) = pair.ok_or_else(expected)?;
    if soft > hard {
        return Err("the soft limit is above the hard one".into());
    }
    Ok(Some(LimitValue::Pair(soft, hard)))
}

fn number<T: TryFrom<i64> + PartialOrd>(
    value: &DeValue<'_>,
    range: std::ops::RangeInclusive<T>,
    expected: &dyn Fn() -> String,
) -> Read<T> {
    whole(value)
        .and_then(|number| T::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            if value.is_integer() {
                format!("expected {}", expected())
            } else {
                wrong(&expected(), value)
            }
        })
}

fn whole(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn wrong(expected: &str, value: &DeValue<'_>) -> String {
    format!("expected {expected}, found {}", kind(value))
}

/// A hundred years: what is longer is a mistake, and would overflow elsewhere.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
