use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::cli::process::Signal;

fn inbox() -> (TempDir, Inbox) {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let inbox = Inbox::new(&directory);
    (dir, inbox)
}

/// Puts a request there as a script would.
fn put(inbox: &Inbox, name: &str) {
    let draft = inbox.inbox.join(".draft");
    fs::write(&draft, "").unwrap();
    fs::rename(draft, inbox.inbox.join(name)).unwrap();
}

fn names(inbox: &Inbox) -> Vec<String> {
    let pending = inbox.pending().unwrap().requests;
    let text = |request: &Request| request.name().to_string_lossy().into_owned();
    pending.iter().map(text).collect()
}

fn list(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn commands_are_read_from_the_names_of_files() {
    let name = |name: &str| name.to_owned();
    for (text, command) in [
        ("start-web", Command::Start(name("web"))),
        ("stop-web", Command::Stop(name("web"))),
        ("restart-web", Command::Restart(name("web"))),
        (
            "signal-web-USR1",
            Command::Signal(name("web"), Signal::USR1),
        ),
        (
            "signal-web-sigusr1",
            Command::Signal(name("web"), Signal::USR1),
        ),
        ("signal-web-10", Command::Signal(name("web"), Signal::USR1)),
        ("scale-web-8", Command::Scale(name("web"), 8)),
        ("scale-web-0", Command::Scale(name("web"), 0)),
        ("upgrade", Command::Upgrade),
        ("start-a-b-c", Command::Start(name("a-b-c"))),
        ("start-scale-a-3", Command::Start(name("scale-a-3"))),
        ("scale-a-3-4", Command::Scale(name("a-3"), 4)),
        (
            "signal-a-HUP-TERM",
            Command::Signal(name("a-HUP"), Signal::TERM),
        ),
        ("restart-web@", Command::Restart(name("web"))),
        ("restart-web@x-1@2", Command::Restart(name("web"))),
        ("upgrade@5", Command::Upgrade),
    ] {
        assert_eq!(Command::parse(text), Ok(command), "{text}");
    }
}

#[test]
fn name_that_is_no_command_is_refused_with_what_is_wrong() {
    for (text, why) in [
        ("", "unknown command ``"),
        ("start", "`` is no name"),
        ("start-", "`` is no name"),
        ("start-a b", "`a b` is no name"),
        ("start--a", "`-a` is no name"),
        (
            "begin-web",
            "unknown command `begin-web`, expected start-PROGRAM",
        ),
        ("Start-web", "unknown command"),
        ("signal-web", "incomplete, expected signal-PROGRAM-"),
        ("signal-web-FOO", "unknown signal `FOO`"),
        ("signal--TERM", "`` is no name"),
        ("scale-web", "incomplete"),
        ("scale-web-x", "`x` is no number of instances"),
        ("scale-web-", "`` is no number"),
        ("scale-web-+5", "`+5` is no number"),
        ("scale-web-100001", "from 0 to 100000"),
        ("scale-web-99999999999999999999", "from 0 to 100000"),
        ("upgrade-web", "unknown command"),
    ] {
        let error = Command::parse(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn requests_come_in_the_order_in_which_they_arrived() {
    let (_dir, inbox) = inbox();
    for name in ["stop-z", "start-a", "restart-m"] {
        put(&inbox, name);
        // Times of files count in ticks of the clock.
        let arrival = |name: &str| {
            let metadata = fs::metadata(inbox.inbox.join(name)).unwrap();
            (metadata.ctime(), metadata.ctime_nsec())
        };
        let before = arrival(name);
        loop {
            put(&inbox, "upgrade");
            if arrival("upgrade") > before {
                break;
            }
        }
        fs::remove_file(inbox.inbox.join("upgrade")).unwrap();
    }
    assert_eq!(names(&inbox), ["stop-z", "start-a", "restart-m"]);
}

#[test]
fn requests_of_one_client_stay_in_order_within_a_tick() {
    let (_dir, inbox) = inbox();
    let mut expected = Vec::new();
    for number in 0..100 {
        let command = match number % 2 {
            0 => Command::Stop(format!("p{}", 100 - number)),
            _ => Command::Start(format!("p{number}")),
        };
        let name = inbox.submit(&command).unwrap();
        expected.push(name.into_string().unwrap());
    }
    assert_eq!(names(&inbox), expected);
}

#[test]
fn same_command_twice_is_two_requests() {
    let (_dir, inbox) = inbox();
    let command = Command::Restart("web".into());
    let (first, second) = (
        inbox.submit(&command).unwrap(),
        inbox.submit(&command).unwrap(),
    );
    assert_ne!(first, second);
    let pending = inbox.pending().unwrap().requests;
    assert_eq!(pending.len(), 2);
    for request in &pending {
        assert_eq!(request.command, Ok(command.clone()));
    }
    inbox.answer(&first, Err("no")).unwrap();
    inbox.answer(&second, Ok("yes")).unwrap();
    assert_eq!(inbox.answered(&first).unwrap(), Some(Err("no".into())));
    assert_eq!(inbox.answered(&second).unwrap(), Some(Ok("yes".into())));
}

#[test]
fn only_whole_files_are_requests() {
    let (_dir, inbox) = inbox();
    for name in [".start-a", "start-a~", "start-a.tmp"] {
        fs::write(inbox.inbox.join(name), "").unwrap();
    }
    put(&inbox, "start-d");
    put(&inbox, "nonsense");
    let pending = inbox.pending().unwrap().requests;
    let mut found: Vec<_> = pending.iter().map(|request| request.name()).collect();
    found.sort();
    assert_eq!(found, ["nonsense", "start-d"]);
    let nonsense = pending.iter().find(|one| one.name() == "nonsense").unwrap();
    assert!(nonsense.command.is_err());
}

#[test]
fn what_is_no_file_is_refused_and_never_opened_or_followed() {
    let (dir, inbox) = inbox();
    let target = dir.path().join("target");
    fs::write(&target, "kept").unwrap();
    symlink(&target, inbox.inbox.join("start-link")).unwrap();
    symlink("nowhere", inbox.inbox.join("start-lost")).unwrap();
    mkfifo(&inbox.inbox.join("start-fifo"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(inbox.inbox.join("start-socket")).unwrap();
    fs::create_dir(inbox.inbox.join("start-directory")).unwrap();
    fs::create_dir(inbox.inbox.join(".draft")).unwrap();
    let found = inbox.pending().unwrap();
    assert!(
        found.directories.iter().eq(["start-directory"]),
        "{found:?}"
    );
    assert_eq!(found.requests.len(), 4);
    for request in found.requests {
        let why = request.command.unwrap_err();
        inbox.answer(&request.name, Err(&why)).unwrap();
    }
    let answer = |name: &str| inbox.answered(OsStr::new(name)).unwrap();
    for (name, what) in [
        ("start-link", "a symbolic link"),
        ("start-lost", "a symbolic link"),
        ("start-fifo", "a FIFO"),
        ("start-socket", "a socket"),
    ] {
        let why = format!("is {what}, expected a file");
        assert_eq!(answer(name), Some(Err(why)), "{name}");
        let metadata = fs::symlink_metadata(inbox.failed.join(name)).unwrap();
        assert!(metadata.is_file(), "{name}");
    }
    assert_eq!(list(&inbox.inbox), [".draft", "start-directory"]);
    assert_eq!(fs::read_to_string(target).unwrap(), "kept");
}

#[test]
fn what_is_no_file_stays_while_its_answer_cannot_be_written() {
    let (_dir, inbox) = inbox();
    for name in ["start-file", "start-fifo"] {
        // Nothing can be written there.
        fs::create_dir(inbox.failed.join(format!(".{name}"))).unwrap();
    }
    put(&inbox, "start-file");
    mkfifo(&inbox.inbox.join("start-fifo"), Mode::S_IRWXU).unwrap();
    inbox.answer(OsStr::new("start-file"), Err("why")).unwrap();
    inbox
        .answer(OsStr::new("start-fifo"), Err("why"))
        .unwrap_err();
    assert_eq!(list(&inbox.inbox), ["start-fifo"]);
    let answer = inbox.answered(OsStr::new("start-file")).unwrap();
    assert_eq!(answer, Some(Err(String::new())));
}

#[test]
fn answer_moves_the_request_with_the_text_in_it() {
    let (_dir, inbox) = inbox();
    for (name, answer) in [("start-a", Ok("runs")), ("stop-a", Err("why not"))] {
        put(&inbox, name);
        assert_eq!(inbox.answered(OsStr::new(name)).unwrap(), None);
        inbox.answer(OsStr::new(name), answer).unwrap();
        let expected = answer.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(inbox.answered(OsStr::new(name)).unwrap(), Some(expected));
    }
    assert_eq!(list(&inbox.inbox), [""; 0]);
    assert_eq!(list(&inbox.done), ["start-a"]);
    assert_eq!(list(&inbox.failed), ["stop-a"]);
}

#[test]
fn later_answer_under_the_same_name_replaces_the_earlier_one() {
    let (_dir, inbox) = inbox();
    let name = OsStr::new("start-a");
    for answer in [Err("first"), Ok("second"), Err("third"), Err("fourth")] {
        put(&inbox, "start-a");
        inbox.answer(name, answer).unwrap();
        let expected = answer.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(inbox.answered(name).unwrap(), Some(expected));
        assert_eq!(list(&inbox.done).len() + list(&inbox.failed).len(), 1);
    }
}

#[test]
fn answer_that_was_cut_short_can_be_given_again() {
    let (_dir, inbox) = inbox();
    let name = OsStr::new("start-a");
    // The supervisor died before the answer had its name, and after it had it.
    put(&inbox, "start-a");
    fs::write(inbox.done.join(".start-a"), "ru").unwrap();
    assert_eq!(inbox.answered(name).unwrap(), None);
    assert_eq!(names(&inbox), ["start-a"]);
    inbox.answer(name, Ok("runs")).unwrap();
    put(&inbox, "start-a");
    inbox.answer(name, Ok("runs")).unwrap();
    // Nobody is there any more who asked.
    inbox.answer(name, Ok("runs")).unwrap();
    assert_eq!(list(&inbox.inbox), [""; 0]);
    assert_eq!(list(&inbox.done), ["start-a"]);
}

#[test]
fn old_answers_are_pruned_but_for_the_last_thousand() {
    let (_dir, inbox) = inbox();
    let file = |directory: &Path, name: &str, age: u64| {
        let file = fs::File::create(directory.join(name)).unwrap();
        let time = SystemTime::now() - Duration::from_secs(age);
        file.set_modified(time).unwrap();
    };
    for number in 0..1003 {
        file(&inbox.done, &format!("d{number:04}"), 10_000 - number);
        file(&inbox.failed, &format!("f{number:04}"), 1003 - number);
    }
    file(&inbox.inbox, ".left", 4000);
    file(&inbox.inbox, ".fresh", 10);
    file(&inbox.inbox, "start-a", 4000);
    file(&inbox.done, ".left", 4000);
    inbox.prune().unwrap();
    let done = list(&inbox.done);
    assert_eq!((done.len(), &*done[0]), (1000, "d0003"));
    assert_eq!(list(&inbox.failed).len(), 1003);
    assert_eq!(list(&inbox.inbox), [".fresh", "start-a"]);
}

proptest! {
    #[test]
    fn every_command_is_read_as_it_was_written(
        name in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}",
        signal in 1..=64i32,
        count in 0u32..=100_000,
        verb in 0..6,
        tag in "(@[^/\0]{0,10})?",
    ) {
        let command = match verb {
            0 => Command::Start(name),
            1 => Command::Stop(name),
            2 => Command::Restart(name),
            3 => Command::Signal(name, Signal::from_number(signal).unwrap()),
            4 => Command::Scale(name, count),
            _ => Command::Upgrade,
        };
        prop_assert_eq!(Command::parse(&format!("{command}{tag}")), Ok(command));
    }

    #[test]
    fn no_name_of_a_file_panics(text in "(start|stop|restart|signal|scale|upgrade)?-?[^/\0]{0,20}") {
        let _ = Command::parse(&text);
    }
}
