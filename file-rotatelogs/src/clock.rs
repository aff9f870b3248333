use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Error;
use crate::zone::Zone;

/// Tells the time, and in which time zone file names are written and periods begin.
///
/// The default is [`local`](Self::local). The zone decides when midnight is; the time
/// itself is the system's, unless [`with_now`](Self::with_now) puts another in its place.
///
/// # Examples
///
/// ```
/// use file_rotatelogs::{Clock, Pattern};
/// use std::time::{Duration, UNIX_EPOCH};
///
/// let clock = Clock::fixed_offset(9 * 3600)?;
/// let pattern = Pattern::new("access.%Y%m%d-%H%M%S%z.log")?;
/// let path = pattern.path_at(UNIX_EPOCH + Duration::from_secs(1_767_225_600), &clock);
/// assert_eq!(path.to_str(), Some("access.20260101-090000+0900.log"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Clock {
    zone: Zone,
    source: Source,
}

#[derive(Clone)]
enum Source {
    System,
    Own(Arc<dyn Fn() -> SystemTime + Send + Sync>),
}

impl Clock {
    /// Creates a clock in the system's time zone: that of the environment variable `TZ`,
    /// else of `/etc/localtime`, else UTC.
    ///
    /// The zone is read once, here; its rules for daylight saving time are followed from
    /// then on.
    #[must_use]
    pub fn local() -> Self {
        Self::in_zone(Zone::local())
    }

    /// Creates a clock in Coordinated Universal Time.
    #[must_use]
    pub fn utc() -> Self {
        Self::in_zone(Zone::utc())
    }

    /// Creates a clock that is `seconds` ahead of UTC all year round, or behind it when
    /// negative.
    ///
    /// # Errors
    ///
    /// Refuses an offset of 24 hours or more.
    pub fn fixed_offset(seconds: i32) -> Result<Self, Error> {
        Zone::fixed(seconds).map(Self::in_zone)
    }

    /// Creates a clock in a zone of the system's time zone database, such as
    /// `Europe/Berlin`, or described by a POSIX `TZ` text, such as
    /// `CET-1CEST,M3.5.0,M10.5.0/3`.
    ///
    /// # Errors
    ///
    /// Refuses a zone that the database (`$TZDIR`, else `/usr/share/zoneinfo`) does not
    /// have and that is not such a text.
    pub fn zone(name: &str) -> Result<Self, Error> {
        Zone::named(name).map(Self::in_zone)
    }

    /// Takes the time from `now` instead of the system.
    ///
    /// The function is called once for every record, so it should be cheap.
    #[must_use]
    pub fn with_now(self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self {
            source: Source::Own(Arc::new(now)),
            ..self
        }
    }

    /// Returns the present time.
    ///
    /// The system's time is read from the coarse clock, which needs no system call and
    /// may be some milliseconds late.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        match &self.source {
            Source::System => UNIX_EPOCH + Duration::from_nanos(system_nanos().unsigned_abs()),
            Source::Own(now) => now(),
        }
    }

    /// Returns the present time as nanoseconds since 1970.
    #[inline]
    pub(crate) fn nanos(&self) -> i64 {
        match &self.source {
            Source::System => system_nanos(),
            Source::Own(now) => to_nanos(now()),
        }
    }

    /// Tells whether the time passes as the system's does.
    pub(crate) fn is_system(&self) -> bool {
        matches!(self.source, Source::System)
    }

    pub(crate) fn zone_ref(&self) -> &Zone {
        &self.zone
    }

    fn in_zone(zone: Zone) -> Self {
        Self {
            zone,
            source: Source::System,
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::local()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("zone", &self.zone)
            .field("system", &self.is_system())
            .finish()
    }
}

/// Converts to nanoseconds since 1970, at the ends of the range to its ends.
pub(crate) fn to_nanos(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
    }
}

/// Splits a time into whole seconds since 1970 and what is left.
pub(crate) fn seconds_and_nanos(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (
            i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            after.subsec_nanos(),
        ),
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (-seconds, 0),
                nanos => (-seconds - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

/// Returns the time of some seconds since 1970.
pub(crate) fn from_seconds(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(UNIX_EPOCH)
}

/// Reads a clock that nobody can set, in nanoseconds.
#[cfg(target_os = "linux")]
#[inline]
pub(crate) fn steady_nanos() -> i64 {
    coarse(rustix::time::ClockId::MonotonicCoarse)
}

#[cfg(target_os = "linux")]
#[inline]
fn system_nanos() -> i64 {
    coarse(rustix::time::ClockId::RealtimeCoarse)
}

#[cfg(target_os = "linux")]
#[inline]
fn coarse(id: rustix::time::ClockId) -> i64 {
    let time = rustix::time::clock_gettime(id);
    time.tv_sec * NANOS + time.tv_nsec
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn steady_nanos() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as i64 * NANOS + time.tv_nsec as i64
}

#[cfg(not(target_os = "linux"))]
fn system_nanos() -> i64 {
    to_nanos(SystemTime::now())
}

/// Nanoseconds in a second.
pub(crate) const NANOS: i64 = 1_000_000_000;

/// Seconds in a day.
pub(crate) const DAY: i64 = 86_400;
