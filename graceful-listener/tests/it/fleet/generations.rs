use std::fs;

use crate::load::{Load, Target};
use crate::service::Service;

use super::fixture::{Fleet, SLEEP, shell, wait_for_end};

/// The service, behind a script that behaves as the file `mode` says.
fn service(more: &str) -> String {
    let service = Service::command();
    let quoted = |text: &std::ffi::OsStr| format!("'''{}'''", text.to_str().unwrap());
    let script = "[ \"$(cat mode 2>/dev/null)\" = exit ] && exit 3; exec \"$@\"";
    let mut words = vec![
        "\"-c\"".to_owned(),
        format!("'''{script}'''"),
        "\"sh\"".into(),
        quoted(service.get_program()),
    ];
    words.extend(service.get_args().map(quoted));
    let variables: Vec<String> = service
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{} = {}", name.to_str()?, quoted(value?))))
        .collect();
    format!(
        "command = \"/bin/sh\"\narguments = [{}]\nenvironment = {{ {} }}\ndirectory = \".\"\n\
         listen = [\"127.0.0.1:0\"]\nready = \"notify\"\nrestart = \"always\"\nbackoff = \"50ms\"\n{more}",
        words.join(", "),
        variables.join(", "),
    )
}

/// Finds out where the program listens.
fn address(fleet: &Fleet, pid: u32) -> std::net::SocketAddr {
    let fd = fs::read_link(format!("/proc/{pid}/fd/3")).unwrap();
    let inode = fd
        .to_str()
        .unwrap()
        .trim_matches(|c: char| !c.is_ascii_digit())
        .to_owned();
    // Lines may be missing from a table that changes while it is read.
    let port = fleet.wait("its socket", || {
        let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
        let is_it = |line: &&str| line.split_whitespace().nth(9) == Some(&inode);
        let local = table.lines().find(is_it)?.split_whitespace().nth(1)?;
        u16::from_str_radix(local.split_once(':')?.1, 16).ok()
    });
    ([127, 0, 0, 1], port).into()
}

#[test]
fn restart_under_load_loses_no_request() {
    let fleet = Fleet::with("web", &service("instances = 2"));
    let mut pids = fleet.wait_for("web", &["RUNNING"; 2]);
    let load = Load::new(Target::Tcp(address(&fleet, pids[0]))).start();
    for round in 0..4 {
        let until = load.requests() + 200;
        fleet.wait("requests", || (load.requests() >= until).then_some(()));
        if round == 2 {
            fleet.command("upgrade").unwrap();
        }
        fleet.command("restart-web").unwrap();
        let now = fleet.wait_for("web", &["RUNNING"; 2]);
        assert!(pids.iter().all(|pid| !now.contains(pid)));
        pids = now;
    }
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}");
    assert!(report.generations().len() >= 4, "{report}");
}

#[test]
fn generation_that_fails_leaves_the_one_before_serving() {
    let fleet = Fleet::with("web", &service("instances = 2\nretries = 1"));
    let before = fleet.wait_for("web", &["RUNNING"; 2]);
    let load = Load::new(Target::Tcp(address(&fleet, before[0]))).start();
    fs::write(fleet.path().join("mode"), "exit").unwrap();
    let why = fleet.command("restart-web").unwrap_err();
    assert!(
        why.contains("exited with code 3") && why.contains("the generation before goes on serving"),
        "{why}"
    );
    assert_eq!(fleet.wait_for("web", &["RUNNING"; 2]), before);
    let until = load.requests() + 100;
    fleet.wait("requests", || (load.requests() >= until).then_some(()));
    fs::remove_file(fleet.path().join("mode")).unwrap();
    fleet.command("restart-web").unwrap();
    let after = fleet.wait_for("web", &["RUNNING"; 2]);
    assert!(before.iter().all(|pid| !after.contains(pid)));
    before.into_iter().for_each(wait_for_end);
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}");
}

#[test]
fn sockets_outlive_the_supervisor_that_is_killed() {
    let mut fleet = Fleet::with("web", &service(""));
    let before = fleet.wait_for("web", &["RUNNING"]);
    let target = address(&fleet, before[0]);
    let load = Load::new(Target::Tcp(target)).start();
    fleet.kill();
    fleet.start();
    fleet.wait_for_log("adopted 1 processes");
    fleet.command("restart-web").unwrap();
    let after = fleet.wait_for("web", &["RUNNING"]);
    assert_ne!(after, before);
    assert_eq!(address(&fleet, after[0]), target);
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}");
}

#[test]
fn sockets_are_passed_as_server_starter_and_as_systemd_do() {
    let fleet = Fleet::with(
        "web",
        &shell(
            "echo $SERVER_STARTER_PORT $SERVER_STARTER_GENERATION $LISTEN_FDS $((LISTEN_PID == $$)) > out; sleep 600",
            "listen = [\"127.0.0.1:0\", \"web.sock\"]\ndirectory = \".\"",
        )
        .replace("web.sock", "./web.sock"),
    );
    let socket = fleet.path().join("web.sock");
    let text = fleet.wait_for_file("out");
    let root = fs::canonicalize(fleet.path()).unwrap();
    let path = text.split([';', '=']).nth(2).unwrap();
    assert_eq!(fs::canonicalize(path).unwrap(), root.join("web.sock"));
    assert!(
        text.starts_with("127.0.0.1:0=3;") && text.ends_with("=4 1 2 1\n"),
        "{text}"
    );
    assert!(socket.exists());
    fleet.command("stop-web").unwrap();
    fleet.wait("the socket to go", || (!socket.exists()).then_some(()));
}

#[test]
fn port_in_use_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let definition = shell(
        "sleep 600",
        &format!("listen = [\"127.0.0.1:{port}\"]\nretries = 0"),
    );
    let fleet = Fleet::with("web", &definition);
    fleet.wait_for("web", &["FATAL"]);
    let exit = fleet.program_status("web")["instances"][0]["exit"].to_string();
    assert!(exit.contains("Address already in use"), "{exit}");
}

#[test]
fn socket_that_is_no_longer_listed_is_closed_with_the_generation_that_has_it() {
    let listen = |names: &str| format!("{SLEEP}listen = [{names}]");
    let fleet = Fleet::with("web", &listen("\"./a.sock\", \"./b.sock\""));
    let before = fleet.wait_for("web", &["RUNNING"]);
    let exists = |name: &str| fleet.path().join(name).exists();
    assert!(exists("a.sock") && exists("b.sock"));
    fleet.program("web", &listen("\"./a.sock\""));
    fleet.wait("the end of the socket", || {
        (!exists("b.sock")).then_some(())
    });
    assert!(exists("a.sock"));
    fleet.wait("the next generation", || {
        (fleet.wait_for("web", &["RUNNING"]) != before).then_some(())
    });
}
