//! No byte of a request can leave its field.

use apache_logformat::{Escape, Exchange, Fields, LogFormat, Outcome, Zone};
use proptest::{collection::vec, option, prelude::*};

/// Values that a request, a response or a service supplies.
#[derive(Debug, Clone)]
struct Values {
    request_line: Option<Vec<u8>>,
    method: Vec<u8>,
    target: Vec<u8>,
    protocol: Vec<u8>,
    header: Vec<Vec<u8>>,
    cookie: Vec<Vec<u8>>,
    authority: Option<Vec<u8>>,
    facts: Vec<Option<Vec<u8>>>,
    status: u16,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    // All bytes, and more often than by chance those that mean something.
    let special =
        prop::sample::select(b"\"\\\n\r\t\0\x07\x1b\x7f\x80\x9b%/.;=,:@?#&[]{} \xc2\x85".to_vec());
    vec(prop_oneof![any::<u8>(), special], 0..40)
}

prop_compose! {
    fn values()(
        request_line in option::weighted(0.2, bytes()),
        method in bytes(),
        target in prop_oneof![bytes(), "/[ -~]{0,40}".prop_map(String::into_bytes)],
        protocol in bytes(),
        header in vec(bytes(), 0..4),
        cookie in vec(prop_oneof![bytes(), "a=[ -~]{0,20}(; a=x)?".prop_map(String::into_bytes)], 0..3),
        authority in option::of(bytes()),
        facts in vec(option::weighted(0.9, bytes()), 8),
        status in 0..600_u16,
    ) -> Values {
        Values { request_line, method, target, protocol, header, cookie, authority, facts, status }
    }
}

fn render(format: &LogFormat, values: &Values) -> Vec<u8> {
    let mut headers: Vec<(&[u8], &[u8])> = Vec::new();
    for value in &values.header {
        headers.push((b"X-A", value));
        headers.push((b"Host", value));
        headers.push((b"Set-Cookie", value));
        headers.push((b"Content-Type", value));
    }
    for value in &values.cookie {
        headers.push((b"cookie", value));
    }
    let named: Vec<(&[u8], &[u8])> = values
        .header
        .first()
        .map(|value| (&b"x"[..], &**value))
        .into_iter()
        .collect();
    let fact = |index: usize| values.facts[index].as_deref();
    let mut exchange = Exchange::default();
    exchange.request_line = values.request_line.as_deref();
    exchange.method = &values.method;
    exchange.target = &values.target;
    exchange.protocol = &values.protocol;
    exchange.authority = values.authority.as_deref();
    exchange.request_headers = Fields::from(&headers);
    exchange.response_headers = Fields::from(&headers);
    exchange.request_trailers = Fields::from(&headers);
    exchange.response_trailers = Fields::from(&headers);
    exchange.status = values.status;
    exchange.outcome = Outcome::Complete;
    exchange.remote_user = fact(0);
    exchange.client_host = fact(1);
    exchange.peer_host = fact(2);
    exchange.request_id = fact(3);
    exchange.connection_id = fact(4);
    exchange.handler = fact(5);
    exchange.filename = fact(6);
    exchange.server_name = fact(7);
    exchange.env = Fields::from(&named);
    exchange.notes = Fields::from(&named);
    exchange.tls = Some(Fields::from(&named));
    let mut line = Vec::new();
    format.write(&exchange, &mut line);
    line
}

/// Every directive that prints something of the values, each in quotes.
fn every_text(escape: Escape) -> LogFormat {
    let directives = "%h %{c}h %u %r %m %U %q %H %s %b %V %v %p %f %R %L %{c}L %X %{X-A}i %{Host}i \
         %{Cookie}i %{a}C %{X-A}o %{Set-Cookie}o %{Content-Type}o %{X-A}^ti %{X-A}^to %{x}e %{x}n \
         %{x}x %{x}c %t %D %{%FT%T%z}t";
    let quoted: Vec<String> = directives
        .split_whitespace()
        .map(|directive| format!("\"{directive}\""))
        .collect();
    let format: LogFormat = quoted.join(" ").parse().unwrap();
    format.with_zone(Zone::utc()).with_escape(escape)
}

fn every_nginx_text(escape: Escape) -> LogFormat {
    let text = "\"$request\" \"$request_uri\" \"$uri\" \"$args\" \"$is_args\" \"$arg_a\" \
        \"$cookie_a\" \"$http_x_a\" \"$http_host\" \"$http_cookie\" \"$sent_http_x_a\" \"$host\" \
        \"$remote_user\" \"$request_method\" \"$server_protocol\" \"$server_name\" \"$request_id\"";
    LogFormat::nginx(text, escape)
        .unwrap()
        .with_zone(Zone::utc())
}

/// Splits a line into its quoted fields; `None` if anything is outside of them.
fn quoted_fields(line: &[u8]) -> Option<usize> {
    let mut rest = line.strip_suffix(b"\n")?;
    let mut fields = 0;
    loop {
        rest = rest.strip_prefix(b"\"")?;
        loop {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            match byte {
                b'"' => break,
                b'\\' => rest = rest.get(1..)?,
                _ => {}
            }
        }
        fields += 1;
        if rest.is_empty() {
            return Some(fields);
        }
        rest = rest.strip_prefix(b" ")?;
    }
}

proptest! {
    #[test]
    fn no_value_adds_a_line_a_field_or_a_control_byte(values in values()) {
        for (format, fields) in [
            (every_text(Escape::Apache), 34),
            (every_text(Escape::Nginx), 34),
            (every_text(Escape::Json), 34),
            (every_nginx_text(Escape::Nginx), 17),
            (every_nginx_text(Escape::Apache), 17),
            (every_nginx_text(Escape::Json), 17),
        ] {
            let line = render(&format, &values);
            // A user that is empty prints as two quotation marks.
            let shown = line.escape_ascii().to_string();
            if values.facts[0].as_deref() != Some(b"") {
                prop_assert_eq!(quoted_fields(&line), Some(fields), "{}", shown);
            }
            let (end, body) = line.split_last().unwrap();
            prop_assert_eq!(*end, b'\n');
            let text = std::str::from_utf8(body);
            prop_assert!(text.is_ok(), "{}", shown);
            prop_assert!(!text.unwrap().chars().any(char::is_control), "{}", shown);
        }
    }

    #[test]
    fn apache_and_nginx_lines_are_printable_ascii(values in values()) {
        for format in [
            every_text(Escape::Apache),
            every_text(Escape::Nginx),
            every_nginx_text(Escape::Nginx),
        ] {
            let line = render(&format, &values);
            prop_assert!(line[..line.len() - 1].iter().all(|byte| (b' '..=b'~').contains(byte)));
        }
    }

    #[test]
    fn lines_that_are_json_objects_parse_whatever_the_bytes(values in values()) {
        for format in json_formats() {
            let line = render(&format, &values);
            let parsed: Result<serde_json::Map<String, serde_json::Value>, _> =
                serde_json::from_slice(&line);
            prop_assert!(parsed.is_ok(), "{} {:?}", line.escape_ascii(), parsed);
        }
    }

    #[test]
    fn json_keeps_text_as_it_is(text in "\\PC{0,40}|[\u{0}-\u{ff}]{0,20}") {
        let format: LogFormat = r#"{"a":"%{X-A}i"}"#.parse().unwrap();
        let headers = [(&b"x-a"[..], text.as_bytes())];
        let mut exchange = Exchange::default();
        exchange.request_headers = Fields::from(&headers);
        let mut line = Vec::new();
        format.with_escape(Escape::Json).write(&exchange, &mut line);
        let parsed: serde_json::Value = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(parsed["a"].as_str(), Some(&*text));
    }

    /// What is escaped can be told apart: the bytes can be had back.
    #[test]
    fn apache_escapes_can_be_undone(value in bytes()) {
        let format: LogFormat = "%{X-A}i".parse().unwrap();
        let headers = [(&b"x-a"[..], &*value)];
        let mut exchange = Exchange::default();
        exchange.request_headers = Fields::from(&headers);
        for escape in [Escape::Apache, Escape::Nginx] {
            let mut line = Vec::new();
            format.clone().with_escape(escape).write(&exchange, &mut line);
            prop_assert_eq!(undo(&line[..line.len() - 1]), &*value);
        }
    }
}

fn undo(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((&byte, rest)) = text.split_first() {
        text = rest;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&letter, rest) = text.split_first().unwrap();
        text = rest;
        bytes.push(match letter {
            b'b' => 0x08,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'x' => {
                let (digits, rest) = text.split_at(2);
                text = rest;
                u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    bytes
}

fn json_formats() -> Vec<LogFormat> {
    let apache = |text: &str| text.parse::<LogFormat>().unwrap().with_escape(Escape::Json);
    vec![
        // Quoted, bare, and both without a thought for what may be missing.
        apache(r#"{"r":"%r","u":"%u","s":%>s,"b":%b,"a":"%{X-A}i","t":"%t","c":"%{a}C","p":"%U%q"}"#),
        apache(r#"{"r":%r,"u":%u,"s":%500s,"b":%B,"a":%{X-A}i,"k":%k,"o":%O,"x":%X,"l":%l,"U":%U}"#),
        apache(r#" { "a" : [ %{X-A}i , %{Host}i ], "n":{"x": %{x}n}, "esc\"%h\\\\": "%{x}e" }"#),
        apache(r#"{"p":%U%q,"r":x%r%%%{X-A}i-,"n":%{x}n%{a}C, "e":%{x}e%{X-A}i%u}"#),
        apache(r#"{"t":%{sec}t.%{msec_frac}t,"m":%{msec_frac}t,"d":%{ms}T,"e":%{min}T,"z":"%{%n"\x}t"}"#),
        LogFormat::nginx(
            r#"{"r":"$request","u":"$remote_user","s":$status,"b":$body_bytes_sent,"a":$http_x_a,"rt":$request_time,"x":$arg_x}"#,
            Escape::Json,
        )
        .unwrap(),
    ]
}

#[test]
fn bytes_are_escaped_as_each_notation_does() {
    let all: Vec<u8> = (0..=255).collect();
    let headers = [(&b"x-a"[..], &*all)];
    let mut exchange = Exchange::default();
    exchange.request_headers = Fields::from(&headers);
    let format: LogFormat = "%{X-A}i".parse().unwrap();
    let line = |escape| {
        let mut line = Vec::new();
        format
            .clone()
            .with_escape(escape)
            .write(&exchange, &mut line);
        String::from_utf8(line).unwrap()
    };
    let plain = || (0x20..0x7f_u8).map(char::from);
    let hex = |range: std::ops::RangeInclusive<u8>, upper: bool| -> String {
        range
            .map(|byte| {
                if upper {
                    format!("\\x{byte:02X}")
                } else {
                    format!("\\x{byte:02x}")
                }
            })
            .collect()
    };

    let mut apache = hex(0..=7, false) + r"\b\t\n\v\x0c\r" + &hex(0x0e..=0x1f, false);
    apache.extend(plain().flat_map(|c| match c {
        '"' | '\\' => vec!['\\', c],
        _ => vec![c],
    }));
    apache += &hex(0x7f..=0xff, false);
    assert_eq!(line(Escape::Apache), apache + "\n");

    let nginx: String = hex(0..=0x1f, true)
        + &plain()
            .map(String::from)
            .collect::<String>()
            .replace('\\', r"\x5C")
            .replace('"', r"\x22")
        + &hex(0x7f..=0xff, true);
    assert_eq!(line(Escape::Nginx), nginx + "\n");

    let json = line(Escape::Json);
    assert!(
        json.starts_with(r"\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000B\f\r\u000E")
    );
    assert!(json.contains(" !\\\"#$") && json.contains(r"[\\]") && json.contains(r"~\u007F\uFFFD"));
}

#[test]
fn escapes_are_found_at_every_place_and_length() {
    let format: LogFormat = "%{X-A}i".parse().unwrap();
    for length in 1..70 {
        for at in 0..length {
            for special in [b'"', b'\\', b'\n', 0x7f, 0x80, 0x1f, 0xff] {
                let mut value = vec![b'a'; length];
                value[at] = special;
                let headers = [(&b"x-a"[..], &*value)];
                let mut exchange = Exchange::default();
                exchange.request_headers = Fields::from(&headers);
                let mut line = Vec::new();
                format.write(&exchange, &mut line);
                assert!(line.len() > length + 1, "{length} {at} {special}");
                assert_eq!(undo(&line[..line.len() - 1]), value);
            }
        }
    }
}

#[test]
fn c1_controls_reach_no_line_raw() {
    let format: LogFormat = r#"{"a":"%{X-A}i"}"#.parse().unwrap();
    let headers = [(&b"x-a"[..], "\u{85}\u{9b}31m\u{7f}é\u{a0}".as_bytes())];
    let mut exchange = Exchange::default();
    exchange.request_headers = Fields::from(&headers);
    let mut line = Vec::new();
    format.with_escape(Escape::Json).write(&exchange, &mut line);
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "{\"a\":\"\\u0085\\u009B31m\\u007Fé\u{a0}\"}\n"
    );
}

#[test]
fn values_outside_json_strings_become_json() {
    let headers = [
        (&b"zero"[..], &b"0"[..]),
        (b"lead", b"007"),
        (b"minus", b"-1.5e+3"),
        (b"dot", b"1."),
        (b"word", b"true"),
        (b"empty", b""),
        (b"quote", b"a\"b"),
    ];
    let mut exchange = Exchange::default();
    exchange.request_headers = Fields::from(&headers);
    exchange.status = 404;
    for (text, expected) in [
        (r#"{"a":%s}"#, r#"{"a":404}"#),
        (r#"{"a":%b}"#, r#"{"a":null}"#),
        (r#"{"a":"%b"}"#, r#"{"a":"-"}"#),
        (r#"{"a":%{none}i}"#, r#"{"a":null}"#),
        (r#"{"a":%{zero}i,"b": %{lead}i }"#, r#"{"a":0,"b": "007" }"#),
        (
            r#"{"a":[%{dot}i,%{minus}i,%{word}i]}"#,
            r#"{"a":["1.",-1.5e+3,"true"]}"#,
        ),
        (r#"{"a":%{empty}i}"#, r#"{"a":""}"#),
        (r#"{"a":%{quote}i}"#, r#"{"a":"a\"b"}"#),
        (r#"{"a\"":%s,"b\\":%s}"#, r#"{"a\"":404,"b\\":404}"#),
        // What touches is one value.
        (r#"{"a":%s0}"#, r#"{"a":4040}"#),
        (r#"{"a":0%s}"#, r#"{"a":"0404"}"#),
        (r#"{"a":%s.%s}"#, r#"{"a":404.404}"#),
        (r#"{"a":%s.%s.%s, "b":1}"#, r#"{"a":"404.404.404", "b":1}"#),
        (
            r#"{"a":%{quote}i%{word}i,"b":"%s%s"}"#,
            r#"{"a":"a\"btrue","b":"404404"}"#,
        ),
        (r#"{"a":x%b}"#, r#"{"a":"x-"}"#),
        (r#"{"a":%b%b}"#, r#"{"a":"--"}"#),
        (r#"{"a":%{empty}i%{none}i}"#, r#"{"a":"-"}"#),
        (r#"{"a":%{empty}i%{empty}i}"#, r#"{"a":""}"#),
        (r#"{"a":%s%%,"b":%%%s}"#, r#"{"a":"404%","b":"%404"}"#),
        (r#"{"a":x%%%s,"b":"%%x%s"}"#, r#"{"a":"x%404","b":"%x404"}"#),
        (
            r#"{"a":[%s%s %s],"b":"x"}"#,
            r#"{"a":[404404 404],"b":"x"}"#,
        ),
        // No object: a text like any other.
        (r#"["%{none}i",%b]"#, r#"["-",-]"#),
        ("%b %{quote}i", r#"- a\"b"#),
    ] {
        // In a LogFormat `\\` is one backslash.
        let format: LogFormat = text.replace(r"\\", r"\\\\").parse().unwrap();
        let mut line = Vec::new();
        format.with_escape(Escape::Json).write(&exchange, &mut line);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            format!("{expected}\n"),
            "{text}"
        );
    }
}

#[test]
fn texts_of_the_formats_author_break_no_json_string() {
    let text = r#"{"unit":"%{a"b}T","port":"%{a\"}p","year":"%{"%Y"}t"}"#;
    let format: LogFormat = text.parse().unwrap();
    let format = format.with_escape(Escape::Json).with_zone(Zone::utc());
    let mut line = Vec::new();
    format.write(&Exchange::default(), &mut line);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&line).unwrap(),
        serde_json::json!({"unit": "a\"b", "port": "a\\\"", "year": "\"1970\""})
    );
}

#[test]
fn escape_can_be_changed_back() {
    let json: LogFormat = r#"{"a":%b}"#.parse().unwrap();
    let apache = json
        .clone()
        .with_escape(Escape::Json)
        .with_escape(Escape::Apache);
    assert_eq!(apache, json);
    let mut line = Vec::new();
    apache.write(&Exchange::default(), &mut line);
    assert_eq!(line, b"{\"a\":-}\n");
}

#[test]
fn empty_user_is_an_empty_string_of_json() {
    let mut exchange = Exchange::default();
    exchange.remote_user = Some(b"");
    for (text, expected) in [
        (r#"{"u":"%u"}"#, "{\"u\":\"\"}\n"),
        (r#"{"u":%u}"#, "{\"u\":\"\"}\n"),
    ] {
        let format: LogFormat = text.parse().unwrap();
        let mut line = Vec::new();
        format.with_escape(Escape::Json).write(&exchange, &mut line);
        assert_eq!(String::from_utf8(line).unwrap(), expected, "{text}");
    }
}
