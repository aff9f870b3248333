//! Any text as a pid file of a fleet, a file of variables, an address to bind and a
//! port of start_server: taken or refused, and what is printed reads the same.

#![no_main]

use graceful_listener::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = str::from_utf8(bytes)
        && let Some(printed) = fuzz::pid_file(text)
    {
        assert_eq!(fuzz::pid_file(&printed).as_ref(), Some(&printed));
    }
    if let Ok(variables) = fuzz::variables(bytes) {
        for (name, value) in variables {
            assert!(!name.is_empty() && !name.as_encoded_bytes().contains(&b'='), "{name:?}");
            assert!(!value.as_encoded_bytes().contains(&0), "{value:?}");
        }
    }
    let refused = [fuzz::address(bytes).err(), fuzz::port(bytes).err()];
    assert!(refused.iter().flatten().all(|why| !why.is_empty()));
});
