//! The programs that read access logs take every line.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use apache_logformat::{Escape, LogFormat};

use crate::traffic;

/// How many lines the programs are given.
fn count() -> usize {
    let chosen = env::var("READERS_LINES").ok();
    chosen.map_or(100_000, |count| count.parse().unwrap())
}

/// A directory that is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("apache-logformat-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a program; `None`, and a word about it, when it is not there.
fn run(program: &str, configure: impl FnOnce(&mut Command)) -> Option<Output> {
    let found = match Path::new(program).is_absolute() {
        true => Path::new(program).exists(),
        false => env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .any(|directory| directory.join(program).exists()),
    };
    if !found {
        assert!(
            env::var_os("TEST_REQUIRE_ALL").is_none(),
            "{program} is missing, and TEST_REQUIRE_ALL is set"
        );
        // Past the harness, which keeps what a passing test prints.
        let _ = writeln!(io::stderr(), "left out: {program} is not installed");
        return None;
    }
    let mut command = Command::new(program);
    // A machine's language must not change what the programs print.
    command.env("LC_ALL", "C.UTF-8");
    configure(&mut command);
    Some(command.output().unwrap())
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn log_has_a_line_for_every_request() {
    let log = traffic::log(LogFormat::combined(), 2000);
    assert_eq!(log.iter().filter(|byte| **byte == b'\n').count(), 2000);
    assert!(log.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~')));
}

#[test]
fn goaccess_rejects_no_line() {
    let directory = Directory::new("goaccess");
    for (name, format, option) in [
        ("combined", LogFormat::combined(), "COMBINED"),
        ("common", LogFormat::common(), "COMMON"),
        ("vhost", LogFormat::vhost_combined(), "VCOMBINED"),
    ] {
        let log = directory.write(name, traffic::log(format, count()));
        let rejected = directory.0.join("rejected");
        let Some(output) = run("goaccess", |command| {
            command
                .arg(&log)
                .arg(format!("--log-format={option}"))
                .args([
                    "--no-global-config",
                    "--output-format=json",
                    "--no-progress",
                ])
                .arg(format!("--invalid-requests={}", rejected.display()));
        }) else {
            return;
        };
        let report: serde_json::Value = match serde_json::from_slice(&output.stdout) {
            Ok(report) => report,
            Err(error) => panic!("{name}: {error}: {}", text(&output)),
        };
        let lines = fs::read_to_string(&rejected).unwrap_or_default();
        assert_eq!(
            report["general"]["failed_requests"], 0,
            "{name}: {lines:.2000}"
        );
        assert_eq!(
            report["general"]["valid_requests"],
            count(),
            "{name}: {lines:.2000}"
        );
    }
}

#[test]
fn fail2ban_matches_every_line() {
    let directory = Directory::new("fail2ban");
    // It is slow.
    let count = count() / 5;
    let log = directory.write("access.log", traffic::log(LogFormat::combined(), count));
    let quoted = r#""(?:[^"\\]|\\.)*""#;
    let filter = format!(
        "[Definition]\nfailregex = ^<ADDR> - \\S+ \\[\\] {quoted} \\d{{3}} (?:\\d+|-) {quoted} {quoted}$\n"
    );
    let filter = directory.write("filter.conf", filter);
    let Some(output) = run("fail2ban-regex", |command| {
        command.arg(&log).arg(&filter);
    }) else {
        return;
    };
    let text = text(&output);
    let expected = format!("Lines: {count} lines, 0 ignored, {count} matched, 0 missed");
    assert!(text.contains(&expected), "{text:.5000}");
}

#[test]
fn awstats_reads_every_line() {
    let directory = Directory::new("awstats");
    let log = traffic::log(LogFormat::combined(), count());
    // It drops requests whose method it does not know, which is not our fault.
    let unknown = String::from_utf8_lossy(&log).matches("] \"PATCH ").count();
    let log = directory.write("access.log", log);
    let configuration = format!(
        "LogFile=\"{}\"\nLogType=W\nLogFormat=1\nSiteDomain=\"www.example.com\"\nHostAliases=\"\"\n\
         DNSLookup=0\nDirData=\"{}\"\nDirCgi=\"/\"\nDirIcons=\"/\"\nSkipHosts=\"\"\nSkipFiles=\"\"\n\
         ValidHTTPCodes=\"200 304\"\n",
        log.display(),
        directory.0.display()
    );
    directory.write("awstats.test.conf", configuration);
    let Some(output) = run("/usr/lib/cgi-bin/awstats.pl", |command| {
        command
            .arg("-config=test")
            .arg(format!("-configdir={}", directory.0.display()))
            .args(["-update", "-showcorrupted"]);
    }) else {
        return;
    };
    let text = text(&output);
    assert!(
        text.contains(&format!("Parsed lines in file: {}", count())),
        "{text:.5000}"
    );
    assert!(text.contains("Found 0 corrupted records"), "{text:.5000}");
    let dropped = format!("Found {unknown} dropped records");
    assert!(text.contains(&dropped), "{text:.5000}");
}

#[test]
fn jq_like_parsers_take_every_json_line() {
    let formats = [
        r#"{"time":"%{%FT%T%z}t","client":"%a","user":"%u","request":"%r","path":"%U%q","status":%>s,"bytes":%b,"referer":%{Referer}i,"agent":"%{User-Agent}i"}"#
            .parse::<LogFormat>()
            .unwrap()
            .with_escape(Escape::Json),
        LogFormat::nginx(
            r#"{"time":"$time_iso8601","client":"$remote_addr","request":"$request","uri":"$uri","status":$status,"agent":"$http_user_agent","referer":$http_referer,"took":$request_time}"#,
            Escape::Json,
        )
        .unwrap(),
    ];
    for format in formats {
        let log = traffic::log(format, count() / 10);
        let lines: Vec<_> = log
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .collect();
        assert_eq!(lines.len(), count() / 10);
        for line in lines {
            let parsed: Result<serde_json::Value, _> = serde_json::from_slice(line);
            assert!(
                parsed.is_ok_and(|value| value.is_object()),
                "{}",
                line.escape_ascii()
            );
        }
    }
}
