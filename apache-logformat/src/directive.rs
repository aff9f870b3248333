//! One item of a format.

use crate::{escape::Escape, exchange::Exchange, strftime::Strftime, zone::Zone};

/// One item of a format, with the condition it is printed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) directive: Directive,
    pub(crate) condition: Condition,
    pub(crate) context: Context,
}

impl Item {
    pub(crate) fn new(directive: Directive) -> Self {
        Self {
            directive,
            condition: Condition::Always,
            context: Context::Text,
        }
    }

    /// Appends what this prints of `exchange`; returns false, and appends nothing,
    /// when there is nothing.
    #[inline]
    pub(crate) fn write(&self, exchange: &Exchange<'_>, style: &Style, out: &mut Vec<u8>) -> bool {
        if let Directive::Literal(literal) = &self.directive {
            literal.write(out);
            return true;
        }
        self.condition.holds(exchange.status) && self.directive.write(exchange, style, out)
    }

    pub(crate) fn literal(text: impl Into<Box<[u8]>>) -> Self {
        Self::new(Directive::Literal(Literal::new(text.into())))
    }
}

/// Text that is printed as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Literal {
    text: Box<[u8]>,
    /// The text itself, when it fits.
    short: Option<[u8; SHORT]>,
}

/// Most literals are shorter: what stands between two directives.
const SHORT: usize = 8;

impl Literal {
    fn new(text: Box<[u8]>) -> Self {
        let mut short = [0; SHORT];
        let fits = text.len() <= SHORT;
        if fits {
            short[..text.len()].copy_from_slice(&text);
        }
        Self {
            text,
            short: fits.then_some(short),
        }
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    #[inline]
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match &self.short {
            // A copy of fixed size is one instruction.
            Some(short) => {
                let end = out.len() + self.text.len();
                out.extend_from_slice(short);
                out.truncate(end);
            }
            None => out.extend_from_slice(&self.text),
        }
    }
}

/// For which status codes an item has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    Always,
    In(Box<[u32]>),
    NotIn(Box<[u32]>),
}

impl Condition {
    #[inline]
    pub(crate) fn holds(&self, status: u16) -> bool {
        match self {
            Self::Always => true,
            Self::In(codes) => codes.contains(&status.into()),
            Self::NotIn(codes) => !codes.contains(&status.into()),
        }
    }
}

/// Where in the line's own syntax an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Context {
    /// Anywhere in a text, or inside a string of a JSON object.
    Text,
    /// It is a whole value of a JSON object.
    JsonValue,
    /// It is part of a value of a JSON object, which starts with the last `Some`
    /// bytes of the text before the first part.
    JsonPart(Option<usize>),
    /// It is a text whose first bytes are the end of a value that has parts.
    JsonEnd(usize),
}

/// What an item prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Directive {
    Literal(Literal),
    ClientAddress,
    PeerAddress,
    LocalAddress,
    ClientHost,
    PeerHost,
    BodyBytes,
    BodyBytesOrDash,
    BytesReceived,
    BytesSent,
    BytesTotal,
    ConnectionId,
    ConnectionStatus,
    Cookie(Box<[u8]>),
    Duration(Unit),
    /// An argument that names nothing, printed as it is.
    Echo(Box<[u8]>),
    Env(Box<[u8]>),
    Filename,
    Handler,
    HostName,
    Ident,
    KeepAlives,
    Method,
    Note(Box<[u8]>),
    Path,
    Port(Port),
    ProcessId,
    Protocol,
    Query,
    RemoteUser,
    RequestHeader(Box<[u8]>),
    RequestId,
    RequestLine,
    RequestTrailer(Box<[u8]>),
    ResponseHeader(Box<[u8]>),
    ResponseTrailer(Box<[u8]>),
    ServerName,
    Status,
    ThreadId,
    ThreadIdHex,
    Time(When, TimeForm),
    TimeToFirstByte,
    Tls(Box<[u8]>),
    Nginx(Variable),
}

/// Units of a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
    Microseconds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Canonical,
    Local,
    Remote,
}

/// Which of an exchange's two instants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Begin,
    End,
}

/// How an instant is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TimeForm {
    /// `[18/Sep/2011:19:18:28 -0400]`
    Common,
    /// The same without brackets.
    CommonBare,
    /// `2011-09-18T19:18:28-04:00`
    Iso8601,
    Seconds,
    Millis,
    Micros,
    MillisFraction,
    MicrosFraction,
    /// `1316387908.123`
    SecondsWithMillis,
    Strftime(Strftime),
}

/// Variables of nginx that no directive of httpd prints in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Variable {
    Arg(Box<[u8]>),
    Args,
    BodyBytes,
    Cookie(Box<[u8]>),
    Host,
    IsArgs,
    RemoteUser,
    RequestHeader(Box<[u8]>),
    RequestLine,
    RequestTime,
    RequestUri,
    ResponseHeader(Box<[u8]>),
    Scheme,
    ServerName,
    Status,
}

/// What the items of a format share.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    pub(crate) escape: Escape,
    pub(crate) zone: Zone,
}
