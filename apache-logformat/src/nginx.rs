//! nginx's `log_format` text into the same items.

use crate::{
    cookie,
    directive::{Directive, Item, Port, TimeForm, Variable, When},
    escape::Escape,
    exchange::Exchange,
    parse::{ParseError, Problem},
    path, time,
    value::{non_empty, write_joined, write_number},
};

/// Parses the text of a `log_format`, as nginx has it after joining its strings.
pub(crate) fn parse(text: &[u8]) -> Result<Vec<Item>, ParseError> {
    let error = |problem, offset| Err(ParseError::new(problem, text, offset));
    if text.is_empty() {
        return error(Problem::Empty, 0);
    }
    let mut items = Vec::new();
    let mut position = 0;
    while position < text.len() {
        let rest = &text[position..];
        if rest[0] != b'$' {
            let end = rest.iter().position(|&byte| byte == b'$');
            let literal = &rest[..end.unwrap_or(rest.len())];
            items.push(Item::literal(literal));
            position += literal.len();
            continue;
        }
        let braced = rest.get(1) == Some(&b'{');
        let after = &rest[1 + usize::from(braced)..];
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let length = after.iter().take_while(|byte| is_name(byte)).count();
        let name = &after[..length];
        if braced && after.get(length) != Some(&b'}') {
            return error(Problem::UnclosedVariable(name.into()), position);
        }
        if name.is_empty() {
            return error(Problem::NoVariable, position);
        }
        let Some(directive) = variable(name) else {
            return error(Problem::UnknownVariable(name.into()), position);
        };
        items.push(Item::new(directive));
        position += 1 + length + 2 * usize::from(braced);
    }
    Ok(items)
}

/// Returns what the variable `name` prints; names are told apart without regard
/// to case.
fn variable(name: &[u8]) -> Option<Directive> {
    let name = &*name.to_ascii_lowercase();
    let field = |name: &[u8]| -> Box<[u8]> {
        let dashed = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
        name.iter().map(dashed).collect()
    };
    let tls = |name: &[u8]| Directive::Tls(name.into());
    let end = |form| Directive::Time(When::End, form);
    Some(match name {
        b"args" | b"query_string" => Directive::Nginx(Variable::Args),
        b"body_bytes_sent" => Directive::Nginx(Variable::BodyBytes),
        b"bytes_sent" => Directive::BytesSent,
        b"host" => Directive::Nginx(Variable::Host),
        b"is_args" => Directive::Nginx(Variable::IsArgs),
        b"msec" => end(TimeForm::SecondsWithMillis),
        b"pid" => Directive::ProcessId,
        b"remote_addr" => Directive::ClientAddress,
        b"remote_port" => Directive::Port(Port::Remote),
        b"remote_user" => Directive::Nginx(Variable::RemoteUser),
        b"request" => Directive::Nginx(Variable::RequestLine),
        b"request_id" => Directive::RequestId,
        b"request_length" => Directive::BytesReceived,
        b"request_method" => Directive::Method,
        b"request_time" => Directive::Nginx(Variable::RequestTime),
        b"request_uri" => Directive::Nginx(Variable::RequestUri),
        b"scheme" => Directive::Nginx(Variable::Scheme),
        b"server_addr" => Directive::LocalAddress,
        b"server_name" => Directive::Nginx(Variable::ServerName),
        b"server_port" => Directive::Port(Port::Local),
        b"server_protocol" => Directive::Protocol,
        b"ssl_cipher" => tls(b"SSL_CIPHER"),
        b"ssl_protocol" => tls(b"SSL_PROTOCOL"),
        b"ssl_server_name" => tls(b"SSL_TLS_SNI"),
        b"status" => Directive::Nginx(Variable::Status),
        b"time_iso8601" => end(TimeForm::Iso8601),
        b"time_local" => end(TimeForm::CommonBare),
        b"uri" => Directive::Path,
        _ => {
            let (prefix, rest) = [b"arg_".as_slice(), b"cookie_", b"http_", b"sent_http_"]
                .into_iter()
                .find_map(|prefix| Some((prefix, name.strip_prefix(prefix)?)))
                .filter(|(_, rest)| !rest.is_empty())?;
            Directive::Nginx(match prefix {
                b"arg_" => Variable::Arg(rest.into()),
                b"cookie_" => Variable::Cookie(rest.into()),
                b"http_" => Variable::RequestHeader(field(rest)),
                _ => Variable::ResponseHeader(field(rest)),
            })
        }
    })
}

impl Variable {
    /// Appends the value of `exchange` that this prints; returns false, and
    /// appends nothing, when there is none.
    pub(crate) fn write(&self, exchange: &Exchange<'_>, escape: Escape, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Arg(name) => {
                let value = exchange.query().and_then(|query| argument(query, name));
                escape.write_known(value, out)
            }
            Self::Args => escape.write_known(exchange.query().and_then(non_empty), out),
            Self::BodyBytes => {
                write_number(exchange.body_bytes, out);
                true
            }
            Self::Cookie(name) => {
                let mut fields = exchange.cookie_fields();
                let value = fields.find_map(|field| cookie::find_nginx(field, name));
                escape.write_known(value, out)
            }
            Self::Host => {
                let Some(host) = exchange.named_host().and_then(host) else {
                    return Self::ServerName.write(exchange, escape, out);
                };
                write_lowercase(host, escape, out);
                true
            }
            Self::IsArgs => {
                if exchange.query().is_some_and(|query| !query.is_empty()) {
                    out.push(b'?');
                }
                true
            }
            Self::RemoteUser => escape.write_known(exchange.remote_user.and_then(non_empty), out),
            Self::RequestHeader(name) => {
                let fields = &exchange.request_headers;
                match &**name {
                    // The two that nginx joined before 1.23, when it began to join all.
                    b"cookie" => write_joined(fields, name, b"; ", escape, out),
                    b"x-forwarded-for" => write_joined(fields, name, b", ", escape, out),
                    b"host" if fields.get(name).is_none() => {
                        escape.write_known(exchange.authority, out)
                    }
                    _ => escape.write_known(fields.get(name), out),
                }
            }
            Self::RequestLine => {
                if let Some(line) = exchange.request_line {
                    escape.write(line, out);
                    return true;
                }
                let start = out.len();
                for part in [exchange.method, exchange.target, exchange.protocol] {
                    if out.len() > start && !part.is_empty() {
                        out.push(b' ');
                    }
                    escape.write(part, out);
                }
                out.len() > start
            }
            Self::RequestTime => {
                // The difference of two clocks that count milliseconds.
                let millis = (exchange.end.millis() - exchange.begin.millis()).max(0);
                write_number(millis / 1000, out);
                out.push(b'.');
                time::write_padded((millis % 1000) as u32, 3, out);
                true
            }
            Self::RequestUri => {
                let authority = exchange.target_authority();
                let uri = match authority {
                    Some(_) => path::split_absolute(exchange.target).map(|(_, after)| after),
                    None => non_empty(exchange.target),
                };
                escape.write_known(uri, out)
            }
            Self::ResponseHeader(name) => {
                escape.write_known(exchange.response_headers.get(name), out)
            }
            Self::Scheme => {
                let scheme: &[u8] = match exchange.tls {
                    Some(_) => b"https",
                    None => b"http",
                };
                out.extend_from_slice(scheme);
                true
            }
            Self::ServerName => {
                let name = exchange.server_name;
                name.map(|name| write_lowercase(name, escape, out))
                    .is_some()
            }
            Self::Status => {
                time::write_padded(exchange.status.into(), 3, out);
                true
            }
        }
    }
}

/// Appends a host in lower case, escaped afterwards: `\x5C` has a capital letter.
fn write_lowercase(host: &[u8], escape: Escape, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(host);
    out[start..].make_ascii_lowercase();
    escape.rewrite(start, out);
}

/// Finds the argument `name` in a query, without regard to case.
fn argument<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|&byte| byte == b'&').find_map(|argument| {
        let equals = argument.iter().position(|&byte| byte == b'=')?;
        let (found, value) = argument.split_at(equals);
        found.eq_ignore_ascii_case(name).then_some(&value[1..])
    })
}

/// Returns the host in `host[:port]`, if nginx would accept it.
///
/// As `ngx_http_validate_host`, which looks at the port no closer than for bytes that
/// no host has, and takes an open bracket for a part of the name.
fn host(host: &[u8]) -> Option<&[u8]> {
    let refused = |byte: &u8| *byte <= b' ' || *byte == 0x7f || *byte == b'/';
    if host.iter().any(refused) || host.windows(2).any(|pair| pair == b"..") {
        return None;
    }
    let end = match host.first()? {
        b'[' => host.iter().position(|&byte| byte == b']').map(|at| at + 1),
        _ => host.iter().position(|&byte| byte == b':'),
    };
    let host = &host[..end.unwrap_or(host.len())];
    non_empty(host.strip_suffix(b".").unwrap_or(host))
}
