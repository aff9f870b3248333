//! Any text as nginx's log_format: parsed or refused, printed back, and rendered.

#![no_main]

use apache_logformat::{Escape, Exchange, Fields, LogFormat};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    for escape in [Escape::Nginx, Escape::Json, Escape::Apache] {
        let format = match LogFormat::nginx(text, escape) {
            Ok(format) => format,
            Err(error) => {
                assert!(error.offset() <= text.len());
                continue;
            }
        };
        assert_eq!(format.as_bytes(), text);
        let headers = [(&b"a"[..], &b"\"\\\xff\n"[..]), (b"Cookie", b"a=1; b=2")];
        let mut exchange = Exchange::default();
        exchange.target = b"/x?a=1&b=";
        exchange.request_headers = Fields::from(&headers);
        let mut line = Vec::new();
        format.write(&exchange, &mut line);
        assert_eq!(line.last(), Some(&b'\n'));
    }
});
