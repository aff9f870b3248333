//! Any text as a LogFormat: parsed or refused, printed back, and rendered.

#![no_main]

use apache_logformat::{Escape, Exchange, Fields, LogFormat, Timestamp, Zone};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let format = match LogFormat::try_from(text) {
        Ok(format) => format,
        Err(error) => {
            assert!(error.offset() <= text.len());
            assert!(error.to_string().starts_with(&error.message()));
            return;
        }
    };
    assert_eq!(format.as_bytes(), text);
    assert_eq!(format, LogFormat::try_from(format.as_bytes()).expect("it was parsed before"));

    let headers = [(&b"a"[..], &b"\"\\\xff\n"[..]), (b"Cookie", b"a=1; b=2")];
    let mut exchange = Exchange::default();
    exchange.begin = Timestamp::from_micros(1_316_387_908_123_456);
    exchange.target = b"/%41//..//\"";
    exchange.status = 200;
    exchange.request_headers = Fields::from(&headers);
    for escape in [Escape::Apache, Escape::Json, Escape::Nginx] {
        let format = format.clone().with_escape(escape).with_zone(Zone::fixed(-12_600, "NST"));
        let mut line = Vec::new();
        format.write(&exchange, &mut line);
        assert_eq!(line.last(), Some(&b'\n'));
        // Nothing but `strftime` widths makes a line long, and they are bounded.
        assert!(line.len() <= text.len() * 8192 + 64);
    }
});
