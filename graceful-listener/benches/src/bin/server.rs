//! The same routes under `graceful_listener::serve` and under `axum::serve`.
//!
//! `server ours` or `server axum` prints its address and serves on one thread until it is killed,
//! or until standard input ends.

use std::io::{Read, Write, stdin, stdout};
use std::net::TcpListener;

use axum::Router;
use axum::routing::get;
use graceful_listener::{Drain, Listeners, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = Router::new().route("/", get(async || "Hello, World!"));
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = stdin().read(&mut [0]);
        let _ = ended.send(());
    });
    match std::env::args().nth(1).as_deref() {
        Some("ours") => {
            let listeners = Listeners::bind(["127.0.0.1:0"])?;
            announce(listeners.iter().next().expect("it is bound").address())?;
            let drain = Drain::new();
            let handle = drain.clone();
            tokio::spawn(async move {
                let _ = end.await;
                handle.end_now();
            });
            serve(listeners, app).drain(drain).await?;
        }
        Some("axum") => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            announce(&listener.local_addr()?)?;
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::select! {
                served = axum::serve(listener, app).into_future() => served?,
                _ = end => {}
            }
        }
        _ => return Err("server ours|axum".into()),
    }
    Ok(())
}

fn announce(address: &dyn std::fmt::Display) -> std::io::Result<()> {
    writeln!(stdout(), "{address}")?;
    stdout().flush()
}
