use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::handshake::Handover;

/// The process that has started this one to take its place.
#[derive(Debug)]
pub(crate) struct Predecessor {
    pid: u32,
    ready: Mutex<Option<PipeWriter>>,
    alive: PipeReader,
    /// The switches of the files that it leaves to this process.
    files_in_use: Vec<Arc<AtomicBool>>,
}

impl Predecessor {
    pub(crate) fn new(
        handover: &Handover,
        ready: OwnedFd,
        alive: OwnedFd,
        files_in_use: Vec<Arc<AtomicBool>>,
    ) -> Result<Self, String> {
        let mut alive = PipeReader::from(alive);
        let mut proof = [0; 8];
        let proven = readable(&alive)
            && alive
                .read(&mut proof)
                .is_ok_and(|length| length == proof.len());
        if !proven || u64::from_ne_bytes(proof) != handover.nonce {
            return Err(format!(
                "descriptor {} does not prove who sent this",
                handover.alive
            ));
        }
        Ok(Self {
            pid: handover.parent,
            ready: Mutex::new(Some(ready.into())),
            alive,
            files_in_use,
        })
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells it that this process serves. Later calls do nothing.
    pub(crate) fn release(&self) {
        let ready = self
            .ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut ready) = ready {
            for in_use in &self.files_in_use {
                in_use.store(false, Ordering::SeqCst);
            }
            // If it is gone meanwhile there is nobody left to release.
            let _ = ready.write_all(&[READY]);
        }
    }

    /// Whether it has ended.
    pub(crate) fn is_gone(&self) -> bool {
        readable(&self.alive)
    }
}

/// Nothing is written to the pipe but the proof: afterwards, readable means ended.
fn readable(pipe: &PipeReader) -> bool {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// What is written to the pipe by a process that is ready. Its end without that
/// means that the process is gone.
pub(crate) const READY: u8 = b'R';

#[cfg(feature = "serve")]
impl Predecessor {
    /// Waits until it has ended.
    pub(crate) async fn ended(&self) -> std::io::Result<()> {
        let alive = self.alive.as_fd().try_clone_to_owned()?;
        let alive = tokio::net::unix::pipe::Receiver::from_owned_fd(alive)?;
        alive.readable().await
    }
}
