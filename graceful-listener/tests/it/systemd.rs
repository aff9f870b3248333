//! A real systemd, as a manager of its own among processes of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::service::{Service, set};

const SYSTEMD: &str = "/lib/systemd/systemd";

/// What runs as root of new namespaces. It answers with one line for each thing it has seen.
const SCRIPT: &str = r#"
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system || exit
/lib/systemd/systemd --user --unit=only.target &
manager=$!
ask() { timeout 60 systemctl --user "$@"; }
value() { ask show hello.service --property="$1" --value; }
changes() { # from the value $2
    for _ in $(seq 600); do
        new=$(value "$1")
        [ "$new" != "$2" ] && break
        sleep 0.1
    done
    echo "$new"
}
until ask is-active --quiet only.target 2>/dev/null; do
    kill -0 $manager 2>/dev/null || { echo "no manager"; exit; }
    sleep 0.1
done
ask start hello.service && echo "started $(value ActiveState) $(value StatusText)"
first=$(value MainPID)
ask reload hello.service
second=$(changes MainPID "$first")
[ "$second" -gt 0 ] && [ "$second" != "$first" ] && echo "replaced"
for _ in $(seq 600); do [ -e "/proc/$first" ] || break; sleep 0.1; done
fed=$(changes WatchdogTimestampMonotonic "$(value WatchdogTimestampMonotonic)")
fed=$(changes WatchdogTimestampMonotonic "$fed")
[ "$fed" -gt 0 ] && echo "fed"
[ "$(value MainPID)" = "$second" ] && echo "still $(value ActiveState) restarts $(value NRestarts)"
# How it stops is not told here: without control groups of its own it kills at once what is no child.
kill $manager
"#;

pub(crate) fn namespaces() -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
    ]);
    unshare.stdin(Stdio::null());
    unshare
}

#[test]
fn systemd_follows_an_upgrade_and_feeds_on() {
    let probe = namespaces().arg("mount -t tmpfs tmpfs /run").output();
    let can = probe.is_ok_and(|output| output.status.success());
    if !can || !Path::new(SYSTEMD).exists() {
        crate::child::left_out("no namespaces can be made here, or systemd is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let units = directory.path().join("config/systemd/user");
    let runtime = directory.path().join("run");
    fs::create_dir_all(&units).unwrap();
    fs::create_dir(&runtime).unwrap();
    fs::write(units.join("only.target"), "[Unit]\nDescription=only\n").unwrap();
    fs::write(units.join("hello.service"), unit(&runtime.join("log"))).unwrap();
    let output = namespaces()
        .arg(SCRIPT)
        .env("XDG_RUNTIME_DIR", &runtime)
        .env("XDG_CONFIG_HOME", directory.path().join("config"))
        .output()
        .unwrap();
    let seen = String::from_utf8_lossy(&output.stdout);
    if seen == "no manager\n" {
        // It wants control groups, which are root's.
        crate::child::left_out("systemd does not start here");
        return;
    }
    assert_eq!(
        seen.lines().collect::<Vec<_>>(),
        [
            "started active serving",
            "replaced",
            "fed",
            "still active restarts 0",
        ],
        "{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        fs::read_to_string(runtime.join("log")).unwrap_or_default()
    );
}

fn unit(log: &Path) -> String {
    let role = Service::command();
    let words: Vec<_> = std::iter::once(role.get_program())
        .chain(role.get_args())
        .map(|word| word.to_str().unwrap())
        .collect();
    let environment: String = role
        .get_envs()
        .filter_map(|(name, value)| {
            Some(format!(
                "Environment={}={}\n",
                name.to_str()?,
                value?.to_str()?
            ))
        })
        .collect();
    format!(
        "[Service]\nType=notify\nExecStart={}\nExecReload=kill -USR2 $MAINPID\n\
         WatchdogSec=6s\nStandardError=append:{}\n{environment}Environment={}=127.0.0.1:0\n",
        words.join(" "),
        log.display(),
        set::SPECS
    )
}
