//! Tracers that panic harm nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use sql_trace::{ArgsMode, Event, Op, Tracer, writer};
use sqlx::Executor;

use super::{Log, pool};

#[tokio::test]
async fn panicking_tracer_does_not_harm_the_statement() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let tracer = move |_: &Event<'_>| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::panic::resume_unwind(Box::new("a panic without a message"));
    };
    let pool = pool(tracer).await;
    let n: i64 = sqlx::query_scalar("SELECT 7")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(n, 7);
    drop(sqlx::query("SELECT 7").fetch(&pool).next().await);
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn tracer_that_panics_when_it_is_asked_does_not_harm_the_statement() {
    struct Asked;
    impl Tracer for Asked {
        fn enabled(&self, _: Op) -> bool {
            std::panic::resume_unwind(Box::new("a panic without a message"));
        }

        fn args_mode(&self) -> ArgsMode {
            std::panic::resume_unwind(Box::new("a panic without a message"));
        }

        fn trace(&self, _: &Event<'_>) {}
    }
    let pool = pool(Asked).await;
    let n: i64 = sqlx::query_scalar("SELECT 7")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(n, 7);
    drop(pool.begin().await.unwrap());
}

#[tokio::test]
async fn panic_of_one_tracer_leaves_the_other_its_events() {
    let broken = |_: &Event<'_>| {
        std::panic::resume_unwind(Box::new("a panic without a message"));
    };
    let log = Log::default();
    let pool = pool(broken.and(writer(log.clone()))).await;
    (&pool).execute("SELECT 1").await.unwrap();
    assert_eq!(log.take_without_times(), ["Exec: SELECT 1; args = [] (T)"]);
}
