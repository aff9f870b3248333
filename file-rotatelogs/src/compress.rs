use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::log_file::{Form, temporary};
use crate::open_file::take;
use crate::precedence::Precedence;

/// How closed files are compressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Compression {
    /// To `.gz`, at the usual level 6.
    #[cfg(feature = "gzip")]
    Gzip,
    /// To `.zst`, at the usual level 3.
    #[cfg(feature = "zstd")]
    Zstd,
}

impl Compression {
    pub(crate) fn form(self) -> Form {
        match self {
            #[cfg(feature = "gzip")]
            Self::Gzip => Form::Gzip,
            #[cfg(feature = "zstd")]
            Self::Zstd => Form::Zstd,
        }
    }

    /// Compresses a file that nobody writes to and returns what has become of it, or
    /// `None` when somebody does.
    ///
    /// The result gets its name when it is complete and on the disk; only then is the
    /// original removed. Killed in between, both are there, and the next run finds them
    /// the same.
    pub(crate) fn compress(
        self,
        path: &Path,
        precedence: &Precedence,
    ) -> io::Result<Option<PathBuf>> {
        let Some(file) = take(path)? else {
            return Ok(None);
        };
        let target = self.form().of(path);
        if fs::symlink_metadata(&target).is_ok() {
            if !self
                .holds(&target, &file)
                .map_err(|error| naming(&target, &error))?
            {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("{target:?} exists and is something else"),
                ));
            }
        } else {
            let temporary = temporary(&target);
            self.write(&file, &temporary)
                .map_err(|error| naming(&temporary, &error))?;
            precedence.give_way();
            fs::rename(&temporary, &target)?;
            if let Some(directory) = target.parent() {
                File::open(directory)?.sync_all()?;
            }
        }
        precedence.give_way();
        fs::remove_file(path)?;
        Ok(Some(target))
    }

    fn write(self, file: &File, temporary: &Path) -> io::Result<()> {
        let original = file.metadata()?;
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // What a process left that was killed while it compressed.
            _ => {}
        }
        let mut target = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)?;
        let result = self.encode(file, &mut target).and_then(|()| {
            // Whoever may read the log may go on reading it.
            // Only root can give a file away; for others it is theirs already.
            let _ = fchown(&target, Some(original.uid()), Some(original.gid()));
            target.set_permissions(fs::Permissions::from_mode(original.permissions().mode()))?;
            target.set_modified(original.modified()?)?;
            target.sync_all()
        });
        if result.is_err() {
            drop(fs::remove_file(temporary));
        }
        result
    }

    fn encode(self, mut from: &File, to: &mut File) -> io::Result<()> {
        match self {
            #[cfg(feature = "gzip")]
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(to, flate2::Compression::default());
                copy(&mut from, &mut encoder)?;
                encoder.finish().map(drop)
            }
            #[cfg(feature = "zstd")]
            Self::Zstd => {
                let mut encoder = zstd::Encoder::new(to, 0)?;
                encoder.include_checksum(true)?;
                copy(&mut from, &mut encoder)?;
                encoder.finish().map(drop)
            }
        }
    }

    /// Tells whether a compressed file holds just what a plain one does.
    fn holds(self, compressed: &Path, plain: &File) -> io::Result<bool> {
        let compressed = File::open(compressed)?;
        let same = match self {
            #[cfg(feature = "gzip")]
            Self::Gzip => is_same(flate2::read::MultiGzDecoder::new(compressed), plain),
            #[cfg(feature = "zstd")]
            Self::Zstd => is_same(zstd::Decoder::new(compressed)?, plain),
        };
        match same {
            // Not something that can be decompressed at all.
            Err(error) if error.raw_os_error().is_none() => Ok(false),
            result => result,
        }
    }
}

/// Says with which file besides the original something could not be done.
fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path:?}: {error}"))
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_same(mut one: impl Read, mut other: impl Read) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let length = fill(&mut one, &mut left)?;
        if length != fill(&mut other, &mut right)? || left[..length] != right[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

const BUFFER: usize = 64 * 1024;
