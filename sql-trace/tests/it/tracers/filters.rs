//! What is kept of all that happens.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use sql_trace::{Event, Op, Tracer, writer};
use sqlx::Executor;

use super::{Log, Ops, pool};

/// A tracer that wants one kind of operation, and says which it was asked for.
struct Only(Op, Ops);

impl Tracer for Only {
    fn enabled(&self, op: Op) -> bool {
        op == self.0
    }

    fn trace(&self, event: &Event<'_>) {
        self.1.0.lock().unwrap().push(event.op);
    }
}

#[tokio::test]
async fn operation_that_is_not_enabled_is_not_told() {
    let (execs, queries, both) = (Ops::default(), Ops::default(), Ops::default());
    let tracer = Only(Op::Exec, execs.clone())
        .and(Only(Op::Query, queries.clone()))
        .filter({
            let both = both.clone();
            move |event| {
                both.0.lock().unwrap().push(event.op);
                true
            }
        });
    let pool = pool(tracer).await;
    (&pool).execute("SELECT 1").await.unwrap();
    (&pool).fetch_all("SELECT 1").await.unwrap();
    pool.acquire().await.unwrap().ping().await.unwrap();
    pool.begin().await.unwrap().rollback().await.unwrap();
    drop(pool.begin().await.unwrap());
    let _ = pool.inner();
    assert_eq!(execs.take(), [Op::Exec]);
    assert_eq!(queries.take(), [Op::Query]);
    assert_eq!(
        both.take(),
        [Op::Exec, Op::Query],
        "the rest is not captured"
    );
}

#[tokio::test]
async fn filter_keeps_what_is_wanted() {
    let log = Log::default();
    let tracer = writer(log.clone()).filter(|event| event.statement == Some("SELECT 2"));
    let pool = pool(tracer).await;
    for statement in ["SELECT 1", "SELECT 2", "SELECT 3"] {
        (&pool).execute(statement).await.unwrap();
    }
    assert_eq!(log.take_without_times(), ["Exec: SELECT 2; args = [] (T)"]);
}

#[tokio::test]
async fn slow_threshold_never_hides_what_went_wrong() {
    let log = Log::default();
    let pool = pool(writer(log.clone()).slow(Duration::from_secs(60))).await;
    (&pool).execute("SELECT 1").await.unwrap();
    assert!(log.take().is_empty());
    (&pool).execute("SELECT nope").await.unwrap_err();
    let mut rows = sqlx::query("SELECT 1 UNION SELECT 2").fetch(&pool);
    rows.next().await.unwrap().unwrap();
    drop(rows);
    let _ = pool.inner();
    assert_eq!(
        log.take_without_times(),
        [
            r#"Exec: SELECT nope; args = []; err = "SQLite 1" (T)"#,
            "Query: SELECT 1 UNION SELECT 2; args = []; cancelled after 1 row (T)",
            "Untraced; the pool of sqlx was taken by TracedPool::inner (T)",
        ]
    );
}

#[tokio::test]
async fn slow_threshold_compares_the_whole_wait_and_not_the_reader() {
    let threshold = Duration::from_millis(80);
    let log = Log::default();
    let pool = pool(writer(log.clone()).slow(threshold)).await;
    // The wait for a connection counts.
    let held = pool.acquire().await.unwrap();
    // A machine that stood still may have made this slow.
    log.take();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { (&pool).execute("SELECT 'waits'").await.map(drop) }
    });
    tokio::task::yield_now().await;
    tokio::time::sleep(threshold * 2).await;
    drop(held);
    waiting.await.unwrap().unwrap();
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("Exec: SELECT 'waits'"), "{lines:?}");
    // The time that the reader takes over a row does not.
    let long = Duration::from_secs(60);
    let consumer = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&consumer);
    let tracer = move |event: &Event<'_>| {
        if event.op == Op::Query {
            let elapsed = event.elapsed.unwrap();
            keep.lock()
                .unwrap()
                .push((elapsed, event.consumer, event.waited()));
        }
    };
    let pool = super::pool(tracer.and(writer(log.clone()).slow(long))).await;
    let mut rows = sqlx::query("SELECT 1 UNION SELECT 2").fetch(&pool);
    while let Some(row) = rows.next().await {
        row.unwrap();
        tokio::time::sleep(threshold).await;
    }
    drop(rows);
    assert!(log.take().is_empty());
    let [(elapsed, reader, waited)] = consumer.lock().unwrap()[..] else {
        panic!("one event");
    };
    assert!(reader >= threshold * 2, "{reader:?}");
    assert!(waited >= elapsed);
}

#[tokio::test]
async fn one_in_n_successes_is_kept_and_every_failure() {
    let log = Log::default();
    let pool = pool(writer(log.clone()).sample(3)).await;
    // The first of three was the opening.
    for _ in 0..7 {
        (&pool).execute("SELECT 1").await.unwrap();
        (&pool).execute("SELECT nope").await.unwrap_err();
    }
    let lines = log.take();
    let failed = lines.iter().filter(|line| line.contains("err = ")).count();
    assert_eq!((failed, lines.len()), (7, 9), "{lines:?}");
}

#[test]
#[should_panic(expected = "cannot keep one in 0 events")]
fn none_in_none_cannot_be_kept() {
    let _ = writer(io::sink()).sample(0);
}
