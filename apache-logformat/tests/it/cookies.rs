//! Single cookies, found as each server finds them.

use apache_logformat::{Escape, Exchange, Fields, LogFormat};

/// Returns what `format` prints of a request with these `Cookie` fields.
fn cookies(format: &LogFormat, values: &[&str]) -> String {
    let headers: Vec<_> = values
        .iter()
        .map(|value| (&b"cookie"[..], value.as_bytes()))
        .collect();
    let mut exchange = Exchange::default();
    exchange.protocol = b"HTTP/1.1";
    exchange.request_headers = Fields::from(&headers);
    let mut line = Vec::new();
    format.write(&exchange, &mut line);
    String::from_utf8(line)
        .unwrap()
        .trim_end_matches('\n')
        .into()
}

#[test]
fn cookies_are_found_as_httpd_finds_them() {
    let format: LogFormat = "%{a}C|%{B}C|%{}C".parse().unwrap();
    for (values, expected) in [
        (&["a=1; b=2"][..], "1|2|-"),
        (&["A = 1 ;\tb\t=\t2\t"], "1|2|-"),
        (&["a=1 ; b=2 ;"], "1|2 |-"),
        (&["a=1 ;;"], "1|-|-"),
        (&["a=; a=2;b"], "2|-|-"),
        (&["==a==x=y; =b=2"], "=x=y|-|b=2"),
        (&["a=\"q;b=r\""], "\\\"q|r\\\"|-"),
        (&["a= ;b=  "], "||-"),
        (&[" =x;a=%20"], "%20|-|x"),
        // Several fields are one, which spoils the cookies at the seams.
        (&["a=1", "b=2; a=3"], "1, b=2|-|-"),
        (&["", "a=1; b=2"], "-|2|-"),
        (&["", "", "b=2"], "-|-|-"),
        (&["a=1;", "b=2"], "1|-|-"),
    ] {
        assert_eq!(cookies(&format, values), expected, "{values:?}");
    }
}

#[test]
fn cookies_are_found_as_nginx_finds_them() {
    let format = LogFormat::nginx("$cookie_a|$cookie_B", Escape::Nginx).unwrap();
    for (values, expected) in [
        (&["a=1; b=2"][..], "1|2"),
        (&["x=a=1,  A  =  1 ;b="], "1 |"),
        (&["xa=1; a=2"], "2|-"),
        (&["a=1", "a=3; b=2"], "1|2"),
        // A name without its `=` hides the cookie behind it.
        (&["a; a=1; b=2"], "-|2"),
        (&["a ;a=1,b=2"], "-|2"),
        (&["a x; a=1"], "1|-"),
        (&["b", "b=2"], "-|2"),
        (&["a\t=1"], "-|-"),
    ] {
        assert_eq!(cookies(&format, values), expected, "{values:?}");
    }
}
