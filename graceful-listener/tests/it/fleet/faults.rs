use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::command_line::{code, fleet, stderr};
use super::fixture::{Fleet, SLEEP, shell};
use crate::small_disk::SmallDisk;

#[test]
fn full_disk_stops_no_program_and_the_status_follows_when_there_is_room() {
    let mut fleet = Fleet::empty();
    let Some(disk) = SmallDisk::over(fleet.path()) else {
        return;
    };
    fs::create_dir(fleet.path().join("programs")).unwrap();
    fleet.program("web", SLEEP);
    // What it says must not need room itself.
    let log = tempfile::NamedTempFile::new().unwrap();
    symlink(log.path(), fleet.path().join("fleet.log")).unwrap();
    fleet.start();
    let before = fleet.wait_for("web", &["RUNNING"]);
    disk.fill();
    let group = nix::unistd::Pid::from_raw(-before[0].cast_signed());
    nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL).unwrap();
    fleet.wait_for_log("status.json: No space left on device");
    let children = fleet.wait("a new process", || {
        let children = fleet.children();
        (children.len() == 1 && children != before).then_some(children)
    });
    // The old status is still whole.
    let old = [("RUNNING".to_owned(), Some(before[0]))];
    assert_eq!(fleet.instances("web"), old);
    disk.empty();
    fleet.wait("the status", || {
        let instances = fleet.instances("web");
        (instances == [("RUNNING".into(), Some(children[0]))]).then_some(())
    });
    fleet.command("stop-web").unwrap();
    fleet.stop();
    drop(disk);
}

#[test]
fn full_disk_and_a_killed_supervisor_double_nothing() {
    let mut fleet = Fleet::empty();
    let Some(disk) = SmallDisk::over(fleet.path()) else {
        return;
    };
    fs::create_dir(fleet.path().join("programs")).unwrap();
    let (log, starts) = (
        tempfile::NamedTempFile::new(),
        tempfile::NamedTempFile::new(),
    );
    let (log, starts) = (log.unwrap(), starts.unwrap());
    symlink(log.path(), fleet.path().join("fleet.log")).unwrap();
    let program = |name: &str| {
        let script = format!("echo {name} >> {}; exec sleep 600", starts.path().display());
        shell(&script, "restart = \"always\"\nlog = \"/dev/null\"\n")
    };
    let started = |name: &str| {
        let starts = fs::read_to_string(starts.path()).unwrap();
        starts.lines().filter(|line| *line == name).count()
    };
    fleet.program("web", &program("web"));
    fleet.program("other", &(program("other") + "autostart = false\n"));
    fleet.start();
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.wait_for("other", &["STOPPED"]);
    fleet.wait("its first word", || (started("web") == 1).then_some(()));
    disk.fill();
    // It has had room for its pid file, and has it again.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(before[0].cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    fleet.wait("another process", || (started("web") == 2).then_some(()));
    let web = fleet.children();
    assert_eq!(web.len(), 1, "{web:?}");
    // This one never had any.
    fleet.submit("start-other");
    fleet.wait_for_log("other:0 STOPPED -> BACKOFF: it is not started while it cannot be written");
    fleet.kill();
    let output = self::fleet(fleet.path(), &["run"]);
    assert_eq!(code(&output), 1);
    let text = stderr(&output);
    assert!(
        text.contains("fleet.pid") && text.contains("No space left on device"),
        "{text}"
    );
    disk.empty();
    fleet.start();
    fleet.wait_for_log("adopted 1 processes");
    fleet.wait_for_log(&format!("web:0 is process {} still", web[0]));
    let other = fleet.wait_for("other", &["RUNNING"]);
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), web);
    fleet.wait("its first word", || (started("other") == 1).then_some(()));
    assert_eq!(started("web"), 2);
    assert_eq!(fleet.children(), other, "what was adopted is no child");
    assert_eq!(fleet.pid_files().len(), 2);
    fleet.command("stop-web").unwrap();
    fleet.command("stop-other").unwrap();
    fleet.wait("no room kept", || {
        let mut files = fs::read_dir(fleet.path().join("run")).unwrap();
        files
            .all(|file| {
                file.unwrap()
                    .path()
                    .extension()
                    .is_none_or(|end| end == "json")
            })
            .then_some(())
    });
    fleet.stop();
    drop(disk);
}

#[test]
fn full_disk_does_not_keep_a_command_from_being_answered() {
    let mut fleet = Fleet::empty();
    let Some(disk) = SmallDisk::over(fleet.path()) else {
        return;
    };
    fs::create_dir(fleet.path().join("programs")).unwrap();
    fleet.program("web", SLEEP);
    let log = tempfile::NamedTempFile::new().unwrap();
    symlink(log.path(), fleet.path().join("fleet.log")).unwrap();
    fleet.start();
    fleet.wait_for("web", &["RUNNING"]);
    disk.fill();
    // An empty file still has its place there.
    fleet.submit("stop-web");
    fleet.answer("stop-web").unwrap();
    assert!(fleet.children().is_empty());
    fleet.submit("start-none");
    fleet.answer("start-none").unwrap_err();
    assert!(!fleet.path().join("inbox/start-none").exists());
    fleet.stop();
    drop(disk);
}

#[test]
fn what_is_no_readable_definition_is_told_and_hides_no_other() {
    let mut fleet = Fleet::empty();
    let path = |name: &str| fleet.path().join("programs").join(name);
    mkfifo(&path("fifo.toml"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    fs::create_dir(path("directory.toml")).unwrap();
    symlink("/nonexistent", path("dangling.toml")).unwrap();
    fs::write(path("latin.toml"), b"command = 'sleep'\n# \xe9").unwrap();
    fs::write(path("shared.toml"), SLEEP).unwrap();
    fs::set_permissions(path("shared.toml"), PermissionsExt::from_mode(0o666)).unwrap();
    fs::write(path("a b.toml"), SLEEP).unwrap();
    fleet.program("good", SLEEP);
    fleet.start();
    fleet.wait_for("good", &["RUNNING"]);
    for (name, why) in [
        ("fifo", "fifo.toml: is no file"),
        ("directory", "directory.toml: is no file"),
        ("dangling", "dangling.toml: No such file or directory"),
        ("latin", "latin.toml:2: is no UTF-8"),
        ("shared", "shared.toml: has mode 0666"),
    ] {
        fleet.wait_for_log(why);
        let error = fleet.program_status(name)["error"].to_string();
        assert!(error.contains(why), "{name}: {error}");
        assert!(fleet.instances(name).is_empty(), "{name}");
    }
    fleet.wait_for_log("`a b` is no name of a program");
    assert_eq!(fleet.children().len(), 1);
    // One that is put right is started.
    fleet.program("shared", SLEEP);
    fleet.wait_for("shared", &["RUNNING"]);
}

#[test]
fn directory_that_others_can_write_is_refused() {
    for place in ["", "inbox", "programs"] {
        let dir = tempfile::tempdir().unwrap();
        for made in ["inbox", "programs"] {
            fs::create_dir(dir.path().join(made)).unwrap();
        }
        let open = dir.path().join(place);
        fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
        fs::write(
            dir.path().join("programs/a.toml"),
            "command = 'touch'\narguments = ['ran']",
        )
        .unwrap();
        let output = fleet(dir.path(), &["run"]);
        assert_eq!(code(&output), 1, "{output:?}");
        let text = stderr(&output);
        assert!(text.contains("has mode 0777"), "{text}");
        assert!(text.contains("chmod go-w"), "{text}");
        assert!(!dir.path().join("status.json").exists());
    }
}

#[test]
fn inbox_with_other_things_in_it_goes_on_working() {
    let fleet = Fleet::with("web", SLEEP);
    let before = fleet.wait_for("web", &["RUNNING"]);
    let inbox = fleet.path().join("inbox");
    fs::create_dir(inbox.join("stop-web")).unwrap();
    symlink("/etc/passwd", inbox.join("start-web")).unwrap();
    mkfifo(&inbox.join("restart-web"), Mode::S_IRUSR).unwrap();
    let why = fleet.command("explode").unwrap_err();
    assert!(why.contains("unknown command `explode`"), "{why}");
    let why = fleet.command("signal-web-FOO").unwrap_err();
    assert!(why.contains("unknown signal `FOO`"), "{why}");
    assert_eq!(fleet.command("scale-web-2").unwrap(), "web runs 2 times");
    assert_eq!(fleet.wait_for("web", &["RUNNING"; 2])[..1], before);
}

#[test]
fn nobody_writes_lines_of_the_log_by_names_of_files_or_by_output() {
    let fleet = Fleet::with(
        "web",
        &shell("printf 'a\\033[31mb\\n'; exit 3", "restart = \"never\"")
            .replace("\"0s\"", "\"1m\""),
    );
    fleet.wait_for("web", &["FATAL"]);
    let name = "stop\n2026 fleet[1]: web removed\x1b[31m";
    fs::write(fleet.path().join("inbox").join(name), "").unwrap();
    fleet.wait_for_log("refused command stop 2026 fleet[1]: web removed [31m: unknown command");
    fleet.wait_for_log("web:0 | a [31mb");
    fleet.command("start-web").unwrap_err();
    let log = fleet.log();
    let pid = format!(" fleet[{}]: ", fleet.pid());
    assert!(log.lines().all(|line| line.contains(&pid)), "{log}");
    assert!(!log.contains('\x1b'), "{log}");
}

#[test]
fn requests_are_carried_out_in_the_order_in_which_they_came() {
    let mut fleet = Fleet::empty();
    fleet.program("web", SLEEP);
    fs::create_dir(fleet.path().join("inbox")).unwrap();
    // They wait while nobody reads them.
    for (number, command) in ["scale-web-3", "stop-web", "start-web", "scale-web-2"]
        .into_iter()
        .enumerate()
    {
        fleet.submit(&format!("{command}@{number}"));
    }
    fleet.start();
    for (number, command) in ["scale-web-3", "stop-web", "start-web", "scale-web-2"]
        .into_iter()
        .enumerate()
    {
        let _ = fleet.answer(&format!("{command}@{number}"));
    }
    fleet.wait_for("web", &["RUNNING"; 2]);
    let log = fleet.log();
    let order: Vec<_> = log
        .lines()
        .filter_map(|line| line.split_once(": command "))
        .map(|(_, command)| command)
        .filter(|command| !command.contains(':'))
        .collect();
    assert_eq!(
        order,
        ["scale-web-3", "stop-web", "start-web", "scale-web-2"]
    );
}
