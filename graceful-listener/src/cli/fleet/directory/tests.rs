use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn names(directory: &Directory) -> Vec<String> {
    directory.scan().unwrap().programs.into_keys().collect()
}

#[test]
fn what_a_fleet_needs_is_made_where_it_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("programs")).unwrap();
    fs::write(dir.path().join("programs/web.toml"), "").unwrap();
    for _ in 0..2 {
        let directory = Directory::open(dir.path()).unwrap();
        for made in ["programs", "inbox", "done", "failed", "run", "log"] {
            let metadata = fs::metadata(directory.root().join(made)).unwrap();
            assert!(metadata.is_dir(), "{made}");
            assert_eq!(metadata.permissions().mode() & 0o022, 0, "{made}");
        }
        assert_eq!(names(&directory), ["web"]);
    }
}

#[test]
fn directory_that_others_can_write_is_refused_with_its_name() {
    for writable in ["", "programs", "inbox", "done", "failed", "run", "log"] {
        for mode in [0o775, 0o757, 0o1777] {
            let dir = tempfile::tempdir().unwrap();
            Directory::open(dir.path()).unwrap();
            let path = fs::canonicalize(dir.path().join(writable)).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let failure = Directory::open(dir.path()).unwrap_err().to_string();
            let expected = format!("{}: has mode {mode:04o}", path.display());
            assert!(failure.starts_with(&expected), "{failure}");
            let checked = Directory::at(dir.path()).unwrap().check();
            assert_eq!(checked.unwrap_err().to_string(), failure);
        }
    }
}

#[test]
fn directory_of_another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    for foreign in ["", "inbox"] {
        let dir = tempfile::tempdir().unwrap();
        Directory::open(dir.path()).unwrap();
        let path = dir.path().join(foreign);
        nix::unistd::chown(&path, Some(65534.into()), None).unwrap();
        let failure = Directory::open(dir.path()).unwrap_err().to_string();
        assert!(failure.contains("belongs to user 65534"), "{failure}");
    }
}

#[test]
fn what_is_no_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let failure = Directory::open(&missing).unwrap_err().to_string();
    assert_eq!(
        failure,
        format!("{}: No such file or directory", missing.display())
    );
    assert!(!missing.exists());
    let file = dir.path().join("inbox");
    fs::write(&file, "").unwrap();
    for path in [&file, dir.path()] {
        let failure = Directory::open(path).unwrap_err().to_string();
        assert!(failure.ends_with("inbox: not a directory"), "{failure}");
    }
}

#[test]
fn link_in_the_place_of_a_directory_is_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink(other.path(), dir.path().join("inbox")).unwrap();
    assert!(Directory::open(dir.path()).is_err());
    // The directory itself may be named by one.
    fs::remove_file(dir.path().join("inbox")).unwrap();
    let link = other.path().join("link");
    symlink(dir.path(), &link).unwrap();
    let directory = Directory::open(&link).unwrap();
    assert_eq!(directory.root(), fs::canonicalize(dir.path()).unwrap());
}

#[test]
fn check_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    Directory::at(dir.path()).unwrap().check().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn files_of_editors_and_copies_under_way_are_no_definitions() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    for name in [
        "web.toml",
        "a-b.c_d.toml",
        "0.toml",
        ".web.toml.swp",
        ".web.toml",
        ".#web.toml",
        "#web.toml#",
        "#web.toml",
        "web.toml~",
        "web.toml.tmp",
        "web.toml.bak",
        "4913",
        "README",
        ".toml",
        "web.TOML",
    ] {
        fs::write(directory.programs().join(name), "").unwrap();
    }
    assert_eq!(names(&directory), ["0", "a-b.c_d", "web"]);
    assert_eq!(directory.scan().unwrap().refused.len(), 0);
}

#[test]
fn name_that_cannot_be_a_programs_is_told_and_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let long = format!("{}.toml", "x".repeat(65));
    for name in [
        "my app.toml",
        "-x.toml",
        "a@b.toml",
        "\u{e9}.toml",
        &long,
        "good.toml",
    ] {
        fs::write(directory.programs().join(name), "").unwrap();
    }
    let scan = directory.scan().unwrap();
    assert_eq!(scan.programs.keys().collect::<Vec<_>>(), ["good"]);
    assert_eq!(scan.refused.len(), 5);
    let why = &scan.refused[&directory.programs().join("my app.toml")];
    assert!(
        why.contains("my app.toml: `my app` is no name of a program: letters"),
        "{why}"
    );
    assert!(scan.refused[&directory.programs().join(&long)].contains("longer than 64"));
}
