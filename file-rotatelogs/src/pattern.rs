use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use crate::PatternError;
use crate::clock::{Clock, seconds_and_nanos};
use crate::log_file::LogFile;
use crate::stamp::Stamp;
use crate::zone::Zone;

mod directive;
mod inverse;

use directive::{Field, Item};

/// A file name made of text and strftime directives: a time makes a path of it, and a
/// path tells its time.
///
/// The directives, flags and widths are those of the
/// [strftime](https://docs.rs/strftime-ruby) package, in the C locale: `%Y %m %d %H %M %S
/// %j %y %b %a %G %V %u %U %W %e %k %I %l %p %s %F %T %z %:z %Z %L %N %%` and the rest.
/// Others are an error. They may stand in directory names too.
///
/// # Examples
///
/// ```
/// use file_rotatelogs::{Clock, Pattern};
/// use std::path::Path;
///
/// let pattern = Pattern::new("/var/log/app/%Y/access.%m%d.log")?;
/// let clock = Clock::utc();
/// let file = pattern.parse(Path::new("/var/log/app/2026/access.0131.log.2.gz"), &clock);
/// assert_eq!(file.map(|file| file.generation()), Some(2));
///
/// // There is no 31 February, so this pattern cannot have written it.
/// let file = pattern.parse(Path::new("/var/log/app/2026/access.0231.log"), &clock);
/// assert!(file.is_none());
/// # Ok::<(), file_rotatelogs::PatternError>(())
/// ```
#[derive(Clone)]
pub struct Pattern {
    text: Vec<u8>,
    items: Vec<Item>,
    /// Where in the text the zone's offset is shown.
    offsets: Vec<Range<usize>>,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    ///
    /// Refuses directives that are unknown or incomplete, and texts that no file can be
    /// called by; the error tells the byte.
    pub fn new(text: impl AsRef<Path>) -> Result<Self, PatternError> {
        let text = text.as_ref().as_os_str().as_bytes();
        let directive::Parsed { items, offsets } = directive::parse(text)?;
        match text.rsplit(|&byte| byte == b'/').next() {
            None | Some(b"") => Err(PatternError::new(text.len(), "no file name")),
            Some(b"." | b"..") => Err(PatternError::new(text.len(), "a directory's name")),
            Some(_) => Ok(Self {
                text: text.to_vec(),
                items,
                offsets,
            }),
        }
    }

    /// Returns the path that the pattern makes of a time.
    #[must_use]
    pub fn path_at(&self, time: SystemTime, clock: &Clock) -> PathBuf {
        let (seconds, nanos) = seconds_and_nanos(time);
        self.render_at(clock.zone_ref(), seconds, nanos)
    }

    /// Tells when and how this pattern wrote the file of this path, or `None` if it did
    /// not.
    ///
    /// The path must be one that the pattern makes of some time, byte for byte, but for
    /// the `.1`, `.2`, … of later generations and a `.gz` or `.zst`. Where the pattern has
    /// `%z` or `%Z`, the path must have what `clock`'s zone had at that time.
    #[must_use]
    pub fn parse(&self, path: &Path, clock: &Clock) -> Option<LogFile> {
        LogFile::parse(path, |base| {
            self.time_of(base.as_os_str().as_bytes(), clock)
        })
    }

    /// Renders a moment.
    pub(crate) fn render_at(&self, zone: &Zone, instant: i64, nanos: u32) -> PathBuf {
        Stamp::shown(zone, instant, zone.local_time(instant), nanos)
            .map_or_else(|| self.literal(), |stamp| self.render(&stamp))
    }

    /// Renders the name of a period.
    pub(crate) fn render_period(&self, zone: &Zone, start: i64, local: i64) -> PathBuf {
        Stamp::shown(zone, start, local, 0)
            .map_or_else(|| self.literal(), |stamp| self.render(&stamp))
    }

    /// Returns the time at which a base path of this pattern begins.
    fn time_of(&self, path: &[u8], clock: &Clock) -> Option<Option<i64>> {
        let found = inverse::Search {
            pattern: self,
            zone: clock.zone_ref(),
            latest: seconds_and_nanos(clock.now()).0,
        }
        .find(path)?;
        Some(self.is_calendar().then_some(found))
    }

    pub(crate) fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.text)
    }

    /// Tells whether the name is the same at all times.
    pub(crate) fn is_fixed(&self) -> bool {
        self.fields().next().is_none()
    }

    /// Returns the longest that a name can stay the same, in seconds.
    pub(crate) fn span(&self) -> i64 {
        self.fields().map(Field::span).min().unwrap_or(0)
    }

    /// Tells whether a name stands for one moment only: it has a year, and under it
    /// every step down to its finest.
    pub(crate) fn is_calendar(&self) -> bool {
        let has = |wanted: &[Field]| self.fields().any(|field| wanted.contains(&field));
        if has(&[Field::Epoch]) {
            return true;
        }
        let year = has(&[Field::Year, Field::Year2]);
        let iso_year = has(&[Field::IsoYear, Field::IsoYear2]);
        let month = has(&[Field::Month, Field::MonthName]);
        let weekday = has(&[Field::Weekday1, Field::Weekday0, Field::WeekdayName]);
        let week = year && has(&[Field::WeekSunday, Field::WeekMonday]);
        let iso_week = iso_year && has(&[Field::IsoWeek]);
        let day = year && (month && has(&[Field::Day]) || has(&[Field::YearDay]))
            || (week || iso_week) && weekday;
        let hour = has(&[Field::Hour24]) || has(&[Field::Hour12]) && has(&[Field::Meridiem]);
        let minute = has(&[Field::Minute]);
        let steps = [
            (has(&[Field::Fraction]), has(&[Field::Second])),
            (has(&[Field::Hour12]), hour),
            (has(&[Field::Second]), minute),
            (minute, hour),
            (has(&[Field::Hour24, Field::Hour12, Field::Meridiem]), day),
            (has(&[Field::Day, Field::YearDay]) || weekday, day),
            (month, year),
        ];
        (year || iso_year) && steps.iter().all(|&(finer, coarser)| !finer || coarser)
    }

    /// Returns the deepest directory whose name is the same at all times.
    pub(crate) fn root(&self) -> PathBuf {
        let fixed: Vec<u8> = self
            .items
            .iter()
            .map_while(Item::literal)
            .flatten()
            .copied()
            .collect();
        let end = fixed.iter().rposition(|&byte| byte == b'/');
        let end = match end {
            Some(0) => 1,
            Some(end) => end,
            None => 0,
        };
        PathBuf::from(OsStr::from_bytes(&fixed[..end]))
    }

    /// Returns the items of each component of the path under the root, directories first.
    pub(crate) fn components(&self) -> Vec<Component> {
        let mut components = vec![Component { items: Vec::new() }];
        for item in &self.items {
            let Some(literal) = item.literal() else {
                if let Some(last) = components.last_mut() {
                    last.items.push(item.clone());
                }
                continue;
            };
            for (index, part) in literal.split(|&byte| byte == b'/').enumerate() {
                if index > 0 {
                    components.push(Component { items: Vec::new() });
                }
                if let (Some(last), false) = (components.last_mut(), part.is_empty()) {
                    last.items.push(Item::Literal(part.to_vec()));
                }
            }
        }
        let leaf = components.len() - 1;
        let varying = components.iter().position(|part| part.name().is_none());
        components.split_off(varying.unwrap_or(leaf).min(leaf))
    }

    fn fields(&self) -> impl Iterator<Item = Field> {
        self.items.iter().filter_map(Item::field)
    }

    fn render(&self, stamp: &Stamp<'_>) -> PathBuf {
        let mut path = Vec::with_capacity(self.text.len() + 32);
        let mut from = 0;
        for offset in &self.offsets {
            if strftime::io::strftime(stamp, &self.text[from..offset.start], &mut path).is_err() {
                return self.literal();
            }
            path.extend(stamp.offset(&self.text[offset.clone()]));
            from = offset.end;
        }
        match strftime::io::strftime(stamp, &self.text[from..], &mut path) {
            Ok(()) => PathBuf::from(OsString::from_vec(path)),
            Err(_) => self.literal(),
        }
    }

    /// A name for a time so far off that no calendar reaches it.
    fn literal(&self) -> PathBuf {
        PathBuf::from(self.as_os_str())
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::new(text)
    }
}

/// Writes the text that the pattern was compiled from.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_os_str().display().fmt(f)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.as_os_str()).finish()
    }
}

/// What one directory or file of a pattern may be called.
#[derive(Debug)]
pub(crate) struct Component {
    items: Vec<Item>,
}

impl Component {
    /// Returns the name, when it is the same at all times.
    pub(crate) fn name(&self) -> Option<PathBuf> {
        let parts: Option<Vec<&[u8]>> = self.items.iter().map(Item::literal).collect();
        parts.map(|parts| PathBuf::from(OsStr::from_bytes(&parts.concat())))
    }

    /// Tells whether a directory's name can be of this pattern. It may still turn out not
    /// to be, once the whole path is known.
    pub(crate) fn admits(&self, name: &OsStr) -> bool {
        inverse::admits(&self.items, name.as_bytes())
    }
}
