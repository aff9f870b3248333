//! The log, the pid file, the status file, and the files of the environment.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};

use super::daemon::{Daemon, Program, Start, both, finish, is_running, stderr, wait_for};
use crate::small_disk::SmallDisk;

#[test]
fn log_file_is_appended_to_and_takes_all_output() {
    both(|program| {
        let start = Start::new(program).file("log", "before\n");
        let mut daemon = start
            .options(["--interval=0", "--log-file=log"])
            .shell("echo to standard output; echo to standard error >&2; exec sleep 600")
            .start();
        let log = daemon.wait_for_text("log", "standard error");
        assert!(
            log.starts_with("before\n") && log.contains("to standard output"),
            "{log}"
        );
        daemon.stop();
        let log = daemon.read("log").unwrap();
        assert!(log.ends_with("exiting\n"), "{log}");
        // Where it is started from sees that it does.
        assert!(daemon.log().contains("starting now..."), "{}", daemon.log());
    });
}

#[test]
fn log_file_that_cannot_be_opened_is_an_error_that_names_it() {
    both(|program| {
        let output = Start::new(program)
            .options(["--log-file=nowhere/log"])
            .run();
        assert_eq!(output.status.code(), Some(2));
        assert!(
            stderr(&output).contains("failed to open log file:nowhere/log"),
            "{}",
            stderr(&output)
        );
    });
}

#[test]
fn log_file_that_is_a_pipe_without_a_reader_is_not_waited_for() {
    let start = Start::new(Program::Ours)
        .options(["--log-file=pipe"])
        .program(&["true"]);
    nix::unistd::mkfifo(&start.dir().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = start.run();
    assert_eq!(output.status.code(), Some(nix::libc::ENXIO));
    let text = stderr(&output);
    assert!(text.contains("failed to open log file:pipe"), "{text}");
}

#[test]
fn log_file_that_is_a_pipe_with_a_reader_takes_all_output() {
    let start = Start::new(Program::Ours)
        .options(["--interval=0", "--log-file=pipe"])
        .shell("echo up; exec sleep 617");
    let pipe = start.dir().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = fs::OpenOptions::new().read(true).write(true).open(&pipe);
    let mut lines = BufReader::new(reader.unwrap()).lines();
    let daemon = start.start();
    assert!(lines.any(|line| line.unwrap() == "up"));
    drop(daemon);
}

#[test]
fn env_file_that_is_a_pipe_is_refused_and_holds_nothing_up() {
    let start = Start::new(Program::Ours)
        .options(["--env-file=pipe"])
        .program(&["true"]);
    nix::unistd::mkfifo(&start.dir().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = start.run();
    assert_eq!(output.status.code(), Some(255));
    let text = stderr(&output);
    assert!(
        text.contains("--env-file pipe: not a regular file"),
        "{text}"
    );
    let nothing = Start::new(Program::Ours)
        .options(["--interval=0", "--env-file=/dev/null"])
        .shell("echo up; exec sleep 618")
        .start();
    nothing.wait_for_log("up");
}

#[test]
fn log_file_is_opened_again_on_usr1() {
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--port=127.0.0.1:0", "--log-file=log"])
        .start();
    daemon.wait_for_text("log", "serving as generation 1");
    fs::rename(daemon.path("log"), daemon.path("log.1")).unwrap();
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_text("log", "received USR1, opened log again");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_text("log", "serving as generation");
}

#[test]
fn log_lines_have_the_time_if_asked() {
    let mut daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--log-format=text"])
        .shell("exec sleep 600")
        .start();
    daemon.wait_for_log("starting new worker");
    let log = daemon.stop();
    for line in log.lines() {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(chrono_like(time), "{line}");
        assert!(
            rest.starts_with(&format!("start_server[{}]: ", daemon.pid())),
            "{line}"
        );
    }
    assert!(log.contains("]: exiting\n"), "{log}");
}

/// `2026-01-02T03:04:05.678+09:00`
fn chrono_like(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    [
        "0000-00-00T00:00:00.000+00:00",
        "0000-00-00T00:00:00.000-00:00",
    ]
    .contains(&shape.as_str())
}

#[test]
fn log_lines_are_json_if_asked() {
    let mut daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--log-format=json", "--dir=."])
        .shell("exec sleep 600")
        .start();
    daemon.wait_for_log("starting new worker");
    let log = daemon.stop();
    for line in log.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(chrono_like(value["time"].as_str().unwrap()), "{line}");
        assert_eq!(value["program"], "start_server");
        assert_eq!(value["pid"], daemon.pid());
        assert!(value["message"].is_string());
    }
    assert!(log.contains("\"exiting\""), "{log}");
}

#[test]
fn reader_of_the_log_that_stalls_does_not_stall_the_deploy() {
    let start = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--signal-on-hup=TERM"])
        .shell("exec sleep 600");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = start.command();
    let mut full = writer.try_clone().unwrap();
    let mut child = command
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    drop(command);
    let dir = start.dir().to_owned();
    let generation = |wanted: &str| {
        wait_for("a generation", || {
            fs::read_to_string(dir.join("status"))
                .ok()
                .filter(|text| text.starts_with(wanted))
        })
    };
    generation("1:");
    // Nobody reads, and there is no room for another line.
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&full, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    while full.write(&[b'x'; 4096]).is_ok() {}
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGHUP).unwrap();
    generation("2:");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    drop((reader, start));
}

#[test]
fn daemon_is_detached_and_its_sockets_listen_when_the_launcher_returns() {
    both(|program| {
        let start = Start::new(program)
            .files()
            .options(["--interval=0", "--path=a.sock"]);
        let (daemon, output) = start.daemonize();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        std::os::unix::net::UnixStream::connect(daemon.path("a.sock")).unwrap();
        let pid = daemon.pid();
        let own = getsid(None).unwrap();
        let session = getsid(Some(Pid::from_raw(pid))).unwrap();
        assert_ne!(session, own);
        assert_ne!(
            session.as_raw(),
            pid,
            "a session's leader can get a terminal again"
        );
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/fd/0")).unwrap().to_str(),
            Some("/dev/null")
        );
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/cwd")).unwrap(),
            daemon.dir.path().canonicalize().unwrap()
        );
        daemon.wait_for_log("serving as generation 1");
        daemon.signal(Signal::SIGTERM);
        daemon.wait("its end", || (!is_running(pid)).then_some(()));
        assert!(!daemon.path("pid").exists() && !daemon.path("a.sock").exists());
    });
}

#[test]
fn daemon_keeps_a_socket_that_is_its_standard_input() {
    both(|program| {
        let (daemon, output) = Start::new(program)
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0=0"])
            .daemonize();
        assert!(output.status.success(), "{}", stderr(&output));
        daemon.wait_for_log("serving as generation 1");
        assert_eq!(daemon.ask("generation"), "1");
    });
}

#[test]
fn launcher_tells_why_the_daemon_did_not_start() {
    let mut holder = Start::new(Program::Ours)
        .files()
        .options(["--interval=0"])
        .shell("exec sleep 600")
        .start();
    holder.wait("the pid file", || holder.read("pid"));
    let pid_file = format!("--pid-file={}", holder.path("pid").display());
    for (options, words, text) in [
        (&[][..], &["./missing"][..], "failed to exec ./missing"),
        (&["--dir=nowhere"], &["true"], "failed to chdir:nowhere"),
        (
            &["--status-file=nowhere/status"],
            &["true"],
            "nowhere/status",
        ),
        (&[&pid_file], &["true"], "is held by the running process"),
        (
            &["--user=no-such-user"],
            &["true"],
            "--user no-such-user: no such user",
        ),
    ] {
        let (_daemon, output) = Start::new(Program::Ours)
            .options(options)
            .program(words)
            .daemonize();
        assert!(!output.status.success(), "{options:?} {words:?}");
        assert!(
            stderr(&output).contains(text),
            "{options:?} {words:?}: {}",
            stderr(&output)
        );
    }
    holder.stop();
}

#[test]
fn launcher_tells_why_a_socket_could_not_be_bound() {
    both(|program| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap().to_string();
        for (address, code) in [("192.0.2.1:0", 99), (&taken, 98)] {
            let (daemon, output) = Start::new(program)
                .files()
                .options([format!("--port={address}")])
                .program(&["true"])
                .daemonize();
            assert_eq!(output.status.code(), Some(code), "{address}");
            let text = stderr(&output);
            let told = format!("failed to bind to {address}:");
            assert!(text.contains(&told), "{address}: {text}");
            assert!(!daemon.path("pid").exists() && !daemon.path("status").exists());
        }
    });
}

#[test]
fn launcher_waits_for_readiness_if_it_is_waited_for() {
    let start = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready", "--port=127.0.0.1:0"])
        .file("mode", "ready");
    let (daemon, output) = start.daemonize();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(daemon.generations(), [1]);
    daemon.signal(Signal::SIGTERM);

    let start = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready", "--port=127.0.0.1:0"])
        .file("mode", "exit=4");
    let (daemon, output) = start.daemonize();
    assert_ne!(output.status.code(), Some(0));
    assert!(
        stderr(&output).contains("generation 1 failed: exited with code 4"),
        "{}",
        stderr(&output)
    );
    daemon.wait("its end", || {
        super::daemon::marked(daemon.dir.path())
            .is_empty()
            .then_some(())
    });
    assert!(!daemon.path("pid").exists());
}

#[test]
fn launcher_gives_up_with_the_first_generation_that_is_late() {
    let start = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready=1"])
        .program(&["sleep", "608"]);
    let (daemon, output) = start.daemonize();
    assert_eq!(output.status.code(), Some(255));
    let told = "generation 1 failed: not ready within 1 secs";
    assert!(stderr(&output).contains(told), "{}", stderr(&output));
    let log = daemon.log();
    assert!(log.contains(&format!("{told}; giving up")), "{log}");
    assert_eq!(log.matches("starting new worker").count(), 1, "{log}");
}

#[test]
fn launcher_does_not_take_an_early_stop_for_a_start() {
    let start = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready", "--daemonize", "--log-file=output"])
        .program(&["sleep", "609"]);
    let launcher = start
        .command()
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let daemon = start.daemon();
    daemon.wait_for_log("starting new worker");
    daemon.signal(Signal::SIGTERM);
    let output = launcher.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    let told = stderr(&output);
    assert!(
        told.contains("told to stop before a generation served"),
        "{told}"
    );
}

#[test]
fn pid_file_has_the_id_and_a_lock_for_life() {
    both(|program| {
        let mut daemon = Daemon::serving(program);
        let pid = daemon.pid();
        assert_eq!(daemon.read("pid").unwrap(), format!("{pid}\n"));
        let path = daemon.path("pid");
        assert_eq!(
            graceful_listener::PidFile::holder(&path).unwrap(),
            Some(pid.cast_unsigned())
        );
        daemon.stop();
        assert!(!path.exists());
    });
}

#[test]
fn pid_file_left_by_a_killed_one_is_taken_over() {
    both(|program| {
        let mut first = Start::new(program)
            .files()
            .options(["--interval=0"])
            .shell("exec sleep 600")
            .start();
        first.wait("the status file", || first.read("status"));
        first.kill();
        let second = first
            .again(&[
                "--interval=0",
                "--pid-file=pid",
                "--status-file=status",
                "--port=127.0.0.1:0",
            ])
            .start();
        second.wait("its id", || {
            (second.read("pid")? == format!("{}\n", second.pid())).then_some(())
        });
    });
}

#[test]
fn second_instance_leaves_the_pid_file_of_the_first_alone() {
    let daemon = Daemon::serving(Program::Ours);
    let before = daemon.read("pid").unwrap();
    let pid_file = format!("--pid-file={}", daemon.path("pid").display());
    let output = Start::new(Program::Ours).options([&pid_file]).run();
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains(&format!("is held by the running process {}", daemon.pid())),
        "{}",
        stderr(&output)
    );
    assert_eq!(daemon.read("pid").unwrap(), before);
    assert_eq!(daemon.ask("generation"), "1");
}

#[test]
fn status_file_is_sorted_by_number() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "stay")
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0"])
        .start();
    for generation in 2..=11 {
        daemon.worker(generation - 1);
        daemon.signal(Signal::SIGHUP);
    }
    daemon.wait_for_generations(&(1..=11).collect::<Vec<_>>());
}

#[test]
fn status_file_is_not_there_before_a_worker_serves() {
    both(|program| {
        let mut daemon = Start::new(program)
            .files()
            .options(["--interval=600", "--port=127.0.0.1:0"])
            .start();
        daemon.worker(1);
        assert!(!daemon.path("status").exists());
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.wait_for_exit().success());
        assert!(!daemon.path("status").exists());
    });
}

#[test]
fn status_file_of_another_is_not_removed_by_a_failed_start() {
    both(|program| {
        let start = Start::new(program)
            .options(["--status-file=status", "--port=192.0.2.1:0"])
            .file("status", "1:1\n");
        let path = start.dir().join("status");
        assert!(!finish(start.command()).status.success());
        assert_eq!(fs::read_to_string(path).unwrap(), "1:1\n");
    });
}

#[test]
fn status_file_that_was_not_written_is_not_removed() {
    let start = Start::new(Program::Ours)
        .options(["--status-file=status"])
        .program(&["./missing"])
        .file("status", "1:1\n");
    let path = start.dir().join("status");
    assert_eq!(finish(start.command()).status.code(), Some(2));
    assert_eq!(fs::read_to_string(path).unwrap(), "1:1\n");
}

#[test]
fn status_file_that_cannot_be_written_ends_the_first_start() {
    let output = Start::new(Program::Ours)
        .options(["--status-file=nowhere/status"])
        .run();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("nowhere/status: No such file or directory"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn status_file_is_not_written_through_a_link() {
    // Whoever owns the directory must not lead the super-daemon elsewhere.
    let start = Start::new(Program::Ours)
        .files()
        .options(["--interval=0"])
        .shell("exec sleep 600")
        .file("victim", "safe");
    let dir = start.dir().to_owned();
    let mut command = start.command();
    let script = "ln -s victim status.$$; exec \"$0\" \"$@\"";
    let mut wrapped = std::process::Command::new("sh");
    wrapped
        .args(["-c", script])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(&dir);
    wrapped.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    command = wrapped;
    let daemon = start.start_as(&mut command);
    daemon.wait_for_generations(&[1]);
    assert_eq!(daemon.read("victim").unwrap(), "safe");
}

#[test]
fn envdir_is_read_anew_for_each_worker() {
    both(|program| {
        let daemon = Start::new(program)
            .options(["--interval=0", "--port=127.0.0.1:0", "--envdir=env"])
            .file("env/COLOUR", "blue\n")
            .file("env/.hidden", "x")
            .file("env/EMPTY", "")
            .file("env/BLANK", "\n")
            .file("env/OPEN", "no end")
            .start();
        daemon.worker(1);
        assert_eq!(daemon.ask("env COLOUR"), "=blue");
        assert_eq!(daemon.ask("env .hidden"), "unset");
        assert_eq!(daemon.ask("env EMPTY"), "unset");
        assert_eq!(daemon.ask("env BLANK"), "=");
        assert_eq!(daemon.ask("env OPEN"), "=no end");
        daemon.write("env/COLOUR", "green\nand more\n");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_answer_of(2);
        assert_eq!(daemon.ask("env COLOUR"), "=green");
    });
}

#[test]
fn envdir_entry_that_is_a_pipe_is_left_out_and_holds_nothing_up() {
    let start = Start::new(Program::Ours)
        .options(["--interval=0", "--port=127.0.0.1:0", "--envdir=env"])
        .file("env/COLOUR", "blue\n");
    let pipe = start.dir().join("env/PIPE");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let daemon = start.start();
    assert_eq!(daemon.ask("env COLOUR"), "=blue");
    assert_eq!(daemon.ask("env PIPE"), "unset");
}

#[test]
fn envdir_file_that_is_removed_is_unset() {
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--port=127.0.0.1:0", "--envdir=env"])
        .file("env/COLOUR", "blue\n")
        .file("env/SHAPE", "round\n")
        .env("SHAPE", "square")
        .start();
    daemon.worker(1);
    daemon.write("env/COLOUR", "green\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_answer_of(2);
    assert_eq!(
        (daemon.ask("env COLOUR"), daemon.ask("env SHAPE")),
        ("=green".into(), "=round".into())
    );
    fs::remove_file(daemon.path("env/COLOUR")).unwrap();
    fs::remove_file(daemon.path("env/SHAPE")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_answer_of(3);
    // Back to what the super-daemon itself was started with.
    assert_eq!(
        (daemon.ask("env COLOUR"), daemon.ask("env SHAPE")),
        ("unset".into(), "=square".into())
    );
}

#[test]
fn envdir_may_come_from_the_environment_and_change_the_options() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0", "--kill-old-delay=0"])
            .env("ENVDIR", "env")
            .file("env/COLOUR", "blue")
            .start();
        daemon.worker(1);
        assert_eq!(daemon.ask("env COLOUR"), "=blue");
        daemon.write("env/KILL_OLD_DELAY", "1\n");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("sleeping 1 secs before killing old workers");
    });
}

#[test]
fn envdir_that_is_missing_is_empty() {
    both(|program| {
        let daemon = Start::new(program)
            .options(["--interval=0", "--port=127.0.0.1:0", "--envdir=nowhere"])
            .start();
        daemon.worker(1);
        assert_eq!(daemon.ask("env ENVDIR"), "=nowhere");
    });
}

#[test]
fn env_file_is_read_anew_for_each_worker() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options([
            "--interval=0",
            "--port=127.0.0.1:0",
            "--env-file=app.env",
            "--retry-delay=600",
            "--retry-max-delay=600",
        ])
        .file(
            "app.env",
            "# colours\nCOLOUR=\"sky blue\"\nexport SHAPE='round'\n",
        )
        .env("SHAPE", "square")
        .start();
    daemon.worker(1);
    assert_eq!(
        (daemon.ask("env COLOUR"), daemon.ask("env SHAPE")),
        ("=sky blue".into(), "=round".into())
    );
    daemon.write("app.env", "COLOUR=green\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_answer_of(2);
    assert_eq!(
        (daemon.ask("env COLOUR"), daemon.ask("env SHAPE")),
        ("=green".into(), "=square".into())
    );
    // A broken one is a generation that failed.
    daemon.write("app.env", "COLOUR=green\nno value\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("generation 3 failed: --env-file app.env line 2: expected NAME=VALUE");
    assert_eq!(daemon.ask("generation"), "2");
}

#[test]
fn env_file_that_is_missing_ends_the_first_start() {
    let output = Start::new(Program::Ours)
        .options(["--env-file=nowhere.env"])
        .run();
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("--env-file nowhere.env: No such file"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn full_disk_stops_neither_the_start_of_a_generation_nor_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::over(dir.path()) else {
        return;
    };
    let status = dir.path().join("status");
    let mut daemon = Start::new(Program::Ours)
        .options([
            "--interval=0",
            "--port=127.0.0.1:0",
            &format!("--status-file={}", status.display()),
        ])
        .start();
    daemon.worker(1);
    daemon.wait("the status", || {
        fs::read_to_string(&status)
            .ok()
            .filter(|text| text.starts_with("1:"))
    });
    disk.fill();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_answer_of(2);
    daemon.wait_for_log("failed to write status file");
    disk.empty();
    // It is tried again, without anything else happening.
    daemon.wait("the status", || {
        fs::read_to_string(&status)
            .ok()
            .filter(|text| text.starts_with("2:"))
    });
    disk.fill();
    daemon.stop();
    assert!(!status.exists());
}

#[test]
fn full_disk_refuses_the_start_with_a_pid_file() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::over(dir.path()) else {
        return;
    };
    disk.fill();
    let pid_file = dir.path().join("pid");
    let output = Start::new(Program::Ours)
        .options([format!("--pid-file={}", pid_file.display())])
        .run();
    assert_eq!(output.status.code(), Some(28));
    assert!(stderr(&output).contains("pid file"), "{}", stderr(&output));
    assert!(!pid_file.exists());
}

#[test]
fn log_file_is_readable_by_its_group_only_as_the_mask_says() {
    let daemon = Start::new(Program::Ours)
        .options([
            "--interval=0",
            "--log-file=log",
            "--umask=027",
            "--port=127.0.0.1:0",
        ])
        .shell("umask; exec sleep 600")
        .start();
    daemon.wait_for_text("log", "0027");
    assert_eq!(
        fs::metadata(daemon.path("log")).unwrap().mode() & 0o777,
        0o640
    );
}

#[test]
fn connections_wait_while_no_worker_lives() {
    both(|program| {
        let daemon = Daemon::serving(program);
        let address = daemon.address();
        daemon.write("mode", "sleep=500");
        kill(Pid::from_raw(daemon.worker(1)), Signal::SIGKILL).unwrap();
        daemon.wait_for_log("died unexpectedly");
        // Refused by nobody, answered by the next one.
        let mut stream = TcpStream::connect(&address).unwrap();
        assert_eq!(super::worker::talk(&mut stream, "generation").unwrap(), "2");
    });
}

#[test]
fn status_file_is_replaced_as_a_whole() {
    both(|program| {
        let daemon = Daemon::serving(program);
        let first = daemon.worker(1);
        let before = fs::File::open(daemon.path("status")).unwrap();
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_generations(&[2]);
        // Whoever had it open reads what it was.
        let text = std::io::read_to_string(before).unwrap();
        assert_eq!(text, format!("1:{first}\n"));
    });
}

#[test]
fn envdir_is_read_anew_for_a_worker_that_replaces_a_dead_one() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0", "--envdir=env"])
            .file("env/COLOUR", "blue\n")
            .start();
        let first = daemon.worker(1);
        daemon.wait_for_generations(&[1]);
        daemon.write("env/COLOUR", "green\n");
        kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
        daemon.wait_for_answer_of(2);
        assert_eq!(daemon.ask("env COLOUR"), "=green");
    });
}

#[test]
fn pid_file_is_there_before_the_first_worker() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=0"])
            .shell("echo \"told: $(cat pid)\"; exec sleep 627")
            .start();
        let pid = daemon.pid();
        let log = daemon.wait_for_log("told: ");
        assert!(log.contains(&format!("told: {pid}\n")), "{log}");
        let begin = format!("start_server (pid:{pid}) starting now...\n");
        assert!(log.contains(&begin), "{log}");
    });
}

#[test]
fn daemon_keeps_the_mask_it_was_started_with() {
    both(|program| {
        let start = Start::new(program).files().options([
            "--interval=0",
            "--port=127.0.0.1:0",
            "--daemonize",
            "--log-file=output",
        ]);
        let own = start.command();
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", "umask 027; exec \"$0\" \"$@\""])
            .arg(own.get_program())
            .args(own.get_args())
            .current_dir(start.dir())
            .stdin(std::process::Stdio::null());
        for (name, value) in own.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = finish(command);
        let daemon = start.daemon();
        assert!(output.status.success(), "{}", stderr(&output));
        daemon.worker(1);
        assert_eq!(daemon.ask("status Umask"), "0027");
    });
}
