//! Things that go wrong in the middle.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use sql_trace::TestPostgres;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, Executor, SqliteConnection};

use crate::deployment::Deployment;

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Fault {
    /// kill -9 of the newest worker.
    KillWorker,
    /// Another process holds SQLite's write lock, for three seconds at most.
    LockDatabase,
    /// PostgreSQL is stopped, and started after a while (runs a server of its own).
    RestartPostgres,
    /// Nothing can be written to the logs for a while (mounts a tmpfs: needs root).
    FullLogDisk,
}

/// Where the faults strike.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) logs: PathBuf,
    pub(crate) database: PathBuf,
    /// How long a fault lasts that lasts.
    pub(crate) seconds: u64,
}

impl Fault {
    /// Makes it happen, and returns when it is over.
    pub(crate) fn strike(
        self,
        service: &Deployment,
        place: &Place,
        postgres: Option<&mut TestPostgres>,
    ) -> Result<(), String> {
        match self {
            Self::KillWorker => {
                let (_, pid) = *service.generations().last().ok_or("no worker runs")?;
                kill(pid)
            }
            Self::LockDatabase => {
                let locked = lock(&place.database, Duration::from_secs(place.seconds.min(3)));
                locked.map_err(|error| error.to_string())
            }
            Self::RestartPostgres => {
                let postgres = postgres.ok_or("PostgreSQL does not run")?;
                postgres.stop();
                thread::sleep(Duration::from_secs(place.seconds));
                postgres.restart().map_err(|error| error.to_string())
            }
            Self::FullLogDisk => {
                let full = Filler::fill(&place.logs).map_err(|error| error.to_string());
                thread::sleep(Duration::from_secs(place.seconds));
                drop(full?);
                Ok(())
            }
        }
    }
}

fn kill(pid: i32) -> Result<(), String> {
    let pid = Pid::from_raw(pid).ok_or("pid 0")?;
    kill_process(pid, Signal::KILL).map_err(|error| format!("kill {pid:?}: {error}"))
}

#[tokio::main(flavor = "current_thread")]
async fn lock(database: &Path, time: Duration) -> sqlx::Result<()> {
    let options = SqliteConnectOptions::new()
        .filename(database)
        // The service has it most of the time.
        .busy_timeout(Duration::from_secs(60));
    let mut connection = SqliteConnection::connect_with(&options).await?;
    connection.execute("BEGIN IMMEDIATE").await?;
    thread::sleep(time);
    connection.execute("ROLLBACK").await?;
    connection.close().await
}

/// A file that takes all the room there is, until it is dropped.
struct Filler(PathBuf);

impl Filler {
    fn fill(dir: &Path) -> std::io::Result<Self> {
        let filler = Self(dir.join("filler"));
        let mut file = File::create(&filler.0)?;
        for size in [1 << 20, 1 << 12, 1] {
            let block = vec![0; size];
            loop {
                match file.write_all(&block) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(filler)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // On tmpfs the room is free when the file is.
        let _ = OpenOptions::new().write(true).truncate(true).open(&self.0);
        let _ = fs::remove_file(&self.0);
    }
}

/// A small file system in memory, until it is dropped.
#[derive(Debug)]
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(dir: &Path) -> Result<Self, String> {
        use rustix::mount::{MountFlags, mount};
        mount(
            "tmpfs",
            dir,
            "tmpfs",
            MountFlags::empty(),
            Some(c"size=256m"),
        )
        .map_err(|error| format!("cannot mount a tmpfs on {}: {error}", dir.display()))?;
        Ok(Self(dir.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
