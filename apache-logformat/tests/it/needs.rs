//! Nothing is captured that no format prints, and everything that one does.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use apache_logformat::{
    AccessLogLayer, ClientHost, ConnectionInfo, Env, Escape, Filename, LogFormat, Notes, Output,
    Redaction, RemoteUser, RequestId, RequestTrailers, Route, Timestamp, TlsInfo, TrustedProxies,
    WireBytes, Zone,
};
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::BodyExt;
use tower::{Layer, Service};

use crate::{
    lines::{Lines, Script, Step, answer},
    record::block_on,
};

/// Directives and what they print of the request below.
const DIRECTIVES: &[(&str, &str)] = &[
    ("%a", "203.0.113.5"),
    ("%{c}a", "10.0.0.1"),
    ("%A", "10.0.0.2"),
    ("%B", "5"),
    ("%b", "5"),
    ("%{version}c", "TLSv1.3"),
    ("%{sid}C", "7"),
    ("%D", "2500000"),
    ("%{ms}T", "2500"),
    ("%{x}e", "env"),
    ("%f", "/srv/a"),
    ("%h", "client.example"),
    ("%{c}h", "peer.example"),
    ("%H", "HTTP/1.1"),
    ("%{Host}i", "abs.example:81"),
    ("%{X-In}i", "in"),
    ("%I", "100"),
    ("%k", "3"),
    ("%L", "request"),
    ("%{c}L", "connection"),
    ("%m", "POST"),
    ("%{x}n", "note"),
    ("%{X-Out}o", "out"),
    ("%O", "20"),
    ("%p", "443"),
    ("%{local}p", "8443"),
    ("%{remote}p", "0"),
    ("%P", "42"),
    ("%q", "?b=c"),
    ("%r", "POST http://abs.example:81/a?b=c HTTP/1.1"),
    ("%R", "/{a}"),
    ("%s", "207"),
    ("%S", "120"),
    ("%t", "[01/Jan/1970:00:00:01 +0000]"),
    ("%{end:usec}t", "3500000"),
    ("%u", "frank"),
    ("%U", "/a"),
    ("%v", "own.example"),
    ("%V", "abs.example"),
    ("%{SSL_CIPHER}x", "AES"),
    ("%X", "-"),
    ("%^FB", "500000"),
    ("%{X-Sum}^ti", "1"),
    ("%{X-Sum}^to", "2"),
];

const VARIABLES: &[(&str, &str)] = &[
    ("$arg_b", "c"),
    ("$args", "b=c"),
    ("$body_bytes_sent", "5"),
    ("$bytes_sent", "20"),
    ("$cookie_sid", "7"),
    ("$host", "abs.example"),
    ("$http_x_in", "in"),
    ("$is_args", "?"),
    ("$msec", "3.500"),
    ("$pid", "42"),
    ("$remote_addr", "203.0.113.5"),
    ("$remote_port", "0"),
    ("$remote_user", "frank"),
    ("$request", "POST http://abs.example:81/a?b=c HTTP/1.1"),
    ("$request_id", "request"),
    ("$request_length", "100"),
    ("$request_method", "POST"),
    ("$request_time", "2.500"),
    ("$request_uri", "/a?b=c"),
    ("$scheme", "https"),
    ("$sent_http_x_out", "out"),
    ("$server_addr", "10.0.0.2"),
    ("$server_name", "own.example"),
    ("$server_port", "8443"),
    ("$server_protocol", "HTTP/1.1"),
    ("$ssl_cipher", "AES"),
    ("$status", "207"),
    ("$time_iso8601", "1970-01-01T00:00:03+00:00"),
    ("$time_local", "01/Jan/1970:00:00:03 +0000"),
    ("$uri", "/a"),
];

/// Sends one request, of which everything is known, through a layer.
fn send(layer: AccessLogLayer) {
    // Time stands still until the request's next stage.
    let now = Arc::new(AtomicI64::new(1_000_000));
    let clock = Arc::clone(&now);
    let at_head = Arc::clone(&now);
    let mut service = layer
        .redaction(Redaction::none())
        .trusted_proxies(TrustedProxies::new(["10.0.0.0/8"]).unwrap())
        .server_name("own.example")
        .process_id(42)
        .clock(move || Timestamp::from_micros(clock.load(Ordering::Relaxed)))
        .layer(answer(move |request: Request<()>| {
            let extensions = request.extensions();
            let trailers = |value| HeaderMap::from_iter([("x-sum".parse().unwrap(), value)]);
            if let Some(place) = extensions.get::<RequestTrailers>() {
                place.set(trailers(HeaderValue::from_static("1")));
            }
            if let Some(notes) = extensions.get::<Notes>() {
                notes.set("x", "note");
            }
            if let Some(env) = extensions.get::<Env>() {
                env.set("x", "env");
            }
            at_head.store(1_500_000, Ordering::Relaxed);
            let steps = [
                Step::Data("hello"),
                Step::Trailers(trailers(HeaderValue::from_static("2"))),
            ];
            let mut response = Response::new(Script::new(steps));
            *response.status_mut() = 207.try_into().unwrap();
            let headers = response.headers_mut();
            headers.insert("x-out", HeaderValue::from_static("out"));
            headers.insert("connection", HeaderValue::from_static("close"));
            let extensions = response.extensions_mut();
            extensions.insert(RemoteUser::new("frank"));
            extensions.insert(Route::new("/{a}"));
            extensions.insert(Filename::new("/srv/a"));
            response
        }));

    let mut request = Request::post("http://abs.example:81/a?b=c")
        .header("host", "other.example")
        .header("x-in", "in")
        .header("cookie", "sid=7")
        .header("x-forwarded-for", "203.0.113.5")
        .body(())
        .unwrap();
    let connection = ConnectionInfo::new(([10, 0, 0, 1], 4711).into())
        .local(([10, 0, 0, 2], 8443).into())
        .host("peer.example")
        .id("connection")
        .keepalives(3)
        .tls(
            TlsInfo::new()
                .with("SSL_PROTOCOL", "TLSv1.3")
                .with("SSL_CIPHER", "AES"),
        );
    let wire = WireBytes::new();
    wire.add_received(100);
    wire.add_sent(20);
    let extensions = request.extensions_mut();
    extensions.insert(connection);
    extensions.insert(wire);
    extensions.insert(ClientHost::from("client.example"));
    extensions.insert(RequestId::from("request"));

    let response = block_on(service.call(request)).unwrap();
    now.store(3_500_000, Ordering::Relaxed);
    block_on(response.into_body().collect()).unwrap();
}

fn line(format: LogFormat) -> String {
    let lines = Lines::default();
    send(AccessLogLayer::new(
        format.with_zone(Zone::utc()),
        lines.clone(),
    ));
    lines.only()
}

#[test]
fn each_directive_alone_has_all_that_it_prints() {
    for (text, expected) in DIRECTIVES {
        assert_eq!(line(text.parse().unwrap()), *expected, "{text}");
    }
}

#[test]
fn each_variable_alone_has_all_that_it_prints() {
    for (text, expected) in VARIABLES {
        let format = LogFormat::nginx(text, Escape::Nginx).unwrap();
        assert_eq!(line(format), *expected, "{text}");
    }
}

#[test]
fn all_directives_together_print_the_same() {
    let texts: Vec<&str> = DIRECTIVES.iter().map(|(text, _)| *text).collect();
    let expected: Vec<&str> = DIRECTIVES.iter().map(|(_, value)| *value).collect();
    let format = texts.join("|").parse().unwrap();
    assert_eq!(line(format), expected.join("|"));
}

#[test]
fn facts_that_no_format_prints_are_not_captured() {
    // A second output's filter looks at what the first one's format captured.
    let layer = AccessLogLayer::new("%s".parse().unwrap(), Lines::default()).output(
        Output::new("%s".parse().unwrap(), Lines::default()).filter(|exchange| {
            // What filters may always look at.
            assert_eq!(exchange.method, b"POST");
            assert_eq!(exchange.client_ip(), Some([203, 0, 113, 5].into()));
            assert_eq!(exchange.duration().as_millis(), 2500);
            assert_eq!(exchange.status, 207);

            assert_eq!(exchange.first_byte, None);
            assert!(exchange.request_headers.get("host").is_none());
            assert!(exchange.request_headers.get("x-in").is_none());
            assert!(exchange.request_headers.get("connection").is_none());
            assert!(exchange.cookies.unwrap().get("cookie").is_none());
            assert!(exchange.request_trailers.get("x-sum").is_none());
            assert!(exchange.response_headers.get("x-out").is_none());
            assert!(exchange.response_trailers.get("x-sum").is_none());
            assert_eq!(exchange.client_host, None);
            assert_eq!(exchange.keepalives, None);
            assert_eq!(exchange.remote_user, None);
            assert_eq!(exchange.request_id, None);
            assert_eq!(exchange.handler, None);
            assert_eq!(exchange.filename, None);
            assert_eq!(exchange.bytes_received, None);
            assert_eq!(exchange.process_id, None);
            assert!(exchange.notes.get("x").is_none());
            assert!(exchange.env.get("x").is_none());
            true
        }),
    );
    let failures = layer.failures();
    send(layer.on_failure(|error, _| eprintln!("{error}")));
    assert_eq!(failures.count(), 0, "a panic in the filter is a failure");
}

#[test]
fn authority_of_http_2_stands_for_the_host_field() {
    for (format, expected) in [
        ("%{Host}i", "abs.example:81"),
        ("%V", "abs.example"),
        ("%r", "GET /a HTTP/2.0"),
    ] {
        let lines = Lines::default();
        let mut service = lines
            .layer(format)
            .layer(answer(|_: Request<()>| Response::new(Script::new([]))));
        let request = Request::get("https://abs.example:81/a")
            .version(Version::HTTP_2)
            .body(())
            .unwrap();
        let response = block_on(service.call(request)).unwrap();
        block_on(response.into_body().collect()).unwrap();
        assert_eq!(lines.only(), expected, "{format}");
    }
}
