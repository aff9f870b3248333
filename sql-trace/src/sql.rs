//! SQL text taken apart into tokens, by the rules of three databases.

use memchr::memchr;

/// Whose quoting a statement follows, with that database's default settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// SQLite: identifiers in `"…"`, `` `…` `` or `[…]`. A string in double
    /// quotes, which SQLite takes for one where no such column is, is not
    /// told from an identifier.
    Sqlite,
    /// PostgreSQL: identifiers in `"…"`; `E'…'` and `$tag$…$tag$` are strings.
    Postgres,
    /// MySQL and MariaDB: identifiers in `` `…` ``; `"…"` is a string, and a
    /// backslash escapes.
    MySql,
}

impl Dialect {
    /// The dialect of the database that sqlx calls `name`.
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "PostgreSQL" => Self::Postgres,
            "MySQL" => Self::MySql,
            _ => Self::Sqlite,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// White space.
    Blank,
    Comment,
    /// A keyword or a plain identifier.
    Word,
    /// A quoted identifier.
    Quoted,
    /// A text or byte string, with its prefix.
    String,
    Number,
    /// `?`, `?1`, `$1`, `:name`, `@name`.
    Parameter,
    /// A single character, or an opening or closing of a comment whose inside
    /// is executed.
    Symbol,
}

/// A token and its place in the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'t> {
    pub(crate) kind: Kind,
    pub(crate) text: &'t str,
}

/// Reads a statement token by token. Together the tokens are the whole text.
pub(crate) struct Tokens<'t> {
    rest: &'t str,
    dialect: Dialect,
}

impl<'t> Tokens<'t> {
    pub(crate) fn of(statement: &'t str, dialect: Dialect) -> Self {
        Self {
            rest: statement,
            dialect,
        }
    }

    fn measure(&self) -> (Kind, usize) {
        let bytes = self.rest.as_bytes();
        let next = bytes.get(1).copied();
        match bytes[0] {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => (Kind::Blank, blanks(bytes)),
            b'-' if next == Some(b'-') && self.comments_after_dashes() => {
                (Kind::Comment, line(bytes))
            }
            b'#' if self.dialect == Dialect::MySql => (Kind::Comment, line(bytes)),
            b'/' if next == Some(b'*') => self.block_comment(),
            b'*' if next == Some(b'/') && self.dialect == Dialect::MySql => (Kind::Symbol, 2),
            b'\'' => (Kind::String, self.string(0, self.backslashes())),
            b'"' if self.dialect == Dialect::MySql => (Kind::String, self.string(0, true)),
            b'"' => (Kind::Quoted, quoted(bytes, 0, false)),
            b'`' if self.dialect != Dialect::Postgres => (Kind::Quoted, quoted(bytes, 0, false)),
            b'[' if self.dialect == Dialect::Sqlite => match memchr(b']', bytes) {
                Some(end) => (Kind::Quoted, end + 1),
                None => (Kind::Symbol, 1),
            },
            b'$' if self.dialect == Dialect::Postgres => self.dollar(),
            b'?' => (Kind::Parameter, 1 + digits(&bytes[1..])),
            b':' if next == Some(b':') => (Kind::Symbol, 2),
            b':' | b'@' | b'$' if next.is_some_and(is_word) => {
                (Kind::Parameter, 1 + word(&bytes[1..]))
            }
            b'0'..=b'9' => (Kind::Number, number(bytes)),
            b'.' if next.is_some_and(|b| b.is_ascii_digit()) => (Kind::Number, number(bytes)),
            first if is_word(first) => self.word_or_string(),
            _ => (Kind::Symbol, 1),
        }
    }

    /// MySQL takes `--` for a comment only before white space.
    fn comments_after_dashes(&self) -> bool {
        self.dialect != Dialect::MySql
            || self
                .rest
                .as_bytes()
                .get(2)
                .is_none_or(|b| b.is_ascii_whitespace() || b.is_ascii_control())
    }

    fn block_comment(&self) -> (Kind, usize) {
        let bytes = self.rest.as_bytes();
        if self.dialect == Dialect::MySql {
            // `/*!40101 … */` and MariaDB's `/*M!…*/` are run.
            let opening = match bytes {
                [_, _, b'!', ..] => Some(3),
                [_, _, b'M' | b'm', b'!', ..] => Some(4),
                _ => None,
            };
            if let Some(opening) = opening {
                return (Kind::Symbol, opening + digits(&bytes[opening..]));
            }
        }
        let nests = self.dialect == Dialect::Postgres;
        let mut depth = 1;
        let mut at = 2;
        while at < bytes.len() {
            match &bytes[at..] {
                [b'*', b'/', ..] => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        break;
                    }
                }
                [b'/', b'*', ..] if nests => {
                    depth += 1;
                    at += 2;
                }
                _ => at += 1,
            }
        }
        (Kind::Comment, at)
    }

    /// Whether a backslash escapes in an ordinary string.
    fn backslashes(&self) -> bool {
        self.dialect == Dialect::MySql
    }

    /// The length of the string whose opening quote is at `start`.
    fn string(&self, start: usize, backslashes: bool) -> usize {
        quoted(self.rest.as_bytes(), start, backslashes)
    }

    /// A word, or a string with a prefix such as `x'…'`.
    fn word_or_string(&self) -> (Kind, usize) {
        let bytes = self.rest.as_bytes();
        let end = word(bytes);
        if bytes.get(end) == Some(&b'\'') {
            let prefix = &bytes[..end];
            let (is_prefix, backslashes) = match (self.dialect, prefix) {
                (Dialect::Postgres, b"e" | b"E") => (true, true),
                (Dialect::Postgres, b"b" | b"B" | b"x" | b"X" | b"n" | b"N") => (true, false),
                (Dialect::Sqlite, b"x" | b"X") => (true, false),
                (Dialect::MySql, b"b" | b"B" | b"x" | b"X" | b"n" | b"N") => (true, true),
                _ => (false, false),
            };
            if is_prefix {
                return (Kind::String, self.string(end, backslashes));
            }
        }
        if self.dialect == Dialect::Postgres
            && matches!(&bytes[..end], b"u" | b"U")
            && bytes.get(end) == Some(&b'&')
        {
            match bytes.get(end + 1) {
                Some(b'\'') => return (Kind::String, self.string(end + 1, false)),
                Some(b'"') => return (Kind::Quoted, quoted(bytes, end + 1, false)),
                _ => {}
            }
        }
        (Kind::Word, end)
    }

    /// `$1`, or a string in dollar quotes.
    fn dollar(&self) -> (Kind, usize) {
        let bytes = self.rest.as_bytes();
        let number = digits(&bytes[1..]);
        if number > 0 {
            return (Kind::Parameter, 1 + number);
        }
        let tag = 1 + count(&bytes[1..], |b| {
            (is_word(b) || b.is_ascii_digit()) && b != b'$'
        });
        if bytes.get(tag) != Some(&b'$') {
            return (Kind::Symbol, 1);
        }
        let quote = &self.rest[..=tag];
        match self.rest[tag + 1..].find(quote) {
            Some(end) => (Kind::String, tag + 1 + end + quote.len()),
            None => (Kind::String, bytes.len()),
        }
    }
}

impl<'t> Iterator for Tokens<'t> {
    type Item = Token<'t>;

    fn next(&mut self) -> Option<Token<'t>> {
        if self.rest.is_empty() {
            return None;
        }
        let (kind, len) = self.measure();
        // A symbol may be the beginning of a longer character.
        let len = self.rest.ceil_char_boundary(len);
        let (text, rest) = self.rest.split_at(len);
        self.rest = rest;
        Some(Token { kind, text })
    }
}

fn blanks(bytes: &[u8]) -> usize {
    count(bytes, |b| b.is_ascii_whitespace() || b == 0x0b)
}

/// To the end of the line, which is not part of the comment.
fn line(bytes: &[u8]) -> usize {
    memchr(b'\n', bytes).unwrap_or(bytes.len())
}

fn digits(bytes: &[u8]) -> usize {
    count(bytes, |b| b.is_ascii_digit())
}

fn word(bytes: &[u8]) -> usize {
    count(bytes, |b| is_word(b) || b.is_ascii_digit())
}

fn count(bytes: &[u8], matches: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|&&b| matches(b)).count()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// `12`, `1.5`, `.5`, `1e-3`, `0x1F`, `1_000`.
fn number(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let exponent = at > 0 && matches!(bytes[at - 1], b'e' | b'E') && !is_hex(bytes);
        let more = byte.is_ascii_alphanumeric()
            || matches!(byte, b'.' | b'_')
            || (exponent && matches!(byte, b'+' | b'-'));
        if !more {
            break;
        }
        at += 1;
    }
    at
}

fn is_hex(bytes: &[u8]) -> bool {
    matches!(bytes, [b'0', b'x' | b'X', ..])
}

/// The length up to and with the closing quote of the one at `start`. A doubled
/// quote stands for itself.
fn quoted(bytes: &[u8], start: usize, backslashes: bool) -> usize {
    let quote = bytes[start];
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if backslashes => at += 2,
            byte if byte == quote => {
                if bytes.get(at + 1) != Some(&quote) {
                    return at + 1;
                }
                at += 2;
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(statement: &str, dialect: Dialect) -> Vec<(Kind, &str)> {
        Tokens::of(statement, dialect)
            .filter(|token| token.kind != Kind::Blank)
            .map(|token| (token.kind, token.text))
            .collect()
    }

    #[test]
    fn words_numbers_and_symbols_are_told_apart() {
        assert_eq!(
            kinds("SELECT t1.a, -1.5e-3*.5 FROM t1;", Dialect::Postgres),
            [
                (Kind::Word, "SELECT"),
                (Kind::Word, "t1"),
                (Kind::Symbol, "."),
                (Kind::Word, "a"),
                (Kind::Symbol, ","),
                (Kind::Symbol, "-"),
                (Kind::Number, "1.5e-3"),
                (Kind::Symbol, "*"),
                (Kind::Number, ".5"),
                (Kind::Word, "FROM"),
                (Kind::Word, "t1"),
                (Kind::Symbol, ";"),
            ]
        );
        assert_eq!(
            kinds("0x1E-3 é=1", Dialect::MySql),
            [
                (Kind::Number, "0x1E"),
                (Kind::Symbol, "-"),
                (Kind::Number, "3"),
                (Kind::Word, "é"),
                (Kind::Symbol, "="),
                (Kind::Number, "1"),
            ]
        );
    }

    #[test]
    fn strings_end_where_the_dialect_says() {
        for (statement, dialect, string) in [
            ("'it''s' x", Dialect::Sqlite, "'it''s'"),
            (r"'a\' x", Dialect::Sqlite, r"'a\'"),
            (r"'a\' x", Dialect::Postgres, r"'a\'"),
            (r"'a\' x' y", Dialect::MySql, r"'a\' x'"),
            (r"E'a\' x' y", Dialect::Postgres, r"E'a\' x'"),
            ("x'41' y", Dialect::Sqlite, "x'41'"),
            ("U&'d\\0061' y", Dialect::Postgres, "U&'d\\0061'"),
            (r#""a""b" x"#, Dialect::MySql, r#""a""b""#),
            ("$$a'b$$ x", Dialect::Postgres, "$$a'b$$"),
            ("$t$a$$b$t$ x", Dialect::Postgres, "$t$a$$b$t$"),
            ("$t1$a$b$t1$ x", Dialect::Postgres, "$t1$a$b$t1$"),
            ("$é$a$é$ x", Dialect::Postgres, "$é$a$é$"),
            ("$$ never ends", Dialect::Postgres, "$$ never ends"),
            ("'never ends", Dialect::Sqlite, "'never ends"),
            (r"'ends in \", Dialect::MySql, r"'ends in \"),
        ] {
            let token = Tokens::of(statement, dialect).next().unwrap();
            assert_eq!((token.kind, token.text), (Kind::String, string));
        }
    }

    #[test]
    fn identifiers_are_quoted_as_the_dialect_says() {
        for (statement, dialect, quoted) in [
            (r#""a""b" x"#, Dialect::Sqlite, r#""a""b""#),
            (r#""a b" x"#, Dialect::Postgres, r#""a b""#),
            (r#"U&"a b" x"#, Dialect::Postgres, r#"U&"a b""#),
            ("`a``b` x", Dialect::MySql, "`a``b`"),
            ("`a b` x", Dialect::Sqlite, "`a b`"),
            ("[a b] x", Dialect::Sqlite, "[a b]"),
        ] {
            let token = Tokens::of(statement, dialect).next().unwrap();
            assert_eq!((token.kind, token.text), (Kind::Quoted, quoted));
        }
        // An index into an array.
        let token = Tokens::of("[1]", Dialect::Postgres).next().unwrap();
        assert_eq!((token.kind, token.text), (Kind::Symbol, "["));
    }

    #[test]
    fn comments_end_where_the_dialect_says() {
        for (statement, dialect, comment) in [
            ("-- a 'b\nc", Dialect::Sqlite, "-- a 'b"),
            ("--a\nc", Dialect::Postgres, "--a"),
            ("-- a\nc", Dialect::MySql, "-- a"),
            ("--", Dialect::MySql, "--"),
            ("# a\nc", Dialect::MySql, "# a"),
            ("/* a /* b */ c */ d", Dialect::Sqlite, "/* a /* b */"),
            (
                "/* a /* b */ c */ d",
                Dialect::Postgres,
                "/* a /* b */ c */",
            ),
            ("/* never", Dialect::Postgres, "/* never"),
        ] {
            let token = Tokens::of(statement, dialect).next().unwrap();
            assert_eq!((token.kind, token.text), (Kind::Comment, comment));
        }
        assert_eq!(kinds("--5", Dialect::MySql).len(), 3, "minus minus five");
        assert_eq!(
            kinds("/*!40101 SET a='b' */", Dialect::MySql)[0],
            (Kind::Symbol, "/*!40101")
        );
    }

    #[test]
    fn parameters_keep_their_names() {
        for (statement, dialect, parameter) in [
            ("?12 ", Dialect::Sqlite, "?12"),
            ("$name ", Dialect::Sqlite, "$name"),
            (":name ", Dialect::Sqlite, ":name"),
            ("$12 ", Dialect::Postgres, "$12"),
            ("@name ", Dialect::MySql, "@name"),
        ] {
            let token = Tokens::of(statement, dialect).next().unwrap();
            assert_eq!((token.kind, token.text), (Kind::Parameter, parameter));
        }
        assert_eq!(kinds("a::int", Dialect::Postgres)[1], (Kind::Symbol, "::"));
    }
}
