//! Every statement of a program, with its time and its arguments: only the
//! import and the place where the pool is made differ from plain sqlx.
//!
//! ```text
//! traced-queries
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it reports")]

use std::io::stdout;
use std::process::ExitCode;
use std::time::Duration;

use sql_trace::sqlite::SqlitePoolOptions;
use sql_trace::{ArgsMode, Tracer, trace_scope, writer};

#[tokio::main]
async fn main() -> ExitCode {
    let done = run().await;
    let done = done.inspect_err(|error| eprintln!("traced-queries: {error}"));
    ExitCode::from(u8::from(done.is_err()))
}

async fn run() -> sqlx::Result<()> {
    let tracer = writer(stdout())
        .mark_slow(Duration::from_millis(100))
        .args(ArgsMode::Values { max: 64 });
    let pool = SqlitePoolOptions::new()
        .tracer(tracer)
        // Told of while they still run, too.
        .still_running(Duration::from_millis(50))
        .max_connections(1)
        .connect("sqlite::memory:")
        .await?;

    sqlx::query("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
        .execute(&pool)
        .await?;
    for name in ["Ada", "Grace", "Mary \"Kay\""] {
        sqlx::query("INSERT INTO users (name) VALUES (?)")
            .bind(name)
            .execute(&pool)
            .await?;
    }

    // All that belongs to one request, under its id.
    let stats = trace_scope("request-1");
    stats
        .run(async {
            let names: Vec<String> = sqlx::query_scalar("SELECT name FROM users WHERE id > ?")
                .bind(1)
                .fetch_all(&pool)
                .await?;
            println!("{names:?}");
            sqlx::query_scalar::<_, i64>(SLOW)
                .bind(10_000_000)
                .fetch_one(&pool)
                .await
        })
        .await?;
    println!(
        "{}: {} statements, {:.0?} in the database",
        stats.id(),
        stats.statements(),
        stats.elapsed()
    );

    // A failure is told whatever the threshold, and not hidden from the caller.
    if let Err(error) = sqlx::query("SELECT nope").execute(&pool).await {
        println!("as expected: {error}");
    }
    pool.close().await;
    Ok(())
}

const SLOW: &str = "WITH RECURSIVE count (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count \
                    WHERE n < ?) SELECT MAX(n) FROM count";
