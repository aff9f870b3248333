//! The values of a format whose text is a JSON object.

use crate::{
    directive::{Context, Directive, Item, Style},
    exchange::Exchange,
};

/// Finds the items that stand outside the strings of a JSON object.
///
/// There they have to be JSON values themselves: `{"status":%>s,"ua":"%{User-Agent}i"}`
/// has one outside and one inside. What touches others or other text outside, as in
/// `{"path":%U%q}`, makes one value together. Returns whether there are any.
pub(crate) fn find_values(items: &mut [Item]) -> bool {
    for item in &mut *items {
        item.context = Context::Text;
    }
    let is_object = match items.first().map(|item| &item.directive) {
        Some(Directive::Literal(literal)) => literal.text().trim_ascii_start().starts_with(b"{"),
        _ => false,
    };
    if !is_object {
        return false;
    }
    let mut in_string = false;
    // The first part of the value that is not ended yet.
    let mut first = None;
    // How much of the text before may belong to a value.
    let mut before = 0;
    for index in 0..items.len() {
        let Directive::Literal(literal) = &items[index].directive else {
            if !in_string && first.is_none() {
                first = Some(index);
                items[index].context = Context::JsonPart(Some(before));
            } else if !in_string {
                items[index].context = Context::JsonPart(None);
            }
            continue;
        };
        let text = literal.text();
        let end = text.iter().position(|&byte| delimits(byte));
        in_string = ends_in_string(text, in_string);
        before = match text.iter().rposition(|&byte| delimits(byte)) {
            Some(last) => text.len() - 1 - last,
            None => before + text.len(),
        };
        if let Some(start) = first
            && let Some(end) = end
        {
            first = None;
            let alone = items[start].context == Context::JsonPart(Some(0)) && start + 1 == index;
            if alone && end == 0 {
                items[start].context = Context::JsonValue;
            } else {
                items[index].context = Context::JsonEnd(end);
            }
        }
    }
    items.iter().any(|item| item.context != Context::Text)
}

/// Appends what `items` print, each as its place asks for.
pub(crate) fn write(
    items: &[Item],
    exchange: &Exchange<'_>,
    style: &Style,
    absent: &[u8],
    line: &mut Vec<u8>,
) {
    let mut value = line.len();
    for item in items {
        let start = line.len();
        let present = item.write(exchange, style, line);
        if !present && item.context != Context::JsonValue {
            line.extend_from_slice(absent);
        }
        match item.context {
            Context::JsonValue if !present => line.extend_from_slice(b"null"),
            Context::JsonValue => quote_unless_number(start, line.len(), line),
            Context::JsonPart(Some(before)) => value = start - before,
            Context::JsonEnd(length) => quote_unless_number(value, start + length, line),
            Context::JsonPart(None) | Context::Text => {}
        }
    }
}

/// Whether `byte` ends a value outside of strings.
fn delimits(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b"{}[]:,\"".contains(&byte)
}

/// Whether the text of a JSON object is within a string behind `text`.
fn ends_in_string(text: &[u8], mut in_string: bool) -> bool {
    let mut escaped = false;
    for &byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
    }
    in_string
}

/// Puts quotation marks around `line[start..end]` unless it is a JSON number.
fn quote_unless_number(start: usize, end: usize, line: &mut Vec<u8>) {
    if !is_number(&line[start..end]) {
        line.insert(end, b'"');
        line.insert(start, b'"');
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
