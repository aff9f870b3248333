//! Proves a deploy: loads the service under `start_server`, deploys it over and
//! over, rotates its logs, and counts what was lost.
//!
//! ```text
//! cargo build --release --bins && target/release/hotdeploy-bench
//! hotdeploy-bench --fault kill-worker --fault lock-database
//! hotdeploy-bench --chart examples/deploy.svg
//! ```
//!
//! Every request is sent once and has a number that is its `X-Request-Id`. At the
//! end each must have exactly one access line, over all files and generations,
//! and each access line as many SQL events as it says there were statements.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it reports")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use sql_trace::TestPostgres;

use deployment::Deployment;
use fault::{Fault, Place, SmallDisk};
use load::{Load, Sample};
use logs::{Comparison, Logs};

#[path = "hotdeploy-bench/chart.rs"]
mod chart;
#[path = "hotdeploy-bench/deployment.rs"]
mod deployment;
#[path = "hotdeploy-bench/fault.rs"]
mod fault;
#[path = "hotdeploy-bench/load.rs"]
mod load;
#[path = "hotdeploy-bench/logs.rs"]
mod logs;

/// Deploys the service over and over under load, and counts what was lost.
///
/// Ends with status 0 when nothing was lost but what a fault explains.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Options {
    /// How long the load lasts.
    #[arg(long, default_value_t = 60)]
    seconds: u32,

    /// How many deploys there are in that time.
    #[arg(long, default_value_t = 50)]
    deploys: u32,

    /// Loops that keep their connection.
    #[arg(long, default_value_t = 24)]
    keep_alive: u32,

    /// Loops that make a connection for each request.
    #[arg(long, default_value_t = 8)]
    per_request: u32,

    /// The pause of each loop between an answer and its next request.
    #[arg(long, value_name = "MS", default_value_t = 4)]
    think: u64,

    /// The size at which the logs are rotated.
    #[arg(long, value_name = "BYTES", default_value_t = 2_000_000)]
    rotate_bytes: u64,

    /// What goes wrong in the middle; repeatable, spread over the time.
    #[arg(long, value_enum)]
    fault: Vec<Fault>,

    /// How long a fault lasts that lasts.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    fault_seconds: u64,

    /// Draws requests per second and latency, by generation, into this SVG file.
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,

    /// Keeps the logs in this directory, which must be empty or not there.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hotdeploy-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, String> {
    let (_temporary, dir) = directory(options.keep.as_deref())?;
    let place = Place {
        logs: dir.join("logs"),
        database: dir.join("service.db"),
        seconds: options.fault_seconds,
    };
    fs::create_dir(&place.logs).map_err(|error| error.to_string())?;
    let _disk = match options.fault.contains(&Fault::FullLogDisk) {
        true => Some(SmallDisk::mount(&place.logs)?),
        false => None,
    };
    let mut postgres = match options.fault.contains(&Fault::RestartPostgres) {
        true => Some(TestPostgres::start().map_err(|error| error.to_string())?),
        false => None,
    };
    let mut service_options = vec![format!("--rotate-bytes={}", options.rotate_bytes)];
    if let Some(postgres) = &postgres {
        service_options.push(format!("--database-url={}", postgres.url()));
    }
    let mut service = Deployment::start(&dir, &service_options)?;
    let load = Load {
        address: service.address()?,
        keep_alive: options.keep_alive,
        per_request: options.per_request,
        think: Duration::from_millis(options.think),
        code: String::new(),
        looks: options.fault.contains(&Fault::KillWorker),
    };
    let running = load.start()?;

    let began = Instant::now();
    let whole = Duration::from_secs(options.seconds.into());
    let mut deploys = Vec::new();
    let mut faults = options.fault.iter();
    let mut mended = None;
    let events = options.deploys + 1;
    for number in 1..=events {
        let due = whole * number / events;
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        if number < events {
            deploys.push(Instant::now());
            service.deploy()?;
            // Each generation is to answer, one that is killed at once as well.
            running.wait();
        }
        // The first of two comes after a third of the time.
        let begun = (options.fault.len() + 1) * number as usize / events as usize;
        while options.fault.len() - faults.len() < begun
            && let Some(fault) = faults.next()
        {
            println!("{:>5.1} s  {fault:?}", began.elapsed().as_secs_f64());
            fault.strike(&service, &place, postgres.as_mut())?;
            mended = Some(Instant::now());
        }
    }
    // What comes after a fault is to be seen, too.
    if let Some(mended) = mended {
        std::thread::sleep((RECOVERY * 2).saturating_sub(mended.elapsed()));
    }
    let samples = running.stop();
    let seconds = began.elapsed().as_secs_f64();
    let (ended, messages) = service.stop()?;

    let logs = Logs::read(&place.logs)?;
    let report = Report {
        options,
        seconds,
        samples: &samples,
        found: logs.compare(&samples),
        logs: &logs,
        reported_lost: logs::reported_lost(&messages),
        recovered: mended.map(|mended| mended + RECOVERY),
        deploys: deploys.len(),
    };
    report.print();
    if let Some(path) = &options.chart {
        let chart = chart::draw(&samples, &logs, began, &deploys);
        fs::write(path, chart).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let complaints = report.complaints(ended.success());
    for complaint in &complaints {
        println!("FAILED: {complaint}");
    }
    Ok(complaints.is_empty())
}

/// A directory for everything, and what removes it at the end.
fn directory(keep: Option<&Path>) -> Result<(Option<tempfile::TempDir>, PathBuf), String> {
    if let Some(dir) = keep {
        let failed = |error| format!("{}: {error}", dir.display());
        fs::create_dir_all(dir).map_err(failed)?;
        if fs::read_dir(dir).map_err(failed)?.next().is_some() {
            return Err(format!("{} is not empty", dir.display()));
        }
        return Ok((None, dir.canonicalize().map_err(failed)?));
    }
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = dir.path().to_owned();
    Ok((Some(dir), path))
}

/// What came of it.
struct Report<'a> {
    options: &'a Options,
    seconds: f64,
    samples: &'a [Sample],
    logs: &'a Logs,
    found: Comparison,
    reported_lost: (u64, u64),
    /// When no fault is to be felt any more.
    recovered: Option<Instant>,
    deploys: usize,
}

impl Report<'_> {
    fn print(&self) {
        let (options, found) = (self.options, &self.found);
        println!(
            "{:.0} s, {} keep-alive and {} connection-per-request loops, {} deploys, {} generations",
            self.seconds,
            options.keep_alive,
            options.per_request,
            self.deploys,
            found.generations.len()
        );
        let failures = load::failures(self.samples);
        println!(
            "requests     {}: {} failed, {} answered 503",
            self.samples.len(),
            failures.values().sum::<usize>(),
            self.unavailable()
        );
        for (failure, count) in failures {
            println!("             {count} {failure}");
        }
        let too_late = load::too_late(self.samples);
        if too_late > 0 {
            println!(
                "             {too_late} more came when their connection had been idle for too long"
            );
        }
        let [p50, p99, max] = self.latency();
        println!(
            "latency      p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms (without those that sleep)"
        );
        println!(
            "access lines {} in {} files: {} lost, {} doubled, {} unreadable",
            found.lines,
            self.logs.access_files,
            found.lines_lost,
            found.lines_doubled,
            self.logs.unreadable
        );
        println!(
            "SQL events   {} of {} statements in {} files: {} lost, {} doubled",
            found.events,
            found.statements,
            self.logs.sql_files,
            found.events_lost,
            found.events_doubled
        );
        if !options.fault.is_empty() {
            println!(
                "explained    {} failed requests have a line, without one: {:?}",
                found.failed_with_line, found.failed_without_line
            );
            let (access, sql) = self.reported_lost;
            println!(
                "             the service reports {access} access lines and {sql} SQL lines lost"
            );
        }
    }

    /// What was lost and is explained by no fault.
    fn complaints(&self, ended_well: bool) -> Vec<String> {
        let (options, found) = (self.options, &self.found);
        let mut complaints = Vec::new();
        let mut check = |what: &str, count: usize, at_most: usize| {
            if count > at_most {
                complaints.push(format!("{count} {what}, at most {at_most} are explained"));
            }
        };
        let kills = options
            .fault
            .iter()
            .filter(|f| **f == Fault::KillWorker)
            .count();
        let loops = options.keep_alive + options.per_request;
        let failed: usize = load::failures(self.samples).values().sum();
        check("requests failed", failed, kills * loops as usize);
        let restarts = options.fault.contains(&Fault::RestartPostgres);
        let unavailable = if restarts { usize::MAX } else { 0 };
        check("requests answered 503", self.unavailable(), unavailable);
        let recovered = |sample: &&Sample| self.recovered.is_some_and(|at| sample.began >= at);
        let late = self.samples.iter().filter(recovered);
        check(
            "requests answered 503 when the fault was over",
            late.filter(|sample| sample.end == Ok(503)).count(),
            0,
        );
        let odd = |sample: &&Sample| !matches!(sample.end, Ok(200 | 201 | 302 | 503) | Err(_));
        let odd = self.samples.iter().filter(odd).count();
        check("requests answered otherwise", odd, 0);

        let (access, sql) = self.reported_lost;
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        check("access lines lost", count(found.lines_lost), count(access));
        check("access lines doubled", count(found.lines_doubled), 0);
        // A line that was begun when the disk became full cannot be taken back.
        let fills = options
            .fault
            .iter()
            .filter(|f| **f == Fault::FullLogDisk)
            .count();
        check(
            "lines unreadable",
            self.logs.unreadable,
            fills * LOGS * PROCESSES,
        );
        check("SQL events lost", count(found.events_lost), count(sql));
        check("SQL events doubled", count(found.events_doubled), 0);
        let reported = if fills > 0 { usize::MAX } else { 0 };
        check(
            "reported losses without a full disk",
            count(access + sql),
            reported,
        );
        let missing = (self.deploys + 1).saturating_sub(found.generations.len());
        check("generations never answered", missing, 0);
        check("bad ends of start_server", usize::from(!ended_well), 0);
        complaints
    }

    fn unavailable(&self) -> usize {
        self.samples
            .iter()
            .filter(|sample| sample.end == Ok(503))
            .count()
    }

    /// In milliseconds: median, 99th percentile, largest.
    fn latency(&self) -> [f64; 3] {
        let quick = self.samples.iter().filter(|sample| !sample.slow);
        let mut times: Vec<_> = quick.map(|sample| sample.took).collect();
        times.sort_unstable();
        [0.5, 0.99, 1.0].map(|share| load::quantile(&times, share))
    }
}

/// How long a fault may be felt after its end.
const RECOVERY: Duration = Duration::from_secs(1);

/// That write to a full disk: the access log and the SQL log, of two generations.
const LOGS: usize = 2;
const PROCESSES: usize = 2;
