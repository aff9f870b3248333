//! The host that a request names.

use crate::{exchange::Exchange, path};

impl<'a> Exchange<'a> {
    /// Returns the host and port that the request names: in an absolute target,
    /// in `:authority`, or in the `Host` field.
    pub(crate) fn named_host(&self) -> Option<&'a [u8]> {
        self.target_authority()
            .or(self.authority)
            .or_else(|| self.request_headers.get(b"host"))
    }

    /// Returns the authority of an absolute target, without its user.
    pub(crate) fn target_authority(&self) -> Option<&'a [u8]> {
        if self.target.first() == Some(&b'/') {
            return None;
        }
        let (authority, _) = path::split_absolute(self.target)?;
        let at = authority.iter().rposition(|&byte| byte == b'@');
        Some(&authority[at.map_or(0, |at| at + 1)..])
    }
}

/// Returns the name in `host[:port]`, if httpd would accept it: without the port,
/// the brackets of an IPv6 address, and one trailing dot.
pub(crate) fn name(host: &[u8]) -> Option<&[u8]> {
    let (name, _) = split_port(host)?;
    if let Some(address) = name.strip_prefix(b"[") {
        let address = address.strip_suffix(b"]")?;
        let text = std::str::from_utf8(address).ok()?;
        text.parse::<std::net::Ipv6Addr>().ok()?;
        return Some(address);
    }
    let name = name.strip_suffix(b".").unwrap_or(name);
    is_valid(name).then_some(name)
}

/// Splits `host[:port]`.
pub(crate) fn split_port(host: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let Some(before) = host.iter().rposition(|byte| !byte.is_ascii_digit()) else {
        // httpd accepts no host of digits alone.
        return None;
    };
    if host[before] != b':' || before + 1 == host.len() {
        return Some((host, None));
    }
    Some((&host[..before], Some(&host[before + 1..])))
}

/// The check of `HttpProtocolOptions Strict`, httpd's default.
fn is_valid(name: &[u8]) -> bool {
    let is_name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let labels = || name.split(|&byte| byte == b'.');
    if name.is_empty()
        || !name.iter().all(is_name_byte)
        || name.windows(2).any(|pair| pair == b"..")
    {
        return false;
    }
    if name
        .iter()
        .all(|byte| byte.is_ascii_digit() || *byte == b'.')
    {
        let padded = |part: &[u8]| part.len() > 1 && part[0] == b'0';
        return labels().count() == 4 && name[0] != b'.' && !labels().any(padded);
    }
    // A top-level domain starts with a letter.
    !name.contains(&b'.')
        || labels()
            .next_back()
            .is_some_and(|last| last.first().is_none_or(u8::is_ascii_alphabetic))
}
