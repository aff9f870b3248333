use std::fs;
use std::io::Write;

use file_rotatelogs::{Clock, RotateLogs};

#[test]
fn record_lands_in_the_file_that_the_link_leads_to() {
    let directory = tempfile::tempdir().unwrap();
    let logs = RotateLogs::builder(directory.path().join("a.%Y%m%d.log"))
        .link(directory.path().join("current"))
        .clock(Clock::utc())
        .build()
        .unwrap();
    writeln!(&logs, "one {}", 1).unwrap();
    assert_eq!(fs::read(logs.current_path()).unwrap(), b"one 1\n");
    assert_eq!(
        fs::read(directory.path().join("current")).unwrap(),
        b"one 1\n"
    );
}
