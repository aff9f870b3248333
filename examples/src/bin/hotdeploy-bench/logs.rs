//! What the logs say, compared with what the clients saw.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::load::Sample;

/// The access lines and SQL events of a run.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    pub(crate) access_files: usize,
    pub(crate) sql_files: usize,
    /// Lines that are no JSON object: torn, or mixed with others.
    pub(crate) unreadable: usize,
    requests: HashMap<String, Logged>,
}

/// All that is logged of one request.
#[derive(Debug, Default)]
struct Logged {
    lines: u64,
    generation: u64,
    /// As the access line counts them.
    statements: u64,
    /// As the SQL log has them.
    events: u64,
}

#[derive(Deserialize)]
struct AccessLine {
    request: String,
    generation: u64,
    sql_count: u64,
}

#[derive(Deserialize)]
struct SqlLine {
    op: String,
    outcome: String,
    request: Option<String>,
}

/// What is missing and what is there twice.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) lines: u64,
    /// Answered requests without a line.
    pub(crate) lines_lost: u64,
    pub(crate) lines_doubled: u64,
    /// Requests that failed for the client, and have a line.
    pub(crate) failed_with_line: u64,
    /// Requests that failed for the client, and have none.
    pub(crate) failed_without_line: Vec<String>,
    pub(crate) statements: u64,
    pub(crate) events: u64,
    pub(crate) events_lost: u64,
    pub(crate) events_doubled: u64,
    pub(crate) generations: BTreeSet<u64>,
}

impl Logs {
    pub(crate) fn read(dir: &Path) -> Result<Self, String> {
        let mut logs = Self::default();
        let failed = |error| format!("cannot read {}: {error}", dir.display());
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_string().unwrap_or_default();
            // The links to the current files are no files of their own.
            if !entry.file_type().map_err(failed)?.is_file() {
                continue;
            }
            let text = || fs::read(entry.path()).map_err(failed);
            if name.starts_with("access.") {
                logs.access_files += 1;
                logs.read_access(&text()?);
            } else if name.starts_with("sql.") {
                logs.sql_files += 1;
                logs.read_sql(&text()?);
            }
        }
        Ok(logs)
    }

    fn read_access(&mut self, text: &[u8]) {
        for line in lines(text) {
            let Ok(line) = serde_json::from_slice::<AccessLine>(line) else {
                self.unreadable += 1;
                continue;
            };
            let logged = self.requests.entry(line.request).or_default();
            logged.lines += 1;
            logged.generation = line.generation;
            logged.statements = line.sql_count;
        }
    }

    fn read_sql(&mut self, text: &[u8]) {
        for line in lines(text) {
            let Ok(line) = serde_json::from_slice::<SqlLine>(line) else {
                self.unreadable += 1;
                continue;
            };
            let ran = matches!(line.op.as_str(), "Exec" | "Query") && line.outcome != "running";
            if let (Some(request), true) = (line.request, ran) {
                self.requests.entry(request).or_default().events += 1;
            }
        }
    }

    /// The generation that answered a request.
    pub(crate) fn generation(&self, id: &str) -> Option<u64> {
        self.requests.get(id).map(|logged| logged.generation)
    }

    pub(crate) fn compare(&self, samples: &[Sample]) -> Comparison {
        let mut found = Comparison::default();
        let none = Logged::default();
        for sample in samples {
            let logged = self.requests.get(&sample.id).unwrap_or(&none);
            match (&sample.end, logged.lines) {
                (Ok(_), 0) => found.lines_lost += 1,
                (Err(_), 0) => found.failed_without_line.push(sample.id.clone()),
                (Err(_), _) => found.failed_with_line += 1,
                (Ok(_), _) => {}
            }
            if logged.lines == 0 {
                continue;
            }
            found.lines += logged.lines;
            found.lines_doubled += logged.lines - 1;
            found.statements += logged.statements;
            found.events += logged.events;
            found.events_lost += logged.statements.saturating_sub(logged.events);
            found.events_doubled += logged.events.saturating_sub(logged.statements);
            found.generations.insert(logged.generation);
        }
        found
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|byte| *byte == b'\n')
        .filter(move |_| !text.is_empty())
}

/// How many lines the service itself says it has lost, of the access log and
/// of the SQL log.
pub(crate) fn reported_lost(messages: &[String]) -> (u64, u64) {
    let lost = |what: &str| {
        messages
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["message"] == what)
            .filter_map(|message| message["lost"].as_u64())
            .sum()
    };
    (
        lost("lines of the access log were lost"),
        lost("lines of the SQL log were lost"),
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn sample(id: &str, end: Result<u16, String>) -> Sample {
        Sample {
            id: id.to_owned(),
            began: Instant::now(),
            took: Duration::ZERO,
            slow: false,
            end,
            late: false,
        }
    }

    #[test]
    fn lines_that_are_missing_and_lines_too_many_are_told_apart() {
        let access = |id, count| {
            format!("{{\"request\":\"{id}\",\"generation\":3,\"sql_count\":{count}}}\n")
        };
        let sql = |id, op, outcome| {
            format!("{{\"request\":\"{id}\",\"op\":\"{op}\",\"outcome\":\"{outcome}\"}}\n")
        };
        let mut logs = Logs::default();
        let lines = [
            access("good", 2),
            access("twice", 0),
            access("twice", 0),
            access("less", 2),
            access("more", 0),
            access("broken", 0),
            "torn".to_owned(),
        ];
        logs.read_access(lines.concat().as_bytes());
        let lines = [
            sql("good", "Exec", "ok"),
            // What still runs, and what is no statement, does not count.
            sql("good", "Query", "running"),
            sql("good", "Begin", "ok"),
            sql("good", "Query", "error"),
            sql("less", "Query", "ok"),
            sql("more", "Query", "ok"),
        ];
        logs.read_sql(lines.concat().as_bytes());
        let failed = || Err("not answered: closed".to_owned());
        let found = logs.compare(&[
            sample("good", Ok(200)),
            sample("twice", Ok(200)),
            sample("less", Ok(200)),
            sample("more", Ok(200)),
            sample("lost", Ok(200)),
            sample("broken", failed()),
            sample("gone", failed()),
        ]);
        assert_eq!((logs.unreadable, found.lines, found.lines_lost), (1, 6, 1));
        assert_eq!(found.lines_doubled, 1);
        assert_eq!(found.failed_with_line, 1);
        assert_eq!(found.failed_without_line, ["gone"]);
        assert_eq!((found.statements, found.events), (4, 4));
        assert_eq!((found.events_lost, found.events_doubled), (1, 1));
        assert_eq!(found.generations, BTreeSet::from([3]));
        assert_eq!(
            (logs.generation("good"), logs.generation("gone")),
            (Some(3), None)
        );
    }
}
