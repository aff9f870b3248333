//! The host that a request names.

use std::num::NonZeroU16;

use crate::{exchange::Exchange, path};

impl<'a> Exchange<'a> {
    /// Returns the host and port that the request names: in an absolute target,
    /// in `:authority`, or in the `Host` field.
    pub(crate) fn named_host(&self) -> Option<&'a [u8]> {
        self.target_authority()
            .or(self.authority)
            .or_else(|| self.request_headers.get(b"host"))
    }

    /// Returns the name of the host that the request names, if httpd would accept it.
    pub(crate) fn host_name(&self) -> Option<&'a [u8]> {
        if let Some(authority) = self.target_authority() {
            // A target may name any port, or none behind the colon.
            return name(split_port(authority).0);
        }
        let (host, port) = split_port(self.named_host()?);
        name(host).filter(|_| port.is_none_or(is_port))
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

/// Returns the name in a host without its port, if httpd would accept it: without
/// the brackets of an IPv6 address, and one trailing dot.
fn name(host: &[u8]) -> Option<&[u8]> {
    if let Some(address) = host.strip_prefix(b"[") {
        let address = address.strip_suffix(b"]")?;
        let text = std::str::from_utf8(address).ok()?;
        text.parse::<std::net::Ipv6Addr>().ok()?;
        return Some(address);
    }
    let is_doubled = host.windows(2).any(|pair| pair == b"..");
    let name = host.strip_suffix(b".").unwrap_or(host);
    (!is_doubled && is_valid(name)).then_some(name)
}

/// Splits `host[:port]`; behind its colon a port may be missing.
pub(crate) fn split_port(host: &[u8]) -> (&[u8], Option<&[u8]>) {
    match host.iter().rposition(|byte| !byte.is_ascii_digit()) {
        Some(colon) if host[colon] == b':' => (&host[..colon], Some(&host[colon + 1..])),
        _ => (host, None),
    }
}

/// Whether `port` is one: a number from 1 to 65,535.
fn is_port(port: &[u8]) -> bool {
    std::str::from_utf8(port).is_ok_and(|port| port.parse::<NonZeroU16>().is_ok())
}

/// The check of `HttpProtocolOptions Strict`, httpd's default.
fn is_valid(name: &[u8]) -> bool {
    let is_name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let labels = || name.split(|&byte| byte == b'.');
    if name.is_empty() || !name.iter().all(is_name_byte) {
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
