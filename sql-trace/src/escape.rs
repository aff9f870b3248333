use std::fmt;

/// Writes text in which nothing can break a line, move a terminal's cursor or
/// turn the direction of writing: such characters become `\n`, `\u{1b}` and the
/// like. Quotes and backslashes stay as they are.
pub(crate) fn write_visible<W: fmt::Write>(out: &mut W, text: &str) -> fmt::Result {
    if is_plain(text) {
        return out.write_str(text);
    }
    for c in text.chars() {
        write_visible_char(out, c)?;
    }
    Ok(())
}

/// Whether there is nothing to be escaped. Without a way out early, the loop is
/// one for vectors.
pub(crate) fn is_plain(text: &str) -> bool {
    let odd = text
        .bytes()
        .fold(false, |odd, byte| odd | !(b' '..0x7f).contains(&byte));
    !odd
}

pub(crate) fn write_visible_char<W: fmt::Write>(out: &mut W, c: char) -> fmt::Result {
    if matches!(c, ' '..='~') {
        return out.write_char(c);
    }
    // It leaves alone what has a shape of its own.
    write!(out, "{}", c.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_seen_is_escaped() {
        let mut out = String::new();
        let text = "it's \"é\\日\n\u{1b}[0m\u{7f}\u{85}\u{2028}\u{202e}\0";
        write_visible(&mut out, text).unwrap();
        assert_eq!(
            out,
            "it's \"é\\日\\n\\u{1b}[0m\\u{7f}\\u{85}\\u{2028}\\u{202e}\\0"
        );
    }
}
