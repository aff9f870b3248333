use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::clock::from_seconds;

/// A file that a [`Pattern`](crate::Pattern) wrote, as its path tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogFile {
    base: PathBuf,
    generation: u32,
    form: Form,
    time: Option<i64>,
}

/// How a log file is kept.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Form {
    Plain,
    Gzip,
    Zstd,
}

impl LogFile {
    /// Returns the path that the pattern made, without generation and compression.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Returns the number at the end of the name, 0 when there is none.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Tells whether the name ends in `.gz` or `.zst`.
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        self.form != Form::Plain
    }

    /// Returns the time that the name shows: the beginning of its period.
    ///
    /// `None` when the pattern leaves open which it is, as `log.%H` does.
    #[must_use]
    pub fn time(&self) -> Option<SystemTime> {
        self.time.map(from_seconds)
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    pub(crate) fn start(&self) -> Option<i64> {
        self.time
    }

    /// Takes a path apart; `time_of` tells whether a base path is the pattern's, and its
    /// time if it has one.
    pub(crate) fn parse(
        path: &Path,
        time_of: impl Fn(&Path) -> Option<Option<i64>>,
    ) -> Option<Self> {
        let name = path.as_os_str().as_bytes();
        [Form::Plain, Form::Gzip, Form::Zstd]
            .into_iter()
            .filter_map(|form| Some((name.strip_suffix(form.suffix().as_bytes())?, form)))
            .flat_map(|(name, form)| {
                let readings = [Some((name, 0)), generation(name)];
                readings
                    .into_iter()
                    .flatten()
                    .map(move |(base, number)| (base, number, form))
            })
            .find_map(|(base, generation, form)| {
                let base = Path::new(OsStr::from_bytes(base));
                let time = time_of(base)?;
                Some(Self {
                    base: base.to_path_buf(),
                    generation,
                    form,
                    time,
                })
            })
    }
}

impl Form {
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }

    /// Returns the path of this form of a plain file.
    pub(crate) fn of(self, plain: &Path) -> PathBuf {
        append(plain, self.suffix())
    }
}

/// Returns the path of a generation, which is the base itself for 0.
pub(crate) fn generation_path(base: &Path, generation: u32) -> PathBuf {
    if generation == 0 {
        base.to_path_buf()
    } else {
        append(base, &format!(".{generation}"))
    }
}

fn append(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::with_capacity(path.as_os_str().len() + suffix.len());
    name.push(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Splits `base.N`, where N is written as we write it.
fn generation(name: &[u8]) -> Option<(&[u8], u32)> {
    let dot = name.iter().rposition(|&byte| byte == b'.')?;
    let digits = &name[dot + 1..];
    let canonical =
        matches!(digits, [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit));
    if !canonical {
        return None;
    }
    let number: u32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number <= LAST_GENERATION).then_some((&name[..dot], number))
}

/// Returns what a compressed file is called until it is complete.
#[cfg(any(feature = "gzip", feature = "zstd"))]
pub(crate) fn temporary(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(TEMPORARY);
    target.with_file_name(name)
}

/// Returns the plain file that a temporary one was to hold.
pub(crate) fn original_of_temporary(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.as_bytes();
    let target = name
        .strip_prefix(b".")?
        .strip_suffix(TEMPORARY.as_bytes())?;
    let plain = [Form::Gzip, Form::Zstd]
        .iter()
        .find_map(|form| target.strip_suffix(form.suffix().as_bytes()))?;
    Some(path.with_file_name(OsStr::from_bytes(plain)))
}

const TEMPORARY: &str = ".tmp";

/// The dates and times that other programs end file names with have more digits.
pub(crate) const LAST_GENERATION: u32 = 9_999_999;
