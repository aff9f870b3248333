//! Paths as `%U` prints them.

use apache_logformat::{Exchange, LogFormat};

#[test]
fn paths_are_resolved_as_httpd_resolves_them() {
    // Written by httpd 2.4.71, with `AllowEncodedSlashes On`. What it refuses it
    // prints before it decodes any but the unreserved characters.
    let format: LogFormat = "%U".parse().unwrap();
    for (target, expected) in [
        ("/a%zz/%20x", "/a%zz/%20x"),
        ("/a%zz/%41?x", "/a%zz/A"),
        ("/%4", "/%4"),
        ("/%", "/%"),
        ("/../x", "/x"),
        ("/a/../../b%20c", "/b%20c"),
        ("/%2e%2e/x%20", "/x%20"),
        ("/a%20/..%zz", "/a%20/..%zz"),
        ("/a/%2e%2e%2fb", "/b"),
        ("/a%2f..%2fb", "/b"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/a/./", "/a/"),
        ("/a/b/..%2f", "/a/"),
        ("//a", "/a"),
        ("/a//b//", "/a/b/"),
        ("/%2f%2f", "/"),
        ("/.%2e/x%21", "/x%21"),
        ("/%2E./y", "/y"),
        ("/a/.%2e/b%3f", "/b?"),
        ("/...", "/..."),
        ("/a..", "/a.."),
        ("/..a", "/..a"),
        ("/a/%2e", "/a/"),
        ("/%7e%2D", "/~-"),
        ("/a%25zz%20", "/a%zz "),
        ("*", "*"),
        ("/a;b/../c", "/c"),
        ("/%c3%28", r"/\xc3("),
        ("/a/../..//", "/"),
        ("/a/%2E%2E/%2E%2E/b", "/b"),
    ] {
        let mut exchange = Exchange::default();
        exchange.method = b"GET";
        exchange.target = target.as_bytes();
        let mut line = Vec::new();
        format.write(&exchange, &mut line);
        let line = String::from_utf8(line).unwrap();
        assert_eq!(line.trim_end_matches('\n'), expected, "{target}");
        if !expected.contains('\\') {
            assert_eq!(&*exchange.path(), expected.as_bytes(), "{target}");
        }
    }
}

#[test]
fn path_that_is_told_is_not_taken_from_the_target() {
    let format: LogFormat = "%U %r".parse().unwrap();
    let mut exchange = Exchange::default();
    exchange.method = b"GET";
    exchange.target = b"/a/../b";
    exchange.path = Some(b"/index.html\n");
    let mut line = Vec::new();
    format.write(&exchange, &mut line);
    assert_eq!(line, b"/index.html\\n GET /a/../b\n");
    assert_eq!(&*exchange.path(), b"/index.html\n");
}
