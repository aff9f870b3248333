//! The files of `examples/deploy`: what they say works.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::client::get;
use crate::program::{Program, left_out, service, sibling};

#[test]
fn systemd_takes_the_units() {
    sibling("start_server", "graceful-listener");
    let dir = TempDir::new().unwrap();
    let units = [
        "shortener.socket",
        "shortener.service",
        "shortener-starter.service",
    ];
    for unit in units {
        // systemd looks whether the programs are there.
        let text = read(&format!("systemd/{unit}")).replace("/usr/local/bin", &programs());
        fs::write(dir.path().join(unit), text).unwrap();
    }
    let Some(version) = output(Command::new("systemd-analyze").arg("--version")) else {
        return left_out("the units, as systemd-analyze is not installed");
    };
    let version: u32 = version
        .split_whitespace()
        .nth(1)
        .and_then(|v| v.parse().ok())
        .unwrap();
    for unit in units {
        let mut verify = Command::new("systemd-analyze");
        verify
            .args(["verify", "--man=no"])
            .arg(dir.path().join(unit));
        let said = verify.output().unwrap();
        let said = String::from_utf8(said.stderr).unwrap();
        let complaints: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("shortener"))
            // It came with systemd 253.
            .filter(|line| version >= 253 || !line.contains("notify-reload"))
            .collect();
        assert!(complaints.is_empty(), "{unit}: {complaints:#?}");
    }
}

#[test]
fn the_commands_of_the_units_serve() {
    sibling("start_server", "graceful-listener");
    for unit in [
        "systemd/shortener.service",
        "systemd/shortener-starter.service",
    ] {
        let dir = TempDir::new().unwrap();
        for needed in ["log", "lib", "run"] {
            fs::create_dir(dir.path().join(needed)).unwrap();
        }
        let place = |name: &str| dir.path().join(name).display().to_string();
        let text = read(unit).replace("\\\n", " ");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="))
            .unwrap();
        let line = line
            .replace("%%", "%")
            .replace("/usr/local/bin", &programs())
            .replace("/var/log/shortener", &place("log"))
            .replace("/var/lib/shortener", &place("lib"))
            .replace("/run/shortener", &place("run"))
            .replace("--port 8080", "--port 127.0.0.1:0");
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        command.args(words).current_dir(&dir);
        if unit.ends_with("shortener.service") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut program = Program::start(command);
        assert_eq!(
            get(program.wait_for_address(), "/healthz").status,
            200,
            "{unit}"
        );
        assert!(dir.path().join("log/access.log").exists(), "{unit}");
        program.signal("TERM");
        assert_eq!(program.wait().code(), Some(0), "{unit}");
    }
}

#[test]
fn the_times_of_the_deploy_files_grow_outwards() {
    let number = |text: &str, before: &str| -> u32 {
        let (_, rest) = text
            .split_once(before)
            .unwrap_or_else(|| panic!("no {before}"));
        let digits = rest
            .trim_start()
            .split(|c: char| !c.is_ascii_digit())
            .next();
        digits.and_then(|digits| digits.parse().ok()).unwrap()
    };
    let unit = read("systemd/shortener-starter.service");
    let drain = number(&unit, "--drain-timeout");
    let stop = number(&unit, "--stop-timeout");
    assert!(drain < stop && stop < number(&unit, "TimeoutStopSec="));

    let unit = read("systemd/shortener.service");
    assert!(number(&unit, "--drain-timeout") < number(&unit, "TimeoutStopSec="));

    let dockerfile = read("container/Dockerfile").replace(['"', ','], "");
    assert!(number(&dockerfile, "--drain-timeout") < number(&dockerfile, "--stop-timeout"));

    let pod = read("kubernetes/shortener.yaml");
    let sum = number(&pod, "sleep: { seconds:") + number(&pod, "--drain-timeout=");
    assert!(sum < number(&pod, "terminationGracePeriodSeconds:"));
}

#[test]
fn the_service_takes_the_options_of_the_container_and_the_pod() {
    let pod = read("kubernetes/shortener.yaml");
    let pod = pod
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- --"));
    let pod: Vec<String> = pod.map(|option| format!("--{option}")).collect();
    assert!(pod.len() > 3, "{pod:?}");
    let dockerfile = read("container/Dockerfile");
    let line = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("CMD "))
        .unwrap();
    let container: Vec<String> = serde_json::from_str(line).unwrap();
    for options in [pod, container] {
        let dir = TempDir::new().unwrap();
        let options = options.iter().map(|option| match option.as_str() {
            "--listen=0.0.0.0:8080" => "--listen=127.0.0.1:0",
            "--database-url=$(DATABASE_URL)" => "--database-url=sqlite:service.db",
            "sqlite:/data/service.db" => "sqlite:service.db",
            other => other,
        });
        let mut command = service();
        command.current_dir(&dir).args(options);
        command.args(["--listen", "127.0.0.1:0"]);
        let mut program = Program::start(command);
        assert_eq!(get(program.wait_for_address(), "/healthz").status, 200);
    }
}

#[test]
fn fail2ban_finds_who_probes() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("access.log");
    fs::write(
        &log,
        "192.0.2.1 - - [21/Nov/2026:03:12:05 +0000] \"GET /wp-login.php?\\\"x HTTP/1.1\" 404 33 \"-\" \"-\"\n\
         192.0.2.2 - - [21/Nov/2026:03:12:05 +0000] \"GET / HTTP/1.1\" 200 33 \"-\" \"404 404\"\n",
    )
    .unwrap();
    let filter = deploy("logs/fail2ban-filter.conf");
    let Some(report) = output(Command::new("fail2ban-regex").arg(&log).arg(filter)) else {
        return left_out("the filter, as fail2ban-regex is not installed");
    };
    assert!(
        report.contains("2 lines, 0 ignored, 1 matched, 1 missed"),
        "{report}"
    );
}

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(deploy(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// The directory of the programs that this test was built with.
fn programs() -> String {
    let service = Path::new(env!("CARGO_BIN_EXE_service"));
    service.parent().expect("a directory").display().to_string()
}

/// What the program prints, or `None` where it is not installed.
fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()
}
