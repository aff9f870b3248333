//! Writers and a rotating process that are killed at random and started again.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use file_rotatelogs::{Clock, Compression, RotateLogs};

use crate::child::Child;
use crate::support::{PATIENCE, Quiet, Scratch, contents, names};

#[derive(Debug)]
#[expect(dead_code, reason = "printed")]
pub(crate) struct Report {
    pub(crate) kills: usize,
    pub(crate) acknowledged: u64,
    pub(crate) written_unacknowledged: u64,
    pub(crate) cut_short: usize,
    pub(crate) files: usize,
    pub(crate) bytes: usize,
    pub(crate) seconds: f64,
}

/// One process of a writer: when it is killed, the next goes on, under another number, so
/// that a record that was written but not acknowledged is not written a second time.
struct Life {
    writer: usize,
    number: usize,
    first: u64,
    acknowledged: PathBuf,
}

impl Life {
    /// Returns the number of the record that was not acknowledged yet.
    fn next(&self) -> u64 {
        let bytes = fs::read(&self.acknowledged).unwrap_or_default();
        bytes
            .try_into()
            .map_or(self.first, |count| self.first + u64::from_le_bytes(count))
    }
}

pub(crate) fn run(writers: usize, records: u64, limit: u64) -> Report {
    let begun = Instant::now();
    let scratch = Scratch::with_programs();
    let logs = scratch.join("logs");
    let settings = [
        format!("pattern={}", logs.join("a.%Y%m%d.log").to_str().unwrap()),
        format!("link={}", logs.join("current").to_str().unwrap()),
        format!("bytes={limit}"),
        "gzip".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let begin = |writer: usize, number: usize, first: u64| {
        let acknowledged = scratch.join(&format!("acknowledged.{writer}.{number}"));
        let mut child = Child::start();
        child.send(&format!("open\t{}", settings.join("\t")));
        let path = acknowledged.to_str().unwrap();
        let command = format!("torture\t{writer}\t{number}\t{first}\t{records}\t{path}");
        child.send(&command);
        let life = Life {
            writer,
            number,
            first,
            acknowledged,
        };
        (child, life)
    };
    let begin_rotating = || {
        let mut child = Child::start();
        child.send(&format!("open\t{}", settings.join("\t")));
        child.send("rotate_forever");
        child
    };

    let mut ended: Vec<Life> = Vec::new();
    let mut running: Vec<(Child, Life)> = (0..writers).map(|writer| begin(writer, 0, 0)).collect();
    let mut rotating = begin_rotating();
    let mut random = Random(u64::from(std::process::id()) | 1);
    let mut kills = 0;
    while !running.is_empty() {
        std::thread::sleep(Duration::from_millis(random.below(20)));
        let victim = random.below(running.len() as u64 + 1) as usize;
        if victim == running.len() {
            rotating.kill();
            rotating = begin_rotating();
            kills += 1;
            continue;
        }
        let (child, life) = running.swap_remove(victim);
        child.kill();
        kills += 1;
        let (writer, number, next) = (life.writer, life.number, life.next());
        ended.push(life);
        if next < records {
            running.push(begin(writer, number + 1, next));
        }
    }
    rotating.kill();

    // The next process puts everything in order.
    let _quiet = Quiet::new();
    let last = RotateLogs::builder(logs.join("a.%Y%m%d.log"))
        .link(logs.join("current"))
        .clock(Clock::utc())
        .compress(Compression::Gzip)
        .build()
        .unwrap();
    last.rotate().unwrap();
    assert!(last.wait_for_housekeeping(PATIENCE));
    check(&logs, &ended, records, begun, kills)
}

fn check(logs: &Path, lives: &[Life], records: u64, begun: Instant, kills: usize) -> Report {
    let mut seen: HashMap<(usize, usize), HashMap<u64, u32>> = HashMap::new();
    let (mut bytes, mut files, mut cut_short) = (0, 0, 0);
    for name in names(logs) {
        if name == "current" {
            continue;
        }
        files += 1;
        assert!(
            name.ends_with(".gz") || logs.join(&name) == newest(logs),
            "{name} is not compressed"
        );
        let text = contents(&logs.join(&name));
        bytes += text.len();
        let mut start = 0;
        for line in String::from_utf8(text).unwrap().split_inclusive('\n') {
            let mut record = line;
            if parse(record).is_none()
                && let Some(rest) = after_cut(line, start, lives)
            {
                cut_short += 1;
                record = rest;
            }
            start += line.len();
            if record.is_empty() {
                continue;
            }
            let Some((writer, life, number)) = parse(record) else {
                panic!("a torn record in {name}, before {start}: {line:?}");
            };
            *seen
                .entry((writer, life))
                .or_default()
                .entry(number)
                .or_default() += 1;
        }
    }
    let hidden = fs::read_dir(logs)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".tmp"))
        .collect::<Vec<_>>();
    assert!(hidden.is_empty(), "{hidden:?}");
    let (mut acknowledged, mut more) = (0, 0);
    for life in lives {
        let own = seen.remove(&(life.writer, life.number)).unwrap_or_default();
        let next = life.next();
        for number in life.first..next {
            let times = own.get(&number).copied().unwrap_or(0);
            assert_eq!(
                times, 1,
                "record {number} of {}.{}",
                life.writer, life.number
            );
            acknowledged += 1;
        }
        for (number, times) in own {
            assert_eq!(
                times, 1,
                "record {number} of {}.{}",
                life.writer, life.number
            );
            assert!(number >= life.first && number <= next, "{number} of {next}");
            more += u64::from(number >= next);
        }
    }
    assert!(seen.is_empty(), "records of nobody");
    let writers = lives.iter().map(|life| life.writer).max().unwrap() as u64 + 1;
    assert_eq!(acknowledged, writers * records);
    Report {
        kills,
        acknowledged,
        written_unacknowledged: more,
        cut_short,
        files,
        bytes,
        seconds: begun.elapsed().as_secs_f64(),
    }
}

/// Returns what follows a record that the kernel cut short, in a line that starts at this
/// byte of the file.
///
/// A write(2) that goes on to another page is cut there when its process is killed just
/// then. So only the record that a process did not live to see written can be, at the
/// end of a page.
fn after_cut<'a>(line: &'a str, start: usize, lives: &[Life]) -> Option<&'a str> {
    let end = start.next_multiple_of(PAGE) - start;
    let (cut, rest) = line.split_at_checked(end)?;
    let is_last_of = |life: &Life| record(life.writer, life.number, life.next()).starts_with(cut);
    (!cut.is_empty() && lives.iter().any(is_last_of)).then_some(rest)
}

fn newest(logs: &Path) -> PathBuf {
    let target = fs::read_link(logs.join("current")).unwrap();
    logs.join(target)
}

/// Makes a record that is whole only if each byte of it is there.
pub(crate) fn record(writer: usize, life: usize, number: u64) -> String {
    let head = format!("{writer} {life} {number} ");
    let sum: u32 = head.bytes().map(u32::from).sum();
    let filler = "x".repeat((number % 120) as usize);
    format!("{head}{filler} {sum}\n")
}

fn parse(line: &str) -> Option<(usize, usize, u64)> {
    let mut fields = line.split(' ');
    let writer = fields.next()?.parse().ok()?;
    let life = fields.next()?.parse().ok()?;
    let number = fields.next()?.parse().ok()?;
    (record(writer, life, number) == line).then_some((writer, life, number))
}

/// A generator by Marsaglia, for what needs no more.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// The smallest there is.
const PAGE: usize = 4096;
