use std::fmt;

use url::Url;

use crate::Code;

/// A stored link.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Link {
    /// Its short name.
    pub code: Code,
    /// Where it leads.
    pub url: String,
    /// How often it was followed.
    pub hits: i64,
    /// When it was stored, in milliseconds since 1970-01-01 UTC.
    pub created_at: i64,
}

/// Where a link may lead: an absolute `http` or `https` URL of at most 2,048
/// bytes, kept in its normal form (ASCII, percent-encoded).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(String);

impl Target {
    /// Checks a user's text.
    ///
    /// # Errors
    ///
    /// When the text is empty, too long, no URL, or of another scheme.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TargetError::Empty);
        }
        if text.len() > LONGEST {
            return Err(TargetError::TooLong(text.len()));
        }
        let url = Url::parse(text).map_err(TargetError::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(TargetError::Scheme(url.scheme().to_owned()));
        }
        let normal = String::from(url);
        if normal.len() > LONGEST {
            return Err(TargetError::TooLong(normal.len()));
        }
        Ok(Self(normal))
    }

    /// The URL's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text was refused as the target of a link.
#[derive(Debug)]
#[non_exhaustive]
pub enum TargetError {
    /// There was no text.
    Empty,
    /// The URL has this many bytes.
    TooLong(usize),
    /// The text is not an absolute URL.
    NotAUrl(url::ParseError),
    /// The URL has this scheme.
    Scheme(String),
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the url is empty: give an http or https URL"),
            Self::TooLong(n) => write!(f, "the url has {n} bytes: at most {LONGEST} are stored"),
            Self::NotAUrl(_) => f.write_str("the url is not an absolute URL"),
            Self::Scheme(scheme) => {
                write!(
                    f,
                    "the url's scheme is {scheme:?}: only http and https are stored"
                )
            }
        }
    }
}

impl std::error::Error for TargetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotAUrl(error) => Some(error),
            _ => None,
        }
    }
}

const LONGEST: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_kept_in_normal_form() {
        for (text, normal) in [
            ("http://example.com", "http://example.com/"),
            (
                " https://EXAMPLE.com/é?q=\"x\" ",
                "https://example.com/%C3%A9?q=%22x%22",
            ),
            (
                "http://example.com/a\r\nSet-Cookie: b",
                "http://example.com/aSet-Cookie:%20b",
            ),
        ] {
            assert_eq!(Target::parse(text).unwrap().as_str(), normal);
        }
    }

    #[test]
    fn what_is_not_http_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("   ", "empty"),
            ("example.com", "not an absolute URL"),
            ("/path", "not an absolute URL"),
            ("javascript:alert(1)", "\"javascript\""),
            ("ftp://example.com/", "\"ftp\""),
            ("http://", "not an absolute URL"),
        ] {
            let error = Target::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        let long = format!("http://example.com/{}", "é".repeat(800));
        assert!(matches!(Target::parse(&long), Err(TargetError::TooLong(_))));
    }
}
