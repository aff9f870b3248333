use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::stat::Mode;
use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Definition, String> {
    Definition::parse(Path::new("p/web.toml"), text)
}

/// Parses a definition that has a command and this.
fn with(text: &str) -> Definition {
    parse(&format!("command = \"a\"\n{text}")).unwrap()
}

/// What is wrong with this, in the second line of a definition.
fn mistake(text: &str) -> String {
    let mistakes = parse(&format!("command = \"a\"\n{text}")).unwrap_err();
    let Some(rest) = mistakes.strip_prefix("p/web.toml:2: ") else {
        panic!("{text}: {mistakes}");
    };
    assert!(!rest.contains('\n'), "{text}: {mistakes}");
    rest.into()
}

#[test]
fn command_alone_is_a_definition_with_the_documented_defaults() {
    let expected = Definition {
        command: "a".into(),
        args: Vec::new(),
        instances: Instances::Count(1),
        directory: None,
        user: None,
        group: None,
        umask: None,
        environment: Vec::new(),
        env_files: Vec::new(),
        log: None,
        restart: Restart::OnFailure,
        start_seconds: Duration::from_secs(1),
        retries: 3,
        backoff: Duration::from_millis(100),
        backoff_max: Duration::from_secs(60),
        exit_codes: vec![0],
        stop_signal: Signal::TERM,
        stop_timeout: Duration::from_secs(10),
        max_lifetime: None,
        priority: 999,
        autostart: true,
        depends_on: Vec::new(),
        ready: Ready::Running,
        limits: vec![Limit {
            resource: Resource::RLIMIT_NOFILE,
            value: LimitValue::Max,
        }],
        listen: Vec::new(),
    };
    assert_eq!(with(""), expected);
}

#[test]
fn every_key_is_read() {
    let text = r#"
command = "bin/web"
arguments = ["--port", "80 81"]
instances = 8
directory = "srv"
user = "www"
group = 33
umask = "027"
env_file = ["a.env", "/etc/b.env"]
log = "web.log"
restart = "always"
start_seconds = "1m 30s"
retries = 7
backoff = 0.25
backoff_max = "5s"
exit_codes = [0, 2, 255]
stop_signal = "SIGINT"
stop_timeout = 0
max_lifetime = "1day"
priority = -5
autostart = false
depends_on = ["db", "cache", "db"]
ready = "notify"
ready_timeout = "2m"
listen = ["127.0.0.1:8080", "[::1]:8080", "/run/web.sock", "u53"]

[environment]
NAME = "a value"
OTHER = ""

[limits]
nofile = 4096
core = "unlimited"
nproc = "10:20"
stack = "max"
as = "keep"
"#;
    let nofile = Limit {
        resource: Resource::RLIMIT_NOFILE,
        value: LimitValue::Pair(4096, 4096),
    };
    let limit = |resource, value| Limit { resource, value };
    let expected = Definition {
        command: "bin/web".into(),
        args: vec!["--port".into(), "80 81".into()],
        instances: Instances::Count(8),
        directory: Some("srv".into()),
        user: Some("www".into()),
        group: Some("33".into()),
        umask: Some(0o027),
        environment: vec![
            ("NAME".into(), "a value".into()),
            ("OTHER".into(), "".into()),
        ],
        env_files: vec!["a.env".into(), "/etc/b.env".into()],
        log: Some(LogTarget::File("web.log".into())),
        restart: Restart::Always,
        start_seconds: Duration::from_secs(90),
        retries: 7,
        backoff: Duration::from_millis(250),
        backoff_max: Duration::from_secs(5),
        exit_codes: vec![0, 2, 255],
        stop_signal: Signal::INT,
        stop_timeout: Duration::ZERO,
        max_lifetime: Some(Duration::from_secs(86400)),
        priority: -5,
        autostart: false,
        depends_on: vec!["db".into(), "cache".into()],
        ready: Ready::Notify {
            timeout: Duration::from_secs(120),
        },
        limits: vec![
            limit(
                Resource::RLIMIT_CORE,
                LimitValue::Pair(Limit::UNLIMITED, Limit::UNLIMITED),
            ),
            limit(Resource::RLIMIT_NPROC, LimitValue::Pair(10, 20)),
            limit(Resource::RLIMIT_STACK, LimitValue::Max),
            nofile,
        ],
        listen: vec![
            "127.0.0.1:8080".into(),
            "[::1]:8080".into(),
            "/run/web.sock".into(),
            "u53".into(),
        ],
    };
    assert_eq!(parse(text).unwrap(), expected);
}

#[test]
fn command_in_an_array_brings_its_arguments() {
    let definition = parse("command = [\"/opt/my app/x\", \"a b\"]\narguments = [\"c\"]").unwrap();
    assert_eq!(definition.command, "/opt/my app/x");
    assert_eq!(definition.args, ["a b", "c"]);
}

#[test]
fn number_of_instances_may_come_from_a_command() {
    let polled = |text| with(&format!("instances = {text}")).instances;
    let expected = |interval, max| Instances::Command {
        command: "nproc | head -1".into(),
        interval: Duration::from_secs(interval),
        max,
    };
    assert_eq!(
        polled("{ command = \"nproc | head -1\" }"),
        expected(10, 1000)
    );
    assert_eq!(
        polled("{ command = \"nproc | head -1\", interval = \"2m\", max = 5 }"),
        expected(120, 5)
    );
    assert_eq!(polled("0"), Instances::Count(0));
}

#[test]
fn values_are_taken_in_each_of_their_forms() {
    assert_eq!(with("umask = 0o022").umask, Some(0o022));
    assert_eq!(with("env_file = 'x'").env_files, [PathBuf::from("x")]);
    assert_eq!(with("retries = 'unlimited'").retries, u32::MAX);
    assert_eq!(with("retries = 0").retries, 0);
    assert_eq!(with("stop_signal = 10").stop_signal, Signal::USR1);
    assert_eq!(with("ready = 'running'").ready, Ready::Running);
    assert_eq!(with("restart = 'never'").restart, Restart::Never);
    assert_eq!(with("restart = 'on-failure'").restart, Restart::OnFailure);
    assert_eq!(with("limits.nofile = 'keep'").limits, []);
    assert_eq!(with("start_seconds = 2").start_seconds.as_secs(), 2);
    assert_eq!(
        with("ready = 'notify'").ready,
        Ready::Notify {
            timeout: Duration::from_secs(60)
        }
    );
    for text in ["log = '| rotatelogs x 1d'", "log = '  |rotatelogs x 1d '"] {
        let command = LogTarget::Command("rotatelogs x 1d".into());
        assert_eq!(with(text).log, Some(command));
    }
}

#[test]
fn shorter_cap_shortens_the_first_pause() {
    let definition = with("backoff_max = '50ms'");
    assert_eq!(definition.backoff, Duration::from_millis(50));
}

#[test]
fn bad_value_is_refused_with_line_key_value_and_what_is_allowed() {
    let table: &[(&str, &[&str])] = &[
        ("arguments = 'x'", &["array of strings, found a string"]),
        ("arguments = ['x', 1]", &["string, found an integer"]),
        ("arguments = ['a\\u0000']", &[]),
        ("arguments = [\"a\\u0000\"]", &["NUL"]),
        ("instances = -1", &["from 0 to 100000"]),
        ("instances = 100001", &["from 0 to 100000"]),
        ("instances = 1.5", &["a number with a fraction"]),
        ("instances = '8'", &["found a string"]),
        ("instances = {}", &["instances.command is missing"]),
        (
            "instances = { command = 'x', every = 1 }",
            &["instances.every: unknown key", "interval"],
        ),
        (
            "instances = { command = 'x', interval = 0 }",
            &["instances.interval = 0: is no time"],
        ),
        ("directory = ''", &["is empty"]),
        ("directory = true", &["string, found a boolean"]),
        ("user = -1", &["is no id"]),
        ("user = ['a']", &["a name or a number, found an array"]),
        ("umask = 22", &["octal"]),
        ("umask = '8'", &["octal"]),
        ("umask = '1777'", &["up to 777"]),
        (
            "environment = ['A=1']",
            &["table of NAME", "found an array"],
        ),
        (
            "environment = { A = 1 }",
            &["environment.A = 1: expected a string"],
        ),
        ("environment = { 'A=B' = '1' }", &["is no name"]),
        ("environment = { '' = '1' }", &["is no name"]),
        ("env_file = [1]", &["string, found an integer"]),
        (
            "env_file = 1",
            &["a path or an array of paths, found an integer"],
        ),
        ("env_file = ''", &["is empty"]),
        ("group = 1.5", &["a name or a number"]),
        ("group = ''", &["is empty"]),
        ("log = '|'", &["no command"]),
        ("log = ' '", &["is empty"]),
        (
            "restart = 'sometimes'",
            &["\"always\"", "\"on-failure\"", "\"never\""],
        ),
        ("restart = true", &["\"always\""]),
        ("start_seconds = 'soon'", &["duration such as"]),
        ("start_seconds = -1", &["duration such as"]),
        ("start_seconds = -0.5", &["duration such as"]),
        ("start_seconds = nan", &["duration such as"]),
        ("start_seconds = inf", &["duration such as"]),
        ("start_seconds = '1000000years'", &["duration such as"]),
        ("retries = 'many'", &["\"unlimited\""]),
        ("backoff = 0", &["shorter than 1ms"]),
        ("backoff_max = '10us'", &["shorter than 1ms"]),
        (
            "backoff = '2m'",
            &["backoff = '2m': longer than backoff_max, 1m"],
        ),
        ("exit_codes = [256]", &["0 to 255"]),
        ("exit_codes = 0", &["in an array, found an integer"]),
        (
            "stop_signal = 'FOO'",
            &["stop_signal = 'FOO'", "unknown signal `FOO`", "TERM"],
        ),
        ("stop_signal = 0", &["no signal's number"]),
        ("stop_signal = 999", &["no signal's number"]),
        ("max_lifetime = 0", &["no time at all"]),
        ("priority = 3000000000", &["whole number"]),
        ("autostart = 'yes'", &["true or false, found a string"]),
        ("depends_on = 'db'", &["array of names"]),
        ("depends_on = ['a b']", &["`a b` is no name"]),
        ("depends_on = ['db', 'web']", &["cannot depend on itself"]),
        ("ready = true", &["\"running\" or \"notify\""]),
        ("ready_timeout = 5", &["ready = \"notify\" only"]),
        ("limits = 5", &["expected a table", "found an integer"]),
        (
            "limits = { nofil = 5 }",
            &["limits.nofil: unknown key, did you mean nofile?"],
        ),
        (
            "limits = { core = -1 }",
            &["limits.core = -1", "\"unlimited\""],
        ),
        ("limits = { core = '5:' }", &["\"SOFT:HARD\""]),
        ("limits = { core = ':' }", &["\"SOFT:HARD\""]),
        ("limits = { core = '' }", &["\"SOFT:HARD\""]),
        ("limits = { core = '+5' }", &["\"SOFT:HARD\""]),
        ("limits = { core = '9:5' }", &["above the hard one"]),
        ("listen = '80'", &["array of addresses"]),
        ("listen = ['localhost']", &["localhost"]),
        ("listen = ['99999']", &["99999"]),
        ("listen = ['80', '80']", &["`80` is listed twice"]),
        (
            "stop_sinal = 'INT'",
            &["stop_sinal: unknown key, did you mean stop_signal?"],
        ),
        (
            "zzz = 1",
            &["zzz: unknown key, expected one of command, arguments,"],
        ),
        ("autostart = 1979-05-27", &["found a date or time"]),
    ];
    for (text, parts) in table {
        if parts.is_empty() {
            // A literal string has no escapes.
            with(text);
            continue;
        }
        let mistake = mistake(text);
        for part in *parts {
            assert!(mistake.contains(part), "{text}: {mistake}");
        }
    }
}

#[test]
fn command_that_is_none_is_refused() {
    for (text, part) in [
        ("", "web.toml:1: command is missing"),
        ("arguments = []", "web.toml:1: command is missing"),
        ("command = ''", "web.toml:1: command = '': is empty"),
        ("command = 5", "found an integer"),
        ("command = []", "no program"),
        ("command = ['']", "no program"),
        ("command = ['a', 5]", "string, found an integer"),
        ("command = '/bin/web --port 80'", "`arguments`"),
    ] {
        let mistakes = parse(text).unwrap_err();
        assert!(mistakes.contains(part), "{text}: {mistakes}");
        assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
    }
}

#[test]
fn all_mistakes_are_told_in_the_order_of_the_lines() {
    let text = "retry = 1\n\ncommand = 'a b'\n[limits]\ncore = 'x'\n[environment]\nA = 5\n";
    let mistakes = parse(text).unwrap_err();
    let begins: Vec<_> = mistakes
        .lines()
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        begins,
        [
            "p/web.toml:1: retry:",
            "p/web.toml:3: command",
            "p/web.toml:5: limits.core",
            "p/web.toml:7: environment.A",
        ]
    );
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_line() {
    for (text, line) in [
        ("command = 'a'\nuser = www\n", 2),
        ("command = 'a'\n\ncommand = 'b'\n", 3),
        ("command = 'a'\n[limits\n", 2),
    ] {
        let mistake = parse(text).unwrap_err();
        assert!(
            mistake.starts_with(&format!("p/web.toml:{line}: ")),
            "{mistake}"
        );
        assert_eq!(mistake.lines().count(), 1, "{mistake}");
    }
}

#[test]
fn long_value_is_shortened_where_it_is_told() {
    let long = "x".repeat(10_000);
    let mistake = mistake(&format!("restart = '{long}'"));
    assert!(mistake.len() < 200, "{mistake}");
    assert!(mistake.contains("xxx...: expected"), "{mistake}");
}

#[test]
fn file_is_read_only_if_nobody_else_can_have_written_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("web.toml");
    fs::write(&file, "command = 'a'").unwrap();
    for (mode, readable) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
        fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        let read = Definition::text(&file);
        assert_eq!(read.is_ok(), readable, "{mode:o}: {read:?}");
        if let Err(why) = read {
            assert!(why.contains(&format!("mode {mode:04o}")), "{why}");
            assert!(why.contains("chmod go-w"), "{why}");
        }
    }
    if nix::unistd::geteuid().is_root() {
        fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        nix::unistd::chown(&file, Some(65534.into()), None).unwrap();
        let why = Definition::text(&file).unwrap_err();
        assert!(why.contains("belongs to user 65534"), "{why}");
    }
}

#[test]
fn what_is_no_readable_text_is_refused_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("directory.toml")).unwrap();
    nix::unistd::mkfifo(&path("fifo.toml"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    fs::write(path("latin.toml"), b"# \xc3\xa9\n# \xe9\n").unwrap();
    fs::write(path("large.toml"), vec![b'\n'; 1 << 20 | 1]).unwrap();
    fs::write(path("fits.toml"), vec![b'\n'; 1 << 20]).unwrap();
    for (name, why) in [
        ("missing.toml", ": No such file or directory"),
        ("directory.toml", ": is no file"),
        ("fifo.toml", ": is no file"),
        ("latin.toml", ":2: is no UTF-8"),
        ("large.toml", ": is larger than 1048576 bytes"),
    ] {
        let expected = format!("{}{why}", path(name).display());
        assert_eq!(Definition::text(&path(name)), Err(expected));
    }
    assert!(Definition::text(&path("fits.toml")).is_ok());
}

proptest! {
    #[test]
    fn no_text_panics_and_every_mistake_has_its_line(text in "\\PC{0,80}") {
        told(&text)?;
    }

    #[test]
    fn no_value_of_any_key_panics(
        key in prop::sample::select(KEYS),
        value in prop_oneof![
            "[-+]?[0-9_]{1,20}", "[0-9]{1,3}\\.[0-9]{1,3}", "'[^'\n]{0,20}'", "\\[('[a-z]{0,3}', ?){0,3}\\]",
            "\\{ ?[a-z]{1,8} = [0-9'a-z]{1,4} ?\\}", "true", "inf", "-?nan", "0[oxb][0-7]{1,4}",
        ],
    ) {
        told(&format!("{key} = {value}"))?;
        told(&format!("command = 'x'\n{key} = {value}"))?;
    }

    #[test]
    fn words_are_read_as_they_were_written(args in prop::collection::vec("[^\0]{0,20}", 0..5)) {
        let quoted: Vec<_> = args.iter().map(|arg| toml_string(arg)).collect();
        let definition = with(&format!("arguments = [{}]", quoted.join(", ")));
        let expected: Vec<_> = args.iter().map(OsStr::new).collect();
        prop_assert_eq!(definition.args, expected);
    }

    #[test]
    fn durations_are_read_as_humantime_writes_them(millis in 0u64..10_000_000_000) {
        let time = Duration::from_millis(millis);
        let text = humantime::format_duration(time).to_string();
        prop_assert_eq!(with(&format!("stop_timeout = '{text}'")).stop_timeout, time);
    }
}

fn told(text: &str) -> Result<(), TestCaseError> {
    if let Err(mistakes) = parse(text) {
        prop_assert!(!mistakes.is_empty());
        for line in mistakes.lines() {
            prop_assert!(line.starts_with("p/web.toml:"), "{line:?} of {mistakes:?}");
        }
    }
    Ok(())
}

fn toml_string(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|char| match char {
            '"' | '\\' => format!("\\{char}"),
            char if char.is_control() => format!("\\u{:04X}", u32::from(char)),
            char => char.into(),
        })
        .collect();
    format!("\"{escaped}\"")
}

const KEYS: &[&str] = &[
    "command",
    "arguments",
    "instances",
    "directory",
    "user",
    "group",
    "umask",
    "environment",
    "env_file",
    "log",
    "restart",
    "start_seconds",
    "retries",
    "backoff",
    "backoff_max",
    "exit_codes",
    "stop_signal",
    "stop_timeout",
    "max_lifetime",
    "priority",
    "autostart",
    "depends_on",
    "ready",
    "ready_timeout",
    "limits",
    "listen",
];
