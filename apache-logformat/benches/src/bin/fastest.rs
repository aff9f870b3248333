//! Every task in turn, over and over; prints the fastest time of each.
//!
//! On a machine that does other things too, the fastest of many rounds is what
//! the task takes, and taking turns is fair to all.

use std::time::{Duration, Instant};

use apache_logformat_benches::tasks;

const ROUNDS: u32 = 300;
const PER_ROUND: u32 = 1000;

fn main() {
    let mut tasks: Vec<_> = tasks()
        .into_iter()
        .map(|task| (task, Duration::MAX))
        .collect();
    for _ in 0..ROUNDS {
        for (task, fastest) in &mut tasks {
            let start = Instant::now();
            for _ in 0..PER_ROUND {
                (task.run)();
            }
            *fastest = start.elapsed().min(*fastest);
        }
    }
    for (task, fastest) in tasks {
        println!(
            "{:<28} {:>8.1} ns",
            task.name,
            fastest.as_secs_f64() * 1e9 / f64::from(PER_ROUND)
        );
    }
}
