//! The times in events, and where they say it was.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use sql_trace::{Event, Op, TracedPool, TracedPoolOptions, Tracer};
use sqlx::Executor;

use crate::databases::Database;

/// The times of one event.
#[derive(Clone, Copy, Debug)]
struct Times {
    op: Op,
    acquire: Option<Duration>,
    elapsed: Duration,
    first_row: Option<Duration>,
    consumer: Duration,
}

#[derive(Clone, Default)]
struct Clock(Arc<Mutex<Vec<Times>>>);

impl Clock {
    fn tracer(&self) -> impl Tracer + use<> {
        let times = Arc::clone(&self.0);
        move |event: &Event<'_>| {
            times.lock().unwrap().push(Times {
                op: event.op,
                acquire: event.acquire,
                elapsed: event.elapsed.unwrap(),
                first_row: event.first_row,
                consumer: event.consumer,
            });
        }
    }

    fn take<const N: usize>(&self) -> [Times; N] {
        let times = std::mem::take(&mut *self.0.lock().unwrap());
        let seen = format!("{times:?}");
        times
            .try_into()
            .unwrap_or_else(|_| panic!("{N} events: {seen}"))
    }
}

async fn pool<DB: Database>(url: &str, clock: &Clock) -> TracedPool<DB> {
    let options = TracedPoolOptions::<DB>::new().tracer(clock.tracer());
    options.max_connections(1).connect(url).await.unwrap()
}

const SLEEP: Duration = Duration::from_millis(60);

/// Of what the server slept; its clock is not ours.
const SLEPT: Duration = Duration::from_millis(50);

async fn times_are_kept_apart<DB: Database>(test: &str, sleep: &'static str)
where
    DB::Arguments: sqlx::IntoArguments<DB>,
{
    let Some(scratch) = DB::scratch(test).await else {
        return;
    };
    let clock = Clock::default();
    let before = Instant::now();
    let pool = pool::<DB>(&scratch.url, &clock).await;
    let whole = before.elapsed();
    let [open] = clock.take();
    assert!(
        open.elapsed > Duration::ZERO && open.elapsed <= whole,
        "{open:?}"
    );

    let before = Instant::now();
    (&pool).execute(sleep).await.unwrap();
    let whole = before.elapsed();
    let [exec] = clock.take();
    assert!(exec.elapsed >= SLEPT, "{exec:?}");
    assert!(exec.elapsed + exec.acquire.unwrap() <= whole, "{exec:?}");

    // Another waits for the connection while it sleeps.
    for op in [Op::Exec, Op::Acquire, Op::Begin] {
        let mut held = pool.acquire().await.unwrap();
        let _ = clock.take::<1>();
        let before = Instant::now();
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move {
                match op {
                    Op::Exec => drop((&pool).execute("SELECT 1").await.unwrap()),
                    Op::Acquire => drop(pool.acquire().await.unwrap()),
                    _ => pool.begin().await.unwrap().rollback().await.unwrap(),
                }
            }
        });
        tokio::task::yield_now().await;
        (&mut held).execute(sleep).await.unwrap();
        drop(held);
        waiting.await.unwrap();
        let whole = before.elapsed();
        let times = std::mem::take(&mut *clock.0.lock().unwrap());
        assert!(
            times[0].elapsed >= SLEPT && times[0].acquire.is_none(),
            "{times:?}"
        );
        let waited = match op {
            Op::Exec => times[1].acquire.unwrap(),
            _ => times[1].elapsed,
        };
        assert!(waited >= SLEPT && waited <= whole, "{times:?}");
        let others: Duration = times[1..].iter().map(|times| times.elapsed).sum();
        let others = match op {
            Op::Exec => others,
            _ => others - waited,
        };
        assert!(others + waited <= whole, "{op}: {times:?}");
        assert_eq!(times[1].op, if op == Op::Exec { op } else { Op::Acquire });
    }
}

#[tokio::test]
async fn times_are_kept_apart_on_postgres() {
    times_are_kept_apart::<sqlx::Postgres>("times::postgres", "SELECT pg_sleep(0.06)").await;
}

#[tokio::test]
async fn times_are_kept_apart_on_mysql() {
    times_are_kept_apart::<sqlx::MySql>("times::mysql", "SELECT sleep(0.06)").await;
}

#[tokio::test]
async fn first_row_is_had_long_before_the_last() {
    let clock = Clock::default();
    let pool = pool::<sqlx::Sqlite>("sqlite::memory:", &clock).await;
    let _ = clock.take::<1>();
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) \
                SELECT i FROM n";
    // A machine may stand still before the first row, but not each time.
    let is_early = |times: &Times| times.first_row.unwrap() < times.elapsed / 2;
    let mut early = [false; 3];
    for _ in 0..50 {
        let rows = sqlx::query(many).fetch_all(&pool).await.unwrap();
        assert_eq!(rows.len(), 60_000);
        let [all] = clock.take();
        assert_eq!(all.consumer, Duration::ZERO);
        early[0] |= is_early(&all);
        for on_pool in [true, false] {
            let mut connection = pool.acquire().await.unwrap();
            let mut rows = if on_pool {
                drop(connection);
                sqlx::query(many).fetch(&pool)
            } else {
                sqlx::query(many).fetch(&mut *connection)
            };
            while let Some(row) = rows.next().await {
                row.unwrap();
            }
            drop(rows);
            let [_, stream] = clock.take();
            early[1 + usize::from(on_pool)] |= is_early(&stream);
        }
        if early == [true; 3] {
            return;
        }
    }
    panic!("the first row came late: {early:?}");
}

/// Has a reader sleep over each of two rows, or give up after one.
async fn reader_sleeps_over_rows(most: usize) {
    let clock = Clock::default();
    let pool = pool::<sqlx::Sqlite>("sqlite::memory:", &clock).await;
    let _ = clock.take::<1>();
    for on_pool in [true, false] {
        let mut connection = pool.acquire().await.unwrap();
        let before = Instant::now();
        let rows = if on_pool {
            drop(connection);
            sqlx::query("SELECT 1 UNION SELECT 2").fetch(&pool)
        } else {
            sqlx::query("SELECT 1 UNION SELECT 2").fetch(&mut *connection)
        };
        let mut rows = rows.take(most);
        let mut slept = Duration::ZERO;
        while let Some(row) = rows.next().await {
            row.unwrap();
            tokio::time::sleep(SLEEP).await;
            slept += SLEEP;
        }
        drop(rows);
        let whole = before.elapsed();
        let [_, times] = clock.take();
        assert!(slept >= SLEEP && times.consumer >= slept, "{times:?}");
        assert!(times.consumer + times.elapsed <= whole, "{times:?}");
    }
}

#[tokio::test]
async fn time_of_the_reader_is_not_that_of_the_database() {
    reader_sleeps_over_rows(usize::MAX).await;
}

#[tokio::test]
async fn reader_that_gives_up_was_not_the_database_until_then() {
    reader_sleeps_over_rows(1).await;
}

/// The attributes of a statement on a database, but for a temporary path.
#[tokio::test]
async fn time_of_the_reader_of_results_is_not_that_of_the_database() {
    let clock = Clock::default();
    let pool = pool::<sqlx::Sqlite>("sqlite::memory:", &clock).await;
    let _ = clock.take::<1>();
    let mut results = (&pool).execute_many("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    let mut slept = Duration::ZERO;
    while let Some(result) = results.next().await {
        result.unwrap();
        tokio::time::sleep(SLEEP).await;
        slept += SLEEP;
    }
    let [times] = clock.take();
    assert!(slept >= SLEEP && times.consumer >= slept, "{times:?}");
}

async fn attributes<DB: Database>(test: &str) -> Option<Vec<(&'static str, String)>> {
    let scratch = DB::scratch(test).await?;
    let attributes = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&attributes);
    let tracer = move |event: &Event<'_>| {
        if event.op == Op::Exec {
            let mut list = Vec::new();
            event.attributes(|name, value| list.push((name, value.to_owned())));
            *keep.lock().unwrap() = list;
        }
    };
    let options = TracedPoolOptions::<DB>::new().tracer(tracer);
    let pool = options.connect(&scratch.url).await.unwrap();
    assert!((&pool).execute("SELECT * FROM missing").await.is_err());
    let mut list = std::mem::take(&mut *attributes.lock().unwrap());
    for (name, value) in &mut list {
        match *name {
            "db.namespace" => assert!(scratch.url.contains(&*value), "{value}"),
            "server.address" => assert!(value.starts_with('/'), "a socket: {value}"),
            _ => continue,
        }
        value.clear();
    }
    Some(list)
}

#[tokio::test]
async fn attributes_say_which_database_it_was() {
    let words = |system: &str, address: bool, code: &str| {
        let mut list = vec![("db.system.name", system), ("db.namespace", "")];
        list.extend(address.then_some(("server.address", "")));
        list.push(("db.query.summary", "SELECT missing"));
        list.push(("db.response.status_code", code));
        list.push(("error.type", code));
        let owned = list
            .into_iter()
            .map(|(name, value)| (name, value.to_owned()));
        owned.collect::<Vec<_>>()
    };
    let sqlite = attributes::<sqlx::Sqlite>("attributes::sqlite")
        .await
        .unwrap();
    assert_eq!(sqlite, words("sqlite", false, "1"));
    if let Some(postgres) = attributes::<sqlx::Postgres>("attributes::postgres").await {
        assert_eq!(postgres, words("postgresql", true, "42P01"));
    }
    if let Some(mysql) = attributes::<sqlx::MySql>("attributes::mysql").await {
        assert_eq!(mysql, words("mysql", true, "42S02"));
    }
}

#[tokio::test]
async fn address_and_port_are_those_of_the_options() {
    fn of<DB: sql_trace::TraceDatabase>(url: &str) -> Arc<Mutex<String>> {
        let seen = Arc::new(Mutex::new(String::new()));
        let keep = Arc::clone(&seen);
        let tracer = move |event: &Event<'_>| {
            let mut seen = format!("{:?}", event.database);
            event.attributes(|name, value| {
                if name == "server.port" {
                    seen.push_str(&format!(", {name}={value}"));
                }
            });
            *keep.lock().unwrap() = seen;
        };
        let pool = TracedPoolOptions::<DB>::new()
            .tracer(tracer)
            .connect_lazy(url);
        let _ = pool.unwrap().inner();
        seen
    }
    let target = |name: &str, port: u16| {
        format!(
            "Target {{ name: {name:?}, namespace: Some(\"app\"), \
             address: Some(\"db.example.org\"), port: Some({port}) }}, server.port={port}"
        )
    };
    let postgres = of::<sqlx::Postgres>("postgres://me:secret@db.example.org:5433/app");
    assert_eq!(*postgres.lock().unwrap(), target("PostgreSQL", 5433));
    // Named after its user, where no other name is given.
    let postgres = of::<sqlx::Postgres>("postgres://app:secret@db.example.org:5433");
    assert_eq!(*postgres.lock().unwrap(), target("PostgreSQL", 5433));
    let mysql = of::<sqlx::MySql>("mysql://me:secret@db.example.org/app");
    assert_eq!(*mysql.lock().unwrap(), target("MySQL", 3306));
}
