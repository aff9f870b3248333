//! Throwaway database servers for tests.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use self::account::Account;
use self::directory::Directory;
use self::port::Port;

mod account;
mod directory;
mod mysql;
mod port;
mod postgres;
mod process;
mod template;

pub use self::mysql::TestMysql;
pub use self::postgres::TestPostgres;

/// How a [`TestPostgres`] or [`TestMysql`] is run.
///
/// # Examples
///
/// ```no_run
/// use sql_trace::{TestPostgres, TestServerOptions};
///
/// let server = TestPostgres::start_with(
///     TestServerOptions::new().tcp().arg("-c").arg("max_connections=20"),
/// )?;
/// # Ok::<(), sql_trace::TestServerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TestServerOptions {
    tcp: bool,
    args: Vec<OsString>,
    timeout: Duration,
}

impl TestServerOptions {
    /// Begins with the defaults: a Unix socket only, and a minute to start.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tcp: false,
            args: Vec::new(),
            timeout: Duration::from_secs(60),
        }
    }

    /// Makes the server listen on a free port of 127.0.0.1 as well.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Adds an argument to the server's command line.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets how long the server may take until it answers.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Default for TestServerOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a server could not be started, with what it wrote to its log.
#[derive(Debug)]
pub struct TestServerError {
    attempted: String,
    log: Option<String>,
    source: Option<io::Error>,
}

impl TestServerError {
    fn new(attempted: impl Into<String>) -> Self {
        Self {
            attempted: attempted.into(),
            log: None,
            source: None,
        }
    }

    fn because(attempted: impl Into<String>, source: io::Error) -> Self {
        Self {
            source: Some(source),
            ..Self::new(attempted)
        }
    }

    fn with_log(mut self, log: String) -> Self {
        self.log = Some(log);
        self
    }

    /// What the server, or the program that prepares its data directory, wrote.
    #[must_use]
    pub fn log(&self) -> Option<&str> {
        self.log.as_deref()
    }
}

impl fmt::Display for TestServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.attempted)?;
        if let Some(log) = &self.log {
            write!(f, "\n--- log ---\n{}\n--- end of log ---", log.trim_end())?;
        }
        Ok(())
    }
}

impl Error for TestServerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

/// A server that runs in a directory of its own, and ends with this value.
struct Server {
    // Above the directory, which can go when the process is gone.
    process: Running,
    directory: Directory,
    port: Option<Port>,
    launch: Launch,
}

/// How a server is run, and run again.
struct Launch {
    kind: Kind,
    options: TestServerOptions,
    /// The server's command, and the path of its socket, given the port it is
    /// to have.
    command: Box<dyn Fn(Option<u16>) -> (Command, PathBuf) + Send + Sync>,
}

struct Running {
    child: Child,
    /// Ends the server at once, and its children with it.
    stop: Signal,
}

/// What tells one kind of server from another.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    /// Ends the server at once, and its children with it.
    stop: Signal,
    /// Ends the server in order, so that it loses nothing, but does not wait for
    /// its clients.
    shut_down: Signal,
    /// Whether the stranger at the other end of the socket is a server that
    /// takes statements.
    answers: fn(&mut UnixStream) -> io::Result<bool>,
}

impl Server {
    fn start(directory: Directory, launch: Launch) -> Result<Self, TestServerError> {
        let port =
            match launch.options.tcp {
                true => Some(Port::reserve().map_err(|e| {
                    TestServerError::because("cannot reserve a port of 127.0.0.1", e)
                })?),
                false => None,
            };
        let process = launch.run(&directory, port.as_ref())?;
        Ok(Self {
            process,
            directory,
            port,
            launch,
        })
    }

    fn port(&self) -> Option<u16> {
        self.port.as_ref().map(Port::number)
    }

    fn stop(&mut self) {
        self.process.end(self.launch.kind.shut_down);
    }

    fn restart(&mut self) -> Result<(), TestServerError> {
        self.stop();
        self.process = self.launch.run(&self.directory, self.port.as_ref())?;
        Ok(())
    }
}

impl Launch {
    fn run(&self, directory: &Directory, port: Option<&Port>) -> Result<Running, TestServerError> {
        let kind = &self.kind;
        let (mut command, socket) = (self.command)(port.map(Port::number));
        command.args(&self.options.args);
        let log = directory.log().map_err(|e| {
            TestServerError::because(
                format!("cannot write {}", directory.log_path().display()),
                e,
            )
        })?;
        let error_log = log
            .try_clone()
            .map_err(|e| TestServerError::because(format!("cannot log for {}", kind.name), e))?;
        command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(error_log)
            .current_dir(directory.path());
        let program = command.get_program().to_owned();
        let child = process::spawn(command, kind.stop).map_err(|e| {
            TestServerError::because(format!("cannot run {}", program.display()), e)
        })?;
        let mut process = Running {
            child,
            stop: kind.stop,
        };
        match process.wait_until_ready(kind, &socket, self.options.timeout) {
            Ok(()) => Ok(process),
            Err(reason) => {
                drop(process);
                Err(TestServerError::new(format!(
                    "cannot start {} by {}: {reason}",
                    kind.name,
                    program.display()
                ))
                .with_log(directory.read_log()))
            }
        }
    }
}

impl Running {
    fn wait_until_ready(
        &mut self,
        kind: &Kind,
        socket: &Path,
        timeout: Duration,
    ) -> Result<(), String> {
        const PAUSE: Duration = Duration::from_millis(3);
        let started = Instant::now();
        loop {
            if answers(kind, socket) {
                return Ok(());
            }
            match self.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return Err(format!("it ended with {status}")),
                Err(e) => return Err(format!("it cannot be waited for: {e}")),
            }
            if started.elapsed() >= timeout {
                return Err(format!("it did not answer within {timeout:?}"));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Sends the signal, unless the server has ended, and waits for its end.
    fn end(&mut self, signal: Signal) {
        /// More than either server needs for ending, on a busy machine too.
        const PATIENCE: Duration = Duration::from_secs(60);

        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(Pid::from_child(&self.child), signal);
            let stopping = Instant::now();
            while let Ok(None) = self.child.try_wait() {
                if stopping.elapsed() >= PATIENCE {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(self.stop);
    }
}

fn answers(kind: &Kind, socket: &Path) -> bool {
    const PATIENCE: Duration = Duration::from_secs(1);
    let Ok(mut stream) = UnixStream::connect(socket) else {
        return false;
    };
    let patient = stream
        .set_read_timeout(Some(PATIENCE))
        .and(stream.set_write_timeout(Some(PATIENCE)));
    patient.is_ok() && (kind.answers)(&mut stream).unwrap_or(false)
}

/// Finds a program in the directories of `path`, and then in `places`.
fn find_program(path: &OsStr, places: &[PathBuf], names: &[&str]) -> Option<PathBuf> {
    std::env::split_paths(path)
        .chain(places.iter().cloned())
        .flat_map(|place| names.iter().map(move |name| place.join(name)))
        .find(|program| program.is_file())
}

/// The value of `PATH`.
fn path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// Runs a program that prepares a data directory to its end.
fn run(mut command: Command) -> Result<(), TestServerError> {
    let program = command.get_program().to_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| TestServerError::because(format!("cannot run {}", program.display()), e))?;
    if output.status.success() {
        return Ok(());
    }
    let mut log = String::from_utf8_lossy(&output.stdout).into_owned();
    log.push_str(&String::from_utf8_lossy(&output.stderr));
    Err(TestServerError::new(format!(
        "{} ended with {}",
        program.display(),
        output.status
    ))
    .with_log(log))
}

/// The version that a program prints, as a name for its templates.
fn version(program: &Path) -> Result<String, TestServerError> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| TestServerError::because(format!("cannot run {}", program.display()), e))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Reads exactly so many bytes.
fn read_bytes<const N: usize>(stream: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Who runs the server: neither of them is willing to run as root.
fn account(names: &[&str]) -> Result<Option<Account>, TestServerError> {
    if rustix::process::geteuid().is_root() {
        Account::find(names).map(Some).ok_or_else(|| {
            TestServerError::new(format!(
                "a database server does not run as root, and /etc/passwd has none of the users {}",
                names.join(", ")
            ))
        })
    } else {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_that_fails_is_shown_with_all_it_wrote() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            run(command)
        };
        shell("echo fine").unwrap();
        let e = shell("echo one; echo two >&2; exit 3").unwrap_err();
        let shown = e.to_string();
        assert!(shown.starts_with("sh ended with exit status: 3"), "{shown}");
        assert_eq!(e.log(), Some("one\ntwo\n"));
        assert!(shown.contains("one\ntwo\n"), "{shown}");
        assert!(e.source().is_none());
        let e = run(Command::new("/nonexistent/initdb")).unwrap_err();
        assert_eq!(e.to_string(), "cannot run /nonexistent/initdb");
        assert!(e.source().unwrap().to_string().contains("os error 2"));
    }

    #[test]
    fn program_is_a_file_of_that_name_on_the_path_before_other_places() {
        let base = std::env::temp_dir().join(format!("sql-trace-path-{}", std::process::id()));
        let [not, path, place] = ["not", "path", "place"].map(|name| base.join(name));
        std::fs::create_dir_all(not.join("mysqld")).unwrap();
        for directory in [&path, &place] {
            std::fs::create_dir_all(directory).unwrap();
            std::fs::write(directory.join("mysqld"), "").unwrap();
        }
        let all = std::env::join_paths([&not, &path]).unwrap();
        let find = |path: &OsStr| {
            find_program(path, std::slice::from_ref(&place), &["mariadbd", "mysqld"])
        };
        let (first, last) = (find(&all), find(not.as_os_str()));
        std::fs::remove_dir_all(&base).unwrap();
        assert_eq!(first, Some(path.join("mysqld")));
        assert_eq!(last, Some(place.join("mysqld")));
    }
}
