//! Any bytes as `SERVER_STARTER_PORT`: refused with a reason, or printed back to an equal list.

#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use graceful_listener::{PortName, Ports};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = OsStr::from_bytes(bytes);
    match Ports::parse(text) {
        Ok(ports) => {
            let printed = ports.to_os_string();
            assert_eq!(Ports::parse(&printed).expect("it was printed"), ports);
            // Pushed one by one they are the same list.
            let mut again = Ports::new();
            for (name, fd) in ports.iter() {
                again.push(name.clone(), fd).expect("it was parsed");
            }
            assert_eq!(again, ports);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(name) = PortName::parse(text) {
        let mut ports = Ports::new();
        // A name on its own may hold what separates names.
        if ports.push(name.clone(), 3).is_ok() {
            let read = Ports::parse(&ports.to_os_string()).expect("it was printed");
            assert_eq!(read.iter().next(), Some((&name, 3)));
        } else {
            assert!(bytes.contains(&b';'));
        }
    }
});
