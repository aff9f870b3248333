//! A parsed format.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{
    directive::{Context, Directive, Item, Style},
    escape::Escape,
    exchange::Exchange,
    json, nginx,
    parse::{self, ParseError},
    zone::Zone,
};

/// A parsed log format: prints one [`Exchange`] as one line.
///
/// It is made from the text of httpd's `LogFormat` directive by
/// [`parse`](str::parse) (or `try_from` for text that is not UTF-8), from the
/// text of nginx's `log_format` by [`nginx`](Self::nginx), or is one of the
/// usual formats. `Display` gives the text back.
///
/// The text is what mod_log_config receives, without the quoting of httpd.conf:
/// `\n`, `\t`, `\r` and `\\` are escapes, a quotation mark needs none. Instants
/// are printed in the system's time zone unless [`with_zone`](Self::with_zone)
/// says otherwise, values are escaped as httpd does unless
/// [`with_escape`](Self::with_escape) does.
///
/// Clones share the parsed value.
///
/// # Examples
///
/// ```
/// use apache_logformat::LogFormat;
///
/// let format: LogFormat = r#"%h "%r" %>s %{ms}T"#.parse()?;
/// assert_eq!(format.to_string(), r#"%h "%r" %>s %{ms}T"#);
/// # Ok::<(), apache_logformat::ParseError>(())
/// ```
#[derive(Clone)]
pub struct LogFormat(Arc<Parsed>);

#[derive(Debug, Clone)]
struct Parsed {
    text: Box<[u8]>,
    notation: Notation,
    items: Box<[Item]>,
    /// Items stand outside the strings of a JSON object.
    has_json_values: bool,
    style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notation {
    Apache,
    Nginx,
}

/// The text of [`LogFormat::common`].
pub(crate) const COMMON: &str = r#"%h %l %u %t "%r" %>s %b"#;

impl LogFormat {
    /// Returns the Common Log Format: `%h %l %u %t "%r" %>s %b`.
    #[must_use]
    pub fn common() -> Self {
        Self::predefined(COMMON)
    }

    /// Returns the combined format, which most readers of logs expect:
    /// `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"`.
    #[must_use]
    pub fn combined() -> Self {
        Self::predefined(r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i""#)
    }

    /// Returns the combined format with the bytes on the wire:
    /// `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" %I %O`.
    ///
    /// Both are `-` unless the service supplies [`WireBytes`](crate::WireBytes).
    #[must_use]
    pub fn combinedio() -> Self {
        Self::predefined(r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" %I %O"#)
    }

    /// Returns the Common Log Format behind the server's name:
    /// `%v %h %l %u %t "%r" %>s %b`.
    #[must_use]
    pub fn vhost_common() -> Self {
        Self::predefined(r#"%v %h %l %u %t "%r" %>s %b"#)
    }

    /// Returns the combined format behind the server's name and port:
    /// `%v:%p %h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"`.
    #[must_use]
    pub fn vhost_combined() -> Self {
        Self::predefined(r#"%v:%p %h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i""#)
    }

    /// Returns the format of httpd's referer log: `%{Referer}i -> %U`.
    #[must_use]
    pub fn referer() -> Self {
        Self::predefined("%{Referer}i -> %U")
    }

    /// Returns the format of httpd's agent log: `%{User-agent}i`.
    #[must_use]
    pub fn agent() -> Self {
        Self::predefined("%{User-agent}i")
    }

    /// Parses the text of nginx's `log_format`, with its `escape` parameter.
    ///
    /// [`Escape::Nginx`] is `escape=default`, [`Escape::Json`] is `escape=json`;
    /// `escape=none` is not offered. With [`Escape::Json`] an absent value is
    /// empty, as in nginx, instead of `-`.
    ///
    /// Known are `$arg_NAME`, `$args`, `$body_bytes_sent`, `$bytes_sent`,
    /// `$cookie_NAME`, `$host`, `$http_NAME`, `$is_args`, `$msec`, `$pid`,
    /// `$query_string`, `$remote_addr`, `$remote_port`, `$remote_user`,
    /// `$request`, `$request_id`, `$request_length`, `$request_method`,
    /// `$request_time`, `$request_uri`, `$scheme`, `$sent_http_NAME`,
    /// `$server_addr`, `$server_name`, `$server_port`, `$server_protocol`,
    /// `$ssl_cipher`, `$ssl_protocol`, `$ssl_server_name`, `$status`,
    /// `$time_iso8601`, `$time_local` and `$uri`. As in nginx the times are
    /// those of the response's end.
    ///
    /// # Errors
    ///
    /// When a variable is unknown or not well-formed.
    ///
    /// # Examples
    ///
    /// ```
    /// use apache_logformat::{Escape, LogFormat};
    ///
    /// let format = LogFormat::nginx(
    ///     r#"{"time":"$time_iso8601","uri":"$uri","status":$status}"#,
    ///     Escape::Json,
    /// )?;
    /// let error = LogFormat::nginx("$upstream_addr", Escape::Nginx).unwrap_err();
    /// assert_eq!(error.message(), "unknown \"upstream_addr\" variable");
    /// # Ok::<(), apache_logformat::ParseError>(())
    /// ```
    pub fn nginx(text: impl AsRef<[u8]>, escape: Escape) -> Result<Self, ParseError> {
        let text = text.as_ref();
        Ok(Self::new(text, Notation::Nginx, nginx::parse(text)?).with_escape(escape))
    }

    /// Sets how bytes that are not plain text are written.
    #[must_use]
    pub fn with_escape(mut self, escape: Escape) -> Self {
        let parsed = Arc::make_mut(&mut self.0);
        parsed.style.escape = escape;
        match escape {
            Escape::Json => parsed.has_json_values = json::find_values(&mut parsed.items),
            Escape::Apache | Escape::Nginx => {
                for item in &mut parsed.items {
                    item.context = Context::Text;
                }
                parsed.has_json_values = false;
            }
        }
        self
    }

    /// Sets the time zone of the instants.
    #[must_use]
    pub fn with_zone(mut self, zone: Zone) -> Self {
        Arc::make_mut(&mut self.0).style.zone = zone;
        self
    }

    /// Returns the text that this was parsed from.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.text
    }

    /// Appends the line for `exchange`, with its line feed.
    ///
    /// What `line` held before stays; reusing it spares every allocation.
    pub fn write(&self, exchange: &Exchange<'_>, line: &mut Vec<u8>) {
        let Parsed {
            items,
            style,
            has_json_values,
            ..
        } = &*self.0;
        let absent = self.absent();
        if *has_json_values {
            json::write(items, exchange, style, absent, line);
        } else {
            for item in items {
                if !item.write(exchange, style, line) {
                    line.extend_from_slice(absent);
                }
            }
        }
        line.push(b'\n');
    }

    /// Returns what this prints of an exchange.
    pub(crate) fn directives(&self) -> impl Iterator<Item = &Directive> {
        self.0.items.iter().map(|item| &item.directive)
    }

    /// Returns the mark of a value that is not there.
    fn absent(&self) -> &'static [u8] {
        match (self.0.notation, self.0.style.escape) {
            (Notation::Nginx, Escape::Json) => b"",
            _ => b"-",
        }
    }

    fn predefined(text: &str) -> Self {
        match text.parse() {
            Ok(format) => format,
            Err(error) => unreachable!("{error}"),
        }
    }

    fn new(text: &[u8], notation: Notation, items: Vec<Item>) -> Self {
        Self(Arc::new(Parsed {
            text: text.into(),
            notation,
            items: items.into(),
            has_json_values: false,
            style: Style {
                escape: Escape::Apache,
                zone: Zone::local(),
            },
        }))
    }
}

impl FromStr for LogFormat {
    type Err = ParseError;

    /// Parses the text of httpd's `LogFormat`.
    ///
    /// `CLF`, in upper or lower case, is the [Common Log Format](LogFormat::common): the
    /// only nickname that httpd's `CustomLog` knows by itself.
    ///
    /// # Errors
    ///
    /// When httpd would not accept it, or it is empty.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        text.as_bytes().try_into()
    }
}

impl TryFrom<&[u8]> for LogFormat {
    type Error = ParseError;

    /// Parses the text of httpd's `LogFormat`, which need not be UTF-8.
    ///
    /// # Errors
    ///
    /// When httpd would not accept it, or it is empty.
    fn try_from(text: &[u8]) -> Result<Self, ParseError> {
        // httpd's only built-in nickname.
        let items = if text.eq_ignore_ascii_case(b"CLF") {
            parse::parse(COMMON.as_bytes())
        } else {
            parse::parse(text)
        };
        Ok(Self::new(text, Notation::Apache, items?))
    }
}

impl TryFrom<&str> for LogFormat {
    type Error = ParseError;

    fn try_from(text: &str) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl TryFrom<String> for LogFormat {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl PartialEq for LogFormat {
    /// Compares what is printed and how it is escaped; the time zone and the
    /// text do not count.
    fn eq(&self, other: &Self) -> bool {
        self.0.items == other.0.items
            && self.0.style.escape == other.0.style.escape
            && self.absent() == other.absent()
    }
}

impl Eq for LogFormat {}

impl fmt::Display for LogFormat {
    /// Gives the text back; bytes that are not UTF-8 are replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0.text))
    }
}

impl fmt::Debug for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFormat")
            .field("text", &String::from_utf8_lossy(&self.0.text))
            .field("notation", &self.0.notation)
            .field("escape", &self.0.style.escape)
            .field("zone", &self.0.style.zone)
            .finish_non_exhaustive()
    }
}
