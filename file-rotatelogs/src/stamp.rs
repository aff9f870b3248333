use jiff::civil::DateTime;
use jiff::tz::TimeZoneOffsetInfo;

use crate::zone::{Zone, date};

/// A moment as a file name shows it: a local time, and where that is.
#[derive(Debug)]
pub(crate) struct Stamp<'z> {
    date: DateTime,
    instant: i64,
    offset: i32,
    zone: TimeZoneOffsetInfo<'z>,
}

impl<'z> Stamp<'z> {
    /// Shows a local time that belongs to an instant but need not be what the clocks
    /// show then: the nominal beginning of a period that the clocks jumped into.
    pub(crate) fn shown(zone: &'z Zone, instant: i64, local: i64, nanos: u32) -> Option<Self> {
        let zone = zone.at(instant);
        Some(Self {
            date: date(local, nanos)?,
            instant,
            offset: zone.offset().seconds(),
            zone,
        })
    }

    /// Writes the zone's offset by a directive for it.
    ///
    /// The strftime package writes one digit too many for zones ten hours or more behind
    /// UTC, so it is given the amount, and the sign is set here.
    pub(crate) fn offset(&self, directive: &[u8]) -> Vec<u8> {
        let ahead = Self {
            offset: self.offset.abs(),
            zone: self.zone.clone(),
            ..*self
        };
        let mut text = strftime::bytes::strftime(&ahead, directive).unwrap_or_default();
        if self.offset < 0
            && let Some(sign) = text.iter_mut().find(|byte| **byte == b'+')
        {
            *sign = b'-';
        }
        text
    }
}

impl strftime::Time for Stamp<'_> {
    fn year(&self) -> i32 {
        self.date.year().into()
    }

    fn month(&self) -> u8 {
        self.date.month().unsigned_abs()
    }

    fn day(&self) -> u8 {
        self.date.day().unsigned_abs()
    }

    fn hour(&self) -> u8 {
        self.date.hour().unsigned_abs()
    }

    fn minute(&self) -> u8 {
        self.date.minute().unsigned_abs()
    }

    fn second(&self) -> u8 {
        self.date.second().unsigned_abs()
    }

    fn nanoseconds(&self) -> u32 {
        self.date.subsec_nanosecond().unsigned_abs()
    }

    fn day_of_week(&self) -> u8 {
        self.date.weekday().to_sunday_zero_offset().unsigned_abs()
    }

    fn day_of_year(&self) -> u16 {
        self.date.day_of_year().unsigned_abs()
    }

    fn to_int(&self) -> i64 {
        self.instant
    }

    fn is_utc(&self) -> bool {
        self.offset == 0 && self.zone.abbreviation() == "UTC"
    }

    fn utc_offset(&self) -> i32 {
        self.offset
    }

    fn time_zone(&self) -> &str {
        self.zone.abbreviation()
    }
}
