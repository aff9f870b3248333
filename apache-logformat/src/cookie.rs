//! One cookie out of a `Cookie` header, found the way httpd finds it.

/// Finds the value of the cookie called `name`, ignoring case.
///
/// Port of the scan in mod_log_config: it splits on `;` alone, unquotes and
/// decodes nothing, skips cookies without a value, and leaves the blanks before
/// the header's very last `;` in the value.
pub(crate) fn find<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut start = 0;
    while start < header.len() {
        let token_end = header[start..]
            .iter()
            .position(|&byte| byte == b';')
            .map_or(header.len(), |at| start + at);
        let token = &header[start..token_end];
        // The header's last `;` hides the blanks before it from httpd's trimming.
        let keep_blanks = token_end + 1 == header.len();
        start = token_end + 1;

        let Some((found, value)) = split(token) else {
            continue;
        };
        if found.eq_ignore_ascii_case(name) {
            let value = trim_blanks_start(value);
            return Some(if keep_blanks { value } else { trim_end(value) });
        }
    }
    None
}

/// Finds a cookie the way nginx's `$cookie_name` does.
///
/// Unlike httpd it takes a name at the start of the header or behind `;` or
/// `,`, and accepts an empty value.
pub(crate) fn find_nginx<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = header;
    while rest.len() >= name.len() && !rest.is_empty() {
        if rest[..name.len()].eq_ignore_ascii_case(name) {
            rest = trim_spaces_start(&rest[name.len()..]);
            let (&after, value) = rest.split_first()?;
            if after == b'=' {
                let value = trim_spaces_start(value);
                let end = value.iter().position(|&byte| byte == b';');
                return Some(&value[..end.unwrap_or(value.len())]);
            }
            // Whatever it is; when it is a separator, the next cookie is missed.
            rest = value;
        }
        let next = rest.iter().position(|&byte| byte == b';' || byte == b',')?;
        rest = trim_spaces_start(&rest[next + 1..]);
    }
    None
}

/// Splits `name=value`, dropping leading `=`; `None` without a value.
fn split(token: &[u8]) -> Option<(&[u8], &[u8])> {
    let name_start = token.iter().position(|&byte| byte != b'=')?;
    let token = &token[name_start..];
    let equals = token.iter().position(|&byte| byte == b'=')?;
    let value = &token[equals + 1..];
    if value.is_empty() {
        return None;
    }
    Some((trim_end(trim_blanks_start(&token[..equals])), value))
}

fn trim_blanks_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&byte| byte != b' ' && byte != b'\t');
    &text[start.unwrap_or(text.len())..]
}

fn trim_spaces_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&byte| byte != b' ');
    &text[start.unwrap_or(text.len())..]
}

/// Drops trailing white space as C's `isspace` counts it.
fn trim_end(text: &[u8]) -> &[u8] {
    let end = text
        .iter()
        .rposition(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r'));
    &text[..end.map_or(0, |at| at + 1)]
}
