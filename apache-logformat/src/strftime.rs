//! `strftime` as glibc 2.36 has it in the C locale, compiled once.

use crate::zone::{Civil, Span, is_leap};

/// A compiled `strftime` text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Strftime(Box<[Part]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<[u8]>),
    Field(Field),
}

/// One conversion: `%`, flags, a width, and the letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    conversion: u8,
    pad: Pad,
    /// Minimal width; 0 when none is asked for.
    width: usize,
    upper: bool,
    change_case: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pad {
    /// Zeros for numbers, blanks for text.
    Usual,
    Zeros,
    Blanks,
    No,
}

/// httpd renders into a buffer of this size; a width beyond it is cut down to it,
/// so that no format can ask for gigabytes.
const WIDTH_MAX: usize = 8191;

impl Strftime {
    pub(crate) fn new(text: &[u8]) -> Self {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some((&byte, after)) = rest.split_first() {
            if byte != b'%' {
                literal.push(byte);
                rest = after;
                continue;
            }
            let (field, length) = Field::parse(rest);
            let (spec, after) = rest.split_at(length);
            rest = after;
            match field {
                Ok(field) => {
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal).into()));
                    }
                    parts.push(Part::Field(field));
                }
                // What glibc does not know it copies, padded like any text.
                Err(field) => field.write_text(spec, &mut literal),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Self(parts.into())
    }

    /// Appends `second` of the epoch, broken down by `span`.
    pub(crate) fn write(&self, second: i64, span: &Span, out: &mut Vec<u8>) {
        let moment = Moment {
            second,
            span,
            civil: Civil::new(second, span.offset),
        };
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Field(field) => field.write(&moment, out),
            }
        }
    }
}

struct Moment<'a> {
    second: i64,
    span: &'a Span,
    civil: Civil,
}

impl Field {
    fn plain(conversion: u8) -> Self {
        Self {
            conversion,
            pad: Pad::Usual,
            width: 0,
            upper: false,
            change_case: false,
        }
    }

    /// Parses the specification that `text` starts with; returns its length, and
    /// as an error the padding for one that is unknown.
    fn parse(text: &[u8]) -> (Result<Self, Self>, usize) {
        let mut field = Self::plain(0);
        let at = |index: usize| text.get(index).copied();
        let mut index = 1;
        loop {
            match at(index) {
                Some(b'_') => field.pad = Pad::Blanks,
                Some(b'-') => field.pad = Pad::No,
                Some(b'0') => field.pad = Pad::Zeros,
                Some(b'^') => field.upper = true,
                Some(b'#') => field.change_case = true,
                _ => break,
            }
            index += 1;
        }
        while let Some(digit @ b'0'..=b'9') = at(index) {
            field.width = (field.width * 10 + usize::from(digit - b'0')).min(WIDTH_MAX);
            index += 1;
        }
        let modifier = at(index).filter(|byte| matches!(byte, b'E' | b'O'));
        index += usize::from(modifier.is_some());

        // A `%` at the very end is copied with what is around it.
        let Some(conversion) = at(index) else {
            return (Err(field), index);
        };
        field.conversion = conversion;
        let allowed: &[u8] = match modifier {
            None => b"%aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ",
            Some(b'E') => b"%cCnpPrRsTtuxXyYzZ",
            Some(_) => b"%bBCdeGghHIjklmMnpPrRsStTuUVwWyzZ",
        };
        if allowed.contains(&conversion) {
            (Ok(field), index + 1)
        } else {
            // glibc looks at `#` before it finds that it does not know `%Eb`.
            field.upper |= field.change_case && matches!(conversion, b'b' | b'h');
            (Err(field), index + 1)
        }
    }

    fn write(&self, moment: &Moment<'_>, out: &mut Vec<u8>) {
        let civil = &moment.civil;
        let weekday = WEEKDAYS[usize::from(civil.weekday)];
        let month = MONTHS[usize::from(civil.month) - 1];
        let hour12 = (i64::from(civil.hour) + 11) % 12 + 1;
        match self.conversion {
            b'%' => self.write_text(b"%", out),
            b'a' => self.swapped_upper().write_text(&weekday[..3], out),
            b'A' => self.swapped_upper().write_text(weekday, out),
            b'b' | b'h' => self.swapped_upper().write_text(&month[..3], out),
            b'B' => self.swapped_upper().write_text(month, out),
            b'c' => self.write_all(b"%a %b %e %H:%M:%S %Y", moment, out),
            b'C' => self.write_number(1, civil.year.div_euclid(100), out),
            b'd' => self.write_number(2, civil.day.into(), out),
            b'D' | b'x' => self.write_all(b"%m/%d/%y", moment, out),
            b'e' => self.blanks().write_number(2, civil.day.into(), out),
            b'F' => self.write_all(b"%Y-%m-%d", moment, out),
            b'g' => self.write_number(2, civil.iso_week().0.rem_euclid(100), out),
            b'G' => self.write_number(1, civil.iso_week().0, out),
            b'H' => self.write_number(2, civil.hour.into(), out),
            b'I' => self.write_number(2, hour12, out),
            b'j' => self.write_number(3, i64::from(civil.yearday) + 1, out),
            b'k' => self.blanks().write_number(2, civil.hour.into(), out),
            b'l' => self.blanks().write_number(2, hour12, out),
            b'm' => self.write_number(2, civil.month.into(), out),
            b'M' => self.write_number(2, civil.minute.into(), out),
            b'n' => self.write_text(b"\n", out),
            b'p' | b'P' => {
                let lower = self.conversion == b'P' || self.change_case;
                let text: &[u8] = match (civil.hour < 12, lower) {
                    (true, false) => b"AM",
                    (false, false) => b"PM",
                    (true, true) => b"am",
                    (false, true) => b"pm",
                };
                // Lower case wins over the `^` flag.
                Self {
                    upper: false,
                    ..*self
                }
                .write_text(text, out);
            }
            b'r' => self.write_all(b"%I:%M:%S %p", moment, out),
            b'R' => self.write_all(b"%H:%M", moment, out),
            // A number whose width is filled like a text's.
            b's' => self.write_text(itoa::Buffer::new().format(moment.second).as_bytes(), out),
            b'S' => self.write_number(2, civil.second.into(), out),
            b't' => self.write_text(b"\t", out),
            b'T' | b'X' => self.write_all(b"%H:%M:%S", moment, out),
            b'u' => self.write_number(1, i64::from(civil.weekday + 6) % 7 + 1, out),
            b'U' => self.write_number(2, civil.week_from(0), out),
            b'V' => self.write_number(2, civil.iso_week().1, out),
            b'w' => self.write_number(1, civil.weekday.into(), out),
            b'W' => self.write_number(2, civil.week_from(1), out),
            b'y' => self.write_number(2, civil.year.rem_euclid(100), out),
            b'Y' => self.write_number(1, civil.year, out),
            b'z' => {
                // The sign is text of its own and takes the whole width first.
                let offset = moment.span.offset;
                self.write_text(if offset < 0 { b"-" } else { b"+" }, out);
                let minutes = i64::from(offset.unsigned_abs() / 60);
                self.write_number(4, minutes / 60 * 100 + minutes % 60, out);
            }
            b'Z' => {
                let start = out.len();
                let upper = self.upper && !self.change_case;
                Self { upper, ..*self }.write_text(moment.span.abbreviation(), out);
                if self.change_case {
                    out[start..].make_ascii_lowercase();
                }
            }
            _ => {}
        }
    }

    /// For names: the `#` flag makes them upper case.
    fn swapped_upper(self) -> Self {
        Self {
            upper: self.upper || self.change_case,
            ..self
        }
    }

    /// For numbers that blanks fill unless a flag says otherwise.
    fn blanks(self) -> Self {
        let pad = if self.pad == Pad::Usual {
            Pad::Blanks
        } else {
            self.pad
        };
        Self { pad, ..self }
    }

    /// Writes what `text`, another format, gives.
    fn write_all(&self, text: &[u8], moment: &Moment<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        let mut rest = text;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match (byte, after.split_first()) {
                (b'%', Some((&conversion, after))) => {
                    Self::plain(conversion).write(moment, out);
                    rest = after;
                }
                _ => out.push(byte),
            }
        }
        let length = out.len() - start;
        self.pad_front(start, length, out);
        if self.upper {
            out[start..].make_ascii_uppercase();
        }
    }

    fn write_text(&self, text: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(text);
        if self.upper {
            out[start..].make_ascii_uppercase();
        }
        self.pad_front(start, text.len(), out);
    }

    fn pad_front(&self, start: usize, length: usize, out: &mut Vec<u8>) {
        let missing = self.width.saturating_sub(length);
        if missing > 0 {
            let fill = if self.pad == Pad::Zeros { b'0' } else { b' ' };
            out.splice(start..start, std::iter::repeat_n(fill, missing));
        }
    }

    fn write_number(&self, digits: usize, number: i64, out: &mut Vec<u8>) {
        let digits = digits.max(self.width);
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(number).as_bytes();
        let missing = digits.saturating_sub(text.len());
        match self.pad {
            Pad::No => {
                // The width still holds, and is filled as for text.
                self.write_text(text, out);
            }
            Pad::Blanks => {
                out.resize(out.len() + missing, b' ');
                out.extend_from_slice(text);
            }
            Pad::Usual | Pad::Zeros => {
                let (sign, text) = match text.strip_prefix(b"-") {
                    Some(text) => (&b"-"[..], text),
                    None => (&b""[..], text),
                };
                out.extend_from_slice(sign);
                out.resize(out.len() + missing, b'0');
                out.extend_from_slice(text);
            }
        }
    }
}

impl Civil {
    /// Returns the week of the year, when weeks start on `first` (0: Sunday).
    fn week_from(&self, first: u8) -> i64 {
        let since = (self.weekday + 7 - first) % 7;
        (i64::from(self.yearday) + 7 - i64::from(since)) / 7
    }

    /// Returns the year and the week by ISO 8601.
    fn iso_week(&self) -> (i64, i64) {
        // Thursday decides which year a week belongs to.
        let thursday = i64::from(self.yearday) + 3 - i64::from((self.weekday + 6) % 7);
        let days = |year| 365 + i64::from(is_leap(year));
        if thursday < 0 {
            let year = self.year - 1;
            (year, (thursday + days(year)) / 7 + 1)
        } else if thursday >= days(self.year) {
            (self.year + 1, 1)
        } else {
            (self.year, thursday / 7 + 1)
        }
    }
}

const WEEKDAYS: [&[u8]; 7] = [
    b"Sunday",
    b"Monday",
    b"Tuesday",
    b"Wednesday",
    b"Thursday",
    b"Friday",
    b"Saturday",
];

pub(crate) const MONTHS: [&[u8]; 12] = [
    b"January",
    b"February",
    b"March",
    b"April",
    b"May",
    b"June",
    b"July",
    b"August",
    b"September",
    b"October",
    b"November",
    b"December",
];
