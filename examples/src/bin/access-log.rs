//! An access log in front of any axum app: Apache's combined format with the
//! time a request took, and a second log of the failures alone.
//!
//! ```text
//! access-log                                then: curl -i localhost:8080/
//! LOG_FORMAT='%h %>s %D' access-log
//! ```
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `BIND_ADDR` | where to listen | `127.0.0.1:8080` |
//! | `LOG_FORMAT` | Apache's LogFormat of the lines on standard output | combined, and `%D` |

#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "it shows what happens"
)]

use std::env;
use std::error::Error;
use std::io::{stderr, stdout};
use std::net::SocketAddr;
use std::process::ExitCode;

use apache_logformat::{AccessLogLayer, LogFormat, Output, SharedWriter};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("access-log: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let address = env::var("BIND_ADDR").unwrap_or_else(|_| "127.0.0.1:8080".into());
    let format: LogFormat = match env::var("LOG_FORMAT") {
        Ok(text) => text.parse()?,
        Err(_) => r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" %D"#.parse()?,
    };
    let failures = Output::new("failed: %r %>s".parse()?, SharedWriter::new(stderr()))
        .filter(|exchange| exchange.status >= 500);
    let access_log = AccessLogLayer::new(format, SharedWriter::new(stdout())).output(failures);

    let app = Router::new()
        .route("/", get(async || "hello\n"))
        .route("/broken", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        // The last layer is the first that sees a request.
        .layer(access_log);

    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    println!("listening on http://{}", listener.local_addr()?);
    // Tells the layer the client's address.
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app).await?;
    Ok(())
}
