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
        let line = without_times(&event.to_string());
        self.0.lock().unwrap().lines.push(line);
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
        if event.acquire.is_some() {
            facts.push_str(" acquire");
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
        assert!(elapsed < Duration::from_secs(120), "{facts}: {elapsed:?}");
        recorded.facts.push(facts);
    }

    /// Forgets what was told, but not the connections.
    pub(crate) fn clear(&self) {
        let mut recorded = self.0.lock().unwrap();
        recorded.facts.clear();
        recorded.lines.clear();
    }

    pub(crate) fn facts(&self) -> Vec<String> {
        self.0.lock().unwrap().facts.clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().lines.clone()
    }
}

/// The line with `T` for each duration.
pub(crate) fn without_times(line: &str) -> String {
    let (body, time) = line.rsplit_once(" (").expect("a time at the end");
    assert!(is_duration(time.trim_end_matches(')')), "{line}");
    let mut line = body.to_owned();
    if let Some((before, rest)) = body.split_once("; acquire = ") {
        let (time, after) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
        assert!(is_duration(time), "{line}");
        line = format!("{before}; acquire = T{after}");
    }
    line.push_str(" (T)");
    line
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
