//! The types that the databases support, and values of them.

use std::ops::Bound;

use chrono::{Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use sql_trace::TraceDatabase;
use sqlx::postgres::types::{PgInterval, PgMoney, PgRange, PgTimeTz};
use sqlx::types::ipnet::IpNet;
use sqlx::types::mac_address::MacAddress;
use sqlx::types::{BigDecimal, BitVec, Json, JsonValue, Uuid};
use sqlx::{Encode, MySql, Postgres, Sqlite, Type};

use crate::databases::Database;
use crate::random::Random;

pub(super) type Query<'q, DB> = sqlx::query::Query<'q, DB, <DB as sqlx::Database>::Arguments>;

pub(super) type Bind<DB> = Box<dyn for<'q> FnOnce(Query<'q, DB>) -> Query<'q, DB> + Send>;

/// A value to bind, with what is to be shown of it.
pub(super) struct Case<DB: TraceDatabase> {
    pub(super) bind: Bind<DB>,
    pub(super) value: String,
    pub(super) kind: String,
}

pub(super) fn case<DB, T>(bound: T, value: impl Into<String>, kind: impl Into<String>) -> Case<DB>
where
    DB: TraceDatabase,
    T: for<'t> Encode<'t, DB> + Type<DB> + Send + 'static,
{
    Case {
        bind: Box::new(move |query| query.bind(bound)),
        value: value.into(),
        kind: kind.into(),
    }
}

pub(super) fn text<DB>(bound: String) -> Case<DB>
where
    DB: TraceDatabase,
    String: for<'t> Encode<'t, DB> + Type<DB>,
{
    let (value, kind) = (format!("{bound:?}"), format!("text({})", bound.len()));
    case(bound, value, kind)
}

pub(super) fn bytes<DB>(bound: Vec<u8>) -> Case<DB>
where
    DB: TraceDatabase,
    Vec<u8>: for<'t> Encode<'t, DB> + Type<DB>,
{
    let (value, kind) = (hex(&bound), format!("bytes({})", bound.len()));
    case(bound, value, kind)
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}

/// A database's supported types.
pub(super) trait Types: Database {
    /// How many kinds of values there are.
    const KINDS: u64;

    /// A random value of the kind with that number.
    fn random(kind: u64, random: &mut Random) -> Case<Self>;

    fn placeholder(number: usize) -> String;
}

impl Types for Sqlite {
    const KINDS: u64 = 12;

    fn random(kind: u64, random: &mut Random) -> Case<Self> {
        match kind {
            0 => case(None::<i32>, "NULL", "null"),
            1 => {
                let v = random.next() & 1 == 1;
                case(v, i32::from(v).to_string(), "int")
            }
            2 => {
                let v = random.int() as i32;
                case(v, v.to_string(), "int")
            }
            3 => {
                let v = random.int();
                case(v, v.to_string(), "int")
            }
            4 => {
                let v = number(random);
                case(v, format!("{v:?}"), "float")
            }
            5 => {
                let v = number(random) as f32;
                case(v, format!("{:?}", f64::from(v)), "float")
            }
            6 => text(random.text()),
            7 => bytes(random.bytes()),
            8 => {
                let v = Uuid::from_u128(u128::from(random.next()) << 64 | 7);
                case(v, hex(v.as_bytes()), "bytes(16)")
            }
            9 => {
                let v = json(random);
                let shown = v.to_string();
                let kind = format!("text({})", shown.len());
                case(Json(v), format!("{shown:?}"), kind)
            }
            10 => {
                let v = date(random);
                case(
                    v,
                    format!("\"{v}\""),
                    format!("text({})", v.to_string().len()),
                )
            }
            _ => {
                let v = random.int() as u32;
                case(v, v.to_string(), "int")
            }
        }
    }

    fn placeholder(_: usize) -> String {
        "?".to_owned()
    }
}

/// A number that SQLite has: it takes what is not a number for `NULL`, and is
/// asked itself where a value is large.
fn number(random: &mut Random) -> f64 {
    let v = random.float();
    if v.is_nan() { 0.5 } else { v }
}

impl Types for Postgres {
    const KINDS: u64 = 31;

    fn random(kind: u64, random: &mut Random) -> Case<Self> {
        match kind {
            0 => case(None::<i32>, "NULL", "null"),
            1 => case(None::<String>, "NULL", "null"),
            2 => {
                let v = random.next() & 1 == 1;
                case(v, v.to_string(), "bool")
            }
            3 => {
                let v = random.int() as i8;
                case(v, v.to_string(), "int")
            }
            4 => {
                let v = random.int() as i16;
                case(v, v.to_string(), "int")
            }
            5 => {
                let v = random.int() as i32;
                case(v, v.to_string(), "int")
            }
            6 => {
                let v = random.int();
                case(v, v.to_string(), "int")
            }
            7 => {
                let v = random.float() as f32;
                case(v, format!("{v:?}"), "float")
            }
            8 => {
                let v = random.float();
                case(v, format!("{v:?}"), "float")
            }
            9 => text(random.text()),
            10 => bytes(random.bytes()),
            11 => {
                let v =
                    Uuid::from_u128(u128::from(random.next()) << 64 | u128::from(random.next()));
                case(v, v.to_string(), "uuid")
            }
            12 => {
                let v = json(random);
                let shown = visible(&v.to_string());
                case(Json(v), shown, "jsonb")
            }
            13 => {
                let v = date(random);
                case(v, postgres_date(v), "date")
            }
            14 => {
                let v = time(random);
                case(v, clock(v), "time")
            }
            15 => {
                let v = NaiveDateTime::new(date(random), time(random));
                let shown = format!("{} {}", postgres_date(v.date()), clock(v.time()));
                case(v, shown, "timestamp")
            }
            16 => {
                let v = NaiveDateTime::new(date(random), time(random));
                let shown = format!("{} {}+00", postgres_date(v.date()), clock(v.time()));
                case(v.and_utc(), shown, "timestamptz")
            }
            17 => {
                let v = decimal(random);
                let shown = v.to_plain_string();
                case(v, shown, "numeric")
            }
            18 => {
                let v = PgInterval {
                    months: random.int() as i32,
                    days: random.int() as i32,
                    microseconds: random.int(),
                };
                let micros = v.microseconds.unsigned_abs();
                let sign = if v.microseconds < 0 { "-" } else { "" };
                let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
                let fraction = if rest == 0 {
                    String::new()
                } else {
                    format!(".{rest:06}")
                };
                let shown = format!(
                    "{} mons {} days {sign}{:02}:{:02}:{:02}{fraction}",
                    v.months,
                    v.days,
                    seconds / 3600,
                    seconds / 60 % 60,
                    seconds % 60
                );
                case(v, shown, "interval")
            }
            19 => {
                let v = random.int();
                case(PgMoney(v), v.to_string(), "money")
            }
            20 => {
                let v = random.int() as u32;
                case(sqlx::postgres::types::Oid(v), v.to_string(), "int")
            }
            21 => {
                let v: Vec<i32> = (0..random.below(5)).map(|_| random.int() as i32).collect();
                let shown: Vec<String> = v.iter().map(ToString::to_string).collect();
                case(v, format!("{{{}}}", shown.join(",")), "int4[]")
            }
            22 => {
                let v: Vec<Option<String>> = (0..random.below(4))
                    .map(|_| (random.below(3) > 0).then(|| random.text()))
                    .collect();
                let shown: Vec<String> = v
                    .iter()
                    .map(|v| v.as_ref().map_or("NULL".to_owned(), |v| format!("{v:?}")))
                    .collect();
                case(v, format!("{{{}}}", shown.join(",")), "text[]")
            }
            23 => {
                let v: Vec<f64> = (0..random.below(4)).map(|_| random.float()).collect();
                let shown: Vec<String> = v.iter().map(|v| format!("{v:?}")).collect();
                case(v, format!("{{{}}}", shown.join(",")), "float8[]")
            }
            24 => {
                let v: Vec<Vec<u8>> = (0..random.below(3)).map(|_| random.bytes()).collect();
                let shown: Vec<String> = v.iter().map(|v| hex(v)).collect();
                case(v, format!("{{{}}}", shown.join(",")), "bytea[]")
            }
            25 => {
                let (low, high) = (
                    random.between(-100, 0) as i32,
                    random.between(1, 100) as i32,
                );
                let (v, shown) = match random.below(3) {
                    0 => (PgRange::from(low..high), format!("[{low},{high})")),
                    1 => (PgRange::from(low..=high), format!("[{low},{high}]")),
                    _ => (
                        PgRange {
                            start: Bound::Excluded(low),
                            end: Bound::Unbounded,
                        },
                        format!("({low},)"),
                    ),
                };
                case(v, shown, "int4range")
            }
            26 => {
                let zone = random.between(-50_000, 50_000) as i32 / 60 * 60;
                let v = PgTimeTz {
                    time: time(random),
                    offset: FixedOffset::east_opt(zone).unwrap(),
                };
                let sign = if zone < 0 { '-' } else { '+' };
                let minutes = zone.abs() / 60;
                let shown = format!(
                    "{}{sign}{:02}:{:02}",
                    clock(v.time),
                    minutes / 60,
                    minutes % 60
                );
                case(v, shown, "timetz")
            }
            27 => {
                let v = BitVec::from_bytes(&random.bytes());
                let shown: String = v.iter().map(|bit| if bit { '1' } else { '0' }).collect();
                case(v, shown, "varbit")
            }
            28 => {
                let b = random.next().to_le_bytes();
                let v = MacAddress::new([b[0], b[1], b[2], b[3], b[4], b[5]]);
                case(v, v.to_string().to_ascii_lowercase(), "macaddr")
            }
            29 => {
                let bits = random.below(33) as u8;
                let v: IpNet = format!("10.1.{}.0/{bits}", random.below(256))
                    .parse()
                    .unwrap();
                let shown = v.to_string();
                case(v, shown.trim_end_matches("/32"), "inet")
            }
            _ => {
                let v: Vec<Uuid> = (0..random.below(3))
                    .map(|_| Uuid::from_u128(u128::from(random.next())))
                    .collect();
                let shown: Vec<String> = v.iter().map(ToString::to_string).collect();
                case(v, format!("{{{}}}", shown.join(",")), "uuid[]")
            }
        }
    }

    fn placeholder(number: usize) -> String {
        format!("${number}")
    }
}

impl Types for MySql {
    const KINDS: u64 = 21;

    fn random(kind: u64, random: &mut Random) -> Case<Self> {
        match kind {
            0 => case(None::<i32>, "NULL", "null"),
            1 => case(None::<String>, "NULL", "null"),
            2 => {
                let v = random.next() & 1 == 1;
                case(v, i32::from(v).to_string(), "int")
            }
            3 => {
                let v = random.int() as i8;
                case(v, v.to_string(), "int")
            }
            4 => {
                let v = random.int() as i16;
                case(v, v.to_string(), "int")
            }
            5 => {
                let v = random.int() as i32;
                case(v, v.to_string(), "int")
            }
            6 => {
                let v = random.int();
                case(v, v.to_string(), "int")
            }
            7 => {
                let v = random.int() as u8;
                case(v, v.to_string(), "int")
            }
            8 => {
                let v = random.int() as u16;
                case(v, v.to_string(), "int")
            }
            9 => {
                let v = random.int() as u32;
                case(v, v.to_string(), "int")
            }
            10 => {
                let v = random.int() as u64;
                case(v, v.to_string(), "int")
            }
            11 => {
                let v = random.float() as f32;
                case(v, format!("{v:?}"), "float")
            }
            12 => {
                let v = random.float();
                case(v, format!("{v:?}"), "float")
            }
            13 => text(random.text()),
            14 => bytes(random.bytes()),
            15 => {
                let v = Uuid::from_u128(u128::from(random.next()) << 64 | 7);
                case(v, hex(v.as_bytes()), "bytes(16)")
            }
            16 => {
                // The driver sends it as text.
                let v = json(random);
                let shown = v.to_string();
                let kind = format!("text({})", shown.len());
                case(Json(v), format!("{shown:?}"), kind)
            }
            17 => {
                let v = date(random)
                    .with_year(random.between(1, 9999) as i32)
                    .unwrap();
                case(v, v.to_string(), "date")
            }
            18 => {
                let v = time(random);
                case(v, clock(v), "time")
            }
            19 => {
                let day = date(random)
                    .with_year(random.between(1, 9999) as i32)
                    .unwrap();
                let v = NaiveDateTime::new(day, time(random));
                let shown = format!("{day} {}", clock(v.time()));
                if random.next() & 1 == 1 {
                    case(v, shown, "datetime")
                } else {
                    case(v.and_utc(), shown, "timestamp")
                }
            }
            _ => {
                let v = decimal(random);
                let shown = v.to_string();
                case(v, shown, "decimal")
            }
        }
    }

    fn placeholder(_: usize) -> String {
        "?".to_owned()
    }
}

/// Text as it is shown without quotes around it.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' | '\\' => c.to_string(),
            c => c.escape_debug().to_string(),
        })
        .collect::<String>()
        .replace("\\'", "'")
}

fn json(random: &mut Random) -> JsonValue {
    serde_json::json!({ "k": [random.between(-9, 9), random.text()], "n": null })
}

fn date(random: &mut Random) -> NaiveDate {
    let year = random.between(-4000, 9999) as i32;
    // The 28th, for the same day to exist in every year.
    NaiveDate::from_ymd_opt(
        year,
        random.between(1, 12) as u32,
        random.between(1, 28) as u32,
    )
    .unwrap()
}

fn time(random: &mut Random) -> NaiveTime {
    let micros = if random.below(3) == 0 {
        0
    } else {
        random.below(1_000_000) as u32
    };
    let seconds = random.below(86_400) as u32;
    NaiveTime::from_num_seconds_from_midnight_opt(seconds, micros * 1000).unwrap()
}

fn decimal(random: &mut Random) -> BigDecimal {
    let digits = random.int();
    BigDecimal::new(digits.into(), random.between(0, 25))
}

fn postgres_date(date: NaiveDate) -> String {
    let (year, month, day) = (date.year(), date.month(), date.day());
    if year > 0 {
        format!("{year:04}-{month:02}-{day:02}")
    } else {
        format!("{:04}-{month:02}-{day:02} BC", 1 - year)
    }
}

fn clock(time: NaiveTime) -> String {
    let clock = format!(
        "{:02}:{:02}:{:02}",
        time.hour(),
        time.minute(),
        time.second()
    );
    match time.nanosecond() / 1000 {
        0 => clock,
        micros => format!("{clock}.{micros:06}"),
    }
}
