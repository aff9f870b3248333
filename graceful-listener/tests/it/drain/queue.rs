//! Connections that have come and are not accepted yet when the service ends.

use std::future::{IntoFuture, ready};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::routing::get;
use axum::{Extension, Router};
use graceful_listener::{Address, Drain, Endpoints, Listeners, serve};
use nix::sys::signal::Signal;

use super::{GET, Service};
use crate::child;
use crate::http::{Client, DEADLINE};
use crate::service::{self, set};

#[test]
fn connections_in_the_queue_are_accepted_before_it_is_closed() {
    // Two connections fill the service: one is served, one holds the permit.
    let service = Service::with(|serve| serve.max_connections(1).linger(DEADLINE));
    let first = service.connect_and_ask();
    let mut queued: Vec<_> = (0..20).map(|_| service.connect()).collect();
    for client in &mut queued {
        client.send(GET).unwrap();
    }
    assert_eq!(service.drain.connections(), 1);
    service.drain.start();
    for client in &mut queued {
        let response = client.response().unwrap();
        assert_eq!(response.body, "hello");
        assert!(response.closes());
    }
    drop((first, queued));
    assert_eq!(service.end().cut, 0);
}

/// Has the service inherit a socket as descriptor 3, and end while it has room
/// for one connection only; returns it and the clients that are in the queue.
fn end_with_a_queue(
    socket: TcpListener,
    settings: &[(&str, String)],
) -> (service::Service, Vec<Client<TcpStream>>) {
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", SCRIPT, "sh"])
        .stdin(OwnedFd::from(socket))
        .env(set::MAX_CONNECTIONS, "1")
        .envs(settings.iter().map(|(name, value)| (name, value)));
    child::append(&mut shell, &service::Service::command());
    let service = service::Service::start(&mut shell);
    service.wait_for("serving address");
    let address = service.address();
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(address).unwrap()).collect();
    assert_eq!(clients[0].get("/").unwrap().body, "hello");
    for client in &mut clients[1..] {
        client.send(GET).unwrap();
    }
    service.signal(Signal::SIGTERM);
    service.wait_for("draining");
    (service, clients)
}

/// systemd says for which process its sockets are.
const SCRIPT: &str = r#"
test -z "$IS_BY_SYSTEMD" || export LISTEN_PID=$$
exec "$@" 3<&0 0</dev/null
"#;

#[test]
fn queue_of_a_socket_that_nobody_else_has_is_served() {
    let nobodys = || TcpListener::bind("127.0.0.1:0").unwrap();
    for settings in [
        // A worker without a socket, which binds its own.
        [("SERVER_STARTER_PORT", ""), (set::SPECS, "127.0.0.1:0")].as_slice(),
        // Whoever hands its sockets on like this is about to end.
        &[("LISTEN_FDS", "1")],
    ] {
        let settings: Vec<_> = settings
            .iter()
            .map(|&(name, value)| (name, value.to_owned()))
            .collect();
        let (mut service, clients) = end_with_a_queue(nobodys(), &settings);
        for mut client in clients.into_iter().skip(1) {
            let response = client.response().unwrap();
            assert_eq!(response.body, "hello");
            assert!(response.closes());
        }
        assert!(service.wait().success());
    }
}

#[test]
fn queue_of_a_super_daemons_socket_is_left_to_the_next_worker() {
    for is_by_systemd in [false, true] {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let starters = socket.try_clone().unwrap();
        let settings = if is_by_systemd {
            [("LISTEN_FDS", "1"), ("IS_BY_SYSTEMD", "1")]
                .map(|(name, value)| (name, value.to_owned()))
                .to_vec()
        } else {
            vec![("SERVER_STARTER_PORT", format!("127.0.0.1:{port}=3"))]
        };
        let (mut service, mut clients) = end_with_a_queue(socket, &settings);
        drop(clients.remove(0));
        assert!(service.wait().success());
        starters.set_nonblocking(true).unwrap();
        for _ in &clients {
            let (mut stream, _) = starters.accept().expect("it is left in the queue");
            stream.set_nonblocking(false).unwrap();
            let mut request = [0; 16];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET / "));
        }
    }
}

/// Notes whether a file exists whenever a connection is accepted, for which it is cloned.
struct Witness {
    path: PathBuf,
    drain: Drain,
    seen: Arc<Mutex<Vec<bool>>>,
}

impl Clone for Witness {
    fn clone(&self) -> Self {
        if self.drain.is_draining() {
            self.seen.lock().unwrap().push(self.path.exists());
        }
        Self {
            path: self.path.clone(),
            drain: self.drain.clone(),
            seen: Arc::clone(&self.seen),
        }
    }
}

/// Serves one connection, and drains when others are in the queue. Returns what the witness
/// has seen, and to whom each of the others was told to speak.
fn drain_with_a_queue<T: Read + Write>(
    spec: &str,
    connect: impl Fn(&Address) -> Client<T>,
) -> (Vec<bool>, Vec<(Client<T>, String)>) {
    let listeners = Listeners::bind([spec]).unwrap();
    let address = listeners.iter().next().unwrap().address().clone();
    let (drain, seen) = (Drain::new(), Arc::new(Mutex::new(Vec::new())));
    let witness = Witness {
        path: spec.into(),
        drain: drain.clone(),
        seen: Arc::clone(&seen),
    };
    let whoami = get(async |Extension(endpoints): Extension<Endpoints>| {
        format!("{} {}", endpoints.peer(), endpoints.local())
    });
    let serve = serve(listeners, Router::new().route("/", whoami))
        .drain(drain.clone())
        .without_signals()
        .max_connections(1)
        .linger(DEADLINE)
        .acceptor(move |stream| {
            let _ = &witness;
            ready(Ok(stream))
        });
    let thread = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(serve.into_future()).unwrap()
    });
    let mut first = connect(&address);
    first.get("/").unwrap();
    let mut queued: Vec<_> = (0..5).map(|_| connect(&address)).collect();
    for client in &mut queued {
        client.send(GET).unwrap();
    }
    drain.start();
    drop(first);
    let answer = |mut client: Client<T>| {
        let answer = client.response().unwrap().body;
        (client, answer)
    };
    let answered = queued.into_iter().map(answer).collect();
    assert_eq!(thread.join().unwrap().cut, 0);
    let seen = seen.lock().unwrap().clone();
    (seen, answered)
}

/// A client that comes later would be in a queue that nobody serves.
#[test]
fn unix_sockets_file_is_gone_before_its_queue_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let (seen, answered) = drain_with_a_queue(path.to_str().unwrap(), |_| {
        Client::connect_unix(&path).unwrap()
    });
    assert_eq!(seen, [false; 5]);
    for (_, answer) in answered {
        assert_eq!(answer, format!("unix: {}", path.display()));
    }
}

#[test]
fn clients_from_the_queue_are_known_by_their_addresses() {
    let (_, answered) = drain_with_a_queue("127.0.0.1:0", |address| {
        Client::connect(address.as_inet().unwrap()).unwrap()
    });
    for (client, answer) in answered {
        let stream = client.stream();
        let (own, theirs) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        assert_eq!(answer, format!("{own} {theirs}"));
    }
}
