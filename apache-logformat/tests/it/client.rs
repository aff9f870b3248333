//! The client's address behind proxies.

use apache_logformat::{ClientIp, ConnectionInfo, TrustedProxies};
use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body_util::Empty;
use proptest::prelude::*;
use tower::{Layer, Service};

use crate::{
    lines::{Lines, answer},
    record::block_on,
};

fn proxies() -> TrustedProxies {
    TrustedProxies::new(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]).unwrap()
}

/// Returns `%a %{c}a %h` of a request by `peer` with the fields `name`.
fn line(proxies: TrustedProxies, peer: &str, name: &str, values: &[&[u8]]) -> String {
    let lines = Lines::default();
    let mut service = lines
        .layer("%a %{c}a %h")
        .trusted_proxies(proxies)
        .layer(answer(
            |_: Request<()>| Response::new(Empty::<Bytes>::new()),
        ));
    let mut request = Request::get("/");
    for value in values {
        request = request.header(name, *value);
    }
    let mut request = request.body(()).unwrap();
    let peer = ConnectionInfo::new((peer.parse::<std::net::IpAddr>().unwrap(), 1).into());
    request.extensions_mut().insert(peer);
    block_on(service.call(request)).unwrap();
    lines.only()
}

fn client(proxies: TrustedProxies, peer: &str, name: &str, values: &[&str]) -> String {
    let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
    let line = line(proxies, peer, name, &values);
    let fields: Vec<&str> = line.split(' ').collect();
    assert_eq!(fields[0], fields[2], "%h is %a");
    let peer: std::net::IpAddr = peer.parse().unwrap();
    assert_eq!(
        fields[1],
        peer.to_canonical().to_string(),
        "%{{c}}a stays the peer"
    );
    fields[0].to_owned()
}

#[test]
fn list_of_proxies_tells_who_is_one() {
    let proxies = proxies();
    for (addr, trusted) in [
        ("10.0.0.0", true),
        ("10.255.255.255", true),
        ("9.255.255.255", false),
        ("11.0.0.0", false),
        ("192.0.2.1", true),
        ("192.0.2.0", false),
        ("192.0.2.2", false),
        ("::ffff:10.1.2.3", true),
        ("::ffff:11.1.2.3", false),
        ("::10.1.2.3", false),
        ("2001:db8::", true),
        ("2001:db8:ffff::1", true),
        ("2001:db9::", false),
    ] {
        assert_eq!(proxies.contains(addr.parse().unwrap()), trusted, "{addr}");
    }
    let nobody = TrustedProxies::new([""; 0]).unwrap();
    assert!(!nobody.contains([10, 1, 2, 3].into()));
    let mapped = TrustedProxies::new(["::ffff:10.0.0.0/104", "::ffff:192.0.2.7"]).unwrap();
    for (addr, trusted) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("11.1.2.3", false),
        ("192.0.2.7", true),
        ("192.0.2.8", false),
    ] {
        assert_eq!(mapped.contains(addr.parse().unwrap()), trusted, "{addr}");
    }
    let field_matters_not = TrustedProxies::new(["10.0.0.0/8"]).unwrap().forwarded();
    assert!(field_matters_not.contains([10, 1, 2, 3].into()));
}

#[test]
fn addresses_are_walked_from_the_right_past_trusted_proxies() {
    for (values, expected) in [
        (&[][..], "10.1.1.1"),
        (&["203.0.113.5"], "203.0.113.5"),
        // What the client wrote itself is never reached.
        (&["1.1.1.1, 203.0.113.5"], "203.0.113.5"),
        (&["1.1.1.1, 203.0.113.5, 10.2.2.2"], "203.0.113.5"),
        (
            &["1.1.1.1, 203.0.113.5,10.2.2.2 ,\t192.0.2.1"],
            "203.0.113.5",
        ),
        // Several fields are one list.
        (&["1.1.1.1", "203.0.113.5", "10.2.2.2"], "203.0.113.5"),
        // All are trusted: the leftmost.
        (&["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        // An entry that is no address ends the walk.
        (&["203.0.113.5, unknown, 10.2.2.2"], "10.2.2.2"),
        (&["203.0.113.5, unknown"], "10.1.1.1"),
        (&["203.0.113.5, 1.2.3, 10.2.2.2"], "10.2.2.2"),
        (&["203.0.113.5, , 10.2.2.2,"], "203.0.113.5"),
        (&[""], "10.1.1.1"),
        (&[" , ,"], "10.1.1.1"),
        // Ports and brackets are dropped.
        (&["203.0.113.5:4711"], "203.0.113.5"),
        (&["[2a00::1]:4711"], "2a00::1"),
        (&["[2a00::1]"], "2a00::1"),
        (&["2A00:0::1"], "2a00::1"),
        (&["203.0.113.5:99999"], "10.1.1.1"),
        (&["[2a00::1]x"], "10.1.1.1"),
        (&["[2a00::1"], "10.1.1.1"),
        (&["203.0.113.5:"], "10.1.1.1"),
        // IPv4 in IPv6 is IPv4, for trust as well.
        (&["::ffff:203.0.113.5"], "203.0.113.5"),
        (&["203.0.113.5, ::ffff:10.2.2.2"], "203.0.113.5"),
        (&["203.0.113.5, 2001:db8:1::1"], "203.0.113.5"),
    ] {
        let got = client(proxies(), "10.1.1.1", "x-forwarded-for", values);
        assert_eq!(got, expected, "{values:?}");
    }
}

#[test]
fn fields_of_untrusted_peers_are_ignored() {
    for peer in ["203.0.113.9", "192.0.2.2", "2001:db9::1", "11.0.0.1"] {
        let got = client(proxies(), peer, "x-forwarded-for", &["1.1.1.1"]);
        assert_eq!(got, peer);
    }
}

#[test]
fn peer_in_ipv6_clothes_is_trusted_as_ipv4() {
    let got = client(
        proxies(),
        "::ffff:10.1.1.1",
        "x-forwarded-for",
        &["203.0.113.5"],
    );
    assert_eq!(got, "203.0.113.5");
    let got = client(
        proxies(),
        "::ffff:11.1.1.1",
        "x-forwarded-for",
        &["203.0.113.5"],
    );
    assert_eq!(got, "11.1.1.1");
}

#[test]
fn peers_own_port_is_printed_unless_another_speaks() {
    for (client, expected) in [
        (None, "50123"),
        (Some("10.1.1.1"), "50123"),
        (Some("::ffff:10.1.1.1"), "50123"),
        (Some("203.0.113.5"), "0"),
    ] {
        for peer in ["10.1.1.1", "::ffff:10.1.1.1"] {
            let lines = Lines::default();
            let mut service = lines
                .layer("%{remote}p")
                .trusted_proxies(proxies())
                .layer(answer(
                    |_: Request<()>| Response::new(Empty::<Bytes>::new()),
                ));
            let mut request = Request::new(());
            let peer: std::net::IpAddr = peer.parse().unwrap();
            let extensions = request.extensions_mut();
            extensions.insert(ConnectionInfo::new((peer, 50123).into()));
            if let Some(client) = client {
                extensions.insert(ClientIp::new(client.parse().unwrap()));
            }
            block_on(service.call(request)).unwrap();
            assert_eq!(lines.only(), expected, "{client:?} {peer}");
        }
    }
}

#[test]
fn nobody_is_trusted_by_default() {
    let lines = Lines::default();
    let mut service =
        lines.layer("%a").layer(answer(
            |_: Request<()>| Response::new(Empty::<Bytes>::new()),
        ));
    let mut request = Request::get("/")
        .header("x-forwarded-for", "1.1.1.1")
        .body(())
        .unwrap();
    request
        .extensions_mut()
        .insert(ConnectionInfo::new(([127, 0, 0, 1], 1).into()));
    block_on(service.call(request)).unwrap();
    assert_eq!(lines.only(), "127.0.0.1");
}

#[test]
fn forwarded_is_read_when_it_is_chosen() {
    for (values, expected) in [
        (&["for=203.0.113.5"][..], "203.0.113.5"),
        (
            &["for=1.1.1.1, For=203.0.113.5;proto=https;by=10.0.0.1"],
            "203.0.113.5",
        ),
        (
            &["by=10.0.0.1; for = \"203.0.113.5:80\" , for=10.2.2.2"],
            "203.0.113.5",
        ),
        (&["for=\"[2a00::1]:4711\""], "2a00::1"),
        (&["for=203.0.113.5, for=unknown"], "10.1.1.1"),
        (&["for=203.0.113.5, for=_hidden, for=10.2.2.2"], "10.2.2.2"),
        (&["for=203.0.113.5, proto=https, for=10.2.2.2"], "10.2.2.2"),
        // A quotation mark left open cannot swallow what the proxy appended.
        (&["for=\"1.1.1.1, for=203.0.113.5"], "203.0.113.5"),
        (&["for=\"1.1.1.1", "for=203.0.113.5"], "203.0.113.5"),
        (&["for=\"a,b\", for=10.2.2.2"], "10.2.2.2"),
        // A comma between quotation marks ends no element.
        (&["for=203.0.113.5;host=\"a,b\""], "203.0.113.5"),
    ] {
        let got = client(proxies().forwarded(), "10.1.1.1", "forwarded", values);
        assert_eq!(got, expected, "{values:?}");
    }
}

#[test]
fn only_the_chosen_field_is_read() {
    let got = client(proxies(), "10.1.1.1", "forwarded", &["for=203.0.113.5"]);
    assert_eq!(got, "10.1.1.1");
    let got = client(
        proxies().forwarded(),
        "10.1.1.1",
        "x-forwarded-for",
        &["203.0.113.5"],
    );
    assert_eq!(got, "10.1.1.1");
    let real_ip = proxies().header(HeaderName::from_static("x-real-ip"));
    let got = client(real_ip, "10.1.1.1", "x-real-ip", &["203.0.113.5"]);
    assert_eq!(got, "203.0.113.5");
}

#[test]
fn address_that_the_service_found_out_wins() {
    let lines = Lines::default();
    let mut service = lines
        .layer("%a %{remote}p")
        .trusted_proxies(proxies())
        .layer(answer(
            |_: Request<()>| Response::new(Empty::<Bytes>::new()),
        ));
    let mut request = Request::get("/")
        .header("x-forwarded-for", "1.1.1.1")
        .body(())
        .unwrap();
    let extensions = request.extensions_mut();
    extensions.insert(ConnectionInfo::new(([10, 0, 0, 1], 4711).into()));
    extensions.insert(ClientIp::new([203, 0, 113, 5].into()));
    block_on(service.call(request)).unwrap();
    assert_eq!(lines.only(), "203.0.113.5 0");
}

#[test]
fn networks_that_are_none_are_refused() {
    for network in ["10.0.0.0/33", "example.com", "", "10.0.0", "::/129"] {
        let error = TrustedProxies::new(["10.0.0.0/8", network]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot trust `{network}`: it is neither an IP address nor a CIDR block")
        );
    }
}

proptest! {
    /// What a client sends cannot move the address behind a proxy that appends.
    #[test]
    fn client_cannot_choose_its_address(claimed in proptest::collection::vec("[ -~\t]{0,30}", 0..4)) {
        let mut values: Vec<&[u8]> = claimed.iter().map(|value| value.as_bytes()).collect();
        let appended = match values.pop() {
            Some(last) => [last, b", 203.0.113.5"].concat(),
            None => b"203.0.113.5".to_vec(),
        };
        values.push(&appended);
        let got = line(proxies(), "10.1.1.1", "x-forwarded-for", &values);
        prop_assert_eq!(got, "203.0.113.5 10.1.1.1 203.0.113.5");
    }

    #[test]
    fn client_cannot_choose_its_address_in_forwarded(claimed in "[ -~\t]{0,40}") {
        let appended = format!("{claimed}, for=\"203.0.113.5:99\";by=_p");
        let got = line(proxies().forwarded(), "10.1.1.1", "forwarded", &[appended.as_bytes()]);
        prop_assert_eq!(got, "203.0.113.5 10.1.1.1 203.0.113.5");
    }
}
