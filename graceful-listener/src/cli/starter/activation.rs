use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};

use crate::cli::descriptor;
use crate::cli::failure::Failure;
use crate::cli::sockets::Sockets;

/// The sockets that systemd hands to the process it starts.
///
/// See [`sd_listen_fds(3)`](https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Activation {
    count: RawFd,
    names: Option<OsString>,
}

impl Activation {
    /// Reads `LISTEN_FDS`; `None` if it is not meant for this process.
    pub(crate) fn from_env() -> Option<Self> {
        let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
        if number("LISTEN_PID") != Some(std::process::id()) {
            return None;
        }
        let count = RawFd::try_from(number("LISTEN_FDS")?)
            .ok()
            .filter(|count| (1..=RawFd::MAX - FIRST).contains(count))?;
        Some(Self {
            count,
            names: std::env::var_os("LISTEN_FDNAMES"),
        })
    }

    /// Takes the sockets over. To be called once, before anything is opened.
    pub(crate) fn take(&self) -> Result<Vec<OwnedFd>, Failure> {
        (FIRST..FIRST + self.count)
            .map(|number| {
                descriptor::inherited(number).map_err(|error| {
                    Failure::io(format!("LISTEN_FDS tells of descriptor {number}"), &error)
                })
            })
            .collect()
    }

    /// Returns what a worker has to find in its environment to take the sockets
    /// as if systemd had started it, with `LISTEN_PID` left out: nothing, if they
    /// are not all where they were.
    pub(crate) fn variables(&self, sockets: &Sockets) -> Vec<(OsString, OsString)> {
        let held = |number| sockets.iter().any(|held| held.fd.as_raw_fd() == number);
        if !(FIRST..FIRST + self.count).all(held) {
            return Vec::new();
        }
        let mut variables = vec![("LISTEN_FDS".into(), self.count.to_string().into())];
        variables.extend(
            self.names
                .clone()
                .map(|names| ("LISTEN_FDNAMES".into(), names)),
        );
        variables
    }
}

const FIRST: RawFd = 3;
