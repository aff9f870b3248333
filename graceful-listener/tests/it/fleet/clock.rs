use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fixture::{Fleet, SLEEP, shell};
use crate::child;

/// A script that starts a supervisor whose clock is set by writing seconds to the file
/// `offset`. `None` without a C compiler.
fn settable(fleet: &Fleet) -> Option<String> {
    if !child::has("cc") {
        return None;
    }
    let dir = fleet.path();
    let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
    fs::write(&source, include_str!("clock.c")).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    assert!(compiled.unwrap().success());
    Some(format!(
        "export LD_PRELOAD={} CLOCK_OFFSET={}; exec \"$@\"",
        library.display(),
        dir.join("offset").display(),
    ))
}

/// Sets the clock, and waits until the supervisor has lived by it for a while.
fn set(fleet: &Fleet, years: i64) {
    let seconds = years * 365 * 86400;
    fs::write(fleet.path().join("offset"), format!("{seconds}\n")).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let there = i64::try_from(now.as_millis()).unwrap() + seconds * 1000;
    let mut seen = Vec::new();
    fleet.wait("three lives under the new clock", || {
        let instance = &fleet.program_status("short")["instances"][0];
        let since = instance["since"].as_i64()?;
        let pid = instance["pid"].as_i64()?;
        if (since - there).abs() < 86_400_000 && !seen.contains(&pid) {
            seen.push(pid);
        }
        (seen.len() >= 3).then_some(())
    });
}

#[test]
fn clock_that_is_set_changes_no_time_that_is_waited_for() {
    let mut fleet = Fleet::empty();
    let Some(script) = settable(&fleet) else {
        return;
    };
    let hour = |definition: &str| definition.replace("\"0s\"", "\"1h\"");
    fleet.program("young", &hour(SLEEP));
    fleet.program(
        "failing",
        &hour(&shell("exit 3", "backoff = \"1h\"\nbackoff_max = \"1h\"")),
    );
    fleet.program("old", &format!("{SLEEP}max_lifetime = \"1h\""));
    fleet.program(
        "deaf",
        &shell(
            "trap '' TERM; echo >> up; while :; do sleep 0.05; done",
            "stop_timeout = \"1h\"",
        ),
    );
    fleet.program("short", &format!("{SLEEP}max_lifetime = \"50ms\""));
    fleet.start_by(&script);
    fleet.wait_for("failing", &["BACKOFF"]);
    fleet.wait_for_file("up");
    fleet.submit("stop-deaf");
    let all = |fleet: &Fleet| {
        [
            fleet.wait_for("young", &["STARTING"]),
            fleet.wait_for("failing", &["BACKOFF"]),
            fleet.wait_for("old", &["RUNNING"]),
            fleet.wait_for("deaf", &["STOPPING"]),
        ]
    };
    let before = all(&fleet);
    for years in [20, -20] {
        set(&fleet, years);
        assert_eq!(all(&fleet), before, "{years}");
        assert_eq!(
            fleet.program_status("failing")["instances"][0]["starts"],
            1,
            "{years}"
        );
    }
    // The next supervisor finds them in a different age.
    fleet.kill();
    fs::write(fleet.path().join("offset"), "315360000\n").unwrap();
    fleet.start_by(&script);
    set(&fleet, 10);
    let after = all(&fleet);
    assert_eq!(after[0], before[0]);
    assert_eq!(after[2..], before[2..]);
    let group = Pid::from_raw(-before[3][0].cast_signed());
    kill(group, Signal::SIGKILL).unwrap();
    fleet.answer("stop-deaf").unwrap();
}
