//! The host that a request names.

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
