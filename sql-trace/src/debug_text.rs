//! Reading the text that `derive(Debug)` writes, where a driver offers no
//! other way to its data.

/// The text after the first `name` of a field or of the like.
pub(crate) fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.split_once(name).map(|(_, value)| value)
}

/// The items of the list that `text` begins with.
pub(crate) fn items(text: &str) -> Option<Vec<&str>> {
    let body = text.strip_prefix('[')?;
    let mut items = Vec::new();
    let (mut depth, mut start, mut quoted, mut escaped) = (0usize, 0, false, false);
    for (at, byte) in body.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'(' | b'{' => depth += 1,
            b')' | b'}' => depth = depth.checked_sub(1)?,
            b']' if depth > 0 => depth -= 1,
            b']' => {
                let last = body[start..at].trim();
                if !last.is_empty() {
                    items.push(last);
                }
                return Some(items);
            }
            b',' if depth == 0 => {
                items.push(body[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_split_at_the_outer_commas_only() {
        assert_eq!(items("[]"), Some(vec![]));
        assert_eq!(items("[A, B(1, 2)] rest"), Some(vec!["A", "B(1, 2)"]));
        assert_eq!(
            items(r#"[X { y: [1, 2], z: "a, \"]" }, C]"#),
            Some(vec![r#"X { y: [1, 2], z: "a, \"]" }"#, "C"])
        );
        assert_eq!(items("[A, B"), None);
        assert_eq!(items("A]"), None);
        assert_eq!(items("[)]"), None);
    }
}
