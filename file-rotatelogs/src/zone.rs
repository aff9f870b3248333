use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneOffsetInfo};

use crate::Error;

/// A time zone with all its rules: instants to local times and back.
///
/// A local time is a number too: the seconds between it and 1970-01-01 00:00:00 on the
/// same clock face, as if the zone were UTC.
#[derive(Clone)]
pub(crate) struct Zone(Arc<Rules>);

struct Rules {
    zone: TimeZone,
    /// All names that the zone ever has.
    names: Vec<String>,
}

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
        Self::new(TimeZone::UTC)
    }

    pub(crate) fn local() -> Self {
        match TimeZone::try_system() {
            Ok(zone) if !zone.is_unknown() => Self::new(zone),
            _ => Self::utc(),
        }
    }

    pub(crate) fn fixed(seconds: i32) -> Result<Self, Error> {
        let (away, ahead) = (seconds.unsigned_abs(), seconds >= 0);
        if away >= 86_400 {
            let problem = format!("{seconds} seconds from UTC are not less than 24 hours");
            return Err(Error::refused("clock", problem));
        }
        if seconds == 0 {
            return Ok(Self::utc());
        }
        // Named as the time zone database names zones that have no letters: +09, -0330.
        let (hour, minute, second) = (away / 3600, away / 60 % 60, away % 60);
        let sign = if ahead { '+' } else { '-' };
        let name = match minute {
            0 => format!("{sign}{hour:02}"),
            _ => format!("{sign}{hour:02}{minute:02}"),
        };
        // POSIX counts the other way.
        let sign = if ahead { '-' } else { '+' };
        Self::posix(&format!("<{name}>{sign}{hour}:{minute:02}:{second:02}"))
    }

    pub(crate) fn named(name: &str) -> Result<Self, Error> {
        TimeZone::get(name)
            .map(Self::new)
            .or_else(|_| Self::posix(name))
    }

    fn posix(text: &str) -> Result<Self, Error> {
        TimeZone::posix(text).map(Self::new).map_err(|_| {
            let problem = format!("{text:?} is no zone of the system's database, nor a TZ text");
            Error::refused("clock", problem)
        })
    }

    fn new(zone: TimeZone) -> Self {
        let first = zone.to_offset_info(Timestamp::MIN);
        let mut names = vec![first.abbreviation().to_owned()];
        let changes = zone
            .following(timestamp(NAMES_FROM))
            .take_while(|change| change.timestamp() < timestamp(NAMES_UNTIL));
        for change in changes {
            if names.iter().all(|name| name != change.abbreviation()) {
                names.push(change.abbreviation().to_owned());
            }
        }
        Self(Arc::new(Rules { zone, names }))
    }

    /// Returns the offset from UTC and the zone's name at an instant.
    pub(crate) fn at(&self, instant: i64) -> TimeZoneOffsetInfo<'_> {
        self.0.zone.to_offset_info(timestamp(instant))
    }

    /// Lists all names that the zone ever has.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.names.iter().map(String::as_str)
    }

    /// Returns the seconds ahead of UTC at an instant.
    pub(crate) fn offset(&self, instant: i64) -> i64 {
        self.at(instant).offset().seconds().into()
    }

    /// Returns the local time that is shown at an instant.
    pub(crate) fn local_time(&self, instant: i64) -> i64 {
        instant.saturating_add(self.offset(instant))
    }

    /// Finds when a local time is shown.
    pub(crate) fn instants(&self, local: i64) -> Instants {
        let Some(date) = date(local, 0) else {
            return Instants::One(local - self.offset(local));
        };
        let at = |offset: Offset| local - i64::from(offset.seconds());
        match self.0.zone.to_ambiguous_timestamp(date).offset() {
            AmbiguousOffset::Unambiguous { offset } => Instants::One(at(offset)),
            AmbiguousOffset::Fold { before, after } => Instants::Two(at(before), at(after)),
            AmbiguousOffset::Gap { before, after } => {
                let change = self.changes(at(after), at(before)).next();
                Instants::Skipped(change.unwrap_or(at(before)))
            }
        }
    }

    /// Lists the instants after `low`, up to `high`, at which the rules change: clocks are
    /// set forward or back, or the zone gets another name.
    pub(crate) fn changes(&self, low: i64, high: i64) -> impl Iterator<Item = i64> {
        self.0
            .zone
            .following(timestamp(low))
            .map(|change| change.timestamp().as_second())
            .take_while(move |&at| at <= high)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Reads a local time, or an instant in UTC, as a date, unless that is too far off for a
/// calendar.
pub(crate) fn date(local: i64, nanos: u32) -> Option<DateTime> {
    let time = Timestamp::new(local, i32::try_from(nanos).ok()?).ok()?;
    Some(Offset::UTC.to_datetime(time))
}

/// Converts an instant, at the ends of the range to its ends.
fn timestamp(instant: i64) -> Timestamp {
    Timestamp::from_second(instant).unwrap_or(if instant < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

/// The year 1800, before which there were no time zones.
const NAMES_FROM: i64 = -5_364_662_400;

/// The year 2100: what clocks will be set to then is anybody's guess.
const NAMES_UNTIL: i64 = 4_102_444_800;

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
        let changes = |low, high| berlin().changes(low, high).collect::<Vec<_>>();
        assert_eq!(changes(BACK - 50_000, BACK + 70_000), [BACK]);
        assert!(changes(BACK, BACK + 70_000).is_empty());
        assert_eq!(changes(BACK - 1, BACK), [BACK]);
        assert_eq!(changes(FORTH - 1, BACK), [FORTH, BACK]);
    }

    #[test]
    fn fixed_offsets_are_named_as_the_database_names_them() {
        for (seconds, name) in [
            (9 * 3600, "+09"),
            (-12_600, "-0330"),
            (0, "UTC"),
            (61, "+0001"),
        ] {
            let zone = Zone::fixed(seconds).unwrap();
            assert_eq!(zone.offset(0), i64::from(seconds));
            assert_eq!(zone.at(0).abbreviation(), name);
            assert_eq!(zone.names().collect::<Vec<_>>(), [name]);
        }
        assert!(Zone::fixed(86_399).is_ok());
        assert!(Zone::fixed(-86_399).is_ok());
        assert!(Zone::fixed(86_400).is_err());
        assert!(Zone::fixed(i32::MIN).is_err());
    }
}
