//! The path that `%U` prints: decoded, slashes merged, dot segments resolved.

/// Appends the path of `target` as httpd hands it to its handlers.
///
/// The target may be in any of its four forms: a path, an absolute URI, an
/// authority (`CONNECT`) or `*`.
pub(crate) fn write(method: &[u8], target: &[u8], out: &mut Vec<u8>) {
    let raw = split(method, target).0;
    let start = out.len();
    out.extend_from_slice(raw);
    if is_resolved(raw) {
        return;
    }
    // Text that is no valid path reaches httpd's log before anything but the
    // unreserved characters is decoded: it answers 400 at once.
    if normalize(out, start, true) {
        unescape(out, start);
        normalize(out, start, false);
    }
}

/// Returns the raw path of `target`, and its query without the `?` if it has one.
pub(crate) fn split<'a>(method: &[u8], target: &'a [u8]) -> (&'a [u8], Option<&'a [u8]>) {
    let rest = if target.first() == Some(&b'/') {
        target
    } else if let Some((_, after)) = split_absolute(target) {
        after
    } else if method == b"CONNECT" {
        return (b"/", None);
    } else {
        target
    };
    let rest = match rest.iter().position(|&byte| byte == b'#') {
        Some(at) => &rest[..at],
        None => rest,
    };
    let (path, query) = match rest.iter().position(|&byte| byte == b'?') {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    if path.is_empty() && !target.is_empty() {
        return (b"/", query);
    }
    (path, query)
}

/// Splits an absolute URI into its authority and what follows.
pub(crate) fn split_absolute(target: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = target.iter().position(|&byte| byte == b':')?;
    let scheme = &target[..colon];
    let after = target[colon..].strip_prefix(b"://")?;
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    if !is_scheme {
        return None;
    }
    let end = after
        .iter()
        .position(|byte| b"/?#".contains(byte))
        .unwrap_or(after.len());
    Some(after.split_at(end))
}

/// Splits an absolute URI around the password in it.
pub(crate) fn split_password(target: &[u8]) -> Option<(&[u8], &[u8])> {
    if target.first() == Some(&b'/') {
        return None;
    }
    let (authority, after) = split_absolute(target)?;
    let at = authority.iter().rposition(|&byte| byte == b'@')?;
    let colon = authority[..at].iter().position(|&byte| byte == b':')?;
    let start = target.len() - after.len() - authority.len();
    Some((&target[..start + colon + 1], &target[start + at..]))
}

/// Whether resolving would change nothing, as for nearly every path.
pub(crate) fn is_resolved(path: &[u8]) -> bool {
    path.first() == Some(&b'/')
        && !path.contains(&b'%')
        && !path.windows(2).any(|pair| matches!(pair, b"//" | b"/."))
}

/// Resolves `path[start..]` in place; false for an invalid escape, a path that
/// climbs above the root, or one that is none.
///
/// Port of httpd's `ap_normalize_path`.
fn normalize(path: &mut Vec<u8>, start: usize, decode_unreserved: bool) -> bool {
    let at = |path: &[u8], index: usize| path.get(index).copied();
    let ends_segment = |byte: Option<u8>| matches!(byte, None | Some(b'/'));

    if at(path, start) != Some(b'/') {
        return false;
    }
    let mut valid = true;
    let (mut read, mut write) = (start + 1, start + 1);
    while let Some(mut byte) = at(path, read) {
        if decode_unreserved && byte == b'%' {
            match decode(path, read) {
                Some(decoded) if is_unreserved(decoded) => {
                    read += 2;
                    path[read] = decoded;
                    byte = decoded;
                }
                Some(_) => {}
                None => valid = false,
            }
        }
        if path[write - 1] == b'/' {
            if byte == b'/' {
                read += 1;
                continue;
            }
            if byte == b'.' {
                if ends_segment(at(path, read + 1)) {
                    read += 2;
                    continue;
                }
                // The second dot may still be encoded: only the first was decoded.
                let second = if at(path, read + 1) == Some(b'.') {
                    Some(read + 1)
                } else if decode_unreserved && decode(path, read + 1) == Some(b'.') {
                    Some(read + 3)
                } else {
                    None
                };
                if let Some(second) = second
                    && ends_segment(at(path, second + 1))
                {
                    if write > start + 1 {
                        write -= 1;
                        while path[write - 1] != b'/' {
                            write -= 1;
                        }
                    } else {
                        valid = false;
                    }
                    read = second + 2;
                    continue;
                }
            }
        }
        path[write] = byte;
        write += 1;
        read += 1;
    }
    path.truncate(write);
    valid
}

/// Decodes every escape in `path[start..]`, in place.
fn unescape(path: &mut Vec<u8>, start: usize) {
    let (mut read, mut write) = (start, start);
    while read < path.len() {
        let mut byte = path[read];
        if byte == b'%'
            && let Some(decoded) = decode(path, read)
        {
            byte = decoded;
            read += 2;
        }
        path[write] = byte;
        write += 1;
        read += 1;
    }
    path.truncate(write);
}

/// Decodes the escape that starts at `index`.
fn decode(path: &[u8], index: usize) -> Option<u8> {
    let &[b'%', high, low] = path.get(index..index + 3)? else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}
