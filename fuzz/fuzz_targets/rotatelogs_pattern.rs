//! Any text as a file name's pattern, and any path: compiled or refused, and what a
//! pattern makes it knows again.

#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use file_rotatelogs::{Clock, Pattern};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8], u32, i32)| {
    let (text, path, seconds, offset) = input;
    let pattern = match Pattern::new(OsStr::from_bytes(text)) {
        Ok(pattern) => pattern,
        Err(error) => {
            assert!(error.offset() <= text.len());
            return;
        }
    };
    let now = UNIX_EPOCH + Duration::from_secs(u64::from(seconds));
    let clock = Clock::fixed_offset(offset % 86_400).expect("less than a day");
    let clock = clock.with_now(move || now);

    let made = pattern.path_at(now, &clock);
    let file = pattern.parse(&made, &clock);
    // So many directives in a row can be read in more ways than are tried.
    if text.len() < 40 {
        let file = file.expect("a pattern knows what it makes");
        assert!(file.generation() == 0 || !made.ends_with(file.base()));
    }
    if let Some(file) = pattern.parse(Path::new(OsStr::from_bytes(path)), &clock)
        && let Some(time) = file.time()
        && ![b"L", b"N"].iter().any(|fraction| text.windows(1).any(|byte| byte == *fraction))
    {
        assert_eq!(pattern.path_at(time, &clock), file.base());
    }
});
