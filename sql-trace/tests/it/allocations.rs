//! What tracing allocates: the same few times for each statement, whatever its
//! arguments.

#![expect(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;

use sql_trace::{ArgsMode, Event, Op, TracedConnection, Tracer, writer};
use sqlx::Executor;

use crate::null::{Null, NullConnection, NullOptions};

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

/// The allocations of one of many statements, which are all alike. The driver
/// does nothing, so that the rest is ours and sqlx's.
async fn of_a_statement<C>(connection: &mut C) -> usize
where
    for<'c> &'c mut C: Executor<'c, Database = Null>,
{
    let mut last = usize::MAX;
    for n in 0..10i64 {
        let text = "it's".to_owned();
        let query = sqlx::query("SELECT ?, ?").bind(n).bind(text);
        let before = COUNT.get();
        query.fetch_optional(&mut *connection).await.unwrap();
        last = COUNT.get() - before;
    }
    last
}

async fn traced(tracer: impl Tracer) -> usize {
    let connect = TracedConnection::<Null>::connect_traced(&NullOptions, tracer);
    of_a_statement(&mut connect.await.unwrap()).await
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
    let bare = of_a_statement(&mut NullConnection).await;
    let more = |count: usize| count - bare;
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
