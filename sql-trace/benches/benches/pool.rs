//! `SELECT ?` on SQLite in memory through a pool of one connection: bare sqlx,
//! this crate's tracing, and its peers, in turns within one run.
//!
//! ```text
//! cargo bench --manifest-path sql-trace/benches/Cargo.toml --bench pool
//! ```
//!
//! `OPS` is the number of statements of each variant (100000), in turns of
//! `TURN` (500). `ONLY` runs a single variant, for a profiler to count its
//! instructions. All threads share one processor, so that the processor time
//! of a turn is that of its statements.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use sql_trace::sqlite::{SqlitePool, SqlitePoolOptions};
use sql_trace::{ArgsMode, Event, Op, Tracer, trace_scope, writer};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};

fn main() {
    let mut one = CpuSet::new();
    one.set(0);
    sched_setaffinity(None, &one).expect("one processor");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    tracing::subscriber::set_global_default(Null).expect("the only subscriber");
    let ops = number("OPS", 100_000);
    let turn = number("TURN", 500);
    let only = std::env::var("ONLY").ok();
    let mut variants: Vec<Variant> = Vec::new();
    for (name, run) in all().await {
        if only.as_deref().is_none_or(|only| only == name) {
            variants.push(Variant {
                name,
                run,
                turns: Vec::new(),
            });
        }
    }
    for variant in &variants {
        (variant.run)(1000).await;
    }
    let turns = ops / turn;
    for round in 0..turns {
        for at in 0..variants.len() {
            // Nobody is always first.
            let at = (at + round as usize) % variants.len();
            let variant = &mut variants[at];
            let before = processor_time();
            (variant.run)(turn).await;
            variant.turns.push(processor_time() - before);
        }
    }
    println!(
        "{:<28} {:>9}   {:>7}  {:>15}",
        "variant", "µs/op", "ratio", "p10 to p90"
    );
    let base = variants[0].turns.clone();
    for variant in &variants {
        let total: Duration = variant.turns.iter().sum();
        let mut ratios: Vec<f64> = variant
            .turns
            .iter()
            .zip(&base)
            .map(|(turn, base)| turn.as_secs_f64() / base.as_secs_f64())
            .collect();
        ratios.sort_by(f64::total_cmp);
        let at = |share: f64| ratios[((ratios.len() - 1) as f64 * share) as usize];
        println!(
            "{:<28} {:>9.3}   {:>7.3}   {:>6.3} to {:<6.3}",
            variant.name,
            total.as_secs_f64() * 1e6 / (turns * turn) as f64,
            at(0.5),
            at(0.1),
            at(0.9)
        );
    }
}

type Run = Box<dyn Fn(u64) -> Pin<Box<dyn Future<Output = ()>>>>;

struct Variant {
    name: &'static str,
    run: Run,
    turns: Vec<Duration>,
}

/// The same statement through anything that runs it.
macro_rules! statements {
    ($pool:expr) => {{
        let pool = $pool;
        let run: Run = Box::new(move |count| {
            let pool = pool.clone();
            Box::pin(async move {
                for n in 0..count {
                    let row = sqlx::query("SELECT ?")
                        .bind(n as i64)
                        .fetch_one(&pool)
                        .await;
                    std::hint::black_box(row.expect("a row"));
                }
            })
        });
        run
    }};
}

async fn all() -> Vec<(&'static str, Run)> {
    vec![
        ("bare sqlx", statements!(bare(quiet()).await)),
        ("disabled", statements!(traced(Disabled).await)),
        ("captured", statements!(traced(Captured::default()).await)),
        (
            "full line",
            statements!(traced(writer(std::io::sink())).await),
        ),
        ("line, arguments hidden", {
            statements!(traced(writer(std::io::sink()).args(ArgsMode::Hidden)).await)
        }),
        ("full line, in a scope", {
            let pool = traced(writer(std::io::sink())).await;
            Box::new(move |count| {
                let pool = pool.clone();
                Box::pin(async move {
                    for n in 0..count {
                        let statement = sqlx::query("SELECT ?").bind(n as i64).fetch_one(&pool);
                        let row = trace_scope("request").run(statement).await;
                        std::hint::black_box(row.expect("a row"));
                    }
                })
            })
        }),
        ("full line, watched", {
            let options = SqlitePoolOptions::new()
                .tracer(writer(std::io::sink()))
                .still_running(Duration::from_secs(1));
            let pool = options.max_connections(1).connect_with(quiet()).await;
            statements!(pool.expect("a pool"))
        }),
        ("sqlx's log, null subscriber", {
            statements!(bare(memory().log_statements(log::LevelFilter::Debug)).await)
        }),
        ("sqlx-otel, no provider", {
            statements!(sqlx_otel::PoolBuilder::from(bare(quiet()).await).build())
        }),
        ("bare sqlx, again", statements!(bare(quiet()).await)),
    ]
}

fn memory() -> SqliteConnectOptions {
    "sqlite::memory:".parse().expect("a URL")
}

fn quiet() -> SqliteConnectOptions {
    memory().disable_statement_logging()
}

async fn bare(options: SqliteConnectOptions) -> sqlx::SqlitePool {
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
    pool.connect_with(options).await.expect("a pool")
}

async fn traced(tracer: impl Tracer) -> SqlitePool {
    let options = SqlitePoolOptions::new().tracer(tracer).max_connections(1);
    options.connect_with(quiet()).await.expect("a pool")
}

/// Wants nothing.
struct Disabled;

impl Tracer for Disabled {
    fn enabled(&self, _: Op) -> bool {
        false
    }

    fn trace(&self, _: &Event<'_>) {}
}

/// Is given everything, and does nothing with it.
#[derive(Default)]
struct Captured(AtomicU64);

impl Tracer for Captured {
    fn trace(&self, event: &Event<'_>) {
        self.0.fetch_add(event.rows_returned, Ordering::Relaxed);
    }
}

/// Takes sqlx's own events and drops them.
struct Null;

impl Subscriber for Null {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.target() == "sqlx::query" {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Visit;
        impl tracing::field::Visit for Visit {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn fmt::Debug) {
                std::hint::black_box(value);
            }
        }
        event.record(&mut Visit);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The processor time of all threads of this process.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().expect("a number"))
}
