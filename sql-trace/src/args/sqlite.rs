//! `SqliteArguments` has no reader. A value that is being encoded is shown the
//! buffer that is in it, whose derived `Debug` is the only way further.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use memchr::{memchr, memchr2};
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArguments, SqliteArgumentsBuffer};
use sqlx::{Arguments, Sqlite, Type};

use super::probe::Probe;
use super::{ArgSource, ArgValue, Undecodable};

mod ask;

/// The arguments of a statement, without the shell around them, which would be
/// printed each time.
#[derive(Clone, Debug)]
pub struct SqliteCaptured {
    buffer: SqliteArgumentsBuffer,
    count: usize,
}

impl SqliteCaptured {
    pub(crate) fn of(args: &mut SqliteArguments) -> Self {
        let count = args.len();
        let mut buffer = SqliteArgumentsBuffer::default();
        let _ = args.add(Probe::new(|live: &mut SqliteArgumentsBuffer| {
            buffer = live.clone();
        }));
        Self { buffer, count }
    }

    /// Arguments again, to be bound.
    fn to_arguments(&self) -> SqliteArguments {
        let mut args = SqliteArguments::default();
        let _ = args.add(Whole(&self.buffer));
        args
    }
}

/// All arguments at once, which is what is pushed by one that says it is not
/// NULL and pushes nothing itself.
struct Whole<'b>(&'b SqliteArgumentsBuffer);

impl Encode<'_, Sqlite> for Whole<'_> {
    fn encode_by_ref(&self, live: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        live.clone_from(self.0);
        Ok(IsNull::No)
    }
}

impl Type<Sqlite> for Whole<'_> {
    fn type_info() -> sqlx::sqlite::SqliteTypeInfo {
        <Vec<u8> as Type<Sqlite>>::type_info()
    }
}

impl ArgSource for SqliteCaptured {
    fn count(&self) -> usize {
        self.count
    }

    fn decode(&self, limit: usize, each: &mut dyn FnMut(ArgValue<'_>)) -> Result<(), Undecodable> {
        let mut printed = Printed::take();
        let decoded = match printed.print(&self.buffer) {
            Ok(()) => parse(&printed.text, limit, each).ok_or(Undecodable),
            Err(TooLong) => ask::ask(self, limit, each),
        };
        printed.give_back();
        decoded
    }
}

/// The `Debug` of arguments, unless it is very long.
struct Printed {
    text: String,
    /// Where the byte string begins that is being printed.
    blob: Option<usize>,
}

/// The text is longer than what can be printed in a moment.
#[derive(Debug)]
struct TooLong;

impl Printed {
    /// Printing a byte string takes a call for each byte; a text takes one for
    /// all of it.
    const LONGEST_BLOB: usize = 4 * 1024;
    const LONGEST: usize = 64 * 1024;

    /// Takes this thread's buffer.
    fn take() -> Self {
        let mut text = BUFFER.try_with(Cell::take).unwrap_or_default();
        text.clear();
        Self { text, blob: None }
    }

    fn give_back(self) {
        if self.text.capacity() <= 2 * Self::LONGEST {
            let _ = BUFFER.try_with(|buffer| buffer.set(self.text));
        }
    }

    fn print(&mut self, args: &SqliteArgumentsBuffer) -> Result<(), TooLong> {
        if cfg!(panic = "unwind") {
            // A list goes on through all its items after an error, so that a
            // large byte string would still take milliseconds. Unwinding is
            // the only way out of it. No message is printed: it is not a
            // panic.
            catch_unwind(AssertUnwindSafe(|| write!(self, "{args:?}").is_ok()))
                .map_or(Err(TooLong), |_| Ok(()))
        } else {
            write!(self, "{args:?}").map_err(|_| TooLong)
        }
    }

    fn is_too_long(&self) -> bool {
        self.text.len() > Self::LONGEST
            || self
                .blob
                .is_some_and(|start| self.text.len() - start > Self::LONGEST_BLOB)
    }
}

impl Write for Printed {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if piece.len() <= 4 {
            // Most pieces are punctuation; a call to copy them takes longer.
            piece.chars().for_each(|c| self.text.push(c));
        } else {
            self.text.push_str(piece);
        }
        match piece {
            "Blob" => self.blob = Some(self.text.len()),
            ")" => self.blob = None,
            _ => {}
        }
        if self.is_too_long() {
            if cfg!(panic = "unwind") {
                resume_unwind(Box::new(TooLong));
            }
            return Err(fmt::Error);
        }
        Ok(())
    }
}

thread_local!(static BUFFER: Cell<String> = const { Cell::new(String::new()) });

/// Reads what was printed. `None` if it is not what is expected.
fn parse(text: &str, limit: usize, each: &mut dyn FnMut(ArgValue<'_>)) -> Option<()> {
    let mut rest = text.strip_prefix("SqliteArgumentsBuffer([")?;
    let mut unescaped = String::new();
    while !rest.starts_with(']') {
        rest = if let Some(rest) = rest.strip_prefix("Int64(") {
            int(rest, each)?
        } else if let Some(rest) = rest.strip_prefix("Text(") {
            quoted(rest, limit, &mut unescaped, each)?
        } else if let Some(rest) = rest.strip_prefix("TextSlice(") {
            quoted(rest, limit, &mut unescaped, each)?
        } else if let Some(rest) = rest.strip_prefix("Null") {
            each(ArgValue::Null);
            rest
        } else if let Some(rest) = rest.strip_prefix("Int(") {
            int(rest, each)?
        } else if let Some(rest) = rest.strip_prefix("Double(") {
            let (number, rest) = rest.split_once(')')?;
            each(ArgValue::Float(number.parse().ok()?));
            rest
        } else {
            bytes(rest.strip_prefix("Blob([")?, limit, each)?
        };
        rest = match rest.strip_prefix(", ") {
            Some(rest) if !rest.starts_with(']') => rest,
            Some(_) => return None,
            None if rest.starts_with(']') => rest,
            None => return None,
        };
    }
    (rest == "])").then_some(())
}

fn int<'t>(text: &'t str, each: &mut dyn FnMut(ArgValue<'_>)) -> Option<&'t str> {
    let (number, rest) = text.split_at_checked(memchr(b')', text.as_bytes())?)?;
    each(ArgValue::Int(number.parse().ok()?));
    Some(&rest[1..])
}

/// Reads `"it's \"é\"")`.
fn quoted<'t>(
    text: &'t str,
    limit: usize,
    unescaped: &mut String,
    each: &mut dyn FnMut(ArgValue<'_>),
) -> Option<&'t str> {
    let mut rest = text.strip_prefix('"')?;
    let end = memchr2(b'"', b'\\', rest.as_bytes())?;
    let value = if rest.as_bytes()[end] == b'"' {
        let value = &rest[..end];
        rest = &rest[end..];
        value
    } else {
        unescaped.clear();
        loop {
            let end = memchr2(b'"', b'\\', rest.as_bytes())?;
            unescaped.push_str(&rest[..end]);
            rest = &rest[end..];
            if rest.starts_with('"') {
                break;
            }
            let (c, after) = escape(&rest[1..])?;
            unescaped.push(c);
            rest = after;
        }
        unescaped
    };
    each(ArgValue::Text {
        text: Cow::Borrowed(&value[..value.floor_char_boundary(limit)]),
        len: Some(value.len()),
    });
    rest.strip_prefix("\")")
}

/// Reads what follows a backslash.
fn escape(text: &str) -> Option<(char, &str)> {
    if let Some(rest) = text.strip_prefix("u{") {
        let (digits, rest) = rest.split_once('}')?;
        let c = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
        return Some((c, rest));
    }
    let c = match text.as_bytes().first()? {
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'0' => '\0',
        b'\\' => '\\',
        b'"' => '"',
        b'\'' => '\'',
        _ => return None,
    };
    Some((c, &text[1..]))
}

/// Reads `1, 2, 255])`.
fn bytes<'t>(text: &'t str, limit: usize, each: &mut dyn FnMut(ArgValue<'_>)) -> Option<&'t str> {
    let (list, rest) = text.split_at_checked(memchr(b']', text.as_bytes())?)?;
    let mut bytes = Vec::new();
    let mut len = 0;
    for number in list.split(", ").filter(|_| !list.is_empty()) {
        let byte = number.parse().ok()?;
        if len < limit {
            bytes.push(byte);
        }
        len += 1;
    }
    each(ArgValue::Bytes {
        bytes: Cow::Owned(bytes),
        len: Some(len),
    });
    rest.strip_prefix("])")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<Vec<ArgValue<'static>>> {
        let mut values = Vec::new();
        parse(text, usize::MAX, &mut |value| {
            values.push(value.into_owned())
        })
        .map(|()| values)
    }

    #[test]
    fn what_is_not_expected_is_not_guessed_at() {
        for list in [
            "[Int64(1), Null]",
            r#"[Text("a\u{301}\n")]"#,
            "[Blob([])]",
            "[Blob([0, 255])]",
            "[Double(-0.0)]",
            "[]",
        ] {
            let text = format!("SqliteArgumentsBuffer({list})");
            assert!(parsed(&text).is_some(), "{text}");
        }
        for list in [
            "[Int64(1)Null]",
            "[Int64(1),Null]",
            "[Int64(1), ]",
            "[Int64()]",
            "[Int64(1.5)]",
            "[Uint(1)]",
            r#"[Text("a]"#,
            r#"[Text("a"b)]"#,
            r#"[Text("\q")]"#,
            r#"[Text("\u{110000}")]"#,
            "[Blob([256])]",
            "[Blob([1,2])]",
            "[Blob([1, 2]]",
            "[Nullable]",
            "[",
            "",
        ] {
            let text = format!("SqliteArgumentsBuffer({list})");
            assert_eq!(parsed(&text), None, "{text}");
        }
        assert_eq!(parsed("SqliteArguments([])"), None);
        assert_eq!(parsed("SqliteArgumentsBuffer([]) "), None);
    }
}
