use std::env;
use std::fmt;
use std::sync::Arc;

use tz::TimeZone;
use tz::timezone::LocalTimeType;

use crate::Error;

/// A time zone with all its rules: instants to local times and back.
///
/// A local time is a number too: the seconds between it and 1970-01-01 00:00:00 on the
/// same clock face, as if the zone were UTC.
#[derive(Clone)]
pub(crate) struct Zone(Arc<TimeZone>);

/// The instants at which the clocks of a zone show one local time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Instants {
    /// The usual case.
    One(i64),
    /// The clocks were set back over it: it is shown twice.
    Two(i64, i64),
    /// The clocks were set forward over it, at this instant: it is never shown.
    Skipped(i64),
}

impl Zone {
    pub(crate) fn utc() -> Self {
        Self::constant(0, "UTC").unwrap_or_else(|| Self(Arc::new(TimeZone::utc())))
    }

    pub(crate) fn local() -> Self {
        let zone = match env::var("TZ") {
            Ok(text) => TimeZone::from_posix_tz(&text),
            Err(_) => TimeZone::local(),
        };
        zone.map_or_else(|_| Self::utc(), |zone| Self(Arc::new(zone)))
    }

    pub(crate) fn fixed(seconds: i32) -> Result<Self, Error> {
        // Named as the time zone database names zones that have no letters: +09, -0330.
        let hours = seconds.unsigned_abs() / 3600;
        let minutes = seconds.unsigned_abs() / 60 % 60;
        let sign = if seconds < 0 { '-' } else { '+' };
        let name = match (seconds, minutes) {
            (0, _) => "UTC".to_owned(),
            (_, 0) => format!("{sign}{hours:02}"),
            _ => format!("{sign}{hours:02}{minutes:02}"),
        };
        Some(seconds)
            .filter(|seconds| seconds.unsigned_abs() < 86_400)
            .and_then(|seconds| Self::constant(seconds, &name))
            .ok_or_else(|| {
                let problem = format!("{seconds} seconds from UTC are not less than 24 hours");
                Error::refused("clock", problem)
            })
    }

    fn constant(seconds: i32, name: &str) -> Option<Self> {
        let kind = LocalTimeType::new(seconds, false, Some(name.as_bytes())).ok()?;
        let zone = TimeZone::new(Vec::new(), vec![kind], Vec::new(), None).ok()?;
        Some(Self(Arc::new(zone)))
    }

    pub(crate) fn named(name: &str) -> Result<Self, Error> {
        TimeZone::from_posix_tz(name)
            .map(|zone| Self(Arc::new(zone)))
            .map_err(|error| {
                Error::refused(
                    "clock",
                    format!("no time zone {name:?} in /usr/share/zoneinfo ({error})"),
                )
            })
    }

    /// Returns the seconds ahead of UTC and the zone's name at an instant.
    pub(crate) fn at(&self, instant: i64) -> (i32, &str) {
        let kind = self.0.find_local_time_type(instant).unwrap_or_else(|_| {
            // A file without a rule for the time after its last transition.
            let last = TimeZone::as_ref(&self.0).transitions().last();
            let index = last.map_or(0, |transition| transition.local_time_type_index());
            &TimeZone::as_ref(&self.0).local_time_types()[index]
        });
        (kind.ut_offset(), kind.time_zone_designation())
    }

    /// Lists all names that the zone ever has.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        TimeZone::as_ref(&self.0)
            .local_time_types()
            .iter()
            .map(LocalTimeType::time_zone_designation)
    }

    pub(crate) fn offset(&self, instant: i64) -> i64 {
        self.at(instant).0.into()
    }

    /// Returns the local time that is shown at an instant.
    pub(crate) fn local_time(&self, instant: i64) -> i64 {
        instant + self.offset(instant)
    }

    /// Finds when a local time is shown.
    pub(crate) fn instants(&self, local: i64) -> Instants {
        // No zone is further than this from UTC, and none has changed twice within it.
        let offsets = [local - REACH, local, local + REACH].map(|at| self.offset(at));
        let mut found = offsets
            .map(|offset| local - offset)
            .into_iter()
            .filter(|&instant| self.local_time(instant) == local);
        let first = found.next();
        match (
            first,
            first.and_then(|first| found.find(|&other| other != first)),
        ) {
            (Some(one), Some(other)) => Instants::Two(one.min(other), one.max(other)),
            (Some(one), None) => Instants::One(one),
            (None, _) => {
                let low = offsets.iter().max().map_or(local, |most| local - most);
                let high = offsets.iter().min().map_or(local, |least| local - least);
                Instants::Skipped(self.transition(low, high).unwrap_or(high))
            }
        }
    }

    /// Finds the first instant after `low`, up to `high`, at which the offset is not what
    /// it is at `low`, when the offset at `high` differs.
    pub(crate) fn transition(&self, mut low: i64, mut high: i64) -> Option<i64> {
        let before = self.offset(low);
        if self.offset(high) == before {
            return None;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.offset(middle) == before {
                low = middle;
            } else {
                high = middle;
            }
        }
        Some(high)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

const REACH: i64 = 26 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> Zone {
        Zone::named("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    // 2026-10-25 01:00 UTC, clocks go from 03:00 CEST to 02:00 CET.
    const BACK: i64 = 1_792_890_000;
    // 2026-03-29 01:00 UTC, clocks go from 02:00 CET to 03:00 CEST.
    const FORTH: i64 = 1_774_746_000;

    #[test]
    fn hour_that_is_repeated_has_two_instants() {
        let local = berlin().local_time(BACK);
        assert_eq!(berlin().instants(local), Instants::Two(BACK - 3600, BACK));
        assert_eq!(berlin().instants(local + 3600), Instants::One(BACK + 3600));
        assert_eq!(berlin().instants(local - 1), Instants::One(BACK - 3601));
    }

    #[test]
    fn hour_that_is_skipped_has_the_instant_of_the_change() {
        let local = berlin().local_time(FORTH);
        assert_eq!(berlin().instants(local - 1), Instants::Skipped(FORTH));
        assert_eq!(berlin().instants(local - 3600), Instants::Skipped(FORTH));
        assert_eq!(berlin().instants(local - 3601), Instants::One(FORTH - 1));
        assert_eq!(berlin().instants(local), Instants::One(FORTH));
    }

    #[test]
    fn change_is_found_to_the_second() {
        assert_eq!(
            berlin().transition(BACK - 50_000, BACK + 70_000),
            Some(BACK)
        );
        assert_eq!(berlin().transition(BACK, BACK + 70_000), None);
    }

    #[test]
    fn fixed_offsets_are_named_as_the_database_names_them() {
        assert_eq!(Zone::fixed(9 * 3600).unwrap().at(0), (9 * 3600, "+09"));
        assert_eq!(Zone::fixed(-12_600).unwrap().at(0), (-12_600, "-0330"));
        assert_eq!(Zone::fixed(0).unwrap().at(0), (0, "UTC"));
        assert!(Zone::fixed(86_400).is_err());
        assert!(Zone::fixed(i32::MIN).is_err());
    }
}
