//! Instants as text.

use std::cell::Cell;

use crate::{
    strftime::MONTHS,
    timestamp::Timestamp,
    zone::{Civil, Zone},
};

/// Appends `[18/Sep/2011:19:18:28 -0400]`.
pub(crate) fn write_common(instant: Timestamp, zone: &Zone, out: &mut Vec<u8>) {
    let second = instant.seconds();
    let cached = COMMON.get();
    if cached.zone == zone.id() && cached.second == second {
        out.extend_from_slice(&cached.text);
        return;
    }
    let offset = zone.span(second).offset;
    let civil = Civil::new(second, offset);
    let start = out.len();
    out.push(b'[');
    write_padded(civil.day.into(), 2, out);
    out.push(b'/');
    out.extend_from_slice(&MONTHS[usize::from(civil.month) - 1][..3]);
    out.push(b'/');
    out.extend_from_slice(itoa::Buffer::new().format(civil.year).as_bytes());
    out.push(b':');
    write_clock(&civil, out);
    out.push(b' ');
    write_offset(offset, None, out);
    out.push(b']');
    // A year of more or fewer than four digits does not fit; it can wait.
    if let Ok(text) = out[start..].try_into() {
        COMMON.set(CommonCache {
            zone: zone.id(),
            second,
            text,
        });
    }
}

/// Appends `2011-09-18T19:18:28-04:00`.
pub(crate) fn write_iso8601(instant: Timestamp, zone: &Zone, out: &mut Vec<u8>) {
    let second = instant.seconds();
    let offset = zone.span(second).offset;
    let civil = Civil::new(second, offset);
    write_padded(civil.year.unsigned_abs() as u32, 4, out);
    out.push(b'-');
    write_padded(civil.month.into(), 2, out);
    out.push(b'-');
    write_padded(civil.day.into(), 2, out);
    out.push(b'T');
    write_clock(&civil, out);
    write_offset(offset, Some(b':'), out);
}

/// Appends `number` with at least `digits` digits.
pub(crate) fn write_padded(number: u32, digits: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(number).as_bytes();
    out.resize(out.len() + digits.saturating_sub(text.len()), b'0');
    out.extend_from_slice(text);
}

fn write_clock(civil: &Civil, out: &mut Vec<u8>) {
    write_padded(civil.hour.into(), 2, out);
    out.push(b':');
    write_padded(civil.minute.into(), 2, out);
    out.push(b':');
    write_padded(civil.second.into(), 2, out);
}

/// Appends `+hhmm`; seconds that an offset of old may have are dropped.
fn write_offset(offset: i32, separator: Option<u8>, out: &mut Vec<u8>) {
    out.push(if offset < 0 { b'-' } else { b'+' });
    let minutes = offset.unsigned_abs() / 60;
    write_padded(minutes / 60, 2, out);
    out.extend(separator);
    write_padded(minutes % 60, 2, out);
}

thread_local! {
    /// The second that this thread printed last: requests share seconds.
    static COMMON: Cell<CommonCache> = const {
        Cell::new(CommonCache {
            zone: 0,
            second: 0,
            text: [0; 28],
        })
    };
}

#[derive(Clone, Copy)]
struct CommonCache {
    zone: u64,
    second: i64,
    text: [u8; 28],
}
