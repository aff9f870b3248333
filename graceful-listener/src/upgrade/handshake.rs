use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::{env, fs};

use nix::sys::signal::kill;
use nix::unistd::{Pid, getppid};

use crate::ports::Ports;

/// What a process tells the one that it starts to take its place.
///
/// One variable, `PPID:NONCE:GENERATION:READY:ALIVE:OWNED:PORTS`: the id of the
/// process that set it, a random number that can also be read from the pipe
/// ALIVE, the generation of the new process, the descriptors of the two pipes,
/// those of the Unix sockets whose files it is to remove, and the sockets in the
/// form of [`Ports`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Handover {
    pub(crate) parent: u32,
    pub(crate) nonce: u64,
    pub(crate) generation: u64,
    pub(crate) ready: RawFd,
    pub(crate) alive: RawFd,
    pub(crate) owned: Vec<RawFd>,
    pub(crate) ports: Ports,
}

impl Handover {
    pub(crate) const VARIABLE: &str = "GRACEFUL_LISTENER";

    pub(crate) fn parse(text: &OsStr) -> Result<Self, String> {
        let mut parts = text.as_bytes().splitn(7, |&byte| byte == b':');
        let mut next = |what: &str| parts.next().ok_or_else(|| format!("it ends before {what}"));
        let parent = number(next("the parent's id")?)?;
        let nonce = number(next("the nonce")?)?;
        let generation = number(next("the generation")?)?;
        let ready = number(next("the descriptor of READY")?)?;
        let alive = number(next("the descriptor of ALIVE")?)?;
        let owned = match next("the owned descriptors")? {
            b"" => Vec::new(),
            list => list
                .split(|&byte| byte == b',')
                .map(number)
                .collect::<Result<_, _>>()?,
        };
        let ports = Ports::parse(OsStr::from_bytes(next("the sockets")?))
            .map_err(|error| error.to_string())?;
        let handover = Self {
            parent,
            nonce,
            generation,
            ready,
            alive,
            owned,
            ports,
        };
        handover.check()?;
        Ok(handover)
    }

    pub(crate) fn to_os_string(&self) -> OsString {
        let Self {
            parent,
            nonce,
            generation,
            ready,
            alive,
            owned,
            ports,
        } = self;
        let owned: Vec<_> = owned.iter().map(RawFd::to_string).collect();
        let owned = owned.join(",");
        let mut text = OsString::from(format!(
            "{parent}:{nonce}:{generation}:{ready}:{alive}:{owned}:"
        ));
        text.push(ports.to_os_string());
        text
    }

    /// Whether the variable was set for this process, and not for one that this
    /// one inherited its environment from.
    ///
    /// The process that set it is this one's parent, or it is gone, in which
    /// case the pipe has to prove that the descriptors are still what they were.
    pub(crate) fn is_for_this_process(&self) -> bool {
        let parent = Pid::from_raw(self.parent.cast_signed());
        getppid() == parent
            || (kill(parent, None) == Err(nix::Error::ESRCH)
                && is_pipe(self.alive)
                && is_pipe(self.ready))
    }

    /// Whether a descriptor is one of the sockets or pipes.
    pub(super) fn names(&self, fd: RawFd) -> bool {
        fd == self.ready || fd == self.alive || self.ports.iter().any(|(_, known)| known == fd)
    }

    /// Whether this process was started to take another one's place.
    pub(crate) fn is_successor() -> bool {
        env::var_os(Self::VARIABLE)
            .and_then(|text| Self::parse(&text).ok())
            .is_some_and(|handover| handover.is_for_this_process())
    }

    /// One owner for each descriptor.
    fn check(&self) -> Result<(), String> {
        let sockets: HashSet<_> = self.ports.iter().map(|(_, fd)| fd).collect();
        if self.ready == self.alive
            || sockets.contains(&self.ready)
            || sockets.contains(&self.alive)
        {
            return Err("a descriptor is named twice".into());
        }
        match self.owned.iter().find(|fd| !sockets.contains(fd)) {
            Some(fd) => Err(format!(
                "descriptor {fd} is owned and not among the sockets"
            )),
            None => Ok(()),
        }
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Result<T, String> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let parsed = str::from_utf8(text)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| format!("`{}` is not a number in range", text.escape_ascii()))
}

fn is_pipe(fd: RawFd) -> bool {
    fs::read_link(format!("/proc/self/fd/{fd}"))
        .is_ok_and(|target| target.as_os_str().as_bytes().starts_with(b"pipe:"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ports::PortName;

    fn handover() -> impl Strategy<Value = Handover> {
        let ports = prop::collection::vec(("/[^;\0]{0,6}", any::<bool>()), 0..4);
        (any::<u32>(), any::<u64>(), any::<u64>(), 3..100_i32, ports).prop_map(
            |(parent, nonce, generation, first, sockets)| {
                let (mut ports, mut owned) = (Ports::new(), Vec::new());
                for ((name, is_owned), fd) in sockets.into_iter().zip(first + 2..) {
                    ports.push(PortName::Path(name.into()), fd).unwrap();
                    owned.extend(is_owned.then_some(fd));
                }
                Handover {
                    parent,
                    nonce,
                    generation,
                    ready: first,
                    alive: first + 1,
                    owned,
                    ports,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn print_then_parse_is_the_identity(handover in handover()) {
            prop_assert_eq!(&Handover::parse(&handover.to_os_string()).unwrap(), &handover);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_what_parses_prints(text in "[0-9]{1,3}(:[0-9,]{0,4}){0,6}(:[0-9=;/]{0,8})?|\\PC{0,20}") {
            if let Ok(handover) = Handover::parse(OsStr::new(&text)) {
                prop_assert_eq!(&Handover::parse(&handover.to_os_string()).unwrap(), &handover);
            }
        }
    }
}
