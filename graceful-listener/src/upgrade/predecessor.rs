use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::handshake::Handover;
use super::readable_within;
use crate::socket_file::Legacy;

/// The process that has started this one to take its place.
#[derive(Debug)]
pub(crate) struct Predecessor {
    pid: u32,
    /// What there is to do when this process serves.
    release: Mutex<Option<(PipeWriter, Vec<Legacy>)>>,
    /// Nothing is written to it but the proof: afterwards, readable means ended.
    alive: PipeReader,
}

impl Predecessor {
    pub(crate) fn new(
        handover: &Handover,
        ready: OwnedFd,
        alive: OwnedFd,
        files: Vec<Legacy>,
    ) -> Result<Self, String> {
        let mut alive = PipeReader::from(alive);
        let mut proof = [0; 8];
        let proven = readable_within(&alive, Duration::ZERO)
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
            release: Mutex::new(Some((ready.into(), files))),
            alive,
        })
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells it that this process serves. Later calls do nothing.
    pub(crate) fn release(&self) {
        let release = self
            .release
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((mut ready, files)) = release {
            files.into_iter().for_each(Legacy::accept);
            // If it is gone meanwhile there is nobody left to release.
            let _ = ready.write_all(&[READY]);
        }
    }

    /// Whether it ends within the time.
    pub(crate) fn is_gone_within(&self, time: Duration) -> bool {
        readable_within(&self.alive, time)
    }
}

/// What is written to the pipe by a process that is ready. Its end without that
/// means that the process is gone.
pub(crate) const READY: u8 = b'R';

#[cfg(feature = "serve")]
impl Predecessor {
    /// Waits until it has ended.
    pub(crate) async fn ended(&self) -> std::io::Result<()> {
        let alive = std::os::fd::AsFd::as_fd(&self.alive).try_clone_to_owned()?;
        let alive = tokio::net::unix::pipe::Receiver::from_owned_fd(alive)?;
        alive.readable().await
    }
}
