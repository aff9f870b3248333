//! What a directive prints of an exchange.

use std::{io::Write, net::IpAddr};

use crate::{
    cookie,
    directive::{Directive, Port, Style, TimeForm, Unit, When},
    escape::{Escape, with_scratch},
    exchange::{ConnectionStatus, Exchange},
    fields::Fields,
    host, path, time,
    timestamp::Timestamp,
};

impl Directive {
    /// Appends the value of `exchange` that this prints; returns false, and
    /// appends nothing, when there is none.
    pub(crate) fn write(&self, exchange: &Exchange<'_>, style: &Style, out: &mut Vec<u8>) -> bool {
        let escape = style.escape;
        let text = |value, out: &mut Vec<u8>| escape.write_known(value, out);
        match self {
            Self::Literal(literal) => literal.write(out),
            Self::ClientAddress => return write_ip(exchange.client_ip(), out),
            Self::PeerAddress => return write_ip(exchange.peer_ip(), out),
            Self::LocalAddress => return write_ip(exchange.local.map(|local| local.ip()), out),
            Self::ClientHost => {
                return text(exchange.client_host, out) || write_ip(exchange.client_ip(), out);
            }
            Self::PeerHost => {
                return text(exchange.peer_host, out) || write_ip(exchange.peer_ip(), out);
            }
            Self::BodyBytes => write_number(exchange.body_bytes, out),
            Self::BodyBytesOrDash => match exchange.body_bytes {
                0 => return false,
                bytes => write_number(bytes, out),
            },
            Self::BytesReceived => return write_known(exchange.bytes_received, out),
            Self::BytesSent => return write_known(exchange.bytes_sent, out),
            Self::BytesTotal => {
                let both = exchange.bytes_received.zip(exchange.bytes_sent);
                return write_known(
                    both.map(|(received, sent)| received.saturating_add(sent)),
                    out,
                );
            }
            Self::ConnectionId => return text(exchange.connection_id, out),
            Self::ConnectionStatus => out.push(match exchange.connection_status() {
                ConnectionStatus::Aborted => b'X',
                ConnectionStatus::KeepAlive => b'+',
                ConnectionStatus::Close => b'-',
            }),
            Self::Cookie(name) => return write_cookie(name, exchange, escape, out),
            Self::Duration(unit) => {
                let micros = exchange.end.micros_since(exchange.begin);
                write_number(
                    match unit {
                        Unit::Seconds => micros / 1_000_000,
                        Unit::Milliseconds => micros / 1000,
                        Unit::Microseconds => micros,
                    },
                    out,
                );
            }
            Self::Echo(argument) => write_unescaped(argument, escape, out),
            Self::Env(name) => return text(exchange.env.get(name), out),
            Self::Filename => return text(exchange.filename, out),
            Self::Handler => return text(exchange.handler, out),
            Self::HostName => return write_host_name(exchange, escape, out),
            Self::Ident => return false,
            Self::KeepAlives => return write_known(exchange.keepalives, out),
            Self::Method => return text(non_empty(exchange.method), out),
            Self::Note(name) => {
                return text(exchange.notes.get(name), out)
                    || (name.eq_ignore_ascii_case(SAMPLE_WEIGHT)
                        && write_known(exchange.weight, out));
            }
            Self::Path => return write_path(exchange, escape, out),
            Self::Port(Port::Canonical) => {
                let usual = || {
                    exchange.server_name?;
                    Some(if exchange.tls.is_some() { 443 } else { 80 })
                };
                return write_known(exchange.server_port.or_else(usual), out);
            }
            Self::Port(Port::Local) => {
                return write_known(exchange.local.map(|local| local.port()), out);
            }
            Self::Port(Port::Remote) => {
                // What a proxy says of the client has no port; httpd prints 0.
                let peer = exchange.peer_ip().map(|peer| peer.to_canonical());
                let client = exchange.client.map(|client| client.to_canonical());
                let behind_proxy = client.is_some() && client != peer;
                let port = exchange.peer.map(|peer| peer.port());
                return write_known(port.map(|port| if behind_proxy { 0 } else { port }), out);
            }
            Self::ProcessId => return write_known(exchange.process_id, out),
            Self::Protocol => return text(non_empty(exchange.protocol), out),
            Self::Query => {
                if let Some(query) = exchange.query() {
                    out.push(b'?');
                    escape.write(query, out);
                }
            }
            Self::RemoteUser => match exchange.remote_user {
                // As httpd does, so that the field does not vanish.
                Some(b"") => escape.write_quotes(out),
                user => return text(user, out),
            },
            Self::RequestHeader(name) => return write_request_header(name, exchange, escape, out),
            Self::RequestId => return text(exchange.request_id, out),
            Self::RequestLine => return write_request_line(exchange, escape, out),
            Self::RequestTrailer(name) => {
                return write_joined(&exchange.request_trailers, name, b", ", escape, out);
            }
            Self::ResponseHeader(name) => {
                return write_response_header(name, exchange, escape, out);
            }
            Self::ResponseTrailer(name) => {
                return write_joined(&exchange.response_trailers, name, b", ", escape, out);
            }
            Self::ServerName => return text(exchange.server_name, out),
            Self::Status => match exchange.status {
                0 => return false,
                status => write_number(status, out),
            },
            Self::ThreadId => return write_known(exchange.thread_id, out),
            Self::ThreadIdHex => match exchange.thread_id {
                // Writing to a `Vec` cannot fail.
                Some(id) => drop(write!(out, "{id:x}")),
                None => return false,
            },
            Self::Time(when, form) => {
                let instant = match when {
                    When::Begin => exchange.begin,
                    When::End => exchange.end,
                };
                form.write(instant, style, out);
            }
            Self::TimeToFirstByte => {
                let first = exchange.first_byte;
                return write_known(first.map(|at| at.micros_since(exchange.begin)), out);
            }
            Self::Tls(name) => {
                let value = exchange.tls.and_then(|tls| tls.get(name));
                return text(value.and_then(non_empty), out);
            }
            Self::Nginx(variable) => return variable.write(exchange, escape, out),
        }
        true
    }
}

impl TimeForm {
    fn write(&self, instant: Timestamp, style: &Style, out: &mut Vec<u8>) {
        match self {
            Self::Common => time::write_common(instant, &style.zone, out),
            Self::CommonBare => {
                let start = out.len();
                time::write_common(instant, &style.zone, out);
                out.pop();
                out.remove(start);
            }
            Self::Iso8601 => time::write_iso8601(instant, &style.zone, out),
            Self::Seconds => write_number(instant.seconds(), out),
            Self::Millis => write_number(instant.millis(), out),
            Self::Micros => write_number(instant.as_micros(), out),
            Self::MillisFraction => time::write_padded(instant.subsec_micros() / 1000, 3, out),
            Self::MicrosFraction => time::write_padded(instant.subsec_micros(), 6, out),
            Self::SecondsWithMillis => {
                write_number(instant.seconds(), out);
                out.push(b'.');
                time::write_padded(instant.subsec_micros() / 1000, 3, out);
            }
            Self::Strftime(strftime) => {
                let start = out.len();
                let span = style.zone.span(instant.seconds());
                strftime.write(instant.seconds(), &span, out);
                if style.escape == Escape::Json {
                    style.escape.rewrite(start, out);
                }
            }
        }
    }
}

/// The note that holds how many exchanges a sampled line stands for.
const SAMPLE_WEIGHT: &[u8] = b"sample_weight";

pub(crate) fn non_empty(text: &[u8]) -> Option<&[u8]> {
    (!text.is_empty()).then_some(text)
}

pub(crate) fn write_number(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn write_known(number: Option<impl itoa::Integer>, out: &mut Vec<u8>) -> bool {
    match number {
        Some(number) => {
            write_number(number, out);
            true
        }
        None => false,
    }
}

/// Appends what the format's author wrote: as it is, as httpd does, but never so
/// that a JSON string breaks.
fn write_unescaped(text: &[u8], escape: Escape, out: &mut Vec<u8>) {
    match escape {
        Escape::Json => escape.write(text, out),
        Escape::Apache | Escape::Nginx => out.extend_from_slice(text),
    }
}

/// Appends an address in the shortest form, an IPv4-mapped one as IPv4.
fn write_ip(address: Option<IpAddr>, out: &mut Vec<u8>) -> bool {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => {
            let mut text = [b'.'; 16];
            let mut end = 0;
            for octet in address.octets() {
                if octet >= 100 {
                    text[end] = b'0' + octet / 100;
                    end += 1;
                }
                if octet >= 10 {
                    text[end] = b'0' + octet / 10 % 10;
                    end += 1;
                }
                text[end] = b'0' + octet % 10;
                end += 2;
            }
            let length = out.len() + end - 1;
            out.extend_from_slice(&text);
            out.truncate(length);
            true
        }
        Some(IpAddr::V6(address)) => {
            // `inet_ntop` takes `::/96` for IPv4 addresses in the form of old.
            if address.segments()[..6] == [0; 6] && address.segments()[6] != 0 {
                out.extend_from_slice(b"::");
                let [.., a, b, c, d] = address.octets();
                return write_ip(Some([a, b, c, d].into()), out);
            }
            // Writing to a `Vec` cannot fail.
            drop(write!(out, "{address}"));
            true
        }
        None => false,
    }
}

/// Appends the values called `name` with `separator` between them; false when
/// there is none.
pub(crate) fn write_joined(
    fields: &Fields<'_>,
    name: &[u8],
    separator: &[u8],
    escape: Escape,
    out: &mut Vec<u8>,
) -> bool {
    let mut any = false;
    fields.for_each(name, |value| {
        if any {
            out.extend_from_slice(separator);
        }
        escape.write(value, out);
        any = true;
    });
    any
}

fn write_request_header(
    name: &[u8],
    exchange: &Exchange<'_>,
    escape: Escape,
    out: &mut Vec<u8>,
) -> bool {
    if name.eq_ignore_ascii_case(b"host") {
        let is_there = exchange.request_headers.get(name).is_some();
        // httpd puts the host of an absolute target in the field's place.
        if is_there && let Some(authority) = exchange.target_authority() {
            let (host, port) = host::split_port(authority);
            let start = out.len();
            escape.write(host.strip_suffix(b".").unwrap_or(host), out);
            out[start..].make_ascii_lowercase();
            if let Some(port) = port {
                out.push(b':');
                out.extend_from_slice(port);
            }
            return true;
        }
        if !is_there && let Some(authority) = exchange.authority {
            escape.write(authority, out);
            return true;
        }
    }
    let separator = separator(name, exchange);
    write_joined(&exchange.request_headers, name, separator, escape, out)
}

/// Returns what stands between repeats of a request's header field.
fn separator(name: &[u8], exchange: &Exchange<'_>) -> &'static [u8] {
    // HTTP/2 and HTTP/3 let a client split the field into its cookies.
    let split = name.eq_ignore_ascii_case(b"cookie") && !exchange.protocol.starts_with(b"HTTP/1.");
    if split { b"; " } else { b", " }
}

fn write_cookie(name: &[u8], exchange: &Exchange<'_>, escape: Escape, out: &mut Vec<u8>) -> bool {
    let mut values = exchange.cookie_fields();
    let Some(first) = values.next() else {
        return false;
    };
    if values.next().is_none() {
        return escape.write_known(cookie::find(first, name), out);
    }
    // The scan needs the fields in one piece: the second's first cookie is part
    // of the first's last value.
    with_scratch(|joined| {
        joined.extend_from_slice(first);
        for value in exchange.cookie_fields().skip(1) {
            joined.extend_from_slice(separator(b"cookie", exchange));
            joined.extend_from_slice(value);
        }
        escape.write_known(cookie::find(joined, name), out)
    })
}

fn write_response_header(
    name: &[u8],
    exchange: &Exchange<'_>,
    escape: Escape,
    out: &mut Vec<u8>,
) -> bool {
    if name.eq_ignore_ascii_case(b"set-cookie") {
        return write_joined(&exchange.response_headers, name, b", ", escape, out);
    }
    let Some(mut value) = exchange.response_headers.get(name) else {
        return false;
    };
    if name.eq_ignore_ascii_case(b"content-type") {
        // The media type without its parameters.
        let end = value.iter().position(|&byte| byte == b';');
        value = value[..end.unwrap_or(value.len())].trim_ascii_end();
    }
    escape.write(value, out);
    true
}

fn write_path(exchange: &Exchange<'_>, escape: Escape, out: &mut Vec<u8>) -> bool {
    if let Some(path) = exchange.path {
        escape.write(path, out);
        return true;
    }
    if exchange.target.is_empty() {
        return false;
    }
    let start = out.len();
    path::write(exchange.method, exchange.target, out);
    escape.rewrite(start, out);
    true
}

fn write_host_name(exchange: &Exchange<'_>, escape: Escape, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    if !exchange.use_canonical_name
        && let Some(name) = exchange.host_name()
    {
        out.extend_from_slice(name);
        out[start..].make_ascii_lowercase();
        return true;
    }
    escape.write_known(exchange.server_name, out)
}

fn write_request_line(exchange: &Exchange<'_>, escape: Escape, out: &mut Vec<u8>) -> bool {
    if let Some(line) = exchange.request_line {
        let target = line
            .iter()
            .position(|&byte| byte == b' ')
            .map_or(0, |at| at + 1);
        escape.write(&line[..target], out);
        write_target(&line[target..], escape, out);
        return true;
    }
    let start = out.len();
    // A request in HTTP/0.9 ends with its target.
    let protocol = non_empty(exchange.protocol).filter(|protocol| *protocol != b"HTTP/0.9");
    escape.write(exchange.method, out);
    if !exchange.target.is_empty() {
        if out.len() > start {
            out.push(b' ');
        }
        write_target(exchange.target, escape, out);
    }
    if let Some(protocol) = protocol
        && out.len() > start
    {
        out.push(b' ');
        escape.write(protocol, out);
    }
    out.len() > start
}

/// Appends a target, or one with a protocol behind it, without the password that
/// an absolute one may hold.
fn write_target(target: &[u8], escape: Escape, out: &mut Vec<u8>) {
    match path::split_password(target) {
        Some((before, after)) => {
            escape.write(before, out);
            out.extend_from_slice(b"XXXXXXXX");
            escape.write(after, out);
        }
        None => escape.write(target, out),
    }
}
