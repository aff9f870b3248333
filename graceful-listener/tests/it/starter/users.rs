//! As another user: what is still possible then, and what is not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{User, chown, geteuid};

use super::daemon::{Program, Start, finish, stderr, stdout};
use super::log_commands::{command, keeper};
use super::processes::proc_status;
use crate::control_group::ControlGroup;
use crate::{child, executable};

fn can_become_another() -> bool {
    let can = geteuid().is_root();
    if !can {
        child::left_out("only root can become another user");
    }
    can
}

fn nobody() -> User {
    User::from_name("nobody").unwrap().unwrap()
}

/// A directory that others can look into, but that is root's.
fn start(options: &[&str]) -> Start {
    let start = Start::new(Program::Ours)
        .options(["--interval=0", "--user=nobody"])
        .options(options);
    fs::set_permissions(start.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    start
}

#[test]
fn user_and_group_are_assumed_when_the_sockets_are_open() {
    if !can_become_another() {
        return;
    }
    let start = start(&[
        "--port=127.0.0.1:0",
        "--path=a.sock",
        "--socket-mode=0600",
        "--pid-file=pid",
        "--status-file=mine/status",
    ]);
    let start = start
        .file("mine/keep", "")
        .shell("id; echo home $HOME user $USER; exec sleep 600");
    let nobody = nobody();
    let mine = start.dir().join("mine");
    chown(&mine, Some(nobody.uid), Some(nobody.gid)).unwrap();
    let mut daemon = start.start();
    let log = daemon.wait_for_log("home ");
    assert!(
        log.contains(&format!("uid={}(nobody) gid={}", nobody.uid, nobody.gid)),
        "{log}"
    );
    assert!(
        log.contains(&format!("home {} user nobody", nobody.dir.display())),
        "{log}"
    );
    let identity = |key| {
        proc_status(daemon.pid(), key)
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(identity("Uid"), vec![nobody.uid.to_string(); 4]);
    assert_eq!(identity("Gid"), vec![nobody.gid.to_string(); 4]);
    assert!(
        !identity("Groups").contains(&"0".to_owned()),
        "root's groups are kept"
    );
    let owner = fs::metadata(daemon.path("a.sock")).unwrap().uid();
    assert_eq!(owner, nobody.uid.as_raw());
    daemon.wait("the status file", || daemon.read("mine/status"));
    // The user may ask for the status of what is its own.
    let output = daemon.control(&["--status", "--pid-file=pid"]);
    assert!(output.status.success(), "{}", stderr(&output));
    daemon.stop();
    assert!(!daemon.path("mine/status").exists());
}

#[test]
fn group_alone_is_assumed_too() {
    if !can_become_another() {
        return;
    }
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--group=daemon"])
        .shell("id; exec sleep 600")
        .start();
    let group = nix::unistd::Group::from_name("daemon")
        .unwrap()
        .unwrap()
        .gid;
    let log = daemon.wait_for_log("uid=");
    assert!(
        log.contains(&format!("uid=0(root) gid={group}(daemon)")),
        "{log}"
    );
}

#[test]
fn unknown_user_or_group_is_refused_before_anything_is_opened() {
    for (option, text) in [
        ("--user=no-such", "--user no-such: no such user"),
        ("--group=no-such", "--group no-such: no such group"),
    ] {
        let output = Start::new(Program::Ours)
            .options(["--path=a.sock", option])
            .run();
        assert_eq!(output.status.code(), Some(255));
        assert!(stderr(&output).contains(text), "{}", stderr(&output));
    }
}

#[test]
fn status_file_that_the_user_cannot_write_is_told_at_the_start() {
    if !can_become_another() {
        return;
    }
    let start = Start::new(Program::Ours)
        .options(["--user=nobody", "--status-file=status"])
        .program(&["true"]);
    let output = start.run();
    assert_eq!(output.status.code(), Some(13), "{}", stderr(&output));
    assert!(stderr(&output).contains("status"), "{}", stderr(&output));
}

#[test]
fn pid_file_that_the_user_cannot_remove_is_emptied() {
    if !can_become_another() {
        return;
    }
    let mut daemon = start(&["--pid-file=pid"])
        .shell("echo up; exec sleep 608")
        .start();
    daemon.wait_for_log("up");
    assert_eq!(daemon.read("pid").unwrap(), format!("{}\n", daemon.pid()));
    daemon.stop();
    // Or scripts would one day signal the stranger who has the number then.
    assert_eq!(daemon.read("pid").as_deref(), Some(""));
    let output = daemon.control(&["--stop", "--pid-file=pid"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
}

#[test]
fn low_port_is_kept_through_restart_and_upgrade_by_a_user_who_could_not_bind_it() {
    if !can_become_another() {
        return;
    }
    let can = Command::new("unshare").args(["--net", "true"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        child::left_out("no network namespace can be made");
        return;
    }
    // A network of its own, in which the port is free.
    let start = start(&["--port=80"]).shell(
        "fd=${SERVER_STARTER_PORT#80=}; echo generation $SERVER_STARTER_GENERATION \
         has $(readlink /proc/$$/fd/$fd) as $(id -un); exec sleep 609",
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "--"]);
    let daemon = start.start_by(command);
    let log = daemon.wait_for_log("generation 1 has socket:");
    let socket = log.split("generation 1 has ").nth(1).unwrap();
    let socket = socket.split_whitespace().next().unwrap().to_owned();
    for (times, signal) in [(2, Signal::SIGHUP), (3, Signal::SIGUSR2)] {
        daemon.signal(signal);
        if signal == Signal::SIGUSR2 {
            daemon.wait_for_log("goes on with generation");
            daemon.signal(Signal::SIGHUP);
        }
        daemon.wait_for_log(&format!("generation {times} has {socket} as nobody"));
    }
}

#[test]
fn log_command_is_started_and_started_again_as_the_user() {
    if !can_become_another() {
        return;
    }
    let daemon = start(&["--log-file=| echo log of $(id -un) >> log; exec cat >> log"])
        .file("log", "")
        .shell("echo up; trap 'echo again' USR1; while :; do sleep 0.1; done");
    let nobody = nobody();
    chown(&daemon.dir().join("log"), Some(nobody.uid), None).unwrap();
    let daemon = daemon.start();
    let logged = |text: &str, times: usize| {
        daemon.wait(text, || {
            let log = daemon.read("log")?;
            (log.matches(text).count() >= times).then_some(log)
        })
    };
    let log = logged("up\n", 1);
    assert!(log.starts_with("log of nobody\n"), "{log}");
    kill(command(&daemon, keeper(&daemon)), Signal::SIGKILL).unwrap();
    logged("log of nobody\n", 2);
    // So is the process that notes the last lines.
    kill(keeper(&daemon), Signal::SIGKILL).unwrap();
    logged("log of nobody\n", 3);
}

#[test]
fn log_file_that_is_new_can_be_opened_again_by_the_user() {
    if !can_become_another() {
        return;
    }
    let start = start(&["--log-file=log"]).shell("echo up; exec sleep 610");
    let daemon = start.start();
    daemon.wait_for_text("log", "up\n");
    let owner = || fs::metadata(daemon.path("log")).unwrap().uid();
    assert_eq!(owner(), nobody().uid.as_raw());
    daemon.signal(Signal::SIGUSR1);
    daemon.wait("the log, opened again", || {
        let text = "received USR1, opened log again";
        daemon.read("log").filter(|log| log.contains(text))
    });
}

#[test]
fn log_file_that_was_there_is_not_given_to_the_user() {
    if !can_become_another() {
        return;
    }
    // Its name may be a link to anything.
    let start = start(&["--log-file=link"])
        .file("secret", "")
        .shell("echo up; exec sleep 611");
    std::os::unix::fs::symlink("secret", start.dir().join("link")).unwrap();
    let daemon = start.start();
    daemon.wait_for_text("secret", "up\n");
    assert_eq!(fs::metadata(daemon.path("secret")).unwrap().uid(), 0);
}

#[test]
fn delegated_control_group_is_given_to_the_user() {
    if !can_become_another() {
        return;
    }
    let Some(group) = ControlGroup::delegated("given") else {
        return;
    };
    let start = start(&[]).shell("grep ^0:: /proc/self/cgroup; echo up; exec sleep 612");
    // Whoever starts it puts it there, as systemd does.
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!(
            "echo $$ > {}/cgroup.procs; exec \"$@\"",
            group.path().display()
        ))
        .arg("sh");
    let mut daemon = start.start_by(command);
    let log = daemon.wait_for_log("up\n");
    let own = format!("start_server-{}-1", daemon.pid());
    assert!(log.contains(&own), "no control group of its own: {log}");
    assert_eq!(group.below(), [own]);
    daemon.stop();
    assert!(group.below().is_empty());
}

#[test]
fn control_group_that_is_named_is_not_given_to_the_user() {
    if !can_become_another() {
        return;
    }
    let Some(group) = ControlGroup::new("named") else {
        return;
    };
    let named = format!("--cgroup={}", group.path().display());
    let mut daemon = start(&[&named]).program(&["sleep", "654"]).start();
    assert_eq!(daemon.wait_for_exit().code(), Some(255));
    let log = daemon.log();
    assert!(
        log.contains("no control group that can be written to"),
        "{log}"
    );
    assert_eq!(fs::metadata(group.path()).unwrap().uid(), 0);
}

#[test]
fn number_may_stand_for_a_user_or_need_a_group() {
    if !can_become_another() {
        return;
    }
    let nobody = nobody();
    let number = format!("--user={}", nobody.uid);
    let named = Start::new(Program::Ours)
        .options(["--interval=0", &number])
        .shell("id; echo home $HOME; exec sleep 655")
        .start();
    let home = format!("home {}\n", nobody.dir.display());
    let log = named.wait_for_log(&home);
    let id = format!("uid={}(nobody) gid={}", nobody.uid, nobody.gid);
    assert!(log.contains(&id), "{log}");

    // As in a container without a list of users.
    let nameless = ["--interval=0", "--user=3999999999"];
    let output = Start::new(Program::Ours).options(nameless).run();
    assert_eq!(output.status.code(), Some(255));
    let text = stderr(&output);
    assert!(text.contains("has no name, so a group is needed"), "{text}");
    let daemon = Start::new(Program::Ours)
        .options(nameless)
        .options(["--group=3999999998"])
        .shell("id; exec sleep 656")
        .start();
    let log = daemon.wait_for_log("uid=");
    let id = "uid=3999999999 gid=3999999998 groups=3999999998\n";
    assert!(log.contains(id), "{log}");
}

#[test]
fn variables_of_the_user_are_there_after_an_upgrade_too() {
    if !can_become_another() {
        return;
    }
    let daemon = start(&[])
        .shell("echo home $HOME of $LOGNAME; exec sleep 657")
        .start();
    let told = format!("home {} of nobody\n", nobody().dir.display());
    daemon.wait_for_log(&told);
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_for_log("goes on with generation 1");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_logs(&told, 2);
}

#[test]
fn status_is_told_to_the_user() {
    if !can_become_another() || !child::has("setpriv") {
        return;
    }
    let daemon = start(&["--pid-file=pid"])
        .program(&["sleep", "658"])
        .start();
    daemon.wait("the pid file", || daemon.read("pid"));
    // Where it is built, the user may not be allowed to look.
    let copy = daemon.path("copy");
    executable::copy(&Program::Ours.path(), &copy);
    let nobody = nobody();
    let uid = format!("--reuid={}", nobody.uid);
    let gid = format!("--regid={}", nobody.gid);
    let ask = || {
        let mut command = Command::new("setpriv");
        command.args([&uid, &gid, "--clear-groups"]).arg(&copy);
        command.args(["--status", "--pid-file=pid"]);
        command.current_dir(daemon.dir.path());
        finish(command)
    };
    daemon.wait("the status", || {
        // It is root's until the sockets are open.
        let output = ask();
        stdout(&output).contains(" serving ").then_some(())
    });
}

#[test]
fn groups_that_the_user_is_a_member_of_are_assumed_too() {
    if !can_become_another() {
        return;
    }
    // A system of its own that has such a group.
    let groups = fs::read_to_string("/etc/group").unwrap();
    let start = start(&[])
        .file("group", &format!("{groups}\nmembers:x:54321:nobody\n"))
        .shell("echo groups $(id -G); exec sleep 661");
    let mount = |last: &str| {
        let mut command = Command::new("unshare");
        let script = format!("mount --bind group /etc/group && {last}");
        command.args(["--mount", "sh", "-c", &script]);
        command.current_dir(start.dir());
        command
    };
    if !mount("true")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        child::left_out("no file can be put in the place of another here");
        return;
    }
    let command = mount("exec \"$0\" \"$@\"");
    let daemon = start.start_by(command);
    let log = daemon.wait_for_log("groups ");
    let (_, groups) = log.split_once("groups ").unwrap();
    let groups = groups.lines().next().unwrap();
    assert!(groups.split(' ').any(|group| group == "54321"), "{log}");
}
