//! No bound value leaves the program unless a tracer asks for values.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sql_trace::{ArgsMode, Event, TracedPoolOptions, Tracer, json, writer};
use sqlx::Executor;

use crate::databases::Database;

/// All that any tracer wrote.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }

    /// Every way in which an event can be written.
    fn tracer(&self) -> impl Tracer + use<> {
        let plain = writer(self.clone()).connections().timestamps();
        let debug = self.clone();
        let tracer = move |event: &Event<'_>| {
            let mut debug = debug.clone();
            writeln!(debug, "{event:?} {event} {:?}", event.args).unwrap();
            event.attributes(|name, value| writeln!(debug, "{name}={value}").unwrap());
            assert!(event.args.is_none_or(|args| args.values().is_none()));
        };
        plain.and(json(self.clone())).and(tracer)
    }
}

/// A secret that cannot be in the output by chance.
fn secret() -> impl Strategy<Value = String> {
    "[a-z'\"\\\\ é%]{0,4}hunter2[0-9]{4}[a-z'\"\\\\ é%]{0,4}"
}

/// Statements that run, and statements that fail with the value in the error
/// that the caller gets: `{1}` is a placeholder for it.
async fn nothing_shows<DB: Database>(test: &str, statements: &[&'static str], quoted: bool)
where
    DB::Arguments: sqlx::IntoArguments<DB>,
    String: for<'q> sqlx::Encode<'q, DB> + sqlx::Type<DB>,
    Vec<u8>: for<'q> sqlx::Encode<'q, DB> + sqlx::Type<DB>,
    i64: for<'q> sqlx::Encode<'q, DB> + sqlx::Type<DB>,
{
    let Some(scratch) = DB::scratch(test).await else {
        return;
    };
    let url = scratch.url.clone();
    let statements: Vec<String> = statements.iter().map(|text| DB::words(text)).collect();
    let runtime = tokio::runtime::Handle::current();
    let run = tokio::task::spawn_blocking(move || {
        for mode in [ArgsMode::Kinds, ArgsMode::Hidden] {
            let output = Output::default();
            let pool = runtime.block_on(async {
                let pool = TracedPoolOptions::<DB>::new()
                    .tracer(output.tracer().args(mode))
                    .max_connections(1)
                    .connect(&url)
                    .await
                    .unwrap();
                let tables = "CREATE TABLE IF NOT EXISTS t (name VARCHAR(100) PRIMARY KEY, n INT)";
                (&pool).execute(tables).await.unwrap();
                pool
            });
            let in_errors = Mutex::new(0);
            let mut runner = TestRunner::new(Config::with_cases(24));
            let result = runner.run(&(secret(), 1_000_000_000_000i64..), |(text, number)| {
                runtime.block_on(async {
                    for statement in &statements {
                        let sql = sqlx::AssertSqlSafe(statement.clone());
                        let result = sqlx::query(sql).bind(text.clone()).execute(&pool).await;
                        if let Err(e) = result
                            && e.to_string().contains("hunter2")
                        {
                            *in_errors.lock().unwrap() += 1;
                        }
                    }
                    let sql = || sqlx::AssertSqlSafe(DB::words("SELECT {1}"));
                    let blob = text.clone().into_bytes();
                    let _ = sqlx::query(sql()).bind(blob).fetch_all(&pool).await;
                    let _ = sqlx::query(sql()).bind(number).fetch_all(&pool).await;
                });
                let output = output.take();
                prop_assert!(output.contains("Exec") && output.len() > 200);
                prop_assert!(!output.contains("hunter2"), "{}", output);
                prop_assert!(!output.contains("68756e74657232"), "in hex: {}", output);
                prop_assert!(
                    !output.contains("68, 75") && !output.contains("104, 117"),
                    "{}",
                    output
                );
                prop_assert!(!output.contains(&number.to_string()), "{}", output);
                Ok(())
            });
            result.unwrap();
            let in_errors = *in_errors.lock().unwrap();
            assert!(
                in_errors > 0 || !quoted,
                "no error quoted the value: a poor test"
            );
        }
    });
    run.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_shows_on_sqlite() {
    let statements = [
        "SELECT {1}",
        "INSERT INTO t (name, n) VALUES ({1}, 1)",
        "INSERT INTO t (name, n) VALUES ({1}, 1)",
        "SELECT json({1})",
        "SELECT * FROM t WHERE name MATCH {1}",
        "SELECT load_extension({1})",
    ];
    // SQLite quotes values in few of its errors.
    nothing_shows::<sqlx::Sqlite>("hiding::sqlite", &statements, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_shows_on_postgres() {
    let statements = [
        "SELECT {1}",
        "INSERT INTO t (name, n) VALUES ({1}, 1)",
        "INSERT INTO t (name, n) VALUES ({1}, 1)",
        "SELECT ({1}::TEXT)::INT",
        "SELECT ({1}::TEXT)::DATE",
    ];
    nothing_shows::<sqlx::Postgres>("hiding::postgres", &statements, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_shows_on_mysql() {
    let statements = [
        "SELECT {1}",
        "INSERT INTO t (name, n) VALUES ({1}, 1)",
        "INSERT INTO t (name, n) VALUES ({1}, 1)",
        "INSERT INTO t (name, n) VALUES ('x', {1})",
        "SELECT extractvalue('<a/>', {1})",
    ];
    nothing_shows::<sqlx::MySql>("hiding::mysql", &statements, true).await;
}
