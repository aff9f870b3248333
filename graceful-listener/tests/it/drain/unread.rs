//! A response arrives although nobody reads what the client sends besides.

use std::net::TcpStream;
use std::time::Duration;

use socket2::{Domain, Type};

use super::{GET, Service, eventually};
use crate::http::{Client, DEADLINE};

#[test]
fn response_to_a_body_that_is_not_read_is_not_destroyed_by_a_reset() {
    eventually("the body comes in time", || {
        let service = Service::with(|serve| {
            let serve = serve.linger(DEADLINE).drain_timeout(DEADLINE);
            serve.header_read_timeout(Duration::from_secs(600))
        });
        let mut client = service.connect_silently();
        service.drain.start();
        let body = "x".repeat(1 << 20);
        let head = format!(
            "POST /unread HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.send(&head).unwrap();
        // Sending may fail when the service has closed; what it has said must arrive.
        let _ = client.send(&body);
        let response = client.response();
        // Nor is a client waited for that never closes.
        assert_eq!(service.end().cut, 0);
        drop(client);
        response.is_ok_and(|response| response.status() == 413 && response.body.len() == 100_000)
    });
}

/// A client that has room for a part of a response only.
fn connect_narrowly(service: &Service) -> Client<TcpStream> {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&service.address.into()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    Client::over(socket.into())
}

/// Waits until the service has closed its side of the connection, before the client has read
/// that far.
fn until_closed_by(service: &Service, client: &Client<TcpStream>) {
    let ports = [service.address, client.stream().local_addr().unwrap()]
        .map(|address| format!("0100007F:{:04X}", address.port()));
    let closed = format!("{} 04 ", ports.join(" "));
    eventually("its side is closed", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.contains(&closed)
    });
}

#[test]
fn response_is_not_destroyed_by_a_body_that_comes_after_it() {
    eventually("it comes in time", || {
        let service = Service::start();
        let mut client = connect_narrowly(&service);
        let body = "x".repeat(10_000);
        let head = format!(
            "POST /unread HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.send(&head).unwrap();
        until_closed_by(&service, &client);
        let _ = client.send(&body);
        let response = client.response();
        service.drain.start();
        service.end();
        response.is_ok_and(|response| response.body.len() == 100_000)
    });
}

#[test]
fn response_is_not_destroyed_by_requests_that_nobody_reads() {
    eventually("they come in time", || {
        let service = Service::start();
        let mut client = connect_narrowly(&service);
        service.until_connections(1);
        service.drain.start();
        let first = "GET /unread HTTP/1.1\r\nHost: test\r\n\r\n";
        let _ = client.send(&(first.to_owned() + &GET.repeat(2000)));
        let response = client.response();
        drop(client);
        service.end();
        response.is_ok_and(|response| response.status() == 413 && response.body.len() == 100_000)
    });
}

#[test]
fn pipelined_request_behind_a_last_response_does_not_destroy_it() {
    let service = Service::start();
    let mut client = service.connect_silently();
    service.drain.start();
    client.send(&GET.repeat(50)).unwrap();
    let response = client.response().unwrap();
    assert_eq!(response.body, "hello");
    assert!(response.closes());
    assert!(client.is_closed());
    drop(client);
    service.end();
}
