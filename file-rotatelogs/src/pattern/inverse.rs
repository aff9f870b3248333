use std::os::unix::ffi::OsStrExt;

use tz::UtcDateTime;

use super::Pattern;
use super::directive::{Field, Item};
use crate::stamp::Stamp;
use crate::zone::{Instants, Zone};

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
        let mut reader = Reader::new();
        reader.read(&self.pattern.items, path, &mut |values| {
            self.instant(values, path)
        })
    }

    fn instant(&self, values: &Values, path: &[u8]) -> Option<i64> {
        if self.pattern.fields().next().is_none() {
            return Some(0);
        }
        let nanos = values.fraction();
        if let Some(instant) = values.get(Field::Epoch) {
            let local = self.zone.local_time(instant);
            if self.renders(instant, local, nanos, path) {
                return Some(instant);
            }
        }
        let times = values.times(self.is_zone_shown());
        for day in values.days(self.latest).take(MOST_DAYS) {
            for &time in &times {
                let local = day * 86_400 + time;
                let (one, other) = match self.zone.instants(local) {
                    Instants::One(at) | Instants::Skipped(at) => (at, None),
                    Instants::Two(first, second) => (first, Some(second)),
                };
                for instant in [Some(one), other].into_iter().flatten() {
                    if self.renders(instant, local, nanos, path) {
                        return Some(instant);
                    }
                }
            }
        }
        None
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
    Reader::new().read(items, text, &mut |_| Some(())).is_some()
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
            (None, None, Some(half)) => (12 * half..12 * half + 12).collect(),
            (None, None, None) => or(None, &[0, 23, 12, 4]),
        };
        let minutes = or(self.get(Field::Minute), &[0, 59, 30]);
        let seconds = or(self.get(Field::Second), &[0, 59]);
        let mut times = Vec::new();
        for hour in &hours {
            for minute in &minutes {
                for second in &seconds {
                    times.push(hour * 3600 + minute * 60 + second);
                }
            }
        }
        times.retain(|time| (0..=86_400).contains(time));
        times
    }

    /// Lists the days it can be, counted from 1970, those of the likeliest year first.
    fn days(&self, latest: i64) -> impl Iterator<Item = i64> {
        let this_year = UtcDateTime::from_timespec(latest, 0).map_or(1970, |date| date.year());
        let years = self.years(i64::from(this_year));
        let month = self.get(Field::Month).or(self.get(Field::MonthName));
        let (day, year_day) = (self.get(Field::Day), self.get(Field::YearDay));
        years.into_iter().flat_map(move |year| {
            let first = day_number(year, 1, 1);
            let length = match (first, day_number(year + 1, 1, 1)) {
                (Some(first), Some(next)) => next - first,
                _ => 0,
            };
            let first = first.unwrap_or(0);
            let (from, to) = match (month, day, year_day) {
                (Some(month), Some(day), _) => match day_number(year, month, day) {
                    Some(number) => (number, number + 1),
                    None => (0, 0),
                },
                (Some(month), None, _) => match day_number(year, month, 1) {
                    Some(number) => (number, number + 31),
                    None => (0, 0),
                },
                (None, _, Some(ordinal)) => (first + ordinal - 1, first + ordinal),
                (None, _, None) => (first, first + length),
            };
            from..to
        })
    }

    fn years(&self, this_year: i64) -> Vec<i64> {
        let with_century = |two: i64| match self.get(Field::Century) {
            Some(century) => century * 100 + two,
            None if two < 69 => 2000 + two,
            None => 1900 + two,
        };
        let around = |year: i64| vec![year, year - 1, year + 1];
        if let Some(year) = self.get(Field::Year) {
            vec![year]
        } else if let Some(two) = self.get(Field::Year2) {
            vec![with_century(two)]
        } else if let Some(year) = self.get(Field::IsoYear) {
            around(year)
        } else if let Some(two) = self.get(Field::IsoYear2) {
            around(with_century(two))
        } else if let Some(century) = self.get(Field::Century) {
            (century * 100..century * 100 + 100).collect()
        } else {
            // Every calendar there is comes round in 28 years, but for the missing leap
            // day of some centuries.
            (0..=40).map(|back| this_year - back).collect()
        }
    }
}

fn day_number(year: i64, month: i64, day: i64) -> Option<i64> {
    let date = UtcDateTime::new(
        i32::try_from(year).ok()?,
        u8::try_from(month).ok()?,
        u8::try_from(day).ok()?,
        0,
        0,
        0,
        0,
    );
    date.ok().map(|date| date.unix_time() / 86_400)
}

/// Reads a text by items, trying each length that a value may have.
struct Reader {
    values: Values,
    tries: usize,
}

impl Reader {
    fn new() -> Self {
        Self {
            values: Values::default(),
            tries: 0,
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
            &Item::Field { field, width } => {
                for length in (1..=longest(field, width, text)).rev() {
                    let Some(value) = value(field, &text[..length]) else {
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

/// Two directives may show one fraction to different lengths, and one zone's name means
/// nothing here: rendering decides about them.
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

/// Returns how much of the start of a text a value may take.
fn longest(field: Field, width: usize, text: &[u8]) -> usize {
    let natural = match field {
        Field::Year | Field::IsoYear => 4,
        Field::Century => 2,
        Field::YearDay => 3,
        Field::MonthName | Field::WeekdayName => 9,
        Field::Offset => 10,
        Field::ZoneName => 16,
        Field::Epoch => 13,
        Field::Weekday0 | Field::Weekday1 => 1,
        Field::Fraction => return width.min(text.len()),
        _ => 2,
    };
    let part = match field {
        Field::MonthName | Field::WeekdayName | Field::Meridiem => {
            let pad = padding(text);
            pad + text[pad..]
                .iter()
                .take_while(|byte| byte.is_ascii_alphabetic())
                .count()
        }
        Field::Offset | Field::ZoneName => text
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || b"+-: ".contains(byte))
            .count(),
        _ => text
            .iter()
            .take_while(|byte| byte.is_ascii_digit() || b" -".contains(byte))
            .count(),
    };
    part.min(natural.max(width))
}

/// Reads a value, however it is padded. What it is read as needs not be exact, only not
/// miss the truth.
fn value(field: Field, text: &[u8]) -> Option<i64> {
    match field {
        Field::MonthName => name(text, &MONTHS).map(|month| month + 1),
        Field::WeekdayName => name(text, &WEEKDAYS),
        Field::Meridiem => name(text, &["am", "pm"]),
        Field::Offset | Field::ZoneName => Some(0),
        Field::Fraction => {
            let digits = &text[..text.len().min(9)];
            let number: i64 = number(digits)?;
            Some(number * 10_i64.pow(9 - u32::try_from(digits.len()).ok()?))
        }
        _ => number(text),
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

/// A pattern that shows no more of a date than this leaves open does not identify it.
const MOST_DAYS: usize = 41 * 366;

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
