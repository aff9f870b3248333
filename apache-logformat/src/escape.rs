//! How bytes that are not plain text are written.

use std::cell::Cell;

/// How a format writes bytes that are not plain text.
///
/// Every value that a request, a response or the service supplies goes through
/// it; the literal text of the format does not. Whatever the bytes, the output
/// holds no line feed, no other control character, and nothing that ends a
/// quoted field.
///
/// There is no way to write request data unescaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Escape {
    /// As Apache httpd does (`ap_escape_logitem`): `\"` `\\` `\b` `\n` `\r`
    /// `\t` `\v`, and `\xhh` for every other byte outside 0x20–0x7e.
    #[default]
    Apache,
    /// As JSON string content: `\"` `\\` `\b` `\f` `\n` `\r` `\t`, `\u00HH` for
    /// the other C0 and C1 controls and DEL, and `\uFFFD` for bytes that are not
    /// UTF-8. Other text stays as it is.
    ///
    /// When the format's text is a JSON object, directives outside its strings
    /// become JSON values: a number stays bare, an absent value becomes `null`,
    /// anything else becomes a string. Those that touch each other or other text
    /// there are one value together: `%{sec}t.%{msec_frac}t` a number, `%U%q` a string.
    Json,
    /// As nginx's `escape=default`: `\xHH` for `"`, `\` and every byte outside
    /// 0x20–0x7e.
    Nginx,
}

impl Escape {
    /// Appends `value`, escaped.
    #[inline]
    pub(crate) fn write(self, value: &[u8], out: &mut Vec<u8>) {
        if is_plain(value) {
            out.extend_from_slice(value);
        } else {
            self.write_special(value, out);
        }
    }

    #[cold]
    fn write_special(self, value: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Apache => write_bytes(value, out, apache),
            Self::Json => write_json(value, out),
            Self::Nginx => write_bytes(value, out, nginx),
        }
    }

    /// Appends `value`, escaped; returns false when there is none.
    pub(crate) fn write_known(self, value: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
        value.map(|value| self.write(value, out)).is_some()
    }

    /// Appends `""`, the mark of an empty user.
    pub(crate) fn write_quotes(self, out: &mut Vec<u8>) {
        match self {
            Self::Apache | Self::Nginx => out.extend_from_slice(b"\"\""),
            // The string that a JSON format puts around it shows as much.
            Self::Json => {}
        }
    }

    /// Replaces everything from `start` on by its escaped form.
    ///
    /// For values that have to be put together first: the end of `out` is their
    /// workspace.
    pub(crate) fn rewrite(self, start: usize, out: &mut Vec<u8>) {
        if is_plain(&out[start..]) {
            return;
        }
        with_scratch(|value| {
            value.extend_from_slice(&out[start..]);
            out.truncate(start);
            self.write(value, out);
        });
    }
}

/// Calls `work` with an empty buffer that this thread keeps for the purpose.
pub(crate) fn with_scratch<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    // A thread that ends has none: what it drops last may still leave a line.
    let mut buffer = SCRATCH.try_with(Cell::take).unwrap_or_default();
    buffer.clear();
    let result = work(&mut buffer);
    if buffer.capacity() <= SCRATCH_KEPT {
        let _ = SCRATCH.try_with(|kept| kept.set(buffer));
    }
    result
}

/// A buffer larger than this is given back rather than kept by the thread.
const SCRATCH_KEPT: usize = 16 * 1024;

thread_local! {
    /// Taken out while in use, so that nothing can find it borrowed.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Whether no notation has anything to escape in `value`.
///
/// Most values of most requests end here, so it looks at whole chunks without a
/// branch; the last one may overlap the one before.
#[inline]
fn is_plain(value: &[u8]) -> bool {
    if let Some(last) = value.last_chunk::<16>() {
        let (chunks, _) = value.as_chunks::<16>();
        chunks.iter().all(are_plain) && are_plain(last)
    } else if let (Some(first), Some(last)) = (value.first_chunk::<8>(), value.last_chunk::<8>()) {
        are_plain(first) && are_plain(last)
    } else {
        value.iter().all(|&byte| is_plain_byte(byte))
    }
}

#[inline]
fn are_plain<const N: usize>(bytes: &[u8; N]) -> bool {
    // Without a branch, which becomes vector instructions.
    let mut special = 0;
    for &byte in bytes {
        special |= u8::from(!is_plain_byte(byte));
    }
    special == 0
}

#[inline]
fn is_plain_byte(byte: u8) -> bool {
    // One subtraction covers both ends: 0x20..=0x7e.
    (byte.wrapping_sub(b' ') < 0x5f) & (byte != b'"') & (byte != b'\\')
}

fn write_bytes(value: &[u8], out: &mut Vec<u8>, special: fn(u8, &mut Vec<u8>)) {
    let mut rest = value;
    while let Some(at) = rest.iter().position(|&byte| !is_plain_byte(byte)) {
        out.extend_from_slice(&rest[..at]);
        special(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

fn apache(byte: u8, out: &mut Vec<u8>) {
    let letter = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x0b => b'v',
        _ => {
            let [high, low] = hex(byte, b"0123456789abcdef");
            out.extend_from_slice(&[b'\\', b'x', high, low]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', letter]);
}

fn nginx(byte: u8, out: &mut Vec<u8>) {
    let [high, low] = hex(byte, b"0123456789ABCDEF");
    out.extend_from_slice(&[b'\\', b'x', high, low]);
}

fn write_json(value: &[u8], out: &mut Vec<u8>) {
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            let letter = match character {
                '"' | '\\' => character as u8,
                '\u{8}' => b'b',
                '\u{c}' => b'f',
                '\n' => b'n',
                '\r' => b'r',
                '\t' => b't',
                '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => {
                    let [high, low] = hex(character as u8, b"0123456789ABCDEF");
                    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                    continue;
                }
                _ => {
                    let mut utf8 = [0; 4];
                    out.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
                    continue;
                }
            };
            out.extend_from_slice(&[b'\\', letter]);
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(b"\\uFFFD");
        }
    }
}

fn hex(byte: u8, digits: &[u8; 16]) -> [u8; 2] {
    [
        digits[usize::from(byte >> 4)],
        digits[usize::from(byte & 15)],
    ]
}
