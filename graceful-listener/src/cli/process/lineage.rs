use std::fs;

use nix::libc::pid_t;

/// Returns the process, its parent, its parent's parent and so on, but for the
/// first process of all, each with the number of its process group, which is 0 for
/// one that is gone.
pub(crate) fn lineage(pid: pid_t) -> impl Iterator<Item = (pid_t, pid_t)> {
    let mut next = Some(pid);
    let line = std::iter::from_fn(move || {
        let pid = next.take()?;
        let (parent, group) = parent_and_group(pid).unwrap_or_default();
        next = (parent > 1).then_some(parent);
        Some((pid, group))
    });
    line.take(MAX_DEPTH)
}

fn parent_and_group(pid: pid_t) -> Option<(pid_t, pid_t)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // State, parent and group follow the name, which stands in parentheses.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut numbers = rest.split(' ').skip(1).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Process trees are not deeper, unless the table changes while it is read.
const MAX_DEPTH: usize = 64;
