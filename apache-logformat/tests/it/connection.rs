//! What a server tells the layer of a request's connection.

use std::net::{IpAddr, SocketAddr};

use apache_logformat::{
    ClientHost, ClientIp, ConnectionInfo, ConnectionStatus, RequestId, TlsInfo,
};
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version, header};
use http_body::SizeHint;
use http_body_util::{BodyExt, Empty};
use tower::{Layer, Service};

use crate::{
    lines::{Lines, Script, Step, answer, line, of_request, of_response},
    record::block_on,
};

pub(crate) fn peer() -> SocketAddr {
    ([192, 0, 2, 7], 50123).into()
}

#[test]
fn client_host_is_printed_in_place_of_the_address() {
    let got = of_request("%h %a %{c}h %{c}a", |extensions| {
        extensions.insert(ConnectionInfo::new(peer()).host("proxy.example.com"));
        extensions.insert(ClientIp::new([198, 51, 100, 1].into()));
        extensions.insert(ClientHost::from("client.example.com"));
    });
    assert_eq!(
        got,
        "client.example.com 198.51.100.1 proxy.example.com 192.0.2.7"
    );
}

#[test]
fn addresses_are_those_of_the_connection() {
    let got = of_request("%h %a %{c}a %A %{remote}p %{local}p %p", |extensions| {
        let local = ([203, 0, 113, 9], 8080).into();
        extensions.insert(ConnectionInfo::new(peer()).local(local));
    });
    assert_eq!(
        got,
        "192.0.2.7 192.0.2.7 192.0.2.7 203.0.113.9 50123 8080 -"
    );
}

#[test]
fn addresses_are_printed_in_their_shortest_form() {
    for (address, expected) in [
        ("::1", "::1"),
        ("::ffff:192.0.2.128", "192.0.2.128"),
        ("2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("::", "::"),
        ("2001:db8::1:0:0:0", "2001:db8:0:0:1::"),
        // As `inet_ntop` prints them.
        ("::ffff", "::ffff"),
        ("::1:2", "::0.1.0.2"),
        ("::102:304", "::1.2.3.4"),
        ("::1:0:0", "::1:0:0"),
        ("64:ff9b::102:304", "64:ff9b::102:304"),
        ("255.255.255.255", "255.255.255.255"),
        ("0.0.0.0", "0.0.0.0"),
        ("100.10.1.0", "100.10.1.0"),
        ("99.101.200.9", "99.101.200.9"),
    ] {
        let address: IpAddr = address.parse().unwrap();
        let got = of_request("%a %h %{c}a", |extensions| {
            extensions.insert(ConnectionInfo::new((address, 1).into()));
        });
        assert_eq!(got, format!("{expected} {expected} {expected}"));
    }
}

#[test]
fn connection_without_addresses_prints_dashes() {
    let got = of_request("%a %A %k", |extensions| {
        extensions.insert(ConnectionInfo::unnamed().keepalives(3));
    });
    assert_eq!(got, "- - 3");
}

#[test]
fn closure_tells_the_connection_from_any_extension() {
    let got = line(
        "%a %A",
        |layer| {
            layer.connection(|extensions| {
                let (peer, local) = extensions.get::<(SocketAddr, SocketAddr)>()?;
                Some(ConnectionInfo::new(*peer).local(*local))
            })
        },
        |extensions| {
            extensions.insert((peer(), SocketAddr::from(([10, 0, 0, 1], 80))));
            extensions.insert(ConnectionInfo::new(([9, 9, 9, 9], 9).into()));
        },
        |_, _| {},
    );
    assert_eq!(got, "192.0.2.7 10.0.0.1");
}

#[test]
fn extension_serves_when_the_closure_knows_nothing() {
    let got = line(
        "%a",
        |layer| layer.connection(|_| None),
        |extensions| {
            extensions.insert(ConnectionInfo::new(peer()));
        },
        |_, _| {},
    );
    assert_eq!(got, "192.0.2.7");
}

#[test]
fn closure_that_panics_does_not_hurt_the_request() {
    let got = line(
        "%a %>s",
        |layer| layer.connection(|_| panic!("in the closure")),
        |extensions| {
            extensions.insert(ConnectionInfo::new(peer()));
        },
        |_, _| {},
    );
    assert_eq!(got, "192.0.2.7 200");
}

#[test]
fn connect_info_of_axum_is_the_peer() {
    let got = of_request("%a %{remote}p", |extensions| {
        extensions.insert(ConnectInfo(peer()));
    });
    assert_eq!(got, "192.0.2.7 50123");
}

#[test]
fn connection_info_is_believed_before_axums_connect_info() {
    let got = of_request("%{c}a", |extensions| {
        extensions.insert(ConnectionInfo::new(peer()));
        extensions.insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))));
    });
    assert_eq!(got, "192.0.2.7");
}

#[test]
fn connection_counts_its_requests() {
    let lines = Lines::default();
    let mut service =
        lines.layer("%k").layer(answer(
            |_: Request<()>| Response::new(Empty::<Bytes>::new()),
        ));
    let (one, other) = (
        ConnectionInfo::new(peer()).count_requests(),
        ConnectionInfo::new(peer()).count_requests(),
    );
    for connection in [&one, &one, &other, &one] {
        let mut request = Request::new(());
        request.extensions_mut().insert(connection.clone());
        block_on(service.call(request)).unwrap();
    }
    assert_eq!(lines.get(), ["0", "1", "0", "2"]);
}

#[test]
fn tls_facts_are_printed_by_their_names_in_mod_ssl() {
    let tls = TlsInfo::new()
        .with("SSL_PROTOCOL", "TLSv1.3")
        .with("SSL_CIPHER", "TLS_AES_256_GCM_SHA384")
        .with("SSL_TLS_SNI", "a\"\nb")
        .with("SSL_CLIENT_S_DN", "");
    let format = "%{SSL_PROTOCOL}x %{ssl_cipher}x %{SSL_TLS_SNI}x %{version}c %{cipher}c \
                  %{subjectdn}c %{SSL_CLIENT_S_DN}x %{other}x %{other}c %p";
    let got = line(
        format,
        |layer| layer.server_name("a"),
        |extensions| {
            extensions.insert(ConnectionInfo::new(peer()).tls(tls));
        },
        |_, _| {},
    );
    assert_eq!(
        got,
        r#"TLSv1.3 TLS_AES_256_GCM_SHA384 a\"\nb TLSv1.3 TLS_AES_256_GCM_SHA384 - - - - 443"#
    );
}

#[test]
fn connection_id_is_told_apart_from_the_request_id() {
    let got = of_request("%L %{c}L %{x}L", |extensions| {
        extensions.insert(ConnectionInfo::new(peer()).id("conn"));
        extensions.insert(RequestId::from("req"));
    });
    assert_eq!(got, "req conn req");
}

#[test]
fn connection_status_can_be_told() {
    for (status, expected) in [
        (ConnectionStatus::Close, "-"),
        (ConnectionStatus::KeepAlive, "+"),
        (ConnectionStatus::Aborted, "X"),
    ] {
        assert_eq!(
            of_response("%X", move |extensions| {
                extensions.insert(status);
            }),
            expected
        );
    }
}

#[test]
fn connection_status_follows_version_and_fields() {
    for (version, request, response, expected) in [
        (Version::HTTP_11, None, None, "+"),
        (Version::HTTP_11, Some("close"), None, "-"),
        (Version::HTTP_11, Some("Keep-Alive, CLOSE"), None, "-"),
        (Version::HTTP_11, Some("upgrade"), None, "+"),
        (Version::HTTP_11, None, Some("close"), "-"),
        (Version::HTTP_10, None, None, "-"),
        (Version::HTTP_10, Some("keep-alive"), None, "+"),
        (Version::HTTP_10, Some("keep-alive"), Some("close"), "-"),
        (Version::HTTP_2, None, None, "-"),
    ] {
        let lines = Lines::default();
        let service = answer(move |_: Request<()>| {
            let mut built = Response::builder();
            if let Some(value) = response {
                built = built.header(header::CONNECTION, value);
            }
            built.body(Empty::<Bytes>::new()).unwrap()
        });
        let mut built = Request::builder().version(version);
        if let Some(value) = request {
            built = built.header(header::CONNECTION, value);
        }
        let mut service = lines.layer("%X").layer(service);
        block_on(service.call(built.body(()).unwrap())).unwrap();
        assert_eq!(
            lines.only(),
            expected,
            "{version:?} {request:?} {response:?}"
        );
    }
}

#[test]
fn body_of_unknown_length_ends_a_connection_of_http_1_0() {
    let known = |bytes| SizeHint::with_exact(bytes);
    for (version, size, told, expected) in [
        (Version::HTTP_10, SizeHint::default(), None, "-"),
        (Version::HTTP_10, known(5), None, "+"),
        (Version::HTTP_11, SizeHint::default(), None, "+"),
        (
            Version::HTTP_10,
            SizeHint::default(),
            Some(ConnectionStatus::KeepAlive),
            "+",
        ),
    ] {
        let lines = Lines::default();
        let service = answer(move |_: Request<()>| {
            let mut body = Script::new([Step::Data("hello")]);
            body.size = size;
            let mut built = Response::new(body);
            if let Some(told) = told {
                built.extensions_mut().insert(told);
            }
            built
        });
        let mut service = lines.layer("%X").layer(service);
        let send = |method| {
            let request = Request::builder()
                .method(method)
                .version(version)
                .header(header::CONNECTION, "keep-alive");
            request.body(()).unwrap()
        };
        let response = block_on(service.call(send("GET"))).unwrap();
        block_on(response.into_body().collect()).unwrap();
        // Cut off, it is a lost one as ever; of HEAD there is no body.
        drop(block_on(service.call(send("GET"))).unwrap());
        block_on(service.call(send("HEAD"))).unwrap();
        let cut_off = if told.is_some() { "+" } else { "X" };
        assert_eq!(
            lines.get(),
            [expected, cut_off, "+"],
            "{version:?} {size:?} {told:?}"
        );
    }
}

/// As httpd 2.4.71 prints them, of a WebSocket and of a tunnel.
#[test]
fn connection_that_is_switched_serves_no_other_request() {
    for (method, status, expected) in [
        ("GET", 101, "-"),
        ("CONNECT", 200, "-"),
        ("CONNECT", 299, "-"),
        ("CONNECT", 300, "+"),
        ("CONNECT", 407, "+"),
        ("GET", 200, "+"),
    ] {
        let lines = Lines::default();
        let mut service = lines.layer("%X").layer(answer(move |_: Request<()>| {
            let mut built = Response::new(Empty::<Bytes>::new());
            *built.status_mut() = StatusCode::from_u16(status).unwrap();
            built
        }));
        let target = match method {
            "CONNECT" => "a.example:443",
            _ => "/",
        };
        let request = Request::builder().method(method).uri(target);
        block_on(service.call(request.body(()).unwrap())).unwrap();
        assert_eq!(lines.only(), expected, "{method} {status}");
    }
}
