//! The values of a format whose text is a JSON object.

use crate::directive::{Context, Directive, Item};

/// Finds the items that stand outside the strings of a JSON object.
///
/// There they have to be JSON values themselves: `{"status":%>s,"ua":"%{User-Agent}i"}`
/// has one outside and one inside.
pub(crate) fn find_values(items: &mut [Item]) {
    for item in &mut *items {
        item.context = Context::Text;
    }
    let is_object = match items.first().map(|item| &item.directive) {
        Some(Directive::Literal(literal)) => literal.text().trim_ascii_start().starts_with(b"{"),
        _ => false,
    };
    if !is_object {
        return;
    }
    let mut in_string = false;
    let mut escaped = false;
    // What stands before: the last byte of a literal, nothing behind a directive.
    let mut before = None;
    for index in 0..items.len() {
        if let Directive::Literal(literal) = &items[index].directive {
            for &byte in literal.text() {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if in_string => escaped = true,
                    b'"' => in_string = !in_string,
                    _ => {}
                }
            }
            before = literal.text().last().copied();
            continue;
        }
        if !in_string {
            let opens =
                before.is_some_and(|byte| byte.is_ascii_whitespace() || b":,[".contains(&byte));
            let closes = match items.get(index + 1).map(|item| &item.directive) {
                Some(Directive::Literal(literal)) => literal
                    .text()
                    .first()
                    .is_some_and(|byte| byte.is_ascii_whitespace() || b",]}".contains(byte)),
                _ => false,
            };
            items[index].context = if opens && closes {
                Context::JsonValue
            } else {
                Context::JsonFragment
            };
        }
        escaped = false;
        before = None;
    }
}

/// Puts quotation marks around `line[start..]` unless it is a JSON number.
pub(crate) fn quote_unless_number(start: usize, line: &mut Vec<u8>) {
    if !is_number(&line[start..]) {
        line.insert(start, b'"');
        line.push(b'"');
    }
}

fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(text);
    if whole == 0 || (whole > 1 && text[0] == b'0') {
        return false;
    }
    let mut rest = &text[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', exponent @ ..] => exponent,
            _ => exponent,
        };
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}
