//! What tracing allocates: the same few times for each statement, whatever its
//! arguments.

#![expect(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;

use sql_trace::{ArgsMode, Event, Op, TracedConnection, Tracer, writer};
use sqlx::{ConnectOptions, Connection, Executor, Sqlite, SqliteConnection};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts this thread's allocations; tests run in threads of their own.
struct Counting;

thread_local!(static COUNT: Cell<usize> = const { Cell::new(0) });

fn count() {
    // A thread that ends has no counter left; nobody asks it.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The fewest allocations of a statement among many: the driver's own vary with
/// the pace of its thread.
async fn of_a_statement<C>(connection: &mut C) -> usize
where
    for<'c> &'c mut C: Executor<'c, Database = Sqlite>,
{
    let mut fewest = usize::MAX;
    for n in 0..300i64 {
        let query = sqlx::query("SELECT ?, ?, ?").bind(n).bind("text").bind(1.5);
        let before = COUNT.get();
        query.fetch_optional(&mut *connection).await.unwrap();
        fewest = fewest.min(COUNT.get() - before);
    }
    fewest
}

async fn traced(tracer: impl Tracer) -> usize {
    let options = "sqlite::memory:".parse().unwrap();
    let mut connection = TracedConnection::<Sqlite>::connect_traced(&options, tracer)
        .await
        .unwrap();
    of_a_statement(&mut connection).await
}

#[tokio::test]
async fn statement_allocates_no_more_than_its_arguments_copy_and_its_future() {
    struct Nobody;
    impl Tracer for Nobody {
        fn enabled(&self, _: Op) -> bool {
            false
        }

        fn trace(&self, _: &Event<'_>) {}
    }
    let options: sqlx::sqlite::SqliteConnectOptions = "sqlite::memory:".parse().unwrap();
    let mut bare = options.connect().await.unwrap();
    let bare_count = of_a_statement::<SqliteConnection>(&mut bare).await;
    bare.close().await.unwrap();
    let more = |count: usize| count.saturating_sub(bare_count);
    assert_eq!(more(traced(Nobody).await), 0, "disabled");
    let hidden = writer(io::sink()).args(ArgsMode::Hidden);
    assert_eq!(more(traced(hidden).await), 1, "hidden: the future");
    let captured = |_: &Event<'_>| ();
    assert_eq!(
        more(traced(captured).await),
        2,
        "captured: the copy as well"
    );
    assert_eq!(
        more(traced(writer(io::sink())).await),
        2,
        "the line has a buffer"
    );
    let values = writer(io::sink()).args(ArgsMode::Values { max: 64 });
    assert_eq!(
        more(traced(values).await),
        2,
        "values: decoded where they stand"
    );
}
