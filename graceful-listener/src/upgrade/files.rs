use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;

use super::Handover;
use crate::ports::{PortName, Ports};

/// What goes to the next process besides the sockets: names and descriptors.
///
/// The text has the form of [`Ports`], with a `/` before each name and `;`
/// written as `%3B`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Files(pub(crate) Vec<(String, RawFd)>);

impl Files {
    pub(crate) const VARIABLE: &str = "GRACEFUL_LISTENER_FILES";

    pub(crate) fn parse(text: &OsStr, handover: &Handover) -> Result<Self, String> {
        let ports = Ports::parse(text).map_err(|error| error.to_string())?;
        let file = |(name, fd): (&PortName, RawFd)| {
            let text = name.to_os_string();
            let name = text.to_str().and_then(|name| name.strip_prefix('/'));
            let name = name.ok_or_else(|| format!("`{}` has no name", text.display()))?;
            if handover.names(fd) {
                return Err(format!("descriptor {fd} is named twice"));
            }
            Ok((name.replace("%3B", ";").replace("%25", "%"), fd))
        };
        Ok(Self(ports.iter().map(file).collect::<Result<_, _>>()?))
    }

    pub(crate) fn to_os_string(&self) -> OsString {
        let entry = |(name, fd): &(String, RawFd)| {
            let name = name.replace('%', "%25").replace(';', "%3B");
            format!("/{name}={fd}")
        };
        let entries: Vec<_> = self.0.iter().map(entry).collect();
        entries.join(";").into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn handover() -> Handover {
        Handover::parse(OsStr::new("1:2:3:90:91::/run/app.sock=92")).unwrap()
    }

    proptest! {
        #[test]
        fn print_then_parse_is_the_identity(names in prop::collection::vec("[^\0]{0,8}|[%;3B25=]{0,8}", 0..4)) {
            let files = Files(names.into_iter().zip(3..).collect());
            prop_assert_eq!(&Files::parse(&files.to_os_string(), &handover()).unwrap(), &files);
        }

        #[test]
        fn arbitrary_text_never_panics_and_names_no_descriptor_twice(text in "(/?[a%3B=]{0,4}=9[0-9];?){0,4}|\\PC{0,20}") {
            if let Ok(Files(files)) = Files::parse(OsStr::new(&text), &handover()) {
                let mut fds: Vec<_> = files.iter().map(|&(_, fd)| fd).chain([90, 91, 92]).collect();
                let count = fds.len();
                fds.sort_unstable();
                fds.dedup();
                prop_assert_eq!(fds.len(), count);
            }
        }
    }
}
