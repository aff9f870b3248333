//! LogFormat text into items.

use std::{error::Error, fmt};

use crate::{
    directive::{Condition, Directive, Item, Port, TimeForm, Unit, When},
    escape::Escape,
    strftime::Strftime,
};

/// Parses the text of a `LogFormat`, as mod_log_config receives it: without the
/// quoting of httpd.conf.
pub(crate) fn parse(text: &[u8]) -> Result<Vec<Item>, ParseError> {
    if text.is_empty() {
        return Err(ParseError::new(Problem::Empty, text, 0));
    }
    let mut parser = Parser { text, position: 0 };
    let mut items = Vec::new();
    while let Some(byte) = parser.peek() {
        items.push(if byte == b'%' {
            parser.directive()?
        } else {
            parser.literal()
        });
    }
    Ok(items)
}

struct Parser<'a> {
    text: &'a [u8],
    position: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    fn literal(&mut self) -> Item {
        let mut literal = Vec::new();
        while let Some(byte) = self.peek().filter(|&byte| byte != b'%') {
            self.position += 1;
            let escaped = match self.peek() {
                Some(b'n') => Some(b'\n'),
                Some(b'r') => Some(b'\r'),
                Some(b't') => Some(b'\t'),
                Some(b'\\') => Some(b'\\'),
                // Every other backslash is literal, one before `%` too.
                _ => None,
            };
            match (byte, escaped) {
                (b'\\', Some(escaped)) => {
                    literal.push(escaped);
                    self.position += 1;
                }
                _ => literal.push(byte),
            }
        }
        Item::literal(literal)
    }

    fn directive(&mut self) -> Result<Item, ParseError> {
        let start = self.position;
        self.position += 1;
        if self.peek() == Some(b'%') {
            self.position += 1;
            return Ok(Item::literal(*b"%"));
        }

        let mut negated = false;
        let mut codes = Vec::new();
        let mut argument: &[u8] = b"";
        while let Some(byte) = self.peek() {
            match byte {
                b'!' => negated = !negated,
                // Without internal redirects the original request is the final one.
                b'<' | b'>' | b',' => {}
                b'{' => {
                    argument = self.argument();
                    continue;
                }
                b'0'..=b'9' => {
                    codes.push(self.code());
                    continue;
                }
                _ => {
                    let directive = self.name(argument)?;
                    let condition = match (codes.is_empty(), negated) {
                        (true, _) => Condition::Always,
                        (false, false) => Condition::In(codes.into()),
                        (false, true) => Condition::NotIn(codes.into()),
                    };
                    return Ok(Item {
                        condition,
                        ..Item::new(directive)
                    });
                }
            }
            self.position += 1;
        }
        Err(ParseError::new(Problem::RanOff, self.text, start))
    }

    /// Takes `{argument}`, and with it every further `}`.
    fn argument(&mut self) -> &'a [u8] {
        let text = &self.text[self.position + 1..];
        let Some(end) = text.iter().position(|&byte| byte == b'}') else {
            self.position = self.text.len();
            return text;
        };
        let braces = text[end..].iter().take_while(|&&byte| byte == b'}').count();
        self.position += 1 + end + braces;
        &text[..end]
    }

    fn code(&mut self) -> u32 {
        let mut code = 0_u32;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            code = code
                .saturating_mul(10)
                .saturating_add(u32::from(digit - b'0'));
            self.position += 1;
        }
        code
    }

    /// Takes the name that ends a directive.
    fn name(&mut self, argument: &[u8]) -> Result<Directive, ParseError> {
        let rest = &self.text[self.position..];
        for (name, directive) in [
            (b"^FB", Directive::TimeToFirstByte),
            (b"^ti", Directive::RequestTrailer(argument.into())),
            (b"^to", Directive::ResponseTrailer(argument.into())),
        ] {
            if rest.starts_with(name) {
                self.position += name.len();
                return Ok(directive);
            }
        }
        let directive = directive(rest[0], argument).ok_or_else(|| {
            ParseError::new(Problem::Unrecognized(rest[0]), self.text, self.position)
        })?;
        self.position += 1;
        Ok(directive)
    }
}

/// Returns the directive `name`; those that take no argument ignore it.
fn directive(name: u8, argument: &[u8]) -> Option<Directive> {
    // As the names of header fields are kept.
    let lower = || argument.to_ascii_lowercase().into();
    Some(match name {
        b'a' if argument == b"c" => Directive::PeerAddress,
        b'a' => Directive::ClientAddress,
        b'A' => Directive::LocalAddress,
        b'b' => Directive::BodyBytesOrDash,
        b'B' => Directive::BodyBytes,
        b'c' => Directive::Tls(match argument {
            b"version" => b"SSL_PROTOCOL"[..].into(),
            b"cipher" => b"SSL_CIPHER"[..].into(),
            b"subjectdn" | b"clientcert" => b"SSL_CLIENT_S_DN"[..].into(),
            b"issuerdn" | b"cacert" => b"SSL_CLIENT_I_DN"[..].into(),
            _ => b""[..].into(),
        }),
        b'C' => Directive::Cookie(argument.into()),
        b'D' => Directive::Duration(Unit::Microseconds),
        b'e' => Directive::Env(argument.into()),
        b'f' => Directive::Filename,
        b'h' if argument == b"c" => Directive::PeerHost,
        b'h' => Directive::ClientHost,
        b'H' => Directive::Protocol,
        b'i' => Directive::RequestHeader(lower()),
        b'I' => Directive::BytesReceived,
        b'k' => Directive::KeepAlives,
        b'l' => Directive::Ident,
        b'L' if argument == b"c" => Directive::ConnectionId,
        b'L' => Directive::RequestId,
        b'm' => Directive::Method,
        b'n' => Directive::Note(argument.into()),
        b'o' => Directive::ResponseHeader(lower()),
        b'O' => Directive::BytesSent,
        b'p' => match &*argument.to_ascii_lowercase() {
            b"" | b"canonical" => Directive::Port(Port::Canonical),
            b"local" => Directive::Port(Port::Local),
            b"remote" => Directive::Port(Port::Remote),
            _ => Directive::Echo(argument.into()),
        },
        b'P' => match &*argument.to_ascii_lowercase() {
            b"" | b"pid" => Directive::ProcessId,
            // A capital `H` makes httpd take it for `tid`.
            b"hextid" if argument[0] == b'H' => Directive::ThreadId,
            b"hextid" => Directive::ThreadIdHex,
            b"tid" => Directive::ThreadId,
            _ => Directive::Echo(argument.into()),
        },
        b'q' => Directive::Query,
        b'r' => Directive::RequestLine,
        b'R' => Directive::Handler,
        b's' => Directive::Status,
        b'S' => Directive::BytesTotal,
        b't' => {
            let (when, form) = time(argument);
            Directive::Time(when, form)
        }
        b'T' => match &*argument.to_ascii_lowercase() {
            b"" | b"s" => Directive::Duration(Unit::Seconds),
            b"ms" => Directive::Duration(Unit::Milliseconds),
            b"us" => Directive::Duration(Unit::Microseconds),
            _ => Directive::Echo(argument.into()),
        },
        b'u' => Directive::RemoteUser,
        b'U' => Directive::Path,
        b'v' => Directive::ServerName,
        b'V' => Directive::HostName,
        b'x' => Directive::Tls(argument.into()),
        b'X' => Directive::ConnectionStatus,
        _ => return None,
    })
}

/// Reads the argument of `%{...}t`.
fn time(argument: &[u8]) -> (When, TimeForm) {
    // Without its colon a prefix is skipped when looking for a token, but it is
    // part of a text for strftime, and chooses no instant.
    let prefixed = |prefix: &[u8], when| {
        let rest = argument.strip_prefix(prefix)?;
        Some(match rest {
            b"" => (when, rest, rest),
            [b':', rest @ ..] => (when, rest, rest),
            _ => (When::Begin, rest, argument),
        })
    };
    let (when, token, text) = prefixed(b"begin", When::Begin)
        .or_else(|| prefixed(b"end", When::End))
        .unwrap_or((When::Begin, argument, argument));
    let form = match token {
        b"" => TimeForm::Common,
        b"sec" => TimeForm::Seconds,
        b"msec" => TimeForm::Millis,
        b"usec" => TimeForm::Micros,
        b"msec_frac" => TimeForm::MillisFraction,
        b"usec_frac" => TimeForm::MicrosFraction,
        _ => TimeForm::Strftime(Strftime::new(text)),
    };
    (when, form)
}

/// A format that could not be parsed.
///
/// [`message`](Self::message) says what is wrong in the words of httpd (or of
/// nginx); the `Display` form adds where, and points at the place.
///
/// # Examples
///
/// ```
/// use apache_logformat::LogFormat;
///
/// let error = "%h %Z".parse::<LogFormat>().unwrap_err();
/// assert_eq!(error.message(), "Unrecognized LogFormat directive %Z");
/// assert_eq!(error.offset(), 4);
/// assert_eq!(
///     error.to_string(),
///     "Unrecognized LogFormat directive %Z at byte 4\n  %h %Z\n      ^",
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    problem: Problem,
    text: Box<[u8]>,
    offset: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    Empty,
    Unrecognized(u8),
    RanOff,
    UnknownVariable(Box<[u8]>),
    UnclosedVariable(Box<[u8]>),
    NoVariable,
}

impl ParseError {
    pub(crate) fn new(problem: Problem, text: &[u8], offset: usize) -> Self {
        Self {
            problem,
            text: text.into(),
            offset,
        }
    }

    /// Returns what is wrong, in the words of httpd or nginx.
    ///
    /// A byte that is not plain text is shown as httpd shows it on its standard
    /// error, as `\xhh` for example.
    #[must_use]
    pub fn message(&self) -> String {
        let shown = |text: &[u8]| {
            let mut shown = Vec::new();
            Escape::Apache.write(text, &mut shown);
            String::from_utf8_lossy(&shown).into_owned()
        };
        match &self.problem {
            Problem::Empty => "the log format is empty".into(),
            // httpd leaves a `"` alone here.
            Problem::Unrecognized(b'"') => "Unrecognized LogFormat directive %\"".into(),
            Problem::Unrecognized(byte) => {
                format!("Unrecognized LogFormat directive %{}", shown(&[*byte]))
            }
            Problem::RanOff => "Ran off end of LogFormat parsing args to some directive".into(),
            Problem::UnknownVariable(name) => format!("unknown \"{}\" variable", shown(name)),
            Problem::UnclosedVariable(name) => format!(
                "the closing bracket in \"{}\" variable is missing",
                shown(name)
            ),
            Problem::NoVariable => format!("invalid parameter \"{}\"", shown(&self.text)),
        }
    }

    /// Returns the place in the format's text, counted in bytes.
    ///
    /// Of a directive that is unknown it is the letter, of one that is not
    /// finished its `%`, of a variable its `$`.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.message(), self.offset)?;
        if self.text.is_empty() {
            return Ok(());
        }
        // One column a character, so that the caret stands below its place.
        let columns = |text: &[u8]| -> String {
            String::from_utf8_lossy(text)
                .chars()
                .map(|character| {
                    if character.is_control() {
                        ' '
                    } else {
                        character
                    }
                })
                .collect()
        };
        let before = columns(&self.text[..self.offset]).chars().count();
        write!(f, "\n  {}\n  {:before$}^", columns(&self.text), "")
    }
}

impl Error for ParseError {}
