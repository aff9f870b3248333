use std::borrow::Cow;
use std::fmt;

use crate::duration::write_int;
use crate::escape::write_visible;

#[cfg(feature = "any")]
mod any;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod bytes;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod probe;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "any")]
pub use self::any::AnyCaptured;
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteCaptured;

/// How much of bound arguments, and of error texts that may quote them, a
/// tracer shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ArgsMode {
    /// Their number only; nothing is captured: `args = <2 hidden>`.
    Hidden,
    /// Their kinds and sizes: `args = [int, text(11), null]`. Error texts are
    /// cut down to their code.
    #[default]
    Kinds,
    /// Their values, each to at most `max` bytes: `args = [1, "hello world",
    /// NULL]`. Error texts are shown whole.
    Values {
        /// The most bytes of one text or byte string that are shown.
        max: usize,
    },
}

/// The arguments bound to one statement.
///
/// They are decoded only when asked for: `Display` writes them as the
/// tracer's [`ArgsMode`] says.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) mode: ArgsMode,
}

#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// Not captured; their number is known.
    Hidden(usize),
    Captured(&'a dyn ArgSource),
}

impl<'a> Args<'a> {
    /// To be shown as the tracer that is told says.
    pub(crate) fn of(source: Source<'a>) -> Self {
        Self {
            source,
            mode: ArgsMode::default(),
        }
    }
}

/// The arguments of a statement under way.
pub(crate) enum Held<C> {
    /// The operation has none, such as preparing.
    None,
    /// Not captured; their number is known.
    Hidden(usize),
    Captured(C),
}

impl<C: ArgSource + 'static> Held<C> {
    pub(crate) fn source(&self) -> Option<Source<'_>> {
        match self {
            Self::None => None,
            Self::Hidden(count) => Some(Source::Hidden(*count)),
            Self::Captured(captured) => Some(Source::Captured(captured)),
        }
    }

    pub(crate) fn boxed(self) -> Held<Box<dyn ArgSource>> {
        match self {
            Self::None => Held::None,
            Self::Hidden(count) => Held::Hidden(count),
            Self::Captured(captured) => Held::Captured(Box::new(captured)),
        }
    }
}

impl ArgSource for Box<dyn ArgSource> {
    fn count(&self) -> usize {
        (**self).count()
    }

    fn decode(&self, limit: usize, each: &mut dyn FnMut(ArgValue<'_>)) -> Result<(), Undecodable> {
        (**self).decode(limit, each)
    }
}

impl Args<'_> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.source {
            Source::Hidden(len) => len,
            Source::Captured(source) => source.count(),
        }
    }

    /// Whether the statement has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values, whole and in order.
    ///
    /// `None` unless the tracer's mode is [`ArgsMode::Values`], and if this
    /// version of sqlx encodes in a way this crate does not know.
    #[must_use]
    pub fn values(&self) -> Option<Vec<ArgValue<'static>>> {
        match (self.mode, self.source) {
            (ArgsMode::Values { .. }, Source::Captured(source)) => {
                let mut values = Vec::with_capacity(source.count());
                source
                    .decode(usize::MAX, &mut |value| values.push(value.into_owned()))
                    .ok()?;
                Some(values)
            }
            (ArgsMode::Values { .. }, Source::Hidden(0)) => Some(Vec::new()),
            _ => None,
        }
    }
}

impl Args<'_> {
    pub(crate) fn write<W: fmt::Write>(&self, out: &mut W) -> fmt::Result {
        let count = self.len();
        if count == 0 {
            return out.write_str("[]");
        }
        let (source, limit) = match (self.source, self.mode) {
            (Source::Captured(source), ArgsMode::Values { max }) => (source, max),
            (Source::Captured(source), ArgsMode::Kinds) => (source, 0),
            _ => return write!(out, "<{count} hidden>"),
        };
        out.write_str("[")?;
        let mut written = 0;
        let mut result = Ok(());
        let decoded = source.decode(limit, &mut |value| {
            if result.is_ok() {
                result = (|| {
                    if written > 0 {
                        out.write_str(", ")?;
                    }
                    match self.mode {
                        ArgsMode::Values { max } => value.write_value(out, max),
                        _ => value.write_kind(out),
                    }
                })();
                written += 1;
            }
        });
        result?;
        if decoded.is_err() || written != count {
            if written > 0 {
                out.write_str(", ")?;
            }
            write!(out, "<{} undecodable>", count.saturating_sub(written))?;
        }
        out.write_str("]")
    }
}

impl fmt::Display for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A bound value, as far as the driver's encoding of it tells.
///
/// Drivers keep encoded bytes, not Rust values: a `bool` bound to SQLite is an
/// integer by then, and a `Uuid` bound to MySQL is bytes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ArgValue<'a> {
    /// `NULL`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A signed integer of any width.
    Int(i64),
    /// An unsigned integer of any width.
    UInt(u64),
    /// A floating point number of double precision.
    Float(f64),
    /// A floating point number of single precision.
    Real(f32),
    /// Text.
    Text {
        /// The text, or its beginning.
        text: Cow<'a, str>,
        /// The bytes it has in all, if they were counted.
        len: Option<usize>,
    },
    /// A byte string.
    Bytes {
        /// The bytes, or the first of them.
        bytes: Cow<'a, [u8]>,
        /// How many there are in all, if they were counted.
        len: Option<usize>,
    },
    /// A value of a richer type, in a readable form.
    Other {
        /// The database's name of the type.
        kind: Cow<'a, str>,
        /// The value as the database would print it, or the beginning of that.
        text: Cow<'a, str>,
        /// Whether `text` is the whole of it.
        whole: bool,
    },
    /// A value of a type that this crate does not decode, as it was encoded.
    Opaque {
        /// The database's name of the type.
        kind: Cow<'a, str>,
        /// The encoded bytes, or the first of them.
        bytes: Cow<'a, [u8]>,
        /// How many there are in all.
        len: usize,
    },
    /// A value whose bytes do not fit its type.
    Undecodable {
        /// The database's name of the type.
        kind: Cow<'a, str>,
    },
}

impl ArgValue<'_> {
    fn into_owned(self) -> ArgValue<'static> {
        fn text(text: Cow<'_, str>) -> Cow<'static, str> {
            Cow::Owned(text.into_owned())
        }
        fn raw(bytes: Cow<'_, [u8]>) -> Cow<'static, [u8]> {
            Cow::Owned(bytes.into_owned())
        }
        match self {
            Self::Null => ArgValue::Null,
            Self::Bool(v) => ArgValue::Bool(v),
            Self::Int(v) => ArgValue::Int(v),
            Self::UInt(v) => ArgValue::UInt(v),
            Self::Float(v) => ArgValue::Float(v),
            Self::Real(v) => ArgValue::Real(v),
            Self::Text { text: t, len } => ArgValue::Text { text: text(t), len },
            Self::Bytes { bytes, len } => ArgValue::Bytes {
                bytes: raw(bytes),
                len,
            },
            Self::Other {
                kind,
                text: t,
                whole,
            } => ArgValue::Other {
                kind: text(kind),
                text: text(t),
                whole,
            },
            Self::Opaque { kind, bytes, len } => ArgValue::Opaque {
                kind: text(kind),
                bytes: raw(bytes),
                len,
            },
            Self::Undecodable { kind } => ArgValue::Undecodable { kind: text(kind) },
        }
    }

    pub(crate) fn write_kind<W: fmt::Write>(&self, out: &mut W) -> fmt::Result {
        match self {
            Self::Null => out.write_str("null"),
            Self::Bool(_) => out.write_str("bool"),
            Self::Int(_) | Self::UInt(_) => out.write_str("int"),
            Self::Float(_) | Self::Real(_) => out.write_str("float"),
            Self::Text { len: Some(len), .. } => write_sized(out, "text(", *len),
            Self::Text { text, len: None } => write!(out, "text({}+)", text.len()),
            Self::Bytes { len: Some(len), .. } => write_sized(out, "bytes(", *len),
            Self::Bytes { bytes, len: None } => write!(out, "bytes({}+)", bytes.len()),
            Self::Other { kind, .. } => write_visible(out, kind),
            Self::Opaque { kind, len, .. } => {
                write_visible(out, kind)?;
                write!(out, "({len})")
            }
            Self::Undecodable { kind } => {
                out.write_str("<undecodable ")?;
                write_visible(out, kind)?;
                out.write_str(">")
            }
        }
    }

    pub(crate) fn write_value<W: fmt::Write>(&self, out: &mut W, max: usize) -> fmt::Result {
        match self {
            Self::Null => out.write_str("NULL"),
            Self::Bool(v) => write!(out, "{v}"),
            Self::Int(v) => write!(out, "{v}"),
            Self::UInt(v) => write!(out, "{v}"),
            // `{:?}` is the shortest text that reads back as the same number.
            Self::Float(v) => write!(out, "{v:?}"),
            Self::Real(v) => write!(out, "{v:?}"),
            Self::Text { text, len } => {
                let head = clip(text, max);
                write!(out, "{head:?}")?;
                write_rest(out, head.len(), *len)
            }
            Self::Bytes { bytes, len } => {
                let head = &bytes[..bytes.len().min(max)];
                write_hex(out, head)?;
                write_rest(out, head.len(), *len)
            }
            Self::Other { text, whole, .. } => {
                let head = clip(text, max);
                write_visible(out, head)?;
                if *whole && head.len() == text.len() {
                    Ok(())
                } else {
                    out.write_str("…")
                }
            }
            Self::Opaque { kind, bytes, len } => {
                write_visible(out, kind)?;
                out.write_str(":")?;
                let head = &bytes[..bytes.len().min(max)];
                write_hex(out, head)?;
                write_rest(out, head.len(), Some(*len))
            }
            Self::Undecodable { .. } => self.write_kind(out),
        }
    }
}

fn write_sized<W: fmt::Write>(out: &mut W, opening: &str, len: usize) -> fmt::Result {
    out.write_str(opening)?;
    write_int(out, len as u64)?;
    out.write_str(")")
}

fn clip(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

fn write_hex<W: fmt::Write>(out: &mut W, bytes: &[u8]) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.write_str("0x")?;
    for chunk in bytes.chunks(32) {
        let mut hex = [0u8; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(chunk) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        out.write_str(str::from_utf8(&hex[..chunk.len() * 2]).map_err(|_| fmt::Error)?)?;
    }
    Ok(())
}

/// Says what a shortened value left out.
fn write_rest<W: fmt::Write>(out: &mut W, shown: usize, len: Option<usize>) -> fmt::Result {
    match len {
        Some(len) if len == shown => Ok(()),
        Some(len) => write!(out, "…({len} bytes)"),
        None => out.write_str("…"),
    }
}

/// Arguments that were captured from a statement, in the driver's encoding.
#[doc(hidden)]
pub trait ArgSource: Send + Sync {
    fn count(&self) -> usize;

    /// Hands each value to `each`, in order. Of texts and byte strings no more
    /// than `limit` bytes need be handed on.
    fn decode(&self, limit: usize, each: &mut dyn FnMut(ArgValue<'_>)) -> Result<(), Undecodable>;
}

/// The driver's encoding is not what this crate knows.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Undecodable;

#[cfg(test)]
mod tests {
    use super::*;

    /// Arguments of which the first alone can be read.
    struct Strange;

    impl ArgSource for Strange {
        fn count(&self) -> usize {
            3
        }

        fn decode(&self, _: usize, each: &mut dyn FnMut(ArgValue<'_>)) -> Result<(), Undecodable> {
            each(ArgValue::Int(7));
            Err(Undecodable)
        }
    }

    #[test]
    fn arguments_that_cannot_be_read_are_counted() {
        let shown = |mode| {
            let source = Source::Captured(&Strange);
            let args = Args { source, mode };
            (args.to_string(), args.values())
        };
        let values = shown(ArgsMode::Values { max: 64 });
        assert_eq!(values, ("[7, <2 undecodable>]".to_owned(), None));
        let kinds = shown(ArgsMode::Kinds);
        assert_eq!(kinds, ("[int, <2 undecodable>]".to_owned(), None));
        let hidden = shown(ArgsMode::Hidden);
        assert_eq!(hidden, ("<3 hidden>".to_owned(), None));
    }
}
