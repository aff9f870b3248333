//! What the `log`, `tracing` and `metrics` facades are given. Their receivers
//! are global, so these keep what each thread gave them apart.

use std::cell::{Cell, RefCell};
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use futures_util::StreamExt;
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit};
use sql_trace::sqlite::SqlitePoolOptions;
use sql_trace::{Event, Op, Tracer, to_log, to_metrics, to_tracing, trace_scope};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{ConnectOptions, Executor};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};

use crate::recorder::without_times;
use crate::tracers::{default_lines, pool};

thread_local! {
    static GIVEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// The times among what was given, by the names of their fields.
    static TIMES: RefCell<Vec<(&'static str, f64)>> = const { RefCell::new(Vec::new()) };
    /// What is less important is not wanted of this thread.
    static LEVEL: Cell<log::Level> = const { Cell::new(log::Level::Trace) };
}

/// A machine that stands still for a while makes nothing slow.
const NEVER: Duration = Duration::MAX;

fn give(text: String) {
    GIVEN.with_borrow_mut(|given| given.push(text));
}

fn take() -> Vec<String> {
    GIVEN.take()
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == "sql_trace" && metadata.level() <= LEVEL.get()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            give(format!("{} {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

fn log_to_us() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        log::set_logger(&Logger).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
}

/// What sqlx itself logged of statements; for SQLite in threads of its own.
static OF_SQLX: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes each event and span with its fields, but for the times.
struct Subscriber;

struct Fields(String);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        TIMES.with_borrow_mut(|times| times.push((field.name(), value)));
        self.record_debug(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        const TIMES: [&str; 4] = ["elapsed", "acquire", "first_row", "consumer"];
        match field.name() {
            "message" => self.0.insert_str(0, &format!(" {value:?}")),
            // Of other tests at the same time.
            "connection" | "db.namespace" => {}
            name if TIMES.contains(&name) => write!(self.0, " {name}=T").unwrap(),
            name => write!(self.0, " {name}={value:?}").unwrap(),
        }
    }
}

impl tracing::Subscriber for Subscriber {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        let is_told = matches!(metadata.target(), "sql_trace" | "sqlx::query");
        is_told && *metadata.level() <= tracing::Level::DEBUG
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields(String::new());
        span.record(&mut fields);
        give(format!("span {}{}", span.metadata().name(), fields.0));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut fields = Fields(String::new());
        values.record(&mut fields);
        give(format!("record{}", fields.0));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let told = format!("{}{}", event.metadata().level(), fields.0);
        match event.metadata().target() {
            "sql_trace" => give(told),
            _ => OF_SQLX.lock().unwrap().push(told),
        }
    }

    fn enter(&self, _: &Id) {
        give("enter".to_owned());
    }

    fn exit(&self, _: &Id) {}

    fn try_close(&self, _: Id) -> bool {
        give("close".to_owned());
        true
    }
}

fn trace_to_us() {
    static SET: Once = Once::new();
    SET.call_once(|| tracing::subscriber::set_global_default(Subscriber).unwrap());
}

struct Recorder;

struct Seconds(String);

impl HistogramFn for Seconds {
    fn record(&self, seconds: f64) {
        assert!((0.0..60.0).contains(&seconds), "{seconds} s");
        TIMES.with_borrow_mut(|times| times.push(("duration", seconds)));
        give(self.0.clone());
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        give(format!("{} in {}", name.as_str(), unit.unwrap().as_str()));
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut text = key.name().to_owned();
        for label in key.labels() {
            if label.key() != "db.namespace" {
                write!(text, " {}={}", label.key(), label.value()).unwrap();
            }
        }
        Histogram::from_arc(Arc::new(Seconds(text)))
    }
}

fn record_to_us() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        metrics::set_global_recorder(Recorder)
            .map_err(drop)
            .unwrap()
    });
}

#[tokio::test]
async fn log_record_has_the_level_of_its_outcome() {
    log_to_us();
    let pool = pool(to_log().slow(NEVER)).await;
    (&pool).execute("SELECT 1").await.unwrap();
    (&pool).execute("SELECT nope").await.unwrap_err();
    drop(sqlx::query("SELECT 1").fetch(&pool).next().await);
    let _ = pool.inner();
    let lines: Vec<String> = take().iter().map(|line| without_times(line)).collect();
    assert_eq!(
        lines,
        [
            "DEBUG Open (T)",
            "DEBUG Exec: SELECT 1; args = [] (T)",
            "WARN Exec: SELECT nope; args = []; err = \"SQLite 1\" (T)",
            "INFO Query: SELECT 1; args = []; cancelled after 1 row (T)",
            "INFO Untraced; the pool of sqlx was taken by TracedPool::inner (T)",
        ]
    );
    let pool = self::pool(to_log().slow(NEVER).level(log::Level::Trace)).await;
    (&pool).execute("SELECT 1").await.unwrap();
    let pool = self::pool(to_log().slow(Duration::ZERO)).await;
    (&pool).execute("SELECT 1").await.unwrap();
    let lines: Vec<String> = take().iter().map(|line| without_times(line)).collect();
    assert_eq!(
        lines,
        [
            "TRACE Open (T)",
            "TRACE Exec: SELECT 1; args = [] (T)",
            "WARN Open (T)",
            "WARN Exec: SELECT 1; args = [] (T)",
        ]
    );
}

#[tokio::test]
async fn failures_are_logged_where_successes_are_not_wanted() {
    log_to_us();
    let pool = pool(to_log().slow(NEVER)).await;
    take();
    LEVEL.set(log::Level::Warn);
    (&pool).execute("SELECT 1").await.unwrap();
    (&pool).execute("SELECT nope").await.unwrap_err();
    let failed = take();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].starts_with("WARN Exec: SELECT nope; "));
    // And successes where nothing else is.
    LEVEL.set(log::Level::Error);
    let pool = self::pool(to_log().slow(NEVER).level(log::Level::Error)).await;
    take();
    (&pool).execute("SELECT 1").await.unwrap();
    let told = take();
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test]
async fn times_are_given_in_seconds() {
    trace_to_us();
    record_to_us();
    let told = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&told);
    let tracer = move |event: &Event<'_>| {
        let consumer = (!event.consumer.is_zero()).then_some(event.consumer);
        *keep.lock().unwrap() = [
            // Of the span.
            ("acquire", event.acquire),
            // Of the event.
            ("elapsed", event.elapsed),
            ("acquire", event.acquire),
            ("first_row", event.first_row),
            ("consumer", consumer),
            // Of the metric.
            ("duration", event.elapsed),
        ]
        .into_iter()
        .filter_map(|(name, time)| Some((name, time?.as_secs_f64())))
        .collect();
    };
    let pool = SqlitePoolOptions::new()
        .tracer(to_tracing().and(to_metrics()).and(tracer))
        .spans(tracing::Level::INFO)
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    TIMES.take();
    let mut rows = sqlx::query("SELECT 1 UNION SELECT 2").fetch(&pool);
    while let Some(row) = rows.next().await {
        row.unwrap();
    }
    drop(rows);
    let times = TIMES.take();
    assert_eq!(times, *told.lock().unwrap());
    assert!(times.len() >= 5, "{times:?}");
}

#[tokio::test]
async fn tracing_event_has_the_attributes_of_opentelemetry() {
    trace_to_us();
    let pool = pool(to_tracing().slow(NEVER)).await;
    take();
    sqlx::query("SELECT a.x FROM (SELECT ? AS x) a")
        .bind("hunter2")
        .fetch_one(&pool)
        .await
        .unwrap();
    let failing = async { (&pool).execute("SELECT nope FROM t").await };
    trace_scope("r1").run(failing).await.unwrap_err();
    pool.acquire().await.unwrap().ping().await.unwrap();
    assert_eq!(
        take(),
        [
            concat!(
                "DEBUG Query db.system.name=\"sqlite\" ",
                "db.query.text=\"SELECT a.x FROM (SELECT ? AS x) a\" ",
                "db.query.summary=\"SELECT SELECT\" args=[text(7)] outcome=\"ok\" ",
                "rows_returned=1 elapsed=T acquire=T first_row=T"
            ),
            concat!(
                "WARN Exec db.system.name=\"sqlite\" db.query.text=\"SELECT nope FROM t\" ",
                "db.query.summary=\"SELECT t\" db.response.status_code=\"1\" error.type=\"1\" ",
                "args=[] outcome=\"error\" error=SQLite 1 elapsed=T acquire=T request=\"r1\""
            ),
            concat!(
                "DEBUG Acquire db.system.name=\"sqlite\" db.operation.name=\"Acquire\" ",
                "outcome=\"ok\" elapsed=T"
            ),
            concat!(
                "DEBUG Ping db.system.name=\"sqlite\" db.operation.name=\"Ping\" ",
                "outcome=\"ok\" elapsed=T"
            ),
        ]
        .map(ToOwned::to_owned)
    );
    // Below what the subscriber wants; but it may fail, and then it is told.
    let pool = self::pool(to_tracing().slow(NEVER).level(tracing::Level::TRACE)).await;
    (&pool).execute("SELECT 1").await.unwrap();
    assert_eq!(take().len(), 0);
    let pool = self::pool(to_tracing().slow(Duration::ZERO)).await;
    (&pool).execute("SELECT 1").await.unwrap();
    assert!(take().iter().all(|event| event.starts_with("WARN ")));
}

#[tokio::test]
async fn span_lasts_from_the_beginning_of_a_statement_to_its_end() {
    trace_to_us();
    let options = SqlitePoolOptions::new()
        .tracer(
            to_tracing()
                .slow(NEVER)
                .filter(|event| event.op == Op::Query),
        )
        .spans(tracing::Level::INFO)
        .max_connections(1);
    // A copy makes spans as well.
    let pool = options.clone().connect("sqlite::memory:").await.unwrap();
    take();
    let mut rows = sqlx::query("SELECT 'é' UNION SELECT ?")
        .bind(7)
        .fetch(&pool);
    rows.next().await.unwrap().unwrap();
    let begun = take();
    assert_eq!(begun.len(), 1, "{begun:?}");
    assert!(
        begun[0].starts_with(
            "span db otel.name=\"SELECT SELECT\" otel.kind=\"client\" db.system.name=\"sqlite\" \
             db.query.text="
        ),
        "{begun:?}"
    );
    while let Some(row) = rows.next().await {
        row.unwrap();
    }
    drop(rows);
    let ended = take();
    assert_eq!(
        ended,
        [
            "record outcome=\"ok\"",
            "record args=[int]",
            "record",
            "record rows_returned=2",
            "record acquire=T",
            "close",
            concat!(
                "DEBUG Query db.system.name=\"sqlite\" ",
                "db.query.text=\"SELECT 'é' UNION SELECT ?\" db.query.summary=\"SELECT SELECT\" ",
                "args=[int] outcome=\"ok\" rows_returned=2 ",
                "elapsed=T acquire=T first_row=T consumer=T"
            ),
        ]
    );
    (&pool).execute("SELECT nope").await.unwrap_err();
    let failed = take().join("|");
    assert!(
        failed.contains(
            "record otel.status_code=\"ERROR\"|record db.response.status_code=\"1\"|\
             record error.type=\"1\"|close"
        ),
        "{failed}"
    );
    pool.begin().await.unwrap().commit().await.unwrap();
    (&pool).execute("-- nothing").await.unwrap();
    let names: Vec<String> = take()
        .iter()
        .filter_map(|given| Some(given.strip_prefix("span db otel.name=")?.to_owned()))
        .map(|given| given.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert!(names.contains(&"\"Commit\"".to_owned()), "{names:?}");
    assert_eq!(names.last().unwrap(), "\"Exec\"", "there is no summary");
}

#[tokio::test]
async fn spans_are_made_though_no_tracer_wants_events() {
    struct Nobody;
    impl Tracer for Nobody {
        fn enabled(&self, _: Op) -> bool {
            false
        }

        fn trace(&self, _: &Event<'_>) {
            unreachable!("not enabled");
        }
    }
    trace_to_us();
    let pool = SqlitePoolOptions::new()
        .tracer(Nobody)
        .spans(tracing::Level::INFO)
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    take();
    (&pool).execute("SELECT 1").await.unwrap();
    let given = take();
    assert!(
        given[0].starts_with("span db otel.name=\"SELECT\""),
        "{given:?}"
    );
    assert!(given.contains(&"close".to_owned()), "{given:?}");
}

#[tokio::test]
async fn metric_is_the_duration_of_operations() {
    record_to_us();
    let pool = pool(to_metrics()).await;
    assert_eq!(take(), ["db.client.operation.duration in seconds"]);
    (&pool).execute("SELECT 1 FROM (SELECT 2) t").await.unwrap();
    (&pool).execute("SELECT nope").await.unwrap_err();
    pool.begin().await.unwrap().commit().await.unwrap();
    drop(pool.begin().await.unwrap());
    let _ = pool.inner();
    let name = "db.client.operation.duration db.system.name=sqlite";
    assert_eq!(
        take(),
        [
            format!("{name} db.query.summary=SELECT SELECT"),
            format!("{name} db.query.summary=SELECT db.response.status_code=1 error.type=1"),
            format!("{name} db.operation.name=Begin"),
            format!("{name} db.operation.name=Commit"),
            format!("{name} db.operation.name=Begin"),
        ]
    );
}

#[tokio::test]
async fn statements_through_any_are_logged_by_sqlx_as_its_options_say() {
    trace_to_us();
    // The default tracer is set before it is told of anything.
    default_lines();
    crate::any::install();
    let level = log::LevelFilter::Error;
    for (text, slow, told) in [
        ("SELECT 'usual'", NEVER, "ERROR summary="),
        ("SELECT 'slow'", Duration::ZERO, "ERROR slow statement: "),
    ] {
        let options: AnyConnectOptions = "sqlite-trace::memory:".parse().unwrap();
        let options = options
            .log_statements(level)
            .log_slow_statements(level, slow);
        let pool = AnyPoolOptions::new().max_connections(1);
        let pool = pool.connect_with(options).await.unwrap();
        pool.execute(text).await.unwrap();
        pool.close().await;
        let logged = OF_SQLX.lock().unwrap();
        let line = logged.iter().find(|line| line.contains(text));
        assert!(line.is_some_and(|line| line.starts_with(told)), "{line:?}");
    }
}

#[tokio::test]
async fn plan_that_is_asked_for_is_not_logged_by_sqlx() {
    trace_to_us();
    let (told, plan) = std::sync::mpsc::channel();
    let pool = SqlitePoolOptions::new()
        .tracer(move |event: &Event<'_>| {
            if event.op == Op::Plan {
                let _ = told.send(());
            }
        })
        .explain_slow(Duration::ZERO, Duration::ZERO)
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    (&pool).execute("SELECT 'to be planned'").await.unwrap();
    plan.recv_timeout(Duration::from_secs(60)).unwrap();
    pool.close().await;
    let logged = OF_SQLX.lock().unwrap();
    let has = |what: &str| logged.iter().any(|line| line.contains(what));
    assert!(has("SELECT 'to be planned'"), "{logged:?}");
    assert!(!has("PLAN SELECT 'to be planned'"), "{logged:?}");
}

#[tokio::test]
async fn what_is_asked_about_large_values_is_not_logged_by_sqlx() {
    trace_to_us();
    let pool = pool(|event: &Event<'_>| drop(event.to_string())).await;
    // The first is over when the second is asked about.
    for _ in 0..2 {
        let large = sqlx::query("SELECT length(?)").bind(vec![7u8; 100_000]);
        large.execute(&pool).await.unwrap();
    }
    pool.close().await;
    let logged = OF_SQLX.lock().unwrap();
    let has = |what: &str| logged.iter().any(|line| line.contains(what));
    assert!(has("SELECT length(?)") && !has("typeof"), "{logged:?}");
}
