//! The variables of `--envdir` and `--env-file`.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::daemon::{Program, Start, both, stderr};

#[test]
fn env_file_that_is_a_pipe_is_refused_and_holds_nothing_up() {
    let start = Start::new(Program::Ours)
        .options(["--env-file=pipe"])
        .program(&["true"]);
    nix::unistd::mkfifo(&start.dir().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let device = Start::new(Program::Ours)
        .options(["--env-file=/dev/tty"])
        .program(&["true"]);
    for (start, name) in [(start, "pipe"), (device, "/dev/tty")] {
        let output = start.run();
        assert_eq!(output.status.code(), Some(255));
        let text = stderr(&output);
        let told = format!("--env-file {name}: not a regular file");
        assert!(text.contains(&told), "{text}");
    }
    let nothing = Start::new(Program::Ours)
        .options(["--interval=0", "--env-file=/dev/null"])
        .shell("echo up; exec sleep 618")
        .start();
    nothing.wait_for_log("up");
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
fn envdir_value_ends_where_a_variable_has_to() {
    both(|program| {
        let daemon = Start::new(program)
            .options(["--interval=0", "--port=127.0.0.1:0", "--envdir=env"])
            .file("env/COLOUR", "blue\0green\n")
            .start();
        assert_eq!(daemon.ask("env COLOUR"), "=blue");
    });
}

#[test]
fn envdir_file_that_no_variable_can_be_called_is_left_out() {
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--port=127.0.0.1:0", "--envdir=env"])
        .file("env/COLOUR=blue", "green\n")
        .start();
    assert_eq!(daemon.ask("env COLOUR"), "unset");
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
fn envdir_has_the_last_word_and_the_last_env_file_the_one_before() {
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--port=127.0.0.1:0", "--envdir=env"])
        .options(["--env-file=first.env", "--env-file=second.env"])
        .file("first.env", "COLOUR=one\nSHAPE=one\nSIZE=one\n")
        .file("second.env", "COLOUR=two\nSHAPE=two\n")
        .file("env/COLOUR", "three\n")
        .start();
    let found = ["COLOUR", "SHAPE", "SIZE"].map(|name| daemon.ask(&format!("env {name}")));
    assert_eq!(found, ["=three", "=two", "=one"]);
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
fn program_is_looked_for_where_the_workers_environment_says() {
    both(|program| {
        let start = Start::new(program)
            .options(["--interval=0", "--envdir=env"])
            .file("one/app", "no program")
            .file("env/PATH", "one:two:/usr/bin:/bin\n");
        let dir = start.dir().join("two");
        fs::create_dir(&dir).unwrap();
        let script = "#!/bin/sh\necho found; exec sleep 660\n";
        crate::executable::write(&dir.join("app"), script);
        // What may not be executed is passed over.
        start.program(&["app"]).start().wait_for_log("found\n");
    });
}
