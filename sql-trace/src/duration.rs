use std::fmt;
use std::time::Duration;

/// A duration as Go's `time.Duration.String` prints it: `0s`, `812ns`,
/// `44.535µs`, `1.5ms`, `2.25s`, `1m0.5s`, `1h0m0s`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GoDuration(pub(crate) Duration);

impl GoDuration {
    pub(crate) fn write<W: fmt::Write>(self, out: &mut W) -> fmt::Result {
        match u64::try_from(self.0.as_nanos()) {
            Ok(0) => out.write_str("0s"),
            Ok(n) if n < 1_000 => write_decimal(out, n, 1, "ns"),
            Ok(n) if n < 1_000_000 => write_decimal(out, n, 1_000, "µs"),
            Ok(n) if n < NANOS => write_decimal(out, n, 1_000_000, "ms"),
            _ => {
                let seconds = self.0.as_secs();
                let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
                if hours > 0 {
                    write!(out, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(out, "{minutes}m")?;
                }
                let rest = seconds % 60 * NANOS + u64::from(self.0.subsec_nanos());
                write_decimal(out, rest, NANOS, "s")
            }
        }
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

const NANOS: u64 = 1_000_000_000;

/// Writes `n / unit` without trailing zeros. `unit` is a power of ten.
fn write_decimal<W: fmt::Write>(out: &mut W, n: u64, unit: u64, suffix: &str) -> fmt::Result {
    let mut digits = Digits::default();
    let (mut fraction, mut scale) = (n % unit, unit);
    if fraction > 0 {
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            scale /= 10;
        }
        while scale > 1 {
            digits.push((fraction % 10) as u8);
            fraction /= 10;
            scale /= 10;
        }
        digits.point();
    }
    digits.push_all(n / unit);
    digits.write(out)?;
    out.write_str(suffix)
}

/// Writes a number without the formatting machinery, which is felt in a line
/// that is written with each statement.
pub(crate) fn write_int<W: fmt::Write>(out: &mut W, n: u64) -> fmt::Result {
    let mut digits = Digits::default();
    digits.push_all(n);
    digits.write(out)
}

/// Digits, filled from the right.
struct Digits {
    bytes: [u8; 40],
    start: usize,
}

impl Default for Digits {
    fn default() -> Self {
        Self {
            bytes: [0; 40],
            start: 40,
        }
    }
}

impl Digits {
    fn push(&mut self, digit: u8) {
        self.start -= 1;
        self.bytes[self.start] = b'0' + digit;
    }

    fn point(&mut self) {
        self.start -= 1;
        self.bytes[self.start] = b'.';
    }

    fn push_all(&mut self, mut n: u64) {
        loop {
            self.push((n % 10) as u8);
            n /= 10;
            if n == 0 {
                break;
            }
        }
    }

    fn write<W: fmt::Write>(&self, out: &mut W) -> fmt::Result {
        out.write_str(str::from_utf8(&self.bytes[self.start..]).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_go_prints() {
        // The table of Go's own time_test.go, and its neighbours.
        for (nanos, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (999, "999ns"),
            (1_000, "1µs"),
            (1_100, "1.1µs"),
            (44_535, "44.535µs"),
            (999_999, "999.999µs"),
            (1_000_000, "1ms"),
            (2_200_000, "2.2ms"),
            (1_000_001, "1.000001ms"),
            (999_999_999, "999.999999ms"),
            (1_000_000_000, "1s"),
            (3_300_000_000, "3.3s"),
            (59_999_999_999, "59.999999999s"),
            (60_000_000_000, "1m0s"),
            (60_500_000_000, "1m0.5s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (3_600_000_000_000, "1h0m0s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (480_000_000_001, "8m0.000000001s"),
        ] {
            assert_eq!(
                GoDuration(Duration::from_nanos(nanos)).to_string(),
                expected
            );
        }
        assert_eq!(
            GoDuration(Duration::from_secs(u64::MAX)).to_string(),
            "5124095576030431h0m15s"
        );
    }
}
