use std::collections::BTreeMap;
use std::fmt::Write;

use crate::cli::fleet::state::State;
use crate::cli::fleet::status::{InstanceStatus, ProgramStatus, Status};
use crate::cli::log::printable;
use crate::cli::moment::unix_millis;

/// Writes a status for people: a line for each program, or for each instance of it.
pub(super) fn render(status: &Status, each: bool) -> String {
    render_at(unix_millis(), status, each)
}

fn render_at(now: u64, status: &Status, each: bool) -> String {
    let mut rows = Vec::new();
    for program in &status.programs {
        if program.instances.len() == 1 {
            rows.push(Row::instance(
                &program.name,
                program,
                &program.instances[0],
                now,
            ));
        } else {
            rows.push(Row::program(program, now));
            if each {
                let instances = program.instances.iter();
                rows.extend(instances.map(|instance| {
                    let name = format!("{}:{}", program.name, instance.index);
                    Row::instance(&name, program, instance, now)
                }));
            }
        }
    }
    let mut text = head(status, now);
    let heading = Row {
        name: "PROGRAM".into(),
        state: "STATE".into(),
        pid: "PID".into(),
        age: "SINCE".into(),
        starts: "STARTS".into(),
        note: "NOTE".into(),
        output: &[],
    };
    let width = |column: for<'r> fn(&'r Row<'_>) -> &'r String| {
        let rows = std::iter::once(&heading).chain(&rows);
        rows.map(|row| column(row).chars().count())
            .max()
            .unwrap_or(0)
    };
    let (names, states) = (width(|row| &row.name), width(|row| &row.state));
    for row in std::iter::once(&heading).chain(&rows) {
        let line = format!(
            "{:<names$}  {:<states$}  {:>7}  {:>7}  {:>6}  {}",
            row.name, row.state, row.pid, row.age, row.starts, row.note
        );
        text += line.trim_end();
        text.push('\n');
        if each {
            for line in row.output {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "  | {}", printable(line));
            }
        }
    }
    text
}

struct Row<'a> {
    name: String,
    state: String,
    pid: String,
    age: String,
    starts: String,
    note: String,
    output: &'a [String],
}

impl<'a> Row<'a> {
    fn instance(
        name: &str,
        program: &ProgramStatus,
        instance: &'a InstanceStatus,
        now: u64,
    ) -> Self {
        let alone = program.instances.len() == 1;
        let mut notes = if alone { notes(program) } else { Vec::new() };
        notes.extend(instance.exit.as_deref().map(printable));
        notes.extend(instance.status.as_deref().map(printable));
        Self {
            name: name.into(),
            state: instance.state.to_string(),
            pid: instance
                .pid
                .map_or_else(|| "-".into(), |pid| pid.to_string()),
            age: age(now, instance.since),
            starts: instance.starts.to_string(),
            note: notes.join("; "),
            output: &instance.output,
        }
    }

    fn program(program: &'a ProgramStatus, now: u64) -> Self {
        let changed = program
            .instances
            .iter()
            .map(|instance| instance.since)
            .max();
        let starts: u64 = program
            .instances
            .iter()
            .map(|instance| instance.starts)
            .sum();
        let states = states(&program.instances);
        Self {
            name: program.name.clone(),
            state: if states.is_empty() {
                "-".into()
            } else {
                states
            },
            pid: "-".into(),
            age: changed.map_or_else(|| "-".into(), |since| age(now, since)),
            starts: starts.to_string(),
            note: notes(program).join("; "),
            output: &[],
        }
    }
}

/// Counts the instances by state: `7 RUNNING, 1 BACKOFF`.
fn states<'a>(instances: impl IntoIterator<Item = &'a InstanceStatus>) -> String {
    let mut counts: BTreeMap<usize, (State, usize)> = BTreeMap::new();
    for instance in instances {
        let rank = SHOWN.iter().position(|state| *state == instance.state);
        let count = counts.entry(rank.unwrap_or(SHOWN.len()));
        count.or_insert((instance.state, 0)).1 += 1;
    }
    let counts: Vec<_> = counts
        .values()
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    counts.join(", ")
}

fn notes(program: &ProgramStatus) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(error) = &program.error {
        let first = error.lines().next().unwrap_or_default();
        notes.push(printable(first));
    }
    if let Some(other) = &program.waiting_for {
        notes.push(format!("waits for {other}"));
    }
    if program.stopped {
        notes.push("stopped by command".into());
    }
    if usize::try_from(program.wanted) != Ok(program.instances.len()) {
        notes.push(format!("{} wanted", program.wanted));
    }
    if program.generation > 1 {
        notes.push(format!("generation {}", program.generation));
    }
    notes
}

fn head(status: &Status, now: u64) -> String {
    let instances = || {
        status
            .programs
            .iter()
            .flat_map(|program| &program.instances)
    };
    let mut text = format!(
        "fleet {} (pid {}), up {}: {}",
        status.version,
        status.pid,
        age(now, status.since),
        plural(status.programs.len(), "program"),
    );
    let states = states(instances());
    if !states.is_empty() {
        let _ = write!(
            text,
            ", {}: {states}",
            plural(instances().count(), "instance")
        );
    }
    if status.starts_waiting > 0 {
        let _ = write!(text, "; {} waiting", plural(status.starts_waiting, "start"));
    }
    text.push('\n');
    text
}

pub(super) fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Writes a time that has passed in its two largest units.
fn age(now: u64, since: u64) -> String {
    let secs = now.saturating_sub(since) / 1000;
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{}m{:02}s", secs / 60, secs % 60),
        3600..86400 => format!("{}h{:02}m", secs / 3600, secs / 60 % 60),
        _ => format!("{}d{:02}h", secs / 86400, secs / 3600 % 24),
    }
}

/// The order in which states are counted.
const SHOWN: [State; 7] = [
    State::Running,
    State::Starting,
    State::Backoff,
    State::Stopping,
    State::Stopped,
    State::Exited,
    State::Fatal,
];

#[cfg(test)]
mod tests;
