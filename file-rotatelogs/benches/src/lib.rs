//! What the benchmarks have in common: rounds of all variants by turns, so that whatever
//! else the machine does falls on all of them alike.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A record of 200 bytes, as an access log has.
pub const RECORD: [u8; 200] = {
    let mut record = [b'x'; 200];
    record[199] = b'\n';
    record
};

/// One thing to be measured: it does so many records and says how long it took.
pub struct Variant {
    pub name: &'static str,
    pub run: Box<dyn FnMut(usize) -> Duration>,
    times: Vec<f64>,
}

impl Variant {
    pub fn new(name: &'static str, run: impl FnMut(usize) -> Duration + 'static) -> Self {
        Self {
            name,
            run: Box::new(run),
            times: Vec::new(),
        }
    }
}

/// Times something.
pub fn time(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// Runs all variants by turns and prints for each the time per record, and how it compares
/// with the first, round by round.
pub fn compare(title: &str, variants: &mut [Variant], records: usize, rounds: usize) {
    for variant in variants.iter_mut() {
        (variant.run)(records / 10);
    }
    for round in 0..rounds {
        let count = variants.len();
        for step in 0..count {
            // Not always in the same order.
            let variant = &mut variants[(step + round) % count];
            let nanos = (variant.run)(records).as_nanos() as f64;
            variant.times.push(nanos / records as f64);
        }
    }
    println!("\n{title}: ns per record, {rounds} rounds of {records}");
    println!(
        "{:<44} {:>8} {:>8} {:>10}",
        "", "least", "median", "to first"
    );
    let first = variants[0].times.clone();
    for variant in variants.iter() {
        let ratios: Vec<f64> = variant
            .times
            .iter()
            .zip(&first)
            .map(|(own, first)| own / first)
            .collect();
        println!(
            "{:<44} {:>8.1} {:>8.1} {:>10.3}",
            variant.name,
            variant.times.iter().copied().fold(f64::MAX, f64::min),
            median(&variant.times),
            median(&ratios),
        );
    }
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// A directory to write in: on the disk that `BENCH_DIR` names, else that of the system's
/// temporary files.
pub fn directory() -> tempfile::TempDir {
    let parent = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(parent).expect("a directory to write in")
}
