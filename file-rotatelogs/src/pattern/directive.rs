use std::ops::Range;

use crate::PatternError;
use crate::clock::DAY;

/// A piece of a pattern: text, or one value of the time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Item {
    Literal(Vec<u8>),
    /// Any number of spaces or zeros, before something wider than it needs.
    Padding,
    /// A value, written in so many bytes.
    Field {
        field: Field,
        least: usize,
        most: usize,
    },
}

/// A value of the time that a name can show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Field {
    Year,
    Century,
    Year2,
    Month,
    MonthName,
    Day,
    YearDay,
    Hour24,
    Hour12,
    Meridiem,
    Minute,
    Second,
    Fraction,
    Offset,
    ZoneName,
    WeekdayName,
    Weekday1,
    Weekday0,
    IsoYear,
    IsoYear2,
    IsoWeek,
    WeekSunday,
    WeekMonday,
    Epoch,
}

impl Item {
    pub(crate) fn literal(&self) -> Option<&[u8]> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Padding | Self::Field { .. } => None,
        }
    }

    pub(crate) fn field(&self) -> Option<Field> {
        match self {
            Self::Literal(_) | Self::Padding => None,
            Self::Field { field, .. } => Some(*field),
        }
    }
}

impl Field {
    /// Returns the longest that the value stays the same, in seconds.
    pub(crate) fn span(self) -> i64 {
        match self {
            Self::Second | Self::Fraction | Self::Epoch => 1,
            Self::Minute => 60,
            Self::Hour24 | Self::Hour12 => 3600,
            Self::Meridiem => 12 * 3600,
            Self::Day | Self::YearDay | Self::WeekdayName | Self::Weekday1 | Self::Weekday0 => DAY,
            Self::IsoWeek | Self::WeekSunday | Self::WeekMonday => 7 * DAY,
            Self::Month | Self::MonthName => 31 * DAY,
            Self::Offset | Self::ZoneName => 366 * DAY,
            Self::Year | Self::Year2 | Self::IsoYear | Self::IsoYear2 => 366 * DAY,
            Self::Century => 36_525 * DAY,
        }
    }
}

impl Field {
    /// Returns how many bytes the value takes, at least and at most, when nothing is said.
    fn length(self) -> (usize, usize) {
        match self {
            Self::Year | Self::IsoYear => (4, 4),
            Self::YearDay => (3, 3),
            Self::Weekday0 | Self::Weekday1 => (1, 1),
            Self::MonthName | Self::WeekdayName => (3, 9),
            Self::ZoneName => (1, 10),
            Self::Epoch => (1, 13),
            Self::Fraction => (0, 0),
            _ => (2, 2),
        }
    }

    fn is_name(self) -> bool {
        matches!(
            self,
            Self::MonthName | Self::WeekdayName | Self::Meridiem | Self::ZoneName
        )
    }
}

/// A pattern taken apart.
pub(crate) struct Parsed {
    pub(crate) items: Vec<Item>,
    /// Where in the text the zone's offset is shown.
    pub(crate) offsets: Vec<Range<usize>>,
}

/// Takes a pattern's text apart, as the strftime package reads it.
pub(crate) fn parse(text: &[u8]) -> Result<Parsed, PatternError> {
    if let Some(nul) = text.iter().position(|&byte| byte == 0) {
        return Err(PatternError::new(nul, "a zero byte"));
    }
    let mut items = Items(Vec::new());
    let mut offsets = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if byte == b'%' {
            let start = at;
            at += items.directive(text, at)?;
            if items.0.last().and_then(Item::field) == Some(Field::Offset) {
                offsets.push(start..at);
            }
        } else {
            items.literal(&[byte]);
            at += 1;
        }
    }
    Ok(Parsed {
        items: items.0,
        offsets,
    })
}

struct Items(Vec<Item>);

impl Items {
    fn literal(&mut self, text: &[u8]) {
        if let Some(Item::Literal(last)) = self.0.last_mut() {
            last.extend_from_slice(text);
        } else {
            self.0.push(Item::Literal(text.to_vec()));
        }
    }

    /// Reads the directive that starts at a `%` and returns its length.
    fn directive(&mut self, text: &[u8], start: usize) -> Result<usize, PatternError> {
        let rest = &text[start..];
        let unknown = |length: usize| {
            let shown = String::from_utf8_lossy(&rest[..length.min(rest.len())]).into_owned();
            PatternError::new(start, format!("unknown directive {shown:?}"))
        };
        let count = |from: usize, wanted: fn(&u8) -> bool| {
            rest[from..].iter().take_while(|byte| wanted(byte)).count()
        };

        let flags = count(1, |byte| b"-_0^#".contains(byte));
        let digits = count(1 + flags, u8::is_ascii_digit);
        let mut at = 1 + flags + digits;
        let width: usize = match &rest[1 + flags..at] {
            [] => 0,
            digits => std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .filter(|&width| width <= WIDEST)
                .ok_or_else(|| {
                    PatternError::new(start, format!("a width of more than {WIDEST}"))
                })?,
        };
        if let Some(&[modifier, specifier]) = rest.get(at..at + 2)
            && (modifier == b'E' && b"CXYcxy".contains(&specifier)
                || modifier == b'O' && b"HIMSUVWdeklmuwy".contains(&specifier))
        {
            at += 1;
        }
        let colons = count(at, |&byte| byte == b':');
        at += colons;
        let Some(&specifier) = rest.get(at) else {
            return Err(PatternError::new(start, "incomplete directive"));
        };
        at += 1;
        if colons > 3 || colons > 0 && specifier != b'z' {
            return Err(unknown(at));
        }

        let field = match specifier {
            b'%' => return Ok(self.text(b"%", width, at)),
            b'n' => return Ok(self.text(b"\n", width, at)),
            b't' => return Ok(self.text(b"\t", width, at)),
            b'c' => return self.combination("%a %b %e %H:%M:%S %Y", width, at),
            b'D' | b'x' => return self.combination("%m/%d/%y", width, at),
            b'F' => return self.combination("%Y-%m-%d", width, at),
            b'v' => return self.combination("%e-%b-%Y", width, at),
            b'r' => return self.combination("%I:%M:%S %p", width, at),
            b'R' => return self.combination("%H:%M", width, at),
            b'T' | b'X' => return self.combination("%H:%M:%S", width, at),
            b'Y' => Field::Year,
            b'C' => Field::Century,
            b'y' => Field::Year2,
            b'm' => Field::Month,
            b'B' | b'b' | b'h' => Field::MonthName,
            b'd' | b'e' => Field::Day,
            b'j' => Field::YearDay,
            b'H' | b'k' => Field::Hour24,
            b'I' | b'l' => Field::Hour12,
            b'P' | b'p' => Field::Meridiem,
            b'M' => Field::Minute,
            b'S' => Field::Second,
            b'L' | b'N' => Field::Fraction,
            b'z' => Field::Offset,
            b'Z' => Field::ZoneName,
            b'A' | b'a' => Field::WeekdayName,
            b'u' => Field::Weekday1,
            b'w' => Field::Weekday0,
            b'G' => Field::IsoYear,
            b'g' => Field::IsoYear2,
            b'V' => Field::IsoWeek,
            b'U' => Field::WeekSunday,
            b'W' => Field::WeekMonday,
            b's' => Field::Epoch,
            _ => return Err(unknown(at)),
        };
        let natural = match (field, specifier, colons) {
            (Field::Fraction, b'L', _) if width == 0 => (3, 3),
            (Field::Fraction, ..) if width == 0 => (9, 9),
            (Field::Offset, _, 0) => (5, 5),
            (Field::Offset, _, 1) => (6, 6),
            (Field::Offset, _, 2) => (9, 9),
            (Field::Offset, ..) => (3, 9),
            (field, ..) => field.length(),
        };
        let wide = (natural.0.max(width), natural.1.max(width));
        let unpadded = rest[1..=flags].contains(&b'-');
        let (least, most) = match field {
            Field::Fraction | Field::Offset => wide,
            _ if field.is_name() && unpadded => natural,
            _ if field.is_name() => wide,
            _ if unpadded => (1, natural.1),
            _ if width > 0 => (width, wide.1),
            _ => natural,
        };
        self.0.push(Item::Field { field, least, most });
        Ok(at)
    }

    fn text(&mut self, text: &[u8], width: usize, length: usize) -> usize {
        self.padding(width);
        self.literal(text);
        length
    }

    fn combination(
        &mut self,
        parts: &str,
        width: usize,
        length: usize,
    ) -> Result<usize, PatternError> {
        self.padding(width);
        for item in parse(parts.as_bytes())?.items {
            match item {
                Item::Literal(text) => self.literal(&text),
                other => self.0.push(other),
            }
        }
        Ok(length)
    }

    fn padding(&mut self, width: usize) {
        if width > 1 {
            self.0.push(Item::Padding);
        }
    }
}

/// Longer than any file name.
const WIDEST: usize = 255;
