//! Any text as the definition of a program and as the name of a command: taken, or
//! refused line by line, and what is written of a command reads the same.

#![no_main]

use graceful_listener::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(mistakes) = fuzz::definition(text) {
        assert!(!mistakes.is_empty());
        for line in mistakes.lines() {
            assert!(line.starts_with("fuzz.toml:"), "{mistakes:?}");
        }
    }
    match fuzz::command(text) {
        Ok(printed) => assert_eq!(fuzz::command(&printed).expect("it was printed"), printed),
        Err(why) => assert!(!why.is_empty()),
    }
});
