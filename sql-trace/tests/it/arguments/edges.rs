//! Values at the edges of their encodings.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use sql_trace::{ArgValue, ArgsMode, Event, TraceDatabase, TracedPoolOptions, Tracer};
use sqlx::mysql::types::{MySqlTime, MySqlTimeSign};
use sqlx::types::Uuid;
use sqlx::{IntoArguments, MySql, MySqlPool, Postgres, Sqlite};

use super::types::{Bind, Case, Query, bytes, case, text};
use super::{Shown, shown_of};
use crate::databases::Database;

const NO_SQLITE: &str = "sqlite:///nonexistent/database";
const NO_POSTGRES: &str = "postgres://localhost/test?host=/nonexistent";
const NO_MYSQL: &str = "mysql://localhost/test?socket=/nonexistent";

#[tokio::test]
async fn times_beyond_a_day_are_shown_as_mysql_reads_them() {
    let test = "times_beyond_a_day_are_shown_as_mysql_reads_them";
    let Some(scratch) = MySql::scratch(test).await else {
        return;
    };
    let server = MySqlPool::connect(&scratch.url).await.unwrap();
    let shown = Shown::<MySql>::on(&scratch.url);
    for (negative, hours, minutes, seconds, micros, text) in [
        (false, 0, 0, 0, 0, "00:00:00"),
        (false, 0, 0, 0, 1, "00:00:00.000001"),
        (true, 0, 0, 1, 0, "-00:00:01"),
        (false, 23, 59, 59, 0, "23:59:59"),
        (false, 24, 0, 0, 0, "24:00:00"),
        (true, 100, 0, 0, 500_000, "-100:00:00.500000"),
        (false, 838, 59, 59, 0, "838:59:59"),
        (true, 838, 59, 59, 0, "-838:59:59"),
    ] {
        let sign = match negative {
            true => MySqlTimeSign::Negative,
            false => MySqlTimeSign::Positive,
        };
        let time = MySqlTime::new(sign, hours, minutes, seconds, micros).unwrap();
        let read: String = sqlx::query_scalar("SELECT CAST(? AS CHAR)")
            .bind(time)
            .fetch_one(&server)
            .await
            .unwrap();
        assert_eq!(read, text, "as the server reads it");
        let cases = vec![
            case(7, "7", "int"),
            case(time, text, "time"),
            bytes(vec![1]),
        ];
        shown.check(cases, text).await;
    }
}

/// The day zero, which no type of sqlx is.
struct Zero;

impl sqlx::Type<MySql> for Zero {
    fn type_info() -> sqlx::mysql::MySqlTypeInfo {
        <chrono::NaiveDate as sqlx::Type<MySql>>::type_info()
    }
}

impl sqlx::Encode<'_, MySql> for Zero {
    fn encode_by_ref(
        &self,
        buffer: &mut Vec<u8>,
    ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
        buffer.push(0);
        Ok(sqlx::encode::IsNull::No)
    }
}

#[tokio::test]
async fn dates_are_shown_and_cut_on_mysql() {
    let shown = async |max| {
        let shown = shown_of::<MySql>(NO_MYSQL, max, |query| {
            let date = chrono::NaiveDate::from_ymd_opt(7, 1, 2).unwrap();
            query.bind(date).bind(Zero).bind(7)
        });
        shown.await
    };
    assert_eq!(shown(10).await, "[0007-01-02, 0000-00-00, 7]");
    assert_eq!(shown(9).await, "[0007-01-0…, 0000-00-0…, 7]");
}

#[tokio::test]
async fn each_null_of_many_is_known_on_mysql() {
    let shown = Shown::<MySql>::on(NO_MYSQL);
    for null in 0..20 {
        let cases = (0..20).map(|n| match n == null {
            true => case(None::<i32>, "NULL", "null"),
            false => case(n, n.to_string(), "int"),
        });
        shown.check(cases.collect(), "20 arguments").await;
    }
}

#[tokio::test]
async fn lengths_of_each_size_are_read_on_mysql() {
    for len in [0, 1, 250, 251, 252, 65_535, 65_536, 1 << 24] {
        let shown = shown_of::<MySql>(NO_MYSQL, 2, |query| {
            let query = query.bind("a".repeat(len)).bind(-1i8);
            query.bind(vec![0xffu8; len]).bind("end".to_owned())
        });
        let head = len.min(2);
        let rest = match len {
            0..=2 => String::new(),
            _ => format!("…({len} bytes)"),
        };
        assert_eq!(
            shown.await,
            format!(
                "[\"{}\"{rest}, -1, 0x{}{rest}, \"en\"…(3 bytes)]",
                "a".repeat(head),
                "ff".repeat(head)
            )
        );
    }
}

#[tokio::test]
async fn texts_of_each_rust_type_are_shown_on_sqlite() {
    let shown = Shown::<Sqlite>::on(NO_SQLITE);
    let cases = || {
        vec![
            text("it's \0 \u{1}".to_owned()),
            case("str", "\"str\"", "text(3)"),
            case(Arc::<str>::from("é"), "\"é\"", "text(2)"),
            case(Box::<str>::from("box"), "\"box\"", "text(3)"),
            case(Cow::Borrowed("cow"), "\"cow\"", "text(3)"),
        ]
    };
    shown.check(cases(), "short").await;
    // Beside what is too long to be printed, all are asked for.
    let mut beside: Vec<Case<Sqlite>> = cases();
    beside.push(bytes(vec![7; 100_000]));
    shown.check(beside, "beside a long one").await;
}

/// What [`sql_trace::Args::values`] gives of the arguments that `bind` binds.
async fn values<DB: TraceDatabase>(url: &str, bind: Bind<DB>) -> Option<Vec<ArgValue<'static>>>
where
    DB::Arguments: IntoArguments<DB>,
{
    let values = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&values);
    let tracer = move |event: &Event<'_>| {
        if let Some(args) = event.args {
            *keep.lock().unwrap() = args.values();
        }
    };
    let pool = TracedPoolOptions::<DB>::new()
        .tracer(tracer.args(ArgsMode::Values { max: 1 }))
        .connect_lazy(url)
        .unwrap();
    let query: Query<'_, DB> = bind(sqlx::query("SELECT 1"));
    assert!(query.execute(&pool).await.is_err());
    values.lock().unwrap().take()
}

fn whole_text(text: &str) -> ArgValue<'static> {
    ArgValue::Text {
        text: text.to_owned().into(),
        len: Some(text.len()),
    }
}

fn whole_bytes(bytes: &[u8]) -> ArgValue<'static> {
    ArgValue::Bytes {
        bytes: bytes.to_owned().into(),
        len: Some(bytes.len()),
    }
}

#[tokio::test]
async fn values_are_given_whole_however_little_is_shown() {
    let given = values::<Sqlite>(NO_SQLITE, Box::new(|query| query)).await;
    assert_eq!(given, Some(Vec::new()));
    for len in [3, 100_000] {
        let bind: Bind<Sqlite> = Box::new(move |query| {
            let query = query.bind(None::<i32>).bind(-7).bind(0.1);
            query.bind("é".repeat(len)).bind(vec![9u8; len])
        });
        assert_eq!(
            values(NO_SQLITE, bind).await.unwrap(),
            [
                ArgValue::Null,
                ArgValue::Int(-7),
                ArgValue::Float(0.1),
                whole_text(&"é".repeat(len)),
                whole_bytes(&vec![9; len]),
            ]
        );
    }
    let bind: Bind<MySql> = Box::new(|query| {
        let query = query.bind(u64::MAX).bind(1.1f32);
        query.bind("text").bind(vec![0u8, 255])
    });
    assert_eq!(
        values(NO_MYSQL, bind).await.unwrap(),
        [
            ArgValue::UInt(u64::MAX),
            ArgValue::Real(1.1),
            whole_text("text"),
            whole_bytes(&[0, 255]),
        ]
    );
    let bind: Bind<Postgres> = Box::new(|query| {
        let query = query.bind(true).bind(Uuid::nil()).bind("text");
        query.bind(vec![0u8, 255]).bind(vec![1, 2])
    });
    let other = |kind: &'static str, text: &'static str| ArgValue::Other {
        kind: kind.into(),
        text: text.into(),
        whole: true,
    };
    assert_eq!(
        values(NO_POSTGRES, bind).await.unwrap(),
        [
            ArgValue::Bool(true),
            other("uuid", "00000000-0000-0000-0000-000000000000"),
            whole_text("text"),
            whole_bytes(&[0, 255]),
            other("int4[]", "{1,2}"),
        ]
    );
}
