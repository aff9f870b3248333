use std::fmt::{self, Write};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Datelike, Timelike, Utc};

use crate::duration::GoDuration;
use crate::escape::{is_plain, write_visible_char};
use crate::event::{Event, Outcome};

/// How an event is written as one line of text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) timestamps: bool,
    pub(crate) connections: bool,
    pub(crate) slow: Option<Duration>,
    pub(crate) waits: Duration,
    pub(crate) max_statement: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            timestamps: false,
            connections: false,
            slow: None,
            waits: Duration::from_millis(100),
            max_statement: 16 * 1024,
        }
    }
}

impl Style {
    /// Writes the line without its end.
    pub(crate) fn write<W: Write>(&self, out: &mut W, event: &Event<'_>) -> fmt::Result {
        if self.timestamps {
            write_time(out, SystemTime::now())?;
            out.write_str(" ")?;
        }
        out.write_str(event.op.as_str())?;
        if let (true, Some(connection)) = (self.connections, event.connection) {
            write!(out, " #{connection}")?;
        }
        if let Some(statement) = event.statement {
            out.write_str(": ")?;
            write_statement(out, statement, self.max_statement)?;
        }
        if let Some(args) = &event.args {
            out.write_str("; args = ")?;
            args.write(out)?;
        }
        if let Some(note) = event.note {
            out.write_str("; ")?;
            out.write_str(note)?;
        }
        if let Some(plan) = event.plan {
            write!(out, "; plan = {plan:?}")?;
        }
        match &event.outcome {
            Outcome::Ok => {}
            Outcome::Err(failure) => write!(out, "; err = {:?}", failure.to_string())?,
            Outcome::Cancelled => match event.rows_returned {
                0 => out.write_str("; cancelled")?,
                1 => out.write_str("; cancelled after 1 row")?,
                rows => write!(out, "; cancelled after {rows} rows")?,
            },
            Outcome::OnDrop => out.write_str("; on drop")?,
            Outcome::Running => out.write_str("; still running")?,
        }
        if self.slow.is_some_and(|slow| event.waited() >= slow) {
            out.write_str("; slow")?;
        }
        if let Some(acquire) = event.acquire.filter(|wait| *wait >= self.waits) {
            out.write_str("; acquire = ")?;
            GoDuration(acquire).write(out)?;
        }
        if let Some(request) = event.request {
            write!(out, "; request = {request:?}")?;
        }
        if let Some(caller) = event.caller {
            write!(out, "; at {caller}")?;
        }
        out.write_str(" (")?;
        match event.elapsed {
            Some(elapsed) => GoDuration(elapsed).write(out)?,
            None => out.write_str("?")?,
        }
        out.write_str(")")
    }
}

/// Writes a statement on one line: white space that breaks the line becomes
/// one blank, and what else could break or forge a line is escaped.
fn write_statement<W: Write>(out: &mut W, statement: &str, max: usize) -> fmt::Result {
    let shown = &statement[..statement.floor_char_boundary(max)];
    if is_plain(shown) {
        out.write_str(shown)?;
    } else {
        write_folded(out, shown)?;
    }
    if shown.len() < statement.len() {
        write!(out, "…({} bytes)", statement.len())?;
    }
    Ok(())
}

fn write_folded<W: Write>(out: &mut W, statement: &str) -> fmt::Result {
    let mut rest = statement.trim();
    // A comment to the end of its line must not seem to go on.
    let fold = if rest.contains("--") { "\\n " } else { " " };
    while let Some(c) = rest.chars().next() {
        let blanks = rest.len() - rest.trim_start().len();
        let white = &rest[..blanks];
        if white.contains(['\n', '\r']) {
            out.write_str(fold)?;
            rest = &rest[blanks..];
            continue;
        }
        write_visible_char(out, if c == '\t' { ' ' } else { c })?;
        rest = &rest[c.len_utf8()..];
    }
    Ok(())
}

/// `2024-02-29T12:34:56.000789Z`.
pub(crate) fn write_time<W: Write>(out: &mut W, time: SystemTime) -> fmt::Result {
    let time = DateTime::<Utc>::from(time);
    // Its own formatting allocates.
    write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.timestamp_subsec_micros()
    )
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn folded(statement: &str, max: usize) -> String {
        let mut out = String::new();
        write_statement(&mut out, statement, max).unwrap();
        out
    }

    #[test]
    fn statement_stays_on_one_line() {
        for (statement, line) in [
            ("SELECT 1", "SELECT 1"),
            ("SELECT  1", "SELECT  1"),
            ("\n  SELECT 1,\n\t\t2 \r\n FROM t\n", "SELECT 1, 2 FROM t"),
            ("SELECT\t1", "SELECT 1"),
            ("SELECT 'é'", "SELECT 'é'"),
            ("a\u{1b}[31m", "a\\u{1b}[31m"),
            ("a\u{0}b\u{85}c\u{2028}d", "a\\0b\\u{85}c\\u{2028}d"),
            ("-- all\n  DELETE\nFROM t", r"-- all\n DELETE\n FROM t"),
            ("", ""),
        ] {
            assert_eq!(folded(statement, 1000), line);
        }
    }

    #[test]
    fn long_statement_is_cut_between_characters() {
        assert_eq!(folded("SELECT 'ééé'", 10), "SELECT 'é…(15 bytes)");
        assert_eq!(folded("SELECT 'ééé'", 11), "SELECT 'é…(15 bytes)");
        assert_eq!(folded("SELECT 1", 8), "SELECT 1");
    }

    #[test]
    fn time_is_utc_with_microseconds() {
        let mut out = String::new();
        let time = UNIX_EPOCH + Duration::new(1_709_210_096, 789_999);
        write_time(&mut out, time).unwrap();
        assert_eq!(out, "2024-02-29T12:34:56.000789Z");
    }
}
