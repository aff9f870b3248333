//! A tracer that keeps what it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sql_trace::{ArgsMode, Event, Outcome, Tracer};

/// What was told, in two forms: the facts of each event, and its line.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    facts: Vec<String>,
    lines: Vec<String>,
    longest_wait: Duration,
    /// The numbers of connections in the order of their first appearance.
    connections: Vec<u64>,
}

impl Recorder {
    /// The tracer: values go into the facts, and kinds into the lines.
    pub(crate) fn tracer(&self) -> impl Tracer + use<> {
        let (facts, lines) = (self.clone(), self.clone());
        let facts = move |event: &Event<'_>| facts.note_facts(event);
        let lines = move |event: &Event<'_>| lines.note_line(event);
        facts.args(ArgsMode::Values { max: 64 }).and(lines)
    }

    fn note_line(&self, event: &Event<'_>) {
        let line = event.to_string();
        let is_long = event.acquire.is_some_and(|wait| wait >= LONG_WAIT);
        assert_eq!(line.contains("; acquire = "), is_long, "{line}");
        self.0.lock().unwrap().lines.push(without_times(&line));
    }

    fn note_facts(&self, event: &Event<'_>) {
        let mut recorded = self.0.lock().unwrap();
        let mut facts = event.op.to_string();
        match event.outcome {
            Outcome::Ok => facts.push_str(" ok"),
            Outcome::Err(failure) => {
                facts.push_str(" error ");
                facts.push_str(&failure.code().unwrap_or(failure.kind().into()));
            }
            Outcome::Cancelled => facts.push_str(" cancelled"),
            Outcome::OnDrop => facts.push_str(" on-drop"),
            Outcome::Running => facts.push_str(" running"),
            _ => facts.push_str(" ?"),
        }
        if let Some(id) = event.connection {
            let connections = &mut recorded.connections;
            let at = connections.iter().position(|seen| *seen == id.get());
            let at = at.unwrap_or_else(|| {
                connections.push(id.get());
                connections.len() - 1
            });
            facts.push_str(&format!(" c{}", at + 1));
        }
        if let Some(args) = event.args {
            facts.push_str(&format!(" args={args}"));
        }
        if event.rows_returned > 0 {
            facts.push_str(&format!(" returned={}", event.rows_returned));
        }
        if let Some(affected) = event.rows_affected {
            facts.push_str(&format!(" affected={affected}"));
        }
        if let Some(wait) = event.acquire {
            facts.push_str(" acquire");
            recorded.longest_wait = recorded.longest_wait.max(wait);
        }
        if event.first_row.is_some() {
            facts.push_str(" first-row");
        }
        if let Some(request) = event.request {
            facts.push_str(&format!(" request={request}"));
        }
        // What must hold of every event's times.
        let elapsed = event.elapsed.unwrap_or_default();
        if event.rows_returned > 0 {
            assert!(event.first_row.is_some(), "{facts}");
        }
        assert!(event.first_row.unwrap_or_default() <= elapsed + event.consumer);
        assert!(elapsed < Duration::from_secs(3600), "{facts}: {elapsed:?}");
        recorded.facts.push(facts);
    }

    /// The longest wait for a connection that was told.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.0.lock().unwrap().longest_wait
    }

    /// Forgets what was told, but not the connections.
    pub(crate) fn clear(&self) {
        let mut recorded = self.0.lock().unwrap();
        recorded.facts.clear();
        recorded.longest_wait = Duration::ZERO;
        recorded.lines.clear();
    }

    pub(crate) fn facts(&self) -> Vec<String> {
        self.0.lock().unwrap().facts.clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().lines.clone()
    }
}

/// The wait for a connection that a line tells of.
pub(crate) const LONG_WAIT: Duration = Duration::from_millis(100);

/// The line with `T` for each duration, and without a [`LONG_WAIT`]: that can be
/// the machine's doing.
pub(crate) fn without_times(line: &str) -> String {
    let (body, time) = line.rsplit_once(" (").expect("a time at the end");
    assert!(is_duration(time.trim_end_matches(')')), "{line}");
    let mut line = body.to_owned();
    if let Some((before, rest)) = body.split_once("; acquire = ") {
        let (time, after) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
        assert!(is_duration(time), "{line}");
        line = match is_long(time) {
            true => format!("{before}{after}"),
            false => format!("{before}; acquire = T{after}"),
        };
    }
    line.push_str(" (T)");
    line
}

fn is_long(time: &str) -> bool {
    match time.strip_suffix("ms") {
        Some(millis) => millis.parse::<f64>().unwrap() >= LONG_WAIT.as_secs_f64() * 1000.0,
        None => !time.ends_with("ns") && !time.ends_with("µs"),
    }
}

/// Whether it is one of Go's durations.
fn is_duration(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
    let unit = &text[digits.len()..];
    matches!(unit, "ns" | "µs" | "ms" | "s")
        && !digits.is_empty()
        && digits
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'm' | 'h'))
}
