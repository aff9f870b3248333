//! Any values as arguments: shown as what was bound, on each of the databases.
//! No connection is ever had; the arguments are shown all the same.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use sql_trace::{ArgValue, ArgsMode, Event, TraceDatabase, TracedPool, TracedPoolOptions, Tracer};
use sqlx::{Encode, IntoArguments, MySql, Postgres, Sqlite, Type};

thread_local!(static SHOWN: RefCell<Option<Vec<ArgValue<'static>>>> = const { RefCell::new(None) });

fn pool<DB: TraceDatabase>(url: &str) -> TracedPool<DB> {
    let tracer = |event: &Event<'_>| {
        if let Some(args) = event.args {
            SHOWN.set(args.values());
        }
    };
    let options = TracedPoolOptions::new().tracer(tracer.args(ArgsMode::Values { max: usize::MAX }));
    options.connect_lazy(url).expect("a good URL")
}

async fn check<DB: TraceDatabase>(url: &str, text: &str, blob: &[u8], number: i64, real: f64)
where
    DB::Arguments: IntoArguments<DB>,
    for<'q> String: Encode<'q, DB> + Type<DB>,
    for<'q> Vec<u8>: Encode<'q, DB> + Type<DB>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
    for<'q> f64: Encode<'q, DB> + Type<DB>,
    for<'q> Option<i64>: Encode<'q, DB> + Type<DB>,
{
    let pool = pool::<DB>(url);
    let query = sqlx::query("SELECT 1")
        .bind(text.to_owned())
        .bind(number)
        .bind(None::<i64>)
        .bind(blob.to_vec())
        .bind(real)
        .bind(text.to_owned());
    let _ = query.execute(&pool).await;
    let shown = SHOWN.take().expect("values");
    let expected = [
        ArgValue::Text { text: text.into(), len: Some(text.len()) },
        ArgValue::Int(number),
        ArgValue::Null,
        ArgValue::Bytes { bytes: blob.into(), len: Some(blob.len()) },
        ArgValue::Float(real),
        ArgValue::Text { text: text.into(), len: Some(text.len()) },
    ];
    assert_eq!(shown, expected);
}

fuzz_target!(|input: (&str, &[u8], i64, f64)| {
    let (text, blob, number, real) = input;
    // Not equal to itself.
    let real = if real.is_nan() { 0.5 } else { real };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        check::<Sqlite>("sqlite:///nonexistent/database", text, blob, number, real).await;
        check::<Postgres>("postgres://localhost/test?host=/nonexistent", text, blob, number, real).await;
        check::<MySql>("mysql://localhost/test?socket=/nonexistent", text, blob, number, real).await;
    });
});
