use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use graceful_listener::{PortName, Ports};
use proptest::prelude::*;

fn parse(text: &str) -> Vec<(PortName, i32)> {
    let ports: Ports = text.parse().unwrap();
    ports.iter().map(|(name, fd)| (name.clone(), fd)).collect()
}

fn refusal(text: &str) -> String {
    text.parse::<Ports>().unwrap_err().to_string()
}

fn host(host: &str, port: u16) -> PortName {
    PortName::Host(host.into(), port)
}

fn path(path: &str) -> PortName {
    PortName::Path(path.into())
}

#[test]
fn every_form_that_server_starter_writes_is_read() {
    let forms = [
        ("8080=4", PortName::Port(8080), 4),
        ("0=0", PortName::Port(0), 0),
        ("65535=7", PortName::Port(65535), 7),
        ("127.0.0.1:8080=5", host("127.0.0.1", 8080), 5),
        ("1:8080=3", host("1", 8080), 3),
        ("example.com:80=5", host("example.com", 80), 5),
        ("[::1]:8080=6", host("::1", 8080), 6),
        ("[::]:0=6", host("::", 0), 6),
        ("::1:8080=6", host("::1", 8080), 6),
        ("[fe80::1%eth0]:80=6", host("fe80::1%eth0", 80), 6),
        ("[127.0.0.1]:80=6", host("127.0.0.1", 80), 6),
        ("/run/app.sock=8", path("/run/app.sock"), 8),
        ("/run/a=1.sock=8", path("/run/a=1.sock"), 8),
        ("/run/80:80=8", path("/run/80:80"), 8),
        ("app.sock=8", path("app.sock"), 8),
        ("app:sock=8", path("app:sock"), 8),
        ("./8080=8", path("./8080"), 8),
    ];
    for (text, name, fd) in forms {
        assert_eq!(parse(text), [(name, fd)], "{text}");
    }
}

#[test]
fn entries_keep_their_order() {
    let ports = parse("0=9;0=4;[::1]:0=5;/tmp/s=3");
    let fds: Vec<_> = ports.iter().map(|(_, fd)| *fd).collect();
    assert_eq!(fds, [9, 4, 5, 3]);
}

#[test]
fn empty_text_is_no_sockets() {
    assert!("".parse::<Ports>().unwrap().is_empty());
    assert_eq!(Ports::new().to_os_string(), "");
}

#[test]
fn garbage_is_refused_with_the_entry_and_the_reason() {
    let table = [
        ("8080", "`8080` has no descriptor"),
        ("80=3;8081", "`8081` has no descriptor"),
        (";", "entry is empty"),
        ("8080=3;", "entry is empty"),
        (";8080=3", "entry is empty"),
        ("8080=", "descriptor of `8080=` is not a number"),
        ("8080=x", "descriptor of `8080=x` is not a number"),
        ("8080=-1", "descriptor of `8080=-1` is not a number"),
        ("8080=+3", "descriptor of `8080=+3` is not a number"),
        ("8080= 3", "descriptor of `8080= 3` is not a number"),
        (
            "8080=2147483648",
            "descriptor of `8080=2147483648` is not a number",
        ),
        ("=3", "`=3` has no name"),
        (
            "65536=3",
            "port of `65536=3` is not a number from 0 to 65535",
        ),
        (
            "a:65536=3",
            "port of `a:65536=3` is not a number from 0 to 65535",
        ),
        (":8080=3", "host of `:8080=3`"),
        ("[]:8080=3", "host of `[]:8080=3`"),
        ("a b:8080=3", "host of `a b:8080=3`"),
        ("1:2:8080=3", "host of `1:2:8080=3`"),
        ("[::1:8080=3", "host of `[::1:8080=3`"),
        (
            "80=3;81=3",
            "descriptor of `81=3` is already another entry's",
        ),
    ];
    for (text, expected) in table {
        let refusal = refusal(text);
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
}

#[test]
fn names_that_would_not_read_back_are_not_written() {
    let names = [
        path("/a;b"),
        path("8080"),
        path("::1:80"),
        path(""),
        path("/a\0"),
        host("", 80),
        host("a/b", 80),
        host("a b", 80),
        host("[::1]", 80),
    ];
    for name in names {
        let mut ports = Ports::new();
        assert!(ports.push(name.clone(), 3).is_err(), "{name:?}");
        assert!(ports.is_empty());
    }
}

#[test]
fn a_descriptor_is_pushed_once_and_never_negative() {
    let mut ports = Ports::new();
    ports.push(PortName::Port(80), 3).unwrap();
    assert!(ports.push(PortName::Port(81), 3).is_err());
    assert!(ports.push(PortName::Port(81), -1).is_err());
    assert_eq!(ports.len(), 1);
}

#[test]
fn paths_need_not_be_utf8() {
    let text = OsStr::from_bytes(b"/run/\xff.sock=3");
    let ports = Ports::parse(text).unwrap();
    let name = PortName::Path(OsString::from_vec(b"/run/\xff.sock".to_vec()).into());
    assert_eq!(ports.iter().collect::<Vec<_>>(), [(&name, 3)]);
    assert_eq!(ports.to_os_string(), text);
}

fn name() -> impl Strategy<Value = PortName> {
    let host_text = prop_oneof![
        "[a-zA-Z0-9._-]{1,20}",
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|address| address.to_string()),
    ];
    let path = prop::collection::vec(any::<u8>(), 0..20).prop_map(|mut bytes| {
        bytes.retain(|byte| !b"\0;".contains(byte));
        bytes.insert(0, b'/');
        PortName::Path(PathBuf::from(OsString::from_vec(bytes)))
    });
    prop_oneof![
        any::<u16>().prop_map(PortName::Port),
        (host_text, any::<u16>()).prop_map(|(host, port)| PortName::Host(host, port)),
        path,
    ]
}

proptest! {
    #[test]
    fn print_then_parse_is_the_identity(
        names in prop::collection::vec(name(), 0..5),
        first in 0..1000,
    ) {
        let mut ports = Ports::new();
        for (name, fd) in names.into_iter().zip(first..) {
            ports.push(name, fd).unwrap();
        }
        prop_assert_eq!(&Ports::parse(&ports.to_os_string()).unwrap(), &ports);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_what_parses_prints(bytes in any::<Vec<u8>>()) {
        if let Ok(ports) = Ports::parse(OsStr::from_bytes(&bytes)) {
            prop_assert_eq!(&Ports::parse(&ports.to_os_string()).unwrap(), &ports);
        }
    }

    #[test]
    fn almost_right_text_never_panics_and_what_parses_prints(text in "[0-9:;=\\[\\]/.a%u ]{0,24}") {
        if let Ok(ports) = text.parse::<Ports>() {
            prop_assert_eq!(&Ports::parse(&ports.to_os_string()).unwrap(), &ports);
        }
    }
}
