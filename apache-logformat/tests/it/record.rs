//! A line that httpd or nginx wrote, with everything it was made from.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use apache_logformat::{
    AccessLogLayer, ClientHost, ClientIp, ConnectionInfo, ConnectionStatus, Env, Exchange, Fields,
    Filename, LogFormat, Notes, Redaction, RemoteUser, RequestId, RequestTrailers, Route,
    Timestamp, WireBytes, Zone,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::{Layer, Service, ServiceExt, service_fn};

/// A line that httpd or nginx wrote, with everything it was made from.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) level: String,
    pub(crate) http_types: bool,
    pub(crate) escape: String,
    pub(crate) format: Vec<u8>,
    pub(crate) expected: Vec<u8>,
    pub(crate) value: Value,
}

impl Record {
    pub(crate) fn new(value: Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let expected = match value["expected"].get("line_b64") {
            Some(encoded) => base64(encoded.as_str().unwrap()),
            None => bytes(&value["expected"]["line"]).unwrap_or_default(),
        };
        Self {
            id: text("id"),
            level: text("level"),
            http_types: value["http_types"].as_bool().unwrap_or(true),
            escape: text("escape"),
            format: bytes(&value["format"]).unwrap_or_default(),
            expected,
            value,
        }
    }

    pub(crate) fn all(data: &str) -> Vec<Self> {
        data.lines()
            .map(|line| Self::new(serde_json::from_str(line).unwrap()))
            .collect()
    }

    /// Whether the types of the `http` crate can hold the request.
    pub(crate) fn fits_http_types(&self) -> bool {
        let request = &self.value["request"];
        let target = bytes(&request["target"]).unwrap();
        // A `Uri` drops its fragment.
        !target.contains(&b'#')
            && Uri::try_from(target).is_ok()
            && pairs(&request["headers"]).iter().all(|(name, value)| {
                HeaderName::from_bytes(name).is_ok() && HeaderValue::from_bytes(value).is_ok()
            })
    }

    pub(crate) fn has_tag(&self, tag: &str) -> bool {
        let tags = self.value["tags"].as_array();
        tags.is_some_and(|tags| tags.iter().any(|known| known == tag))
    }

    pub(crate) fn zone(&self) -> Zone {
        Zone::named(self.value["clock"]["tz"].as_str().unwrap()).unwrap()
    }

    fn instants(&self) -> (Timestamp, Option<Timestamp>, Timestamp) {
        let clock = &self.value["clock"];
        let begin = clock["begin_usec"].as_i64().unwrap();
        let first = self.value["facts"]["ttfb_usec"].as_i64();
        (
            Timestamp::from_micros(begin),
            first.map(|first| Timestamp::from_micros(begin + first)),
            Timestamp::from_micros(clock["end_usec"].as_i64().unwrap()),
        )
    }

    fn address(&self, name: &str) -> Option<SocketAddr> {
        let conn = &self.value["conn"];
        let address: IpAddr = conn[format!("{name}_addr")].as_str()?.parse().unwrap();
        let port = conn[format!("{name}_port")].as_u64().unwrap_or(0);
        Some((address, port.try_into().unwrap()).into())
    }

    fn client(&self) -> Option<IpAddr> {
        let client = self.value["conn"]["client_addr"].as_str()?;
        Some(client.parse().unwrap())
    }

    fn connection_status(&self) -> Option<ConnectionStatus> {
        Some(match self.value["facts"]["conn_status"].as_str()? {
            "X" => ConnectionStatus::Aborted,
            "+" => ConnectionStatus::KeepAlive,
            "-" => ConnectionStatus::Close,
            other => panic!("unknown connection status {other}"),
        })
    }

    /// Renders the line from bytes alone.
    pub(crate) fn render(&self, format: &LogFormat) -> Vec<u8> {
        let Value::Object(_) = self.value else {
            panic!("a record is an object");
        };
        let request = &self.value["request"];
        let response = &self.value["response"];
        let conn = &self.value["conn"];
        let facts = &self.value["facts"];
        let parsed = self.value.get("parsed").filter(|parsed| parsed.is_object());
        let (begin, first_byte, end) = self.instants();

        let request_line = parsed.and_then(|parsed| bytes(&parsed["request_line"]));
        let method = match parsed {
            Some(parsed) => bytes(&parsed["method"]),
            None => bytes(&request["method"]),
        };
        let target = match parsed {
            // What httpd took the target for, put together again.
            Some(parsed) => bytes(&parsed["uri"]).map(|mut uri| {
                if let Some(query) = bytes(&parsed["query"]) {
                    uri.push(b'?');
                    uri.extend(query);
                }
                uri
            }),
            None => bytes(&request["target"]),
        };
        let path = parsed.and_then(|parsed| bytes(&parsed["uri"]));
        let protocol = match parsed {
            Some(parsed) => bytes(&parsed["protocol"]),
            None => bytes(&request["version"]),
        };
        let request_headers = pairs(&request["headers"]);
        let request_headers = slices(&request_headers);
        let response_headers = pairs(&response["headers"]);
        let response_headers = slices(&response_headers);
        let trailers_in = pairs(&facts["trailers_in"]);
        let trailers_in = slices(&trailers_in);
        let trailers_out = pairs(&facts["trailers_out"]);
        let trailers_out = slices(&trailers_out);
        let env = table(&facts["env"]);
        let env = slices(&env);
        let notes = table(&facts["notes"]);
        let notes = slices(&notes);
        let remote_user = bytes(&facts["remote_user"]);
        let filename = bytes(&facts["filename"]);
        let handler = bytes(&facts["handler"]);
        let log_id = bytes(&facts["log_id"]);
        let conn_log_id = bytes(&facts["conn_log_id"]);
        let server_name = bytes(&conn["server_name"]);
        let client_host = bytes(&conn["client_host"]);
        let peer_host = bytes(&conn["peer_host"]);

        let mut exchange = Exchange::default();
        exchange.begin = begin;
        exchange.first_byte = first_byte;
        exchange.end = end;
        exchange.request_line = request_line.as_deref();
        exchange.method = method.as_deref().unwrap_or_default();
        exchange.target = target.as_deref().unwrap_or_default();
        exchange.path = path.as_deref();
        exchange.protocol = protocol.as_deref().unwrap_or_default();
        exchange.request_headers = Fields::from(&request_headers);
        exchange.request_trailers = Fields::from(&trailers_in);
        exchange.status = response["status"].as_u64().unwrap_or(0).try_into().unwrap();
        exchange.response_headers = Fields::from(&response_headers);
        exchange.response_trailers = Fields::from(&trailers_out);
        exchange.body_bytes = response["body_bytes"].as_u64().unwrap_or(0);
        exchange.connection_status = self.connection_status();
        exchange.peer = self.address("peer");
        exchange.local = self.address("local");
        exchange.client = self.client();
        exchange.client_host = client_host.as_deref();
        exchange.peer_host = peer_host.as_deref();
        exchange.keepalives = facts["keepalives"]
            .as_u64()
            .map(|count| count.try_into().unwrap());
        exchange.bytes_received = facts["bytes_in"].as_u64();
        exchange.bytes_sent = facts["bytes_out"].as_u64();
        exchange.server_name = server_name.as_deref();
        exchange.server_port = conn["server_port"]
            .as_u64()
            .map(|port| port.try_into().unwrap());
        exchange.use_canonical_name = conn["use_canonical_name"].as_bool().unwrap_or(false);
        exchange.process_id = facts["pid"].as_u64().map(|id| id.try_into().unwrap());
        exchange.thread_id = facts["tid"].as_u64();
        exchange.remote_user = remote_user.as_deref();
        exchange.env = Fields::from(&env);
        exchange.notes = Fields::from(&notes);
        exchange.request_id = log_id.as_deref();
        exchange.connection_id = conn_log_id.as_deref();
        exchange.handler = handler.as_deref();
        exchange.filename = filename.as_deref();

        let mut line = Vec::new();
        format.write(&exchange, &mut line);
        assert_eq!(line.pop(), Some(b'\n'), "a line ends with a line feed");
        line
    }

    /// Sends the request through the layer and returns the line.
    pub(crate) fn send(&self, format: &LogFormat) -> Vec<u8> {
        let conn = &self.value["conn"];
        let facts = &self.value["facts"];
        let (begin, first_byte, end) = self.instants();

        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let lines = Arc::clone(&lines);
            move |line: &[u8]| {
                lines.lock().unwrap().push(line.to_vec());
                Ok(())
            }
        };
        let instants = match first_byte {
            Some(first_byte) => vec![begin, first_byte, end],
            None => vec![begin, end],
        };
        let reads = AtomicUsize::new(0);
        let clock = move || {
            let read = reads.fetch_add(1, Ordering::Relaxed);
            instants[read.min(instants.len() - 1)]
        };
        let mut layer = AccessLogLayer::new(format.clone(), sink)
            .redaction(Redaction::none())
            .clock(clock);
        if let Some(name) = bytes(&conn["server_name"]) {
            layer = layer.server_name(name);
        }
        if let Some(port) = conn["server_port"].as_u64() {
            layer = layer.server_port(port.try_into().unwrap());
        }
        if let Some(canonical) = conn["use_canonical_name"].as_bool() {
            layer = layer.use_canonical_name(canonical);
        }
        if let Some(id) = facts["pid"].as_u64() {
            layer = layer.process_id(id.try_into().unwrap());
        }

        let (request, response) = (self.request(), self.response());
        let head = request.method() == Method::HEAD;
        let response = Mutex::new(Some(response));
        let service = service_fn(move |_: Request<Full<Bytes>>| {
            let response = response.lock().unwrap().take();
            async move { Ok::<_, std::convert::Infallible>(response.unwrap()) }
        });
        let mut service = layer.layer(service);
        let run = async {
            let response = service.ready().await.unwrap().call(request).await.unwrap();
            if !head {
                response.into_body().collect().await.unwrap();
            }
        };
        block_on(run);
        let mut lines = lines.lock().unwrap();
        assert_eq!(lines.len(), 1, "{}: one request, one line", self.id);
        let mut line = lines.pop().unwrap();
        assert_eq!(line.pop(), Some(b'\n'), "a line ends with a line feed");
        line
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let request = &self.value["request"];
        let conn = &self.value["conn"];
        let facts = &self.value["facts"];
        let version = match request["version"].as_str().unwrap() {
            "HTTP/0.9" => Version::HTTP_09,
            "HTTP/1.0" => Version::HTTP_10,
            "HTTP/1.1" => Version::HTTP_11,
            "HTTP/2.0" => Version::HTTP_2,
            other => panic!("{}: version {other}", self.id),
        };
        let mut uri = bytes(&request["target"]).unwrap();
        let mut headers = pairs(&request["headers"]);
        if version == Version::HTTP_2 && uri.starts_with(b"/") {
            // A server of HTTP/2 hands the authority on as part of the URI.
            let host = headers.iter().position(|(name, _)| name == b"Host");
            let (_, host) = headers.remove(host.unwrap());
            uri.splice(0..0, [b"http://", &host[..]].concat());
        }
        let body = request["body_bytes"].as_u64().unwrap_or(0);
        let mut built = Request::builder()
            .method(Method::from_bytes(&bytes(&request["method"]).unwrap()).unwrap())
            .uri(Uri::try_from(uri).unwrap())
            .version(version)
            .body(Full::from(vec![b'z'; body.try_into().unwrap()]))
            .unwrap();
        *built.headers_mut() = header_map(&headers);

        let extensions = built.extensions_mut();
        if let Some(peer) = self.address("peer") {
            let mut connection = ConnectionInfo::new(peer);
            if let Some(local) = self.address("local") {
                connection = connection.local(local);
            }
            if let Some(host) = conn["peer_host"].as_str() {
                connection = connection.host(host);
            }
            if let Some(count) = facts["keepalives"].as_u64() {
                connection = connection.keepalives(count.try_into().unwrap());
            }
            if let Some(id) = facts["conn_log_id"].as_str() {
                connection = connection.id(id);
            }
            extensions.insert(connection);
        }
        if let Some(client) = self.client() {
            extensions.insert(ClientIp::new(client));
        }
        if let Some(host) = conn["client_host"].as_str() {
            extensions.insert(ClientHost::from(host));
        }
        if let Some(status) = self.connection_status() {
            extensions.insert(status);
        }
        let (notes, env) = (Notes::new(), Env::new());
        for (name, value) in table(&facts["notes"]) {
            notes.set(String::from_utf8(name).unwrap(), value);
        }
        for (name, value) in table(&facts["env"]) {
            env.set(String::from_utf8(name).unwrap(), value);
        }
        extensions.insert(notes);
        extensions.insert(env);
        let trailers = RequestTrailers::new();
        trailers.set(header_map(&pairs(&facts["trailers_in"])));
        extensions.insert(trailers);
        let wire = WireBytes::new();
        if let (Some(received), sent) = (facts["bytes_in"].as_u64(), facts["bytes_out"].as_u64()) {
            wire.add_received(received);
            wire.add_sent(sent.unwrap_or(0));
            extensions.insert(wire);
        } else if let Some(sent) = facts["bytes_out"].as_u64() {
            wire.add_sent(sent);
            extensions.insert(wire);
        }
        built
    }

    fn response(&self) -> Response<Full<Bytes>> {
        let response = &self.value["response"];
        let facts = &self.value["facts"];
        let body = response["body_bytes"].as_u64().unwrap_or(0);
        let mut built = Response::new(Full::from(vec![b'z'; body.try_into().unwrap()]));
        *built.status_mut() = u16::try_from(response["status"].as_u64().unwrap())
            .unwrap()
            .try_into()
            .unwrap();
        *built.headers_mut() = header_map(&pairs(&response["headers"]));
        let extensions = built.extensions_mut();
        if let Some(user) = bytes(&facts["remote_user"]) {
            extensions.insert(RemoteUser::new(user));
        }
        if let Some(id) = facts["log_id"].as_str() {
            extensions.insert(RequestId::from(id));
        }
        if let Some(name) = facts["filename"].as_str() {
            extensions.insert(Filename::from(name));
        }
        if let Some(name) = facts["handler"].as_str() {
            extensions.insert(Route::from(name));
        }
        built
    }
}

/// Runs a future that never has to wait.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("the future waits"),
    }
}

/// Reads a byte string; `None` for null and for what is not there.
pub(crate) fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Object(object) => Some(base64(object["b64"].as_str().unwrap())),
        _ => None,
    }
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn pairs(value: &Value) -> Pairs {
    let pair = |pair: &Value| (bytes(&pair[0]).unwrap(), bytes(&pair[1]).unwrap());
    value.as_array().into_iter().flatten().map(pair).collect()
}

fn table(value: &Value) -> Pairs {
    let pair =
        |(name, value): (&String, &Value)| (name.clone().into_bytes(), bytes(value).unwrap());
    value.as_object().into_iter().flatten().map(pair).collect()
}

fn slices(pairs: &Pairs) -> Vec<(&[u8], &[u8])> {
    pairs
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect()
}

fn header_map(pairs: &Pairs) -> HeaderMap {
    let header = |(name, value): &(Vec<u8>, Vec<u8>)| {
        (
            HeaderName::from_bytes(name).unwrap(),
            HeaderValue::from_bytes(value).unwrap(),
        )
    };
    let mut map = HeaderMap::new();
    for (name, value) in pairs.iter().map(header) {
        map.append(name, value);
    }
    map
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("not base64: {other}"),
    };
    let text = text.trim_end_matches('=').as_bytes();
    let mut decoded = Vec::new();
    for group in text.chunks(4) {
        let bits = group
            .iter()
            .fold(0_u32, |bits, &byte| bits << 6 | u32::from(digit(byte)));
        let bits = bits << (6 * (4 - group.len()));
        decoded.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    decoded
}
