use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use crate::open_file::FileId;

/// The symbolic link that always leads to the file being written.
#[derive(Debug)]
pub(crate) struct Link {
    path: PathBuf,
}

impl Link {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns which file the link leads to, if to any.
    pub(crate) fn leads_to(&self) -> Option<FileId> {
        fs::metadata(&self.path)
            .ok()
            .map(|there| FileId::of(&there))
    }

    /// Tells why there can be no link at its path.
    pub(crate) fn obstacle(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.path) {
            Ok(there) if !there.is_symlink() => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "it exists and is not a symbolic link",
            )),
            _ => Ok(()),
        }
    }

    /// Points the link at a file. At every instant it leads to the one or the other.
    pub(crate) fn point_at(&self, file: &Path) -> io::Result<()> {
        let text = target_text(&self.path, file);
        let temporary = self.temporary();
        self.obstacle()?;
        for _ in 0..ATTEMPTS {
            match symlink(&text, &temporary) {
                // What a process left that was killed between these calls.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    match fs::remove_file(&temporary) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            let told = format!("{temporary:?}: {error}");
                            return Err(io::Error::new(error.kind(), told));
                        }
                        _ => continue,
                    }
                }
                result => result?,
            }
            match fs::rename(&temporary, &self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => return result,
            }
        }
        Err(io::Error::from(io::ErrorKind::ResourceBusy))
    }

    fn temporary(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default();
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(".tmp");
        self.path.with_file_name(temporary)
    }
}

/// Returns what to write into a link: a relative path where both lie in one tree, so that
/// the tree can be moved or mounted elsewhere.
fn target_text(link: &Path, file: &Path) -> PathBuf {
    let real = |path: &Path| fs::canonicalize(directory_of(path)).ok();
    let (Some(from), Some(to), Some(name)) = (real(link), real(file), file.file_name()) else {
        return file.to_path_buf();
    };
    let common = from
        .components()
        .zip(to.components())
        .take_while(|(one, other)| one == other)
        .count();
    // What has but the root directory in common is not one tree.
    if common <= 1 && from != to {
        return file.to_path_buf();
    }
    let mut text = PathBuf::new();
    for _ in from.components().skip(common) {
        text.push(Component::ParentDir);
    }
    text.extend(to.components().skip(common));
    text.push(name);
    text
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Another process can undo a step only while it takes one of its own.
const ATTEMPTS: usize = 100;
