//! Units of a real systemd, which is a manager of its own among processes of its own.
//!
//! `TEST_SYSTEMD` names a directory where another systemd is unpacked: version 253
//! or newer knows `Type=notify-reload`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::{Daemon, Program, Start};
use crate::child;
use crate::systemd::namespaces;

/// What runs as root of new namespaces, with systemd and systemctl as `$1` and `$2`.
/// It answers with one line for each thing it has seen.
const SCRIPT: &str = r#"
systemd=$1 systemctl=$2
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system || exit
"$systemd" --user --unit=only.target &
manager=$!
ask() { timeout 60 "$systemctl" --user "$@"; }
value() { ask show app.service --property="$1" --value; }
until ask is-active --quiet only.target 2>/dev/null; do
    kill -0 $manager 2>/dev/null || { echo "no manager"; exit; }
    sleep 0.1
done
ask start app.service
echo "started: $?, $(value ActiveState), $(value StatusText)"
first=$(value MainPID)
ask reload app.service
echo "reloaded: $?, $(value ActiveState), $(value StatusText), of generations $(cut -d: -f1 status)"
echo exit=6 > mode
ask reload app.service
echo "reloaded in vain: $?, $(value ActiveState), $(value StatusText)"
echo ready > mode
for _ in $(seq 600); do case $(value StatusText) in "Generation 4 serves") break ;; esac; sleep 0.1; done
kill -USR2 "$first"
for _ in $(seq 600); do grep -q "goes on with generation" output && break; sleep 0.1; done
ask reload app.service
echo "replaced: $?, $(value ActiveState), $(value StatusText)"
for _ in 1 2; do
    before=$(value WatchdogTimestampMonotonic)
    for _ in $(seq 600); do [ "$(value WatchdogTimestampMonotonic)" != "$before" ] && break; sleep 0.1; done
    [ "$(value WatchdogTimestampMonotonic)" -gt "$before" ] && echo fed
done
[ "$(value MainPID)" = "$first" ] && echo "the same process"
ask stop app.service
echo "stopped: $?, $(value ActiveState), $(value Result), $(value NRestarts) restarts"
kill $manager
"#;

/// Runs start_server as a unit, and returns what there was to see, and its directory.
fn watch(lines: &str) -> Option<(Vec<String>, Daemon)> {
    let root = env::var_os("TEST_SYSTEMD").map(PathBuf::from);
    let systemd = in_root(root.as_deref(), "lib/systemd/systemd");
    let probe = namespaces().arg("mount -t tmpfs tmpfs /run").output();
    let can = probe.is_ok_and(|output| output.status.success());
    if !can || !systemd.exists() {
        child::left_out("no namespaces can be made here, or systemd is not installed");
        return None;
    }
    let start = Start::new(Program::Ours)
        .files()
        .options(["--port=127.0.0.1:0", "--wait-ready", "--retry-delay=8"])
        .file("mode", "ready");
    let (units, runtime) = (
        start.dir().join("config/systemd/user"),
        start.dir().join("run"),
    );
    fs::create_dir_all(&units).unwrap();
    fs::create_dir(&runtime).unwrap();
    fs::write(units.join("only.target"), "[Unit]\nDescription=only\n").unwrap();
    fs::write(units.join("app.service"), unit(&start.command(), lines)).unwrap();
    let mut command = namespaces();
    command
        .arg(SCRIPT)
        .arg("sh")
        .args([&systemd, &in_root(root.as_deref(), "bin/systemctl")])
        .env("LD_LIBRARY_PATH", libraries(root.as_deref()))
        .env("XDG_RUNTIME_DIR", &runtime)
        .env("XDG_CONFIG_HOME", start.dir().join("config"))
        .current_dir(start.dir());
    let output = command.output().unwrap();
    let daemon = start.daemon();
    let seen = String::from_utf8_lossy(&output.stdout);
    if seen == "no manager\n" {
        // It wants control groups, which are root's.
        child::left_out("systemd does not start here");
        return None;
    }
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("{}", daemon.log());
    Some((seen.lines().map(str::to_owned).collect(), daemon))
}

fn in_root(root: Option<&Path>, path: &str) -> PathBuf {
    root.unwrap_or(Path::new("/")).join(path)
}

/// Where the unpacked programs find theirs; nowhere else for those that are installed.
fn libraries(root: Option<&Path>) -> OsString {
    let Some(usr) = root.map(|root| root.join("usr/lib")) else {
        return OsString::new();
    };
    let below = fs::read_dir(usr)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let both = below.flat_map(|dir| [dir.join("systemd"), dir]);
    env::join_paths(both).unwrap()
}

fn unit(start_server: &Command, lines: &str) -> String {
    let word = |word: &std::ffi::OsStr| word.to_str().unwrap().to_owned();
    let words: Vec<_> = std::iter::once(start_server.get_program())
        .chain(start_server.get_args())
        .map(word)
        .collect();
    let variables: String = start_server
        .get_envs()
        .filter_map(|(name, value)| Some(format!("Environment={}={}\n", word(name), word(value?))))
        .collect();
    let dir = start_server.get_current_dir().unwrap().display();
    format!(
        "[Service]\n{lines}\nExecStart={}\nWorkingDirectory={dir}\nTimeoutStartSec=50\nWatchdogSec=6s\n\
         StandardOutput=append:{dir}/output\nStandardError=append:{dir}/output\n{variables}",
        words.join(" "),
    )
}

#[test]
fn reload_of_a_unit_fails_if_the_new_generation_does() {
    let restart = format!(
        "Type=notify\nExecReload={} --restart --pid-file=pid --status-file=status",
        Program::Ours.path().display()
    );
    let Some((seen, _daemon)) = watch(&restart) else {
        return;
    };
    assert_seen(&seen, "reloaded in vain: 1, active, Generation 3 failed: ");
}

#[test]
fn unit_of_type_notify_reload_is_reloaded_without_a_command() {
    let root = env::var_os("TEST_SYSTEMD").map(PathBuf::from);
    let version = Command::new(in_root(root.as_deref(), "bin/systemctl"))
        .arg("--version")
        .env("LD_LIBRARY_PATH", libraries(root.as_deref()))
        .output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let number = version.ok().and_then(|text| {
        let number = text.split_whitespace().nth(1)?;
        number.parse::<u32>().ok()
    });
    if number.is_none_or(|number| number < 253) {
        // Whoever requires all of the tests has to name another one.
        child::left_out(&format!(
            "Type=notify-reload needs systemd 253 or newer, here is {number:?} (see TEST_SYSTEMD)"
        ));
        return;
    }
    let Some((seen, _daemon)) = watch("Type=notify-reload") else {
        return;
    };
    // The protocol has no word for a reload that fails.
    assert_seen(&seen, "reloaded in vain: 0, active, Generation 3 failed: ");
}

/// Compares what there was to see with [`SEEN`], and the line of the reload that fails
/// with how it is to begin.
fn assert_seen(seen: &[String], in_vain: &str) {
    let lines = seen.iter().map(String::as_str);
    let (vain, others): (Vec<_>, Vec<_>) =
        lines.partition(|line| line.starts_with("reloaded in vain"));
    let is_right = vain.len() == 1 && vain[0].starts_with(in_vain);
    assert!(is_right, "{seen:#?}");
    assert_eq!(others, SEEN);
}

const SEEN: [&str; 7] = [
    "started: 0, active, Generation 1 serves",
    "reloaded: 0, active, Generation 2 serves, of generations 2",
    "replaced: 0, active, Generation 5 serves",
    "fed",
    "fed",
    "the same process",
    "stopped: 0, inactive, success, 0 restarts",
];
