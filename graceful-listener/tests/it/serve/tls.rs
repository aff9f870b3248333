//! Encryption, by an acceptor of the user's.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use graceful_listener::{Drain, Listeners, Serve, Served, serve};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned,
};

use super::{SHORT, blocking, closed_after, inet, whoami, with_runtime};
use crate::drain::eventually;
use crate::http::Client;

fn tls() -> (TlsAcceptor, Arc<ClientConfig>) {
    let certified = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder().with_no_client_auth();
    let server = server
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server).into(), Arc::new(client))
}

/// Serves with TLS until the client has done what it does, and returns how the service has ended.
fn with_tls(
    options: impl FnOnce(Serve<Router>) -> Serve<Router>,
    client: impl FnOnce(SocketAddr, &Drain, &Arc<ClientConfig>) + Send + 'static,
) -> Served {
    let (acceptor, config) = tls();
    with_runtime(async || {
        let listeners = Listeners::bind(["127.0.0.1:0"]).unwrap();
        let address = inet(&listeners, 0);
        let drain = Drain::new();
        let serve = serve(listeners, whoami())
            .drain(drain.clone())
            .without_signals();
        let serve = options(serve).acceptor(move |stream| acceptor.accept(stream));
        let served = tokio::spawn(serve.into_future());
        let handle = drain.clone();
        blocking(move || client(address, &handle, &config)).await;
        drain.start();
        served.await.unwrap().unwrap()
    })
}

#[test]
fn tls_is_spoken_through_the_acceptor() {
    let served = with_tls(
        |serve| serve.linger(Duration::from_secs(600)),
        |address, drain, config| {
            let connect = || {
                let name = ServerName::try_from("localhost").unwrap();
                let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
                StreamOwned::new(connection, TcpStream::connect(address).unwrap())
            };
            // One that cannot be decrypted harms nobody else.
            let mut plain = Client::connect(address).unwrap();
            plain.send("GET / HTTP/1.1\r\n\r\n").unwrap();
            assert!(plain.response().is_err());

            let mut client = Client::over(connect());
            let response = client.get("/").unwrap();
            assert!(
                response.body.ends_with(&format!(" {address}")),
                "{response:?}"
            );
            assert!(!response.closes());
            let mut fresh = connect();
            drain.start();
            assert!(client.get("/").unwrap().closes());
            // Accepted, and then not even a handshake: it may still come.
            fresh.conn.complete_io(&mut fresh.sock).unwrap();
            assert!(Client::over(fresh).get("/").unwrap().closes());
            let mut rest = Vec::new();
            client
                .into_inner()
                .read_to_end(&mut rest)
                .expect("the end is told, not only the connection cut");
            assert!(rest.is_empty());
        },
    );
    assert_eq!(served.cut, 0);
}

#[test]
fn handshake_that_takes_too_long_is_cut_off() {
    with_tls(
        |serve| serve.header_read_timeout(SHORT),
        |address, _, _| {
            let began = Instant::now();
            let elapsed = closed_after(&mut Client::connect(address).unwrap(), began);
            assert!(elapsed >= SHORT, "{elapsed:?}");
        },
    );
}

#[test]
fn handshake_that_is_under_way_is_cut_off_at_the_end() {
    let served = with_tls(
        |serve| serve.header_read_timeout(Duration::from_secs(600)),
        |address, drain, _| {
            let mut client = Client::connect(address).unwrap();
            eventually("accepted", || drain.connections() == 1);
            drain.end_now();
            closed_after(&mut client, Instant::now());
        },
    );
    assert_eq!(served.cut, 1);
}
