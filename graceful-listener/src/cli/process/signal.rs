use std::fmt;
use std::str::FromStr;

use nix::libc;

/// A signal that the kernel knows.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub(crate) struct Signal(i32);

impl Signal {
    pub(crate) const ALRM: Self = Self(libc::SIGALRM);
    pub(crate) const CHLD: Self = Self(libc::SIGCHLD);
    pub(crate) const CONT: Self = Self(libc::SIGCONT);
    pub(crate) const HUP: Self = Self(libc::SIGHUP);
    pub(crate) const INT: Self = Self(libc::SIGINT);
    pub(crate) const KILL: Self = Self(libc::SIGKILL);
    pub(crate) const PIPE: Self = Self(libc::SIGPIPE);
    pub(crate) const QUIT: Self = Self(libc::SIGQUIT);
    pub(crate) const STOP: Self = Self(libc::SIGSTOP);
    pub(crate) const TERM: Self = Self(libc::SIGTERM);
    pub(crate) const TTIN: Self = Self(libc::SIGTTIN);
    pub(crate) const TTOU: Self = Self(libc::SIGTTOU);
    pub(crate) const USR1: Self = Self(libc::SIGUSR1);
    pub(crate) const USR2: Self = Self(libc::SIGUSR2);
    pub(crate) const WINCH: Self = Self(libc::SIGWINCH);

    /// Returns the signal of this number.
    pub(crate) fn from_number(number: i32) -> Option<Self> {
        (1..=libc::SIGRTMAX())
            .contains(&number)
            .then_some(Self(number))
    }

    /// Returns the signal's number here.
    pub(crate) const fn number(self) -> i32 {
        self.0
    }
}

/// Takes a name with or without `SIG`, in any case, or a number.
impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        let unknown = || UnknownSignal(text.into());
        if let Ok(number) = text.parse() {
            return Self::from_number(number).ok_or_else(unknown);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(&(number, _)) = NAMES.iter().find(|(_, known)| *known == name) {
            return Ok(Self(number));
        }
        let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(""), _) => Some(libc::SIGRTMIN()),
            (_, Some("")) => Some(libc::SIGRTMAX()),
            (Some(rest), _) => offset(rest, '+').map(|n| libc::SIGRTMIN() + n),
            (_, Some(rest)) => offset(rest, '-').map(|n| libc::SIGRTMAX() - n),
            _ => None,
        };
        real_time
            .filter(|number| (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(number))
            .map(Self)
            .ok_or_else(unknown)
    }
}

fn offset(text: &str, sign: char) -> Option<i32> {
    text.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from)
}

/// Writes the name as `kill -l` does, without `SIG`.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None if self.0 >= libc::SIGRTMIN() => write!(f, "RTMIN+{}", self.0 - libc::SIGRTMIN()),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIG{self}")
    }
}

/// A name or number that is no signal's.
#[derive(Debug)]
pub(crate) struct UnknownSignal(String);

impl fmt::Display for UnknownSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown signal `{}`, expected a name such as TERM or SIGUSR1, or a number",
            self.0
        )
    }
}

impl std::error::Error for UnknownSignal {}

// Where a number has two names, the one to print comes first.
const NAMES: &[(i32, &str)] = &[
    (libc::SIGHUP, "HUP"),
    (libc::SIGINT, "INT"),
    (libc::SIGQUIT, "QUIT"),
    (libc::SIGILL, "ILL"),
    (libc::SIGTRAP, "TRAP"),
    (libc::SIGABRT, "ABRT"),
    (libc::SIGABRT, "IOT"),
    (libc::SIGBUS, "BUS"),
    (libc::SIGFPE, "FPE"),
    (libc::SIGKILL, "KILL"),
    (libc::SIGUSR1, "USR1"),
    (libc::SIGSEGV, "SEGV"),
    (libc::SIGUSR2, "USR2"),
    (libc::SIGPIPE, "PIPE"),
    (libc::SIGALRM, "ALRM"),
    (libc::SIGTERM, "TERM"),
    (libc::SIGSTKFLT, "STKFLT"),
    (libc::SIGCHLD, "CHLD"),
    (libc::SIGCHLD, "CLD"),
    (libc::SIGCONT, "CONT"),
    (libc::SIGSTOP, "STOP"),
    (libc::SIGTSTP, "TSTP"),
    (libc::SIGTTIN, "TTIN"),
    (libc::SIGTTOU, "TTOU"),
    (libc::SIGURG, "URG"),
    (libc::SIGXCPU, "XCPU"),
    (libc::SIGXFSZ, "XFSZ"),
    (libc::SIGVTALRM, "VTALRM"),
    (libc::SIGPROF, "PROF"),
    (libc::SIGWINCH, "WINCH"),
    (libc::SIGIO, "IO"),
    (libc::SIGIO, "POLL"),
    (libc::SIGPWR, "PWR"),
    (libc::SIGSYS, "SYS"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_signal_is_read() {
        for text in ["USR1", "SIGUSR1", "usr1", "SigUsr1", "10"] {
            assert_eq!(text.parse::<Signal>().unwrap(), Signal::USR1, "{text}");
        }
        assert_eq!("CLD".parse::<Signal>().unwrap(), Signal::CHLD);
        assert_eq!(
            "RTMIN+2".parse::<Signal>().unwrap().number(),
            libc::SIGRTMIN() + 2
        );
        assert_eq!(
            "SIGRTMAX".parse::<Signal>().unwrap().number(),
            libc::SIGRTMAX()
        );
    }

    #[test]
    fn what_is_no_signal_is_refused_with_its_text() {
        for text in [
            "", "SIG", "FOO", "0", "-1", "65", "1000", "RTMIN+99", "TERM ",
        ] {
            let error = text.parse::<Signal>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn every_signal_prints_to_a_name_that_reads_back() {
        for number in (1..=libc::SIGRTMAX()).filter(|n| !(32..libc::SIGRTMIN()).contains(n)) {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
        }
    }
}
