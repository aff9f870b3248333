//! A copy of the process that ends leaves alone what is the process's.
#![expect(unsafe_code, reason = "a process that forks by itself")]
#![expect(clippy::exit, reason = "how the copy ends")]

use std::path::Path;
use std::process::exit;

use graceful_listener::{Listeners, PidFile};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};

use crate::child;

const ROLE: &str = "fork::child_forks";

#[test]
fn child_forks() {
    if !child::plays(ROLE) {
        return;
    }
    let directory = std::env::current_dir().unwrap();
    let listeners = Listeners::bind(["./app.sock"]).unwrap();
    let pid_file = PidFile::create("app.pid").unwrap();
    // What is to be removed stays where it is.
    std::env::set_current_dir("/").unwrap();
    // SAFETY: the other threads of the harness wait, and hold nothing.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        ForkResult::Child => {
            drop((listeners, pid_file));
            exit(0);
        }
    };
    tell("after the copy", &directory);
    drop((listeners, pid_file));
    tell("in the end", &directory);
}

fn tell(when: &str, directory: &Path) {
    let [socket, pid_file] = ["app.sock", "app.pid"].map(|name| directory.join(name).exists());
    eprintln!("{when}: socket {socket}, pid file {pid_file}");
}

#[test]
fn files_are_removed_by_their_process_alone_wherever_it_is_by_then() {
    let directory = tempfile::tempdir().unwrap();
    let output = child::role(ROLE).current_dir(&directory).output().unwrap();
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "after the copy: socket true, pid file true\nin the end: socket false, pid file false\n"
    );
}
