//! A service that is replaced without losing a request, in any of three ways.
//!
//! ```text
//! BIND_ADDR=127.0.0.1:8080 graceful           then: kill -USR2 PID
//! start_server --port 127.0.0.1:8080 -- graceful    kill -HUP PID
//! systemd-socket-activate -l 8080 graceful
//! ```
//!
//! `GET /` answers at once, `GET /sleep?ms=N` after N milliseconds. The header
//! `X-Gen` tells which generation of the service it was.
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `BIND_ADDR` | where to listen, if no socket is inherited | `127.0.0.1:8080` |
//! | `DRAIN_TIMEOUT_MS` | how long requests may take after SIGTERM | 30000 |
//! | `UPGRADE_TIMEOUT_MS` | how long the next process may take to start | 60000 |

use std::env;
use std::error::Error;
use std::future::ready;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::http::HeaderValue;
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;
use graceful_listener::{Listeners, Upgrader, serve};
use serde::Deserialize;
use tracing::{error, info};

// One thread answers sooner than several where they share few cores with others.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut message = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                message += &format!(": {error}");
                cause = error.source();
            }
            error!("{message}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let address = env::var("BIND_ADDR").unwrap_or_else(|_| "127.0.0.1:8080".into());
    let drain_timeout = milliseconds("DRAIN_TIMEOUT_MS", 30_000)?;
    let upgrade_timeout = milliseconds("UPGRADE_TIMEOUT_MS", 60_000)?;

    let listeners = Listeners::inherit()?.or_bind([address])?;
    let generation = HeaderValue::from(listeners.generation());
    let app = Router::new()
        .route("/", get(async || "hello\n"))
        .route("/sleep", get(sleep))
        .layer(map_response(move |mut response: Response| {
            response.headers_mut().insert("x-gen", generation.clone());
            ready(response)
        }));

    let upgrader = Upgrader::new(&listeners)?.timeout(upgrade_timeout);
    let served = serve(listeners, app)
        .upgrader(upgrader)
        .drain_timeout(drain_timeout)
        .await?;
    info!(cut = served.cut, "done");
    Ok(())
}

#[derive(Deserialize)]
struct Sleep {
    ms: u64,
}

async fn sleep(Query(Sleep { ms }): Query<Sleep>) -> String {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    format!("slept {ms} ms\n")
}

fn milliseconds(name: &str, default: u64) -> Result<Duration, String> {
    let text = env::var(name).unwrap_or_else(|_| default.to_string());
    let number = text
        .parse()
        .map_err(|_| format!("{name}: `{text}` is not a number of milliseconds"))?;
    Ok(Duration::from_millis(number))
}
