//! `TestPostgres` and `TestMysql` themselves.

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use sql_trace::{TestMysql, TestPostgres, TestServerOptions};
use sqlx::{Connection, Executor, MySqlConnection, PgConnection};

use crate::databases;

#[tokio::test]
async fn server_takes_statements_when_start_returns() {
    if databases::postgres_is_missing("server_takes_statements_when_start_returns") {
        return;
    }
    let server = TestPostgres::start().unwrap();
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    let (n,): (i32,) = sqlx::query_as("SELECT 42")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(n, 42);
}

#[tokio::test]
async fn mariadb_takes_statements_when_start_returns() {
    if databases::mysql_is_missing("mariadb_takes_statements_when_start_returns") {
        return;
    }
    let server = TestMysql::start().unwrap();
    let mut connection = MySqlConnection::connect(&server.url()).await.unwrap();
    let (n, database): (i64, String) = sqlx::query_as("SELECT 42, database()")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!((n, database.as_str()), (42, "test"));
}

#[tokio::test]
async fn servers_listen_on_tcp_only_when_asked() {
    if databases::postgres_is_missing("servers_listen_on_tcp_only_when_asked")
        || databases::mysql_is_missing("servers_listen_on_tcp_only_when_asked")
    {
        return;
    }
    let plain = TestPostgres::start().unwrap();
    assert_eq!(plain.tcp_url(), None);
    assert_eq!(listening_sockets(plain.pid()), 0);
    let postgres = TestPostgres::start_with(TestServerOptions::new().tcp()).unwrap();
    PgConnection::connect(&postgres.tcp_url().unwrap())
        .await
        .unwrap();
    PgConnection::connect(&postgres.url()).await.unwrap();

    let plain = TestMysql::start().unwrap();
    assert_eq!(plain.tcp_url(), None);
    assert_eq!(listening_sockets(plain.pid()), 0);
    let mysql = TestMysql::start_with(TestServerOptions::new().tcp()).unwrap();
    MySqlConnection::connect(&mysql.tcp_url().unwrap())
        .await
        .unwrap();
    MySqlConnection::connect(&mysql.url()).await.unwrap();
}

/// How many TCP sockets a process listens on.
fn listening_sockets(pid: u32) -> usize {
    const LISTEN: &str = "0A";
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .filter_map(|link| {
            let link = link.to_str()?.strip_prefix("socket:[")?;
            Some(link.trim_end_matches(']').to_owned())
        })
        .collect();
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).ok())
        .map(|table| {
            table
                .lines()
                .filter(|line| {
                    let fields: Vec<&str> = line.split_whitespace().collect();
                    fields.get(3) == Some(&LISTEN)
                        && fields
                            .get(9)
                            .is_some_and(|inode| sockets.iter().any(|s| s == inode))
                })
                .count()
        })
        .sum()
}

#[test]
fn dropped_server_is_gone_with_its_directory() {
    if databases::postgres_is_missing("dropped_server_is_gone_with_its_directory")
        || databases::mysql_is_missing("dropped_server_is_gone_with_its_directory")
    {
        return;
    }
    let server = TestPostgres::start().unwrap();
    let (pid, directory) = (server.pid(), server.directory().to_owned());
    assert!(runs(pid) && directory.join("data/PG_VERSION").exists());
    drop(server);
    assert!(!runs(pid), "postgres runs on");
    assert!(!directory.exists(), "{} is left", directory.display());

    let server = TestMysql::start().unwrap();
    let (pid, directory) = (server.pid(), server.directory().to_owned());
    assert!(runs(pid) && directory.join("data/mysql").exists());
    drop(server);
    assert!(!runs(pid), "mariadbd runs on");
    assert!(!directory.exists(), "{} is left", directory.display());
}

#[tokio::test]
async fn restarted_server_has_its_url_and_all_that_was_committed() {
    let test = "restarted_server_has_its_url_and_all_that_was_committed";
    if databases::postgres_is_missing(test) || databases::mysql_is_missing(test) {
        return;
    }
    for tcp in [false, true] {
        let options = match tcp {
            false => TestServerOptions::new(),
            true => TestServerOptions::new().tcp(),
        };
        let mut server = TestPostgres::start_with(options.clone()).unwrap();
        let url = server.tcp_url().unwrap_or_else(|| server.url());
        let mut client = PgConnection::connect(&url).await.unwrap();
        client.execute("CREATE TABLE kept (n INT)").await.unwrap();
        client.execute("INSERT INTO kept VALUES (7)").await.unwrap();
        let pid = server.pid();
        server.stop();
        assert!(!runs(pid), "postgres runs on");
        client.execute("SELECT 1").await.unwrap_err();
        PgConnection::connect(&url).await.unwrap_err();
        server.restart().unwrap();
        let mut client = PgConnection::connect(&url).await.unwrap();
        let kept: i32 = sqlx::query_scalar("SELECT n FROM kept")
            .fetch_one(&mut client)
            .await
            .unwrap();
        assert_eq!(kept, 7);

        let mut server = TestMysql::start_with(options).unwrap();
        let url = server.tcp_url().unwrap_or_else(|| server.url());
        let mut client = MySqlConnection::connect(&url).await.unwrap();
        client.execute("CREATE TABLE kept (n INT)").await.unwrap();
        client.execute("INSERT INTO kept VALUES (7)").await.unwrap();
        // Without a stop before: it is stopped first.
        let pid = server.pid();
        server.restart().unwrap();
        assert!(
            !runs(pid) && runs(server.pid()),
            "mariadbd was not replaced"
        );
        let mut client = MySqlConnection::connect(&url).await.unwrap();
        let kept: i32 = sqlx::query_scalar("SELECT n FROM kept")
            .fetch_one(&mut client)
            .await
            .unwrap();
        assert_eq!(kept, 7);
    }
}

#[test]
fn server_outlives_the_thread_that_started_it() {
    if databases::postgres_is_missing("server_outlives_the_thread_that_started_it") {
        return;
    }
    let server = std::thread::spawn(|| TestPostgres::start().unwrap())
        .join()
        .unwrap();
    // The death signal of a thread that ended would have come by now: the
    // server below was started, which takes longer.
    let _second = TestPostgres::start().unwrap();
    assert!(runs(server.pid()), "{}", server.log());
}

#[test]
fn server_that_does_not_start_shows_its_log() {
    if databases::postgres_is_missing("server_that_does_not_start_shows_its_log")
        || databases::mysql_is_missing("server_that_does_not_start_shows_its_log")
    {
        return;
    }
    let options = TestServerOptions::new().arg("-c").arg("no_such_setting=1");
    let e = TestPostgres::start_with(options).unwrap_err();
    assert!(e.to_string().contains("no_such_setting"), "{e}");
    assert!(e.to_string().contains("it ended with exit status"), "{e}");
    let options = TestServerOptions::new().arg("--no-such-option");
    let e = TestMysql::start_with(options).unwrap_err();
    assert!(e.log().unwrap().contains("no-such-option"), "{e}");
}

#[test]
fn server_that_does_not_answer_in_time_is_given_up() {
    if databases::mysql_is_missing("server_that_does_not_answer_in_time_is_given_up") {
        return;
    }
    // However late it is asked, it is not ready yet.
    let directory = open_directory();
    let init = directory.path().join("init.sql");
    std::fs::write(&init, "SELECT SLEEP(600);\n").unwrap();
    let options = TestServerOptions::new()
        .arg(format!("--init-file={}", init.display()))
        .timeout(Duration::from_millis(1));
    let e = TestMysql::start_with(options).unwrap_err();
    assert!(e.to_string().contains("did not answer within 1ms"), "{e}");
}

#[test]
fn server_dies_when_its_parent_is_killed() {
    if databases::postgres_is_missing("server_dies_when_its_parent_is_killed")
        || databases::mysql_is_missing("server_dies_when_its_parent_is_killed")
    {
        return;
    }
    // Other tests must not remove what is looked for here.
    let place = open_directory();
    let place = [("TMPDIR", place.path().to_str().unwrap())];
    for kind in ["postgres", "mysql"] {
        let mut parent = Parent::start(kind, &place);
        assert!(runs(parent.pid), "{kind} runs");
        parent.child.kill().unwrap();
        parent.child.wait().unwrap();
        wait_until(|| !runs(parent.pid));

        // What a killed process could not remove, the next one does.
        assert!(parent.directory.exists());
        let mut next = Parent::start(kind, &place);
        wait_until(|| {
            // Its children may have been in the way.
            let is_left = parent.directory.exists();
            if is_left {
                std::mem::replace(&mut next, Parent::start(kind, &place)).end();
            }
            !is_left
        });
        assert!(next.directory.exists(), "one in use is not removed");
        next.end();
    }
}

#[test]
fn directory_is_kept_on_request() {
    if databases::postgres_is_missing("directory_is_kept_on_request") {
        return;
    }
    let kept = Parent::start("postgres", &[("TEST_SERVER_PRESERVE", "1")]);
    let (pid, directory) = (kept.pid, kept.directory.clone());
    kept.end();
    assert!(!runs(pid));
    assert!(directory.join("log").exists());
    assert!(directory.join("data/PG_VERSION").exists());
    // Not to be taken for a directory that was left behind.
    Parent::start("postgres", &[]).end();
    assert!(directory.exists());
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn data_directory_is_copied_from_a_template() {
    if databases::postgres_is_missing("data_directory_is_copied_from_a_template")
        || databases::mysql_is_missing("data_directory_is_copied_from_a_template")
    {
        return;
    }
    let templates = std::env::temp_dir().join(format!("templates-{}", std::process::id()));
    let place = ("TEST_SERVER_TEMPLATES", templates.to_str().unwrap());
    for (kind, mark) in [("postgres", "PG_VERSION"), ("mysql", "ibdata1")] {
        Parent::start(kind, &[place]).end();
        let template = std::fs::read_dir(&templates)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.join(mark).exists())
            .expect("a template was kept");
        std::fs::write(template.join("marked"), "").unwrap();
        let copied = Parent::start(kind, &[place]);
        assert!(copied.directory.join("data/marked").exists());
        copied.end();
    }
    std::fs::remove_dir_all(templates).unwrap();
}

/// A process of its own that starts a server, so that it can be killed.
struct Parent {
    child: Child,
    /// Held open: the harness does not like to lose its output.
    _output: Lines<BufReader<ChildStdout>>,
    pid: u32,
    directory: PathBuf,
}

impl Parent {
    fn start(kind: &str, variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "servers::parent_of_a_server", "--nocapture"])
            .env("PARENT_OF", kind)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = output
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("STARTED ")?.1.to_owned()))
            .expect("the server started");
        let (pid, directory) = line.split_once(' ').unwrap();
        Self {
            child,
            _output: output,
            pid: pid.parse().unwrap(),
            directory: directory.into(),
        }
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// Not a test but for [`Parent`]: starts the server that `PARENT_OF` names, and
/// holds it until its standard input ends.
#[test]
#[expect(clippy::print_stdout, reason = "speaks to the test that runs it")]
fn parent_of_a_server() {
    fn hold(pid: u32, directory: &Path) {
        println!("STARTED {pid} {}", directory.display());
        let mut line = String::new();
        let _ = std::io::stdin().read_line(&mut line);
    }
    match std::env::var("PARENT_OF").as_deref() {
        Ok("postgres") => {
            let server = TestPostgres::start().unwrap();
            hold(server.pid(), server.directory());
        }
        Ok("mysql") => {
            let server = TestMysql::start().unwrap();
            hold(server.pid(), server.directory());
        }
        _ => {}
    }
}

fn runs(pid: u32) -> bool {
    // A dead process that its new parent has not yet waited for is dead.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}

/// A directory that the users may enter who run servers for root.
fn open_directory() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), mode).unwrap();
    directory
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "timed out");
        std::thread::sleep(Duration::from_millis(5));
    }
}
