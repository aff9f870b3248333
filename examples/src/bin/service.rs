//! A link shortener, ready for production.
//!
//! ```console
//! $ cargo run --release --bin service
//! ```
//!
//! The application itself is the library of this package. This program is what
//! surrounds it: options, logs, sockets, and a good end.

use std::error::Error;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use apache_logformat::{AccessLogLayer, ConnectionInfo, LogFormat, SharedWriter};
use axum::Router;
use clap::Parser;
use examples::{Store, debug_router, router, with_problems};
use file_rotatelogs::RotateLogs;
use graceful_listener::{Drain, Endpoints, Listeners, serve};
use sql_trace::{SharedTracer, Tracer, writer};
use tracing::{info, warn};

/// A link shortener: POST a URL to /links, and its short code redirects there.
///
/// Without options it serves on 127.0.0.1:8080, keeps its links in ./service.db and writes its
/// logs to ./logs. SIGTERM and SIGINT end it when the requests it has begun are answered.
///
/// Patterns of file names are strftime's: a new file begins when the name changes.
/// Durations are written as 250ms, 30s or 5min.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Options {
    /// Where to listen: HOST:PORT, [IPV6]:PORT, or the path of a Unix socket; repeatable.
    ///
    /// Ignored, with a notice, where sockets are inherited from start_server or systemd.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: Vec<String>,

    /// File of the access log, one line per request; `-` is the standard output.
    #[arg(long, value_name = "PATTERN", default_value = "logs/access.%Y%m%d.log")]
    access_log: PathBuf,

    /// Symbolic link to the access log's current file.
    #[arg(long, value_name = "PATH", default_value = "logs/access.log")]
    access_log_link: PathBuf,

    /// Format of the access log: common, combined, vhost_combined, or a LogFormat of Apache's.
    #[arg(long, value_name = "FORMAT", default_value = "combined", value_parser = log_format)]
    log_format: LogFormat,

    /// File of the SQL log, one line per statement with its time; `-` is the standard output.
    #[arg(long, value_name = "PATTERN", default_value = "logs/sql.%Y%m%d.log")]
    sql_log: PathBuf,

    /// Symbolic link to the SQL log's current file.
    #[arg(long, value_name = "PATH", default_value = "logs/sql.log")]
    sql_log_link: PathBuf,

    /// Statements that take as long as this, or longer, are marked `slow` in the SQL log.
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = duration)]
    slow_query: Duration,

    /// Where the links are kept: a sqlite:, postgres: or mysql: URL.
    #[arg(
        long,
        value_name = "URL",
        env,
        hide_env_values = true,
        default_value = "sqlite:service.db"
    )]
    database_url: String,

    /// How long the requests that are under way may take after SIGTERM.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    drain_timeout: Duration,

    /// Adds GET /sleep?ms=N, which answers after N milliseconds, and GET /report, a slow query.
    #[arg(long)]
    debug_routes: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let access_log = access_log(&options)?;
    let tracer = tracer(&options)?;
    let listeners = listeners(&options.listen)?;
    let store = Store::connect(&options.database_url, tracer).await?;
    info!(
        "links are kept in {}",
        without_password(&options.database_url)
    );

    let drain = Drain::new();
    let draining = drain.clone();
    let mut app = router(store.clone(), move || draining.is_draining());
    if options.debug_routes {
        app = app.merge(debug_router(store.clone()));
    }
    let app: Router = with_problems(app).layer(access_log);
    let served = serve(listeners, app)
        .drain(drain)
        .drain_timeout(options.drain_timeout)
        .await?;
    if served.cut > 0 {
        warn!("{} connections were cut by --drain-timeout", served.cut);
    }
    store.close().await;
    Ok(())
}

fn access_log(options: &Options) -> Result<AccessLogLayer, Box<dyn Error>> {
    let format = options.log_format.clone();
    let layer = if is_standard_output(&options.access_log) {
        info!("access log on the standard output");
        AccessLogLayer::new(format, SharedWriter::new(std::io::stdout()))
    } else {
        let logs = rotating("access log", &options.access_log, &options.access_log_link)?;
        AccessLogLayer::new(format, SharedWriter::new(logs))
    };
    Ok(layer.connection(|extensions| {
        let endpoints = extensions.get::<Endpoints>()?;
        let connection = match endpoints.peer().as_inet() {
            Some(peer) => ConnectionInfo::new(peer),
            None => ConnectionInfo::unnamed(),
        };
        Some(match endpoints.local().as_inet() {
            Some(local) => connection.local(local),
            None => connection,
        })
    }))
}

fn tracer(options: &Options) -> Result<SharedTracer, Box<dyn Error>> {
    let slow = options.slow_query;
    if is_standard_output(&options.sql_log) {
        info!("SQL log on the standard output");
        return Ok(writer(std::io::stdout())
            .timestamps()
            .mark_slow(slow)
            .shared());
    }
    let logs = rotating("SQL log", &options.sql_log, &options.sql_log_link)?;
    Ok(writer(logs).timestamps().mark_slow(slow).shared())
}

fn is_standard_output(pattern: &Path) -> bool {
    pattern.as_os_str() == "-"
}

fn rotating(what: &str, pattern: &Path, link: &Path) -> Result<RotateLogs, Box<dyn Error>> {
    let logs = RotateLogs::builder(pattern).link(link).build()?;
    info!("{what} in {}", logs.current_path().display());
    Ok(logs)
}

fn listeners(specs: &[String]) -> Result<Listeners, Box<dyn Error>> {
    let inherited = Listeners::inherit()?;
    let listeners = if inherited.is_empty() {
        Listeners::bind(specs)?
    } else {
        info!("the sockets are inherited: --listen is ignored");
        inherited
    };
    for listener in &listeners {
        match listener.address().as_inet() {
            Some(address) => info!("listening on http://{address}"),
            None => info!("listening on {}", listener.address()),
        }
    }
    Ok(listeners)
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "common" => Ok(LogFormat::common()),
        "combined" => Ok(LogFormat::combined()),
        "vhost_combined" => Ok(LogFormat::vhost_combined()),
        _ => text
            .parse()
            .map_err(|error: apache_logformat::ParseError| error.to_string()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

fn without_password(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut url) if url.password().is_some() => match url.set_password(Some("***")) {
            Ok(()) => url.into(),
            Err(()) => url.scheme().to_owned(),
        },
        _ => url.to_owned(),
    }
}

/// The error and its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
