//! Arguments as the PostgreSQL driver has encoded them: taken out of its buffer,
//! each with the type it was bound as.

use std::borrow::Cow;
use std::fmt::Write;

use sqlx::Arguments;
use sqlx::postgres::{PgArgumentBuffer, PgArguments};

use self::format::{Format, Shortened, Stop};
use super::bytes::{slice, take};
use super::probe::Probe;
use super::{ArgSource, ArgValue, Undecodable};
use crate::debug_text::{field, items};

mod format;

impl ArgSource for PgArguments {
    fn count(&self) -> usize {
        self.len()
    }

    fn decode(&self, limit: usize, each: &mut dyn FnMut(ArgValue<'_>)) -> Result<(), Undecodable> {
        decode(self, limit, each).ok_or(Undecodable)
    }
}

fn decode(args: &PgArguments, limit: usize, each: &mut dyn FnMut(ArgValue<'_>)) -> Option<()> {
    let mut args = args.clone();
    let count = args.len();
    let mut bytes = Vec::new();
    let _ = args.add(Probe::new(|buffer: &mut PgArgumentBuffer| {
        bytes = std::mem::take(&mut **buffer);
    }));
    // The driver had made room for the length of the value that was refused.
    bytes.truncate(bytes.len().checked_sub(4)?);
    // With the values taken out, what is left to print is short.
    let mut text = String::new();
    write!(text, "{args:?}").ok()?;
    let types = items(field(&text, "PgArguments { types: ")?)?;
    let mut rest = &bytes[..];
    let values: Vec<_> = (0..count).map_while(|_| sized(&mut rest)).collect();
    if types.len() != count || values.len() != count || !rest.is_empty() {
        return None;
    }
    for (text, bytes) in types.iter().zip(values) {
        match bytes {
            None => each(ArgValue::Null),
            Some(bytes) => each(Type::parse(text)?.decode(bytes, limit)),
        }
    }
    Some(())
}

/// A value after its length, which is -1 for NULL.
fn sized<'b>(rest: &mut &'b [u8]) -> Option<Option<&'b [u8]>> {
    let len = i32::from_be_bytes(take(rest)?);
    if len == -1 {
        return Some(None);
    }
    slice(rest, usize::try_from(len).ok()?).map(Some)
}

/// A type as the driver knows it at the time of binding.
#[derive(Clone, Debug)]
struct Type<'t> {
    /// `int4`, `int4[]`, `mood`.
    name: Cow<'t, str>,
    /// How the bytes are to be read, if the type is a built-in one.
    format: Option<Format>,
}

impl<'t> Type<'t> {
    /// Reads `PgTypeInfo(Int4)`, `PgTypeInfo(DeclareWithName(mood))` and the
    /// like.
    fn parse(text: &'t str) -> Option<Self> {
        let text = text.strip_prefix("PgTypeInfo(")?.strip_suffix(')')?;
        if let Some(name) = wrapped(text, "DeclareWithName(") {
            return Some(Self::named(name));
        }
        if let Some(oid) = wrapped(text, "DeclareWithOid(Oid(") {
            let oid = oid.strip_suffix(')')?.parse().ok()?;
            return Some(match Format::by_oid(oid) {
                Some((name, format)) => Self::built_in(name.into(), format),
                None => Self {
                    name: format!("oid{oid}").into(),
                    format: None,
                },
            });
        }
        if let Some(of) = wrapped(text, "DeclareArrayOf(PgArrayOf { elem_name: ") {
            let element = of.split(", name: ").next()?;
            return Some(Self::built_in(format!("{element}[]").into(), Format::Array));
        }
        if let Some(custom) = text.strip_prefix("Custom(PgCustomType {") {
            let name = field(custom, "name: ")?.split(", kind: ").next()?;
            let kind = field(custom, ", kind: ")?;
            // A resolved enum's label is text for sure.
            let format = kind.starts_with("Enum(").then_some(Format::Text);
            return Some(Self {
                name: name.into(),
                format,
            });
        }
        if let Some(element) = text.strip_suffix("Array") {
            let name = format!("{}[]", element.to_ascii_lowercase());
            return Some(Self::built_in(name.into(), Format::Array));
        }
        let name = text.to_ascii_lowercase();
        Some(Self {
            format: Format::by_name(&name),
            name: name.into(),
        })
    }

    fn built_in(name: Cow<'t, str>, format: Format) -> Self {
        Self {
            name,
            format: Some(format),
        }
    }

    /// A type that a program names itself: it may be an enum, a domain or a
    /// composite, and nothing tells which.
    fn named(name: &'t str) -> Self {
        let format = match name {
            "citext" => Some(Format::Text),
            "ltree" | "lquery" => Some(Format::Versioned),
            _ => None,
        };
        Self {
            name: name.into(),
            format,
        }
    }

    fn decode<'b>(&'b self, bytes: &'b [u8], limit: usize) -> ArgValue<'b> {
        let kind = || Cow::Borrowed(&*self.name);
        let Some(format) = self.format else {
            return ArgValue::Opaque {
                kind: kind(),
                bytes: Cow::Borrowed(&bytes[..bytes.len().min(limit)]),
                len: bytes.len(),
            };
        };
        if let Some(value) = format.scalar(bytes) {
            return value;
        }
        let mut text = Shortened::new(limit);
        match format.write(&mut text, bytes) {
            Err(Stop::Malformed) => ArgValue::Undecodable { kind: kind() },
            Err(Stop::Full) | Ok(()) => ArgValue::Other {
                kind: kind(),
                text: text.text.into(),
                whole: !text.full,
            },
        }
    }
}

fn wrapped<'t>(text: &'t str, opening: &str) -> Option<&'t str> {
    text.strip_prefix(opening)?.strip_suffix(')')
}
