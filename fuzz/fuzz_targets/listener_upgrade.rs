//! Any bytes as what the process before has left in the environment: refused with a
//! reason, or printed back to the same, with each descriptor named once.

#![no_main]

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use graceful_listener::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|variables: (&[u8], &[u8])| {
    let (handover, files) = (OsStr::from_bytes(variables.0), OsStr::from_bytes(variables.1));
    let printed = match fuzz::handover(handover) {
        Ok(printed) => printed,
        Err(why) => return assert!(!why.is_empty()),
    };
    assert_eq!(fuzz::handover(&printed).expect("it was printed"), printed);
    for handover in [&*printed, OsStr::new("1:2:3:90:91::/run/app.sock=92")] {
        match fuzz::files(files, handover) {
            Ok((printed, descriptors)) => {
                let again = fuzz::files(&printed, handover).expect("it was printed");
                assert_eq!(again, (printed, descriptors.clone()));
                let once: HashSet<_> = descriptors.iter().collect();
                assert_eq!(once.len(), descriptors.len(), "{descriptors:?}");
            }
            Err(why) => assert!(!why.is_empty()),
        }
    }
});
