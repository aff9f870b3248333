use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::command_line::{code, fleet, stderr, stdout};

/// A directory with these programs.
fn programs(definitions: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("programs")).unwrap();
    for (name, text) in definitions {
        fs::write(dir.path().join("programs").join(name), text).unwrap();
    }
    dir
}

/// What is wrong, a line each, without the directory.
fn mistakes(dir: &Path) -> Vec<String> {
    let output = fleet(dir, &["check"]);
    assert_eq!(code(&output), 3, "{output:?}");
    assert_eq!(stdout(&output), "");
    let root = format!("{}/", fs::canonicalize(dir).unwrap().display());
    let text = stderr(&output).replace(&root, "");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn definitions_without_mistakes_are_counted_and_nothing_is_made() {
    let dir = programs(&[
        ("db.toml", "command = 'sleep'"),
        (
            "web.toml",
            "command = 'sh'\ninstances = 4\ndepends_on = ['db']\nuser = 'root'\nenv_file = 'e'",
        ),
    ]);
    fs::write(dir.path().join("e"), "A=1\n").unwrap();
    let output = fleet(dir.path(), &["check"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(
        stdout(&output),
        "no mistakes in 2 programs with 5 instances\n"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    // The directory may be named in three ways.
    let path = dir.path().to_str().unwrap();
    for arguments in [&["check", path][..], &["check", "-d", path]] {
        let output = fleet(Path::new("/nonexistent"), arguments);
        assert_eq!(code(&output), 0, "{output:?}");
    }
}

#[test]
fn every_mistake_of_every_file_is_told_with_file_line_and_key() {
    let dir = programs(&[
        (
            "a.toml",
            "command = 'sleep'\nretrys = 3\nstop_signal = 'FOO'\n",
        ),
        ("b.toml", "command = \n"),
        ("c.toml", "command = 'sleep'"),
        ("d e.toml", "command = 'sleep'"),
    ]);
    let mistakes = mistakes(dir.path());
    let expected = [
        "programs/a.toml:2: retrys: unknown key, did you mean retries?",
        "programs/a.toml:3: stop_signal = 'FOO': unknown signal `FOO`",
        "programs/b.toml:1: ",
        "programs/d e.toml: `d e` is no name of a program",
    ];
    for expected in expected {
        let mut all = mistakes.iter();
        assert!(all.any(|line| line.starts_with(expected)), "{mistakes:?}");
    }
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:?}");
}

#[test]
fn what_this_machine_does_not_have_is_a_mistake() {
    for (text, expected) in [
        ("command = 'no-such-program'", "command: no-such-program: "),
        ("command = './no-such'", "command: ./no-such: No such file"),
        (
            "command = './programs/x.toml'",
            "command: ./programs/x.toml: cannot be executed",
        ),
        ("command = '/'", "command: /: cannot be executed"),
        (
            "command = 'sh'\nenvironment.PATH = '/nonexistent'",
            "command: sh: ",
        ),
        (
            "command = 'sh'\ndirectory = 'gone'",
            "directory: gone: No such file",
        ),
        (
            "command = 'sh'\nuser = 'no-such-user'",
            "user no-such-user: ",
        ),
        (
            "command = 'sh'\ngroup = 'no-such-group'",
            "group no-such-group: ",
        ),
        (
            "command = 'sh'\nenv_file = 'gone'",
            "env_file: gone: No such file",
        ),
    ] {
        let dir = programs(&[("x.toml", text), ("y.toml", "command = 'sh'")]);
        let mistakes = mistakes(dir.path());
        assert_eq!(mistakes.len(), 1, "{text}: {mistakes:?}");
        let expected = format!("programs/x.toml: {expected}");
        assert!(mistakes[0].starts_with(&expected), "{text}: {mistakes:?}");
    }
}

#[test]
fn command_with_a_slash_is_looked_for_where_the_program_runs() {
    let dir = programs(&[("x.toml", "command = './run'\ndirectory = 'srv'")]);
    fs::create_dir(dir.path().join("srv")).unwrap();
    let script = dir.path().join("srv/run");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let output = fleet(dir.path(), &["check"]);
    assert_eq!(code(&output), 0, "{output:?}");
}

#[test]
fn dependency_that_is_missing_or_goes_round_is_told_by_name() {
    let dir = programs(&[
        ("a.toml", "command = 'sh'\ndepends_on = ['b']"),
        ("b.toml", "command = 'sh'\ndepends_on = ['c']"),
        ("c.toml", "command = 'sh'\ndepends_on = ['a', 'gone']"),
        ("d.toml", "command = 'sh'\ndepends_on = ['a']"),
    ]);
    assert_eq!(
        mistakes(dir.path()),
        [
            "programs/c.toml: depends_on: there is no program gone",
            "depends_on: programs wait for each other in a circle: a -> b -> c",
        ]
    );
}

#[test]
fn dependency_whose_own_file_is_bad_is_not_missing() {
    let dir = programs(&[
        ("a.toml", "command = 'sh'\ndepends_on = ['b']"),
        ("b.toml", "command = 5"),
    ]);
    let mistakes = mistakes(dir.path());
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(mistakes[0].starts_with("programs/b.toml:1: command = 5"));
}

#[test]
fn what_others_could_write_is_a_mistake() {
    let dir = programs(&[("a.toml", "command = 'sh'"), ("b.toml", "command = 'sh'")]);
    let file = dir.path().join("programs/a.toml");
    fs::set_permissions(file, PermissionsExt::from_mode(0o666)).unwrap();
    let directory = dir.path().join("programs");
    fs::set_permissions(directory, PermissionsExt::from_mode(0o777)).unwrap();
    let mistakes = mistakes(dir.path());
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    assert!(
        mistakes[0].starts_with("programs: has mode 0777"),
        "{mistakes:?}"
    );
    assert!(
        mistakes[1].starts_with("programs/a.toml: has mode 0666"),
        "{mistakes:?}"
    );
}

#[test]
fn single_file_is_checked_wherever_it_is() {
    let dir = programs(&[]);
    let (good, bad) = (dir.path().join("good.toml"), dir.path().join("bad.toml"));
    fs::write(&good, "command = 'sh'\ndepends_on = ['elsewhere']").unwrap();
    fs::write(&bad, "command = 'sh'\numask = 8").unwrap();
    let output = fleet(dir.path(), &["check", good.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{output:?}");
    let both = ["check", good.to_str().unwrap(), bad.to_str().unwrap()];
    let output = fleet(dir.path(), &both);
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).contains("bad.toml:2: umask = 8: expected an octal"));
}
