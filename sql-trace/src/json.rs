use std::fmt;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use crate::args::{ArgValue, Args, ArgsMode, Source};
use crate::event::Event;
use crate::line::write_time;
use crate::tracer::Tracer;
use crate::writer::{LostLines, with_line};

/// Writes each event to `w` as one JSON object on one line, in one `write`.
///
/// ```text
/// {"time":"2024-02-29T12:34:56.000789Z","op":"Exec","database":"SQLite",
///  "namespace":"app.db","connection":3,"statement":"DELETE FROM t WHERE id = ?",
///  "args":["int"],"outcome":"ok","acquire":0.000010211,"elapsed":0.000044535,
///  "rows_affected":1}
/// ```
///
/// (On one line.) Times are in seconds. `outcome` is `ok`, `error`,
/// `cancelled`, `on_drop` or `running`; with `error` come `error`, its text,
/// and `code`. `args` are kinds, or, in
/// [`ArgsMode::Values`](crate::ArgsMode::Values), values: numbers, texts,
/// `null`; byte strings as `"0x…"`. What there is not is left out.
///
/// A line that cannot be written is lost and counted, see
/// [`JsonLines::lost`]. `w` is not flushed.
pub fn json<W: Write + Send + 'static>(w: W) -> JsonLines<W> {
    JsonLines {
        out: Mutex::new(w),
        lost: LostLines::default(),
    }
}

/// A tracer that writes JSON; made by [`json`].
pub struct JsonLines<W> {
    out: Mutex<W>,
    lost: LostLines,
}

impl<W> JsonLines<W> {
    /// The count of lines that could not be written.
    pub fn lost(&self) -> LostLines {
        self.lost.clone()
    }
}

impl<W: Write + Send + 'static> Tracer for JsonLines<W> {
    fn trace(&self, event: &Event<'_>) {
        let object = Object::of(event);
        with_line(|line| {
            let mut bytes = std::mem::take(line).into_bytes();
            // Neither the object nor a Vec can fail.
            let _ = serde_json::to_writer(&mut bytes, &object);
            bytes.push(b'\n');
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            let result = out.write_all(&bytes);
            drop(out);
            self.lost.note(result);
            *line = String::from_utf8(bytes).unwrap_or_default();
        });
    }
}

impl<W> fmt::Debug for JsonLines<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLines")
            .field("lost", &self.lost.count())
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Object<'a> {
    time: String,
    op: &'static str,
    database: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acquire: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_row: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows_returned: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows_affected: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
}

impl<'a> Object<'a> {
    fn of(event: &Event<'a>) -> Self {
        let mut time = String::new();
        // Writing to a String does not fail.
        let _ = write_time(&mut time, SystemTime::now());
        let failure = event.outcome.failure();
        let seconds = |duration: Option<Duration>| duration.map(|d| d.as_secs_f64());
        Self {
            time,
            op: event.op.as_str(),
            database: event.database.name,
            namespace: event.database.namespace.as_deref(),
            connection: event.connection.map(|id| id.get()),
            statement: event.statement,
            args: event.args.as_ref().map(values),
            note: event.note,
            plan: event.plan,
            outcome: event.outcome.as_str(),
            error: failure.map(|failure| failure.to_string()),
            code: failure.and_then(|failure| failure.code().map(Into::into)),
            acquire: seconds(event.acquire),
            elapsed: seconds(event.elapsed),
            first_row: seconds(event.first_row),
            consumer: seconds((!event.consumer.is_zero()).then_some(event.consumer)),
            rows_returned: event.first_row.map(|_| event.rows_returned),
            rows_affected: event.rows_affected,
            request: event.request,
            caller: event.caller.map(|caller| caller.to_string()),
        }
    }
}

/// The arguments as an array, or as text where they are hidden.
fn values(args: &Args<'_>) -> Value {
    let Source::Captured(source) = args.source else {
        return if args.is_empty() {
            Value::Array(Vec::new())
        } else {
            args.to_string().into()
        };
    };
    let limit = match args.mode {
        ArgsMode::Hidden => return args.to_string().into(),
        ArgsMode::Kinds => 0,
        ArgsMode::Values { max } => max,
    };
    let mut values = Vec::with_capacity(source.count());
    let decoded = source.decode(limit, &mut |value| {
        values.push(match args.mode {
            ArgsMode::Values { max } => shown(&value, max),
            _ => written(|out| value.write_kind(out)),
        });
    });
    if decoded.is_err() || values.len() != source.count() {
        return args.to_string().into();
    }
    Value::Array(values)
}

fn shown(value: &ArgValue<'_>, max: usize) -> Value {
    match value {
        ArgValue::Null => Value::Null,
        ArgValue::Bool(v) => (*v).into(),
        ArgValue::Int(v) => (*v).into(),
        ArgValue::UInt(v) => (*v).into(),
        ArgValue::Float(v) if v.is_finite() => (*v).into(),
        // By way of its shortest text, which the wider type would make longer.
        ArgValue::Real(v) if v.is_finite() => {
            v.to_string().parse::<f64>().unwrap_or_default().into()
        }
        ArgValue::Text { text, len } if text.len() <= max && *len == Some(text.len()) => {
            text.as_ref().into()
        }
        // Shortened, or of a kind that JSON does not have.
        value => written(|out| value.write_value(out, max)),
    }
}

fn written(write: impl FnOnce(&mut String) -> fmt::Result) -> Value {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write(&mut text);
    text.into()
}
