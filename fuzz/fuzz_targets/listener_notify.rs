//! Any datagram as a notification: read, and printed back to an equal message.

#![no_main]

use graceful_listener::NotifyMessage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    let message = NotifyMessage::parse(datagram);
    let printed = message.to_string();
    assert_eq!(NotifyMessage::parse(printed.as_bytes()), message);
    let _ = (message.is_ready(), message.is_stopping(), message.is_reloading());
});
