use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use nix::unistd::geteuid;

/// Finds out whether nobody but this user and root can write a file or directory:
/// who can, commands the supervisor.
///
/// # Errors
///
/// Fails with what is wrong and how to mend it.
pub(crate) fn check(metadata: &Metadata) -> Result<(), String> {
    let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let us = geteuid().as_raw();
    if uid != us && uid != 0 {
        return Err(format!(
            "belongs to user {uid}, who could command this fleet of user {us}"
        ));
    }
    if mode & 0o022 != 0 {
        return Err(format!(
            "has mode {mode:04o}: whoever can write it could command this fleet; \
             take that away with chmod go-w"
        ));
    }
    Ok(())
}
