//! The service under `start_server`: deploys in the middle of requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tempfile::TempDir;

use crate::client::get;
use crate::program::{Program, eventually, sibling};
use crate::standalone::{log_lines, read_lines};

#[test]
fn inherited_sockets_are_served_and_those_to_listen_on_ignored_with_a_notice() {
    let dir = TempDir::new().unwrap();
    let mut command = sibling("start_server", "graceful-listener");
    command
        .current_dir(&dir)
        .args(["--port", "127.0.0.1:0", "--"])
        .arg(env!("CARGO_BIN_EXE_service"))
        .args(["--listen", "./socket"]);
    let mut starter = Program::start(command);
    assert_eq!(get(starter.wait_for_address(), "/healthz").status, 200);
    starter.wait_for_line("the notice", |line| {
        line.ends_with(" the sockets are inherited: --listen is ignored")
            .then_some(())
    });
    assert!(!dir.path().join("socket").exists());
    starter.signal("TERM");
    assert_eq!(starter.wait().code(), Some(0));
}

#[test]
fn a_hup_in_the_middle_of_requests_fails_none_and_each_has_its_line() {
    let dir = TempDir::new().unwrap();
    let mut command = sibling("start_server", "graceful-listener");
    command
        .current_dir(&dir)
        .args(["--port", "127.0.0.1:0", "--status-file", "status", "--"])
        .arg(env!("CARGO_BIN_EXE_service"))
        .arg("--debug-routes");
    let mut starter = Program::start(command);
    let address = starter.wait_for_address();
    eventually("the first generation", || {
        read_lines(&dir.path().join("status"))
            .first()?
            .starts_with("1:")
            .then_some(())
    });

    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU32::new(0));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                let path = if client == 0 { "/sleep?ms=300" } else { "/" };
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(get(address, path).status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    for generation in 2..=3 {
        starter.signal("HUP");
        eventually("the next generation, alone", || {
            let status = read_lines(&dir.path().join("status"));
            (status.len() == 1 && status[0].starts_with(&format!("{generation}:"))).then_some(())
        });
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("no request fails");
    }
    starter.signal("TERM");
    assert_eq!(starter.wait().code(), Some(0));
    // Its workers have its standard error: none is left when that has ended.
    starter.said();

    let lines = log_lines(&dir, "access");
    let answered = usize::try_from(answered.load(Ordering::Relaxed)).unwrap();
    assert_eq!(
        lines.len(),
        answered,
        "one access line per request, over three generations"
    );
}
