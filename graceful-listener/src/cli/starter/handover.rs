use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use super::record::{
    FailureRecord, FileRecord, LeftoverRecord, Record, SocketRecord, WorkerRecord,
};
use super::status_file::StatusFile;
use super::worker::{Phase, Worker};
use super::{Setback, Starter};
use crate::cli::descriptor;
use crate::cli::failure::{Failure, reason};
use crate::cli::log_command::LogCommand;
use crate::cli::moment::Moment;
use crate::cli::process::{Cgroup, Leftovers, Process};
use crate::cli::sockets::{Held, HeldFile, Sockets};
use crate::cli::succession::{Succession, Verdict, refusal};
use crate::notify::NotifyReceiver;
use crate::pid_file::PidFile;
use crate::ports::PortName;

impl Starter {
    /// Asks the program that is now under our name whether it can go on with our
    /// state; nothing has changed until it has said so.
    pub(crate) fn request_upgrade(&mut self) {
        if self.trial.is_some() {
            return;
        }
        self.upgrade = false;
        self.log.line(format_args!(
            "received USR2, trying {}",
            self.invocation.program.display()
        ));
        let trial = self
            .record()
            .write()
            .and_then(|record| SUCCESSION.try_program(&self.invocation, &record))
            .and_then(|trial| self.watch(&trial.process).map(|()| trial));
        match trial {
            Ok(trial) => self.trial = Some(trial),
            Err(error) => self.log.line(refusal(&self.invocation, &error)),
        }
    }

    /// Looks whether the new program has answered, and makes way for it if it has.
    pub(crate) fn conclude_upgrade(&mut self) {
        match SUCCESSION.verdict(&mut self.trial) {
            None => {}
            Some(_) if self.stopping => self.log.line("stopping, not going on as a new program"),
            Some(Verdict::Unable(why)) => self.log.line(format_args!(
                "{} cannot take over: it {why}; going on with the old program",
                self.invocation.program.display()
            )),
            Some(Verdict::Able) if self.candidate.is_some() || self.kill_old_at.is_some() => {
                self.upgrade = true;
            }
            Some(Verdict::Able) => {
                let error = self.execute();
                self.log.line(refusal(&self.invocation, &error));
            }
        }
    }

    pub(crate) fn trial_deadline(&self) -> Option<Moment> {
        self.trial.as_ref().map(|trial| trial.deadline)
    }

    pub(crate) fn trial_pid(&self) -> Option<i32> {
        self.trial.as_ref().map(|trial| trial.process.pid())
    }

    /// Becomes the new program. Returns only if that fails.
    fn execute(&mut self) -> io::Error {
        let record = match self.record().write() {
            Ok(record) => record,
            Err(error) => return error,
        };
        self.log.line(format_args!(
            "executing {}",
            self.invocation.program.display()
        ));
        let mut kept: Vec<BorrowedFd<'_>> =
            self.sockets.iter().map(|held| held.fd.as_fd()).collect();
        kept.extend(self.pid_file.as_ref().map(AsFd::as_fd));
        kept.extend(self.readiness.as_ref().map(AsFd::as_fd));
        let left = self.leftovers.iter().filter_map(Leftovers::process);
        kept.extend(left.map(AsFd::as_fd));
        if let Some(log) = &self.log_command {
            kept.extend(log.descriptors());
        }
        SUCCESSION.execute(&self.invocation, &record, kept)
    }

    /// Writes down everything the next program, or whoever asks, has to know.
    pub(crate) fn record(&self) -> Record {
        let millis = |at: Option<Moment>| at.map(Moment::as_millis);
        let length = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let sockets = self.sockets.iter().map(|held| SocketRecord {
            name: held.name.to_os_string(),
            address: held.address(),
            descriptor: held.fd.as_raw_fd(),
            file: held.file.as_ref().map(|file| FileRecord {
                path: file.path.clone(),
                device: file.device,
                inode: file.inode,
            }),
        });
        let workers = self.workers().map(|worker| WorkerRecord {
            generation: worker.generation,
            pid: worker.pid(),
            phase: worker.phase,
            since: worker.since.as_millis(),
            kill_at: millis(worker.kill_at),
            status: worker.status.clone(),
            adopted: !worker.process.is_child(),
            cgroup: worker
                .cgroup
                .as_ref()
                .map(|cgroup| cgroup.path().to_owned()),
        });
        let leftovers = self.leftovers.iter().map(|left| LeftoverRecord {
            pid: left.pid(),
            descriptor: left.process().map(|process| process.as_fd().as_raw_fd()),
            members: left.members(),
            cgroup: left.cgroup().map(|cgroup| cgroup.path().to_owned()),
            kill_at: millis(left.kill_at),
        });
        let descriptors = super::record::Descriptors {
            pid_file: self.pid_file.as_ref().map(|file| file.as_fd().as_raw_fd()),
            readiness: self
                .readiness
                .as_ref()
                .map(|receiver| receiver.as_fd().as_raw_fd()),
            log: self.log_command.as_ref().map(LogCommand::record),
        };
        Record {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id().cast_signed(),
            since: self.since.as_millis(),
            generation: self.generation,
            sockets: sockets.collect(),
            workers: workers.collect(),
            leftovers: leftovers.collect(),
            stopping: self.stopping,
            pending: self.pending,
            restarting: self.restarting,
            start_at: millis(self.start_at),
            failures: self.failures,
            last_failure: self.last_failure.as_ref().map(|setback| FailureRecord {
                generation: setback.generation,
                reason: setback.reason.clone(),
                output: setback.output.clone(),
                at: setback.at.as_millis(),
            }),
            last_start: self.last_start.as_millis(),
            start_budget: length(
                self.options
                    .wait_ready
                    .unwrap_or(self.options.interval)
                    .saturating_add(self.old_delay()),
            ),
            stop_budget: self.options.stop_timeout.map(length),
            status_written: self
                .status_file
                .as_ref()
                .is_some_and(StatusFile::is_written),
            activation: self.activation.clone(),
            descriptors,
        }
    }

    /// Goes on where the program that executed this one has stopped.
    pub(crate) fn take_up(&mut self, record: &Record) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::io("failed to take over a descriptor", &error);
        self.since = Moment::from_millis(record.since);
        self.generation = record.generation;
        self.pending = record.pending;
        self.restarting = record.restarting;
        self.start_at = record.start_at.map(Moment::from_millis);
        self.failures = record.failures;
        self.last_start = Moment::from_millis(record.last_start);
        self.last_failure = record.last_failure.as_ref().map(|failure| Setback {
            generation: failure.generation,
            reason: failure.reason.clone(),
            output: failure.output.clone(),
            at: Moment::from_millis(failure.at),
        });
        if let (Some(number), Some(path)) = (record.descriptors.pid_file, &self.options.pid_file) {
            let fd = descriptor::inherited(number).map_err(failed)?;
            match PidFile::from_inherited(path, fd) {
                Ok(file) => self.pid_file = Some(file),
                Err(error) => self
                    .log
                    .line(format_args!("the pid file is not held any more: {error}")),
            }
        }
        self.status_file = self
            .options
            .status_file
            .clone()
            .map(|path| StatusFile::resume(path, record.status_written));
        for worker in &record.workers {
            self.take_up_worker(worker);
        }
        for record in &record.leftovers {
            let pidfd = record.descriptor.map(descriptor::inherited).transpose();
            let process = pidfd.map_err(failed)?;
            let mut left = Leftovers::new(
                record.pid,
                process.map(|pidfd| Process::from_inherited(record.pid, pidfd)),
                record.cgroup.clone().map(Cgroup::from_path),
                record.kill_at.map(Moment::from_millis),
            );
            left.resume_members(&record.members);
            self.leftovers.push(left);
        }
        Ok(())
    }

    fn take_up_worker(&mut self, record: &WorkerRecord) {
        let process = Process::resume(record.pid, record.adopted);
        let process = process.and_then(|process| self.watch(&process).map(|()| process));
        let process = match process {
            Ok(process) => process,
            Err(error) => {
                self.log.line(format_args!(
                    "worker {} is gone: {}",
                    record.pid,
                    reason(&error)
                ));
                return;
            }
        };
        let worker = Worker {
            process,
            generation: record.generation,
            phase: record.phase,
            since: Moment::from_millis(record.since),
            kill_at: record.kill_at.map(Moment::from_millis),
            status: record.status.clone(),
            cgroup: record.cgroup.clone().map(Cgroup::from_path),
            mark: self.mark_log(),
            untold: None,
        };
        match record.phase {
            Phase::Serving => self.current = Some(worker),
            _ => self.old.push(worker),
        }
    }
}

impl Sockets {
    /// Takes over the sockets of the program that executed this one.
    pub(crate) fn take_up(record: &Record) -> Result<Self, Failure> {
        let mut sockets = Self::default();
        for socket in &record.sockets {
            let name =
                PortName::parse(&socket.name).map_err(|error| Failure::new(error.to_string()))?;
            let fd = descriptor::inherited(socket.descriptor).map_err(|error| {
                Failure::io(format!("failed to take over the socket of {name}"), &error)
            })?;
            let file = socket.file.as_ref().map(|file| HeldFile {
                path: file.path.clone(),
                device: file.device,
                inode: file.inode,
            });
            sockets.push(Held { name, fd, file });
        }
        Ok(sockets)
    }
}

/// Takes over the receiver of the workers' notifications.
pub(crate) fn take_up_readiness(record: &Record) -> io::Result<Option<NotifyReceiver>> {
    let Some(number) = record.descriptors.readiness else {
        return Ok(None);
    };
    descriptor::inherited(number)
        .and_then(NotifyReceiver::from_inherited)
        .map(Some)
}

/// Returns the state that the program that executed this one has left to it.
pub(crate) fn left_to_us() -> Option<Result<Record, Failure>> {
    let record = SUCCESSION.left_to_us()?.and_then(Record::read);
    Some(record.map_err(|error| Failure::io("failed to read the state to go on with", &error)))
}

/// Answers the question whether this program can go on with a state.
pub(crate) fn check(fd: RawFd) -> Result<&'static str, Failure> {
    descriptor::inherited(fd)
        .and_then(|fd: OwnedFd| Record::read(File::from(fd)))
        .map(|_| SUCCESSION.answer)
        .map_err(|error| Failure::io("failed to read the state to go on with", &error))
}

/// How start_server and its successor find each other.
const SUCCESSION: Succession = Succession {
    variable: RESUME,
    option: CHECK,
    answer: "start_server can go on\n",
};
/// Tells the program that this process executes next that it takes over.
pub(crate) const RESUME: &str = "START_SERVER_RESUME";
/// The option, not for people, that asks whether a program can take over.
pub(crate) const CHECK: &str = "check-resume";
