use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::account::Account;
use super::directory::Directory;
use super::{
    Kind, Launch, Server, TestServerError, TestServerOptions, account, find_program, path,
    read_bytes, run, template, version,
};

/// A PostgreSQL server of one's own for a test.
///
/// It runs from the installed binaries in a temporary directory (the one that
/// `TMPDIR` names; else in `/dev/shm`, if a GiB is free there; else in `/tmp`),
/// and listens on a Unix socket there. It is stopped and its directory removed when this value
/// is dropped; and when the process ends in any other way, even by `SIGKILL`,
/// the server ends with it. `TEST_SERVER_PRESERVE=1` keeps the directory.
///
/// The data directory is made once, kept in `~/.cache/sql-trace`
/// (`TEST_SERVER_TEMPLATES` names another place) and copied for later starts.
/// Run by root, the server runs as the user `postgres` or `nobody`.
///
/// # Examples
///
/// ```no_run
/// # #[cfg(feature = "postgres")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use sql_trace::TestPostgres;
/// use sql_trace::postgres::PgPool;
///
/// let server = TestPostgres::start()?;
/// let pool = PgPool::connect(&server.url()).await?;
/// sqlx::query("SELECT 1").execute(&pool).await?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "postgres"))]
/// # fn main() {}
/// ```
pub struct TestPostgres {
    server: Server,
}

impl TestPostgres {
    /// Starts a server, and returns when it answers. It takes about a quarter
    /// of a second, and a second more the first time.
    ///
    /// This blocks the thread.
    ///
    /// # Errors
    ///
    /// Fails if PostgreSQL is not installed, naming the package, and if the
    /// server does not start, with its log.
    pub fn start() -> Result<Self, TestServerError> {
        Self::start_with(TestServerOptions::new())
    }

    /// Starts a server that is run in another way.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with(options: TestServerOptions) -> Result<Self, TestServerError> {
        let program = find(&path(), Path::new("/usr/lib/postgresql"))?;
        let account = account(&["postgres", "nobody"])?;
        let directory = Directory::create(account)
            .map_err(|e| TestServerError::because("cannot make a directory for PostgreSQL", e))?;
        let data = directory.data();
        template::fill(&version(&program)?, &data, account, || {
            initialise(&program, &data, account)
        })?;
        let run = directory.path().to_owned();
        let command = move |port: Option<u16>| {
            let mut command = Command::new(&program);
            command.arg("-D").arg(&data).arg("-k").arg(&run);
            match port {
                Some(port) => command.args(["-h", "127.0.0.1", "-p", &port.to_string()]),
                None => command.args(["-h", "", "-p", &PORT.to_string()]),
            };
            // Nothing here is to survive.
            for setting in [
                "fsync=off",
                "synchronous_commit=off",
                "full_page_writes=off",
                "logging_collector=off",
            ] {
                command.arg("-c").arg(setting);
            }
            as_account(&mut command, account);
            let socket = run.join(format!(".s.PGSQL.{}", port.unwrap_or(PORT)));
            (command, socket)
        };
        let launch = Launch {
            kind: KIND,
            options,
            command: Box::new(command),
        };
        let server = Server::start(directory, launch)?;
        Ok(Self { server })
    }

    /// The URL of the database `postgres`, for its superuser of that name, over
    /// the Unix socket.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of another database on this server.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        format!(
            "postgres://postgres@localhost:{}/{database}?host={}",
            self.server.port().unwrap_or(PORT),
            self.server.directory.path().display()
        )
    }

    /// The URL of the database `postgres` over TCP, if that was asked for.
    #[must_use]
    pub fn tcp_url(&self) -> Option<String> {
        let port = self.server.port()?;
        Some(format!("postgres://postgres@127.0.0.1:{port}/postgres"))
    }

    /// The directory that the server runs in, with its socket, its log and its
    /// data.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.server.directory.path()
    }

    /// What the server has written to its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.directory.read_log()
    }

    /// Shuts the server down as an operator does: its clients are cut off, what
    /// they committed stays, and its URL leads nowhere until
    /// [`restart`](Self::restart).
    ///
    /// This blocks the thread, for a minute at most.
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// Runs the server again, with its data and under the same URL, and returns
    /// when it answers. It is [stopped](Self::stop) before if it still runs.
    ///
    /// This blocks the thread.
    ///
    /// # Errors
    ///
    /// Fails if the server does not start, with its log.
    pub fn restart(&mut self) -> Result<(), TestServerError> {
        self.server.restart()
    }

    /// The server's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.process.child.id()
    }
}

impl fmt::Debug for TestPostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestPostgres")
            .field("pid", &self.pid())
            .field("directory", &self.directory())
            .finish_non_exhaustive()
    }
}

/// Names the socket when there is no TCP port to name it.
const PORT: u16 = 5432;

const KIND: Kind = Kind {
    name: "PostgreSQL",
    // An immediate shutdown and a fast one: the postmaster ends its children too.
    stop: Signal::QUIT,
    shut_down: Signal::INT,
    answers,
};

/// Finds the server on `path`, or among the versions that Debian installs side
/// by side.
fn find(path: &OsStr, debian: &Path) -> Result<PathBuf, TestServerError> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(debian)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let newest_first: Vec<PathBuf> = versions.into_iter().rev().map(|(_, bin)| bin).collect();
    let program = find_program(path, &newest_first, &["postgres"]).ok_or_else(|| {
        TestServerError::new(
            "no PostgreSQL server is installed: `postgres` is neither on PATH nor in \
             /usr/lib/postgresql/*/bin; on Debian and Ubuntu, `apt-get install postgresql`",
        )
    })?;
    // A link on PATH does not have initdb beside it.
    program
        .canonicalize()
        .map_err(|e| TestServerError::because(format!("cannot find {}", program.display()), e))
}

fn initialise(
    program: &Path,
    data: &Path,
    account: Option<Account>,
) -> Result<(), TestServerError> {
    let mut command = Command::new(program.with_file_name("initdb"));
    command
        .arg("-D")
        .arg(data)
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"])
        .args(["--no-sync", "--wal-segsize=1"]);
    as_account(&mut command, account);
    run(command)
}

fn as_account(command: &mut Command, account: Option<Account>) {
    // Whatever names another server in the environment is not meant for this.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C");
    if let Some(account) = account {
        account.run(command);
    }
}

/// Logs in: until it has recovered, the server answers that it is starting up.
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html>
fn answers(stream: &mut UnixStream) -> io::Result<bool> {
    const PARAMETERS: &[u8] = b"user\0postgres\0database\0postgres\0\0";
    const VERSION: u32 = 3 << 16;
    const AUTHENTICATION: u8 = b'R';
    const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

    let mut startup = Vec::new();
    startup.extend((PARAMETERS.len() as u32 + 8).to_be_bytes());
    startup.extend(VERSION.to_be_bytes());
    startup.extend(PARAMETERS);
    stream.write_all(&startup)?;
    let [kind] = read_bytes(stream)?;
    stream.write_all(&TERMINATE)?;
    Ok(kind == AUTHENTICATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_server_names_the_package() {
        let e = find(OsStr::new(""), Path::new("/nonexistent")).unwrap_err();
        assert!(e.to_string().contains("apt-get install postgresql"), "{e}");
    }

    #[test]
    fn server_that_recovers_does_not_answer_yet() {
        for (kind, ready) in [(b"R", true), (b"E", false)] {
            let (mut client, mut server) = UnixStream::pair().unwrap();
            server.write_all(kind).unwrap();
            assert_eq!(answers(&mut client).unwrap(), ready);
        }
    }

    #[test]
    fn newest_version_is_taken() {
        let debian = std::env::temp_dir().join(format!("sql-trace-find-{}", std::process::id()));
        for version in ["9", "15", "13", "common"] {
            let bin = debian.join(version).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            std::fs::write(bin.join("postgres"), "").unwrap();
        }
        let found = find(OsStr::new(""), &debian).unwrap();
        std::fs::remove_dir_all(&debian).unwrap();
        assert!(found.ends_with("15/bin/postgres"), "{}", found.display());
    }

    #[test]
    fn link_on_the_path_is_followed_to_where_initdb_is() {
        let base = std::env::temp_dir().join(format!("sql-trace-link-{}", std::process::id()));
        let [bin, path] = ["bin", "path"].map(|name| base.join(name));
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(bin.join("postgres"), "").unwrap();
        std::os::unix::fs::symlink(bin.join("postgres"), path.join("postgres")).unwrap();
        let found = find(path.as_os_str(), Path::new("/nonexistent"));
        let real = bin.join("postgres").canonicalize().unwrap();
        std::fs::remove_dir_all(&base).unwrap();
        assert_eq!(found.unwrap(), real);
    }
}
