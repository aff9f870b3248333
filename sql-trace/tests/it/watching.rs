//! The watchdog, and the plans of slow statements.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use sql_trace::sqlite::{SqlitePool, SqlitePoolOptions};
use sql_trace::{ArgsMode, Event, Op, TracedPoolOptions, Tracer, trace_scope};
use sqlx::Executor;

use crate::databases::Database;
use crate::recorder::without_times;

/// Lines that can be waited for.
#[derive(Clone, Default)]
struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Lines {
    fn tracer(&self, wanted: fn(&Event<'_>) -> bool) -> impl Tracer + use<> {
        let lines = Arc::clone(&self.0);
        move |event: &Event<'_>| {
            if wanted(event) {
                lines.0.lock().unwrap().push(event.to_string());
                lines.1.notify_all();
            }
        }
    }

    /// Waits for so many lines, which are taken.
    fn wait_for(&self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut lines = self.0.0.lock().unwrap();
        while lines.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited for {count} lines: {lines:?}");
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
        let lines = std::mem::take(&mut *lines);
        lines.iter().map(|line| without_times(line)).collect()
    }
}

/// A statement that runs until it is told, for three databases.
async fn is_told_while_it_runs<DB: Database>(test: &str, sleep: &'static str, expected: &str)
where
    DB::Arguments: sqlx::IntoArguments<DB>,
{
    let Some(scratch) = DB::scratch(test).await else {
        return;
    };
    let lines = Lines::default();
    let pool = async |threshold| {
        TracedPoolOptions::<DB>::new()
            .tracer(lines.tracer(|event| matches!(event.op, Op::Exec | Op::Query)))
            .still_running(threshold)
            .max_connections(1)
            .connect(&scratch.url)
            .await
            .unwrap()
    };
    let patient = pool(Duration::from_secs(3600)).await;
    (&patient).execute("SELECT 1").await.unwrap();
    let pool = pool(Duration::from_millis(100)).await;
    let stats = trace_scope("r1");
    let running = tokio::spawn(stats.run({
        let pool = pool.clone();
        async move { sqlx::query(sleep).execute(&pool).await.map(drop) }
    }));
    let told = lines.clone();
    let two = tokio::task::spawn_blocking(move || told.wait_for(2));
    let two = two.await.unwrap();
    assert_eq!(
        two[0], "Exec: SELECT 1; args = [] (T)",
        "too fast to be told"
    );
    assert_eq!(
        two[1],
        format!("Exec: {sleep}; args = []; still running; request = \"r1\" (T)")
    );
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    assert_eq!(lines.wait_for(1), [expected], "its end, once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statement_is_told_while_it_runs_on_sqlite() {
    let sleep = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000000) SELECT count(*) FROM n";
    let end = format!("Exec: {sleep}; args = []; cancelled; request = \"r1\" (T)");
    is_told_while_it_runs::<sqlx::Sqlite>("watchdog::sqlite", sleep, &end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statement_is_told_while_it_runs_on_postgres() {
    let end = "Exec: SELECT pg_sleep(60); args = []; cancelled; request = \"r1\" (T)";
    is_told_while_it_runs::<sqlx::Postgres>("watchdog::postgres", "SELECT pg_sleep(60)", end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statement_is_told_while_it_runs_on_mysql() {
    let end = "Exec: SELECT sleep(60); args = []; cancelled; request = \"r1\" (T)";
    is_told_while_it_runs::<sqlx::MySql>("watchdog::mysql", "SELECT sleep(60)", end).await;
}

#[tokio::test]
async fn statement_is_told_with_its_arguments_while_it_waits_for_a_connection() {
    let lines = Lines::default();
    let tracer = lines.tracer(|event| event.op == Op::Query);
    let pool = SqlitePoolOptions::new()
        .tracer(tracer.args(ArgsMode::Values { max: 64 }))
        .still_running(Duration::from_millis(20))
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    let held = pool.acquire().await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move {
            sqlx::query("SELECT ?")
                .bind(7)
                .fetch_one(&pool)
                .await
                .map(drop)
        }
    });
    let told = lines.clone();
    let first = tokio::task::spawn_blocking(move || told.wait_for(1));
    let first = first.await.unwrap();
    assert!(
        first[0].starts_with("Query: SELECT ?; args = [7]; still running"),
        "{first:?}"
    );
    drop(held);
    waiting.await.unwrap().unwrap();
    let last = lines.wait_for(1);
    assert!(
        last[0].starts_with("Query: SELECT ?; args = [7]"),
        "{last:?}"
    );
    assert!(!last[0].contains("still running"), "{last:?}");
}

/// Wants one kind of operation alone.
struct Only<T>(Op, T);

impl<T: Tracer> Tracer for Only<T> {
    fn enabled(&self, op: Op) -> bool {
        op == self.0
    }

    fn trace(&self, event: &Event<'_>) {
        self.1.trace(event);
    }
}

#[tokio::test]
async fn statement_that_nobody_wants_is_not_told_while_it_runs_either() {
    let lines = Lines::default();
    let pool = SqlitePoolOptions::new()
        .tracer(Only(Op::Exec, lines.tracer(|_| true)))
        .still_running(Duration::from_millis(20))
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    let held = pool.acquire().await.unwrap();
    // Counted in its scope, so that somebody does look at it.
    let stats = trace_scope("r1");
    let unwanted = tokio::spawn(stats.run({
        let pool = pool.clone();
        async move { (&pool).fetch_all("SELECT 1").await.map(drop) }
    }));
    tokio::task::yield_now().await;
    let wanted = tokio::spawn({
        let pool = pool.clone();
        async move { (&pool).execute("SELECT 2").await.map(drop) }
    });
    let told = lines.clone();
    let first = tokio::task::spawn_blocking(move || told.wait_for(1));
    let first = first.await.unwrap();
    drop(held);
    unwanted.await.unwrap().unwrap();
    wanted.await.unwrap().unwrap();
    let last = lines.wait_for(1);
    assert_eq!(first, ["Exec: SELECT 2; args = []; still running (T)"]);
    assert_eq!(last.len(), 1);
    assert!(
        last[0].starts_with("Exec: SELECT 2; args = [] "),
        "{last:?}"
    );
    assert_eq!(stats.statements(), 1);
}

#[tokio::test]
async fn watching_ends_with_the_pool() {
    let tracer = Arc::new(());
    let held = Arc::clone(&tracer);
    let pool = SqlitePoolOptions::new()
        .tracer(move |_: &Event<'_>| drop(Arc::clone(&held)))
        .still_running(Duration::from_secs(3600))
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    // It has nothing to watch, and sleeps.
    pool.close().await;
    drop(pool);
    // The thread that watches is the last that has it.
    let deadline = Instant::now() + Duration::from_secs(60);
    while Arc::strong_count(&tracer) > 1 {
        assert!(Instant::now() < deadline, "somebody goes on watching");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn many_statements_at_once_are_each_told_once() {
    let lines = Lines::default();
    let pool = SqlitePoolOptions::new()
        .tracer(lines.tracer(|event| event.op == Op::Query))
        .still_running(Duration::from_millis(20))
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    // Some that are over, so that places in the list are used again.
    for _ in 0..5 {
        (&pool).fetch_all("SELECT 1").await.unwrap();
    }
    // A machine that stood still may have made some slow; but they are over.
    let over = lines.wait_for(5);
    assert!(
        over.iter()
            .all(|line| line.starts_with("Query: SELECT 1; "))
    );
    let held = pool.acquire().await.unwrap();
    let waiting: Vec<_> = (0..8)
        .map(|n| {
            let pool = pool.clone();
            let sql = sqlx::AssertSqlSafe(format!("SELECT {n} AS waits"));
            tokio::spawn(async move { sqlx::query(sql).fetch_one(&pool).await.map(drop) })
        })
        .collect();
    let told = lines.clone();
    let mut first = tokio::task::spawn_blocking(move || told.wait_for(8))
        .await
        .unwrap();
    first.sort();
    for (n, line) in first.iter().enumerate() {
        let start = format!("Query: SELECT {n} AS waits; args = []; still running");
        assert!(line.starts_with(&start), "{line}");
    }
    // Several rounds later none is told again.
    tokio::time::sleep(Duration::from_millis(60)).await;
    drop(held);
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    let last = lines.wait_for(8);
    assert_eq!(last.len(), 8);
    assert!(
        last.iter().all(|line| !line.contains("still running")),
        "{last:?}"
    );
}

async fn explaining(path: &str, threshold: Duration, every: Duration, lines: &Lines) -> SqlitePool {
    let pool = SqlitePoolOptions::new()
        .tracer(lines.tracer(|event| event.op == Op::Plan))
        .explain_slow(threshold, every)
        .max_connections(1)
        .connect(path)
        .await
        .unwrap();
    (&pool)
        .execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, name TEXT)")
        .await
        .unwrap();
    pool
}

#[tokio::test]
async fn plan_of_a_slow_statement_is_told_and_never_of_a_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = format!("sqlite://{}/t.db?mode=rwc", directory.path().display());
    let lines = Lines::default();
    let always = explaining(&path, Duration::ZERO, Duration::ZERO, &lines).await;
    for write in [
        "INSERT INTO t VALUES (1, 'a')",
        "UPDATE t SET name = 'b'",
        "WITH x AS (SELECT 1) DELETE FROM t",
        "SELECT 1; DELETE FROM t",
        "PRAGMA user_version",
    ] {
        sqlx::raw_sql(write).execute(&always).await.unwrap();
    }
    let failing = "SELECT nope FROM t";
    (&always).execute(failing).await.unwrap_err();
    let stats = trace_scope("r1");
    let query =
        sqlx::query("SELECT (SELECT max(name) FROM t u WHERE u.id > t.id) FROM t WHERE name = ?");
    stats.run(query.bind("a").fetch_all(&always)).await.unwrap();
    assert_eq!(
        lines.wait_for(1),
        [concat!(
            "Plan: SELECT (SELECT max(name) FROM t u WHERE u.id > t.id) FROM t WHERE name = ?; ",
            "plan = \"SCAN t; CORRELATED SCALAR SUBQUERY 1; > SEARCH u USING INTEGER PRIMARY KEY ",
            "(rowid>?)\"; request = \"r1\" (T)"
        )]
    );
}

#[tokio::test]
async fn plan_is_told_again_after_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = format!("sqlite://{}/t.db?mode=rwc", directory.path().display());
    let lines = Lines::default();
    let pool = explaining(&path, Duration::ZERO, Duration::ZERO, &lines).await;
    (&pool).execute("SELECT 'first'").await.unwrap();
    assert_eq!(lines.wait_for(1).len(), 1);
    // While one plan is asked for, no other is.
    let deadline = Instant::now() + Duration::from_secs(60);
    while lines.0.0.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "no plan was told again");
        (&pool).execute("SELECT 'second'").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let told = lines.wait_for(1);
    assert!(told[0].starts_with("Plan: SELECT 'second'; plan = "));
}

#[tokio::test]
async fn plans_are_told_at_most_so_often_and_of_slow_statements_only() {
    let lines = Lines::default();
    let directory = tempfile::tempdir().unwrap();
    let path = format!("sqlite://{}/t.db?mode=rwc", directory.path().display());
    let seldom = explaining(&path, Duration::ZERO, Duration::from_secs(3600), &lines).await;
    (&seldom).execute("SELECT 'first'").await.unwrap();
    assert_eq!(lines.wait_for(1).len(), 1);
    (&seldom).execute("SELECT 'second'").await.unwrap();
    let fast = explaining(&path, Duration::from_secs(3600), Duration::ZERO, &lines).await;
    (&fast).execute("SELECT 'third'").await.unwrap();
    // Another that must be told, after which the others would have been.
    let always = explaining(&path, Duration::ZERO, Duration::ZERO, &lines).await;
    (&always).execute("SELECT 'fourth'").await.unwrap();
    let told = lines.wait_for(1);
    assert_eq!(
        told,
        ["Plan: SELECT 'fourth'; plan = \"SCAN CONSTANT ROW\" (T)"]
    );
}
