//! Where a finished line goes.

use std::{
    fmt, io,
    io::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Takes finished lines.
///
/// It is implemented for closures, for [`Mutex`]es around anything that is
/// [`io::Write`], for [`SharedWriter`] around anything that is so behind a shared
/// reference (a file, for instance), and for shared handles to other sinks.
///
/// The layer calls it while it polls a response's body, so it should not block
/// for long. What it returns and whether it panics never reaches the response:
/// failures are counted and reported (see
/// [`AccessLogLayer::on_failure`](crate::AccessLogLayer::on_failure)).
///
/// # Examples
///
/// ```
/// use apache_logformat::{AccessLogLayer, LogFormat, SharedWriter};
/// use std::{fs::File, io, sync::Mutex};
///
/// // A closure.
/// let (lines, _receiver) = std::sync::mpsc::channel();
/// let layer = AccessLogLayer::new(LogFormat::common(), move |line: &[u8]| {
///     lines.send(line.to_vec()).map_err(io::Error::other)
/// });
///
/// // Standard output, a file.
/// let layer = AccessLogLayer::new(LogFormat::common(), SharedWriter::new(io::stdout()));
/// # let path = std::env::temp_dir().join(format!("sink-doc-{}", std::process::id()));
/// let file = File::options().append(true).create(true).open(&path)?;
/// let layer = AccessLogLayer::new(LogFormat::common(), SharedWriter::new(file));
/// # std::fs::remove_file(&path)?;
///
/// // Anything else that is `Write`.
/// let layer = AccessLogLayer::new(LogFormat::common(), Mutex::new(Vec::new()));
/// # Ok::<(), io::Error>(())
/// ```
pub trait LogSink: Send + Sync {
    /// Takes one line, its line feed included.
    ///
    /// # Errors
    ///
    /// When the line could not be taken; it is lost then.
    fn write_line(&self, line: &[u8]) -> io::Result<()>;
}

impl<F> LogSink for F
where
    F: Fn(&[u8]) -> io::Result<()> + Send + Sync,
{
    fn write_line(&self, line: &[u8]) -> io::Result<()> {
        self(line)
    }
}

impl<W: Write + Send> LogSink for Mutex<W> {
    fn write_line(&self, line: &[u8]) -> io::Result<()> {
        let mut writer = self.lock().unwrap_or_else(PoisonError::into_inner);
        writer.write_all(line)
    }
}

impl<S: LogSink + ?Sized> LogSink for Arc<S> {
    fn write_line(&self, line: &[u8]) -> io::Result<()> {
        (**self).write_line(line)
    }
}

/// A sink around a writer that may be written to from many threads at once.
///
/// That is anything whose shared reference is [`io::Write`]: a file opened to
/// append, standard output, a socket, a rotating log. Each line is one write,
/// and no lock is held. When a write fails in the middle of a line, the next one
/// starts on a line of its own.
pub struct SharedWriter<W> {
    writer: W,
    /// The last line was cut off.
    torn: AtomicBool,
}

impl<W> SharedWriter<W>
where
    for<'a> &'a W: Write,
{
    /// Makes a sink of `writer`.
    pub fn new(writer: W) -> Self {
        Self {
            writer,
            torn: AtomicBool::new(false),
        }
    }

    /// Returns the writer.
    pub fn get_ref(&self) -> &W {
        &self.writer
    }

    fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        let whole = bytes.len();
        while !bytes.is_empty() {
            let error = match (&self.writer).write(bytes) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(written) => {
                    bytes = &bytes[written..];
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            if bytes.len() < whole {
                self.torn.store(true, Ordering::Relaxed);
            }
            return Err(error);
        }
        Ok(())
    }
}

impl<W: Send + Sync> LogSink for SharedWriter<W>
where
    for<'a> &'a W: Write,
{
    fn write_line(&self, line: &[u8]) -> io::Result<()> {
        if self.torn.load(Ordering::Relaxed)
            && self.torn.swap(false, Ordering::Relaxed)
            && let Err(error) = self.write_all(b"\n")
        {
            self.torn.store(true, Ordering::Relaxed);
            return Err(error);
        }
        self.write_all(line)
    }
}

impl<W: fmt::Debug> fmt::Debug for SharedWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWriter")
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}
