//! What becomes of workers whose super-daemon was killed.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::daemon::{Daemon, Program, Start, both, finish, number_after, stderr};
use super::processes::is_running;
use crate::port;

fn start_on(program: Program, port: &str) -> Daemon {
    let daemon = Start::new(program)
        .files()
        .options(["--interval=0", "--path=a.sock", port])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.worker(1);
    daemon
}

pub(super) fn can_adopt() -> bool {
    // Without the right to trace, only a child can be looked into.
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let can = nix::unistd::geteuid().is_root() || matches!(scope.trim(), "" | "0");
    if !can {
        crate::child::left_out("this user may not trace its own processes");
    }
    can
}

#[test]
fn worker_of_a_killed_super_daemon_is_adopted_and_replaced() {
    if !can_adopt() {
        return;
    }
    for whose in [Program::Ours, Program::Perl] {
        if !whose.path().exists() {
            continue;
        }
        let port = format!("--port=127.0.0.1:{}", port::free());
        let mut first = start_on(whose, &port);
        let orphan = first.worker(1);
        first.kill();
        assert_eq!(first.ask("generation"), "1");
        let start = first.again(&[
            "--interval=0",
            "--path=a.sock",
            &port,
            "--pid-file=pid",
            "--status-file=status",
        ]);
        let mut second = start.ours().start();
        second.wait_for_log(&format!(
            "adopting worker {orphan} of generation 1: its super-daemon is gone"
        ));
        // The count goes on, and the orphan is told when its successor serves.
        second.worker(2);
        second.wait_for_log(&format!(
            "new worker is now running, sending TERM to old workers:{orphan}"
        ));
        second.wait_for_log(&format!("old worker {orphan} died, status:"));
        second.wait_for_answer_of(2);
        second.wait_for_generations(&[2]);
        std::os::unix::net::UnixStream::connect(second.path("a.sock")).unwrap();
        second.stop();
        assert!(!second.path("a.sock").exists());
    }
}

#[test]
fn child_of_an_orphan_is_not_adopted_beside_it() {
    if !can_adopt() {
        return;
    }
    let port = format!("--port=127.0.0.1:{}", port::free());
    let mut first = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", &port])
        .shell("sleep 624 & echo $! > child.new; mv child.new child; exec sleep 625")
        .start();
    first.wait_for_generations(&[1]);
    let orphan = number_after(&first.log(), "starting new worker ");
    let child = first.wait("its child", || {
        std::fs::read_to_string(first.path("child")).ok()
    });
    first.kill();
    let start = first.again(&["--interval=0", &port]);
    let second = start.program(&["sleep", "626"]).start();
    second.wait_for_log(&format!("sending TERM to old workers:{orphan}"));
    let log = second.log();
    assert_eq!(log.matches("adopting worker").count(), 1, "{log}");
    // Its end is its parent's business, or that of the group that both are in.
    let _ = kill(
        Pid::from_raw(child.trim().parse().unwrap()),
        Signal::SIGKILL,
    );
}

#[test]
fn socket_of_an_orphan_is_known_by_another_spelling_of_its_path() {
    if !can_adopt() {
        return;
    }
    let mut first = Start::new(Program::Ours)
        .options(["--interval=0", "--path=a.sock"])
        .start();
    let orphan = first.worker(1);
    first.kill();
    let second = first.again(&["--interval=0", "--path=./a.sock"]).start();
    second.wait_for_log(&format!("adopting worker {orphan} of generation 1"));
    second.worker(2);
    assert!(!second.log().contains("removing existing socket file"));
}

#[test]
fn orphan_serves_until_its_successor_does() {
    if !can_adopt() {
        return;
    }
    let port = format!("--port=127.0.0.1:{}", port::free());
    let mut first = start_on(Program::Ours, &port);
    let orphan = first.worker(1);
    first.kill();
    first.write("mode", "exit=1");
    let second = first
        .again(&[
            "--wait-ready",
            "--path=a.sock",
            &port,
            "--pid-file=pid",
            "--status-file=status",
        ])
        .start();
    second.wait_for_log("generation 2 failed");
    assert!(is_running(orphan));
    assert_eq!(second.ask("generation"), "1");
    second.write("mode", "ready");
    second.wait_for_log(&format!("old worker {orphan} died"));
}

#[test]
fn second_super_daemon_does_not_take_the_sockets_of_a_living_one() {
    both(|program| {
        let port = format!("--port=127.0.0.1:{}", port::free());
        let first = start_on(program, &port);
        let output = Start::new(program).options([&port]).run();
        assert_eq!(output.status.code(), Some(98), "{}", stderr(&output));
        assert!(!stderr(&output).contains("adopting"), "{}", stderr(&output));
        assert_eq!(first.ask("generation"), "1");
    });
}

#[test]
fn worker_of_a_super_daemon_that_is_a_worker_itself_is_no_orphan() {
    let port = format!("--port=127.0.0.1:{}", port::free());
    let ours = Program::Ours.path().display().to_string();
    let inner = [&ours, "--interval=0", &port, "--", "sleep", "659"];
    let outer = Start::new(Program::Ours)
        .options(["--interval=0"])
        .program(&inner)
        .start();
    outer.wait_for_logs("starting new worker ", 2);
    let output = Start::new(Program::Ours).options([&port]).run();
    assert_eq!(output.status.code(), Some(98), "{}", stderr(&output));
    assert!(!stderr(&output).contains("adopting"), "{}", stderr(&output));
}

#[test]
fn port_zero_and_foreign_paths_are_nobodys_to_adopt() {
    let mut first = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--path=a.sock", "--port=127.0.0.1:0"])
        .start();
    first.wait_for_generations(&[1]);
    first.worker(1);
    first.kill();
    // The same words in another directory mean other sockets.
    let second = Start::new(Program::Ours)
        .options(["--interval=0", "--path=a.sock", "--port=127.0.0.1:0"])
        .start();
    second.worker(1);
    assert!(!second.log().contains("adopting"), "{}", second.log());
}

#[test]
fn orphan_goes_on_serving_if_a_daemon_gives_up() {
    if !can_adopt() {
        return;
    }
    let port = format!("--port=127.0.0.1:{}", port::free());
    let mut first = start_on(Program::Ours, &port);
    let orphan = first.worker(1);
    first.kill();
    let start = first.again(&["--wait-ready=1", "--path=a.sock", &port]);
    let (second, output) = start.program(&["sleep", "610"]).daemonize();
    assert_eq!(output.status.code(), Some(255));
    let told = stderr(&output);
    assert!(told.contains("generation 2 failed: not ready"), "{told}");
    assert!(is_running(orphan), "{}", second.log());
    assert_eq!(second.ask("generation"), "1");
}

#[test]
fn super_daemon_and_worker_killed_together_leave_room_for_the_next() {
    let port = format!("--port=127.0.0.1:{}", port::free());
    let mut first = start_on(Program::Ours, &port);
    let worker = first.worker(1);
    first.kill();
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    first.wait("its end", || (!is_running(worker)).then_some(()));
    let mut second = first
        .again(&[
            "--interval=0",
            "--path=a.sock",
            &port,
            "--pid-file=pid",
            "--status-file=status",
        ])
        .start();
    second.wait_for_log("removing existing socket file:a.sock");
    second.wait("a worker", || (second.workers().len() == 2).then_some(()));
    assert_eq!(second.ask("generation"), "1");
    second.stop();
    for file in ["a.sock", "pid", "status"] {
        assert!(!second.path(file).exists(), "{file}");
    }
}

#[test]
fn orphan_keeps_its_socket_file_if_no_successor_can_be_started() {
    if !can_adopt() {
        return;
    }
    let mut first = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--path=a.sock"])
        .start();
    first.wait_for_generations(&[1]);
    let orphan = first.worker(1);
    first.kill();
    let again = first.again(&["--path=a.sock", "--dir=nowhere"]);
    let output = finish(again.command());
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let path = again.dir().join("a.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    assert_eq!(
        super::worker::talk(&mut stream, "pid").unwrap(),
        orphan.to_string()
    );
    kill(Pid::from_raw(orphan), Signal::SIGKILL).unwrap();
}

#[test]
fn orphan_of_another_network_is_left_alone() {
    if !nix::unistd::geteuid().is_root() {
        crate::child::left_out("only root can make a network of its own");
        return;
    }
    let start = || {
        let start = Start::new(Program::Ours).files();
        let mut network = std::process::Command::new("unshare");
        network.args(["--net", "--"]);
        let daemon = start
            .options(["--interval=0", "--port=80"])
            .shell("exec sleep 623")
            .start_by(network);
        daemon.wait_for_generations(&[1]);
        daemon
    };
    let mut first = start();
    let orphan = number_after(&first.log(), "starting new worker ");
    first.kill();
    // The same port, and another socket.
    let second = start();
    assert!(!second.log().contains("adopting"), "{}", second.log());
    assert!(is_running(orphan));
}

#[test]
fn newest_of_the_adopted_generations_takes_over_if_its_successor_dies() {
    if !can_adopt() {
        return;
    }
    let port = format!("--port=127.0.0.1:{}", port::free());
    let options = ["--interval=0", "--kill-old-delay=600", &port];
    // What is left of the first generation has the highest id of a process.
    let mut first = Start::new(Program::Ours)
        .files()
        .options(options)
        .shell(
            "[ $SERVER_STARTER_GENERATION = 1 ] || { touch two; exec sleep 640; }; \
             echo up; until [ -e two ]; do sleep 0.02; done; sleep 641 & echo $! > child",
        )
        .start();
    first.wait_for_log("up\n");
    first.wait_for_generations(&[1]);
    first.signal(Signal::SIGHUP);
    let log = first.wait_for_log("old worker ");
    let second = log.rsplit_once("starting new worker ").unwrap().1;
    let second = number_after(second, "");
    let eldest: i32 = first.read("child").unwrap().trim().parse().unwrap();
    first.wait_for_generations(&[2]);
    first.kill();
    let again = [&options[..], &["--pid-file=pid", "--status-file=status"]].concat();
    let daemon = first.again(&again).program(&["sleep", "642"]).start();
    daemon.wait_for_log(&format!("sending TERM to old workers:{second},{eldest}\n"));
    daemon.wait_for_generations(&[1, 2, 3]);
    let log = daemon.log();
    let third = log.rsplit_once("starting new worker ").unwrap().1;
    kill(Pid::from_raw(number_after(third, "")), Signal::SIGKILL).unwrap();
    daemon.wait_for_log(&format!("generation 2 (worker {second}) goes on serving"));
}

#[test]
fn what_a_killed_super_daemon_was_just_starting_does_not_keep_the_next_one_out() {
    if !can_adopt() || !crate::child::has("flock") {
        return;
    }
    // A process that is not a program yet has the lock and the sockets of the
    // super-daemon, but nothing by which to know a worker. The helper is like that when
    // the super-daemon is dead.
    let port = format!("--port=127.0.0.1:{}", port::free());
    let mut first = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", &port])
        .shell(
            "env -u SERVER_STARTER_PORT flock pid sh -c \
             'echo holds; until [ -e go ]; do sleep 0.02; done' & exec sleep 643",
        )
        .start();
    first.wait_for_generations(&[1]);
    let orphan = number_after(&first.log(), "starting new worker ");
    let dead = first.pid();
    first.kill();
    first.wait_for_log("holds\n");
    let start = first.again(&["--interval=0", &port, "--pid-file=pid"]);
    let daemon = start.program(&["sleep", "644"]).start();
    daemon.wait_for_log(&format!(
        "supervisor {dead} is gone, waiting for what it was starting to let go of pid\n"
    ));
    assert!(!daemon.log().contains("adopting"), "{}", daemon.log());
    daemon.write("go", "");
    daemon.wait_for_log(&format!("adopting worker {orphan} of generation 1"));
    daemon.wait_for_log(&format!("sending TERM to old workers:{orphan}\n"));
    assert_eq!(daemon.read("pid").unwrap(), format!("{}\n", daemon.pid()));
}

#[test]
fn adopted_worker_is_still_one_after_an_upgrade() {
    if !can_adopt() {
        return;
    }
    let port = format!("--port=127.0.0.1:{}", port::free());
    let mut first = Start::new(Program::Ours)
        .file("mode", "stay")
        .files()
        .options(["--interval=0", &port])
        .start();
    let orphan = first.worker(1);
    first.kill();
    let again = [
        "--interval=0",
        &port,
        "--pid-file=pid",
        "--status-file=status",
    ];
    let daemon = first.again(&again).start();
    daemon.wait_for_log("generation 1 received TERM");
    daemon.wait_for_generations(&[1, 2]);
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_for_log("goes on with generation 2");
    // It is told again at each restart, and its end is heard of.
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_logs("generation 1 received TERM", 2);
    daemon.wait_for_generations(&[1, 2, 3]);
    kill(Pid::from_raw(orphan), Signal::SIGKILL).unwrap();
    daemon.wait_for_log(&format!("old worker {orphan} died, status:"));
    daemon.wait_for_generations(&[2, 3]);
}
