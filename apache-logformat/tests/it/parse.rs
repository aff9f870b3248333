//! Format texts of both notations.

use apache_logformat::{Escape, Exchange, Fields, LogFormat, ParseError, Timestamp};
use proptest::{collection::vec, prelude::*};

fn parse(text: &[u8]) -> Result<LogFormat, ParseError> {
    LogFormat::try_from(text)
}

#[test]
fn usual_formats_are_those_of_httpd() {
    for (format, text) in [
        (LogFormat::common(), r#"%h %l %u %t "%r" %>s %b"#),
        (
            LogFormat::combined(),
            r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i""#,
        ),
        (
            LogFormat::combinedio(),
            r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" %I %O"#,
        ),
        (LogFormat::vhost_common(), r#"%v %h %l %u %t "%r" %>s %b"#),
        (
            LogFormat::vhost_combined(),
            r#"%v:%p %h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i""#,
        ),
        (LogFormat::referer(), "%{Referer}i -> %U"),
        (LogFormat::agent(), "%{User-agent}i"),
    ] {
        assert_eq!(format.to_string(), text);
        assert_eq!(format.as_bytes(), text.as_bytes());
        assert_eq!(format, text.parse().unwrap());
        assert_eq!(format, text.try_into().unwrap());
        assert_eq!(format, String::from(text).try_into().unwrap());
    }
    assert_eq!("cLf".parse::<LogFormat>().unwrap(), LogFormat::common());
    assert_ne!(LogFormat::common(), LogFormat::combined());
}

#[test]
fn errors_say_what_and_where() {
    for (text, message, offset, shown) in [
        (
            "%h %Z",
            "Unrecognized LogFormat directive %Z",
            4,
            "  %h %Z\n      ^",
        ),
        (
            "%h %{Referer",
            "Ran off end of LogFormat parsing args to some directive",
            3,
            "  %h %{Referer\n     ^",
        ),
        (
            "%{x}200!Z",
            "Unrecognized LogFormat directive %Z",
            8,
            "  %{x}200!Z\n          ^",
        ),
        (
            "%h%^ab",
            "Unrecognized LogFormat directive %^",
            3,
            "  %h%^ab\n     ^",
        ),
        (
            "é\t%é",
            "Unrecognized LogFormat directive %\\xc3",
            4,
            "  é %é\n     ^",
        ),
        (
            "%",
            "Ran off end of LogFormat parsing args to some directive",
            0,
            "  %\n  ^",
        ),
    ] {
        let error = text.parse::<LogFormat>().unwrap_err();
        assert_eq!(error.message(), message);
        assert_eq!(error.offset(), offset, "{text}");
        assert_eq!(
            error.to_string(),
            format!("{message} at byte {offset}\n{shown}")
        );
    }
}

#[test]
fn empty_format_is_refused() {
    for error in [
        parse(b"").unwrap_err(),
        LogFormat::nginx("", Escape::Nginx).unwrap_err(),
    ] {
        assert_eq!(error.message(), "the log format is empty");
        assert_eq!(error.to_string(), "the log format is empty at byte 0");
    }
}

#[test]
fn nginx_errors_name_the_variable() {
    for (text, message, offset) in [
        ("a $upstream_addr", "unknown \"upstream_addr\" variable", 2),
        ("${nope}", "unknown \"nope\" variable", 0),
        ("$status$", "invalid parameter \"$status$\"", 7),
        ("$ status", "invalid parameter \"$ status\"", 0),
        ("${}", "invalid parameter \"${}\"", 0),
        (
            "x${status",
            "the closing bracket in \"status\" variable is missing",
            1,
        ),
        (
            "${status x}",
            "the closing bracket in \"status\" variable is missing",
            0,
        ),
        ("$http_", "unknown \"http_\" variable", 0),
        ("$arg_", "unknown \"arg_\" variable", 0),
    ] {
        let error = LogFormat::nginx(text, Escape::Nginx).unwrap_err();
        assert_eq!(error.message(), message, "{text}");
        assert_eq!(error.offset(), offset, "{text}");
    }
}

#[test]
fn nginx_variables_may_be_braced_and_in_any_case() {
    let mut exchange = Exchange::default();
    exchange.method = b"GET";
    exchange.target = b"/a?B=1&b=2&c";
    exchange.status = 7;
    let format = LogFormat::nginx(
        "${status}00 $STATUS$request_method% \\n $arg_b|$arg_C|$Arg_x|$args|$is_args",
        Escape::Nginx,
    )
    .unwrap();
    let mut line = Vec::new();
    format.write(&exchange, &mut line);
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "00700 007GET% \\n 1|-|-|B=1&b=2&c|?\n"
    );
}

#[test]
fn nginx_joins_cookies_and_forwarded_addresses_and_prints_the_first_of_others() {
    let format = "$http_cookie|$http_x_forwarded_for|$http_accept";
    let format = LogFormat::nginx(format, Escape::Nginx).unwrap();
    let fields = [
        (&b"Cookie"[..], &b"a=1"[..]),
        (b"X-Forwarded-For", b"192.0.2.1"),
        (b"Accept", b"text/html"),
        (b"Cookie", b"b=2"),
        (b"X-Forwarded-For", b"192.0.2.2"),
        (b"Accept", b"*/*"),
    ];
    let mut exchange = Exchange::default();
    exchange.protocol = b"HTTP/1.1";
    exchange.request_headers = Fields::from(&fields);
    let mut line = Vec::new();
    format.write(&exchange, &mut line);
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "a=1; b=2|192.0.2.1, 192.0.2.2|text/html\n"
    );
}

#[test]
fn request_time_of_nginx_is_zero_when_the_clock_was_set_back() {
    let format = LogFormat::nginx("$request_time", Escape::Nginx).unwrap();
    for (begin, end, expected) in [
        (5_000, 0, "0.000\n"),
        // The difference of milliseconds, not of microseconds.
        (1_999, 2_000, "0.001\n"),
        (0, 61_002_999, "61.002\n"),
    ] {
        let mut exchange = Exchange::default();
        exchange.begin = Timestamp::from_micros(begin);
        exchange.end = Timestamp::from_micros(end);
        let mut line = Vec::new();
        format.write(&exchange, &mut line);
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }
}

#[test]
fn formats_are_equal_when_they_print_the_same() {
    let parse = |text: &str| text.parse::<LogFormat>().unwrap();
    assert_eq!(parse("clf"), LogFormat::common());
    assert_eq!(parse("%<s%,>b"), parse("%>s%b"));
    assert_ne!(parse("%s"), parse("%b"));
    assert_ne!(parse("%s"), parse("%200s"));
    assert_ne!(parse("%s"), parse("%s").with_escape(Escape::Nginx));
    // An absent value of nginx's JSON is empty.
    let nginx = |escape| LogFormat::nginx("$request_method", escape).unwrap();
    assert_eq!(nginx(Escape::Nginx), parse("%m").with_escape(Escape::Nginx));
    assert_ne!(nginx(Escape::Json), parse("%m").with_escape(Escape::Json));
}

#[test]
fn debug_shows_the_text() {
    let shown = format!("{:?}", LogFormat::common());
    assert!(shown.contains("%h %l %u"), "{shown}");
}

/// Texts that look like formats.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        vec(any::<u8>(), 0..6),
        "[%!<>,0-9{}^a-zA-Z\\\\ \"]{0,12}".prop_map(String::into_bytes),
        "%[!<>,0-9]{0,4}(\\{[^}]{0,8}\\}+)?[a-zA-Z^]".prop_map(String::into_bytes),
        "\\$\\{?[a-z_0-9]{0,16}\\}?".prop_map(String::into_bytes),
    ];
    vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn printing_and_parsing_again_gives_the_same_format(text in text()) {
        match parse(&text) {
            Ok(format) => {
                prop_assert_eq!(format.as_bytes(), &*text);
                prop_assert_eq!(&format, &parse(format.as_bytes()).unwrap());
                if let Ok(text) = std::str::from_utf8(&text) {
                    prop_assert_eq!(format.to_string(), text);
                }
            }
            Err(error) => {
                prop_assert!(error.offset() <= text.len());
                let shown = error.to_string();
                prop_assert!(shown.starts_with(&error.message()));
                let lines = if text.is_empty() { 1 } else { 3 };
                prop_assert_eq!(shown.lines().count(), lines);
            }
        }
        match LogFormat::nginx(&text, Escape::Json) {
            Ok(format) => prop_assert_eq!(format.as_bytes(), &*text),
            Err(error) => prop_assert!(error.offset() <= text.len()),
        }
    }

    #[test]
    fn every_format_prints_one_line_feed_at_the_end(text in text()) {
        let exchange = Exchange::default();
        for format in [parse(&text), LogFormat::nginx(&text, Escape::Nginx)].into_iter().flatten() {
            let mut line = b"before".to_vec();
            format.write(&exchange, &mut line);
            prop_assert!(line.starts_with(b"before") && line.ends_with(b"\n"));
        }
    }
}

#[test]
fn conditions_look_at_the_status() {
    for (text, status, expected) in [
        ("%200m", 200, "GET"),
        ("%200m", 201, "-"),
        ("%!200m", 200, "-"),
        ("%!200m", 404, "GET"),
        ("%!200,404m", 404, "-"),
        ("%200!,404m", 404, "-"),
        ("%!!200m", 404, "-"),
        ("%!m", 200, "GET"),
        // Without a response there is no status, and none is in no list.
        ("%200m", 0, "-"),
        ("%0m", 200, "-"),
        ("%!200m", 0, "GET"),
    ] {
        let mut exchange = Exchange::default();
        exchange.method = b"GET";
        exchange.status = status;
        let mut line = Vec::new();
        let format: LogFormat = text.parse().unwrap();
        format.write(&exchange, &mut line);
        assert_eq!(
            String::from_utf8(line).unwrap().trim_end(),
            expected,
            "{text} {status}"
        );
    }
}
