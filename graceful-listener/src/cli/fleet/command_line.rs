use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::cli::failure::Failure;
use crate::cli::log::LogFormat;
use crate::cli::log_keeper::House;
use crate::cli::process::Signal;
use crate::pid_file::PidFile;

use super::definition::MAX_INSTANCES;
use super::directory::Directory;
use super::inbox::Command;
use super::{handover, name, supervisor};

mod ask;
mod check;
mod logs;
mod show;
mod table;

/// Runs `fleet` with the arguments of the process, the first of which is its name.
///
/// Returns the exit code, which is the program's interface as its options are.
pub fn fleet(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(code) = HOUSE.keep(&args) {
        return code;
    }
    let line = match Line::try_parse_from(&args) {
        Ok(line) => line,
        Err(error) => {
            // Nobody is left to be told if it fails.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    if let Some(fd) = line.check_resume {
        return match handover::check(fd) {
            Ok(answer) => {
                print(answer);
                ExitCode::SUCCESS
            }
            Err(failure) => {
                complain(&failure.to_string());
                ExitCode::FAILURE
            }
        };
    }
    let Some(verb) = line.verb else {
        complain("which command? Try `fleet --help`.");
        return ExitCode::from(2);
    };
    match verb.run(&line.dir, args) {
        Ok(code) => code,
        Err(stop) => {
            if !stop.message.is_empty() {
                complain(&stop.message);
            }
            ExitCode::from(stop.code)
        }
    }
}

/// Keeps programs running that files describe.
///
/// DIR/programs/NAME.toml says what is wanted of the program NAME: a file that comes
/// is started, one that changes applied, one that goes stopped. Commands are files,
/// too: all that these subcommands do is to write them into DIR/inbox, and to wait
/// for the answer. Who may write DIR may command the fleet.
#[derive(Debug, Parser)]
#[command(name = "fleet", version, after_help = EXIT_CODES)]
struct Line {
    /// The directory of the fleet
    #[arg(
        short,
        long,
        global = true,
        value_name = "DIR",
        env = "FLEET_DIR",
        default_value = "."
    )]
    dir: PathBuf,
    #[arg(long = handover::CHECK, hide = true, value_name = "FD")]
    check_resume: Option<i32>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs the programs until SIGTERM, SIGINT or SIGQUIT, then stops them all
    ///
    /// The log goes to standard error. A supervisor that was killed is followed by
    /// the next one: it finds what still runs, and starts what is missing.
    Run {
        /// The directory of the fleet, instead of --dir
        dir: Option<PathBuf>,
        /// Starts per second, of all programs together
        #[arg(long, value_name = "N", default_value_t = 2000.0, value_parser = rate)]
        rate: f64,
        /// Starts at once after a rest
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
        burst: u32,
        /// What the lines of the log look like: plain, text or json
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        log_format: LogFormat,
    },
    /// Starts programs that were stopped, have ended or failed
    Start(Many),
    /// Stops programs, until they are started again
    Stop(Many),
    /// Restarts programs: those with sockets without a gap, others one instance at a time
    Restart(Many),
    /// Sends a signal to each instance of a program
    Signal {
        #[arg(value_parser = program)]
        name: String,
        /// USR1, SIGUSR1 or 10
        #[arg(value_parser = signal)]
        signal: Signal,
        #[command(flatten)]
        wait: Wait,
    },
    /// Changes the number of instances of a program, until that in its file is changed
    Scale {
        #[arg(value_parser = program)]
        name: String,
        #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_INSTANCES)))]
        instances: u32,
        #[command(flatten)]
        wait: Wait,
    },
    /// Tells how the programs are
    ///
    /// Exits with 3 if an instance of them is not RUNNING.
    Status {
        /// Those to tell about, with each instance and why it failed; all by default
        #[arg(value_parser = program)]
        names: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Again and again, each so often: 2s if nothing is said
        #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_parser = time)]
        watch: Option<Duration>,
    },
    /// Prints the last lines of a program's output
    Logs {
        #[arg(value_parser = program)]
        name: String,
        /// How many lines
        #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
        lines: usize,
        /// Goes on with what is added
        #[arg(short, long)]
        follow: bool,
    },
    /// Has the supervisor become the program now installed, under the same process id
    Upgrade {
        #[command(flatten)]
        wait: Wait,
    },
    /// Looks for mistakes in definitions, without a supervisor
    Check {
        /// The directory of the fleet, instead of --dir, or files
        paths: Vec<PathBuf>,
    },
}

#[derive(Args, Debug)]
struct Many {
    #[arg(value_parser = program, required_unless_present = "all", value_name = "NAME")]
    names: Vec<String>,
    /// All programs
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Args, Clone, Copy, Debug)]
struct Wait {
    /// Stops waiting for the answer, but not what was asked for
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
}

impl Verb {
    fn run(self, dir: &Path, args: Vec<OsString>) -> Result<ExitCode, Stop> {
        let (commands, wait) = match self {
            Self::Run {
                dir: other,
                rate,
                burst,
                log_format,
            } => {
                let options = supervisor::Options {
                    dir: other.unwrap_or_else(|| dir.to_owned()),
                    rate,
                    burst,
                    log_format,
                };
                return supervisor::run(&options, args).map_err(Stop::from);
            }
            Self::Check { paths } if paths.is_empty() => {
                return check::check(&[dir.to_owned()]);
            }
            Self::Check { paths } => return check::check(&paths),
            Self::Status { names, json, watch } => {
                return show::status(&Directory::at(dir)?, &names, json, watch);
            }
            Self::Logs {
                name,
                lines,
                follow,
            } => return logs::print_log(&Directory::at(dir)?, &name, lines, follow),
            Self::Start(many) => many.commands(dir, Command::Start)?,
            Self::Stop(many) => many.commands(dir, Command::Stop)?,
            Self::Restart(many) => many.commands(dir, Command::Restart)?,
            Self::Signal { name, signal, wait } => (vec![Command::Signal(name, signal)], wait),
            Self::Scale {
                name,
                instances,
                wait,
            } => (vec![Command::Scale(name, instances)], wait),
            Self::Upgrade { wait } => (vec![Command::Upgrade], wait),
        };
        ask::ask(&Directory::at(dir)?, &commands, wait.timeout)
    }
}

impl Many {
    fn commands(
        self,
        dir: &Path,
        command: impl Fn(String) -> Command,
    ) -> Result<(Vec<Command>, Wait), Stop> {
        let names = if self.all {
            let directory = Directory::at(dir)?;
            let scan = directory.scan().map_err(|error| {
                Failure::io(
                    format_args!("failed to read {}", directory.programs().display()),
                    &error,
                )
            })?;
            scan.programs.into_keys().collect()
        } else {
            self.names
        };
        Ok((names.into_iter().map(command).collect(), self.wait))
    }
}

/// Why it ends otherwise than well.
#[derive(Debug)]
struct Stop {
    code: u8,
    message: String,
}

impl Stop {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The message has been written already.
    const fn told(code: u8) -> Self {
        Self {
            code,
            message: String::new(),
        }
    }

    fn not_running(directory: &Directory) -> Self {
        let message = format!(
            "fleet is not running in {}: nobody holds {}",
            directory.root().display(),
            directory.lock().display()
        );
        Self::new(NOT_RUNNING, message)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::new(ERROR, failure.to_string())
    }
}

/// Returns the process id of the supervisor, if there is one.
fn supervisor_of(directory: &Directory) -> Result<Option<u32>, Failure> {
    PidFile::holder(directory.lock()).map_err(|error| Failure::of(&error))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok();
    rate.filter(|rate| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| "expected a number above 0".into())
}

fn program(text: &str) -> Result<String, String> {
    name::check(text)?;
    Ok(text.into())
}

fn signal(text: &str) -> Result<Signal, String> {
    text.parse::<Signal>().map_err(|error| error.to_string())
}

/// A duration, or a number of seconds.
fn time(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok();
    let time = match seconds {
        Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        None => humantime::parse_duration(text).ok(),
    };
    time.ok_or_else(|| "expected a duration such as 30s or 1m 30s".into())
}

/// Writes to standard output; `false` if nobody reads it any more.
fn print(text: impl AsRef<[u8]>) -> bool {
    let mut output = io::stdout();
    output
        .write_all(text.as_ref())
        .and_then(|()| output.flush())
        .is_ok()
}

fn complain(text: &str) {
    // Nobody is left to be told if it fails.
    let _ = writeln!(io::stderr(), "{text}");
}

const HOUSE: House = House {
    program: "fleet",
    name: c"fleet-log",
    is_one_log: false,
};
const ERROR: u8 = 1;
const FAILED: u8 = 3;
const TIMED_OUT: u8 = 4;
const NOT_RUNNING: u8 = 5;

const EXIT_CODES: &str = "\
Exit status:
  0  it was done; all that was asked about is RUNNING; there are no mistakes
  1  it could not be asked, or the supervisor could not run
  2  the command line cannot be understood
  3  it was refused or has failed; something is not RUNNING; there are mistakes
  4  the time was up before the answer came; it goes on all the same
  5  fleet is not running in DIR";
