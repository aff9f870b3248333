use std::ffi::{CString, OsString};

use nix::unistd::{
    Gid, Group, Uid, User, chown, getgid, getgrouplist, getuid, setgid, setgroups, setuid,
};

use crate::cli::failure::Failure;
use crate::cli::sockets::Sockets;

/// The user and the groups that a process becomes.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// `None` leaves them as they are.
    pub(crate) groups: Option<Vec<Gid>>,
    /// What programs expect to find in the environment of the user.
    pub(crate) variables: Vec<(&'static str, OsString)>,
}

impl Account {
    /// Looks up a user and a group, each by name or number. Without a group it is
    /// the user's own.
    ///
    /// # Errors
    ///
    /// Fails if there is no such user or group.
    pub(crate) fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>, Failure> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        let gid = group.map(find_group).transpose()?;
        let Some(name) = user else {
            return Ok(Some(Self {
                uid: getuid(),
                gid: gid.unwrap_or_else(getgid),
                groups: None,
                variables: Vec::new(),
            }));
        };
        let unknown = || Failure::new(format!("user {name}: no such user"));
        let failed = |errno: nix::Error| {
            Failure::io(
                format!("user {name}: failed to look the user up"),
                &errno.into(),
            )
        };
        let known = match User::from_name(name).map_err(failed)? {
            Some(user) => Some(user),
            None => {
                let uid = name.parse().map(Uid::from_raw).map_err(|_| unknown())?;
                User::from_uid(uid).map_err(failed)?
            }
        };
        let Some(known) = known else {
            // A bare number, as in a container without /etc/passwd.
            let uid = name.parse().map(Uid::from_raw).map_err(|_| unknown())?;
            let gid = gid.ok_or_else(|| {
                Failure::new(format!(
                    "user {name}: the user has no name, so a group is needed"
                ))
            })?;
            return Ok(Some(Self {
                uid,
                gid,
                groups: Some(vec![gid]),
                variables: Vec::new(),
            }));
        };
        let gid = gid.unwrap_or(known.gid);
        let name = CString::new(known.name.as_str()).map_err(|_| unknown())?;
        let groups = getgrouplist(&name, gid).map_err(failed)?;
        let variables = vec![
            ("HOME", known.dir.into_os_string()),
            ("LOGNAME", known.name.clone().into()),
            ("USER", known.name.into()),
        ];
        Ok(Some(Self {
            uid: known.uid,
            gid,
            groups: Some(groups),
            variables,
        }))
    }

    /// Gives the socket files to the user, and becomes the user for good.
    ///
    /// # Errors
    ///
    /// Fails if this process may not do so.
    pub(crate) fn assume(&self, sockets: &Sockets) -> Result<(), Failure> {
        let failed = |call: &str| {
            let text = format!(
                "failed to become user {} and group {}: {call}",
                self.uid, self.gid
            );
            move |errno: nix::Error| Failure::io(text, &errno.into())
        };
        for file in sockets.iter().filter_map(|held| held.file.as_ref()) {
            chown(&file.path, Some(self.uid), Some(self.gid)).map_err(failed("chown"))?;
        }
        if let Some(groups) = &self.groups
            && (getuid().is_root() || getuid() != self.uid)
        {
            setgroups(groups).map_err(failed("setgroups"))?;
        }
        setgid(self.gid).map_err(failed("setgid"))?;
        setuid(self.uid).map_err(failed("setuid"))?;
        // Or the user could not ask for the status of what is now the user's own.
        nix::sys::prctl::set_dumpable(true).map_err(failed("prctl"))
    }
}

fn find_group(name: &str) -> Result<Gid, Failure> {
    let failed = |errno: nix::Error| {
        Failure::io(
            format!("group {name}: failed to look the group up"),
            &errno.into(),
        )
    };
    match Group::from_name(name).map_err(failed)? {
        Some(group) => Ok(group.gid),
        None => name
            .parse()
            .map(Gid::from_raw)
            .map_err(|_| Failure::new(format!("group {name}: no such group"))),
    }
}
