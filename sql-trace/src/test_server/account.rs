use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

/// An unprivileged user, for root to run a server as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// Finds the first of `names` that exists.
    pub(super) fn find(names: &[&str]) -> Option<Self> {
        let users = fs::read_to_string("/etc/passwd").ok()?;
        names.iter().find_map(|name| Self::parse(&users, name))
    }

    fn parse(users: &str, name: &str) -> Option<Self> {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next() != Some(name) {
                return None;
            }
            let mut numbers = fields.skip(1);
            Some(Self {
                uid: numbers.next()?.parse().ok()?,
                gid: numbers.next()?.parse().ok()?,
            })
        })
    }

    /// Gives a file to this user.
    pub(super) fn own(self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
    }

    /// Makes a program run as this user, without root's groups.
    pub(super) fn run(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_is_found_by_its_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\nmysqlx:x:7:8::/:\nmysql:x:102:105:MySQL:/:\n";
        let account = Account::parse(users, "mysql").unwrap();
        assert_eq!((account.uid, account.gid), (102, 105));
        assert!(Account::parse(users, "postgres").is_none());
        assert!(Account::parse("mysql:x:no:1", "mysql").is_none());
    }
}
