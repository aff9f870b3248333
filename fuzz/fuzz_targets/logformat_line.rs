//! Any bytes as the values of a request: they stay in their fields.

#![no_main]

use std::sync::LazyLock;

use apache_logformat::{Escape, Exchange, Fields, LogFormat};
use libfuzzer_sys::fuzz_target;

const TEXT: &str = r#""%r" "%m" "%U" "%q" "%H" "%V" "%L" "%f" "%R" "%{a}i" "%{Host}i" "%{Cookie}i" "%{a}C" "%{b}C" "%{a}o" "%{Content-Type}o" "%{Set-Cookie}o" "%{a}n" "%{a}^ti""#;
const FIELDS: usize = 19;

static FORMATS: LazyLock<[LogFormat; 3]> = LazyLock::new(|| {
    [Escape::Apache, Escape::Json, Escape::Nginx].map(|escape| {
        TEXT.parse::<LogFormat>().expect("a format").with_escape(escape)
    })
});

fuzz_target!(|data: &[u8]| {
    let mut values = data.split(|&byte| byte == 0xfe);
    let mut next = || values.next().unwrap_or_default();
    let (a, host, cookie, set_cookie) = (next(), next(), next(), next());
    let headers = [
        (&b"a"[..], a),
        (b"Host", host),
        (b"Cookie", cookie),
        (b"Set-Cookie", set_cookie),
        (b"Content-Type", a),
        (b"Cookie", set_cookie),
    ];
    let mut exchange = Exchange::default();
    exchange.method = next();
    exchange.target = next();
    exchange.protocol = next();
    exchange.request_id = Some(next());
    exchange.filename = Some(next());
    exchange.handler = Some(next());
    exchange.server_name = Some(next());
    exchange.request_headers = Fields::from(&headers);
    exchange.response_headers = Fields::from(&headers);
    exchange.request_trailers = Fields::from(&headers);
    exchange.notes = Fields::from(&headers);
    for format in &*FORMATS {
        let mut line = Vec::new();
        format.write(&exchange, &mut line);
        assert_eq!(line.pop(), Some(b'\n'));
        let line = String::from_utf8(line).expect("a line is UTF-8");
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert_eq!(quoted_fields(&line), FIELDS, "{line}");
    }
});

fn quoted_fields(line: &str) -> usize {
    let (mut fields, mut quoted, mut escaped) = (0, false, false);
    for byte in line.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => {
                quoted = !quoted;
                fields += usize::from(!quoted);
            }
            b' ' => {}
            _ => assert!(quoted, "{line}"),
        }
    }
    fields
}
