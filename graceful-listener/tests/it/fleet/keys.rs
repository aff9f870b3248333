use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::fixture::{Fleet, SLEEP, shell, wait_for_end};

/// Runs a job in the directory of the fleet, and returns what it wrote to `out`.
fn output(script: &str, more: &str) -> String {
    let fleet = Fleet::with(
        "job",
        &shell(
            &format!("({script}) > out.new 2>&1; mv out.new out"),
            &format!("restart = \"never\"\n{more}"),
        ),
    );
    let path = fleet.path().join("out");
    fleet.wait("its output", || fs::read_to_string(&path).ok())
}

#[test]
fn program_finds_its_environment() {
    let text = output(
        "echo $FLEET_PROGRAM $FLEET_INSTANCE $COLOUR; echo $OF_THE_SUPERVISOR; echo ${NOTIFY_SOCKET-none} ${LISTEN_FDS-none}",
        "environment = { COLOUR = \"green\" }",
    );
    assert_eq!(text, "job 0 green\nis inherited\nnone none\n");
}

#[test]
fn environment_file_is_read_at_each_start_and_the_definition_goes_before_it() {
    let fleet = Fleet::empty();
    let mut fleet = fleet;
    fs::write(fleet.path().join("env"), "A=file\nB=file\n").unwrap();
    fleet.program(
        "job",
        &shell(
            "echo $A $B >> out; sleep 600",
            "directory = \".\"\nenv_file = \"env\"\nenvironment = { B = \"definition\" }",
        ),
    );
    fleet.start();
    assert_eq!(fleet.wait_for_file("out"), "file definition\n");
    fs::write(fleet.path().join("env"), "A=changed\n").unwrap();
    fleet.command("restart-job").unwrap();
    fleet.wait("the second start", || {
        (fleet.wait_for_file("out") == "file definition\nchanged definition\n").then_some(())
    });
}

#[test]
fn environment_file_that_is_missing_is_told() {
    let fleet = Fleet::with(
        "web",
        &format!("{SLEEP}env_file = \"nowhere.env\"\nretries = 0"),
    );
    fleet.wait_for("web", &["FATAL"]);
    let exit = fleet.program_status("web")["instances"][0]["exit"].to_string();
    assert!(exit.contains("nowhere.env: No such file"), "{exit}");
}

#[test]
fn umask_is_set() {
    assert_eq!(output("umask", "umask = \"0027\""), "0027\n");
}

#[test]
fn programs_run_in_the_directory_of_the_fleet_or_in_one_that_is_relative_to_it() {
    let mut fleet = Fleet::empty();
    fs::create_dir(fleet.path().join("srv")).unwrap();
    fleet.program("here", &shell("pwd > out; exec sleep 600", ""));
    fleet.program(
        "there",
        &shell("pwd > out; exec sleep 600", "directory = \"srv\""),
    );
    fleet.start();
    let root = fs::canonicalize(fleet.path()).unwrap();
    assert_eq!(fleet.wait_for_file("out"), format!("{}\n", root.display()));
    assert_eq!(
        fleet.wait_for_file("srv/out"),
        format!("{}/srv\n", root.display())
    );
}

#[test]
fn directory_that_is_missing_is_told() {
    let fleet = Fleet::with(
        "web",
        &format!("{SLEEP}directory = \"nowhere\"\nretries = 0"),
    );
    fleet.wait_for("web", &["FATAL"]);
    let exit = fleet.program_status("web")["instances"][0]["exit"].to_string();
    assert!(
        exit.contains("nowhere: failed to enter the directory"),
        "{exit}"
    );
}

#[test]
fn limits_are_set_and_open_files_are_raised_by_default() {
    let text = output(
        "ulimit -c; ulimit -Hc; ulimit -n",
        "limits = { core = 0, nofile = 123 }",
    );
    assert_eq!(text, "0\n0\n123\n");
    let text = output("ulimit -Sn; ulimit -Hn", "");
    let (soft, hard) = text.trim().split_once('\n').unwrap();
    assert_eq!(soft, hard);
}

#[test]
fn program_has_the_three_standard_streams_and_nothing_else() {
    let mut fleet = Fleet::empty();
    fleet.program(
        "job",
        "command = \"ls\"\narguments = [\"-l\", \"/proc/self/fd\"]\nrestart = \"never\"",
    );
    // What is left open for the supervisor is not for its programs.
    fleet.start_by("exec 7</dev/null; exec \"$@\"");
    let text = fleet.wait("its output", || {
        fs::read_to_string(fleet.path().join("log/job.log"))
            .ok()
            .filter(|text| text.lines().count() > 4)
    });
    let mut links = text.lines().filter_map(|line| line.split_once(" -> "));
    let of = |number: &str| {
        let mut found = links
            .clone()
            .filter(|(before, _)| before.ends_with(&format!(" {number}")));
        found.next().unwrap().1.to_owned()
    };
    assert_eq!(of("0"), "/dev/null");
    assert!(of("1").ends_with("log/job.log") && of("2").ends_with("log/job.log"));
    // The last is the directory that it lists.
    assert!(of("3").starts_with("/proc/"), "{text}");
    assert_eq!(links.by_ref().count(), 4, "{text}");
}

#[test]
fn user_and_group_are_assumed() {
    if !nix::unistd::geteuid().is_root() {
        crate::child::left_out("only root can become another user");
        return;
    }
    let fleet = Fleet::with(
        "job",
        &shell(
            "id -un; id -gn; echo $HOME $USER",
            "restart = \"never\"\nuser = \"nobody\"",
        ),
    );
    let text = fleet.wait("its output", || {
        fs::read_to_string(fleet.path().join("log/job.log"))
            .ok()
            .filter(|text| text.lines().count() == 3)
    });
    assert!(text.starts_with("nobody\nnogroup\n"), "{text}");
    assert!(text.ends_with(" nobody\n"), "{text}");
}

#[test]
fn user_that_is_unknown_is_told() {
    let fleet = Fleet::with(
        "web",
        &format!("{SLEEP}user = \"nobody-of-that-name\"\nretries = 0"),
    );
    fleet.wait_for("web", &["FATAL"]);
    let exit = fleet.program_status("web")["instances"][0]["exit"].to_string();
    assert!(
        exit.contains("user nobody-of-that-name: no such user"),
        "{exit}"
    );
}

#[test]
fn output_goes_to_the_log_that_is_named_or_to_one_of_the_name() {
    let script = "echo one; echo two >&2; sleep 600";
    let mut fleet = Fleet::empty();
    fs::create_dir(fleet.path().join("logs")).unwrap();
    fs::write(fleet.path().join("logs/named"), "before\n").unwrap();
    fleet.program("named", &shell(script, "log = \"logs/named\""));
    fleet.program("plain", &shell(script, ""));
    fleet.start();
    fleet.wait("both logs", || {
        let read = |path| fs::read_to_string(fleet.path().join(path)).unwrap_or_default();
        (read("logs/named") == "before\none\ntwo\n" && read("log/plain.log") == "one\ntwo\n")
            .then_some(())
    });
}

#[test]
fn log_that_cannot_be_written_is_told() {
    let fleet = Fleet::with("web", &format!("{SLEEP}log = \"nowhere/log\"\nretries = 0"));
    fleet.wait_for("web", &["FATAL"]);
    let exit = fleet.program_status("web")["instances"][0]["exit"].to_string();
    assert!(exit.contains("nowhere/log: No such file"), "{exit}");
}

#[test]
fn output_goes_to_a_command_that_is_started_again_when_it_ends() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let path = out.path().display().to_string();
    let definition = shell(
        "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done",
        &format!("log = \"| cat >> {path}\""),
    );
    let fleet = Fleet::with("web", &definition);
    fleet.wait_for("web", &["RUNNING"]);
    let lines = || fs::read_to_string(&path).unwrap().lines().count();
    fleet.wait("lines", || (lines() > 3).then_some(()));
    let children = fleet.children();
    let mut readers = children
        .iter()
        .flat_map(|child| crate::process::children(*child));
    let cat = readers.find(|pid| crate::process::command_line(*pid).starts_with(b"/bin/sh"));
    let cat = cat.expect("no log command");
    nix::sys::signal::killpg(
        nix::unistd::Pid::from_raw(cat.cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    wait_for_end(cat);
    let before = lines();
    fleet.wait("more lines", || (lines() > before + 3).then_some(()));
    fleet.command("upgrade").unwrap();
    let before = lines();
    fleet.wait("more lines", || (lines() > before + 3).then_some(()));
    fleet.command("stop-web").unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let numbers: Vec<&str> = text.lines().collect();
    let mut sorted = numbers.clone();
    sorted.dedup();
    assert_eq!(numbers.len(), sorted.len(), "a line is doubled");
}

#[test]
fn what_others_depend_on_is_started_first_and_stopped_last() {
    let mut fleet = Fleet::empty();
    fleet.program("a-web", &format!("{SLEEP}depends_on = [\"z-base\"]"));
    fleet.program("z-base", &SLEEP.replace("0s", "500ms"));
    fleet.start();
    fleet.wait_for("a-web", &["RUNNING"]);
    let log = fleet.log();
    let at = |part: &str| {
        log.find(part)
            .unwrap_or_else(|| panic!("no {part} in {log}"))
    };
    assert!(
        at("z-base:0 STARTING -> RUNNING") < at("a-web:0 STOPPED -> RUNNING"),
        "{log}"
    );
    assert!(
        at("a-web waits for z-base") < at("z-base:0 STARTING -> RUNNING"),
        "{log}"
    );
    let log = fleet.stop();
    let at = |part: &str| {
        log.find(part)
            .unwrap_or_else(|| panic!("no {part} in {log}"))
    };
    assert!(
        at("a-web:0 STOPPING -> STOPPED") < at("z-base:0 RUNNING -> STOPPING"),
        "{log}"
    );
}

#[test]
fn crash_is_repaired_without_waiting_for_what_it_depends_on() {
    let mut fleet = Fleet::empty();
    fleet.program("web", &format!("{SLEEP}depends_on = [\"base\"]"));
    fleet.program("base", SLEEP);
    fleet.start();
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.command("stop-base").unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(before[0].cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    fleet.wait("another", || {
        (fleet.wait_for("web", &["RUNNING"]) != before).then_some(())
    });
    fleet.submit("restart-web");
    fleet.wait("it to wait", || {
        (fleet.program_status("web")["waiting_for"] == "base").then_some(())
    });
    fleet.command("start-base").unwrap();
    fleet.answer("restart-web").unwrap();
}

#[test]
fn program_that_is_stopped_waits_for_nothing() {
    let mut fleet = Fleet::empty();
    fleet.program("web", &format!("{SLEEP}depends_on = [\"base\"]"));
    fleet.program("base", &format!("{SLEEP}autostart = false"));
    fleet.start();
    fleet.wait("it to wait", || {
        (fleet.program_status("web")["waiting_for"] == "base").then_some(())
    });
    fleet.command("stop-web").unwrap();
    assert!(fleet.program_status("web")["waiting_for"].is_null());
}

#[test]
fn circle_of_dependencies_is_refused() {
    let mut fleet = Fleet::with("a", SLEEP);
    fleet.wait_for("a", &["RUNNING"]);
    fleet.program("b", &format!("{SLEEP}depends_on = [\"a\"]"));
    fleet.wait_for("b", &["RUNNING"]);
    fleet.program("a", &format!("{SLEEP}depends_on = [\"b\"]"));
    let error = fleet.wait("an error", || {
        fleet.program_status("a")["error"]
            .as_str()
            .map(str::to_owned)
    });
    assert!(error.contains("wait for each other"), "{error}");
    fleet.wait_for("a", &["RUNNING"]);
    fleet.kill();
}

#[test]
fn lower_priority_is_started_first() {
    let mut fleet = Fleet::empty();
    fleet.program("a", &format!("{SLEEP}priority = 20"));
    fleet.program("b", &format!("{SLEEP}priority = 10"));
    fleet.start();
    fleet.wait_for("a", &["RUNNING"]);
    let log = fleet.log();
    assert!(
        log.find("b:0 STOPPED").unwrap() < log.find("a:0 STOPPED").unwrap(),
        "{log}"
    );
}

/// A program that tells it is ready when it gets USR1.
const READY: &str = r#"
command = "perl"
arguments = ["-MSocket", "-e", '''
    $SIG{USR1} = sub {
        socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die;
        my $name = $ENV{NOTIFY_SOCKET}; $name =~ s/^@/\0/;
        send($s, "READY=1", 0, pack_sockaddr_un($name)) or die $!;
    };
    open(my $f, ">", "up") or die; print $f "\n"; close $f;
    sleep 1 while 1;
''']
directory = "."
ready = "notify"
restart = "always"
"#;

#[test]
fn program_that_notifies_is_running_when_it_says_so_and_so_it_stays() {
    if !crate::child::has("perl") {
        return;
    }
    let mut fleet = Fleet::with("web", READY);
    fleet.program("after", &format!("{SLEEP}depends_on = [\"web\"]"));
    fleet.wait_for_file("up");
    fleet.wait_for("web", &["STARTING"]);
    fleet.wait("it to wait", || {
        (fleet.program_status("after")["waiting_for"] == "web").then_some(())
    });
    // A supervisor that takes over does not take it for ready either.
    fleet.kill();
    fleet.start();
    fleet.wait_for_log("is process");
    fleet.command("signal-web-USR1").unwrap();
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.wait_for("after", &["RUNNING"]);
    assert_eq!(fleet.program_status("web")["instances"][0]["ready"], true);
    fleet.kill();
    fleet.start();
    fleet.wait_for_log("adopted 2 processes");
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
    assert_eq!(fleet.program_status("web")["instances"][0]["ready"], true);
}

#[test]
fn program_that_is_not_ready_in_time_is_ended_and_tried_again() {
    if !crate::child::has("perl") {
        return;
    }
    let fleet = Fleet::with(
        "web",
        &format!("{READY}ready_timeout = \"500ms\"\nretries = 1\nbackoff = \"10ms\""),
    );
    fleet.wait_for("web", &["FATAL"]);
    let log = fleet.log();
    let told = |line: &&str| line.contains("it is not ready after ");
    assert_eq!(log.lines().filter(told).count(), 2, "{log}");
    assert!(fleet.children().is_empty());
}

#[test]
fn program_of_another_user_can_say_that_it_is_ready() {
    if !crate::child::has("perl") {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        crate::child::left_out("only root can become another user");
        return;
    }
    let mut fleet = Fleet::empty();
    fs::set_permissions(fleet.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let definition = r#"
command = "perl"
arguments = ["-MSocket", "-e", '''
    socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die;
    send($s, "READY=1", 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET})) or die $!;
    sleep 600;
''']
user = "nobody"
ready = "notify"
"#;
    fleet.program("web", definition);
    fleet.start();
    fleet.wait_for("web", &["RUNNING"]);
}

/// A program that sends whatever files are put before it.
const TALKER: &str = r#"
command = "perl"
arguments = ["-MSocket", "-e", '''
    socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die;
    while (1) {
        for my $name (glob("say.*")) {
            open(my $f, "<", $name) or next; local $/; my $text = <$f>; close $f; unlink $name;
            send($s, $text, 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET})) or die $!;
        }
        exit 0 if -e "end";
        select(undef, undef, undef, 0.02);
    }
''']
directory = "."
ready = "notify"
restart = "always"
"#;

fn say(fleet: &Fleet, text: &str) {
    fs::write(fleet.path().join("said.new"), text).unwrap();
    fs::rename(fleet.path().join("said.new"), fleet.path().join("say.1")).unwrap();
}

#[test]
fn what_a_program_says_of_itself_is_in_the_status_until_it_ends() {
    if !crate::child::has("perl") {
        return;
    }
    let fleet = Fleet::with("web", TALKER);
    let status = || fleet.program_status("web")["instances"][0]["status"].clone();
    fleet.wait_for("web", &["STARTING"]);
    assert!(status().is_null());
    say(&fleet, "STATUS=warming up");
    fleet.wait("the status", || (status() == "warming up").then_some(()));
    fleet.wait_for("web", &["STARTING"]);
    say(&fleet, "READY=1\nSTATUS=serving");
    fleet.wait("the next one", || (status() == "serving").then_some(()));
    let pids = fleet.wait_for("web", &["RUNNING"]);
    fleet.command("upgrade").unwrap();
    assert_eq!(status(), "serving");
    fs::write(fleet.path().join("end"), "").unwrap();
    wait_for_end(pids[0]);
    fleet.wait("no status", || status().is_null().then_some(()));
}

#[test]
fn time_that_a_program_asks_for_is_given_to_it() {
    if !crate::child::has("perl") {
        return;
    }
    let fleet = Fleet::with("web", &format!("{TALKER}ready_timeout = \"10s\""));
    let pids = fleet.wait_for("web", &["STARTING"]);
    let begun = std::time::Instant::now();
    say(&fleet, "EXTEND_TIMEOUT_USEC=600000000\nSTATUS=slow");
    fleet.wait("it to have been heard", || {
        let status = &fleet.program_status("web")["instances"][0]["status"];
        (status == "slow").then_some(())
    });
    fleet.wait("more time than it had", || {
        (begun.elapsed().as_millis() > 10_500).then_some(())
    });
    say(&fleet, "READY=1");
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), pids);
    let log = fleet.log();
    assert!(!log.contains("not ready"), "{log}");
}

#[test]
fn what_has_lived_long_enough_is_replaced() {
    let fleet = Fleet::with("web", &format!("{SLEEP}max_lifetime = \"300ms\""));
    fleet.wait("a third life", || {
        let starts = fleet.program_status("web")["instances"][0]["starts"].as_u64();
        starts.is_some_and(|starts| starts >= 3).then_some(())
    });
    let log = fleet.log();
    assert!(
        log.contains("web:0 RUNNING -> STOPPING") && log.contains("it has lived for "),
        "{log}"
    );
}

#[test]
fn starts_are_paced() {
    let mut fleet = Fleet::empty()
        .argument("--rate")
        .argument("20")
        .argument("--burst")
        .argument("2");
    fleet.program("web", &format!("{SLEEP}instances = 12"));
    let begun = std::time::Instant::now();
    fleet.start();
    fleet.wait_for("web", &["RUNNING"; 12]);
    let took = begun.elapsed();
    assert!(
        took.as_millis() >= 500,
        "10 starts at 20 a second took {took:?}"
    );
}
