use std::io;

use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t};

/// A resource limit for a program to be started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Limit {
    pub(crate) resource: Resource,
    pub(crate) value: Value,
}

/// What a limit is set to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Value {
    /// The soft limit and the hard one.
    Pair(rlim_t, rlim_t),
    /// The soft limit is raised to the hard one.
    Max,
}

impl Limit {
    /// The value that stands for no limit.
    pub(crate) const UNLIMITED: rlim_t = RLIM_INFINITY;

    /// Returns the resource of this name: that of the constant, in lower case and
    /// without `RLIMIT_`.
    pub(crate) fn resource(name: &str) -> Option<Resource> {
        RESOURCES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, resource)| *resource)
    }

    /// Returns the names of all resources.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        RESOURCES.iter().map(|(name, _)| *name)
    }

    /// Returns the numbers as the kernel takes them.
    pub(super) fn resolve(&self) -> io::Result<(libc::__rlimit_resource_t, libc::rlimit)> {
        let (soft, hard) = match self.value {
            Value::Pair(soft, hard) => (soft, hard),
            Value::Max => {
                let (_, hard) = getrlimit(self.resource)?;
                (hard, hard)
            }
        };
        let limit = libc::rlimit {
            rlim_cur: soft,
            rlim_max: hard,
        };
        Ok((self.resource as libc::__rlimit_resource_t, limit))
    }
}

const RESOURCES: &[(&str, Resource)] = &[
    ("as", Resource::RLIMIT_AS),
    ("core", Resource::RLIMIT_CORE),
    ("cpu", Resource::RLIMIT_CPU),
    ("data", Resource::RLIMIT_DATA),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("locks", Resource::RLIMIT_LOCKS),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE),
    ("nice", Resource::RLIMIT_NICE),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("nproc", Resource::RLIMIT_NPROC),
    ("rss", Resource::RLIMIT_RSS),
    ("rtprio", Resource::RLIMIT_RTPRIO),
    ("rttime", Resource::RLIMIT_RTTIME),
    ("sigpending", Resource::RLIMIT_SIGPENDING),
    ("stack", Resource::RLIMIT_STACK),
];
