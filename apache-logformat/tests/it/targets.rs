//! Request targets in all their forms, and the protocols that carry them.

use apache_logformat::{AccessLogLayer, Escape, Exchange, Fields, LogFormat};
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Empty;
use tower::{Layer, Service};

use crate::{
    lines::{Lines, answer},
    record::block_on,
};

/// Returns what `format` prints of a request with this method and target.
fn print(format: &str, method: &str, target: &str, host: &str) -> String {
    let format: LogFormat = format.parse().unwrap();
    let headers = [(&b"Host"[..], host.as_bytes())];
    let mut exchange = Exchange::default();
    exchange.method = method.as_bytes();
    exchange.target = target.as_bytes();
    exchange.protocol = b"HTTP/1.1";
    exchange.request_headers = Fields::from(&headers);
    let mut line = Vec::new();
    format.write(&exchange, &mut line);
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

/// Sends one request through a layer of `format` and returns the line.
fn send(format: &str, method: &str, target: &str, version: Version) -> String {
    let lines = Lines::default();
    let layer: AccessLogLayer = lines.layer(format);
    let mut service = layer.layer(answer(
        |_: Request<()>| Response::new(Empty::<Bytes>::new()),
    ));
    let request = Request::builder()
        .method(method)
        .uri(target)
        .version(version)
        .header("host", "Field.Example")
        .body(())
        .unwrap();
    block_on(service.call(request)).unwrap();
    lines.only()
}

#[test]
fn path_query_and_host_are_found_in_each_form_of_a_target() {
    for (method, target, expected) in [
        ("GET", "/a//b?c=d", "/a/b ?c=d field.example Field.Example"),
        // An authority is no path.
        (
            "CONNECT",
            "Tunnel.Example:443",
            "/  field.example Field.Example",
        ),
        ("OPTIONS", "*", "*  field.example Field.Example"),
        (
            "GET",
            "http://Abs.Example:8080/a?b",
            "/a ?b abs.example abs.example:8080",
        ),
        ("GET", "http://Abs.Example", "/  abs.example abs.example"),
        (
            "GET",
            "http://Abs.Example?b",
            "/ ?b abs.example abs.example",
        ),
    ] {
        let got = print("%U %q %V %{Host}i", method, target, "Field.Example");
        assert_eq!(got, expected, "{method} {target}");
    }
}

#[test]
fn path_of_a_tunnel_is_the_root_in_the_layer_too() {
    let got = send("%r %U", "CONNECT", "tunnel.example:443", Version::HTTP_11);
    assert_eq!(got, "CONNECT tunnel.example:443 HTTP/1.1 /");
}

#[test]
fn password_with_an_at_sign_in_it_is_masked_whole() {
    let got = print("%r", "GET", "http://user:p@ss@a.example/x", "");
    assert_eq!(got, "GET http://user:XXXXXXXX@a.example/x HTTP/1.1");
}

#[test]
fn protocols_are_named_as_httpd_names_them() {
    for (version, expected) in [
        // Such a request ends with its target.
        (Version::HTTP_09, "GET /a?b|HTTP/0.9"),
        (Version::HTTP_10, "GET /a?b HTTP/1.0|HTTP/1.0"),
        (Version::HTTP_11, "GET /a?b HTTP/1.1|HTTP/1.1"),
        (Version::HTTP_2, "GET /a?b HTTP/2.0|HTTP/2.0"),
        (Version::HTTP_3, "GET /a?b HTTP/3.0|HTTP/3.0"),
    ] {
        assert_eq!(send("%r|%H", "GET", "/a?b", version), expected);
    }
}

#[test]
fn host_and_question_mark_are_found_as_nginx_finds_them() {
    let format = LogFormat::nginx("$host|$is_args", Escape::Nginx).unwrap();
    for (target, host, expected) in [
        ("/a?b", "A.Example:8080", "a.example|?"),
        // Without arguments there is no mark before them either.
        ("/a?", "a.example.", "a.example|"),
        ("/a", "[2001:DB8::1]:80", "[2001:db8::1]|"),
        ("/a", "[2001:DB8::1]", "[2001:db8::1]|"),
        ("/a", "[2001:DB8::1", "[2001:db8::1|"),
        // Hosts that nginx refuses.
        ("/a", "a..example", "own.example|"),
        ("/a", "a/example", "own.example|"),
        ("/a", "", "own.example|"),
    ] {
        let headers = [(&b"Host"[..], host.as_bytes())];
        let mut exchange = Exchange::default();
        exchange.method = b"GET";
        exchange.target = target.as_bytes();
        exchange.request_headers = Fields::from(&headers);
        exchange.server_name = Some(b"own.example");
        let mut line = Vec::new();
        format.write(&exchange, &mut line);
        let line = String::from_utf8(line).unwrap();
        assert_eq!(line.trim_end(), expected, "{target} {host:?}");
    }
}
