//! Time zones, and instants broken down in them.

use std::{
    cell::Cell,
    error::Error,
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::tz::TimeZone;

/// A time zone: which offset from UTC holds at which instant.
///
/// Every instant is printed with the offset and the abbreviation that were valid
/// at that instant, so the hour that a change to winter time repeats is told
/// apart by its offset.
///
/// Clones are cheap and share what they have cached.
#[derive(Clone)]
pub struct Zone(Arc<Inner>);

struct Inner {
    /// Tells zones apart in the threads' caches.
    id: u64,
    rules: Rules,
}

enum Rules {
    Fixed { offset: i32, abbreviation: Box<str> },
    Database(TimeZone),
}

impl Zone {
    /// Returns Coordinated Universal Time, abbreviated `UTC`.
    #[must_use]
    pub fn utc() -> Self {
        Self::fixed(0, "UTC")
    }

    /// Returns the system's time zone: that of `TZ`, else that of
    /// `/etc/localtime`, else UTC.
    ///
    /// It is read once, when a program first asks for it; a change afterwards is
    /// not followed.
    #[must_use]
    pub fn local() -> Self {
        static LOCAL: LazyLock<Zone> = LazyLock::new(|| match TimeZone::try_system() {
            Ok(zone) if !zone.is_unknown() => Zone::new(Rules::Database(zone)),
            _ => Zone::utc(),
        });
        LOCAL.clone()
    }

    /// Returns a zone of the IANA database, such as `Europe/Berlin`.
    ///
    /// The database is the system's (`/usr/share/zoneinfo`, or `$TZDIR`), and
    /// with the `bundled-tzdata` feature also one inside the program.
    ///
    /// # Errors
    ///
    /// When no database knows the name.
    pub fn named(name: &str) -> Result<Self, ZoneError> {
        match TimeZone::get(name) {
            Ok(zone) => Ok(Self::new(Rules::Database(zone))),
            Err(cause) => Err(ZoneError {
                name: name.into(),
                cause: Box::new(cause),
            }),
        }
    }

    /// Returns a zone that is always `offset` seconds east of UTC.
    #[must_use]
    pub fn fixed(offset: i32, abbreviation: &str) -> Self {
        Self::new(Rules::Fixed {
            offset,
            abbreviation: abbreviation.into(),
        })
    }

    fn new(rules: Rules) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(Arc::new(Inner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            rules,
        }))
    }

    /// Returns what tells this zone apart from all others.
    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    /// Returns the offset and the abbreviation that hold at `second`.
    pub(crate) fn span(&self, second: i64) -> Span {
        SPANS.with(|spans| {
            let kept = &spans[self.0.id as usize % spans.len()];
            let last = kept.get();
            if last.zone == self.0.id && (last.from..last.until).contains(&second) {
                return last;
            }
            let span = self.look_up(second);
            kept.set(span);
            span
        })
    }

    fn look_up(&self, second: i64) -> Span {
        let zone = match &self.0.rules {
            Rules::Database(zone) => zone,
            Rules::Fixed {
                offset,
                abbreviation,
            } => {
                return Span::new(self.0.id, i64::MIN..i64::MAX, *offset, abbreviation);
            }
        };
        // The database ends in the year 9999; its last rule goes on.
        let (min, max) = (
            jiff::Timestamp::MIN.as_second() + 1,
            jiff::Timestamp::MAX.as_second() - 1,
        );
        let inside = second.clamp(min, max);
        let (Ok(at), Ok(next)) = (
            jiff::Timestamp::from_second(inside),
            jiff::Timestamp::from_second(inside + 1),
        ) else {
            return Span::new(self.0.id, second..second + 1, 0, "UTC");
        };
        let from = zone.preceding(next).next();
        let until = zone.following(at).next();
        let info = zone.to_offset_info(at);
        Span::new(
            self.0.id,
            from.map_or(i64::MIN, |change| change.timestamp().as_second())
                ..until.map_or(i64::MAX, |change| change.timestamp().as_second()),
            info.offset().seconds(),
            info.abbreviation(),
        )
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::local()
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.0.rules {
            Rules::Fixed { abbreviation, .. } => abbreviation,
            Rules::Database(zone) => zone.iana_name().unwrap_or("local"),
        };
        f.debug_tuple("Zone").field(&name).finish()
    }
}

/// A time zone that no database knows.
#[derive(Debug)]
pub struct ZoneError {
    name: Box<str>,
    cause: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot find the time zone `{}`", self.name)
    }
}

impl Error for ZoneError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}

thread_local! {
    /// The spans that this thread asked for last, by zone: the next request nearly
    /// always falls in the same one.
    static SPANS: [Cell<Span>; 4] = const { [const { Cell::new(Span::NONE) }; 4] };
}

/// A stretch of time with one offset and one abbreviation.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    zone: u64,
    from: i64,
    until: i64,
    pub(crate) offset: i32,
    abbreviation: [u8; ABBREVIATION_MAX],
    abbreviation_len: u8,
}

/// POSIX allows any length; names in use have at most six letters.
const ABBREVIATION_MAX: usize = 30;

impl Span {
    const NONE: Self = Self {
        zone: 0,
        from: 0,
        until: 0,
        offset: 0,
        abbreviation: [0; ABBREVIATION_MAX],
        abbreviation_len: 0,
    };

    fn new(zone: u64, seconds: std::ops::Range<i64>, offset: i32, abbreviation: &str) -> Self {
        let len = abbreviation.len().min(ABBREVIATION_MAX);
        let mut span = Self {
            zone,
            from: seconds.start,
            until: seconds.end,
            offset,
            abbreviation_len: len as u8,
            ..Self::NONE
        };
        span.abbreviation[..len].copy_from_slice(&abbreviation.as_bytes()[..len]);
        span
    }

    pub(crate) fn abbreviation(&self) -> &[u8] {
        &self.abbreviation[..usize::from(self.abbreviation_len)]
    }
}

/// An instant as a calendar and a clock on the wall show it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: u8,
    /// 1 to 31.
    pub(crate) day: u8,
    pub(crate) hour: u8,
    pub(crate) minute: u8,
    pub(crate) second: u8,
    /// 0 is Sunday.
    pub(crate) weekday: u8,
    /// 0 to 365.
    pub(crate) yearday: u16,
}

impl Civil {
    /// Breaks down `second` as seen `offset` seconds east of UTC.
    pub(crate) fn new(second: i64, offset: i32) -> Self {
        let local = second.saturating_add(i64::from(offset));
        let (days, second_of_day) = (local.div_euclid(86_400), local.rem_euclid(86_400));

        // The proleptic Gregorian calendar, counted from 1 March of year 0 in
        // cycles of 400 years: leap days then fall at the very end of a year.
        let days_since = days + 719_468;
        let cycle = days_since.div_euclid(146_097);
        let day_of_cycle = days_since.rem_euclid(146_097);
        let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524
            - day_of_cycle / 146_096)
            / 365;
        let day_of_year =
            day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = year_of_cycle + cycle * 400 + i64::from(month <= 2);
        let leap = is_leap(year);
        let yearday = if month > 2 {
            day_of_year + 59 + i64::from(leap)
        } else {
            day_of_year - 306
        };

        Self {
            year,
            month: month as u8,
            day: day as u8,
            hour: (second_of_day / 3600) as u8,
            minute: (second_of_day / 60 % 60) as u8,
            second: (second_of_day % 60) as u8,
            weekday: (days + 4).rem_euclid(7) as u8,
            yearday: yearday as u16,
        }
    }
}

pub(crate) fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}
