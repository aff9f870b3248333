//! Named values: header fields, trailers, cookies' sources, notes.

use std::ops::Range;

use http::{HeaderMap, HeaderValue, header};

use crate::record::Captured;

/// Named values of an exchange, looked up by name without regard to case.
///
/// A name may occur several times; the order is that of the wire.
///
/// # Examples
///
/// ```
/// use apache_logformat::Fields;
///
/// let fields = [(&b"Accept"[..], &b"text/html"[..]), (b"accept", b"*/*")];
/// let fields = Fields::from(&fields);
/// assert_eq!(fields.get("ACCEPT"), Some(&b"text/html"[..]));
/// assert_eq!(fields.get_all("accept").count(), 2);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Fields<'a>(Source<'a>);

/// A value with its name.
pub(crate) type Named = (Box<str>, Box<[u8]>);

#[derive(Debug, Clone, Copy, Default)]
enum Source<'a> {
    #[default]
    None,
    Slices(&'a [(&'a [u8], &'a [u8])]),
    Map(&'a HeaderMap),
    Owned(&'a [Named]),
    Captured(Captured<'a>),
}

impl<'a> Fields<'a> {
    /// Returns the first value called `name`.
    #[must_use]
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&'a [u8]> {
        self.get_all(name).next()
    }

    /// Returns every value called `name`, in the order of the wire.
    pub fn get_all<N: AsRef<[u8]>>(&self, name: N) -> impl Iterator<Item = &'a [u8]> + use<'a, N> {
        Values {
            rest: match self.0 {
                Source::None => Rest::Slices([].iter()),
                Source::Slices(fields) => Rest::Slices(fields.iter()),
                Source::Map(fields) => Rest::Map(fields.iter()),
                Source::Owned(fields) => Rest::Owned(fields.iter()),
                Source::Captured(fields) => Rest::Captured(fields, 0..usize::MAX),
            },
            name,
        }
    }

    /// Calls `each` with every value called `name`; one loop for each source,
    /// which is quicker than stepping through an iterator over all of them.
    #[inline]
    pub(crate) fn for_each(&self, name: &[u8], mut each: impl FnMut(&'a [u8])) {
        match self.0 {
            Source::Slices(fields) => {
                for (found, value) in fields {
                    if same(found, name) {
                        each(value);
                    }
                }
            }
            Source::Captured(fields) => {
                let mut index = 0;
                while let Some((found, value)) = fields.get(index) {
                    if same(found, name) {
                        each(value);
                    }
                    index += 1;
                }
            }
            _ => self.get_all(name).for_each(each),
        }
    }

    pub(crate) fn owned(values: &'a [Named]) -> Self {
        Self(Source::Owned(values))
    }

    pub(crate) fn captured(values: Captured<'a>) -> Self {
        Self(Source::Captured(values))
    }
}

impl<'a> From<&'a [(&'a [u8], &'a [u8])]> for Fields<'a> {
    fn from(fields: &'a [(&'a [u8], &'a [u8])]) -> Self {
        Self(Source::Slices(fields))
    }
}

impl<'a, const N: usize> From<&'a [(&'a [u8], &'a [u8]); N]> for Fields<'a> {
    fn from(fields: &'a [(&'a [u8], &'a [u8]); N]) -> Self {
        Self(Source::Slices(fields))
    }
}

impl<'a> From<&'a Vec<(&'a [u8], &'a [u8])>> for Fields<'a> {
    fn from(fields: &'a Vec<(&'a [u8], &'a [u8])>) -> Self {
        Self(Source::Slices(fields))
    }
}

impl<'a> From<&'a HeaderMap> for Fields<'a> {
    fn from(fields: &'a HeaderMap) -> Self {
        Self(Source::Map(fields))
    }
}

struct Values<'a, N> {
    rest: Rest<'a>,
    name: N,
}

enum Rest<'a> {
    Slices(std::slice::Iter<'a, (&'a [u8], &'a [u8])>),
    Map(header::Iter<'a, HeaderValue>),
    Owned(std::slice::Iter<'a, Named>),
    Captured(Captured<'a>, Range<usize>),
}

impl<'a, N: AsRef<[u8]>> Iterator for Values<'a, N> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let wanted = self.name.as_ref();
        match &mut self.rest {
            Rest::Slices(fields) => fields
                .find(|(name, _)| same(name, wanted))
                .map(|(_, value)| *value),
            Rest::Map(fields) => fields
                .find(|(name, _)| same(name.as_str().as_bytes(), wanted))
                .map(|(_, value)| value.as_bytes()),
            Rest::Owned(fields) => fields
                .find(|(name, _)| same(name.as_bytes(), wanted))
                .map(|(_, value)| &**value),
            Rest::Captured(fields, indices) => indices
                .map_while(|index| fields.get(index))
                .find(|(name, _)| same(name, wanted))
                .map(|(_, value)| value),
        }
    }
}

/// Compares names; most are spelled alike, which is quicker to see.
#[inline]
fn same(name: &[u8], wanted: &[u8]) -> bool {
    name.len() == wanted.len() && (name == wanted || name.eq_ignore_ascii_case(wanted))
}
