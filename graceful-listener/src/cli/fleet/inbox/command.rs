use std::fmt;

use crate::cli::fleet::definition::MAX_INSTANCES;
use crate::cli::fleet::name;
use crate::cli::process::Signal;

/// What a supervisor is asked to do, as the name of a file: `VERB-PROGRAM-ARGUMENT`,
/// and behind an `@` whatever the client likes.
///
/// The first dash and the last one part it, so that names may have dashes in them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Command {
    Start(String),
    Stop(String),
    Restart(String),
    Signal(String, Signal),
    Scale(String, u32),
    /// The supervisor is to become the program now installed.
    Upgrade,
}

impl Command {
    /// Reads a file's name.
    ///
    /// # Errors
    ///
    /// Fails with what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.split_once('@').map_or(text, |(command, _)| command);
        if text == "upgrade" {
            return Ok(Self::Upgrade);
        }
        let (verb, rest) = text.split_once('-').unwrap_or((text, ""));
        let program = |name: &str| match name::check(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(why) => Err(format!("`{name}` {why}")),
        };
        let both = || {
            rest.rsplit_once('-')
                .ok_or_else(|| format!("`{text}` is incomplete, expected {verb}-PROGRAM-..."))
        };
        match verb {
            "start" => program(rest).map(Self::Start),
            "stop" => program(rest).map(Self::Stop),
            "restart" => program(rest).map(Self::Restart),
            "signal" => {
                let (name, signal) = both()?;
                let signal = signal
                    .parse::<Signal>()
                    .map_err(|error| error.to_string())?;
                Ok(Self::Signal(program(name)?, signal))
            }
            "scale" => {
                let (name, count) = both()?;
                let number = count
                    .bytes()
                    .all(|byte| byte.is_ascii_digit())
                    .then(|| count.parse().ok())
                    .flatten()
                    .filter(|count| *count <= MAX_INSTANCES)
                    .ok_or_else(|| {
                        format!("`{count}` is no number of instances from 0 to {MAX_INSTANCES}")
                    })?;
                Ok(Self::Scale(program(name)?, number))
            }
            _ => Err(format!(
                "unknown command `{text}`, expected start-PROGRAM, stop-PROGRAM, restart-PROGRAM, \
                 signal-PROGRAM-SIGNAL, scale-PROGRAM-NUMBER or upgrade"
            )),
        }
    }
}

/// Writes what [`Command::parse`] reads.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(name) => write!(f, "start-{name}"),
            Self::Stop(name) => write!(f, "stop-{name}"),
            Self::Restart(name) => write!(f, "restart-{name}"),
            Self::Signal(name, signal) => write!(f, "signal-{name}-{signal}"),
            Self::Scale(name, count) => write!(f, "scale-{name}-{count}"),
            Self::Upgrade => f.write_str("upgrade"),
        }
    }
}
