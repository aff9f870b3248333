use std::future::pending;
use std::io;
use std::sync::Arc;
use std::thread;

use nix::sys::signal::{self, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{error, info, warn};

use super::manager::report;
use crate::upgrade::{Successor, UpgradeError, Upgrader};

/// Replaces the process when it is asked to.
pub(super) struct Upgrades {
    watched: Option<(Arc<Upgrader>, Signal)>,
    running: Option<JoinHandle<Result<Successor, UpgradeError>>>,
    again: bool,
}

impl Upgrades {
    pub(super) fn new(upgrader: Option<Upgrader>) -> io::Result<Self> {
        let watched = match upgrader {
            Some(upgrader) => {
                let number = SignalKind::from_raw(upgrader.signal_number());
                Some((Arc::new(upgrader), signal(number)?))
            }
            None => None,
        };
        Ok(Self {
            watched,
            running: None,
            again: false,
        })
    }

    pub(super) fn upgrader(&self) -> Option<&Upgrader> {
        self.watched.as_ref().map(|(upgrader, _)| upgrader.as_ref())
    }

    /// Waits until another process has taken over.
    pub(super) async fn replaced(&mut self) {
        let Some((upgrader, asked)) = &mut self.watched else {
            return pending().await;
        };
        loop {
            let result = tokio::select! {
                Some(()) = asked.recv() => {
                    if self.running.is_some() {
                        info!("another upgrade will follow the one that is under way");
                        self.again = true;
                    } else {
                        info!("upgrading");
                        self.running = Some(start(upgrader));
                    }
                    continue;
                }
                result = joined(&mut self.running) => result,
            };
            match result {
                Ok(successor) => {
                    info!("process {} has taken over", successor.id());
                    if let Some(error) = successor.notify_error() {
                        warn!(
                            "the service manager does not know of process {}: {}",
                            successor.id(),
                            report(error)
                        );
                    }
                    if self.again {
                        send(&successor, upgrader.signal_number());
                    }
                    watch(successor);
                    return;
                }
                Err(error) => warn!("not upgraded, serving on: {}", report(&error)),
            }
            if std::mem::take(&mut self.again) {
                self.running = Some(start(upgrader));
            }
        }
    }

    /// Abandons an upgrade that is under way, and closes what was kept for one.
    ///
    /// If it has just succeeded the service would go on although it was told to
    /// stop: it is told again.
    pub(super) async fn cancel(&mut self) {
        let Some((upgrader, _)) = &self.watched else {
            return;
        };
        upgrader.cancel();
        if self.running.is_none() {
            return;
        }
        match joined(&mut self.running).await {
            Ok(successor) => {
                info!(
                    "process {} has taken over, and is told to end",
                    successor.id()
                );
                send(&successor, signal::SIGTERM as i32);
                watch(successor);
            }
            Err(error) => info!("upgrade abandoned: {}", report(&error)),
        }
    }
}

fn start(upgrader: &Arc<Upgrader>) -> JoinHandle<Result<Successor, UpgradeError>> {
    let upgrader = Arc::clone(upgrader);
    spawn_blocking(move || upgrader.upgrade())
}

async fn joined(
    running: &mut Option<JoinHandle<Result<Successor, UpgradeError>>>,
) -> Result<Successor, UpgradeError> {
    let Some(handle) = running else {
        return pending().await;
    };
    let result = handle.await;
    *running = None;
    result.unwrap_or_else(|failed| match failed.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(UpgradeError::Cancelled),
    })
}

fn send(successor: &Successor, number: i32) {
    let pid = Pid::from_raw(successor.id().cast_signed());
    let sent = signal::Signal::try_from(number).and_then(|number| kill(pid, number));
    if let Err(errno) = sent {
        warn!("cannot send signal {number} to process {pid}: {errno}");
    }
}

/// Reports the end of the process that has taken over, should this one see it.
fn watch(mut successor: Successor) {
    // Not a task: a runtime waits for its blocking ones when it ends.
    let watcher = thread::Builder::new()
        .name("successor".into())
        .spawn(move || {
            let id = successor.id();
            match successor.wait() {
                // It was told to, or has been replaced itself.
                Ok(status) if status.success() => {
                    info!("process {id} took over and has ended, {status}");
                }
                Ok(status) => error!("process {id} took over and has ended, {status}"),
                // Somebody else has seen it.
                Err(_) => {}
            }
        });
    if let Err(error) = watcher {
        warn!("cannot watch the process that has taken over: {error}");
    }
}
