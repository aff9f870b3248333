//! The host that a request names.

use apache_logformat::{Escape, Exchange, Fields, LogFormat};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tower::{Layer, Service};

use crate::{
    lines::{Lines, answer},
    record::block_on,
};

#[test]
fn host_name_is_the_requests_unless_it_is_canonical() {
    for (canonical, uri, host, expected) in [
        (
            false,
            "/",
            Some("Shop.Example.ORG:8080"),
            "shop.example.org",
        ),
        (true, "/", Some("shop.example.org"), "main.example.net"),
        (false, "/", None, "main.example.net"),
        (false, "/", Some(""), "main.example.net"),
        (false, "/", Some("a..b"), "main.example.net"),
        (false, "/", Some("a b"), "main.example.net"),
        (false, "/", Some("12345"), "main.example.net"),
        (false, "/", Some("1.2.3"), "main.example.net"),
        (false, "/", Some("1.2.3.04"), "main.example.net"),
        (false, "/", Some("1.2.3.4"), "1.2.3.4"),
        (false, "/", Some("a.1b"), "main.example.net"),
        (false, "/", Some("localhost."), "localhost"),
        (false, "/", Some("[::1]:80"), "::1"),
        (false, "/", Some("[FE80::A]"), "fe80::a"),
        (false, "/", Some("[nonsense]"), "main.example.net"),
        (
            false,
            "http://Other.example:81/x",
            Some("shop.example.org"),
            "other.example",
        ),
        (
            false,
            "http://user:pw@other.example/x",
            None,
            "other.example",
        ),
    ] {
        let lines = Lines::default();
        let mut service = lines
            .layer("%V")
            .server_name("main.example.net")
            .use_canonical_name(canonical)
            .layer(answer(
                |_: Request<()>| Response::new(Empty::<Bytes>::new()),
            ));
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        block_on(service.call(request.body(()).unwrap())).unwrap();
        assert_eq!(lines.only(), expected, "{uri} {host:?}");
    }
}

/// Returns what `format` prints of a request with this target and `Host` field.
fn print(format: &LogFormat, target: &str, host: Option<&str>) -> String {
    let fields = host.map(|host| (&b"Host"[..], host.as_bytes()));
    let mut exchange = Exchange::default();
    exchange.method = b"GET";
    exchange.target = target.as_bytes();
    exchange.protocol = b"HTTP/1.1";
    exchange.request_headers = Fields::from(fields.as_slice());
    exchange.server_name = Some(b"own.example");
    let mut line = Vec::new();
    format.write(&exchange, &mut line);
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

/// As httpd 2.4.71 answers and prints them.
#[test]
fn host_that_httpd_takes_is_printed_without_its_port_and_dot() {
    let format = "%V".parse().unwrap();
    for (host, expected) in [
        ("x.example:65535", "x.example"),
        ("x.example:00080", "x.example"),
        ("x.example:1", "x.example"),
        ("x.example:0000065535", "x.example"),
        ("[::1]:80", "::1"),
        ("[::ffff:1.2.3.4]", "::ffff:1.2.3.4"),
        ("[::FFFF:1.2.3.4]:8", "::ffff:1.2.3.4"),
        ("1.2.3.4.", "1.2.3.4"),
        ("1.2.3.4.:80", "1.2.3.4"),
        ("-a.b", "-a.b"),
        ("a.b-", "a.b-"),
        ("a-.b", "a-.b"),
        ("a_", "a_"),
        ("_", "_"),
        (".a", ".a"),
        ("1.a", "1.a"),
        ("1a", "1a"),
        ("1.2.3.256", "1.2.3.256"),
        ("a.b1", "a.b1"),
        ("a.b.c.d.e.:443", "a.b.c.d.e"),
    ] {
        assert_eq!(print(&format, "/", Some(host)), expected, "{host:?}");
    }
}

/// As httpd 2.4.71 refuses them.
#[test]
fn host_that_httpd_refuses_leaves_the_servers_own_name() {
    let format = "%V".parse().unwrap();
    for host in [
        "x.example:70000",
        "x.example:65536",
        "x.example:0",
        "x.example:00",
        "[::1]:99999",
        "[::1]:0",
        "[fe80::1%eth0]",
        "[::1]x",
        "[]",
        "[::1].",
        "a..b",
        "..a",
        "a.1",
        "0x7f.1",
        "1.2.3.04",
        "1.2.3.4.5",
        "1.2.3",
        "12345",
        "é",
        "a%41",
        "a.b:",
        "a.b::",
        "a:80:80",
        "a:b",
        "a:8o",
        "a:+80",
        "a: 80",
        "A..",
        "a.-b",
        "a.1b",
        "x.example:99999999999999999999",
        "x.example:18446744073709551696",
        ":80",
        "",
        "a'b",
        "a\"b",
        "a\\b",
        "a/b",
        "a@b",
        "u@a:80",
        "*",
        "[1.2.3.4]",
        "[::1%25lo]",
    ] {
        assert_eq!(print(&format, "/", Some(host)), "own.example", "{host:?}");
    }
}

/// As httpd 2.4.71 and nginx 1.22.1 print them over HTTP/2.
#[test]
fn authority_of_http_2_stands_for_the_field() {
    let httpd = "%V %{Host}i".parse().unwrap();
    let nginx = LogFormat::nginx("$host $http_host", Escape::Nginx).unwrap();
    for (authority, of_httpd, of_nginx) in [
        (
            "X.Example:81",
            "x.example X.Example:81",
            "x.example X.Example:81",
        ),
        ("[::1]:8", "::1 [::1]:8", "[::1] [::1]:8"),
        // A port that is none makes httpd refuse it.
        (
            "x.example:70000",
            "own.example x.example:70000",
            "x.example x.example:70000",
        ),
    ] {
        let mut exchange = Exchange::default();
        exchange.target = b"/";
        exchange.protocol = b"HTTP/2.0";
        exchange.authority = Some(authority.as_bytes());
        exchange.server_name = Some(b"own.example");
        for (format, expected) in [(&httpd, of_httpd), (&nginx, of_nginx)] {
            let format: &LogFormat = format;
            let mut line = Vec::new();
            format.write(&exchange, &mut line);
            assert_eq!(
                String::from_utf8(line).unwrap().trim_end(),
                expected,
                "{authority}"
            );
        }
    }
}

/// As httpd 2.4.71 prints them.
#[test]
fn host_of_an_absolute_target_takes_the_place_of_the_field() {
    let format = "%V %{Host}i".parse().unwrap();
    for (authority, name, field) in [
        ("X.Example", "x.example", "x.example"),
        ("x.example.", "x.example", "x.example"),
        ("X.Example.:81", "x.example", "x.example:81"),
        ("x.example:", "x.example", "x.example:"),
        ("x.example.:", "x.example", "x.example:"),
        ("x.example:00080", "x.example", "x.example:00080"),
        // Its port is not looked at.
        ("x.example:0", "x.example", "x.example:0"),
        ("x.example:70000", "x.example", "x.example:70000"),
        ("[::1]:8", "::1", "[::1]:8"),
        ("[::1]", "::1", "[::1]"),
        ("1.2.3.4.", "1.2.3.4", "1.2.3.4"),
    ] {
        let target = format!("http://{authority}/x");
        for host in ["field.example", ""] {
            let got = print(&format, &target, Some(host));
            assert_eq!(got, format!("{name} {field}"), "{target} {host:?}");
        }
        // A field that the client did not send is not made up.
        let got = print(&format, &target, None);
        assert_eq!(got, format!("{name} -"), "{target} without a field");
    }
}

/// As nginx 1.22.1 prints them.
#[test]
fn host_that_nginx_takes_is_lowered_before_it_is_escaped() {
    let format = LogFormat::nginx("$host", Escape::Nginx).unwrap();
    for (host, expected) in [
        (r#"A"B\C"#, r"a\x22b\x5Cc"),
        ("É.Example:8", r"\xC3\x89.example"),
        ("x.example:99999", "x.example"),
        ("x.example:b", "x.example"),
        ("x.example.:80", "x.example"),
        ("x.example:8.0", "x.example"),
        (".x", ".x"),
        ("a?b", "a?b"),
        ("a[B]:c", "a[b]"),
        ("[::1.]:80", "[::1.]"),
        ("[A].", "[a]"),
        (r#"[A"]:1"#, r"[a\x22]"),
        // A bracket that stays open is a part of the name, colons and all.
        ("[2001:DB8::1", "[2001:db8::1"),
        ("[A.", "[a"),
    ] {
        assert_eq!(print(&format, "/", Some(host)), expected, "{host:?}");
    }
    let json = format.with_escape(Escape::Json);
    assert_eq!(print(&json, "/", Some(r#"A"B\C"#)), r#"a\"b\\c"#);
    assert_eq!(print(&json, "/", Some("É.Example")), "É.example");
}

/// As nginx 1.22.1 refuses them.
#[test]
fn host_that_nginx_refuses_leaves_the_servers_own_name() {
    let format = LogFormat::nginx("$host", Escape::Nginx).unwrap();
    for host in [
        "", ".", "a..", "a..b", "a..:80", "a:..", ":80", "a b", "a\tb", "a/b", "a:b/c", "a: b",
        "a:\u{7f}", "[..]", "[a/b]", "[a]b/c",
    ] {
        assert_eq!(print(&format, "/", Some(host)), "own.example", "{host:?}");
    }
}

/// As nginx 1.22.1 keeps what its configuration says; httpd leaves it as it is.
#[test]
fn own_name_is_lowered_for_nginx_alone() {
    let mut exchange = Exchange::default();
    exchange.server_name = Some(b"Own.Example");
    for (format, expected) in [
        (
            LogFormat::nginx("$server_name $host", Escape::Nginx),
            "own.example own.example\n",
        ),
        ("%v %V".parse(), "Own.Example Own.Example\n"),
    ] {
        let mut line = Vec::new();
        format.unwrap().write(&exchange, &mut line);
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }
}
