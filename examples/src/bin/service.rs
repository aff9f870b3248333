//! A link shortener, ready for production.
//!
//! ```console
//! $ cargo run --release --bin service
//! ```
//!
//! The application itself is the library of this package. This program is what
//! surrounds it: options, logs, sockets, and a good end.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use apache_logformat::{
    AccessLogLayer, ConnectionInfo, Escape, LogFormat, ParseError, SharedWriter, TrustedProxies,
};
use clap::{Parser, ValueEnum};
use examples::{
    STORY, STORY_JSON, Store, Storyteller, debug_router, router, with_problems, without_password,
};
use file_rotatelogs::{Event, RotateLogs};
use graceful_listener::{Drain, Endpoints, Listeners, serve};
use sql_trace::{ArgsMode, LostLines, SharedTracer, Tracer, json, writer};
use tracing::{debug, info, warn};
use tracing_subscriber::EnvFilter;

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
    /// Where to listen: HOST:PORT, `[IPV6]:PORT`, or the path of a Unix socket; repeatable.
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

    /// Format of the access log: common, combined, vhost_combined, a LogFormat of Apache's, or
    /// story, which is combined with the request's id and what its statements came to.
    #[arg(long, value_name = "FORMAT", default_value = "combined", value_parser = log_format)]
    log_format: LogFormat,

    /// File of the SQL log, one line per statement with its time; `-` is the standard output.
    #[arg(long, value_name = "PATTERN", default_value = "logs/sql.%Y%m%d.log")]
    sql_log: PathBuf,

    /// Symbolic link to the SQL log's current file.
    #[arg(long, value_name = "PATH", default_value = "logs/sql.log")]
    sql_log_link: PathBuf,

    /// Statements that take as long as this, or longer, are marked `slow` in the SQL log, and
    /// told of there while they still run.
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = duration)]
    slow_query: Duration,

    /// What the SQL log tells of arguments: only their kinds and sizes, or their values.
    #[arg(long, value_name = "WHAT", default_value = "kinds")]
    sql_args: SqlArgs,

    /// Writes all logs as JSON, one object a line; the access log with what `story` has.
    #[arg(long, conflicts_with = "log_format")]
    json: bool,

    /// Begins a new log file, .1, .2 and so on, before one grows larger than this.
    #[arg(long, value_name = "BYTES")]
    rotate_bytes: Option<u64>,

    /// Removes log files that are older than this; otherwise none is removed.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    log_max_age: Option<Duration>,

    /// A proxy whose X-Forwarded-For and X-Request-Id are believed: an address or a CIDR block;
    /// repeatable.
    #[arg(long, value_name = "CIDR")]
    trusted_proxy: Vec<String>,

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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SqlArgs {
    Hidden,
    Kinds,
    Values,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    tell_in(&options);
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Sets where this program's own messages go: to standard error, those of INFO
/// and above, or what RUST_LOG asks for.
fn tell_in(options: &Options) {
    // sqlx tells of slow statements, too: that is what the SQL log is for.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,sqlx::query=off"));
    let messages = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_target(false);
    if options.json {
        messages
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .init();
    } else {
        messages.with_ansi(std::io::stderr().is_terminal()).init();
    }
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let proxies = TrustedProxies::new(&options.trusted_proxy)?;
    let access_log = access_log(&options)?.trusted_proxies(proxies.clone());
    let lost_lines = access_log.failures();
    let (tracer, lost_events) = tracer(&options)?;
    let listeners = listeners(&options.listen)?;
    let story = Storyteller::new(proxies, listeners.generation());
    let store = Store::connect(&options.database_url, tracer, options.slow_query).await?;
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
    let served = serve(listeners, story.tell(with_problems(app), access_log))
        .drain(drain)
        .drain_timeout(options.drain_timeout)
        .await?;
    if served.cut > 0 {
        warn!("{} connections were cut by --drain-timeout", served.cut);
    }
    store.close().await;
    for (lost, what) in [(lost_lines.count(), "access"), (lost_events.count(), "SQL")] {
        if lost > 0 {
            warn!(lost, "lines of the {what} log were lost");
        }
    }
    Ok(())
}

fn access_log(options: &Options) -> Result<AccessLogLayer, Box<dyn Error>> {
    let format = match options.json {
        true => STORY_JSON.parse::<LogFormat>()?.with_escape(Escape::Json),
        false => options.log_format.clone(),
    };
    let layer = if is_standard_output(&options.access_log) {
        info!("access log on the standard output");
        AccessLogLayer::new(format, SharedWriter::new(std::io::stdout()))
    } else {
        let (files, link) = (&options.access_log, &options.access_log_link);
        let logs = rotating("access log", files, link, options)?;
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

fn tracer(options: &Options) -> Result<(SharedTracer, LostLines), Box<dyn Error>> {
    let out: Box<dyn Write + Send> = if is_standard_output(&options.sql_log) {
        info!("SQL log on the standard output");
        Box::new(std::io::stdout())
    } else {
        let (files, link) = (&options.sql_log, &options.sql_log_link);
        Box::new(rotating("SQL log", files, link, options)?)
    };
    let args = match options.sql_args {
        SqlArgs::Hidden => ArgsMode::Hidden,
        SqlArgs::Kinds => ArgsMode::Kinds,
        SqlArgs::Values => ArgsMode::Values {
            max: LONGEST_ARGUMENT,
        },
    };
    Ok(if options.json {
        let json = json(out);
        let lost = json.lost();
        (json.args(args).shared(), lost)
    } else {
        let lines = writer(out).timestamps().mark_slow(options.slow_query);
        let lost = lines.lost();
        (lines.args(args).shared(), lost)
    })
}

fn is_standard_output(pattern: &Path) -> bool {
    pattern.as_os_str() == "-"
}

fn rotating(
    what: &'static str,
    pattern: &Path,
    link: &Path,
    options: &Options,
) -> Result<RotateLogs, Box<dyn Error>> {
    let mut logs = RotateLogs::builder(pattern)
        .link(link)
        .on_event(move |event| match event {
            Event::Failed { .. } | Event::Recovered { .. } => warn!("{what}: {event}"),
            _ => debug!("{what}: {event}"),
        });
    if let Some(bytes) = options.rotate_bytes {
        logs = logs.rotate_at_bytes(bytes);
    }
    if let Some(age) = options.log_max_age {
        logs = logs.max_age(age);
    }
    let logs = logs
        .build()
        .map_err(|error| format!("{what} {}: {}", pattern.display(), chain(&error)))?;
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
    let format = match text {
        "common" => return Ok(LogFormat::common()),
        "combined" => return Ok(LogFormat::combined()),
        "vhost_combined" => return Ok(LogFormat::vhost_combined()),
        "story" => STORY,
        // It would be the same line for each request.
        _ if !text.contains('%') => {
            return Err("neither the name of a format nor one with a `%` directive".into());
        }
        _ => text,
    };
    format
        .parse()
        .map_err(|error: ParseError| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// The error and its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some errors have their cause in their own text.
        let told = error.to_string();
        if !text.ends_with(&told) {
            text += &format!(": {told}");
        }
        cause = error.source();
    }
    text
}

/// In bytes of the SQL log, with `--sql-args values`.
const LONGEST_ARGUMENT: usize = 256;
