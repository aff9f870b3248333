use std::fmt;

use super::Signal;

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it, and it left a core file or not.
    Signal(i32, bool),
    /// It ended, and the kernel does not tell us how: it was not our child.
    Unknown,
}

impl Exit {
    /// Reads what `wait` reports.
    pub(crate) const fn from_raw(raw: i32) -> Self {
        if raw & 0x7f == 0 {
            Self::Code((raw >> 8) & 0xff)
        } else {
            Self::Signal(raw & 0x7f, raw & 0x80 != 0)
        }
    }

    /// Returns the number that `wait` reports, which Perl's programs call `$?`.
    pub(crate) const fn raw(self) -> i32 {
        match self {
            Self::Code(code) => (code & 0xff) << 8,
            Self::Signal(signal, false) => signal,
            Self::Signal(signal, true) => signal | 0x80,
            Self::Unknown => -1,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(number, core) => {
                write!(f, "killed by signal {number}")?;
                if let Some(signal) = Signal::from_number(*number) {
                    write!(f, " (SIG{signal})")?;
                }
                f.write_str(if *core { ", core dumped" } else { "" })
            }
            Self::Unknown => f.write_str("ended in an unknown way"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_status_is_what_wait_reports() {
        for raw in [0, 0x100, 0xff00, 9, 15, 0x86] {
            assert_eq!(Exit::from_raw(raw).raw(), raw);
        }
        assert_eq!(Exit::from_raw(0x0100), Exit::Code(1));
        assert_eq!(Exit::from_raw(0x86), Exit::Signal(6, true));
    }

    #[test]
    fn signal_is_told_by_number_and_name() {
        assert_eq!(
            Exit::Signal(9, false).to_string(),
            "killed by signal 9 (SIGKILL)"
        );
        assert_eq!(
            Exit::Signal(11, true).to_string(),
            "killed by signal 11 (SIGSEGV), core dumped"
        );
        assert_eq!(Exit::Code(3).to_string(), "exited with code 3");
    }
}
