//! The ready tracers, and how they combine.

mod filters;
mod json;
mod panics;

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use futures_util::StreamExt;
use sql_trace::sqlite::{SqlitePool, SqlitePoolOptions};
use sql_trace::{
    ArgsMode, Event, Op, Outcome, TracedConnection, TracedPool, Tracer, set_default_tracer, writer,
};
use sqlx::{Connection, Executor, Sqlite};

use crate::recorder::without_times;

/// A pool on a database in memory, and one connection in it that is open.
pub(crate) async fn pool(tracer: impl Tracer) -> SqlitePool {
    let options = SqlitePoolOptions::new().tracer(tracer).max_connections(1);
    options.connect("sqlite::memory:").await.unwrap()
}

/// What was written, in lines.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The lines since the last time, without that of the pool's first
    /// connection.
    pub(crate) fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
        let lines = text.lines().filter(|line| !line.starts_with("Open ("));
        lines.map(ToOwned::to_owned).collect()
    }

    /// Whether the line was written, whatever its time.
    pub(crate) fn has(&self, line: &str) -> bool {
        let bytes = self.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().any(|written| without_times(written) == line)
    }

    fn take_without_times(&self) -> Vec<String> {
        self.take().iter().map(|line| without_times(line)).collect()
    }
}

/// The operations that a tracer was told of.
#[derive(Clone, Default)]
struct Ops(Arc<Mutex<Vec<Op>>>);

impl Ops {
    fn tracer(&self) -> impl Tracer + use<> {
        let ops = Arc::clone(&self.0);
        move |event: &Event<'_>| ops.lock().unwrap().push(event.op)
    }

    fn take(&self) -> Vec<Op> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[tokio::test]
async fn lines_are_as_go_writes_them() {
    let log = Log::default();
    let pool = pool(writer(log.clone()).args(ArgsMode::Values { max: 64 })).await;
    (&pool).execute("CREATE TABLE t (a)").await.unwrap();
    sqlx::query("INSERT INTO t VALUES (?), (?)")
        .bind("it's \"\n")
        .bind(vec![1u8, 255])
        .execute(&pool)
        .await
        .unwrap();
    let transaction = pool.begin().await.unwrap();
    transaction.commit().await.unwrap();
    (&pool).execute("SELECT nope").await.unwrap_err();
    assert_eq!(
        log.take_without_times(),
        [
            "Exec: CREATE TABLE t (a); args = [] (T)",
            r#"Exec: INSERT INTO t VALUES (?), (?); args = ["it's \"\n", 0x01ff] (T)"#,
            "Acquire (T)",
            "Begin (T)",
            "Commit (T)",
            r#"Exec: SELECT nope; args = []; err = "SQLite 1: no such column: nope" (T)"#,
        ]
    );
}

#[tokio::test]
async fn options_of_the_writer_add_to_the_line() {
    let log = Log::default();
    let pool = pool(writer(log.clone()).mark_slow(Duration::ZERO)).await;
    (&pool).execute("SELECT 1").await.unwrap();
    assert_eq!(
        log.take_without_times(),
        ["Open; slow (T)", "Exec: SELECT 1; args = []; slow (T)"]
    );
    let pool = self::pool(writer(log.clone()).mark_slow(Duration::from_secs(60))).await;
    (&pool).execute("SELECT 1").await.unwrap();
    assert_eq!(log.take_without_times(), ["Exec: SELECT 1; args = [] (T)"]);
    let pool = self::pool(writer(log.clone()).mark_waits(Duration::ZERO)).await;
    (&pool).execute("SELECT 1").await.unwrap();
    let marked = log.take().remove(0);
    assert!(
        marked.starts_with("Exec: SELECT 1; args = []; acquire = "),
        "{marked}"
    );
    without_times(&marked);
    let pool = self::pool(writer(log.clone()).max_statement(8)).await;
    (&pool).execute("SELECT 1").await.unwrap();
    (&pool).execute("SELECT 10").await.unwrap();
    assert_eq!(
        log.take_without_times(),
        [
            "Exec: SELECT 1; args = [] (T)",
            "Exec: SELECT 1…(9 bytes); args = [] (T)"
        ]
    );
    let pool = self::pool(writer(log.clone()).connections()).await;
    log.take();
    let id = pool.acquire().await.unwrap().id().unwrap();
    (&pool).execute("SELECT 1").await.unwrap();
    assert_eq!(
        log.take_without_times(),
        [
            format!("Acquire #{id} (T)"),
            format!("Exec #{id}: SELECT 1; args = [] (T)")
        ]
    );
    let before = chrono::Utc::now();
    let pool = self::pool(writer(log.clone()).timestamps()).await;
    log.take();
    (&pool).execute("SELECT 1").await.unwrap();
    let line = log.take().remove(0);
    let (time, line) = line.split_once(' ').unwrap();
    assert_eq!(without_times(line), "Exec: SELECT 1; args = [] (T)");
    assert_eq!(time.len(), "2024-02-29T12:34:56.000789Z".len(), "{time}");
    let time: chrono::DateTime<chrono::Utc> = time.parse().unwrap();
    let slack = chrono::TimeDelta::milliseconds(1);
    assert!(before - slack <= time && time <= chrono::Utc::now() + slack);
}

#[tokio::test]
async fn line_that_cannot_be_written_is_counted_and_harms_nobody() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines = writer(Full);
    let lost = lines.lost();
    let pool = pool(lines).await;
    (&pool).execute("SELECT 1").await.unwrap();
    assert_eq!(lost.count(), 2, "Open and Exec");
    let lines = sql_trace::json(Full);
    let lost = lines.lost();
    let pool = self::pool(lines).await;
    (&pool).execute("SELECT 1").await.unwrap();
    assert_eq!(lost.count(), 2, "Open and Exec");
}

#[test]
fn each_run_of_lost_lines_is_told_once_on_standard_error() {
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new(program)
        .args([
            "--exact",
            "tracers::program_that_loses_lines",
            "--nocapture",
        ])
        .env("LOSES_LINES", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let told = "sql-trace: cannot write a line: no storage space";
    assert_eq!(stderr.matches(told).count(), 2, "{stderr}");
}

/// Not a test but the program of the one above.
#[tokio::test]
async fn program_that_loses_lines() {
    struct FullTwice(u32);
    impl Write for FullTwice {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += 1;
            match self.0 {
                2 | 3 | 5 | 6 => Err(io::ErrorKind::StorageFull.into()),
                _ => Ok(bytes.len()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    if std::env::var_os("LOSES_LINES").is_none() {
        return;
    }
    let lines = writer(FullTwice(0));
    let lost = lines.lost();
    // The first line is that of opening.
    let pool = pool(lines).await;
    for _ in 2..=7 {
        (&pool).execute("SELECT 1").await.unwrap();
    }
    assert_eq!(lost.count(), 4);
}

#[tokio::test]
async fn tracer_that_does_not_say_how_much_it_shows_is_shown_nothing() {
    struct Mute(Log);
    impl Tracer for Mute {
        fn args_mode(&self) -> ArgsMode {
            std::panic::resume_unwind(Box::new("a panic without a message"));
        }

        fn trace(&self, event: &Event<'_>) {
            writeln!(self.0.clone(), "{event}").unwrap();
        }
    }
    let log = Log::default();
    let pool = pool(Mute(log.clone())).await;
    let query = sqlx::query("SELECT ?").bind("hunter2");
    query.execute(&pool).await.unwrap();
    assert_eq!(
        log.take_without_times(),
        ["Exec: SELECT ?; args = <1 hidden> (T)"]
    );
}

#[tokio::test]
async fn tracer_may_run_traced_statements_of_its_own() {
    // Writing of a line from within the writing of a line.
    struct Nested(Option<SqlitePool>, Log);
    impl Write for Nested {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(pool) = self.0.take() {
                drop(pool.try_acquire());
            }
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let inner = pool(writer(log.clone())).await;
    let outer = pool(writer(Nested(Some(inner), log.clone()))).await;
    (&outer).execute("SELECT 1").await.unwrap();
    let lines = log.take_without_times();
    assert!(
        lines.contains(&"Exec: SELECT 1; args = [] (T)".to_owned()),
        "{lines:?}"
    );
}

#[tokio::test]
async fn both_are_told_each_in_its_own_mode() {
    let [values, kinds, hidden] = [(); 3].map(|()| Log::default());
    let tracer = writer(values.clone())
        .args(ArgsMode::Values { max: 64 })
        .and(writer(kinds.clone()))
        .and(writer(hidden.clone()).args(ArgsMode::Hidden));
    let pool = pool(tracer).await;
    let query = sqlx::query("SELECT abs(?)").bind(i64::MIN);
    query.fetch_all(&pool).await.unwrap_err();
    assert_eq!(
        values.take_without_times(),
        [concat!(
            "Query: SELECT abs(?); args = [-9223372036854775808]; ",
            r#"err = "SQLite 1: integer overflow" (T)"#
        )]
    );
    assert_eq!(
        kinds.take_without_times(),
        [r#"Query: SELECT abs(?); args = [int]; err = "SQLite 1" (T)"#]
    );
    assert_eq!(
        hidden.take_without_times(),
        [r#"Query: SELECT abs(?); args = <1 hidden>; err = "SQLite 1" (T)"#]
    );
}

#[tokio::test]
async fn obfuscated_statement_shows_no_literal() {
    let log = Log::default();
    let pool = pool(writer(log.clone()).obfuscate()).await;
    (&pool)
        .execute("SELECT 42, 'it''s', x'41' AS \"a 1\" -- 7")
        .await
        .unwrap();
    pool.begin().await.unwrap().commit().await.unwrap();
    assert_eq!(
        log.take_without_times(),
        [
            "Exec: SELECT ?, ?, ? AS \"a 1\"; args = [] (T)",
            "Acquire (T)",
            "Begin (T)",
            "Commit (T)"
        ]
    );
}

#[tokio::test]
async fn shared_tracer_serves_several_pools() {
    let log = Log::default();
    let shared = writer(log.clone()).args(ArgsMode::Hidden).shared();
    for n in 0..2 {
        let pool = pool(shared.clone()).await;
        sqlx::query("SELECT ?")
            .bind(n)
            .execute(&pool)
            .await
            .unwrap();
    }
    let line = "Exec: SELECT ?; args = <1 hidden> (T)";
    assert_eq!(log.take_without_times(), [line, line]);
}

/// Takes what the default tracer was told on this thread, as lines.
pub(crate) fn default_lines() -> Vec<String> {
    static SET: Once = Once::new();
    thread_local!(static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });

    SET.call_once(|| {
        let tracer = |event: &Event<'_>| {
            let line = without_times(&event.to_string());
            LINES.with_borrow_mut(|lines| lines.push(line));
        };
        set_default_tracer(tracer).unwrap();
    });
    LINES.take()
}

#[tokio::test]
async fn pool_without_a_tracer_tells_the_default_one() {
    default_lines();
    let pool = SqlitePool::connect("sqlite::memory:").await.unwrap();
    (&pool).execute("SELECT 1").await.unwrap();
    assert_eq!(
        default_lines(),
        ["Open (T)", "Exec: SELECT 1; args = [] (T)"]
    );
    assert!(set_default_tracer(|_: &Event<'_>| ()).is_err(), "it is set");
}

#[tokio::test]
async fn existing_pool_is_traced_through_the_new_handle() {
    let ops = Ops::default();
    let raw = sqlx::SqlitePool::connect("sqlite::memory:").await.unwrap();
    let pool = TracedPool::new(raw.clone(), ops.tracer());
    raw.execute("SELECT 1").await.unwrap();
    (&pool).execute("SELECT 1").await.unwrap();
    pool.begin().await.unwrap().commit().await.unwrap();
    assert!(matches!(
        ops.take()[..],
        // Where the one ends and the other begins is not known.
        [Op::Exec, Op::Begin, Op::Commit]
    ));
}

#[tokio::test]
async fn hooks_of_the_program_run_and_openings_are_seen() {
    let calls = Arc::new(AtomicUsize::new(0));
    let (connects, acquires, releases) = (calls.clone(), calls.clone(), calls.clone());
    let ops = Ops::default();
    let pool = SqlitePoolOptions::new()
        .tracer(ops.tracer())
        .max_connections(1)
        .after_connect(move |_, _| {
            connects.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(()) })
        })
        .before_acquire(move |_, _| {
            acquires.fetch_add(10, Ordering::Relaxed);
            Box::pin(async { Ok(true) })
        })
        .after_release(move |_, _| {
            releases.fetch_add(100, Ordering::Relaxed);
            Box::pin(async { Ok(true) })
        })
        .connect("sqlite::memory:")
        .await
        .unwrap();
    (&pool).execute("SELECT 1").await.unwrap();
    // It had to be released first.
    (&pool).execute("SELECT 1").await.unwrap();
    pool.close().await;
    assert_eq!(ops.take(), [Op::Open, Op::Exec, Op::Exec, Op::Close]);
    let calls = calls.load(Ordering::Relaxed);
    assert_eq!(calls % 10, 1, "opened once");
    assert!(calls / 10 % 10 >= 1 && calls >= 100, "{calls}");
}

#[tokio::test]
async fn connection_that_a_hook_accepts_is_known_and_one_that_it_refuses_is_replaced() {
    let refuse = Arc::new(AtomicBool::new(false));
    let refused = Arc::clone(&refuse);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&seen);
    let pool = SqlitePoolOptions::new()
        .tracer(move |event: &Event<'_>| {
            let id = event.connection.map(|id| id.get());
            keep.lock().unwrap().push((event.op, id));
        })
        .before_acquire(move |_, _| {
            let accepted = !refused.swap(false, Ordering::Relaxed);
            Box::pin(async move { Ok(accepted) })
        })
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    (&pool).execute("SELECT 1").await.unwrap();
    refuse.store(true, Ordering::Relaxed);
    (&pool).execute("SELECT 1").await.unwrap();
    let seen = seen.lock().unwrap();
    let (first, second) = (seen[0].1, seen[2].1);
    assert!(first.is_some() && second > first, "{seen:?}");
    assert_eq!(
        seen[..],
        [
            (Op::Open, first),
            (Op::Exec, first),
            (Op::Open, second),
            (Op::Exec, second)
        ]
    );
}

#[tokio::test]
async fn statements_are_cached_as_without_tracing() {
    // The sizes of the cache after each of some statements.
    macro_rules! sizes {
        ($connection:expr) => {{
            let mut connection = $connection;
            let mut sizes = Vec::new();
            sqlx::query("SELECT 1")
                .execute(&mut connection)
                .await
                .unwrap();
            sizes.push(connection.cached_statements_size());
            let once = sqlx::query("SELECT 2").persistent(false);
            once.execute(&mut connection).await.unwrap();
            sizes.push(connection.cached_statements_size());
            let mapped = sqlx::query("SELECT ?").bind(3).map(|_| ());
            mapped.fetch_all(&mut connection).await.unwrap();
            sizes.push(connection.cached_statements_size());
            let scalar = sqlx::query_scalar::<_, i64>("SELECT 4");
            scalar.fetch_all(&mut connection).await.unwrap();
            sizes.push(connection.cached_statements_size());
            sqlx::raw_sql("SELECT 5")
                .execute(&mut connection)
                .await
                .unwrap();
            (&mut connection).execute("SELECT 6").await.unwrap();
            sizes.push(connection.cached_statements_size());
            sizes
        }};
    }
    let options = "sqlite::memory:".parse().unwrap();
    let bare = sizes!(
        sqlx::SqliteConnection::connect_with(&options)
            .await
            .unwrap()
    );
    let traced = TracedConnection::<Sqlite>::connect_traced(&options, |_: &Event<'_>| ());
    assert_eq!(sizes!(traced.await.unwrap()), bare);
    let pool = pool(|_: &Event<'_>| ()).await;
    assert_eq!(sizes!(pool.acquire().await.unwrap()), bare);
    assert_eq!(bare[..3], [1, 1, 2]);
}

#[tokio::test]
async fn rows_affected_are_told_of_what_was_executed_only() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&seen);
    let pool = pool(move |event: &Event<'_>| {
        let rows = (event.op, event.rows_affected, event.rows_returned);
        keep.lock().unwrap().push(rows);
    })
    .await;
    (&pool).execute("CREATE TABLE t (a)").await.unwrap();
    seen.lock().unwrap().clear();
    let insert = "INSERT INTO t VALUES (1), (2) RETURNING a";
    (&pool).execute(insert).await.unwrap();
    (&pool).fetch_all(insert).await.unwrap();
    assert_eq!(
        seen.lock().unwrap()[..],
        [(Op::Exec, Some(2), 2), (Op::Query, None, 2)]
    );
}

#[tokio::test]
async fn hooks_that_hide_openings_are_told_as_untraced() {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&notes);
    let pool = SqlitePoolOptions::new()
        .tracer(move |event: &Event<'_>| {
            let note = event.note.map(ToOwned::to_owned);
            keep.lock().unwrap().push((event.op, note));
        })
        .configure(|options| options.after_connect(|_, _| Box::pin(async { Ok(()) })))
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    (&pool).execute("SELECT 1").await.unwrap();
    let notes = notes.lock().unwrap();
    let note = "hooks set by TracedPoolOptions::configure hide the opening of connections";
    assert_eq!(
        notes[..],
        [(Op::Untraced, Some(note.to_owned())), (Op::Exec, None)]
    );
}

#[tokio::test]
async fn caller_is_the_line_that_waited() {
    let places = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&places);
    let tracer = move |event: &Event<'_>| {
        if let (Op::Exec | Op::Query, Some(caller)) = (event.op, event.caller) {
            keep.lock().unwrap().push(caller.to_string());
        }
    };
    let log = Log::default();
    let pool = pool(tracer.and(writer(log.clone())).caller()).await;
    let query = sqlx::query("SELECT ?").bind(1);
    let first = line!() + 1;
    (&pool).execute("SELECT 1").await.unwrap();
    query.fetch_one(&pool).await.unwrap();
    let places = std::mem::take(&mut *places.lock().unwrap());
    let here: Vec<bool> = places
        .iter()
        .zip([first, first + 1])
        .map(|(place, line)| place.ends_with(&format!("tests/it/tracers.rs:{line}")))
        .collect();
    assert_eq!(here, [true, true], "{places:?}, from line {first} on");
    let line = log.take().pop().unwrap();
    assert!(line.contains(&format!("; at {} (", places[1])), "{line}");
}

#[tokio::test]
async fn outcome_has_a_word_for_each_end() {
    let words = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&words);
    let tracer = move |event: &Event<'_>| {
        if !matches!(event.op, Op::Open | Op::Acquire | Op::Begin) {
            let failure = event.outcome.failure().map(|failure| failure.kind());
            keep.lock().unwrap().push((event.outcome.as_str(), failure));
        }
        assert!(!matches!(event.outcome, Outcome::Running));
    };
    let pool = pool(tracer).await;
    (&pool).execute("SELECT 1").await.unwrap();
    (&pool).execute("SELECT nope").await.unwrap_err();
    drop(pool.begin().await.unwrap());
    drop(sqlx::query("SELECT 1").fetch(&pool).next().await);
    assert_eq!(
        words.lock().unwrap()[..],
        [
            ("ok", None),
            ("error", Some("database error")),
            ("on_drop", None),
            ("cancelled", None)
        ]
    );
}
