use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The environment of the workers: the super-daemon's own, the options that are
/// passed on, then `--env-file`s, then `--envdir`, which are read again for each
/// new worker.
#[derive(Debug)]
pub(crate) struct Environment {
    base: Variables,
    files: Vec<PathBuf>,
}

/// Names and values.
pub(crate) type Variables = BTreeMap<OsString, OsString>;

impl Environment {
    /// Takes the environment this process was given, and adds `options`.
    pub(crate) fn new(
        options: impl IntoIterator<Item = (&'static str, OsString)>,
        files: Vec<PathBuf>,
    ) -> Self {
        let mut base: Variables = std::env::vars_os().collect();
        base.extend(
            options
                .into_iter()
                .map(|(name, value)| (name.into(), value)),
        );
        Self { base, files }
    }

    /// Reads the files as they are now.
    ///
    /// # Errors
    ///
    /// Fails on an `--env-file` that cannot be read or understood. An envdir that
    /// is missing is an empty one.
    pub(crate) fn load(&self) -> Result<Variables, String> {
        let mut variables = self.base.clone();
        for file in &self.files {
            let text = fs::read(file).map_err(|error| {
                format!(
                    "failed to read --env-file {}: {}",
                    file.display(),
                    crate::failure::reason(&error)
                )
            })?;
            parse_env_file(&text, &mut variables).map_err(|line| {
                format!(
                    "--env-file {} line {line}: expected NAME=VALUE",
                    file.display()
                )
            })?;
        }
        if let Some(dir) = variables.get(OsStr::new(ENVDIR)) {
            let dir = PathBuf::from(dir);
            read_envdir(&dir, &mut variables);
        }
        for ours in OURS {
            variables.remove(OsStr::new(ours));
        }
        Ok(variables)
    }
}

/// Returns true if the variable is set to what Perl takes for true.
pub(crate) fn is_true(variables: &Variables, name: &str) -> bool {
    variables
        .get(OsStr::new(name))
        .is_some_and(|value| !value.is_empty() && value != "0")
}

/// Returns the seconds the variable tells: the number its text begins with, as
/// Perl reads it, or nothing if it is not set.
pub(crate) fn seconds(variables: &Variables, name: &str) -> Option<Duration> {
    let value = variables
        .get(OsStr::new(name))?
        .to_string_lossy()
        .into_owned();
    let value = value.trim_start();
    let end = value
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(value.len());
    let number = value[..end].parse().unwrap_or(0.0);
    Some(Duration::try_from_secs_f64(number).unwrap_or(Duration::MAX))
}

/// Adds every file of the directory: its name, and its first line. Files that
/// are empty or hidden, and those that cannot be read, say nothing.
fn read_envdir(dir: &Path, variables: &mut Variables) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.as_bytes().starts_with(b".") || name.as_bytes().contains(&b'=') {
            continue;
        }
        let Ok(Some(line)) = first_line(&entry.path()) else {
            continue;
        };
        variables.insert(name, line);
    }
}

fn first_line(path: &Path) -> io::Result<Option<OsString>> {
    // A FIFO that somebody put there would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut line = Vec::new();
    let file = File::open(path)?.take(MAX_VALUE);
    if BufReader::new(file).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    // The environment cannot hold what follows a NUL byte.
    if let Some(end) = line.iter().position(|&byte| byte == 0) {
        line.truncate(end);
    }
    Ok(Some(OsString::from_vec(line)))
}

/// Reads `NAME=VALUE` lines; `#` begins a comment, `export` may stand before the
/// name, and quotes around the value are taken off.
fn parse_env_file(text: &[u8], variables: &mut Variables) -> Result<(), usize> {
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let line = line
            .strip_prefix(b"export ")
            .unwrap_or(line)
            .trim_ascii_start();
        let bad = index + 1;
        let equals = line.iter().position(|&byte| byte == b'=').ok_or(bad)?;
        let (name, value) = (
            line[..equals].trim_ascii_end(),
            line[equals + 1..].trim_ascii_start(),
        );
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        if name.is_empty()
            || !name.iter().all(is_name)
            || name[0].is_ascii_digit()
            || value.contains(&0)
        {
            return Err(bad);
        }
        let value = match value {
            [b'"', inner @ .., b'"'] => unescape(inner),
            [b'\'', inner @ .., b'\''] => inner.to_vec(),
            [b'"' | b'\'', ..] => return Err(bad),
            plain => plain.to_vec(),
        };
        variables.insert(OsString::from_vec(name.to_vec()), OsString::from_vec(value));
    }
    Ok(())
}

/// Takes the backslashes out of a value in double quotes.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, bytes.as_slice().first()) {
            (b'\\', Some(&next @ (b'"' | b'\\' | b'$' | b'`'))) => {
                value.push(next);
                bytes.next();
            }
            (b'\\', Some(b'n')) => {
                value.push(b'\n');
                bytes.next();
            }
            _ => value.push(byte),
        }
    }
    value
}

pub(crate) const ENVDIR: &str = "ENVDIR";
/// The kernel refuses to execute a program with a longer string than this.
const MAX_VALUE: u64 = 128 * 1024 - 1;

/// Between us and whoever started us, or ours to set.
const OURS: [&str; 9] = [
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "SERVER_STARTER_GENERATION",
    "SERVER_STARTER_PORT",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    super::handover::RESUME,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, String)>, usize> {
        let mut variables = Variables::new();
        parse_env_file(text.as_bytes(), &mut variables)?;
        let text = |value: OsString| value.to_string_lossy().into_owned();
        Ok(variables
            .into_iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect())
    }

    #[test]
    fn env_file_values_are_read_with_and_without_quotes() {
        let pairs = parsed(
            "# a comment\n\nA=1\n export B = two words \nC=\"a \\\"b\\\" \\\\ $\"\nD='x\\n'\nE=\nF=a=b#c\r\n",
        );
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "a \"b\" \\ $"),
            ("D", "x\\n"),
            ("E", ""),
            ("F", "a=b#c"),
        ];
        assert_eq!(
            pairs.unwrap(),
            expected.map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
    }

    proptest! {
        #[test]
        fn quoted_value_is_read_back(name in "[A-Z_][A-Z0-9_]{0,8}", value in "[^\0\r\n]{0,20}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let read = parsed(&format!("{name}=\"{escaped}\"\n"));
            prop_assert_eq!(read, Ok(vec![(name, value)]));
        }

        #[test]
        fn no_env_file_panics(text in ".{0,40}") {
            let _ = parsed(&text);
        }
    }

    #[test]
    fn env_file_mistake_is_told_by_its_line() {
        for (text, line) in [
            ("A=1\nB\n", 2),
            ("=1", 1),
            ("\n\n1A=1", 3),
            ("A=\"x", 1),
            ("A B=1", 1),
            ("A=\0", 1),
        ] {
            assert_eq!(parsed(text), Err(line), "{text:?}");
        }
    }

    #[test]
    fn seconds_are_the_number_at_the_beginning() {
        let seconds = |text: &str| {
            let variables = Variables::from([("N".into(), text.into())]);
            seconds(&variables, "N").map(|duration| duration.as_millis())
        };
        assert_eq!(seconds("5"), Some(5000));
        assert_eq!(seconds(" 2.5s"), Some(2500));
        assert_eq!(seconds("abc"), Some(0));
        assert_eq!(seconds("-3"), Some(0));
        assert!(seconds("999999999999999999999999").is_some());
    }
}
