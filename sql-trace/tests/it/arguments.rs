//! Bound arguments are shown as what was bound.

mod edges;
mod postgres_types;
mod types;

use std::sync::{Arc, Mutex};

use sql_trace::{ArgsMode, Event, TraceDatabase, TracedPool, TracedPoolOptions, Tracer};
use sqlx::{AssertSqlSafe, IntoArguments, MySql, Postgres, Sqlite};

use self::types::{Case, Query, Types, bytes, case, text};
use crate::random::Random;

/// A pool whose tracer keeps the arguments of the last statement, as values and
/// as kinds.
struct Shown<DB: TraceDatabase> {
    pool: TracedPool<DB>,
    last: Arc<Mutex<(String, String)>>,
}

impl<DB: TraceDatabase> Shown<DB> {
    fn on(url: &str) -> Self {
        let last = Arc::new(Mutex::new((String::new(), String::new())));
        let (values, kinds) = (Arc::clone(&last), Arc::clone(&last));
        let values = move |event: &Event<'_>| {
            if let Some(args) = event.args {
                values.lock().unwrap().0 = args.to_string();
            }
        };
        let kinds = move |event: &Event<'_>| {
            if let Some(args) = event.args {
                kinds.lock().unwrap().1 = args.to_string();
            }
        };
        let pool = TracedPoolOptions::<DB>::new()
            .tracer(values.args(ArgsMode::Values { max: usize::MAX }).and(kinds))
            .max_connections(1)
            .connect_lazy(url)
            .unwrap();
        Self { pool, last }
    }
}

impl<DB: Types> Shown<DB>
where
    DB::Arguments: IntoArguments<DB>,
{
    /// Runs a statement with the cases for arguments, and compares what was
    /// shown of them. Whether the server likes the values is its own affair.
    async fn check(&self, cases: Vec<Case<DB>>, context: &str) {
        let placeholders: Vec<String> = (1..=cases.len()).map(DB::placeholder).collect();
        let sql = format!("SELECT {}", placeholders.join(", "));
        let mut query = sqlx::query(AssertSqlSafe(sql));
        let (mut values, mut kinds) = (Vec::new(), Vec::new());
        for case in cases {
            query = (case.bind)(query);
            values.push(case.value);
            kinds.push(case.kind);
        }
        let _ = query.execute(&self.pool).await;
        let last = self.last.lock().unwrap();
        assert_eq!(
            last.0,
            format!("[{}]", values.join(", ")),
            "{context}: values"
        );
        assert_eq!(
            last.1,
            format!("[{}]", kinds.join(", ")),
            "{context}: kinds"
        );
    }
}

/// What the decoding relies on in this version of sqlx. It needs no server: the
/// arguments of a statement are shown even if no connection can be had.
async fn contract<DB: Types>(url: &str)
where
    DB::Arguments: IntoArguments<DB>,
{
    let shown = Shown::<DB>::on(url);
    let mut random = Random::new(1);
    for kind in 0..DB::KINDS {
        for round in 0..50 {
            let context = format!(
                "{} encodes kind {kind} in another way than sql-trace knows (round {round})",
                DB::NAME
            );
            shown
                .check(vec![DB::random(kind, &mut random)], &context)
                .await;
        }
    }
    // Each after each other: one value's end is the next one's beginning.
    for first in 0..DB::KINDS {
        for second in 0..DB::KINDS {
            let cases = vec![
                DB::random(first, &mut random),
                DB::random(second, &mut random),
                DB::random(first, &mut random),
            ];
            let context = format!("{}: kinds {first}, {second}, {first}", DB::NAME);
            shown.check(cases, &context).await;
        }
    }
}

#[tokio::test]
async fn sqlite_arguments_are_encoded_as_known() {
    contract::<Sqlite>("sqlite:///nonexistent/database").await;
}

#[tokio::test]
async fn postgres_arguments_are_encoded_as_known() {
    contract::<Postgres>("postgres://localhost/test?host=/nonexistent").await;
}

#[tokio::test]
async fn mysql_arguments_are_encoded_as_known() {
    contract::<MySql>("mysql://localhost/test?socket=/nonexistent").await;
}

#[tokio::test]
async fn what_is_not_a_number_is_shown_on_sqlite() {
    let shown = Shown::<Sqlite>::on("sqlite:///nonexistent/database");
    let cases = vec![case(f64::NAN, "NaN", "float"), case(1, "1", "int")];
    shown.check(cases, "NaN").await;
}

#[tokio::test]
async fn large_values_keep_their_neighbours_on_sqlite() {
    let shown = Shown::<Sqlite>::on("sqlite:///nonexistent/database");
    for len in [1, 4_000, 5_000, 70_000, 1 << 20] {
        let cases = vec![
            text("before \0 é".to_owned()),
            bytes(vec![7; len]),
            case(-1, "-1", "int"),
            text("é".repeat(len)),
            case(None::<i64>, "NULL", "null"),
            bytes(Vec::new()),
            case(0.1, "0.1", "float"),
            case(i64::MIN, i64::MIN.to_string(), "int"),
        ];
        shown.check(cases, &format!("{len} bytes")).await;
    }
}

/// What is shown of the arguments that `bind` binds, each to `max` bytes.
async fn shown_of<DB: TraceDatabase>(
    url: &str,
    max: usize,
    bind: impl for<'q> FnOnce(Query<'q, DB>) -> Query<'q, DB>,
) -> String
where
    DB::Arguments: IntoArguments<DB>,
{
    let shown = Arc::new(Mutex::new(String::new()));
    let keep = Arc::clone(&shown);
    let tracer = move |event: &Event<'_>| {
        if let Some(args) = event.args {
            *keep.lock().unwrap() = args.to_string();
        }
    };
    let pool = TracedPoolOptions::<DB>::new()
        .tracer(tracer.args(ArgsMode::Values { max }))
        .connect_lazy(url)
        .unwrap();
    let _ = bind(sqlx::query("SELECT 1")).execute(&pool).await;
    std::mem::take(&mut *shown.lock().unwrap())
}

#[tokio::test]
async fn long_values_are_cut_with_their_size() {
    for len in [10, 100_000] {
        let shown = shown_of::<Sqlite>("sqlite:///nonexistent/database", 5, |query| {
            let query = query.bind("é".repeat(len));
            query.bind(vec![255u8; len]).bind("short")
        });
        assert_eq!(
            shown.await,
            format!(
                "[\"éé\"…({} bytes), 0xffffffffff…({len} bytes), \"short\"]",
                2 * len
            )
        );
    }
}

/// Random statements on a real database. `SQL_TRACE_STATEMENTS` says how many.
async fn round_trip<DB: Types>(test: &str)
where
    DB::Arguments: IntoArguments<DB>,
{
    let Some(scratch) = DB::scratch(test).await else {
        return;
    };
    let statements: u64 = std::env::var("SQL_TRACE_STATEMENTS")
        .map_or(1000, |n| n.parse().expect("a number of statements"));
    let seed = std::env::var("SQL_TRACE_SEED").map_or(7, |n| n.parse().expect("a seed"));
    let shown = Shown::<DB>::on(&scratch.url);
    let mut random = Random::new(seed);
    for n in 0..statements {
        let cases = (0..random.below(9))
            .map(|_| DB::random(random.below(DB::KINDS), &mut random))
            .collect();
        let context = format!("{} statement {n} of seed {seed}", DB::NAME);
        shown.check(cases, &context).await;
    }
}

#[tokio::test]
async fn sqlite_shows_what_was_bound() {
    round_trip::<Sqlite>("sqlite_shows_what_was_bound").await;
}

#[tokio::test]
async fn postgres_shows_what_was_bound() {
    round_trip::<Postgres>("postgres_shows_what_was_bound").await;
}

#[tokio::test]
async fn mysql_shows_what_was_bound() {
    round_trip::<MySql>("mysql_shows_what_was_bound").await;
}
