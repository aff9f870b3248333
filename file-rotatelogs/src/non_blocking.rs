use std::fmt;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::Error;
use crate::line::with_line;
use crate::rotatelogs::RotateLogs;

/// Writes to a [`RotateLogs`] from a thread of its own, so that the caller never waits for
/// the disk.
///
/// A record is copied into a bounded queue; the thread takes what has gathered and appends
/// it by few system calls, each of which ends with a whole record. Clones share the queue:
/// a record whose write returned before another's began comes first, whichever threads
/// wrote them.
///
/// The thread also does what time asks for while nobody writes: it goes on to the next
/// file, has old ones removed and compressed.
///
/// What is still in the queue is lost when the process is killed. When the last clone is
/// dropped, it is written, for as long as [`drain_within`](NonBlockingBuilder::drain_within)
/// allows; a logger that is never dropped, as a global one, needs [`close`](Self::close)
/// at the end of the program.
///
/// Records that the file does not take are counted by [`RotateLogs::lost`] and told as an
/// event. Those after the first of them are tried one by one, for a tenth of a second;
/// then the rest of what the thread has taken is given up.
///
/// A process that forks must make its `NonBlocking` after that: threads are not copied.
///
/// # Examples
///
/// ```
/// use file_rotatelogs::{NonBlocking, RotateLogs};
/// use std::io::Write;
///
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let logs = RotateLogs::builder(directory.join("app.%Y%m%d.log")).build()?;
/// let mut log = NonBlocking::new(logs.clone())?;
/// writeln!(log, "started")?;
///
/// log.flush()?; // waits until all of it is in the file
/// assert_eq!(std::fs::read(logs.current_path())?, b"started\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct NonBlocking {
    inner: Arc<Inner>,
    /// Dropped with the last clone; the thread has none.
    _closing: Arc<Closing>,
}

/// What to do with a record for which the queue has no room.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Overflow {
    /// The caller waits until there is room. Nothing is lost.
    #[default]
    Block,
    /// The record is dropped and counted by [`NonBlocking::dropped`]. The caller never
    /// waits.
    DropNewest,
}

/// Describes a [`NonBlocking`], and builds it.
#[derive(Clone, Debug)]
#[must_use = "no thread is started before `build` is called"]
pub struct NonBlockingBuilder {
    logs: RotateLogs,
    capacity: usize,
    overflow: Overflow,
    drain_within: Duration,
}

impl NonBlocking {
    /// Starts a thread that writes to `logs`, with the defaults of [`NonBlockingBuilder`].
    ///
    /// # Errors
    ///
    /// Returns the system's error when it can start no thread.
    pub fn new(logs: RotateLogs) -> Result<Self, Error> {
        Self::builder(logs).build()
    }

    /// Begins to describe how to write to `logs` from a thread.
    pub fn builder(logs: RotateLogs) -> NonBlockingBuilder {
        NonBlockingBuilder {
            logs,
            capacity: 8 * 1024 * 1024,
            overflow: Overflow::default(),
            drain_within: Duration::from_secs(5),
        }
    }

    /// Returns the log that is written to, to rotate or reopen it.
    #[must_use]
    pub fn logs(&self) -> &RotateLogs {
        &self.inner.logs
    }

    /// Returns how many records were dropped because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.inner.queue.lock().dropped
    }

    /// Waits until all records that were taken before this call have been written, at
    /// most as long as given.
    ///
    /// # Errors
    ///
    /// Returns [`TimedOut`](io::ErrorKind::TimedOut) when it took longer, or the error of
    /// writing when records were lost since the last flush.
    pub fn flush_within(&self, timeout: Duration) -> io::Result<()> {
        self.inner.flush(Instant::now().checked_add(timeout))
    }

    /// Writes what is in the queue and ends the thread, at most as long as given.
    ///
    /// From then on records are written by the caller itself, so that none is lost. What
    /// could not be written in time still is, if the process lives on.
    ///
    /// # Errors
    ///
    /// Returns the same as [`flush_within`](Self::flush_within).
    pub fn close(&self, timeout: Duration) -> io::Result<()> {
        self.inner.close(Instant::now().checked_add(timeout))
    }
}

impl NonBlockingBuilder {
    /// Sets how many bytes the queue takes. Default: 8 MiB.
    ///
    /// The same again may be with the thread. Memory is taken only as it is needed.
    /// A record larger than this is taken when the queue is empty.
    pub fn capacity(mut self, bytes: usize) -> Self {
        self.capacity = bytes;
        self
    }

    /// Decides what to do when the queue is full. Default: [`Overflow::Block`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Sets how long dropping the last clone may take to write what is in the queue.
    /// Default: 5 seconds.
    pub fn drain_within(mut self, timeout: Duration) -> Self {
        self.drain_within = timeout;
        self
    }

    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// Refuses a capacity of 0, and returns the system's error when it can start no
    /// thread.
    pub fn build(self) -> Result<NonBlocking, Error> {
        if self.capacity == 0 {
            return Err(Error::refused(
                "capacity",
                "0 would leave no room for a record",
            ));
        }
        let inner = Arc::new(Inner {
            capacity: self.capacity,
            overflow: self.overflow,
            queue: Mutex::new(Queue::default()),
            work: Condvar::new(),
            room: Condvar::new(),
            written: Condvar::new(),
            logs: self.logs,
        });
        let worker = Arc::clone(&inner);
        thread::Builder::new()
            .name("rotatelogs-write".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| {
                let path = inner.logs.current_path();
                Error::io("thread", "start a thread to write", &path, error)
            })?;
        Ok(NonBlocking {
            _closing: Arc::new(Closing {
                inner: Arc::clone(&inner),
                within: self.drain_within,
            }),
            inner,
        })
    }
}

/// Puts the bytes into the queue as one record.
impl Write for NonBlocking {
    #[inline]
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        (&*self).write(record)
    }

    #[inline]
    fn write_all(&mut self, record: &[u8]) -> io::Result<()> {
        (&*self).write_all(record)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(parts)
    }

    fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> io::Result<()> {
        (&*self).write_fmt(arguments)
    }

    /// Waits until all records that were taken before this call have been written.
    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

/// Puts the bytes into the queue as one record.
impl Write for &NonBlocking {
    #[inline]
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.inner.push(&[IoSlice::new(record)], record.len())
    }

    #[inline]
    fn write_all(&mut self, record: &[u8]) -> io::Result<()> {
        self.write(record).map(drop)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let length = parts.iter().map(|part| part.len()).sum();
        self.inner.push(parts, length)
    }

    fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> io::Result<()> {
        with_line(arguments, |line| self.write(line).map(drop))
    }

    /// Waits until all records that were taken before this call have been written.
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush(None)
    }
}

impl fmt::Debug for NonBlocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NonBlocking")
            .field("logs", &self.inner.logs)
            .field("capacity", &self.inner.capacity)
            .field("overflow", &self.inner.overflow)
            .finish_non_exhaustive()
    }
}

struct Inner {
    logs: RotateLogs,
    capacity: usize,
    overflow: Overflow,
    queue: Mutex<Queue>,
    /// There are records for the thread.
    work: Condvar,
    /// There is room for records.
    room: Condvar,
    /// Records have been written.
    written: Condvar,
}

#[derive(Default)]
struct Queue {
    records: Records,
    thread: Thread,
    /// All that were ever taken, and all that the thread is done with.
    taken: u64,
    done: u64,
    dropped: u64,
    /// How many callers wait for room, and for records to be written.
    waiting: usize,
    flushing: usize,
    closing: bool,
    error: Option<io::Error>,
    /// The thread that writes, once it runs.
    worker: Option<ThreadId>,
}

/// Records one after the other, and where each ends.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

#[derive(Clone, Copy, Default, Eq, PartialEq)]
enum Thread {
    #[default]
    Working,
    /// Lets records gather for a moment; need not be woken for each.
    Napping,
    /// Nothing has come for a while: must be woken.
    Sleeping,
    Ended,
}

impl Inner {
    #[inline]
    fn push(&self, parts: &[IoSlice<'_>], length: usize) -> io::Result<usize> {
        if length == 0 {
            return Ok(0);
        }
        let mut queue = self.queue.lock();
        if queue.records.bytes.len() + length > self.capacity && !queue.records.bytes.is_empty() {
            match self.overflow {
                Overflow::DropNewest => {
                    queue.dropped += 1;
                    return Ok(length);
                }
                Overflow::Block => self.wait_for_room(&mut queue, length),
            }
        }
        if queue.thread == Thread::Ended {
            drop(queue);
            return (&self.logs).write_vectored(parts);
        }
        for part in parts {
            queue.records.bytes.extend_from_slice(part);
        }
        let end = queue.records.bytes.len();
        queue.records.ends.push(end);
        queue.taken += 1;
        let wake = match queue.thread {
            Thread::Sleeping => true,
            Thread::Napping => end >= ENOUGH.min(self.capacity / 2),
            Thread::Working | Thread::Ended => false,
        };
        if wake {
            queue.thread = Thread::Working;
            drop(queue);
            self.work.notify_one();
        }
        Ok(length)
    }

    #[cold]
    fn wait_for_room(&self, queue: &mut parking_lot::MutexGuard<'_, Queue>, length: usize) {
        if queue.is_worker() {
            // A callback logs something: nobody else would make room for it.
            return;
        }
        queue.waiting += 1;
        while queue.thread != Thread::Ended
            && queue.records.bytes.len() + length > self.capacity
            && !queue.records.bytes.is_empty()
        {
            self.wake(queue);
            self.room.wait(queue);
        }
        queue.waiting -= 1;
    }

    fn wake(&self, queue: &mut Queue) {
        if matches!(queue.thread, Thread::Napping | Thread::Sleeping) {
            queue.thread = Thread::Working;
            self.work.notify_one();
        }
    }

    fn flush(&self, deadline: Option<Instant>) -> io::Result<()> {
        let mut queue = self.queue.lock();
        if queue.is_worker() {
            return Err(io::Error::new(
                io::ErrorKind::Deadlock,
                "the thread that writes cannot wait for itself",
            ));
        }
        let target = queue.taken;
        queue.flushing += 1;
        while queue.done < target && queue.thread != Thread::Ended {
            self.wake(&mut queue);
            match deadline {
                None => self.written.wait(&mut queue),
                Some(deadline) => {
                    if self.written.wait_until(&mut queue, deadline).timed_out()
                        && queue.done < target
                    {
                        queue.flushing -= 1;
                        return Err(io::Error::from(io::ErrorKind::TimedOut));
                    }
                }
            }
        }
        queue.flushing -= 1;
        queue.error.take().map_or(Ok(()), Err)
    }

    fn close(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.queue.lock().closing = true;
        let flushed = self.flush(deadline);
        let mut queue = self.queue.lock();
        while queue.thread != Thread::Ended && !queue.is_worker() {
            self.wake(&mut queue);
            match deadline {
                None => self.written.wait(&mut queue),
                Some(deadline) => {
                    if self.written.wait_until(&mut queue, deadline).timed_out() {
                        break;
                    }
                }
            }
        }
        flushed
    }

    /// The thread's work.
    fn run(&self) {
        let mut records = Records::default();
        self.queue.lock().worker = Some(thread::current().id());
        while self.next(&mut records) {
            let result = self.logs.append_records(&records.bytes, &records.ends);
            let mut queue = self.queue.lock();
            queue.done += records.ends.len() as u64;
            if let Err(error) = result {
                queue.error = Some(error);
            }
            if queue.flushing > 0 {
                self.written.notify_all();
            }
            drop(queue);
            records.clear();
        }
    }

    /// Waits for records and takes them all. `false` when there will be none any more.
    fn next(&self, records: &mut Records) -> bool {
        let mut idle_since: Option<Instant> = None;
        let mut queue = self.queue.lock();
        loop {
            let hurried = queue.closing || queue.flushing > 0 || queue.waiting > 0;
            let gathered = queue.records.bytes.len();
            if gathered > 0 && (hurried || idle_since.is_some() || gathered >= ENOUGH) {
                std::mem::swap(&mut queue.records, records);
                queue.thread = Thread::Working;
                if queue.waiting > 0 {
                    self.room.notify_all();
                }
                return true;
            }
            if queue.closing {
                queue.thread = Thread::Ended;
                self.room.notify_all();
                self.written.notify_all();
                return false;
            }
            let since = *idle_since.get_or_insert_with(Instant::now);
            if since.elapsed() < STAY_AWAKE {
                queue.thread = Thread::Napping;
                self.work.wait_for(&mut queue, NAP);
            } else {
                queue.thread = Thread::Sleeping;
                if self.work.wait_for(&mut queue, TICK).timed_out() && queue.records.ends.is_empty()
                {
                    queue.thread = Thread::Working;
                    parking_lot::MutexGuard::unlocked(&mut queue, || self.logs.tick());
                }
            }
        }
    }
}

impl Queue {
    /// Tells whether the caller is the thread that writes, in a callback of the log.
    fn is_worker(&self) -> bool {
        self.worker == Some(thread::current().id())
    }
}

impl Records {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Ends the thread with the last clone.
struct Closing {
    inner: Arc<Inner>,
    within: Duration,
}

impl Drop for Closing {
    fn drop(&mut self) {
        // Lost records have been told as an event.
        drop(self.inner.close(Instant::now().checked_add(self.within)));
    }
}

/// So much is worth a system call at once.
const ENOUGH: usize = 64 * 1024;

/// How long records may gather.
const NAP: Duration = Duration::from_millis(2);

/// How long after the last record the thread goes on napping instead of sleeping.
const STAY_AWAKE: Duration = Duration::from_millis(50);

/// How often an idle thread looks after the file.
const TICK: Duration = Duration::from_millis(500);
