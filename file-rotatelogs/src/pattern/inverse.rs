use std::os::unix::ffi::OsStrExt;

use jiff::civil::Date;
use jiff::tz::Offset;

use super::Pattern;
use super::directive::{Field, Item};
use crate::clock::DAY;
use crate::stamp::Stamp;
use crate::zone::{Instants, Zone, date};

/// Finds the time at which a pattern makes a given path.
///
/// The path is read loosely first, which gives the values it could show; each time that
/// has these values is then rendered, and only the very same path counts.
pub(super) struct Search<'a> {
    pub(super) pattern: &'a Pattern,
    pub(super) zone: &'a Zone,
    /// Where a path does not tell the year, the last time before this is meant.
    pub(super) latest: i64,
}

impl Search<'_> {
    pub(super) fn find(&self, path: &[u8]) -> Option<i64> {
        let (mut looks, mut renderings) = (0, 0);
        Reader::new(Some(self.zone)).read(&self.pattern.items, path, &mut |values| {
            self.candidates(values)
                .take_while(|_| {
                    looks += 1;
                    looks <= MOST_LOOKS
                })
                .filter(|&(instant, _)| self.has_zone(instant, values))
                .take(MOST_TIMES)
                .take_while(|_| {
                    renderings += 1;
                    renderings <= MOST_RENDERINGS
                })
                .find(|&(instant, local)| self.renders(instant, local, values.fraction(), path))
                .map(|(instant, _)| instant)
        })
    }

    /// Lists the instants that have these values, each with the local time it is called.
    fn candidates(&self, values: &Values) -> Box<dyn Iterator<Item = (i64, i64)> + '_> {
        let zone = self.zone;
        if self.pattern.is_fixed() {
            return Box::new(std::iter::once((0, 0)));
        }
        let times = values.times(self.is_zone_shown());
        let days = values.days(self.latest, self.is_zone_shown());
        let by_calendar = days
            .flat_map(move |day| times.clone().into_iter().map(move |time| day * DAY + time))
            .flat_map(move |local| {
                let (one, other) = match zone.instants(local) {
                    Instants::One(at) | Instants::Skipped(at) => (at, None),
                    Instants::Two(first, second) => (first, Some(second)),
                };
                [Some((one, local)), other.map(|other| (other, local))]
            })
            .flatten();
        match values.get(Field::Epoch) {
            None => Box::new(by_calendar),
            Some(instant) => {
                let shown = std::iter::once((instant, zone.local_time(instant)));
                // A period that began when the clocks were set forward is called by a
                // time that they did not show.
                let jumped = zone.offset(instant - 1) != zone.offset(instant);
                let called = by_calendar.filter(move |&(at, _)| jumped && at == instant);
                Box::new(shown.chain(called.take(1)))
            }
        }
    }

    /// Tells whether the zone has the shown offset and name at an instant, as far as can be
    /// told without rendering them.
    fn has_zone(&self, instant: i64, values: &Values) -> bool {
        let there = self.zone.at(instant);
        let minutes = i64::from(there.offset().seconds() / 60);
        let has_offset = values
            .get(Field::Offset)
            .is_none_or(|shown| shown == UNTOLD || shown == minutes);
        let has_name = values.get(Field::ZoneName).is_none_or(|shown| {
            let index = usize::try_from(shown).unwrap_or(usize::MAX);
            self.zone.names().nth(index) == Some(there.abbreviation())
        });
        has_offset && has_name
    }

    fn renders(&self, instant: i64, local: i64, nanos: u32, path: &[u8]) -> bool {
        Stamp::shown(self.zone, instant, local, nanos)
            .is_some_and(|stamp| self.pattern.render(&stamp).as_os_str().as_bytes() == path)
    }

    fn is_zone_shown(&self) -> bool {
        self.pattern
            .fields()
            .any(|field| matches!(field, Field::Offset | Field::ZoneName))
    }
}

/// Tells whether a text can be made by these items, at some time or none.
pub(super) fn admits(items: &[Item], text: &[u8]) -> bool {
    Reader::new(None)
        .read(items, text, &mut |_| Some(()))
        .is_some()
}

/// The values that a path shows, as far as it shows them.
#[derive(Default)]
struct Values {
    numbers: [Option<i64>; FIELDS],
}

impl Values {
    fn get(&self, field: Field) -> Option<i64> {
        self.numbers[field as usize]
    }

    fn fraction(&self) -> u32 {
        self.get(Field::Fraction)
            .and_then(|nanos| u32::try_from(nanos).ok())
            .unwrap_or(0)
    }

    /// Lists the seconds of the day it can be. When nothing tells, the day's beginning
    /// goes first; where the zone is shown, other times of the day may have another.
    fn times(&self, zone_matters: bool) -> Vec<i64> {
        let or = |value: Option<i64>, others: &[i64]| match value {
            Some(value) => vec![value],
            None if zone_matters => others.to_vec(),
            None => vec![0],
        };
        let afternoon = self.get(Field::Meridiem);
        let hours = match (self.get(Field::Hour24), self.get(Field::Hour12), afternoon) {
            (Some(hour), _, _) => vec![hour],
            (None, Some(hour), Some(half)) => vec![hour % 12 + 12 * half],
            (None, Some(hour), None) => vec![hour % 12, hour % 12 + 12],
            (None, None, Some(half)) if !zone_matters => vec![12 * half],
            (None, None, Some(half)) => vec![12 * half, 12 * half + 11],
            (None, None, None) => or(None, &[0, 23]),
        };
        let minutes = or(self.get(Field::Minute), &[0, 59]);
        let seconds = or(self.get(Field::Second), &[0]);
        let mut times = Vec::new();
        for hour in &hours {
            for minute in &minutes {
                for second in &seconds {
                    times.push(hour * 3600 + minute * 60 + second);
                }
            }
        }
        times.retain(|time| (0..=DAY).contains(time));
        times
    }

    /// Lists the days it can be, counted from 1970, those of the likeliest year first.
    fn days(&self, latest: i64, zone_matters: bool) -> Box<dyn Iterator<Item = i64>> {
        if !zone_matters && DATE.iter().all(|&field| self.get(field).is_none()) {
            return Box::new(std::iter::once(latest.div_euclid(DAY)));
        }
        let this_year = date(latest, 0).map_or(1970, |date| date.year());
        let month = self.get(Field::Month).or(self.get(Field::MonthName));
        let (day, year_day) = (self.get(Field::Day), self.get(Field::YearDay));
        let shown = DATE.map(|field| (field, self.get(field)));
        let years = self.years(i64::from(this_year)).into_iter();
        let days = years.flat_map(move |year| {
            let days = match (month, day, year_day) {
                (Some(month), Some(day), _) => {
                    day_number(year, month, day).map(|number| (number, 1))
                }
                (Some(month), None, _) => day_number(year, month, 1).map(|first| (first, 31)),
                (None, _, Some(day)) => day_number(year, 1, 1).map(|first| (first + day - 1, 1)),
                (None, _, None) => day_number(year, 1, 1).map(|first| (first, 366)),
            };
            let (first, count) = days.unwrap_or((0, 0));
            first..first + count
        });
        Box::new(days.filter(move |&day| {
            let shows = |date: Date| {
                shown
                    .iter()
                    .all(|&(field, wanted)| wanted.is_none() || wanted == shown_by(date, field))
            };
            day.checked_mul(DAY)
                .and_then(|local| date(local, 0))
                .is_some_and(|date| shows(date.date()))
        }))
    }

    fn years(&self, this_year: i64) -> Vec<i64> {
        let with_century = |two: i64| match self.get(Field::Century) {
            Some(century) => vec![century * 100 + two],
            None if two < 69 => vec![2000 + two, 1900 + two, 2100 + two],
            None => vec![1900 + two, 2000 + two],
        };
        let around = |year: i64| [year, year - 1, year + 1];
        if let Some(year) = self.get(Field::Year) {
            vec![year]
        } else if let Some(year) = self.get(Field::IsoYear) {
            around(year).to_vec()
        } else if let Some(two) = self.get(Field::Year2) {
            with_century(two)
        } else if let Some(two) = self.get(Field::IsoYear2) {
            with_century(two).into_iter().flat_map(around).collect()
        } else if let Some(century) = self.get(Field::Century) {
            (century * 100..century * 100 + 100).collect()
        } else {
            // Every calendar there is comes round in 28 years, but for the missing leap
            // day of some centuries.
            (0..=40).map(|back| this_year - back).collect()
        }
    }
}

/// Returns what a field shows of a date, `None` for those that show other things.
fn shown_by(date: Date, field: Field) -> Option<i64> {
    let (year, year_day) = (i64::from(date.year()), i64::from(date.day_of_year()));
    let from_sunday = i64::from(date.weekday().to_sunday_zero_offset());
    let from_monday = i64::from(date.weekday().to_monday_zero_offset());
    let iso = date.iso_week_date();
    Some(match field {
        Field::Year => year,
        Field::Century => year.div_euclid(100),
        Field::Year2 => year.rem_euclid(100),
        Field::Month | Field::MonthName => date.month().into(),
        Field::Day => date.day().into(),
        Field::YearDay => year_day,
        Field::WeekdayName | Field::Weekday0 => from_sunday,
        Field::Weekday1 => from_monday + 1,
        Field::WeekSunday => (year_day + 6 - from_sunday) / 7,
        Field::WeekMonday => (year_day + 6 - from_monday) / 7,
        Field::IsoYear => iso.year().into(),
        Field::IsoYear2 => i64::from(iso.year()).rem_euclid(100),
        Field::IsoWeek => iso.week().into(),
        _ => return None,
    })
}

/// Returns a date as the days since 1970.
fn day_number(year: i64, month: i64, day: i64) -> Option<i64> {
    let date = Date::new(
        i16::try_from(year).ok()?,
        i8::try_from(month).ok()?,
        i8::try_from(day).ok()?,
    );
    let midnight = Offset::UTC.to_timestamp(date.ok()?.at(0, 0, 0, 0)).ok()?;
    Some(midnight.as_second().div_euclid(DAY))
}

/// Reads a text by items, trying each length that a value may have.
struct Reader<'a> {
    values: Values,
    tries: usize,
    /// Whose names count; without it, all do.
    zone: Option<&'a Zone>,
}

impl<'a> Reader<'a> {
    fn new(zone: Option<&'a Zone>) -> Self {
        Self {
            values: Values::default(),
            tries: 0,
            zone,
        }
    }

    /// Calls `found` for each reading until it returns something.
    fn read<T>(
        &mut self,
        items: &[Item],
        text: &[u8],
        found: &mut impl FnMut(&Values) -> Option<T>,
    ) -> Option<T> {
        self.tries += 1;
        if self.tries > MOST_TRIES {
            return None;
        }
        let Some((item, items)) = items.split_first() else {
            return if text.is_empty() {
                found(&self.values)
            } else {
                None
            };
        };
        match item {
            Item::Literal(literal) => self.read(items, text.strip_prefix(&literal[..])?, found),
            Item::Padding => {
                let most = padding(text);
                (0..=most)
                    .rev()
                    .find_map(|length| self.read(items, &text[length..], found))
            }
            &Item::Field { field, least, most } => {
                for length in (least..=most.min(extent(field, text))).rev() {
                    let value = match field {
                        Field::ZoneName => self.zone_name(&text[..length]),
                        _ => value(field, &text[..length]),
                    };
                    let Some(value) = value else {
                        continue;
                    };
                    let before = self.values.numbers[field as usize];
                    if before.is_some_and(|before| !agree(field, before, value)) {
                        continue;
                    }
                    self.values.numbers[field as usize] = Some(merge(field, before, value));
                    let result = self.read(items, &text[length..], found);
                    self.values.numbers[field as usize] = before;
                    if result.is_some() {
                        return result;
                    }
                }
                None
            }
        }
    }
}

impl Reader<'_> {
    /// Returns which of the zone's names it is.
    fn zone_name(&self, text: &[u8]) -> Option<i64> {
        let Some(zone) = self.zone else {
            return Some(0);
        };
        let index = zone.names().position(|name| {
            let pad = text.len().saturating_sub(name.len());
            padding(text) >= pad && text[pad..].eq_ignore_ascii_case(name.as_bytes())
        });
        index.and_then(|index| i64::try_from(index).ok())
    }
}

/// Two directives may show one fraction or one offset to different lengths: rendering
/// decides about them.
fn agree(field: Field, before: i64, value: i64) -> bool {
    matches!(field, Field::Fraction | Field::Offset | Field::ZoneName) || before == value
}

fn merge(field: Field, before: Option<i64>, value: i64) -> i64 {
    if field == Field::Fraction {
        value.max(before.unwrap_or(0))
    } else {
        value
    }
}

fn padding(text: &[u8]) -> usize {
    text.iter()
        .take_while(|byte| matches!(byte, b' ' | b'0'))
        .count()
}

/// Returns how much of the start of a text could be of a value.
fn extent(field: Field, text: &[u8]) -> usize {
    let could = |byte: &&u8| match field {
        Field::MonthName | Field::WeekdayName | Field::Meridiem => {
            byte.is_ascii_alphabetic() || b" 0".contains(byte)
        }
        Field::ZoneName => byte.is_ascii_alphanumeric() || b"+- ".contains(byte),
        Field::Offset => byte.is_ascii_digit() || b"+-: ".contains(byte),
        _ => byte.is_ascii_digit() || b" -".contains(byte),
    };
    text.iter().take_while(could).count()
}

/// Reads a value, however it is padded. What it is read as needs not be exact, only not
/// miss the truth.
fn value(field: Field, text: &[u8]) -> Option<i64> {
    match field {
        Field::MonthName => name(text, &MONTHS).map(|month| month + 1),
        Field::WeekdayName => name(text, &WEEKDAYS),
        Field::Meridiem => name(text, &["am", "pm"]),
        Field::Offset => {
            let sign = text.iter().position(|byte| b"+-".contains(byte))?;
            let parts = text[sign + 1..].split(|&byte| byte == b':');
            let plain = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
            let whole = parts.skip(1).all(|part| part.len() == 2) && !text.contains(&b' ');
            (whole || plain(&text[sign + 1..])).then(|| minutes(text).unwrap_or(UNTOLD))
        }
        Field::Fraction => {
            let digits = &text[..text.len().min(9)];
            let number: i64 = number(digits)?;
            Some(number * 10_i64.pow(9 - u32::try_from(digits.len()).ok()?))
        }
        _ => number(text).filter(|&number| (least(field)..=most(field)).contains(&number)),
    }
}

/// Reads an offset in one of its usual forms: +hhmm, +hh:mm.
fn minutes(text: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match text {
        [sign, h1, h2, m1, m2] | [sign, h1, h2, b':', m1, m2] => (sign, [*h1, *h2], [*m1, *m2]),
        _ => return None,
    };
    let amount = number(&hours)? * 60 + number(&minutes)?;
    match sign {
        b'+' => Some(amount),
        b'-' => Some(-amount),
        _ => None,
    }
}

fn least(field: Field) -> i64 {
    match field {
        Field::Month
        | Field::Day
        | Field::YearDay
        | Field::Hour12
        | Field::Weekday1
        | Field::IsoWeek => 1,
        Field::Epoch => -FARTHEST,
        Field::Year | Field::IsoYear | Field::Century => -9999,
        _ => 0,
    }
}

fn most(field: Field) -> i64 {
    match field {
        Field::Epoch => FARTHEST,
        Field::Year | Field::IsoYear | Field::Century => 9999,
        Field::Year2 | Field::IsoYear2 => 99,
        Field::Month | Field::Hour12 => 12,
        Field::Day => 31,
        Field::YearDay => 366,
        Field::Hour24 => 23,
        Field::Minute => 59,
        Field::Second => 60,
        Field::Weekday0 => 6,
        Field::Weekday1 => 7,
        Field::IsoWeek | Field::WeekSunday | Field::WeekMonday => 53,
        _ => i64::MAX,
    }
}

fn number(text: &[u8]) -> Option<i64> {
    let spaces = text.iter().take_while(|&&byte| byte == b' ').count();
    let digits = &text[spaces..];
    let unsigned = digits.strip_prefix(b"-").unwrap_or(digits);
    if !unsigned.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn name(text: &[u8], names: &[&str]) -> Option<i64> {
    let text = &text[padding(text)..];
    let index = names.iter().position(|name| {
        text.eq_ignore_ascii_case(name.as_bytes())
            || text.len() == 3 && text.eq_ignore_ascii_case(&name.as_bytes()[..3.min(name.len())])
    });
    index.and_then(|index| i64::try_from(index).ok())
}

const FIELDS: usize = Field::Epoch as usize + 1;

/// A text that has not been read by then is no name that a pattern made.
const MOST_TRIES: usize = 20_000;

/// Nor is one that none of so many times makes, of all readings together.
const MOST_RENDERINGS: usize = 20_000;

/// A year of four times a day: where the zone is shown, one of them has it.
const MOST_TIMES: usize = 4 * 366;

/// Four times a day of all the years that a name without one may be of.
const MOST_LOOKS: usize = 4 * 366 * 41;

/// An offset that only rendering can decide about.
const UNTOLD: i64 = i64::MAX;

/// Farther from 1970 than any time that has a date, in seconds.
const FARTHEST: i64 = 1_000_000_000_000;

/// The fields that show something of the date.
const DATE: [Field; 15] = [
    Field::Year,
    Field::Century,
    Field::Year2,
    Field::Month,
    Field::MonthName,
    Field::Day,
    Field::YearDay,
    Field::WeekdayName,
    Field::Weekday1,
    Field::Weekday0,
    Field::IsoYear,
    Field::IsoYear2,
    Field::IsoWeek,
    Field::WeekSunday,
    Field::WeekMonday,
];

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

const WEEKDAYS: [&str; 7] = [
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
];
