use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::files::Files;
use crate::address::Address;
use crate::listeners::{Listener, Listeners};
use crate::ports::{PortName, Ports};

/// What is kept for the next process.
pub(super) struct Passed {
    sockets: Vec<Socket>,
    files: Vec<(String, OwnedFd)>,
}

struct Socket {
    fd: OwnedFd,
    name: PortName,
    label: String,
    /// Set where this process has made the file of a Unix socket.
    file_in_use: Option<Arc<AtomicBool>>,
}

impl Passed {
    pub(super) fn new(listeners: &Listeners) -> io::Result<Self> {
        let socket = |listener: &Listener| {
            Ok(Socket {
                fd: listener.socket().as_fd().try_clone_to_owned()?,
                name: name(listener.name(), listener.address()),
                label: listener.label().unwrap_or_default().to_owned(),
                file_in_use: listener.file().map(|file| file.in_use()),
            })
        };
        Ok(Self {
            sockets: listeners.iter().map(socket).collect::<io::Result<_>>()?,
            files: Vec::new(),
        })
    }

    pub(super) fn push(&mut self, name: String, file: OwnedFd) {
        self.files.push((name, file));
    }

    pub(super) fn clear(&mut self) {
        self.sockets.clear();
        self.files.clear();
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let sockets = self.sockets.iter().map(|socket| socket.fd.as_fd());
        sockets.chain(self.files.iter().map(|(_, file)| file.as_fd()))
    }

    pub(super) fn ports(&self) -> Ports {
        let mut ports = Ports::new();
        for Socket { fd, name, .. } in &self.sockets {
            // A name that cannot be written is only good for matching, which then
            // goes by the address.
            if ports.push(name.clone(), fd.as_raw_fd()).is_err() {
                let _ = ports.push(PortName::Path("unnamed".into()), fd.as_raw_fd());
            }
        }
        ports
    }

    pub(super) fn labels(&self) -> String {
        let labels = self.sockets.iter().map(|socket| socket.label.as_str());
        labels.collect::<Vec<_>>().join(":")
    }

    pub(super) fn files(&self) -> Files {
        let files = self.files.iter();
        Files(
            files
                .map(|(name, file)| (name.clone(), file.as_raw_fd()))
                .collect(),
        )
    }

    /// The sockets whose files this process has made.
    pub(super) fn owned(&self) -> Vec<RawFd> {
        let owned = self.sockets.iter();
        owned
            .filter(|socket| socket.file_in_use.is_some())
            .map(|socket| socket.fd.as_raw_fd())
            .collect()
    }

    /// Leaves the files of the sockets to the next process.
    pub(super) fn leave_files(&self) {
        for in_use in self
            .sockets
            .iter()
            .filter_map(|socket| socket.file_in_use.as_ref())
        {
            in_use.store(true, Ordering::SeqCst);
        }
    }
}

/// The name that the user has given the socket, or else one made of its address.
fn name(name: Option<&PortName>, address: &Address) -> PortName {
    match (name, address) {
        (Some(name), _) => name.clone(),
        (None, Address::Inet(address)) => PortName::Host(address.ip().to_string(), address.port()),
        (None, Address::Path(path)) => PortName::Path(path.clone()),
        (None, Address::Abstract(name)) => {
            let path = [b"@", name.as_slice()].concat();
            PortName::Path(OsString::from_vec(path).into())
        }
        (None, Address::Unnamed) => PortName::Path("unnamed".into()),
    }
}
