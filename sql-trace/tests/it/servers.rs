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
    assert_eq!(listening_sockets(plain.pid()), [""; 0]);
    let postgres = TestPostgres::start_with(TestServerOptions::new().tcp()).unwrap();
    let url = postgres.tcp_url().unwrap();
    PgConnection::connect(&url).await.unwrap();
    assert_eq!(listening_sockets(postgres.pid()), loopback(&url));
    PgConnection::connect(&postgres.url()).await.unwrap();

    let plain = TestMysql::start().unwrap();
    assert_eq!(plain.tcp_url(), None);
    assert_eq!(listening_sockets(plain.pid()), [""; 0]);
    let mysql = TestMysql::start_with(TestServerOptions::new().tcp()).unwrap();
    let url = mysql.tcp_url().unwrap();
    MySqlConnection::connect(&url).await.unwrap();
    assert_eq!(listening_sockets(mysql.pid()), loopback(&url));
    MySqlConnection::connect(&mysql.url()).await.unwrap();
}

/// The addresses of the TCP sockets that a process listens on, as the kernel
/// writes them.
fn listening_sockets(pid: u32) -> Vec<String> {
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
        .flat_map(|table| {
            let listening = table.lines().filter_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
                let is_its = *state == LISTEN && sockets.iter().any(|socket| socket == inode);
                is_its.then(|| (*address).to_owned())
            });
            listening.collect::<Vec<_>>()
        })
        .collect()
}

/// What [`listening_sockets`] are to be for a port of 127.0.0.1.
fn loopback(url: &str) -> [String; 1] {
    let (_, address) = url.split_once("@127.0.0.1:").unwrap();
    let port: u16 = address.split_once('/').unwrap().0.parse().unwrap();
    let address = u32::from_ne_bytes([127, 0, 0, 1]);
    [format!("{address:08X}:{port:04X}")]
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
        let starts = server.log().matches("ready to accept connections").count();
        assert_eq!(starts, 2, "the log goes on: {}", server.log());

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
        assert!(next.directory.starts_with(place[0].1));
        Parent::start(kind, &place).end();
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
    let other = Parent::start("postgres", &[("TEST_SERVER_PRESERVE", "0")]);
    let removed = other.directory.clone();
    other.end();
    assert!(!removed.exists(), "not requested");
    assert!(directory.exists());
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn directory_of_something_else_is_not_removed() {
    if databases::postgres_is_missing("directory_of_something_else_is_not_removed") {
        return;
    }
    let place = open_directory();
    let [other, left, foreign] =
        ["other", "sql-trace-test-left", "sql-trace-test-foreign"].map(|name| {
            let directory = place.path().join(name);
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(directory.join("owner.lock"), "").unwrap();
            directory
        });
    // Only root can give a file away.
    let nobody = Some(65_534);
    let given = std::os::unix::fs::chown(foreign.join("owner.lock"), nobody, nobody);
    Parent::start("postgres", &[("TMPDIR", place.path().to_str().unwrap())]).end();
    assert!(!left.exists(), "nobody has it locked");
    assert!(other.exists(), "it was not made for a server");
    assert!(given.is_err() || foreign.exists(), "another user's");
}

#[test]
fn server_runs_where_its_socket_has_a_short_path_and_interrupts_do_not_reach_it() {
    let test = "server_runs_where_its_socket_has_a_short_path_and_interrupts_do_not_reach_it";
    if databases::postgres_is_missing(test) || databases::mysql_is_missing(test) {
        return;
    }
    let place = open_directory();
    let long = place.path().join("x".repeat(100));
    std::fs::create_dir(&long).unwrap();
    for kind in ["postgres", "mysql"] {
        let parent = Parent::start(kind, &[("TMPDIR", long.to_str().unwrap())]);
        assert!(parent.directory.as_os_str().len() < 100);
        // The group of processes that a terminal interrupts is the parent's.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", parent.pid)).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let group = fields.split(' ').nth(2).unwrap();
        assert_eq!(group, parent.pid.to_string(), "{stat}");
        parent.end();
    }
}

#[test]
fn server_has_nothing_of_its_parents_settings_or_input() {
    let test = "server_has_nothing_of_its_parents_settings_or_input";
    if databases::postgres_is_missing(test) || databases::mysql_is_missing(test) {
        return;
    }
    // The first is one that no server would start with.
    let settings = [("PGDATESTYLE", "nonsense"), ("LC_ALL", "nonsense")];
    for kind in ["postgres", "mysql"] {
        let parent = Parent::start(kind, &settings);
        let input = std::fs::read_link(format!("/proc/{}/fd/0", parent.pid)).unwrap();
        assert_eq!(input, Path::new("/dev/null"), "{kind}");
        parent.end();
    }
}

#[tokio::test]
async fn servers_do_not_care_for_what_outlives_them() {
    let test = "servers_do_not_care_for_what_outlives_them";
    if databases::postgres_is_missing(test) || databases::mysql_is_missing(test) {
        return;
    }
    let (postgres, mysql) = (TestPostgres::start().unwrap(), TestMysql::start().unwrap());
    let mut connection = PgConnection::connect(&postgres.url()).await.unwrap();
    for setting in [
        "fsync",
        "synchronous_commit",
        "full_page_writes",
        "logging_collector",
    ] {
        let value: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(setting)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(value, "off", "{setting}");
    }
    let mut connection = MySqlConnection::connect(&mysql.url()).await.unwrap();
    let set: (f64, f64) =
        sqlx::query_as("SELECT @@log_bin + 0e0, @@innodb_flush_log_at_trx_commit + 0e0")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!(set, (0.0, 0.0));
}

#[test]
fn nobody_else_may_enter_the_directory() {
    use std::os::unix::fs::MetadataExt;
    let test = "nobody_else_may_enter_the_directory";
    if databases::postgres_is_missing(test) || databases::mysql_is_missing(test) {
        return;
    }
    let (postgres, mysql) = (TestPostgres::start().unwrap(), TestMysql::start().unwrap());
    for (pid, directory) in [
        (postgres.pid(), postgres.directory()),
        (mysql.pid(), mysql.directory()),
    ] {
        let meta = directory.metadata().unwrap();
        assert_eq!(meta.mode() & 0o777, 0o700, "{}", directory.display());
        // Neither is the server another user than its directory's, nor root.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let ids = |name: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let ids = line.unwrap().split_whitespace();
            ids.map(|id| id.parse().unwrap()).collect()
        };
        assert_eq!(ids("Uid:"), [meta.uid(); 4]);
        assert_eq!(ids("Gid:"), [meta.gid(); 4]);
        assert!(!ids("Uid:").contains(&0) && !ids("Gid:").contains(&0));
        assert!(!ids("Groups:").contains(&0), "{status}");
    }
}

#[tokio::test]
async fn text_of_any_script_can_be_stored() {
    let test = "text_of_any_script_can_be_stored";
    if databases::postgres_is_missing(test) || databases::mysql_is_missing(test) {
        return;
    }
    const TEXT: &str = "é日本😀";
    let create = "CREATE TABLE texts (t VARCHAR(4))";
    let read = "SELECT t, CAST(char_length(t) AS CHAR(1)) FROM texts";
    let stored = (TEXT.to_owned(), "4".to_owned());
    let (postgres, mysql) = (TestPostgres::start().unwrap(), TestMysql::start().unwrap());
    let mut connection = PgConnection::connect(&postgres.url()).await.unwrap();
    connection.execute(create).await.unwrap();
    let insert = sqlx::query("INSERT INTO texts VALUES ($1)").bind(TEXT);
    insert.execute(&mut connection).await.unwrap();
    let row: (String, String) = sqlx::query_as(read)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(row, stored);
    let mut connection = MySqlConnection::connect(&mysql.url()).await.unwrap();
    connection.execute(create).await.unwrap();
    let insert = sqlx::query("INSERT INTO texts VALUES (?)").bind(TEXT);
    insert.execute(&mut connection).await.unwrap();
    let row: (String, String) = sqlx::query_as(read)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(row, stored);
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
    // Run by root, the server may not write there.
    let ours = open_directory();
    let ours = ("TMPDIR", ours.path().to_str().unwrap());
    for (kind, mark) in [("postgres", "PG_VERSION"), ("mysql", "ibdata1")] {
        Parent::start(kind, &[place, ours]).end();
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
    std::fs::remove_dir_all(&templates).unwrap();
    // Where no place is named, it is the user's cache.
    let home = templates.to_str().unwrap();
    for (cache, place) in [(home, "sql-trace"), ("", ".cache/sql-trace")] {
        let variables = [
            ("TEST_SERVER_TEMPLATES", ""),
            ("XDG_CACHE_HOME", cache),
            ("HOME", home),
        ];
        Parent::start("postgres", &variables).end();
        let place = templates.join(place);
        let mode = std::os::unix::fs::MetadataExt::mode(&place.metadata().unwrap());
        assert_eq!(mode & 0o777, 0o700, "{}", place.display());
        let mut kept = std::fs::read_dir(place).unwrap();
        assert!(kept.any(|entry| entry.unwrap().path().join("PG_VERSION").exists()));
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
