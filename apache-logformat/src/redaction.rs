//! What the layer masks before a format sees it.

use http::{HeaderName, header};

/// Which secrets the layer masks before they reach any format.
///
/// The default masks the values of `Authorization`, `Proxy-Authorization`,
/// `Cookie` and `Set-Cookie` where a format prints a whole header field; single
/// cookies (`%{NAME}C`) and everything else are printed as they are. A masked
/// value prints as `[redacted]`.
///
/// A password in an absolute request target is always masked, as httpd does.
///
/// # Examples
///
/// ```
/// use apache_logformat::Redaction;
///
/// // Also hide session cookies and tokens in links.
/// let redaction = Redaction::default()
///     .header("X-Api-Key")
///     .query("token")
///     .cookie("session");
///
/// // Print everything exactly as it came, as httpd does.
/// let redaction = Redaction::none();
/// ```
#[derive(Debug, Clone)]
pub struct Redaction {
    headers: Vec<Box<str>>,
    parameters: Vec<Box<str>>,
    cookies: Vec<Box<str>>,
}

/// What of a header field is masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mask {
    Nothing,
    Whole,
    Cookies,
    SetCookie,
    Uri,
}

/// What is printed in a secret's place.
const MASK: &[u8] = b"[redacted]";

impl Redaction {
    /// Masks nothing.
    #[must_use]
    pub fn none() -> Self {
        Self {
            headers: Vec::new(),
            parameters: Vec::new(),
            cookies: Vec::new(),
        }
    }

    /// Masks the header field `name`, in requests and responses.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<str>) -> Self {
        self.headers.push(name.as_ref().into());
        self
    }

    /// Masks the query parameter `name` in the request's target, and in the
    /// `Referer` and `Location` fields, there also one of the fragment
    /// (`#access_token=…`).
    ///
    /// It is recognised in upper and lower case and when it is percent-encoded.
    #[must_use]
    pub fn query(mut self, name: impl AsRef<str>) -> Self {
        self.parameters.push(name.as_ref().into());
        self
    }

    /// Masks the cookie `name`, alone and within `Cookie` and `Set-Cookie`.
    #[must_use]
    pub fn cookie(mut self, name: impl AsRef<str>) -> Self {
        self.cookies.push(name.as_ref().into());
        self
    }

    /// Returns how the values of the header field `name` are masked.
    pub(crate) fn mask(&self, name: &HeaderName) -> Mask {
        if has(&self.headers, name.as_str().as_bytes()) {
            return Mask::Whole;
        }
        match *name {
            header::COOKIE if !self.cookies.is_empty() => Mask::Cookies,
            header::SET_COOKIE if !self.cookies.is_empty() => Mask::SetCookie,
            header::REFERER | header::LOCATION if !self.parameters.is_empty() => Mask::Uri,
            _ => Mask::Nothing,
        }
    }

    /// Appends a header field's value, masked.
    pub(crate) fn write_header(&self, mask: Mask, value: &[u8], out: &mut Vec<u8>) {
        match mask {
            Mask::Nothing => out.extend_from_slice(value),
            Mask::Whole => out.extend_from_slice(MASK),
            Mask::Cookies => self.write_cookies(value, out),
            Mask::SetCookie => self.write_set_cookie(value, out),
            Mask::Uri => self.write_uri(value, out),
        }
    }

    /// Appends a `Cookie` field that single cookies are taken from, masked.
    pub(crate) fn write_cookies(&self, value: &[u8], out: &mut Vec<u8>) {
        if self.cookies.is_empty() {
            out.extend_from_slice(value);
            return;
        }
        for (index, cookie) in value.split(|&byte| byte == b';').enumerate() {
            if index > 0 {
                out.push(b';');
            }
            match self.find_secret(cookie) {
                Some(start) => {
                    out.extend_from_slice(&cookie[..start]);
                    out.extend_from_slice(MASK);
                }
                None => out.extend_from_slice(cookie),
            }
        }
    }

    /// Returns where the value of a cookie to be masked starts.
    ///
    /// The name may stand wherever a server would find it: behind further `=` as in
    /// httpd, behind a comma as in nginx.
    fn find_secret(&self, cookie: &[u8]) -> Option<usize> {
        let mut start = 0;
        loop {
            let rest = &cookie[start..];
            let name = start
                + rest
                    .iter()
                    .position(|byte| !b"= \t".contains(byte))
                    .unwrap_or(rest.len());
            let equals = cookie[name..].iter().position(|&byte| byte == b'=')?;
            if has(&self.cookies, &cookie[name..name + equals]) {
                return Some(name + equals + 1);
            }
            start += rest.iter().position(|&byte| byte == b',')? + 1;
        }
    }

    /// Appends a URI or a request target, masked.
    pub(crate) fn write_uri(&self, uri: &[u8], out: &mut Vec<u8>) {
        // A fragment has parameters too where an authorization server answers with one.
        let start = || uri.iter().position(|byte| b"?#".contains(byte));
        let start = if self.parameters.is_empty() {
            None
        } else {
            start()
        };
        let Some(start) = start else {
            out.extend_from_slice(uri);
            return;
        };
        let (before, query) = uri.split_at(start + 1);
        out.extend_from_slice(before);
        for parameter in query.split_inclusive(|byte| b"&;#".contains(byte)) {
            self.write_pair(parameter, &self.parameters, out);
        }
    }

    fn write_set_cookie(&self, value: &[u8], out: &mut Vec<u8>) {
        let end = value
            .iter()
            .position(|&byte| byte == b';')
            .unwrap_or(value.len());
        let (cookie, attributes) = value.split_at(end);
        self.write_pair(cookie, &self.cookies, out);
        out.extend_from_slice(attributes);
    }

    /// Appends `name=value`, with its separator, the value masked when `names`
    /// has the name.
    fn write_pair(&self, pair: &[u8], names: &[Box<str>], out: &mut Vec<u8>) {
        let Some(equals) = pair.iter().position(|&byte| byte == b'=') else {
            out.extend_from_slice(pair);
            return;
        };
        let (name, value) = pair.split_at(equals);
        if !has(names, name) {
            out.extend_from_slice(pair);
            return;
        }
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(MASK);
        if let Some(separator @ (b'&' | b';' | b'#')) = value.last() {
            out.push(*separator);
        }
    }
}

impl Default for Redaction {
    fn default() -> Self {
        Self::none()
            .header(header::AUTHORIZATION)
            .header(header::PROXY_AUTHORIZATION)
            .header(header::COOKIE)
            .header(header::SET_COOKIE)
    }
}

/// Whether `names` has `name`, which may have blanks around it and be encoded.
fn has(names: &[Box<str>], name: &[u8]) -> bool {
    let name = name.trim_ascii();
    names.iter().any(|known| {
        let mut rest = name;
        known.bytes().all(|byte| {
            let Some((found, after)) = next_decoded(rest) else {
                return false;
            };
            rest = after;
            found.eq_ignore_ascii_case(&byte)
        }) && rest.is_empty()
    })
}

/// Takes one byte off `text`, decoding it if it is percent-encoded.
fn next_decoded(text: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    if let [b'%', high, low, rest @ ..] = text
        && let (Some(high), Some(low)) = (digit(*high), digit(*low))
    {
        return Some(((high * 16 + low) as u8, rest));
    }
    text.split_first().map(|(&byte, rest)| (byte, rest))
}
