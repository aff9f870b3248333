use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A TOML text that is being taken apart, and what was found wrong in it.
#[derive(Debug)]
pub(super) struct Document<'i> {
    file: &'i Path,
    text: &'i str,
    /// Each with the byte it is about.
    mistakes: RefCell<Vec<(usize, String)>>,
}

/// A table of which nothing may be left over.
#[derive(Debug)]
pub(super) struct Table<'d, 'i> {
    document: &'d Document<'i>,
    /// What stands before its keys.
    prefix: String,
    start: usize,
    entries: BTreeMap<String, Entry<'i>>,
    /// Where those are that were taken out.
    taken: BTreeMap<String, Place>,
    /// The keys that were asked for.
    known: Vec<String>,
}

#[derive(Debug)]
struct Entry<'i> {
    place: Place,
    value: DeValue<'i>,
}

#[derive(Clone, Debug)]
struct Place {
    key: usize,
    value: Range<usize>,
}

impl<'i> Document<'i> {
    pub(super) const fn new(file: &'i Path, text: &'i str) -> Self {
        Self {
            file,
            text,
            mistakes: RefCell::new(Vec::new()),
        }
    }

    /// Parses the text.
    pub(super) fn root(&self) -> Result<Table<'_, 'i>, String> {
        match DeTable::parse(self.text) {
            Ok(table) => Ok(Table::new(self, String::new(), 0, table.into_inner())),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                let message = error.message().trim_end().replace('\n', ", ");
                Err(self.render(at, &message))
            }
        }
    }

    /// Returns what was read, if nothing was wrong.
    pub(super) fn conclude<T>(&self, read: Option<T>) -> Result<T, String> {
        let mut mistakes = self.mistakes.take();
        match read {
            Some(read) if mistakes.is_empty() => Ok(read),
            _ => {
                mistakes.sort();
                let lines: Vec<_> = mistakes
                    .iter()
                    .map(|(at, message)| self.render(*at, message))
                    .collect();
                Err(lines.join("\n"))
            }
        }
    }

    fn render(&self, at: usize, message: &str) -> String {
        let before = self.text.as_bytes().iter().take(at);
        let line = before.filter(|&&byte| byte == b'\n').count() + 1;
        format!("{}:{line}: {message}", self.file.display())
    }

    fn mistake(&self, at: usize, message: String) {
        self.mistakes.borrow_mut().push((at, message));
    }

    /// Returns a value as it is written, shortened to fit a line.
    fn source(&self, span: Range<usize>) -> String {
        let source = self.text.get(span).unwrap_or_default();
        let first = source.lines().next().unwrap_or_default();
        let short: String = first.chars().take(MAX_SHOWN).collect();
        if short.len() < source.len() {
            return format!("{short}...");
        }
        short
    }
}

impl<'d, 'i> Table<'d, 'i> {
    fn new(document: &'d Document<'i>, prefix: String, start: usize, table: DeTable<'i>) -> Self {
        let entries = table
            .into_iter()
            .map(|(key, value)| {
                let place = Place {
                    key: key.span().start,
                    value: value.span(),
                };
                let value = value.into_inner();
                (key.into_inner().into_owned(), Entry { place, value })
            })
            .collect();
        Self {
            document,
            prefix,
            start,
            entries,
            taken: BTreeMap::new(),
            known: Vec::new(),
        }
    }

    /// Takes a value out, which `read` turns into what is meant or refuses with the
    /// reason. `None` if it is not there or was refused.
    pub(super) fn take<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        self.known.push(key.into());
        let Entry { place, value } = self.entries.remove(key)?;
        self.taken.insert(key.into(), place);
        read(&value).map_err(|why| self.refuse(key, why)).ok()
    }

    /// Takes a table out.
    pub(super) fn table(&mut self, key: &str) -> Option<Self> {
        self.known.push(key.into());
        let entry = self.entries.remove(key)?;
        match entry.value {
            DeValue::Table(table) => {
                let prefix = format!("{}{key}.", self.prefix);
                let start = entry.place.key;
                self.taken.insert(key.into(), entry.place);
                Some(Self::new(self.document, prefix, start, table))
            }
            _ => {
                self.entries.insert(key.into(), entry);
                None
            }
        }
    }

    /// Refuses a key that has another value than expected, if it is there.
    pub(super) fn expect(&mut self, key: &str, what: &str) {
        self.take(key, |value| -> Result<(), _> {
            Err(format!("expected {what}, found {}", kind(value)))
        });
    }

    /// Refuses the table if a key is not there.
    pub(super) fn require(&mut self, key: &str, what: &str) {
        if !self.taken.contains_key(key) {
            let message = format!("{}{key} is missing: {what}", self.prefix);
            self.document.mistake(self.start, message);
        }
    }

    /// Refuses a key.
    pub(super) fn refuse(&self, key: &str, why: impl Display) {
        let place = self
            .taken
            .get(key)
            .or_else(|| Some(&self.entries.get(key)?.place));
        let Some(place) = place else {
            return;
        };
        let source = self.document.source(place.value.clone());
        let message = format!("{}{key} = {source}: {why}", self.prefix);
        self.document.mistake(place.key, message);
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// Refuses what is left.
    pub(super) fn end(&self) {
        for (key, entry) in &self.entries {
            let closest = self
                .known
                .iter()
                .map(|known| (strsim::jaro_winkler(key, known), known))
                .max_by(|(one, _), (other, _)| one.total_cmp(other));
            let hint = match closest {
                Some((likeness, known)) if likeness > ALIKE => format!(", did you mean {known}?"),
                _ => format!(", expected one of {}", self.known.join(", ")),
            };
            let message = format!("{}{key}: unknown key{hint}", self.prefix);
            self.document.mistake(entry.place.key, message);
        }
    }
}

/// Returns what a value is, with its article.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Returns the elements of an array.
pub(super) fn elements<'v, 'i>(value: &'v DeValue<'i>) -> Option<Vec<&'v DeValue<'i>>> {
    let array = value.as_array()?;
    Some(array.iter().map(Spanned::get_ref).collect())
}

const MAX_SHOWN: usize = 60;
const ALIKE: f64 = 0.85;
