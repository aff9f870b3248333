/// Finds out whether a text can be the name of a program: it is a part of names
/// of files, and stands before and behind dashes there.
///
/// # Errors
///
/// Fails with what is wrong with it.
pub(crate) fn check(name: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if name.is_empty() || name.starts_with(['.', '-']) || !name.bytes().all(allowed) {
        return Err(
            "is no name of a program: letters, digits, `_`, `.` and `-` are, the first neither `.` nor `-`",
        );
    }
    if name.len() > MAX_LENGTH {
        return Err("is no name of a program: it is longer than 64 bytes");
    }
    Ok(())
}

const MAX_LENGTH: usize = 64;
