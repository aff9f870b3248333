use std::fmt;

/// The short name of a link: one to sixteen ASCII letters and digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code(String);

impl Code {
    /// Draws a code of seven letters and digits from the system's random
    /// numbers, so that codes can be neither guessed nor counted.
    ///
    /// # Errors
    ///
    /// When the system has no random numbers to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut code = String::with_capacity(LENGTH);
        while code.len() < LENGTH {
            let mut bytes = [0; 2 * LENGTH];
            getrandom::fill(&mut bytes)?;
            // Bytes past the last whole multiple of 62 would favour the
            // first letters.
            let fair = bytes.iter().filter(|&&byte| byte < 248);
            let drawn = fair.map(|&byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
            code.extend(drawn.take(LENGTH - code.len()));
        }
        Ok(Self(code))
    }

    /// Reads a code out of a request's path, or `None` when the text cannot
    /// be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits =
            (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        fits.then(|| Self(text.to_owned()))
    }

    /// A code that the database gave back.
    pub(crate) fn stored(code: String) -> Self {
        Self(code)
    }

    /// The code's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const LENGTH: usize = 7;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_codes_parse_and_differ() {
        let codes: Vec<Code> = (0..100).map(|_| Code::random().unwrap()).collect();
        for (i, code) in codes.iter().enumerate() {
            assert_eq!(code.as_str().len(), LENGTH);
            assert_eq!(Code::parse(code.as_str()).as_ref(), Some(code));
            assert!(!codes[..i].contains(code), "{code} was drawn twice");
        }
    }

    #[test]
    fn text_that_cannot_be_a_code_is_refused() {
        for text in ["", "a-b", "a b", "../etc", "é", "12345678901234567"] {
            assert_eq!(Code::parse(text), None, "{text:?}");
        }
    }
}
