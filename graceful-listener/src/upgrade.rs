mod error;
mod files;
mod handshake;
mod passed;
mod predecessor;
mod program;
mod successor;

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, PipeReader, Read, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use self::error::UpgradeError;
pub(crate) use self::files::Files;
pub(crate) use self::handshake::Handover;
use self::passed::Passed;
pub(crate) use self::predecessor::Predecessor;
use self::predecessor::READY;
use self::program::Program;
pub use self::successor::Successor;
use crate::inherit::LABELS;
use crate::listeners::{Listeners, Origin};
use crate::notify::{Notifier, NotifyError, NotifyMessage};
use crate::pid_file::{self, PidFile, PidFileError};
use crate::ports::Ports;

/// Starts the program anew to take this process's place, and hands it the sockets.
///
/// This is the way to deploy without a super-daemon. The new process is started
/// with the same arguments, in the same directory and with the same environment;
/// its program is looked up anew by the name that this one was started with, so
/// that a replaced file or a switched symbolic link takes effect.
///
/// The old process goes on serving until the new one says that it is
/// [ready](Self::ready). One that ends before that, or takes too long and is
/// killed, changes nothing. Afterwards the old process drains and ends.
///
/// Both processes find out if the other one dies: the new one through a pipe, the
/// old one as its parent.
///
/// Nothing but the sockets, two pipes and what is [passed](Self::pass) on goes to the new
/// process; descriptors that a library has left open across `exec` are closed in it.
///
/// # Limits
///
/// The process id changes. systemd is told (`MAINPID=`, with `Type=notify` or
/// `Type=notify-reload`), and a [pid file](Self::pid_file) is replaced. Where it must not
/// change, run under `start_server` instead: as the first process of a container,
/// whose end is the container's, and under a super-daemon that watches its
/// worker. An upgrade is refused there.
///
/// The program has to be this process's child when it reads its environment, so
/// a wrapper script has to `exec` it.
///
/// # Examples
///
/// With [`serve`](crate::serve()) this is all there is to do:
///
/// ```no_run
/// use graceful_listener::{Listeners, Upgrader, serve};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let app = axum::Router::new();
/// let listeners = Listeners::inherit_or_bind(["127.0.0.1:8080"])?;
/// let upgrader = Upgrader::new(&listeners)?.pid_file("/run/app.pid")?;
/// serve(listeners, app).upgrader(upgrader).await?;
/// # Ok(())
/// # }
/// ```
///
/// Elsewhere, call [`ready`](Self::ready) when the sockets are accepted from, and
/// [`upgrade`](Self::upgrade) when it is time; then stop accepting and finish.
pub struct Upgrader {
    program: Program,
    timeout: Duration,
    signal: i32,
    before_spawn: Option<Box<BeforeSpawn>>,
    passed: Mutex<Passed>,
    generation: u64,
    origin: Origin,
    predecessor: Option<Arc<Predecessor>>,
    pid_file_path: Option<PathBuf>,
    pid_file: Mutex<Option<PidFile>>,
    state: Mutex<State>,
    cancelled: AtomicBool,
}

type BeforeSpawn = dyn Fn(&mut Command) -> io::Result<()> + Send + Sync;

impl Upgrader {
    /// Remembers how this process was started, and what it listens on.
    ///
    /// To be called early: a later change of directory is not seen.
    ///
    /// # Errors
    ///
    /// Fails if the directory is gone, or if the process may not open more descriptors.
    pub fn new(listeners: &Listeners) -> Result<Self, UpgradeError> {
        Ok(Self {
            program: Program::of_this_process().map_err(UpgradeError::Program)?,
            passed: Mutex::new(Passed::new(listeners).map_err(UpgradeError::Descriptors)?),
            timeout: Duration::from_secs(60),
            signal: libc::SIGUSR2,
            before_spawn: None,
            generation: listeners.generation(),
            origin: listeners.origin(),
            predecessor: listeners.predecessor().cloned(),
            pid_file_path: None,
            pid_file: Mutex::new(None),
            state: Mutex::new(State::Starting),
            cancelled: AtomicBool::new(false),
        })
    }

    /// Sets how long the new process may take to be ready before it is killed.
    /// The default is 60 s.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the signal that [`serve`](crate::serve()) upgrades on, by its number. The default is SIGUSR2.
    #[must_use]
    pub const fn signal(mut self, signal: i32) -> Self {
        self.signal = signal;
        self
    }

    /// Sets the program to start, with its arguments, instead of this one's.
    #[must_use]
    pub fn command<I>(mut self, program: impl Into<PathBuf>, args: I) -> Self
    where
        I: IntoIterator<Item: Into<OsString>>,
    {
        self.program.name = program.into().into_os_string();
        self.program.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Sets a function that is called before each start with the command that is to be run.
    ///
    /// It may change the environment, for example. An error or a panic keeps the
    /// program from being started.
    #[must_use]
    pub fn before_spawn<F>(mut self, change: F) -> Self
    where
        F: Fn(&mut Command) -> io::Result<()> + Send + Sync + 'static,
    {
        self.before_spawn = Some(Box::new(change));
        self
    }

    /// Passes something else on to the new process: a connection, a pipe, a file
    /// that is locked.
    ///
    /// There it is [taken](Listeners::take_passed) by its name, and passed on again if that is
    /// wanted. This process may go on using its own copy of the descriptor.
    #[must_use]
    pub fn pass(self, name: impl Into<String>, file: impl Into<OwnedFd>) -> Self {
        lock(&self.passed).push(name.into(), file.into());
        self
    }

    /// Keeps this process's id in a [`PidFile`], from now on, or if it replaces
    /// another process, from the moment that it is [ready](Self::ready).
    ///
    /// # Errors
    ///
    /// Fails if the file is another process's, or cannot be written.
    pub fn pid_file(mut self, path: impl Into<PathBuf>) -> Result<Self, PidFileError> {
        let path = pid_file::absolute(&path.into())?;
        if self.predecessor.is_none() {
            self.pid_file = Mutex::new(Some(PidFile::create(&path)?));
        }
        self.pid_file_path = Some(path);
        Ok(self)
    }

    /// Tells everybody that this process serves: the pid file, the process that
    /// it replaces, and the service manager.
    ///
    /// To be called when every socket is accepted from and signals are handled: the
    /// next thing that this process gets may be a SIGTERM.
    ///
    /// # Errors
    ///
    /// Fails if the pid file cannot be replaced; nobody is told then. Fails with
    /// [`UpgradeError::Notify`] if the service manager cannot be told; everybody else is then.
    pub fn ready(&self) -> Result<(), UpgradeError> {
        if self.take_over()? {
            notify(&NotifyMessage::new().ready().status("serving"))
                .map_err(UpgradeError::Notify)?;
        }
        Ok(())
    }

    /// As [`ready`](Self::ready), but returns whether the service manager is yet to be told.
    pub(crate) fn take_over(&self) -> Result<bool, UpgradeError> {
        if let Some(path) = &self.pid_file_path {
            let mut pid_file = lock(&self.pid_file);
            if pid_file.is_none() {
                let held_by = self
                    .predecessor
                    .as_ref()
                    .map_or(0, |predecessor| predecessor.pid());
                *pid_file = Some(PidFile::take_over(path, held_by).map_err(UpgradeError::PidFile)?);
            }
        }
        let mut state = lock(&self.state);
        if let State::Starting = *state {
            *state = State::Ready;
        }
        drop(state);
        let Some(predecessor) = &self.predecessor else {
            return Ok(true);
        };
        // systemd believes only the main process: the predecessor tells it.
        let tells = !predecessor.is_gone_within(Duration::ZERO);
        predecessor.release();
        Ok(!tells)
    }

    /// Starts the new process, and waits until it is ready.
    ///
    /// Blocks for as long as that takes. On success this process is to stop accepting, finish what it has begun,
    /// and end; the descriptors that were kept for the next process are closed.
    ///
    /// # Errors
    ///
    /// Fails where an upgrade [cannot work](Self#limits), before this process is ready itself, while
    /// another upgrade is under way and after one has succeeded. Fails if the
    /// new process cannot be started, ends, does not become ready in time, or if the upgrade is [cancelled](Self::cancel). Nothing
    /// is left of the new process then.
    pub fn upgrade(&self) -> Result<Successor, UpgradeError> {
        self.begin()?;
        // Whoever cannot be told of this will not understand what follows, which
        // is no reason not to do it.
        let _ = notify(
            &NotifyMessage::new()
                .reloading()
                .status("starting the next process"),
        );
        match self.start_successor() {
            Ok(successor) => {
                *lock(&self.state) = State::Replaced(successor.id());
                lock(&self.passed).clear();
                let told = hand_main_process_over(successor.id());
                Ok(successor.told(told))
            }
            Err(error) => {
                self.reclaim_pid_file();
                let mut state = lock(&self.state);
                *state = State::Ready;
                if self.cancelled.load(Ordering::SeqCst) {
                    lock(&self.passed).clear();
                }
                drop(state);
                let _ = notify(
                    &NotifyMessage::new()
                        .ready()
                        .status(&format!("still serving: {error}")),
                );
                Err(error)
            }
        }
    }

    /// Makes an upgrade that is under way fail, and every later one.
    ///
    /// The sockets that are kept for the next process are closed. To be called
    /// when this process begins to end for another reason.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        // While an upgrade is under way they are lent to it.
        if let State::Starting | State::Ready = *lock(&self.state) {
            lock(&self.passed).clear();
        }
    }

    /// Returns true while the process that this one replaces is alive.
    #[must_use]
    pub fn has_predecessor(&self) -> bool {
        self.predecessor
            .as_ref()
            .is_some_and(|predecessor| !predecessor.is_gone_within(Duration::ZERO))
    }

    /// Waits until the process that this one replaces has ended, and returns
    /// whether it has. Without one it returns true at once.
    ///
    /// For what two processes must not do at a time. The predecessor ends no
    /// sooner than its requests, and only after this process is [ready](Self::ready).
    #[must_use]
    pub fn wait_for_predecessor(&self, timeout: Duration) -> bool {
        self.predecessor
            .as_ref()
            .is_none_or(|predecessor| predecessor.is_gone_within(timeout))
    }

    #[cfg(feature = "serve")]
    pub(crate) const fn signal_number(&self) -> i32 {
        self.signal
    }

    fn begin(&self) -> Result<(), UpgradeError> {
        if process::id() == 1 {
            return Err(UpgradeError::FirstProcess);
        }
        if self.origin == Origin::ServerStarter {
            return Err(UpgradeError::UnderSuperDaemon);
        }
        let mut state = lock(&self.state);
        match *state {
            State::Starting => return Err(UpgradeError::NotReady),
            State::Upgrading => return Err(UpgradeError::UnderWay),
            State::Replaced(pid) => return Err(UpgradeError::Replaced { pid }),
            State::Ready if self.cancelled.load(Ordering::SeqCst) => {
                return Err(UpgradeError::Cancelled);
            }
            State::Ready => *state = State::Upgrading,
        }
        Ok(())
    }

    fn start_successor(&self) -> Result<Successor, UpgradeError> {
        let (ready, ready_theirs) = io::pipe().map_err(UpgradeError::Descriptors)?;
        let (alive_theirs, mut alive) = io::pipe().map_err(UpgradeError::Descriptors)?;
        let nonce = RandomState::new().build_hasher().finish();
        alive
            .write_all(&nonce.to_ne_bytes())
            .map_err(UpgradeError::Descriptors)?;

        let mut command = self.program.command()?;
        for variable in NOT_FOR_THE_NEXT {
            command.env_remove(variable);
        }
        if let Some(change) = &self.before_spawn {
            catch_unwind(AssertUnwindSafe(|| change(&mut command)))
                .unwrap_or_else(|_| Err(io::Error::other("before_spawn panicked")))
                .map_err(|source| UpgradeError::spawn(&command, source))?;
        }
        let passed = lock(&self.passed);
        let handover = Handover {
            parent: process::id(),
            nonce,
            generation: self.generation + 1,
            ready: ready_theirs.as_raw_fd(),
            alive: alive_theirs.as_raw_fd(),
            owned: passed.owned(),
            ports: passed.ports(),
        };
        command.env(Handover::VARIABLE, handover.to_os_string());
        command.env(LABELS, passed.labels());
        command.env(Files::VARIABLE, passed.files().to_os_string());
        let pipes = [ready_theirs.as_fd(), alive_theirs.as_fd()];
        let fds: Vec<_> = passed.fds().chain(pipes).collect();
        let spawned = Successor::spawn(&mut command, &fds);
        let mut successor = spawned.map_err(|source| UpgradeError::spawn(&command, source))?;
        drop(passed);
        // Else they would not end with the process.
        drop((ready_theirs, alive_theirs));

        let result = self.await_readiness(&mut successor, &ready);
        if let Err(error) = result {
            successor.kill();
            return Err(error);
        }
        lock(&self.passed).leave_files();
        // Its end tells the successor that this process has ended: only the
        // kernel may close it.
        mem::forget(alive);
        Ok(successor)
    }

    fn await_readiness(
        &self,
        successor: &mut Successor,
        mut ready: &PipeReader,
    ) -> Result<(), UpgradeError> {
        let pid = successor.id();
        let began = Instant::now();
        loop {
            if self.cancelled.load(Ordering::SeqCst) {
                return Err(UpgradeError::Cancelled);
            }
            let rest = self.timeout.saturating_sub(began.elapsed());
            if readable_within(ready, rest.min(TICK)) {
                let mut byte = [0];
                let said = ready.read(&mut byte).is_ok_and(|length| length == 1);
                if said && byte == [READY] {
                    return match successor.ended_within(Duration::ZERO) {
                        // It has said so and died.
                        Some(status) => Err(UpgradeError::Ended { pid, status }),
                        None => Ok(()),
                    };
                }
                // The pipe ends with its process, whose status is there in a moment.
                let status = successor.ended_within(rest.min(Duration::from_secs(1)));
                return Err(status.map_or(UpgradeError::Silent { pid }, |status| {
                    UpgradeError::Ended { pid, status }
                }));
            }
            // A process that it has started may hold the pipe open.
            if let Some(status) = successor.ended_within(Duration::ZERO) {
                return Err(UpgradeError::Ended { pid, status });
            }
            if rest.is_zero() {
                let timeout = self.timeout;
                return Err(UpgradeError::TimedOut { pid, timeout });
            }
        }
    }

    /// Writes the pid file again if the process that was to take it over has
    /// done so and then failed.
    fn reclaim_pid_file(&self) {
        let mut pid_file = lock(&self.pid_file);
        if let (Some(ours), Some(path)) = (&*pid_file, &self.pid_file_path)
            && !ours.is_current()
            && let Ok(again) = PidFile::create(path)
        {
            *pid_file = Some(again);
        }
    }
}

impl fmt::Debug for Upgrader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrader")
            .field("program", &self.program)
            .field("timeout", &self.timeout)
            .field("generation", &self.generation)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Starting,
    Ready,
    Upgrading,
    Replaced(u32),
}

/// Tells the service manager that another process is the service.
fn hand_main_process_over(pid: u32) -> Result<(), NotifyError> {
    let notifier = Notifier::from_env()?;
    notifier.send(&NotifyMessage::new().main_pid(pid).ready().status("serving"))?;
    // It has to be read while this process is still there to be believed.
    notifier.barrier(BARRIER_TIMEOUT).map(|_| ())
}

fn notify(message: &NotifyMessage) -> Result<(), NotifyError> {
    Notifier::from_env()?.send(message).map(|_| ())
}

fn readable_within(pipe: &PipeReader, time: Duration) -> bool {
    let began = Instant::now();
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    loop {
        let rest = time.saturating_sub(began.elapsed());
        match poll(
            &mut fds,
            PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX),
        ) {
            // A signal's handler has run.
            Err(Errno::EINTR) => {}
            ready => return ready.is_ok_and(|ready| ready > 0),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often a starting process is looked after.
const TICK: Duration = Duration::from_millis(50);

const BARRIER_TIMEOUT: Duration = Duration::from_secs(5);

/// Variables that say of descriptors, or of a process, what is no longer true.
const NOT_FOR_THE_NEXT: [&str; 7] = [
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    Ports::VARIABLE,
    "SERVER_STARTER_GENERATION",
    "WATCHDOG_PID",
];
