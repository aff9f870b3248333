//! Everything at once, again and again: children and the supervisor are killed,
//! commands come, files change. Afterwards exactly what is wanted runs.
//!
//! `FLEET_TORTURE_PROGRAMS` and `FLEET_TORTURE_SECONDS` set the size,
//! `FLEET_TORTURE_SEED` repeats a run.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fixture::Fleet;
use crate::control_group::ControlGroup;
use crate::process;

fn size(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Numbers that look random and can be had again (`splitmix64`).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What is wanted of one program.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    present: bool,
    stopped: bool,
    count: u64,
    /// Which of two definitions it has.
    flavour: u64,
}

/// A process: its program, instance and flavour, and whether it is one that the
/// instance has started.
type Key = (String, String, String, bool);

struct Torture {
    fleet: Fleet,
    /// Where the supervisor is, if each process has a control group of its own:
    /// then each also starts another one that leaves its process group.
    group: Option<ControlGroup>,
    dice: Dice,
    wanted: Vec<Wanted>,
    /// What the processes of this test are recognised by.
    mark: String,
    commands: u64,
}

impl Torture {
    fn name(index: usize) -> String {
        format!("p{index:03}")
    }

    fn start(&mut self) {
        match &self.group {
            None => self.fleet.start(),
            Some(group) => {
                let procs = group.path().join("cgroup.procs");
                self.fleet
                    .start_by(&format!("echo $$ > {}; exec \"$@\"", procs.display()));
            }
        }
    }

    fn write(&self, index: usize) {
        let (mark, flavour) = (&self.mark, self.wanted[index].flavour);
        let command = match self.group {
            None => format!("command = \"sleep\"\narguments = [\"{mark}\", \"{flavour}\"]"),
            Some(_) => format!(
                "command = \"sh\"\narguments = [\"-c\", \"setsid sleep {mark} {flavour} 1 & exec sleep {mark} {flavour}\"]"
            ),
        };
        let definition = format!(
            "{command}\ninstances = 2\nstart_seconds = \"{}ms\"\nrestart = \"always\"\nbackoff = \"20ms\"\n\
             backoff_max = \"100ms\"\nretries = \"unlimited\"\nstop_timeout = \"2s\"\n",
            20 * (index % 3),
        );
        self.fleet.program(&Self::name(index), &definition);
    }

    fn submit(&mut self, command: &str) {
        self.commands += 1;
        let name = format!("{command}@{:09}", self.commands);
        let draft = self.fleet.path().join(format!(".{name}"));
        fs::write(&draft, "").unwrap();
        fs::rename(draft, self.fleet.path().join("inbox").join(name)).unwrap();
    }

    /// Does one thing to the fleet.
    fn act(&mut self) {
        let index = usize::try_from(self.dice.throw(self.wanted.len() as u64)).unwrap();
        let name = Self::name(index);
        // Every fifth has its file come and go, the others get commands.
        let comes_and_goes = index % 5 == 0;
        match self.dice.throw(100) {
            0..60 => {
                let files = self.fleet.pid_files();
                if files.is_empty() {
                    return;
                }
                let file = &files[usize::try_from(self.dice.throw(files.len() as u64)).unwrap()];
                let text = fs::read_to_string(file).unwrap_or_default();
                let pid = text.lines().next().and_then(|line| line.parse().ok());
                // The number may be another's by now: only one of ours is killed.
                if let Some(pid) = pid.filter(|pid| self.is_ours(*pid)) {
                    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
                }
            }
            60..63 => {
                self.fleet.kill();
                self.start();
            }
            63 => self.submit("upgrade"),
            64..75 if comes_and_goes => {
                let present = !self.wanted[index].present;
                self.wanted[index].present = present;
                if present {
                    self.write(index);
                } else {
                    self.fleet.remove_program(&name);
                }
            }
            64..75 => {
                self.wanted[index].flavour ^= 1;
                self.write(index);
            }
            _ if comes_and_goes => {}
            75..80 => {
                self.wanted[index].stopped = true;
                self.submit(&format!("stop-{name}"));
            }
            80..87 => {
                self.wanted[index].stopped = false;
                self.submit(&format!("start-{name}"));
            }
            87..92 => {
                self.wanted[index].stopped = false;
                self.submit(&format!("restart-{name}"));
            }
            92..97 => {
                let count = self.dice.throw(4);
                self.wanted[index].count = count;
                self.submit(&format!("scale-{name}-{count}"));
            }
            _ => self.submit(&format!("signal-{name}-CONT")),
        }
    }

    fn is_ours(&self, pid: u32) -> bool {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(format!("sleep\0{}\0", self.mark).as_bytes())
    }

    /// Returns the processes there are.
    fn running(&self) -> BTreeMap<Key, Vec<u32>> {
        let mut running: BTreeMap<_, Vec<u32>> = BTreeMap::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if !self.is_ours(pid) || process::is_gone(pid) {
                continue;
            }
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut arguments = line.split('\0').skip(2);
            let flavour = arguments.next().unwrap_or_default().to_owned();
            let is_helper = arguments.next() == Some("1");
            let environ = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
            let value = |name: &str| {
                let mut found = environ
                    .split('\0')
                    .filter_map(|entry| entry.strip_prefix(name));
                found.next().unwrap_or_default().to_owned()
            };
            let (program, instance) = (value("FLEET_PROGRAM="), value("FLEET_INSTANCE="));
            let key = (program, instance, flavour, is_helper);
            running.entry(key).or_default().push(pid);
        }
        running
    }

    /// Returns the processes that are wanted, each once.
    fn expected(&self) -> BTreeSet<Key> {
        let mut expected = BTreeSet::new();
        for (index, wanted) in self.wanted.iter().enumerate() {
            if wanted.present && !wanted.stopped {
                for instance in 0..wanted.count {
                    let key = |is_helper| {
                        let flavour = wanted.flavour.to_string();
                        (Self::name(index), instance.to_string(), flavour, is_helper)
                    };
                    expected.insert(key(false));
                    expected.extend(self.group.as_ref().map(|_| key(true)));
                }
            }
        }
        expected
    }
}

fn is_exactly(running: &BTreeMap<Key, Vec<u32>>, expected: &BTreeSet<Key>) -> bool {
    running.keys().eq(expected) && running.values().all(|pids| pids.len() == 1)
}

#[test]
fn after_any_storm_exactly_what_is_wanted_runs() {
    storm(None);
}

#[test]
fn after_any_storm_nothing_is_left_in_a_control_group() {
    if let Some(group) = ControlGroup::delegated("fleet-storm") {
        storm(Some(group));
    }
}

fn storm(group: Option<ControlGroup>) {
    let programs = usize::try_from(size("FLEET_TORTURE_PROGRAMS", 25)).unwrap();
    let time = Duration::from_secs(size("FLEET_TORTURE_SECONDS", 5));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = size("FLEET_TORTURE_SEED", u64::from(now.subsec_nanos()));
    eprintln!(
        "{programs} programs, {} secs, FLEET_TORTURE_SEED={seed}",
        time.as_secs()
    );
    let wanted = Wanted {
        present: true,
        stopped: false,
        count: 2,
        flavour: 0,
    };
    let mut torture = Torture {
        fleet: Fleet::empty(),
        mark: format!("8640{}{}", u8::from(group.is_some()), std::process::id()),
        group,
        dice: Dice(seed),
        wanted: vec![wanted; programs],
        commands: 0,
    };
    (0..programs).for_each(|index| torture.write(index));
    torture.start();
    torture.fleet.wait("all to run", || {
        is_exactly(&torture.running(), &torture.expected()).then_some(())
    });

    let end = Instant::now() + time;
    let mut actions = 0;
    while Instant::now() < end {
        torture.act();
        actions += 1;
        // What is done at random need not wait for anything.
        std::thread::sleep(Duration::from_millis(torture.dice.throw(6)));
    }

    let fleet = &torture.fleet;
    let inbox = fleet.path().join("inbox");
    let left = || fs::read_dir(&inbox).unwrap().count();
    let expected = torture.expected();
    let begun = Instant::now();
    loop {
        let running = torture.running();
        if left() == 0 && is_exactly(&running, &expected) {
            break;
        }
        if begun.elapsed() > Duration::from_secs(120) {
            let too_much = running
                .iter()
                .filter(|(key, pids)| pids.len() > 1 || !expected.contains(key));
            let missing = expected.iter().filter(|key| !running.contains_key(key));
            panic!(
                "seed {seed}: {} commands left; too much runs: {:?}, too little: {:?}\n{}",
                left(),
                too_much.collect::<Vec<_>>(),
                missing.collect::<Vec<_>>(),
                fleet.log()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!(
        "{actions} actions, {} commands; all as wanted after {:?}",
        torture.commands,
        begun.elapsed()
    );
    let count = expected.iter().filter(|(.., is_helper)| !is_helper).count();
    // What has just ended goes when the supervisor has seen it.
    fleet.wait("as many pid files as processes", || {
        (fleet.pid_files().len() == count).then_some(())
    });
    if let Some(group) = &torture.group {
        fleet.wait("as many control groups as processes", || {
            (group.below().len() == count).then_some(())
        });
        for (key, pids) in torture.running() {
            let own = fs::read_to_string(format!("/proc/{}/cgroup", pids[0])).unwrap();
            let name = format!("/fleet-{}.{}-", key.0, key.1);
            assert!(own.contains(&name), "{key:?}: {own}");
        }
    }
    fleet.wait("the end of all zombies", || {
        let task = format!("/proc/{0}/task/{0}/children", fleet.pid());
        let children = fs::read_to_string(task).unwrap();
        let mut pids = children.split_whitespace();
        (!pids.any(|pid| process::is_gone(pid.parse().unwrap()))).then_some(())
    });
    // What an adopted process may have left is kept in view for a while.
    fleet.wait("as many pidfds as processes", || {
        let descriptors = process::descriptors(fleet.pid());
        let pidfds = descriptors.iter().filter(|target| target.contains("pidfd"));
        (pidfds.count() == count && descriptors.len() < count + 20).then_some(())
    });
    // And so it stays.
    assert!(is_exactly(&torture.running(), &expected));
}
