use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// The names and values of an environment.
pub(crate) type Variables = BTreeMap<OsString, OsString>;

/// Returns what this process was given and may pass on.
pub(crate) fn inherited() -> Variables {
    let mut variables = std::env::vars_os().collect();
    remove_ours(&mut variables);
    variables
}

/// Removes what a supervisor sets anew for each program, or keeps to itself.
pub(crate) fn remove_ours(variables: &mut Variables) {
    for ours in OURS {
        variables.remove(OsStr::new(ours));
    }
}

/// Adds the variables of a file of `NAME=VALUE` lines.
///
/// # Errors
///
/// Fails with the file and the reason if it cannot be read, or with the line that
/// is none. A pipe would be waited for, and could be read only once.
pub(crate) fn read_file(path: &Path, variables: &mut Variables) -> Result<(), String> {
    let failed = |error: io::Error| {
        format!(
            "{}: {}",
            path.display(),
            crate::cli::failure::reason(&error)
        )
    };
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    if kind.is_fifo() || kind.is_socket() || (kind.is_char_device() && path != Path::new(NOTHING)) {
        return Err(format!("{}: not a regular file", path.display()));
    }
    let text = fs::read(path).map_err(failed)?;
    parse(&text, variables)
        .map_err(|line| format!("{} line {line}: expected NAME=VALUE", path.display()))
}

/// Reads `NAME=VALUE` lines; `#` begins a comment, `export` may stand before the
/// name, and quotes around the value are taken off.
pub(crate) fn parse(text: &[u8], variables: &mut Variables) -> Result<(), usize> {
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

/// The one device that is a file for this purpose: an empty one.
const NOTHING: &str = "/dev/null";
/// Between us and whoever started us, or ours to set.
const OURS: [&str; 10] = [
    crate::cli::fleet::RESUME,
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "SERVER_STARTER_GENERATION",
    "SERVER_STARTER_PORT",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    crate::cli::starter::RESUME,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, String)>, usize> {
        let mut variables = Variables::new();
        parse(text.as_bytes(), &mut variables)?;
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
}
