//! Load that hides nothing: every request is sent once, and every failure counts.
//!
//! Depends on nothing but the standard library, so that other packages can take
//! this file as their module too.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::iter::Sum;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, mem};

/// What is asked of a service, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Where the service listens.
    pub(crate) target: Target,
    /// Loops that use their connection for as long as the service lets them.
    pub(crate) keep_alive: usize,
    /// Loops that make a connection for each request.
    pub(crate) per_request: usize,
    /// The pause between a response and the next request.
    pub(crate) think: Duration,
    /// Asked for with most requests.
    pub(crate) path: String,
    /// Asked for with every fiftieth request.
    pub(crate) slow_path: String,
    /// A request that has failed is made again at once, which is what a user waits for;
    /// it counts as failed all the same.
    pub(crate) retries: bool,
}

/// A socket to connect to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Load {
    /// 24 kept-alive loops and 8 that connect anew, which think 4 ms; 2 % of their requests take 300 ms.
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            keep_alive: 24,
            per_request: 8,
            think: Duration::from_millis(4),
            path: "/".into(),
            slow_path: "/sleep?ms=300".into(),
            retries: false,
        }
    }

    /// Begins.
    pub(crate) fn start(self) -> Running {
        let shared = Arc::new((AtomicBool::new(false), AtomicU64::new(0)));
        let run = |keeps_alive, number: usize| {
            let (load, shared) = (self.clone(), Arc::clone(&shared));
            thread::spawn(move || load.run(keeps_alive, number, &shared.0, &shared.1))
        };
        Running {
            keep_alive: (0..self.keep_alive)
                .map(|number| run(true, number))
                .collect(),
            per_request: (0..self.per_request)
                .map(|number| run(false, number))
                .collect(),
            shared,
            switches: Vec::new(),
        }
    }

    fn run(
        &self,
        keeps_alive: bool,
        number: usize,
        stop: &AtomicBool,
        requests: &AtomicU64,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut kept: Option<Connection> = None;
        let mut failed_since = None;
        // Begins in a different place in each loop, so that the slow ones do not meet.
        let mut count = number;
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            let path = if count.is_multiple_of(50) {
                &self.slow_path
            } else {
                &self.path
            };
            let began = Instant::now();
            let reused = kept.is_some();
            let connection = kept
                .take()
                .map_or_else(|| Connection::open(&self.target), Ok);
            let answered = connection.and_then(|mut connection| {
                let (generation, closes) = connection.get(path, keeps_alive)?;
                Ok((connection, generation, closes))
            });
            requests.fetch_add(1, Ordering::Relaxed);
            match answered {
                Ok((connection, generation, closes)) => {
                    *outcome.generations.entry(generation).or_default() += 1;
                    outcome.answers.push(Answer {
                        began,
                        took: began.elapsed(),
                        failed_before: failed_since
                            .take()
                            .map_or(Duration::ZERO, |since| began - since),
                        is_slow: path != &self.path,
                    });
                    kept = Some(connection).filter(|_| keeps_alive && !closes);
                }
                Err(failure) => {
                    let how = if reused {
                        "on a kept connection"
                    } else {
                        "on a new connection"
                    };
                    *outcome
                        .failures
                        .entry(format!("{failure} {how}"))
                        .or_default() += 1;
                    outcome.failed_at.push(began);
                    if self.retries {
                        failed_since.get_or_insert(began);
                        continue;
                    }
                }
            }
            thread::sleep(self.think);
        }
        outcome
    }
}

/// Load that is on.
pub(crate) struct Running {
    keep_alive: Vec<JoinHandle<Outcome>>,
    per_request: Vec<JoinHandle<Outcome>>,
    shared: Arc<(AtomicBool, AtomicU64)>,
    switches: Vec<Instant>,
}

impl Running {
    /// Notes that one generation is about to follow another.
    pub(crate) fn note_switch(&mut self) {
        self.switches.push(Instant::now());
    }

    /// How many requests have been made so far.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.1.load(Ordering::Relaxed)
    }

    /// Ends it and tells what happened.
    pub(crate) fn stop(self) -> Report {
        self.shared.0.store(true, Ordering::Relaxed);
        let sum = |loops: Vec<JoinHandle<Outcome>>| {
            let outcomes = loops
                .into_iter()
                .map(|handle| handle.join().expect("a loop does not panic"));
            outcomes.fold(Outcome::default(), Outcome::plus)
        };
        Report {
            keep_alive: sum(self.keep_alive),
            per_request: sum(self.per_request),
            switches: self.switches,
        }
    }
}

/// What happened to all requests.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) keep_alive: Outcome,
    pub(crate) per_request: Outcome,
    switches: Vec<Instant>,
}

impl Report {
    pub(crate) fn failed(&self) -> u64 {
        self.keep_alive.failed() + self.per_request.failed()
    }

    /// The generations that have answered.
    pub(crate) fn generations(&self) -> Vec<&str> {
        let both = self
            .keep_alive
            .generations
            .keys()
            .chain(self.per_request.generations.keys());
        let mut names: Vec<_> = both.map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns true if this was at a switch, or soon after.
    fn is_at_a_switch(&self, began: Instant) -> bool {
        let before = |switch: &Instant| *switch <= began;
        let last = self.switches[..self.switches.partition_point(before)].last();
        last.is_some_and(|switch| began < *switch + SWITCH)
    }

    /// Returns the 99th percentile of each switch by itself.
    fn p99s_at_switches(&self, outcome: &Outcome) -> Vec<Duration> {
        let p99s = self.switches.iter().map(|switch| {
            let at = *switch..*switch + SWITCH;
            let fast = outcome.answers.iter().filter(|answer| !answer.is_slow);
            let took = sorted(
                fast.filter(|answer| at.contains(&answer.began))
                    .map(|answer| answer.took),
            );
            at_share(&took, 0.99)
        });
        sorted(p99s)
    }
}

/// The reports of one load after the other, as one.
impl Sum for Report {
    fn sum<I: Iterator<Item = Self>>(reports: I) -> Self {
        reports.fold(Self::default(), |mut sum, later| {
            sum.keep_alive = sum.keep_alive.plus(later.keep_alive);
            sum.per_request = sum.per_request.plus(later.per_request);
            sum.switches.extend(later.switches);
            sum
        })
    }
}

/// A line for all requests of a kind, and if there were switches, those in the time
/// after one, and the others. The times are first those of what was answered, then the 99th
/// percentile of all, where one that failed has taken for ever, and last those that
/// count in for how long a request had failed before it was answered. A machine that stands
/// still for some milliseconds now and then decides about the 99th percentile of all
/// switches, not about that of most single ones, hence their quartiles.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<14} {:>9} {:>7} {:>8} {:>8} {:>8} {:>9} {:>10} {:>8} ms",
            "", "requests", "failed", "p50", "p99", "max", "p99 (all)", "p99 (made", "again)"
        )?;
        for (name, outcome) in [
            ("keep-alive", &self.keep_alive),
            ("per request", &self.per_request),
        ] {
            writeln!(f, "{name:<14} {}", outcome.line(|_| true))?;
            if !self.switches.is_empty() {
                let at = outcome.line(|began| self.is_at_a_switch(began));
                writeln!(f, "  at a switch  {at}")?;
                let away = outcome.line(|began| !self.is_at_a_switch(began));
                writeln!(f, "  otherwise    {away}")?;
                let p99s = self.p99s_at_switches(outcome);
                let [first, median, third] = [0.25, 0.5, 0.75].map(|share| quantile(&p99s, share));
                writeln!(
                    f,
                    "  p99 of one switch: median {median:.3}, quartiles {first:.3} and {third:.3} ms"
                )?;
            }
            for (failure, count) in &outcome.failures {
                writeln!(f, "  {count} {failure}")?;
            }
        }
        Ok(())
    }
}

/// What happened to the requests of one kind.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    answers: Vec<Answer>,
    pub(crate) failures: BTreeMap<String, u64>,
    failed_at: Vec<Instant>,
    pub(crate) generations: BTreeMap<String, u64>,
}

/// One request that was answered.
#[derive(Debug)]
struct Answer {
    began: Instant,
    took: Duration,
    /// How long it was tried in vain before.
    failed_before: Duration,
    /// It was meant to take long.
    is_slow: bool,
}

impl Outcome {
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Tells of the requests that were made at some of the times.
    fn line(&self, is_meant: impl Fn(Instant) -> bool) -> String {
        let meant = || self.answers.iter().filter(|answer| is_meant(answer.began));
        let failed = self.failed_at.iter().filter(|began| is_meant(**began));
        let failed = failed.count();
        let requests = meant().count() + failed;
        let fast = || meant().filter(|answer| !answer.is_slow);
        let took = sorted(fast().map(|answer| answer.took));
        let waited = sorted(fast().map(|answer| answer.failed_before + answer.took));
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(&took, share));
        let [p99_waited, max_waited] = [0.99, 1.0].map(|share| quantile(&waited, share));
        let all = took.len() + failed;
        let p99_of_all = took.get((all.saturating_sub(1) as f64 * 0.99).round() as usize);
        let p99_of_all = p99_of_all.map_or("never".into(), |took| format!("{:.3}", in_ms(*took)));
        format!(
            "{requests:>9} {failed:>7} {p50:>8.3} {p99:>8.3} {max:>8.3} {p99_of_all:>9} {p99_waited:>10.3} {max_waited:>8.3}"
        )
    }

    fn plus(mut self, other: Self) -> Self {
        self.answers.extend(other.answers);
        self.failed_at.extend(other.failed_at);
        for (mine, theirs) in [
            (&mut self.failures, other.failures),
            (&mut self.generations, other.generations),
        ] {
            for (key, count) in theirs {
                *mine.entry(key).or_default() += count;
            }
        }
        self
    }
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

/// Returns it in milliseconds.
fn quantile(sorted: &[Duration], share: f64) -> f64 {
    in_ms(at_share(sorted, share))
}

fn in_ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn at_share(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let time = sorted.get((last as f64 * share).round() as usize);
    time.copied().unwrap_or_default()
}

struct Connection(BufReader<Box<dyn Duplex>>);

trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

impl Connection {
    fn open(target: &Target) -> Result<Self, String> {
        let stream: io::Result<Box<dyn Duplex>> = match target {
            Target::Tcp(address) => {
                TcpStream::connect_timeout(address, TIMEOUT).and_then(|stream| {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(TIMEOUT))?;
                    Ok(Box::new(stream) as _)
                })
            }
            Target::Unix(path) => UnixStream::connect(path).and_then(|stream| {
                stream.set_read_timeout(Some(TIMEOUT))?;
                Ok(Box::new(stream) as _)
            }),
        };
        match stream {
            Ok(stream) => Ok(Self(BufReader::new(stream))),
            Err(error) => Err(format!("not connected: {:?}", error.kind())),
        }
    }

    /// Returns the generation that has answered, and whether it closes the connection.
    fn get(&mut self, path: &str, keeps_alive: bool) -> Result<(String, bool), String> {
        let close = if keeps_alive {
            ""
        } else {
            "Connection: close\r\n"
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: load\r\n{close}\r\n");
        let failed = |what: &str, error: &io::Error| format!("{what}: {:?}", error.kind());
        self.0
            .get_mut()
            .write_all(request.as_bytes())
            .map_err(|error| failed("not sent", &error))?;
        let (mut line, mut lines) = (String::new(), 0);
        let (mut generation, mut closes, mut length) = (String::new(), false, None);
        loop {
            let what = if lines == 0 {
                "not answered"
            } else {
                "head cut"
            };
            match self.0.read_line(&mut line) {
                Ok(0) => return Err(format!("{what}: closed")),
                Ok(_) => {}
                Err(error) => return Err(failed(what, &error)),
            }
            let text = mem::take(&mut line).trim_end().to_ascii_lowercase();
            if lines == 0 && !text.starts_with("http/1.1 200") {
                return Err(format!("answered {text}"));
            }
            lines += 1;
            match text.split_once(": ") {
                Some(("x-gen", value)) => generation = value.into(),
                Some(("connection", value)) => closes = value == "close",
                Some(("content-length", value)) => length = value.parse().ok(),
                Some(_) => {}
                None if text.is_empty() => break,
                None => {}
            }
        }
        let mut body = vec![0; length.ok_or("answered without a length")?];
        self.0
            .read_exact(&mut body)
            .map_err(|error| failed("body cut", &error))?;
        Ok((generation, closes))
    }
}

/// How long a request is one at a switch: until the last connection has moved, whose request
/// may take 300 ms. nginx begins 100 ms late: it leaves that to its new processes.
const SWITCH: Duration = Duration::from_millis(500);
/// Longer than any request may take.
const TIMEOUT: Duration = Duration::from_secs(20);
