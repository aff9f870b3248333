//! One request, one story.

use std::convert::Infallible;
use std::future::{Ready, pending, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, poll_immediate};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use sql_trace::sqlite::SqlitePool;
use sql_trace::{Event, Op, QueryStats, QueryStatsLayer, Tracer, trace_scope, writer};
use sqlx::{Executor, SqlSafeStr};
use tokio::sync::Notify;
use tower_layer::Layer;
use tower_service::Service;

use crate::recorder::without_times;
use crate::tracers::{Log, pool};

/// What was told: the operation, and the request it was for.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<OfRequest>>>);

type OfRequest = (Op, Option<String>);

impl Told {
    fn tracer(&self) -> impl Tracer + use<> {
        let told = Arc::clone(&self.0);
        move |event: &Event<'_>| {
            let request = event.request.map(ToOwned::to_owned);
            told.lock().unwrap().push((event.op, request));
        }
    }

    fn take(&self) -> Vec<OfRequest> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

async fn select(pool: &SqlitePool, n: i64) {
    let query = sqlx::query("SELECT ?").bind(n);
    query.execute(pool).await.unwrap();
}

#[tokio::test]
async fn scope_names_the_request_in_each_event() {
    let told = Told::default();
    let pool = pool(told.tracer()).await;
    told.take();
    select(&pool, 1).await;
    let stats = trace_scope("r1");
    stats
        .run(async {
            select(&pool, 1).await;
            tokio::task::yield_now().await;
            pool.begin().await.unwrap().commit().await.unwrap();
            drop(pool.begin().await.unwrap());
            let _ = pool.inner();
        })
        .await;
    select(&pool, 1).await;
    let r1 = || Some("r1".to_owned());
    assert_eq!(
        told.take(),
        [
            (Op::Exec, None),
            (Op::Exec, r1()),
            (Op::Acquire, r1()),
            (Op::Begin, r1()),
            (Op::Commit, r1()),
            (Op::Acquire, r1()),
            (Op::Begin, r1()),
            (Op::Rollback, r1()),
            (Op::Untraced, r1()),
            (Op::Exec, None),
        ]
    );
    assert_eq!(stats.id(), "r1");
    assert_eq!(stats.statements(), 1, "the transaction is no statement");
}

#[tokio::test]
async fn request_that_is_given_up_is_named_by_what_it_leaves() {
    let told = Told::default();
    let pool = pool(told.tracer()).await;
    told.take();
    let stats = trace_scope("r1");
    let begun = Notify::new();
    tokio::select! {
        biased;
        () = stats.run(async {
            let mut transaction = pool.begin().await.unwrap();
            (&mut *transaction).execute("SELECT 1").await.unwrap();
            begun.notify_one();
            pending().await
        }) => {}
        () = begun.notified() => {}
    }
    let r1 = || Some("r1".to_owned());
    let ops = [Op::Acquire, Op::Begin, Op::Exec, Op::Rollback];
    assert_eq!(told.take(), ops.map(|op| (op, r1())));
    let _held = pool.acquire().await.unwrap();
    told.take();
    let waited = stats.acquire();
    let waiting = stats.run(pool.begin());
    assert!(poll_immediate(waiting).await.is_none(), "there is none");
    assert_eq!(told.take(), [(Op::Acquire, r1())]);
    assert!(stats.acquire() > waited, "and it is counted");
    assert!(QueryStats::current().is_none());
}

#[tokio::test]
async fn scopes_of_two_tasks_do_not_mix() {
    let told = Told::default();
    let pool = pool(told.tracer()).await;
    let [a, b] = ["a", "b"].map(|id| trace_scope(id).warn_repeats(None));
    let both = async |stats: &QueryStats| {
        for n in 0..20 {
            select(&pool, n).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(QueryStats::current().unwrap().id(), stats.id());
    };
    tokio::join!(a.run(both(&a)), b.run(both(&b)), async {
        for _ in 0..20 {
            assert!(QueryStats::current().is_none(), "outside of both");
            tokio::task::yield_now().await;
        }
    });
    assert_eq!((a.statements(), b.statements()), (20, 20));
    let of = |id: &str, told: &[OfRequest]| {
        let mine = told
            .iter()
            .filter(|(_, request)| request.as_deref() == Some(id));
        mine.count()
    };
    let told = told.take();
    assert_eq!((of("a", &told), of("b", &told)), (20, 20));
}

#[tokio::test]
async fn inner_scope_ends_with_its_future() {
    let pool = pool(|_: &Event<'_>| ()).await;
    let (outer, inner) = (trace_scope("outer"), trace_scope("inner"));
    outer
        .run(async {
            select(&pool, 1).await;
            inner.run(select(&pool, 2)).await;
            assert_eq!(QueryStats::current().unwrap().id(), "outer");
            select(&pool, 3).await;
        })
        .await;
    assert_eq!((outer.statements(), inner.statements()), (2, 1));
    assert!(QueryStats::current().is_none());
}

#[tokio::test]
async fn scope_counts_what_its_statements_came_to() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&times);
    let pool = pool(move |event: &Event<'_>| {
        if let (Op::Exec | Op::Query, Some(text)) = (event.op, event.statement) {
            let took = (event.elapsed.unwrap(), text.to_owned());
            keep.lock().unwrap().push(took);
        }
    })
    .await;
    let stats = trace_scope("r1");
    let slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) \
                SELECT count(*) FROM n";
    stats
        .run(async {
            for n in 0..3 {
                select(&pool, n).await;
            }
            (&pool).execute(slow).await.unwrap();
            (&pool).execute("SELECT nope").await.unwrap_err();
            drop(
                sqlx::query("SELECT 1 UNION SELECT 2")
                    .fetch(&pool)
                    .next()
                    .await,
            );
        })
        .await;
    assert_eq!(stats.statements(), 6);
    assert_eq!(stats.failures(), 1);
    let times = times.lock().unwrap();
    // Which it is is for the machine to say; but the slow one takes its time.
    assert_eq!(stats.slowest().as_ref(), times.iter().max());
    let of_slow = times.iter().find(|(_, text)| text == slow).unwrap().0;
    assert!(of_slow > Duration::from_millis(1), "{of_slow:?}");
    assert_eq!(stats.elapsed(), times.iter().map(|(took, _)| *took).sum());
    assert!(stats.acquire() > Duration::ZERO);
    assert_eq!(stats.most_repeated(), 3);
    assert_eq!(stats.repeated(2), [(3, "SELECT ?".to_owned())]);
    assert_eq!(stats.repeated(1).len(), 1);
    assert_eq!(stats.repeated(0).len(), 4);
    let shown = stats.to_string();
    assert!(shown.starts_with("6 statements in "), "{shown}");
    assert!(shown.ends_with(", most repeated 3 times"), "{shown}");
}

#[tokio::test]
async fn statement_that_is_prepared_only_has_not_run() {
    let pool = pool(|_: &Event<'_>| ()).await;
    let stats = trace_scope("r1");
    let prepared = (&pool).prepare("SELECT 1".into_sql_str());
    stats.run(prepared).await.unwrap();
    assert!(stats.elapsed() > Duration::ZERO, "its time is counted");
    assert_eq!(stats.statements(), 0);
    assert_eq!((stats.most_repeated(), stats.slowest()), (0, None));
}

#[tokio::test]
async fn wait_for_a_connection_is_counted_whatever_it_is_for() {
    let wait = Duration::from_millis(60);
    let pool = pool(|_: &Event<'_>| ()).await;
    for what in 0..3 {
        let held = pool.acquire().await.unwrap();
        let stats = trace_scope("r1");
        let waiting = tokio::spawn(stats.run({
            let pool = pool.clone();
            async move {
                match what {
                    0 => select(&pool, 1).await,
                    1 => drop(pool.acquire().await.unwrap()),
                    _ => pool.begin().await.unwrap().commit().await.unwrap(),
                }
            }
        }));
        // It begins to wait before the time does.
        tokio::task::yield_now().await;
        tokio::time::sleep(wait).await;
        drop(held);
        waiting.await.unwrap();
        let waited = stats.acquire();
        assert!(waited >= wait * 9 / 10, "{what}: {waited:?}");
    }
}

#[tokio::test]
async fn statements_are_counted_though_no_tracer_wants_them() {
    struct Nobody;
    impl Tracer for Nobody {
        fn enabled(&self, _: Op) -> bool {
            false
        }

        fn trace(&self, _: &Event<'_>) {
            unreachable!("not enabled");
        }
    }
    let pool = pool(Nobody).await;
    let stats = trace_scope("r1");
    stats.run(select(&pool, 1)).await;
    assert_eq!(stats.statements(), 1);
}

#[tokio::test]
async fn statement_repeated_too_often_is_told_once() {
    let log = Log::default();
    let pool = pool(writer(log.clone()).filter(|event| event.op == Op::Repeated)).await;
    let warned = || {
        let lines = log.take();
        lines
            .iter()
            .map(|line| without_times(line))
            .collect::<Vec<_>>()
    };
    for n in 0..20 {
        select(&pool, n).await;
    }
    assert!(warned().is_empty(), "not in a scope");
    let run = async |stats: QueryStats, times: i64| {
        let all = async {
            for n in 0..times {
                select(&pool, n).await;
                (&pool).execute("SELECT 'another'").await.unwrap();
            }
        };
        stats.run(all).await;
    };
    let line = |statement: &str, times: u32, id: &str| {
        format!("Repeated: {statement}; run {times} times in one request; request = \"{id}\" (T)")
    };
    run(trace_scope("r1"), 10).await;
    assert!(warned().is_empty(), "10 times are not above 10");
    run(trace_scope("r2"), 20).await;
    assert_eq!(
        warned(),
        [
            line("SELECT ?", 11, "r2"),
            line("SELECT 'another'", 11, "r2")
        ]
    );
    run(trace_scope("r3").warn_repeats(2), 3).await;
    assert_eq!(
        warned(),
        [line("SELECT ?", 3, "r3"), line("SELECT 'another'", 3, "r3")]
    );
    run(trace_scope("r4").warn_repeats(None), 30).await;
    assert!(warned().is_empty(), "never");
}

#[tokio::test]
async fn largest_limit_of_repeats_is_never_passed() {
    let told = Told::default();
    let pool = pool(told.tracer()).await;
    told.take();
    let stats = trace_scope("r1").warn_repeats(u64::MAX);
    stats.run(select(&pool, 1)).await;
    assert_eq!(told.take(), [(Op::Exec, Some("r1".into()))]);
}

#[tokio::test]
async fn scope_forgets_which_statements_there_were_and_not_how_many() {
    let pool = pool(|_: &Event<'_>| ()).await;
    let stats = trace_scope("r1");
    stats
        .run(async {
            for n in 0..1_100 {
                let sql = sqlx::AssertSqlSafe(format!("SELECT {n}"));
                sqlx::raw_sql(sql).execute(&pool).await.unwrap();
            }
        })
        .await;
    assert_eq!(stats.statements(), 1_100);
    assert_eq!(stats.repeated(0).len(), 1_000, "memory has a bound");
}

/// A service that runs statements before its response, and in its body.
#[derive(Clone)]
struct App(SqlitePool);

impl Service<Request<()>> for App {
    type Response = Response<Page>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Page>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let pool = self.0.clone();
        let current = QueryStats::current().unwrap();
        Box::pin(async move {
            let own = request.extensions().get::<QueryStats>().unwrap();
            assert_eq!(own.id(), current.id());
            select(&pool, 1).await;
            select(&pool, 2).await;
            Ok(Response::new(Page(Box::pin(async move {
                select(&pool, 3).await;
            }))))
        })
    }
}

struct Page(BoxFuture<'static, ()>);

impl Body for Page {
    type Data = &'static [u8];
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Infallible>>> {
        self.0.as_mut().poll(cx).map(|()| None)
    }
}

#[tokio::test]
async fn layer_counts_the_statements_of_each_request() {
    let told = Told::default();
    let mut app = QueryStatsLayer::new().layer(App(pool(told.tracer()).await));
    told.take();
    let request = Request::builder().header("x-request-id", "7f3a");
    let response = app.call(request.body(()).unwrap()).await.unwrap();
    let stats = response.extensions().get::<QueryStats>().unwrap().clone();
    assert_eq!((stats.id(), stats.statements()), ("7f3a", 2));
    response.into_body().collect().await.unwrap();
    assert_eq!(stats.statements(), 3, "those of the body as well");
    let ids: Vec<_> = told
        .take()
        .into_iter()
        .map(|(_, request)| request)
        .collect();
    assert_eq!(ids, vec![Some("7f3a".to_owned()); 3]);
    let second = app.call(Request::new(())).await.unwrap();
    let second = second.extensions().get::<QueryStats>().unwrap();
    assert_eq!(second.statements(), 2, "a request starts from nothing");
    assert!(second.id().parse::<u64>().is_ok(), "numbered");
}

#[tokio::test]
async fn body_that_is_given_up_is_named_by_what_it_leaves() {
    #[derive(Clone)]
    struct Begins(SqlitePool);
    impl Service<Request<()>> for Begins {
        type Response = Response<Page>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Page>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            let pool = self.0.clone();
            ready(Ok(Response::new(Page(Box::pin(async move {
                drop(pool.begin().await);
            })))))
        }
    }
    let told = Told::default();
    let pool = pool(told.tracer()).await;
    let _held = pool.acquire().await.unwrap();
    told.take();
    let mut app = QueryStatsLayer::new().layer(Begins(pool.clone()));
    let request = Request::builder().header("x-request-id", "7f3a");
    let response = app.call(request.body(()).unwrap()).await.unwrap();
    let mut body = response.into_body();
    assert!(poll_immediate(body.frame()).await.is_none(), "it waits");
    drop(body);
    assert_eq!(told.take(), [(Op::Acquire, Some("7f3a".to_owned()))]);
}

#[tokio::test]
async fn layer_takes_the_id_and_the_limit_it_is_told() {
    let told = Told::default();
    let layer = QueryStatsLayer::new()
        .id(|headers| Some(headers.get("traceparent")?.to_str().ok()?.to_owned()))
        .warn_repeats(1);
    let mut app = layer.layer(App(pool(told.tracer()).await));
    told.take();
    let request = Request::builder().header("traceparent", "00-ab-01");
    let response = app.call(request.body(()).unwrap()).await.unwrap();
    let stats = response.extensions().get::<QueryStats>().unwrap();
    assert_eq!(stats.id(), "00-ab-01");
    let ops: Vec<_> = told.take().into_iter().map(|(op, _)| op).collect();
    assert_eq!(ops, [Op::Exec, Op::Exec, Op::Repeated]);
}

#[tokio::test]
async fn layer_uses_the_scope_that_is_there() {
    let mut app = QueryStatsLayer::new().layer(App(pool(|_: &Event<'_>| ()).await));
    let mut request = Request::new(());
    let outer = trace_scope("outer");
    request.extensions_mut().insert(outer.clone());
    let response = app.call(request).await.unwrap();
    assert_eq!(outer.statements(), 2);
    response.into_body().collect().await.unwrap();
    assert_eq!(outer.statements(), 3);
}

#[tokio::test]
async fn layer_passes_on_what_the_service_says() {
    #[derive(Clone)]
    struct Fails;
    impl Service<Request<()>> for Fails {
        type Response = Response<http_body_util::Full<&'static [u8]>>;
        type Error = &'static str;
        type Future = Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Err("not ready"))
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            ready(match request.uri().path() {
                "/" => Ok(Response::new(http_body_util::Full::new(
                    b"hello".as_slice(),
                ))),
                _ => Err("no such page"),
            })
        }
    }
    let mut app = QueryStatsLayer::new().layer(Fails);
    let ready = std::future::poll_fn(|cx| app.poll_ready(cx)).await;
    assert_eq!(ready, Err("not ready"));
    let response = app.call(Request::new(())).await.unwrap();
    assert_eq!(response.body().size_hint().exact(), Some(5));
    assert!(!response.body().is_end_stream());
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "hello"
    );
    let missing = Request::builder().uri("/missing").body(()).unwrap();
    assert_eq!(app.call(missing).await.err(), Some("no such page"));
    // An id that nobody would want to read is not taken.
    for id in ["x".repeat(129), String::new()] {
        let request = Request::builder().header("x-request-id", id);
        let response = app.call(request.body(()).unwrap()).await.unwrap();
        let stats = response.extensions().get::<QueryStats>().unwrap();
        assert!(stats.id().parse::<u64>().is_ok(), "{}", stats.id());
    }
}
