use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
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

/// A MariaDB or MySQL server of one's own for a test.
///
/// It runs from the installed binaries in a temporary directory (the one that
/// `TMPDIR` names; else in `/dev/shm`, if a GiB is free there; else in `/tmp`),
/// and listens on a Unix socket there; it has an empty database `test`, and a user `root`
/// without password. It is stopped and its directory removed when this value is
/// dropped; and when the process ends in any other way, even by `SIGKILL`, the
/// server ends with it. `TEST_SERVER_PRESERVE=1` keeps the directory.
///
/// The data directory is made once, kept in `~/.cache/sql-trace`
/// (`TEST_SERVER_TEMPLATES` names another place) and copied for later starts.
/// Run by root, the server runs as the user `mysql` or `nobody`.
///
/// # Examples
///
/// ```no_run
/// # #[cfg(feature = "mysql")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use sql_trace::TestMysql;
/// use sql_trace::mysql::MySqlPool;
///
/// let server = TestMysql::start()?;
/// let pool = MySqlPool::connect(&server.url()).await?;
/// sqlx::query("SELECT 1").execute(&pool).await?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "mysql"))]
/// # fn main() {}
/// ```
pub struct TestMysql {
    server: Server,
}

impl TestMysql {
    /// Starts a server, and returns when it answers. It takes about a third of
    /// a second, and a second or two more the first time.
    ///
    /// This blocks the thread.
    ///
    /// # Errors
    ///
    /// Fails if neither MariaDB nor MySQL is installed, naming the package, and
    /// if the server does not start, with its log.
    pub fn start() -> Result<Self, TestServerError> {
        Self::start_with(TestServerOptions::new())
    }

    /// Starts a server that is run in another way.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with(options: TestServerOptions) -> Result<Self, TestServerError> {
        let program = find(&path(), &PLACES.map(PathBuf::from))?;
        let account = account(&["mysql", "nobody"])?;
        let directory = Directory::create(account)
            .map_err(|e| TestServerError::because("cannot make a directory for MariaDB", e))?;
        let data = directory.data();
        let version = version(&program)?;
        let run = directory.path().to_owned();
        template::fill(&version, &data, account, || {
            initialise(&program, &version, &run, &data, account)
        })?;
        // Run at each start, before the first connection is taken.
        let init = run.join("init.sql");
        std::fs::write(&init, "CREATE DATABASE IF NOT EXISTS test;\n")
            .map_err(|e| TestServerError::because(format!("cannot write {}", init.display()), e))?;
        let command = move |port: Option<u16>| {
            let socket = run.join(SOCKET);
            let mut command = server_command(&program, &run, &data, account);
            command
                .arg(option("socket", &socket))
                .arg(option("pid-file", &run.join("pid")))
                .arg(option("init-file", &init));
            match port {
                Some(port) => {
                    command.args(["--bind-address=127.0.0.1", &format!("--port={port}")]);
                }
                None => {
                    command.arg("--skip-networking");
                }
            }
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

    /// The URL of the database `test`, for the user `root`, over the Unix
    /// socket.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("test")
    }

    /// The URL of another database on this server.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        format!(
            "mysql://root@localhost/{database}?socket={}",
            self.server.directory.path().join(SOCKET).display()
        )
    }

    /// The URL of the database `test` over TCP, if that was asked for.
    #[must_use]
    pub fn tcp_url(&self) -> Option<String> {
        let port = self.server.port()?;
        Some(format!("mysql://root@127.0.0.1:{port}/test"))
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

impl fmt::Debug for TestMysql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestMysql")
            .field("pid", &self.pid())
            .field("directory", &self.directory())
            .finish_non_exhaustive()
    }
}

const KIND: Kind = Kind {
    name: "MariaDB",
    // It has no children, and nothing here is to survive.
    stop: Signal::KILL,
    shut_down: Signal::TERM,
    answers,
};

const SOCKET: &str = "mysql.sock";

/// Where servers are installed that are not for users' `PATH`.
const PLACES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/usr/libexec"];

fn find(path: &OsStr, places: &[PathBuf]) -> Result<PathBuf, TestServerError> {
    find_program(path, places, &["mariadbd", "mysqld"]).ok_or_else(|| {
        TestServerError::new(
            "no MariaDB or MySQL server is installed: neither `mariadbd` nor `mysqld` is on PATH \
             or in /usr/sbin; on Debian and Ubuntu, `apt-get install mariadb-server`",
        )
    })
}

fn initialise(
    program: &Path,
    version: &str,
    run_in: &Path,
    data: &Path,
    account: Option<Account>,
) -> Result<(), TestServerError> {
    if !version.contains("MariaDB") {
        let mut command = server_command(program, run_in, data, account);
        command.arg("--initialize-insecure");
        return run(command);
    }
    let places = [PathBuf::from("/usr/bin")];
    let names = ["mariadb-install-db", "mysql_install_db"];
    let install = find_program(&path(), &places, &names).ok_or_else(|| {
        TestServerError::new(
            "`mariadb-install-db` is not on PATH; on Debian and Ubuntu, \
             `apt-get install mariadb-server`",
        )
    })?;
    let mut command = Command::new(install);
    command
        .arg("--no-defaults")
        .arg(option("datadir", data))
        .arg(option("tmpdir", run_in))
        .args([
            // A root without password, on an empty server that only its owner
            // can reach.
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            LOG_FILE_SIZE,
        ]);
    if let Some(account) = account {
        account.run(&mut command);
    }
    // It makes the directory's contents, but not always the directory.
    let made = std::fs::create_dir(data).and_then(|()| match account {
        Some(account) => account.own(data),
        None => Ok(()),
    });
    made.map_err(|e| TestServerError::because(format!("cannot make {}", data.display()), e))?;
    run(command)
}

const LOG_FILE_SIZE: &str = "--loose-innodb-log-file-size=4M";

fn server_command(program: &Path, run_in: &Path, data: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new(program);
    command
        // Must be the first.
        .arg("--no-defaults")
        .arg(option("datadir", data))
        // The one that `TMPDIR` names may be root's alone.
        .arg(option("tmpdir", run_in))
        .args([
            "--character-set-server=utf8mb4",
            "--skip-log-bin",
            "--loose-mysqlx=OFF",
            "--performance-schema=OFF",
            "--innodb-buffer-pool-size=16M",
            "--innodb-flush-log-at-trx-commit=0",
            // Neither works in a directory that is memory.
            "--innodb-flush-method=fsync",
            "--innodb-use-native-aio=OFF",
            LOG_FILE_SIZE,
        ]);
    if let Some(account) = account {
        account.run(&mut command);
    }
    command
}

fn option(name: &str, value: &Path) -> OsString {
    let mut option = OsString::from(format!("--{name}="));
    option.push(value);
    option
}

/// Waits for the server's greeting: it speaks first, once it takes connections.
/// <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_v10.html>
fn answers(stream: &mut UnixStream) -> io::Result<bool> {
    const PROTOCOL_VERSION: u8 = 10;
    let [_, _, _, _, version] = read_bytes(stream)?;
    Ok(version == PROTOCOL_VERSION)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn server_that_refuses_connections_does_not_answer_yet() {
        // A greeting, and a packet of an error in its place.
        for (kind, ready) in [(10, true), (0xff, false)] {
            let (mut client, mut server) = UnixStream::pair().unwrap();
            server.write_all(&[74, 0, 0, 0, kind]).unwrap();
            assert_eq!(answers(&mut client).unwrap(), ready);
        }
    }

    #[test]
    fn missing_server_names_the_package() {
        let e = find(OsStr::new(""), &[]).unwrap_err();
        assert!(
            e.to_string().contains("apt-get install mariadb-server"),
            "{e}"
        );
    }
}
