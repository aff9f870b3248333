//! `SqliteArguments` has no reader: its derived `Debug` is the only way in.
//! The text of it is parsed while it is being written, so that nothing is
//! kept of a value but the part that will be shown.

use std::borrow::Cow;
use std::fmt::{self, Write};

use sqlx::Arguments;
use sqlx::sqlite::SqliteArguments;

use super::{ArgSource, ArgValue, Undecodable};

impl ArgSource for SqliteArguments {
    fn count(&self) -> usize {
        self.len()
    }

    fn decode(&self, limit: usize, each: &mut dyn FnMut(ArgValue<'_>)) -> Result<(), Undecodable> {
        let mut parser = Parser::new(limit, each);
        write!(parser, "{self:?}").map_err(|_| Undecodable)?;
        parser.end()
    }
}

/// Reads the `Debug` of `SqliteArguments`, in pieces of any size.
struct Parser<'s> {
    state: State,
    /// The name of the variant, or a number's digits.
    word: Word,
    /// The text or byte string so far, up to `limit` bytes.
    value: Vec<u8>,
    /// How many bytes it has in all so far.
    len: usize,
    limit: usize,
    each: &'s mut dyn FnMut(ArgValue<'_>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of `OPENING` were read.
    Opening(usize),
    /// At the first item, or at the closing bracket of an empty list.
    First,
    /// In the name of a variant.
    Name,
    /// In the number of an `Int`, `Int64` or `Double`.
    Number(Number),
    /// Before the opening quote of a text, in it, and after it.
    Quote,
    Text,
    Escape(Escape),
    Unquote,
    /// Before the opening bracket of a byte string, in it, and after it.
    Bracket,
    Byte,
    Unbracket,
    /// After an item: at the comma, or at the closing bracket.
    Next,
    /// At the blank after a comma.
    Blank,
    /// So many bytes of `CLOSING` were read.
    Closing(usize),
    Bad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Int,
    Double,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    /// After the backslash.
    Start,
    /// After `\u`.
    Brace,
    /// In the braces, with the code point so far.
    Digits(u32),
}

/// A short run of ASCII; one that is longer than any expected is not kept.
struct Word {
    bytes: [u8; 352],
    len: usize,
}

const OPENING: &[u8] = b"SqliteArguments { values: SqliteArgumentsBuffer([";
const CLOSING: &[u8] = b") }";

impl<'s> Parser<'s> {
    fn new(limit: usize, each: &'s mut dyn FnMut(ArgValue<'_>)) -> Self {
        Self {
            state: State::Opening(0),
            word: Word {
                bytes: [0; 352],
                len: 0,
            },
            value: Vec::new(),
            len: 0,
            limit,
            each,
        }
    }

    fn end(self) -> Result<(), Undecodable> {
        match self.state {
            State::Closing(read) if read == CLOSING.len() => Ok(()),
            _ => Err(Undecodable),
        }
    }

    /// Takes one byte in any state but `State::Text`.
    fn byte(&mut self, byte: u8) -> State {
        match (self.state, byte) {
            (State::Opening(at), _) if OPENING[at] == byte => {
                if at + 1 == OPENING.len() {
                    State::First
                } else {
                    State::Opening(at + 1)
                }
            }
            (State::First | State::Next, b']') => State::Closing(0),
            (State::First, b'A'..=b'Z') => {
                self.word.len = 0;
                self.word.push(byte)
            }
            (State::Name, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9') => self.word.push(byte),
            (State::Name, b'(') => {
                let state = match self.word.text() {
                    "Int64" | "Int" => State::Number(Number::Int),
                    "Double" => State::Number(Number::Double),
                    "Text" | "TextSlice" => State::Quote,
                    "Blob" => State::Bracket,
                    _ => State::Bad,
                };
                self.word.len = 0;
                self.value.clear();
                self.len = 0;
                state
            }
            (State::Name, b',' | b']') if self.word.text() == "Null" => {
                (self.each)(ArgValue::Null);
                self.state = State::Next;
                self.byte(byte)
            }
            (State::Number(number), b')') => {
                let text = self.word.text();
                let value = match number {
                    Number::Int => text.parse().ok().map(ArgValue::Int),
                    Number::Double => text.parse().ok().map(ArgValue::Float),
                };
                match value {
                    Some(value) => {
                        (self.each)(value);
                        State::Next
                    }
                    None => State::Bad,
                }
            }
            (State::Number(number), _) => match self.word.push(byte) {
                State::Bad => State::Bad,
                _ => State::Number(number),
            },
            (State::Quote, b'"') => State::Text,
            (State::Unquote, b')') => match str::from_utf8(&self.value) {
                Ok(text) => {
                    (self.each)(ArgValue::Text {
                        text: Cow::Borrowed(text),
                        len: Some(self.len),
                    });
                    State::Next
                }
                Err(_) => State::Bad,
            },
            (State::Escape(escape), _) => self.escaped(escape, byte),
            (State::Bracket, b'[') => State::Byte,
            (State::Byte, b'0'..=b'9') => match self.word.push(byte) {
                State::Bad => State::Bad,
                _ => State::Byte,
            },
            (State::Byte, b',') => self.end_of_byte(State::Byte),
            (State::Byte, b' ') if self.word.len == 0 => State::Byte,
            (State::Byte, b']') if self.word.len == 0 && self.len == 0 => State::Unbracket,
            (State::Byte, b']') => self.end_of_byte(State::Unbracket),
            (State::Unbracket, b')') => {
                (self.each)(ArgValue::Bytes {
                    bytes: Cow::Borrowed(&self.value),
                    len: Some(self.len),
                });
                State::Next
            }
            (State::Next, b',') => State::Blank,
            (State::Blank, b' ') => State::First,
            (State::Closing(at), _) if CLOSING.get(at) == Some(&byte) => State::Closing(at + 1),
            _ => State::Bad,
        }
    }

    /// Takes the part of `text` that is plain text of a value.
    fn plain<'t>(&mut self, text: &'t [u8]) -> &'t [u8] {
        let end = text
            .iter()
            .position(|b| matches!(b, b'"' | b'\\'))
            .unwrap_or(text.len());
        self.push_text(&text[..end]);
        match text.get(end) {
            None => &[],
            Some(b'"') => {
                self.state = State::Unquote;
                &text[end + 1..]
            }
            Some(_) => {
                self.state = State::Escape(Escape::Start);
                &text[end + 1..]
            }
        }
    }

    fn escaped(&mut self, escape: Escape, byte: u8) -> State {
        let c = match (escape, byte) {
            (Escape::Start, b'n') => '\n',
            (Escape::Start, b'r') => '\r',
            (Escape::Start, b't') => '\t',
            (Escape::Start, b'0') => '\0',
            (Escape::Start, b'\\' | b'"' | b'\'') => byte.into(),
            (Escape::Start, b'u') => return State::Escape(Escape::Brace),
            (Escape::Brace, b'{') => return State::Escape(Escape::Digits(0)),
            (Escape::Digits(code), b'}') => match char::from_u32(code) {
                Some(c) => c,
                None => return State::Bad,
            },
            (Escape::Digits(code), _) => match char::from(byte).to_digit(16) {
                Some(digit) if code <= 0x10_ffff => {
                    return State::Escape(Escape::Digits(code << 4 | digit));
                }
                _ => return State::Bad,
            },
            _ => return State::Bad,
        };
        self.push_text(c.encode_utf8(&mut [0; 4]).as_bytes());
        State::Text
    }

    fn push_text(&mut self, text: &[u8]) {
        let room = self.limit.saturating_sub(self.value.len());
        // Once a piece did not fit, later ones must not close the gap.
        if self.value.len() == self.len {
            let fits = match str::from_utf8(text) {
                Ok(text) => text.floor_char_boundary(room),
                Err(_) => 0,
            };
            self.value.extend_from_slice(&text[..fits]);
        }
        self.len += text.len();
    }

    fn end_of_byte(&mut self, then: State) -> State {
        let Ok(byte) = self.word.text().parse() else {
            return State::Bad;
        };
        if self.value.len() < self.limit {
            self.value.push(byte);
        }
        self.word.len = 0;
        self.len += 1;
        then
    }
}

impl Write for Parser<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while let [first, tail @ ..] = rest {
            if self.state == State::Text {
                rest = self.plain(rest);
            } else {
                self.state = self.byte(*first);
                rest = tail;
            }
            if self.state == State::Bad {
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

impl Word {
    fn push(&mut self, byte: u8) -> State {
        match self.bytes.get_mut(self.len) {
            Some(slot) => {
                *slot = byte;
                self.len += 1;
                State::Name
            }
            None => State::Bad,
        }
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}
