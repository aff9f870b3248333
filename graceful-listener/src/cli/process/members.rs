use std::fs;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::pid_t;
use nix::sys::signal::kill;
use nix::unistd::{Pid, getpgid};

use super::{Process, Signal};
use crate::cli::moment::Moment;

/// Those that a process that is reaped has left in the group it led, each held by its
/// pidfd.
///
/// It is needed on kernels before 6.9, where the pidfd of the process does not reach its
/// group, and where nobody had one when the process was reaped. The group's number is
/// nobody else's while one of those held is in it and not reaped; when none is, whoever has
/// the number is left alone.
#[derive(Debug)]
pub(crate) struct Members {
    group: Pid,
    held: Vec<Process>,
}

impl Members {
    /// Finds those that the leader of a group has left in it.
    ///
    /// Call it at once when the process is reaped, before others can have its number.
    pub(crate) fn of(leader: &Process) -> Self {
        Self::found_by(find, leader)
    }

    fn found_by(find: impl FnOnce(Pid) -> Vec<Process>, leader: &Process) -> Self {
        let group = Pid::from_raw(leader.pid());
        let mut members = Self {
            group,
            held: Vec::new(),
        };
        if is_empty(group) {
            return members;
        }
        members.held = find(group);
        // The process that has the number by now is a stranger, and its group is its own.
        if leader.is_reaped() && getpgid(Some(group)) != Err(Errno::ESRCH) {
            members.held.clear();
        }
        members
    }

    /// Finds those in the group of a process of which only the number is known, if `is_ours`
    /// is true of any there.
    pub(crate) fn recognised(group: pid_t, is_ours: impl Fn(pid_t) -> bool) -> Self {
        let group = Pid::from_raw(group);
        let mut held = Vec::new();
        if !is_empty(group) {
            held = find(group);
        }
        held.retain(|held| is_ours(held.pid()) && is_in(held, group));
        // A process that has the number leads a group of its own.
        if getpgid(Some(group)) != Err(Errno::ESRCH) {
            held.clear();
        }
        Self { group, held }
    }

    /// Goes on holding them after `exec`.
    pub(crate) fn resume(group: pid_t, pids: &[pid_t]) -> Self {
        let group = Pid::from_raw(group);
        let held = pids.iter().filter_map(|&pid| hold(pid, group)).collect();
        Self { group, held }
    }

    pub(crate) fn pids(&self) -> Vec<pid_t> {
        self.held.iter().map(Process::pid).collect()
    }

    pub(crate) fn are_gone(&self) -> bool {
        !self.held.iter().any(|held| is_in(held, self.group))
    }

    /// Signals all of them. It fails only for those that have ended already.
    pub(crate) fn signal(&mut self, signal: Signal) {
        self.look();
        send(&self.held, signal);
    }

    /// Kills all of them.
    pub(crate) fn kill(&mut self) {
        let late = Moment::now() + HALT;
        // What stands still starts nothing any more, and keeps the group's number until
        // all are found.
        loop {
            let told = |member: &&Process| member.signal(Signal::STOP).is_ok();
            let moving = self.held.iter().filter(told).filter(|member| moves(member));
            let still = moving.count() == 0;
            let found = self.look();
            if (still && !found) || late < Moment::now() {
                break;
            }
            sleep(PAUSE);
        }
        send(&self.held, Signal::KILL);
    }

    /// Lets go of those that are not in the group any more, and takes hold of those
    /// that are new. Returns true if there are any.
    fn look(&mut self) -> bool {
        self.held.retain(|held| is_in(held, self.group));
        if self.held.is_empty() {
            return false;
        }
        let mut found = find(self.group);
        found.retain(|found| self.held.iter().all(|held| held.pid() != found.pid()));
        // If none has stayed all the time, the number may have changed its owner.
        if found.is_empty() || self.are_gone() {
            return false;
        }
        self.held.append(&mut found);
        true
    }
}

fn send(members: &[Process], signal: Signal) {
    for member in members {
        let _ = member.signal(signal);
    }
}

/// Returns true if nobody is in a group.
///
/// Mostly nothing is left, and not every process of the machine has to be asked.
fn is_empty(group: Pid) -> bool {
    kill(Pid::from_raw(-group.as_raw()), None) == Err(Errno::ESRCH)
}

/// Takes hold of all that are in a group.
fn find(group: Pid) -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| getpgid(Some(Pid::from_raw(pid))) == Ok(group))
        .filter_map(|pid| hold(pid, group))
        .collect()
}

fn hold(pid: pid_t, group: Pid) -> Option<Process> {
    let process = Process::from_stranger(pid).ok()?;
    is_in(&process, group).then_some(process)
}

fn is_in(process: &Process, group: Pid) -> bool {
    // What was told is of this process only if that is not reaped by now.
    getpgid(Some(Pid::from_raw(process.pid()))) == Ok(group) && !process.is_reaped()
}

/// Returns false if it has stopped or ended, or waits for something in the kernel.
fn moves(process: &Process) -> bool {
    let stat = fs::read(format!("/proc/{}/stat", process.pid())).unwrap_or_default();
    // The name, in parentheses, may hold anything.
    let name = stat.iter().rposition(|&byte| byte == b')');
    let state = name.and_then(|end| stat.get(end + 2));
    matches!(state, Some(b'R' | b'S'))
}

/// What can stop has done so by then.
const HALT: Duration = Duration::from_secs(5);
/// From one look whether all have stopped to the next.
const PAUSE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command, Stdio};
    use std::thread::yield_now;

    use super::super::Leftovers;
    use super::super::old_kernel::as_before_6_9;
    use super::*;

    /// A shell that leads a group.
    fn shell(script: &str) -> Child {
        Command::new("sh")
            .args(["-c", script])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn pid(child: &Child) -> pid_t {
        child.id().cast_signed()
    }

    /// Lets the leader end, and is what is known of it then.
    fn reap(leader: &mut Child) -> Process {
        let process = Process::from_stranger(pid(leader)).unwrap();
        // Its input is others' too.
        let input = leader.stdin.take();
        leader.wait().unwrap();
        leader.stdin = input;
        process
    }

    fn read_pid(output: &mut impl BufRead) -> pid_t {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line.trim_end().parse().unwrap()
    }

    fn wait_for_end(process: &Process) {
        while !process.has_ended().unwrap() {
            yield_now();
        }
    }

    /// A process that leads a group and has nothing to do with one that has ended, but
    /// that this one's number is its own.
    fn stranger_instead_of_a_leader() -> (Child, Process) {
        let stranger = shell("exec sleep 600");
        let mut leader = shell("exit");
        let Process { pidfd, .. } = reap(&mut leader);
        let process = Process::new(pid(&stranger), pidfd, false);
        (stranger, process)
    }

    /// Ends the stranger, which has heard of nothing before.
    fn assert_untouched(mut stranger: Child) {
        let process = Process::from_stranger(pid(&stranger)).unwrap();
        process.signal(Signal::TERM).unwrap();
        assert_eq!(stranger.wait().unwrap().signal(), Some(15));
    }

    #[test]
    fn those_left_are_killed_with_what_they_have_started_since() {
        let mut leader = shell(
            "exec 3<&0; sh -c 'trap \"\" TERM; echo $$; read go; sleep 600 & echo $!; read go' <&3 & exit",
        );
        let mut output = BufReader::new(leader.stdout.take().unwrap());
        let left = read_pid(&mut output);
        let process = reap(&mut leader);
        let mut members = Members::of(&process);
        assert_eq!(members.pids(), [left]);
        assert!(!members.are_gone());

        let input = leader.stdin.as_mut().unwrap();
        input.write_all(b"go\n").unwrap();
        let late = read_pid(&mut output);
        let processes = [left, late].map(|pid| Process::from_stranger(pid).unwrap());
        members.kill();
        assert_eq!(members.pids(), [left, late]);
        processes.iter().for_each(wait_for_end);
    }

    #[test]
    fn signal_reaches_all_and_each_once() {
        let count = "trap 'n=$((n + 1))' USR1; trap 'echo $n; exit' TERM; echo 0; while :; do sleep 0.01; done";
        let mut leader = shell(&format!("({count}) & ({count}) & exit"));
        let mut output = BufReader::new(leader.stdout.take().unwrap());
        let [0, 0] = [read_pid(&mut output), read_pid(&mut output)] else {
            panic!("they do not begin with 0");
        };
        let process = reap(&mut leader);
        let mut members = Members::of(&process);
        members.signal(Signal::USR1);
        // A trap is run before the next signal's, as the lower number comes first.
        members.signal(Signal::TERM);
        assert_eq!([read_pid(&mut output), read_pid(&mut output)], [1, 1]);
    }

    #[test]
    fn those_started_since_are_told_too() {
        let mut leader = shell(
            "exec 3<&0; sh -c 'trap : USR1; echo $$; read go; sh -c \"echo \\$\\$; exec sleep 600\" & read go' <&3 & exit",
        );
        let mut output = BufReader::new(leader.stdout.take().unwrap());
        let left = read_pid(&mut output);
        let process = reap(&mut leader);
        let mut members = Members::of(&process);
        leader.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        let late = read_pid(&mut output);
        let [left, late] = [left, late].map(|pid| Process::from_stranger(pid).unwrap());
        members.signal(Signal::USR1);
        wait_for_end(&late);
        drop(leader.stdin.take());
        wait_for_end(&left);
    }

    #[test]
    fn those_that_start_others_meanwhile_are_all_killed() {
        let many =
            "(n=0; while [ $n -lt 20 ]; do sleep 600 >&2 & n=$((n + 1)); echo $n; done; wait) &";
        let mut leader = shell(&format!("{} exit", many.repeat(20)));
        let mut output = BufReader::new(leader.stdout.take().unwrap());
        read_pid(&mut output);
        let process = reap(&mut leader);
        let mut members = Members::of(&process);
        members.kill();
        // When nobody writes any more, nobody is left who would start others.
        std::io::copy(&mut output, &mut std::io::sink()).unwrap();
        let killed = members.pids();
        let mut missed = find(members.group);
        missed.retain(|missed| !killed.contains(&missed.pid()));
        send(&missed, Signal::KILL);
        assert!(missed.is_empty(), "{missed:?}");
    }

    #[test]
    fn reaped_leader_is_not_taken_for_the_group_that_has_its_number() {
        let (stranger, leader) = stranger_instead_of_a_leader();
        as_before_6_9(|| {
            assert_eq!(leader.has_group(), None);
            assert!(leader.signal_group(Signal::KILL).is_err());
            assert!(Leftovers::of(leader, None, None).is_none());
        });
        assert_untouched(stranger);
    }

    #[test]
    fn nobody_is_asked_when_nothing_is_left() {
        let mut leader = shell("exit");
        let process = reap(&mut leader);
        let members = Members::found_by(|_| panic!("all processes are asked"), &process);
        assert!(members.are_gone());
    }

    #[test]
    fn process_that_waits_to_be_reaped_is_a_member() {
        let leader = shell("exit");
        let process = Process::from_stranger(pid(&leader)).unwrap();
        wait_for_end(&process);
        let members = Members::of(&process);
        assert_eq!(members.pids(), [pid(&leader)]);
        drop(reap(&mut { leader }));
        assert!(members.are_gone());
    }

    #[test]
    fn group_of_a_stranger_with_the_same_number_is_not_taken() {
        let (stranger, leader) = stranger_instead_of_a_leader();
        assert_eq!(Members::of(&leader).pids(), [0; 0]);
        assert_untouched(stranger);
    }

    #[test]
    fn group_that_all_have_left_is_not_signalled() {
        let (stranger, same_number) = stranger_instead_of_a_leader();
        let mut other = shell("exit");
        let mut members = Members {
            group: Pid::from_raw(pid(&stranger)),
            held: vec![same_number, reap(&mut other)],
        };
        assert!(members.are_gone());
        members.signal(Signal::USR1);
        members.kill();
        assert_untouched(stranger);
    }

    #[test]
    fn only_members_are_held_after_an_upgrade() {
        let (mut one, mut other) = (shell("exec sleep 600"), shell("exec sleep 600"));
        let mut members = Members::resume(pid(&one), &[pid(&one), pid(&other)]);
        assert_eq!(members.pids(), [pid(&one)]);
        members.kill();
        assert_eq!(one.wait().unwrap().signal(), Some(9));
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
