//! Programs that a test makes, to be executed at once.
//!
//! Whatever another thread starts has all descriptors of this process for a moment;
//! with one that writes to a program among them, that is "Text file busy". Here the
//! one who writes is another process.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

pub(crate) fn write(path: &Path, text: &str) {
    let mut shell = Command::new("sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = shell.stdin.take().unwrap();
    pipe.write_all(text.as_bytes()).unwrap();
    drop(pipe);
    assert!(shell.wait().unwrap().success());
}

pub(crate) fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args([from, to]).status();
    assert!(copied.unwrap().success());
}
