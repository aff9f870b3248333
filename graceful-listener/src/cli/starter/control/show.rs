use std::fs;

use serde_json::{Value, json};

use crate::cli::moment::Moment;
use crate::cli::starter::record::{Record, SocketRecord, WorkerRecord};

/// Writes everything down for programs.
pub(super) fn to_json(record: &Record) -> Value {
    let age = |since: u64| Moment::from_millis(since).elapsed().as_millis() as f64 / 1000.0;
    let workers: Vec<_> = sorted(record)
        .into_iter()
        .map(|worker| {
            json!({
                "generation": worker.generation,
                "pid": worker.pid,
                "state": worker.phase,
                "age_seconds": age(worker.since),
                "rss_bytes": rss(worker.pid),
                "status": worker.status,
                "adopted": worker.adopted,
            })
        })
        .collect();
    let failure = record.last_failure.as_ref().map(|failure| {
        json!({
            "generation": failure.generation,
            "reason": failure.reason,
            "output": failure.output,
            "age_seconds": age(failure.at),
        })
    });
    json!({
        "running": true,
        "pid": record.pid,
        "version": record.version,
        "age_seconds": age(record.since),
        "rss_bytes": rss(record.pid),
        "stopping": record.stopping,
        "restart_pending": record.pending,
        "ports": record.sockets.iter().map(|socket| socket.name.to_string_lossy()).collect::<Vec<_>>(),
        "addresses": record.sockets.iter().map(address).collect::<Vec<_>>(),
        "generation": record.generation,
        "generations": workers,
        "last_failure": failure,
    })
}

/// Writes it down for people.
pub(super) fn table(record: &Record) -> String {
    let ports: Vec<_> = record
        .sockets
        .iter()
        .map(|socket| match socket.name.to_string_lossy() {
            // A number that the kernel has chosen.
            name if name == "0" || name.ends_with(":0") => format!("{name} ({})", address(socket)),
            name => name.into_owned(),
        })
        .collect();
    let mut text = format!(
        "start_server {} (pid:{}), up {}, RSS {}, ports {}\n",
        record.version,
        record.pid,
        age(record.since),
        mebibytes(rss(record.pid)),
        if ports.is_empty() {
            "none".into()
        } else {
            ports.join(" ")
        }
    );
    text += &format!(
        "{:>10}  {:>7}  {:<8}  {:>10}  {:>10}  {}\n",
        "GENERATION", "PID", "STATE", "AGE", "RSS", "STATUS"
    );
    for worker in sorted(record) {
        let line = format!(
            "{:>10}  {:>7}  {:<8}  {:>10}  {:>10}  {}",
            worker.generation,
            worker.pid,
            format!("{:?}", worker.phase).to_lowercase(),
            age(worker.since),
            mebibytes(rss(worker.pid)),
            // A terminal would obey what a worker has put in there.
            worker
                .status
                .as_deref()
                .unwrap_or_default()
                .replace(char::is_control, " ")
        );
        text += line.trim_end();
        text.push('\n');
    }
    if record.pending {
        text += "another restart begins when the current one is complete\n";
    }
    if let Some(failure) = &record.last_failure {
        text += &format!(
            "last failure: generation {}, {} ago: {}\n",
            failure.generation,
            age(failure.at),
            failure.reason
        );
    }
    text
}

/// Returns where a socket can be reached.
fn address(socket: &SocketRecord) -> String {
    match socket.address {
        Some(address) => address.to_string(),
        None => socket.name.to_string_lossy().into_owned(),
    }
}

fn sorted(record: &Record) -> Vec<&WorkerRecord> {
    let mut workers: Vec<_> = record.workers.iter().collect();
    workers.sort_by_key(|worker| worker.generation);
    workers
}

/// Writes the time since a moment.
fn age(since: u64) -> String {
    in_two_units(Moment::from_millis(since).elapsed().as_secs())
}

/// Writes a time in its two largest units.
fn in_two_units(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{}m{:02}s", secs / 60, secs % 60),
        3600..86400 => format!("{}h{:02}m", secs / 3600, secs / 60 % 60),
        _ => format!("{}d{:02}h", secs / 86400, secs / 3600 % 24),
    }
}

fn rss(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()
        .map(|kib: u64| kib * 1024)
}

fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(
        || "-".into(),
        |bytes| format!("{:.1} MiB", bytes as f64 / 1048576.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_their_two_largest_units() {
        for (secs, told) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3599, "59m59s"),
            (3600, "1h00m"),
            (86399, "23h59m"),
            (86400, "1d00h"),
            (31 * 86400 + 7 * 3600, "31d07h"),
        ] {
            assert_eq!(in_two_units(secs), told);
        }
    }
}
