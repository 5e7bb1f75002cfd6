//! A reader of request bodies, field by field, that collects every fault instead of stopping at the first. All input is
//! checked through it.
//!
//! Crates that collect errors while they deserialize do less. `eserde` repeats serde's own messages, and cannot check a value
//! beyond its type. `deserr` takes rules for values, but knows no location other than a path of keys: no line of CSV.

use std::cell::RefCell;
use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};
use strsim::jaro_winkler;

use crate::api::problems::Fault;
use crate::problem::Problem;

/// The least likeness of a word to a wrong one for which it may be meant, from 0 to 1.
const LEAST_LIKENESS: f64 = 0.8;

/// The faults of one request.
#[derive(Default)]
pub struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    /// Adds a fault of a field, by its JSON pointer.
    pub fn add(&self, field: impl Into<String>, message: impl Into<String>) {
        self.push(Fault::of(field, message));
    }

    /// Adds a fault.
    pub fn push(&self, fault: Fault) {
        self.0.borrow_mut().push(fault);
    }

    /// Returns the number of faults so far.
    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Returns the faults in the order in which they were added.
    pub fn into_list(self) -> Vec<Fault> {
        self.0.into_inner()
    }

    /// Returns the value that was read, if there are no faults.
    ///
    /// # Errors
    /// If there are faults: a problem (400) that lists them.
    pub fn or<T>(self, read: Option<T>) -> Result<T, Problem> {
        match (self.into_list(), read) {
            (faults, Some(read)) if faults.is_empty() => Ok(read),
            (faults, _) => Err(Problem::invalid(faults)),
        }
    }
}

/// The location of an object in the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A JSON pointer.
    Pointer(String),
    /// A row of CSV; the fields of the object are columns.
    Row {
        /// The line on which the row begins, counted from 1.
        line: usize,
        /// The columns whose cells begin on a later line, each with that line: cells before them have line ends.
        later: Vec<(String, usize)>,
    },
}

impl Location {
    /// Returns the location of a row of CSV whose cells have no line ends.
    pub fn line(line: usize) -> Self {
        let later = Vec::new();
        Self::Row { line, later }
    }

    /// Returns a fault of the whole object.
    pub fn fault(&self, message: impl Into<String>) -> Fault {
        match self {
            Self::Pointer(pointer) => Fault::of(pointer, message),
            Self::Row { line, .. } => Fault::of_cell(*line, None, message),
        }
    }

    /// Returns a fault of a field of the object.
    pub fn field_fault(&self, name: &str, message: impl Into<String>) -> Fault {
        match self {
            Self::Pointer(pointer) => Fault::of(format!("{pointer}/{}", escaped(name)), message),
            Self::Row { line, later } => {
                let later = later.iter().find(|(column, _)| column == name);
                let line = later.map_or(line, |(_, line)| line);
                Fault::of_cell(*line, Some(name), message)
            }
        }
    }

    /// Returns a fault of an entry of a field that is an object itself.
    fn entry_fault(&self, name: &str, entry: &str, message: impl Into<String>) -> Fault {
        match self {
            Self::Pointer(pointer) => {
                let pointer = format!("{pointer}/{}/{}", escaped(name), escaped(entry));
                Fault::of(pointer, message)
            }
            Self::Row { .. } => self.field_fault(&format!("{name}.{entry}"), message),
        }
    }
}

impl From<&str> for Location {
    fn from(pointer: &str) -> Self {
        Self::Pointer(pointer.to_owned())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer(pointer) => f.write_str(pointer),
            Self::Row { line, .. } => write!(f, "line {line}"),
        }
    }
}

/// The fields of an object in the body. A field that is `null` counts as absent, except for [`Fields::has`].
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    location: Location,
    faults: &'a Faults,
}

impl<'a> Fields<'a> {
    /// Returns the fields of an object. Fields that are not among the known ones are faults; so is a value that is no
    /// object, and then there are no fields to return.
    pub fn of(value: &'a Value, location: impl Into<Location>, known: &[&str], faults: &'a Faults) -> Option<Self> {
        let location = location.into();
        let Some(object) = value.as_object() else {
            faults.push(location.fault("must be an object"));
            return None;
        };
        let fields = Self {
            object,
            location,
            faults,
        };
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            let near = nearest(name, known).map_or_else(String::new, |near| format!("; {near} is one"));
            fields.fault(name, format!("is not a known field{near}"));
        }
        Some(fields)
    }

    /// Adds a fault of a field.
    pub fn fault(&self, name: &str, message: impl Into<String>) {
        self.faults.push(self.location.field_fault(name, message));
    }

    /// Adds a fault of an entry of a field.
    pub fn entry_fault(&self, name: &str, entry: &str, message: impl Into<String>) {
        self.faults.push(self.location.entry_fault(name, entry, message));
    }

    /// Returns true if the object has the field, even if it is `null`.
    pub fn has(&self, name: &str) -> bool {
        self.object.contains_key(name)
    }

    /// Returns the value of a field; `None` if it is absent or `null`.
    pub fn optional(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// Returns the value of a field that must be present; its absence is a fault.
    pub fn required(&self, name: &str) -> Option<&'a Value> {
        let value = self.optional(name);
        if value.is_none() {
            self.fault(name, "is required");
        }
        value
    }

    /// Parses the value of a field, which must be a string that `parse` accepts.
    pub fn parsed<T>(
        &self,
        name: &str,
        value: Option<&'a Value>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = value?.as_str() else {
            self.fault(name, "must be a string");
            return None;
        };
        parse(text).map_err(|message| self.fault(name, message)).ok()
    }

    /// Returns the value of a field, which must be a list.
    pub fn list(&self, name: &str, value: Option<&'a Value>) -> Option<&'a Vec<Value>> {
        let list = value?.as_array();
        if list.is_none() {
            self.fault(name, "must be a list");
        }
        list
    }
}

/// Escapes a name for a JSON pointer (RFC 6901).
pub fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Parses a word of Messenger's or of this API.
///
/// # Errors
/// If it is none of the words of `T`, which `words` lists for the message.
pub fn word<T: serde::de::DeserializeOwned>(text: &str, words: &str) -> Result<T, String> {
    serde_json::from_value(Value::from(text)).map_err(|_| format!("must be one of {words}"))
}

/// Parses a time.
///
/// # Errors
/// If the text is not RFC 3339, or has no offset from UTC.
pub fn time(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| "must be an RFC 3339 time with an offset, such as 2026-12-01T09:00:00+08:00".to_owned())
}

/// Returns the word that is written most like a wrong one, if one is similar. Of names with parts, as those of time zones are, the
/// last part counts, too.
pub fn nearest<T: AsRef<str>>(wrong: &str, words: impl IntoIterator<Item = T>) -> Option<T> {
    let likeness = |word: &str| {
        let last_part = |name: &str| name.rsplit('/').next().unwrap_or_default().to_lowercase();
        let whole = jaro_winkler(&wrong.to_lowercase(), &word.to_lowercase());
        whole.max(jaro_winkler(&last_part(wrong), &last_part(word)))
    };
    let words = words.into_iter().map(|word| (likeness(word.as_ref()), word));
    let (likeness, word) = words.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (likeness >= LEAST_LIKENESS).then_some(word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nearest_word_is_the_one_that_is_meant() {
        let zones = ["Asia/Manila", "Asia/Magadan", "America/New_York", "Europe/Berlin"];
        for (wrong, right) in [
            ("Asia/Manilla", Some("Asia/Manila")),
            ("manila", Some("Asia/Manila")),
            ("US/New_York", Some("America/New_York")),
            ("berlin", Some("Europe/Berlin")),
            ("xyz", None),
        ] {
            assert_eq!(nearest(wrong, zones), right, "{wrong}");
        }
    }

    #[test]
    fn each_fault_is_reported_with_its_pointer() {
        let body = json!({"a/b": 1, "text": 5, "list": "x", "when": "2026-12-01T09:00:00"});
        let faults = Faults::default();
        let fields = Fields::of(&body, "/message", &["text", "list", "when", "id"], &faults).unwrap();

        fields.parsed("text", fields.required("text"), |text| Ok(text.to_owned()));
        fields.list("list", fields.optional("list"));
        fields.parsed("when", fields.optional("when"), time);
        fields.required("id");

        let faults = faults.into_list();
        let pointers: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/message/a~1b",
                "/message/text",
                "/message/list",
                "/message/when",
                "/message/id"
            ]
        );
    }
}
