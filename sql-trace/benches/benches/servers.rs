//! The time until a throwaway server answers, with a template that is there.
//!
//! ```text
//! cargo bench --manifest-path sql-trace/benches/Cargo.toml --bench servers
//! ```

use std::time::{Duration, Instant};

use sql_trace::{TestMysql, TestPostgres, TestServerError};

fn main() {
    println!(
        "{:<12} {:>8} {:>8} {:>8}",
        "ms", "first", "median", "slowest"
    );
    measure("PostgreSQL", TestPostgres::start);
    measure("MariaDB", TestMysql::start);
}

fn measure<S>(name: &str, start: impl Fn() -> Result<S, TestServerError>) {
    const ROUNDS: usize = 7;

    let timed = || -> Result<Duration, TestServerError> {
        let started = Instant::now();
        let server = start()?;
        let took = started.elapsed();
        drop(server);
        Ok(took)
    };
    // This one may have to make the template.
    let first = match timed() {
        Ok(took) => took,
        Err(e) => return println!("{name:<12} {e}"),
    };
    let mut times: Vec<Duration> = (0..ROUNDS).filter_map(|_| timed().ok()).collect();
    times.sort();
    println!(
        "{name:<12} {:>8} {:>8} {:>8}",
        first.as_millis(),
        times[times.len() / 2].as_millis(),
        times[times.len() - 1].as_millis()
    );
}
