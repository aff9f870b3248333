use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

use super::TestServerError;
use super::account::Account;

/// A data directory that is made once and copied for each server.
///
/// Templates are kept in `$TEST_SERVER_TEMPLATES`, or else in
/// `$XDG_CACHE_HOME/sql-trace` or `~/.cache/sql-trace`.
pub(super) struct Template {
    path: PathBuf,
}

impl Template {
    /// The template for a server whose version is `version`. `None` if there
    /// is no place to keep templates.
    fn named(version: &str) -> Option<Self> {
        let name: String = version
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '.' {
                    c
                } else {
                    '-'
                }
            })
            .collect();
        let place = place()?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&place)
            .ok()?;
        Some(Self {
            path: place.join(format!("{FORMAT}-{}", name.trim_matches('-'))),
        })
    }

    fn copy_to(&self, data: &Path, account: Option<Account>) -> io::Result<()> {
        copy_tree(&self.path, data, account)
    }

    /// Keeps a copy of a data directory that was just made.
    fn keep(&self, data: &Path) -> io::Result<()> {
        let mut half = self.path.clone().into_os_string();
        half.push(format!(".{}", process::id()));
        let half = PathBuf::from(half);
        let copied = copy_tree(data, &half, None).and_then(|()| fs::rename(&half, &self.path));
        if copied.is_err() {
            let _ = fs::remove_dir_all(&half);
        }
        copied
    }
}

/// Fills `data` from the template, which `make` makes in `data` first if there
/// is none yet.
pub(super) fn fill(
    version: &str,
    data: &Path,
    account: Option<Account>,
    make: impl FnOnce() -> Result<(), TestServerError>,
) -> Result<(), TestServerError> {
    let Some(template) = Template::named(version) else {
        return make();
    };
    let mut lock = template.path.clone().into_os_string();
    lock.push(".lock");
    // One process makes it while the others wait. Where no lock is to be had,
    // each makes its own.
    let lock = File::create(PathBuf::from(lock)).and_then(|lock| lock.lock().map(|()| lock));
    if template.path.is_dir() {
        drop(lock);
        return template.copy_to(data, account).map_err(|e| {
            TestServerError::because(
                format!(
                    "cannot copy {} to {}",
                    template.path.display(),
                    data.display()
                ),
                e,
            )
        });
    }
    make()?;
    // Without a template the next start takes longer, and that is all.
    let _ = template.keep(data);
    Ok(())
}

/// Changes when what is in a template changes.
const FORMAT: &str = "template1";

fn place() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(place) = set("TEST_SERVER_TEMPLATES") {
        return Some(place.into());
    }
    let cache = match set("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(set("HOME")?).join(".cache"),
    };
    Some(cache.join("sql-trace"))
}

fn copy_tree(from: &Path, to: &Path, account: Option<Account>) -> io::Result<()> {
    let mode = fs::metadata(from)?.permissions().mode() & 0o7777;
    DirBuilder::new().mode(mode).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target, account)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), &target)?;
            if let Some(account) = account {
                account.own(&target)?;
            }
        }
    }
    if let Some(account) = account {
        account.own(to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_that_another_has_made_is_left_and_nothing_beside_it() {
        let base = std::env::temp_dir().join(format!("sql-trace-keep-{}", process::id()));
        let [data, place] = ["data", "place"].map(|name| base.join(name));
        let template = Template {
            path: place.join("template"),
        };
        for directory in [&data, &template.path] {
            fs::create_dir_all(directory).unwrap();
            let name = directory.file_name().unwrap();
            fs::write(directory.join("made-by"), name.as_encoded_bytes()).unwrap();
        }
        let kept = template.keep(&data);
        let left = fs::read_dir(&place).unwrap().count();
        let made_by = fs::read_to_string(template.path.join("made-by")).unwrap();
        fs::remove_dir_all(&base).unwrap();
        assert!(
            kept.is_err(),
            "a directory that is not empty is not replaced"
        );
        assert_eq!((left, made_by.as_str()), (1, "template"));
    }
}
