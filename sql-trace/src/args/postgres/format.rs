//! The binary format of PostgreSQL's types, as its `*_recv` functions read it.
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use chrono::{Datelike, NaiveDate};

use super::sized;
use crate::args::bytes::{slice, take};
use crate::args::{ArgValue, write_hex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Bool,
    Bytea,
    Char,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Text,
    Json,
    /// Text after a version byte.
    Versioned,
    Uuid,
    Date,
    Time,
    Timetz,
    Timestamp,
    Timestamptz,
    Interval,
    Numeric,
    Money,
    Inet,
    Macaddr,
    Bit,
    Array,
    Range(Element),
}

/// The element types that a built-in range can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Int4,
    Int8,
    Numeric,
    Date,
    Timestamp,
    Timestamptz,
}

impl Format {
    pub(super) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "bool" => Self::Bool,
            "bytea" => Self::Bytea,
            "char" => Self::Char,
            "int2" => Self::Int2,
            "int4" => Self::Int4,
            "int8" => Self::Int8,
            "oid" => Self::Oid,
            "float4" => Self::Float4,
            "float8" => Self::Float8,
            "text" | "varchar" | "bpchar" | "name" | "unknown" => Self::Text,
            "json" | "jsonb" => Self::Json,
            "jsonpath" => Self::Versioned,
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "time" => Self::Time,
            "timetz" => Self::Timetz,
            "timestamp" => Self::Timestamp,
            "timestamptz" => Self::Timestamptz,
            "interval" => Self::Interval,
            "numeric" => Self::Numeric,
            "money" => Self::Money,
            "inet" | "cidr" => Self::Inet,
            "macaddr" | "macaddr8" => Self::Macaddr,
            "bit" | "varbit" => Self::Bit,
            "int4range" => Self::Range(Element::Int4),
            "int8range" => Self::Range(Element::Int8),
            "numrange" => Self::Range(Element::Numeric),
            "daterange" => Self::Range(Element::Date),
            "tsrange" => Self::Range(Element::Timestamp),
            "tstzrange" => Self::Range(Element::Timestamptz),
            _ => return None,
        })
    }

    /// The built-in types, whose numbers are the same in every server.
    /// <https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat>
    pub(super) fn by_oid(oid: u32) -> Option<(&'static str, Self)> {
        let name = match oid {
            16 => "bool",
            17 => "bytea",
            18 => "char",
            19 => "name",
            20 => "int8",
            21 => "int2",
            23 => "int4",
            25 => "text",
            26 => "oid",
            114 => "json",
            650 => "cidr",
            700 => "float4",
            701 => "float8",
            705 => "unknown",
            774 => "macaddr8",
            790 => "money",
            829 => "macaddr",
            869 => "inet",
            1042 => "bpchar",
            1043 => "varchar",
            1082 => "date",
            1083 => "time",
            1114 => "timestamp",
            1184 => "timestamptz",
            1186 => "interval",
            1266 => "timetz",
            1560 => "bit",
            1562 => "varbit",
            1700 => "numeric",
            2950 => "uuid",
            3802 => "jsonb",
            3904 => "int4range",
            3906 => "numrange",
            3908 => "tsrange",
            3910 => "tstzrange",
            3912 => "daterange",
            3926 => "int8range",
            4072 => "jsonpath",
            _ => return None,
        };
        Self::by_name(name).map(|format| (name, format))
    }

    /// The values that have a variant of their own.
    pub(super) fn scalar(self, bytes: &[u8]) -> Option<ArgValue<'_>> {
        Some(match self {
            Self::Bool => ArgValue::Bool(match bytes {
                [0] => false,
                [1] => true,
                _ => return None,
            }),
            Self::Char => ArgValue::Int(i8::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Int2 => ArgValue::Int(i16::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Int4 => ArgValue::Int(i32::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Int8 => ArgValue::Int(i64::from_be_bytes(bytes.try_into().ok()?)),
            Self::Oid => ArgValue::UInt(u32::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Float4 => ArgValue::Real(f32::from_be_bytes(bytes.try_into().ok()?)),
            Self::Float8 => ArgValue::Float(f64::from_be_bytes(bytes.try_into().ok()?)),
            Self::Bytea => ArgValue::Bytes {
                bytes: Cow::Borrowed(bytes),
                len: Some(bytes.len()),
            },
            Self::Text => ArgValue::Text {
                text: Cow::Borrowed(str::from_utf8(bytes).ok()?),
                len: Some(bytes.len()),
            },
            _ => return None,
        })
    }

    pub(super) fn write(self, out: &mut Shortened, mut bytes: &[u8]) -> Result<(), Stop> {
        let rest = &mut bytes;
        match self {
            Self::Json => {
                // The driver begins every JSON value with the version of jsonb,
                // until the server has said which of the two it is.
                if let [1, ..] = rest {
                    let _: [u8; 1] = next(rest)?;
                }
                out.write_str(str::from_utf8(slice_all(rest))?)?;
            }
            Self::Versioned => {
                let [1] = next(rest)? else {
                    return Err(Stop::Malformed);
                };
                out.write_str(str::from_utf8(slice_all(rest))?)?;
            }
            Self::Uuid => {
                let hex = u128::from_be_bytes(next(rest)?);
                write!(
                    out,
                    "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                    hex >> 96,
                    hex >> 80 & 0xffff,
                    hex >> 64 & 0xffff,
                    hex >> 48 & 0xffff,
                    hex & 0xffff_ffff_ffff
                )?;
            }
            Self::Date => write_date(out, i32::from_be_bytes(next(rest)?).into())?,
            Self::Time => write_time(out, i64::from_be_bytes(next(rest)?))?,
            Self::Timetz => {
                write_time(out, i64::from_be_bytes(next(rest)?))?;
                // Seconds west of Greenwich.
                write_offset(out, -i64::from(i32::from_be_bytes(next(rest)?)))?;
            }
            Self::Timestamp | Self::Timestamptz => {
                let micros = i64::from_be_bytes(next(rest)?);
                if micros == i64::MAX {
                    out.write_str("infinity")?;
                } else if micros == i64::MIN {
                    out.write_str("-infinity")?;
                } else {
                    write_date(out, micros.div_euclid(DAY))?;
                    out.write_str(" ")?;
                    write_time(out, micros.rem_euclid(DAY))?;
                    if self == Self::Timestamptz {
                        out.write_str("+00")?;
                    }
                }
            }
            Self::Interval => {
                let micros = i64::from_be_bytes(next(rest)?);
                let days = i32::from_be_bytes(next(rest)?);
                let months = i32::from_be_bytes(next(rest)?);
                write!(out, "{months} mons {days} days ")?;
                let sign = if micros < 0 { "-" } else { "" };
                out.write_str(sign)?;
                write_clock(out, micros.unsigned_abs())?;
            }
            Self::Numeric => write_numeric(out, rest)?,
            Self::Money => {
                // The number of digits after the point is the server's
                // lc_monetary, which is not known here.
                write!(out, "{}", i64::from_be_bytes(next(rest)?))?;
            }
            Self::Inet => write_inet(out, rest)?,
            Self::Macaddr => {
                for (at, byte) in slice_all(rest).iter().enumerate() {
                    let colon = if at > 0 { ":" } else { "" };
                    write!(out, "{colon}{byte:02x}")?;
                }
            }
            Self::Bit => {
                let len = u32::from_be_bytes(next(rest)?) as usize;
                let bits = slice(rest, len.div_ceil(8)).ok_or(Stop::Malformed)?;
                for at in 0..len {
                    let bit = bits[at / 8] >> (7 - at % 8) & 1;
                    out.write_str(if bit == 1 { "1" } else { "0" })?;
                }
            }
            Self::Array => write_array(out, rest)?,
            Self::Range(element) => write_range(out, rest, element.format())?,
            _ => return Err(Stop::Malformed),
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(Stop::Malformed)
        }
    }

    /// Writes an element of an array or a range.
    fn write_element(self, out: &mut Shortened, bytes: &[u8]) -> Result<(), Stop> {
        match self.scalar(bytes) {
            Some(ArgValue::Bool(v)) => write!(out, "{v}")?,
            Some(ArgValue::Int(v)) => write!(out, "{v}")?,
            Some(ArgValue::UInt(v)) => write!(out, "{v}")?,
            Some(ArgValue::Float(v)) => write!(out, "{v:?}")?,
            Some(ArgValue::Real(v)) => write!(out, "{v:?}")?,
            Some(ArgValue::Text { text, .. }) => write!(out, "{text:?}")?,
            Some(ArgValue::Bytes { bytes, .. }) => write_hex(out, &bytes)?,
            Some(_) => return Err(Stop::Malformed),
            None => self.write(out, bytes)?,
        }
        Ok(())
    }
}

impl Element {
    fn format(self) -> Format {
        match self {
            Self::Int4 => Format::Int4,
            Self::Int8 => Format::Int8,
            Self::Numeric => Format::Numeric,
            Self::Date => Format::Date,
            Self::Timestamp => Format::Timestamp,
            Self::Timestamptz => Format::Timestamptz,
        }
    }
}

/// Days since 2000-01-01.
fn write_date(out: &mut Shortened, days: i64) -> Result<(), Stop> {
    if days == i64::from(i32::MAX) {
        out.write_str("infinity")?;
    } else if days == i64::from(i32::MIN) {
        out.write_str("-infinity")?;
    } else {
        const FROM_1970: i64 = 10_957;
        let days = i32::try_from(days + FROM_1970).map_err(|_| Stop::Malformed)?;
        let date = NaiveDate::from_epoch_days(days).ok_or(Stop::Malformed)?;
        let (year, month, day) = (date.year(), date.month(), date.day());
        if year > 0 {
            write!(out, "{year:04}-{month:02}-{day:02}")?;
        } else {
            write!(out, "{:04}-{month:02}-{day:02} BC", 1 - year)?;
        }
    }
    Ok(())
}

fn write_time(out: &mut Shortened, micros: i64) -> Result<(), Stop> {
    // 24:00:00 is a time of day in PostgreSQL.
    match u64::try_from(micros) {
        Ok(micros) if micros <= DAY.unsigned_abs() => write_clock(out, micros),
        _ => Err(Stop::Malformed),
    }
}

fn write_clock(out: &mut Shortened, micros: u64) -> Result<(), Stop> {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    write!(
        out,
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )?;
    if micros > 0 {
        write!(out, ".{micros:06}")?;
    }
    Ok(())
}

fn write_offset(out: &mut Shortened, seconds: i64) -> Result<(), Stop> {
    let sign = if seconds < 0 { '-' } else { '+' };
    let seconds = seconds.unsigned_abs();
    write!(out, "{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60)?;
    let rest = seconds % 60;
    if rest > 0 {
        write!(out, ":{rest:02}")?;
    }
    Ok(())
}

/// Groups of four decimal digits, the first weighing `10000^weight`.
fn write_numeric(out: &mut Shortened, rest: &mut &[u8]) -> Result<(), Stop> {
    let count = u16::from_be_bytes(next(rest)?);
    let weight = i16::from_be_bytes(next(rest)?);
    let sign = u16::from_be_bytes(next(rest)?);
    let scale = u16::from_be_bytes(next(rest)?);
    let groups = slice(rest, usize::from(count) * 2).ok_or(Stop::Malformed)?;
    let (groups, _) = groups.as_chunks::<2>();
    match sign {
        0x0000 => {}
        0x4000 => out.write_str("-")?,
        0xc000 => return Ok(out.write_str("NaN")?),
        0xd000 => return Ok(out.write_str("Infinity")?),
        0xf000 => return Ok(out.write_str("-Infinity")?),
        _ => return Err(Stop::Malformed),
    }
    let group = |at: i32| match usize::try_from(at) {
        Ok(at) => groups.get(at).map_or(0, |group| u16::from_be_bytes(*group)),
        Err(_) => 0,
    };
    let weight = i32::from(weight);
    if weight < 0 {
        out.write_str("0")?;
    } else {
        write!(out, "{}", group(0))?;
        for at in 1..=weight {
            write!(out, "{:04}", group(at))?;
        }
    }
    if scale > 0 {
        out.write_str(".")?;
        let mut left = usize::from(scale);
        let mut at = weight + 1;
        while left > 0 {
            let digits = format!("{:04}", group(at));
            let take = left.min(4);
            out.write_str(digits.get(..take).ok_or(Stop::Malformed)?)?;
            left -= take;
            at += 1;
        }
    }
    Ok(())
}

fn write_inet(out: &mut Shortened, rest: &mut &[u8]) -> Result<(), Stop> {
    let [_family, bits, _is_cidr, len] = next(rest)?;
    let full = match len {
        4 => {
            write!(out, "{}", Ipv4Addr::from(next::<4>(rest)?))?;
            32
        }
        16 => {
            write!(out, "{}", Ipv6Addr::from(next::<16>(rest)?))?;
            128
        }
        _ => return Err(Stop::Malformed),
    };
    if bits != full {
        write!(out, "/{bits}")?;
    }
    Ok(())
}

/// `{1,NULL,3}`, `{{1,2},{3,4}}`.
fn write_array(out: &mut Shortened, rest: &mut &[u8]) -> Result<(), Stop> {
    let dimensions = u32::from_be_bytes(next(rest)?);
    let _has_nulls: [u8; 4] = next(rest)?;
    let oid = u32::from_be_bytes(next(rest)?);
    if dimensions == 0 {
        return Ok(out.write_str("{}")?);
    }
    // PostgreSQL's own limit.
    if dimensions > 6 {
        return Err(Stop::Malformed);
    }
    let mut lengths = Vec::new();
    for _ in 0..dimensions {
        lengths.push(u32::from_be_bytes(next(rest)?));
        let _lower_bound: [u8; 4] = next(rest)?;
    }
    let format = Format::by_oid(oid).map(|(_, format)| format);
    write_dimension(out, rest, &lengths, format)
}

fn write_dimension(
    out: &mut Shortened,
    rest: &mut &[u8],
    lengths: &[u32],
    format: Option<Format>,
) -> Result<(), Stop> {
    let [len, inner @ ..] = lengths else {
        return match (sized(rest).ok_or(Stop::Malformed)?, format) {
            (None, _) => Ok(out.write_str("NULL")?),
            (Some(bytes), Some(format)) => format.write_element(out, bytes),
            (Some(bytes), None) => Ok(write_hex(out, bytes)?),
        };
    };
    out.write_str("{")?;
    for at in 0..*len {
        if at > 0 {
            out.write_str(",")?;
        }
        write_dimension(out, rest, inner, format)?;
    }
    Ok(out.write_str("}")?)
}

/// `[1,5)`, `(,2024-01-01]`, `empty`.
fn write_range(out: &mut Shortened, rest: &mut &[u8], element: Format) -> Result<(), Stop> {
    const EMPTY: u8 = 0x01;
    const LOWER_INCLUSIVE: u8 = 0x02;
    const UPPER_INCLUSIVE: u8 = 0x04;
    const LOWER_INFINITE: u8 = 0x08;
    const UPPER_INFINITE: u8 = 0x10;
    let [flags] = next(rest)?;
    if flags & EMPTY != 0 {
        return Ok(out.write_str("empty")?);
    }
    let mut bound = |out: &mut Shortened, infinite: u8| {
        if flags & infinite != 0 {
            return Ok(());
        }
        match sized(rest) {
            Some(Some(bytes)) => element.write_element(out, bytes),
            _ => Err(Stop::Malformed),
        }
    };
    out.write_str(if flags & LOWER_INCLUSIVE != 0 {
        "["
    } else {
        "("
    })?;
    bound(out, LOWER_INFINITE)?;
    out.write_str(",")?;
    bound(out, UPPER_INFINITE)?;
    Ok(out.write_str(if flags & UPPER_INCLUSIVE != 0 {
        "]"
    } else {
        ")"
    })?)
}

fn next<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Stop> {
    take(rest).ok_or(Stop::Malformed)
}

fn slice_all<'b>(rest: &mut &'b [u8]) -> &'b [u8] {
    std::mem::take(rest)
}

const DAY: i64 = 86_400_000_000;

/// Why a value was not written to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// As much as will be shown is written.
    Full,
    /// The bytes do not fit the type.
    Malformed,
}

impl From<fmt::Error> for Stop {
    fn from(_: fmt::Error) -> Self {
        Self::Full
    }
}

impl From<std::str::Utf8Error> for Stop {
    fn from(_: std::str::Utf8Error) -> Self {
        Self::Malformed
    }
}

/// Text up to a limit: a large array need not be written to the end when only
/// its beginning will be shown.
pub(super) struct Shortened {
    pub(super) text: String,
    limit: usize,
    pub(super) full: bool,
}

impl Shortened {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            text: String::new(),
            limit,
            full: false,
        }
    }
}

impl Write for Shortened {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.limit - self.text.len();
        let fits = text.floor_char_boundary(room);
        self.text.push_str(&text[..fits]);
        if fits < text.len() {
            self.full = true;
            return Err(fmt::Error);
        }
        Ok(())
    }
}
