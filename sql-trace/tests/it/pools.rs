//! Pools: how they are made, and what is known of their connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sql_trace::sqlite::{SqlitePool, SqlitePoolOptions};
use sql_trace::{Event, Op, Outcome, TracedPool, TracedPoolOptions, Tracer};
use sqlx::pool::PoolOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Executor, Postgres, Sqlite};

use crate::recorder::Recorder;

/// An operation, its connection, and how it ended.
type Fact = (Op, Option<u64>, String);

/// What was told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Fact>>>);

impl Told {
    fn tracer(&self) -> impl Tracer + use<> {
        let told = Arc::clone(&self.0);
        move |event: &Event<'_>| {
            let id = event.connection.map(|id| id.get());
            let end = match event.outcome {
                Outcome::Err(failure) => failure.to_string(),
                outcome => outcome.as_str().to_owned(),
            };
            told.lock().unwrap().push((event.op, id, end));
        }
    }

    fn take(&self) -> Vec<Fact> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[test]
fn options_are_those_that_sqlx_is_given() {
    let second = Duration::from_secs(1);
    let options = TracedPoolOptions::<Sqlite>::new()
        .max_connections(7)
        .min_connections(3)
        .acquire_timeout(4 * second)
        .max_lifetime(5 * second)
        .idle_timeout(6 * second)
        .test_before_acquire(false);
    let seen = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&seen);
    let look = move |options: PoolOptions<Sqlite>| {
        *keep.lock().unwrap() = Some((
            options.get_max_connections(),
            options.get_min_connections(),
            options.get_acquire_timeout(),
            options.get_max_lifetime(),
            options.get_idle_timeout(),
            options.get_test_before_acquire(),
        ));
        options
    };
    let set = (7, 3, 4 * second, Some(5 * second), Some(6 * second), false);
    let _ = options.clone().configure(look.clone());
    assert_eq!(seen.lock().unwrap().take(), Some(set));
    let _ = options
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(true)
        .configure(look);
    let unset = (7, 3, 4 * second, None, None, true);
    assert_eq!(seen.lock().unwrap().take(), Some(unset));
}

#[tokio::test]
async fn copied_options_watch_and_explain_as_the_original_would() {
    let (told, plans) = (Told::default(), Arc::new(AtomicUsize::new(0)));
    let (tracer, planned) = (told.tracer(), Arc::clone(&plans));
    let options = SqlitePoolOptions::new()
        .tracer(tracer.and(move |event: &Event<'_>| {
            if event.op == Op::Plan {
                planned.fetch_add(1, Ordering::SeqCst);
            }
        }))
        .still_running(Duration::from_millis(10))
        .explain_slow(Duration::ZERO, Duration::ZERO)
        .max_connections(1);
    let pool = options.clone().connect("sqlite::memory:").await.unwrap();
    let held = pool.acquire().await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { (&pool).execute("SELECT 1").await.map(drop) }
    });
    let runs = |(op, _, end): &Fact| (*op, &**end) == (Op::Exec, "running");
    wait_until(|| told.0.lock().unwrap().iter().any(runs)).await;
    drop(held);
    waiting.await.unwrap().unwrap();
    wait_until(|| plans.load(Ordering::SeqCst) == 1).await;
}

async fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "it does not come true");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn server_that_is_not_there_is_told_by_the_kind_of_error_alone() {
    let told = Told::default();
    let pool = TracedPoolOptions::<Postgres>::new()
        .tracer(told.tracer())
        .connect_lazy("postgres://me@localhost/app?host=/nonexistent")
        .unwrap();
    let error = (&pool).execute("SELECT 1").await.unwrap_err();
    assert!(error.to_string().contains("os error"), "{error}");
    let kind = "entity not found".to_owned();
    assert_eq!(
        told.take(),
        [
            (Op::Open, None, kind.clone()),
            (Op::Exec, None, kind.clone())
        ]
    );
    pool.begin().await.unwrap_err();
    assert_eq!(
        told.take(),
        [(Op::Open, None, kind.clone()), (Op::Acquire, None, kind)]
    );
}

#[tokio::test]
async fn beginning_on_a_pool_made_elsewhere_is_told_whole() {
    let recorder = Recorder::default();
    let made = |timeout: u64| {
        let raw = PoolOptions::<Sqlite>::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_millis(timeout));
        TracedPool::new(
            raw.connect_lazy("sqlite::memory:").unwrap(),
            recorder.tracer(),
        )
    };
    let pool = made(60_000);
    pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    assert_eq!(
        recorder.lines(),
        ["Begin: BEGIN IMMEDIATE (T)", "Rollback; on drop (T)"]
    );
    recorder.clear();
    // Nobody knows that a connection could not be opened.
    pool.begin_with("BEGIN LATER").await.unwrap_err();
    assert_eq!(
        recorder.lines(),
        [r#"Begin: BEGIN LATER; err = "SQLite 1" (T)"#]
    );
    pool.close().await;
    recorder.clear();
    pool.begin().await.unwrap_err();
    assert_eq!(recorder.lines(), [r#"Acquire; err = "pool closed" (T)"#]);

    let impatient = made(50);
    // Opening may take longer than that.
    let _held = loop {
        if let Ok(connection) = impatient.acquire().await {
            break connection;
        }
    };
    recorder.clear();
    impatient.begin().await.unwrap_err();
    assert_eq!(recorder.lines(), [r#"Acquire; err = "pool timed out" (T)"#]);
}

#[tokio::test]
async fn pool_says_what_sqlxs_would() {
    let pool = SqlitePoolOptions::new()
        .tracer(Told::default().tracer())
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    let held = pool.acquire().await.unwrap();
    assert_eq!((pool.size(), pool.num_idle()), (1, 0));
    drop(held);
    wait_until(|| pool.num_idle() == 1).await;
    assert_eq!(pool.size(), 1);
    let mut held = pool.acquire().await.unwrap();
    (&mut held).execute(sqlx::query("SELECT 1")).await.unwrap();
    assert_eq!(held.cached_statements_size(), 1);
    held.clear_cached_statements().await.unwrap();
    assert_eq!(held.cached_statements_size(), 0);
    held.close_on_drop();
    drop(held);
    wait_until(|| pool.size() == 0).await;
    let another = pool.acquire().await.unwrap();
    let id = another.id();
    let leaked = another.leak();
    assert!(id.is_some() && leaked.id() == id, "{leaked:?}");
    assert_eq!((pool.size(), pool.num_idle()), (1, 0), "in use for ever");
    let others = SqliteConnectOptions::new().filename("/nonexistent/other.db");
    pool.set_connect_options(others);
    let set = pool.connect_options();
    assert!(set.get_filename().ends_with("other.db"), "{set:?}");
}

#[tokio::test]
async fn pool_is_closed_from_the_call_on() {
    let recorder = Recorder::default();
    let options = SqlitePoolOptions::new().tracer(recorder.tracer());
    let pool = options.connect_lazy("sqlite::memory:").unwrap();
    let event = pool.close_event();
    let closing = pool.close();
    assert!(pool.is_closed());
    event.await;
    let error = pool.acquire().await.unwrap_err();
    assert!(matches!(error, sqlx::Error::PoolClosed), "{error}");
    closing.await;
    drop(pool.close());
    assert_eq!(
        recorder.lines(),
        [
            r#"Acquire; err = "pool closed" (T)"#,
            "Close (T)",
            "Close; cancelled (T)",
        ]
    );
}

#[tokio::test]
async fn transaction_is_begun_with_a_statement_if_a_connection_is_idle() {
    let recorder = Recorder::default();
    let pool = SqlitePoolOptions::new()
        .tracer(recorder.tracer())
        .max_connections(1)
        .connect_lazy("sqlite::memory:")
        .unwrap();
    assert_eq!(pool.options().get_max_connections(), 1);
    let none = pool.try_begin_with("BEGIN IMMEDIATE").await.unwrap();
    assert!(none.is_none(), "none is open");
    assert_eq!(recorder.lines(), [""; 0]);
    (&pool).execute("SELECT 1").await.unwrap();
    wait_until(|| pool.num_idle() == 1).await;
    recorder.clear();
    let begun = pool.try_begin_with("BEGIN IMMEDIATE").await.unwrap();
    begun.unwrap().commit().await.unwrap();
    wait_until(|| pool.num_idle() == 1).await;
    pool.try_begin_with("BEGIN LATER").await.unwrap_err();
    assert_eq!(
        recorder.lines(),
        [
            "Begin: BEGIN IMMEDIATE (T)",
            "Commit (T)",
            r#"Begin: BEGIN LATER; err = "SQLite 1" (T)"#,
        ]
    );
}

#[tokio::test]
async fn connection_that_the_programs_hook_refuses_after_opening_is_not_used() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let told = Told::default();
    let pool = SqlitePoolOptions::new()
        .tracer(told.tracer())
        .after_connect(move |_, _| {
            let refused = count.fetch_add(1, Ordering::SeqCst) == 0;
            Box::pin(async move {
                match refused {
                    true => Err(sqlx::Error::Protocol("not good enough".into())),
                    false => Ok(()),
                }
            })
        })
        .acquire_timeout(Duration::from_secs(60))
        .max_connections(1)
        .connect_lazy("sqlite::memory:")
        .unwrap();
    (&pool).execute("SELECT 1").await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    let told = told.take();
    let ops: Vec<_> = told.iter().map(|(op, ..)| *op).collect();
    assert_eq!(ops, [Op::Open, Op::Open, Op::Exec]);
    assert_eq!(told[2].1, told[1].1, "the second connection: {told:?}");
}

#[tokio::test]
async fn connections_are_known_though_a_hook_uses_another_pool() {
    let inner = Told::default();
    let configuration = SqlitePoolOptions::new()
        .tracer(inner.tracer())
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    let opened = inner.take()[0].1;
    let outer = Told::default();
    let pool = SqlitePoolOptions::new()
        .tracer(outer.tracer())
        .before_acquire(move |_, _| {
            let configuration: SqlitePool = configuration.clone();
            Box::pin(async move {
                (&configuration).execute("SELECT 1").await?;
                Ok(true)
            })
        })
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    for _ in 0..2 {
        (&pool).execute("SELECT 2").await.unwrap();
    }
    let known = |told: Vec<Fact>| {
        let mut ids: Vec<_> = told.into_iter().map(|(_, id, _)| id).collect();
        ids.dedup();
        ids
    };
    assert!(opened.is_some());
    assert_eq!(known(inner.take()), [opened]);
    let outer = known(outer.take());
    assert!(outer.len() == 1 && outer[0] > opened, "{outer:?}");
}

#[tokio::test]
async fn connection_that_was_waited_for_is_known() {
    let told = Told::default();
    let pool = SqlitePoolOptions::new()
        .tracer(told.tracer())
        .max_connections(2)
        .acquire_timeout(Duration::from_secs(60))
        .connect_lazy("sqlite::memory:")
        .unwrap();
    let gap = Duration::from_millis(10);
    let _elder = pool.acquire().await.unwrap();
    tokio::time::sleep(gap).await;
    let younger = pool.acquire().await.unwrap();
    let id = younger.id();
    let mut held = Some(younger);
    // Two that were opened within one poll cannot be told apart, which a machine
    // that stands still makes of them once in a while.
    for _ in 0..50 {
        let mut waiting = tokio::spawn(pool.acquire());
        // Longer than the time between the two openings.
        tokio::select! {
            _ = &mut waiting => panic!("there is none to be had"),
            () = tokio::time::sleep(10 * gap) => {}
        }
        drop(held.take());
        let had = waiting.await.unwrap().unwrap();
        if had.id().is_some() {
            assert_eq!(had.id(), id);
            return;
        }
        held = Some(had);
    }
    panic!("it was never known: {:?}", told.take());
}

#[tokio::test]
async fn failed_commit_is_told_with_the_rollback_that_follows() {
    let recorder = Recorder::default();
    let pool = SqlitePoolOptions::new()
        .tracer(recorder.tracer())
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    let tables = "CREATE TABLE a (id INTEGER PRIMARY KEY); \
                  CREATE TABLE b (a INT REFERENCES a DEFERRABLE INITIALLY DEFERRED)";
    sqlx::raw_sql(tables).execute(&pool).await.unwrap();
    let mut transaction = pool.begin().await.unwrap();
    let orphan = sqlx::query("INSERT INTO b VALUES (1)");
    orphan.execute(&mut *transaction).await.unwrap();
    recorder.clear();
    transaction.commit().await.unwrap_err();
    assert_eq!(
        recorder.facts(),
        ["Commit error 787 c1", "Rollback on-drop c1"]
    );
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM b")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
}
