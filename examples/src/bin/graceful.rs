//! A service that is replaced without losing a request, in any of three ways.
//!
//! ```text
//! BIND_ADDR=127.0.0.1:8080 graceful           then: kill -USR2 PID
//! start_server --port 127.0.0.1:8080 -- graceful    kill -HUP PID
//! systemd-socket-activate -l 8080 graceful
//! ```
//!
//! `GET /` answers at once, `GET /sleep?ms=N` after N milliseconds. The header
//! `X-Gen` tells which generation of the service it was. What is served is a tower service
//! of one function; an axum `Router` is handed to `serve` in the same way.
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `BIND_ADDR` | where to listen, if no socket is inherited | `127.0.0.1:8080` |
//! | `DRAIN_TIMEOUT_MS` | how long requests may take after SIGTERM | 30000 |
//! | `UPGRADE_TIMEOUT_MS` | how long the next process may take to start | 60000 |

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use graceful_listener::{Listeners, Upgrader, serve};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use tower::service_fn;
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
    let service = service_fn(move |request: Request<_>| {
        let generation = generation.clone();
        async move {
            let (status, body) = answer(request.uri()).await;
            let mut response = Response::new(body);
            *response.status_mut() = status;
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            headers.insert(X_GEN, generation);
            Ok::<_, Infallible>(response)
        }
    });

    let upgrader = Upgrader::new(&listeners)?.timeout(upgrade_timeout);
    let served = serve(listeners, service)
        .upgrader(upgrader)
        .drain_timeout(drain_timeout)
        .await?;
    info!(cut = served.cut, "done");
    Ok(())
}

async fn answer(uri: &Uri) -> (StatusCode, String) {
    match uri.path() {
        "/" => (StatusCode::OK, "hello\n".into()),
        "/sleep" => {
            let ms = uri.query().and_then(|query| query.strip_prefix("ms="));
            let Some(ms) = ms.and_then(|number| number.parse().ok()) else {
                return (StatusCode::BAD_REQUEST, "ask for /sleep?ms=N\n".into());
            };
            tokio::time::sleep(Duration::from_millis(ms)).await;
            (StatusCode::OK, format!("slept {ms} ms\n"))
        }
        _ => (StatusCode::NOT_FOUND, "ask for / or /sleep?ms=N\n".into()),
    }
}

fn milliseconds(name: &str, default: u64) -> Result<Duration, String> {
    let text = env::var(name).unwrap_or_else(|_| default.to_string());
    let number = text
        .parse()
        .map_err(|_| format!("{name}: `{text}` is not a number of milliseconds"))?;
    Ok(Duration::from_millis(number))
}

const X_GEN: HeaderName = HeaderName::from_static("x-gen");
