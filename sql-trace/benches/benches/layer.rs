//! The layer alone: a statement with one argument on a connection of a driver
//! that does nothing, with tracing and without, in turns within one run. And
//! what a large argument costs.
//!
//! ```text
//! cargo bench --manifest-path sql-trace/benches/Cargo.toml --bench layer
//! ```

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use sql_trace::{ArgsMode, Event, Op, TracedConnection, Tracer, json, writer};

/// A driver that does nothing, so that what is measured is the layer above it.
#[path = "../../tests/it/null.rs"]
mod null;

use self::null::{Null, NullConnection, NullOptions};

fn main() {
    let mut one = CpuSet::new();
    one.set(0);
    sched_setaffinity(None, &one).expect("one processor");
    statements();
    if std::env::var_os("ONLY").is_none() {
        large_arguments();
    }
}

fn statements() {
    const TURN: u32 = 2000;

    // Fewer for a profiler, which is slow.
    let rounds = std::env::var("ROUNDS").map_or(300, |n| n.parse().expect("a number"));
    let only = std::env::var("ONLY").ok();
    let mut bare = NullConnection;
    let mut traced: Vec<(&str, TracedConnection<'static, Null>)> = vec![
        ("disabled", connect(Disabled)),
        ("captured", connect(Captured::default())),
        ("full line", connect(writer(std::io::sink()))),
        (
            "full line, with values",
            connect(writer(std::io::sink()).args(ArgsMode::Values { max: 64 })),
        ),
        ("JSON", connect(json(std::io::sink()))),
    ];
    traced.retain(|(name, _)| only.as_deref().is_none_or(|only| only == *name));
    let mut turns = vec![Vec::new(); traced.len() + 1];
    for round in 0..rounds {
        for at in 0..turns.len() {
            let at = (at + round) % turns.len();
            let started = Instant::now();
            if at == 0 {
                for n in 0..TURN {
                    drop(run(sqlx::query("SELECT ?")
                        .bind(i64::from(n))
                        .fetch_optional(&mut bare)));
                }
            } else {
                let connection = &mut traced[at - 1].1;
                for n in 0..TURN {
                    drop(run(sqlx::query("SELECT ?")
                        .bind(i64::from(n))
                        .fetch_optional(&mut *connection)));
                }
            }
            turns[at].push(started.elapsed() / TURN);
        }
    }
    let median = |turns: &mut Vec<Duration>| {
        turns.sort();
        turns[turns.len() / 2]
    };
    let base = median(&mut turns[0]);
    println!("{:<28} {:>8} {:>8}", "one statement", "ns/op", "more");
    println!("{:<28} {:>8}", "bare", base.as_nanos());
    for (at, (name, _)) in traced.iter().enumerate() {
        let time = median(&mut turns[at + 1]);
        println!(
            "{name:<28} {:>8} {:>8}",
            time.as_nanos(),
            time.as_nanos() as i128 - base.as_nanos() as i128
        );
    }
}

/// What a statement with a large argument costs more than without tracing.
fn large_arguments() {
    const ROUNDS: usize = 100;

    let mut bare = NullConnection;
    let mut traced = connect(writer(std::io::sink()));
    let blob = vec![7u8; 1 << 20];
    let text = "x".repeat(1 << 20);
    println!("{:<28} {:>8}", "1 MiB, kinds", "µs more");
    let mut measure = |name: &str,
                       run_one: &mut dyn FnMut(
        bool,
        &mut NullConnection,
        &mut TracedConnection<'static, Null>,
    )| {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (with, times) in times.iter_mut().enumerate() {
                let started = Instant::now();
                run_one(with == 1, &mut bare, &mut traced);
                times.push(started.elapsed());
            }
        }
        let [mut without, mut with] = times;
        without.sort();
        with.sort();
        let more = with[ROUNDS / 2].saturating_sub(without[ROUNDS / 2]);
        println!("{name:<28} {:>8}", more.as_micros());
    };
    measure("blob", &mut |with, bare, traced| {
        let query = sqlx::query("SELECT ?").bind(blob.clone());
        if with {
            drop(run(query.fetch_optional(&mut *traced)));
        } else {
            drop(run(query.fetch_optional(&mut *bare)));
        }
    });
    measure("text", &mut |with, bare, traced| {
        let query = sqlx::query("SELECT ?").bind(text.clone());
        if with {
            drop(run(query.fetch_optional(&mut *traced)));
        } else {
            drop(run(query.fetch_optional(&mut *bare)));
        }
    });
}

fn connect(tracer: impl Tracer) -> TracedConnection<'static, Null> {
    run(TracedConnection::<Null>::connect_traced(
        &NullOptions,
        tracer,
    ))
    .expect("a connection")
}

/// Runs a future that is ready at once.
fn run<F: Future>(future: F) -> F::Output {
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut cx) {
        Poll::Ready(output) => std::hint::black_box(output),
        Poll::Pending => panic!("the driver waits for nothing"),
    }
}

struct Disabled;

impl Tracer for Disabled {
    fn enabled(&self, _: Op) -> bool {
        false
    }

    fn trace(&self, _: &Event<'_>) {}
}

#[derive(Default)]
struct Captured(AtomicU64);

impl Tracer for Captured {
    fn trace(&self, event: &Event<'_>) {
        self.0.fetch_add(event.rows_returned, Ordering::Relaxed);
    }
}
