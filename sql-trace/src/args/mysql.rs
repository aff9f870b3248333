//! The parameters of a binary protocol statement, as the driver keeps them:
//! values one after the other, each as its type says.
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html>

use std::borrow::Cow;
use std::fmt::Write;

use sqlx::Arguments;
use sqlx::mysql::MySqlArguments;

use super::bytes::{slice, take};
use super::probe::Probe;
use super::{ArgSource, ArgValue, Undecodable};
use crate::debug_text::{field, items};

impl ArgSource for MySqlArguments {
    fn count(&self) -> usize {
        self.len()
    }

    fn decode(&self, _limit: usize, each: &mut dyn FnMut(ArgValue<'_>)) -> Result<(), Undecodable> {
        decode(self, each).ok_or(Undecodable)
    }
}

fn decode(args: &MySqlArguments, each: &mut dyn FnMut(ArgValue<'_>)) -> Option<()> {
    let mut args = args.clone();
    let count = args.len();
    let mut values = Vec::new();
    let _ = args.add(Probe::new(|buffer: &mut Vec<u8>| {
        values = std::mem::take(buffer);
    }));
    // With the values taken out, what is left to print is short.
    let mut text = String::new();
    write!(text, "{args:?}").ok()?;
    let types = items(field(&text, "types: ")?)?;
    let nulls: Vec<u8> = items(field(&text, "bytes: ")?)?
        .iter()
        .map(|byte| byte.parse().ok())
        .collect::<Option<_>>()?;
    if types.len() != count {
        return None;
    }
    let is_null = |at: usize| Some(nulls.get(at / 8)? >> (at % 8) & 1 == 1);
    let kinds: Vec<Kind<'_>> = types
        .iter()
        .map(|text| Kind::parse(text))
        .collect::<Option<_>>()?;
    // One value read wrongly would shift all that follow, so nothing is told
    // before everything was read.
    let mut rest = &values[..];
    let mut decoded = Vec::with_capacity(count);
    for (at, kind) in kinds.iter().enumerate() {
        decoded.push(if is_null(at)? {
            ArgValue::Null
        } else {
            kind.decode(&mut rest)?
        });
    }
    if !rest.is_empty() {
        return None;
    }
    decoded.into_iter().for_each(each);
    Some(())
}

struct Kind<'t> {
    name: &'t str,
    unsigned: bool,
    binary: bool,
}

impl<'t> Kind<'t> {
    /// Reads `MySqlTypeInfo { type: LongLong, flags: ColumnFlags(UNSIGNED), … }`.
    fn parse(text: &'t str) -> Option<Self> {
        let name = field(text, "type: ")?.split(',').next()?;
        let flags = field(text, "flags: ")?;
        let flags = flags.get(..flags.find(')')?)?;
        Some(Self {
            name,
            unsigned: flags.contains("UNSIGNED"),
            binary: flags.contains("BINARY"),
        })
    }

    fn decode<'b>(&self, rest: &mut &'b [u8]) -> Option<ArgValue<'b>> {
        Some(match self.name {
            "Tiny" => {
                let [byte] = take(rest)?;
                self.int(i8::from_le_bytes([byte]).into(), byte.into())
            }
            "Short" | "Year" => {
                let bytes = take(rest)?;
                self.int(
                    i16::from_le_bytes(bytes).into(),
                    u16::from_le_bytes(bytes).into(),
                )
            }
            "Long" | "Int24" => {
                let bytes = take(rest)?;
                self.int(
                    i32::from_le_bytes(bytes).into(),
                    u32::from_le_bytes(bytes).into(),
                )
            }
            "LongLong" => {
                let bytes = take(rest)?;
                self.int(i64::from_le_bytes(bytes), u64::from_le_bytes(bytes))
            }
            "Float" => ArgValue::Real(f32::from_le_bytes(take(rest)?)),
            "Double" => ArgValue::Float(f64::from_le_bytes(take(rest)?)),
            "NewDecimal" | "Decimal" | "Json" => {
                let text = str::from_utf8(counted(rest)?).ok()?;
                self.other(text)
            }
            "VarString" | "VarChar" | "String" | "Enum" | "Set" | "TinyBlob" | "Blob"
            | "MediumBlob" | "LongBlob" => {
                let bytes = counted(rest)?;
                match str::from_utf8(bytes) {
                    Ok(text) if !(self.binary && self.name.ends_with("Blob")) => ArgValue::Text {
                        text: Cow::Borrowed(text),
                        len: Some(text.len()),
                    },
                    _ => ArgValue::Bytes {
                        bytes: Cow::Borrowed(bytes),
                        len: Some(bytes.len()),
                    },
                }
            }
            "Date" | "Datetime" | "Timestamp" => {
                let [len] = take(rest)?;
                let text = date_time(slice(rest, len.into())?)?;
                self.other(text)
            }
            "Time" => {
                let [len] = take(rest)?;
                let text = time(slice(rest, len.into())?)?;
                self.other(text)
            }
            // The rest, such as geometry, is sent as a counted byte string by
            // every driver; sqlx binds none of it.
            _ => return None,
        })
    }

    fn int<'b>(&self, signed: i64, unsigned: u64) -> ArgValue<'b> {
        if self.unsigned {
            ArgValue::UInt(unsigned)
        } else {
            ArgValue::Int(signed)
        }
    }

    fn other<'b>(&self, text: impl Into<Cow<'b, str>>) -> ArgValue<'b> {
        let kind = match self.name {
            "NewDecimal" => "decimal".to_owned(),
            name => name.to_ascii_lowercase(),
        };
        ArgValue::Other {
            kind: kind.into(),
            text: text.into(),
            whole: true,
        }
    }
}

/// `2024-02-29`, `2024-02-29 12:34:56`, `2024-02-29 12:34:56.000789`.
fn date_time(mut bytes: &[u8]) -> Option<String> {
    let rest = &mut bytes;
    if rest.is_empty() {
        return Some("0000-00-00".to_owned());
    }
    let year = u16::from_le_bytes(take(rest)?);
    let [month, day] = take(rest)?;
    let mut text = format!("{year:04}-{month:02}-{day:02}");
    if !rest.is_empty() {
        let [hours, minutes, seconds] = take(rest)?;
        write!(text, " {hours:02}:{minutes:02}:{seconds:02}").ok()?;
    }
    write_micros(&mut text, rest)?;
    Some(text)
}

/// `12:34:56`, `-838:59:59.000001`: hours go beyond a day.
fn time(mut bytes: &[u8]) -> Option<String> {
    let rest = &mut bytes;
    if rest.is_empty() {
        return Some("00:00:00".to_owned());
    }
    let [negative] = take(rest)?;
    let days = u32::from_le_bytes(take(rest)?);
    let [hours, minutes, seconds] = take(rest)?;
    let hours = u64::from(days) * 24 + u64::from(hours);
    let sign = if negative == 0 { "" } else { "-" };
    let mut text = format!("{sign}{hours:02}:{minutes:02}:{seconds:02}");
    write_micros(&mut text, rest)?;
    Some(text)
}

fn write_micros(text: &mut String, rest: &mut &[u8]) -> Option<()> {
    if !rest.is_empty() {
        let micros = u32::from_le_bytes(take(rest)?);
        write!(text, ".{micros:06}").ok()?;
    }
    rest.is_empty().then_some(())
}

/// A byte string after its length-encoded length.
fn counted<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let [first] = take(rest)?;
    let len = match first {
        0..=250 => first.into(),
        0xfc => u16::from_le_bytes(take(rest)?).into(),
        0xfd => {
            let [a, b, c] = take(rest)?;
            u32::from_le_bytes([a, b, c, 0]) as usize
        }
        0xfe => usize::try_from(u64::from_le_bytes(take(rest)?)).ok()?,
        _ => return None,
    };
    slice(rest, len)
}
