//! The client's address behind trusted proxies.

use std::{error::Error, fmt, net::IpAddr, str};

use http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net};

/// Proxies whose word is taken for where a request comes from.
///
/// As mod_remoteip does: when the connection's peer is one of them, the addresses
/// in the header field are walked from the right, past every trusted proxy, to
/// the first address that is none; that is the client (`%a`, `%h`). The field is
/// ignored when the peer is not trusted, and what a client wrote into it itself
/// is never reached. When all of them are trusted the leftmost is the client; an
/// entry that is no address ends the walk at the one before.
///
/// `%{c}a` stays the connection's peer.
///
/// # Examples
///
/// ```
/// use apache_logformat::{AccessLogLayer, LogFormat, TrustedProxies};
///
/// let proxies = TrustedProxies::new(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"])?;
/// let layer = AccessLogLayer::new(LogFormat::combined(), |_: &[u8]| Ok(()))
///     .trusted_proxies(proxies);
/// # Ok::<(), apache_logformat::NetworkError>(())
/// ```
#[derive(Debug, Clone)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    field: Field,
}

#[derive(Debug, Clone)]
enum Field {
    Forwarded,
    /// `X-Forwarded-For` or another list of plain addresses.
    List(HeaderName),
}

impl TrustedProxies {
    /// Trusts `networks`, each an address or a CIDR block, and reads
    /// `X-Forwarded-For`.
    ///
    /// # Errors
    ///
    /// When one of them is neither an address nor a block.
    pub fn new<N: AsRef<str>>(networks: impl IntoIterator<Item = N>) -> Result<Self, NetworkError> {
        let parse = |network: N| {
            let text = network.as_ref();
            let address = || {
                text.parse()
                    .ok()
                    .map(|address: IpAddr| IpNet::from(address))
            };
            text.parse()
                .ok()
                .or_else(address)
                .ok_or_else(|| NetworkError {
                    network: text.into(),
                })
        };
        Ok(Self {
            networks: networks
                .into_iter()
                .map(|network| Ok(canonical(parse(network)?)))
                .collect::<Result<_, _>>()?,
            field: Field::List(HeaderName::from_static("x-forwarded-for")),
        })
    }

    /// Reads the `Forwarded` field of [RFC 7239] instead.
    ///
    /// [RFC 7239]: https://www.rfc-editor.org/rfc/rfc7239
    #[must_use]
    pub fn forwarded(mut self) -> Self {
        self.field = Field::Forwarded;
        self
    }

    /// Reads the field `name` instead, as mod_remoteip's `RemoteIPHeader`: a list
    /// of addresses, or a single one such as in `X-Real-IP`.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> Self {
        self.field = Field::List(name);
        self
    }

    /// Returns whether `addr` is one of the proxies.
    ///
    /// An IPv4 address written as IPv6 (`::ffff:10.0.0.1`), as a socket that takes
    /// both has it, is the IPv4 address. A service that believes other fields of its
    /// proxies too, such as `X-Request-Id` or `X-Forwarded-Proto`, asks the same list.
    ///
    /// # Examples
    ///
    /// ```
    /// use apache_logformat::TrustedProxies;
    ///
    /// let proxies = TrustedProxies::new(["10.0.0.0/8"])?;
    /// assert!(proxies.contains([10, 1, 2, 3].into()));
    /// assert!(!proxies.contains([11, 1, 2, 3].into()));
    /// # Ok::<(), apache_logformat::NetworkError>(())
    /// ```
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        self.networks.iter().any(|network| network.contains(&addr))
    }

    /// Returns the address of the client that `peer` speaks for.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let name = match &self.field {
            Field::Forwarded => &http::header::FORWARDED,
            Field::List(name) => name,
        };
        for value in headers.get_all(name).iter().rev() {
            let mut rest = value.as_bytes();
            while !rest.is_empty() {
                if !self.contains(client) {
                    return client;
                }
                let (before, element) = split_last(rest);
                rest = before;
                if element.trim_ascii().is_empty() {
                    continue;
                }
                let address = match self.field {
                    Field::Forwarded => forwarded_for(element),
                    Field::List(_) => parse_address(element),
                };
                match address {
                    Some(address) => client = address,
                    None => return client,
                }
            }
        }
        client
    }
}

/// Returns the IPv4 network that `network` may be in the clothes of IPv6.
fn canonical(network: IpNet) -> IpNet {
    if let IpNet::V6(mapped) = network
        && let Some(address) = mapped.addr().to_ipv4_mapped()
        && let Some(length) = mapped.prefix_len().checked_sub(96)
        && let Ok(network) = Ipv4Net::new(address, length)
    {
        return network.into();
    }
    network
}

/// Splits the last element off a list.
///
/// From the right, so that a quotation mark that a client left open on the left
/// cannot swallow what a proxy appended.
fn split_last(list: &[u8]) -> (&[u8], &[u8]) {
    let mut quoted = false;
    for (at, &byte) in list.iter().enumerate().rev() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => return (&list[..at], &list[at + 1..]),
            _ => {}
        }
    }
    (&[], list)
}

/// Returns the address in the `for` parameter of an element of `Forwarded`.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    element.split(|&byte| byte == b';').find_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (name, value) = pair.split_at(equals);
        if !name.trim_ascii().eq_ignore_ascii_case(b"for") {
            return None;
        }
        let value = value[1..].trim_ascii();
        let unquoted = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""));
        parse_address(unquoted.unwrap_or(value))
    })
}

/// Parses an address, in brackets or not, with a port or without.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text.trim_ascii()).ok()?;
    let address: IpAddr = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let has_port = port.strip_prefix(':').is_some_and(is_port);
        if !port.is_empty() && !has_port {
            return None;
        }
        IpAddr::V6(address.parse().ok()?)
    } else if let Some((address, port)) = text.split_once(':')
        && !port.contains(':')
    {
        if !is_port(port) {
            return None;
        }
        IpAddr::V4(address.parse().ok()?)
    } else {
        text.parse().ok()?
    };
    Some(address.to_canonical())
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

/// A text that is neither an address nor a CIDR block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkError {
    network: Box<str>,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot trust `{}`: it is neither an IP address nor a CIDR block",
            self.network
        )
    }
}

impl Error for NetworkError {}
