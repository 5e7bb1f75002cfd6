//! Reads a body field by field, and collects everything that is wrong with it: the one way in which input is checked.

use std::cell::RefCell;
use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::problem::{Fault, Problem};

/// The faults of one request.
#[derive(Default)]
pub struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    /// Notes one.
    pub fn add(&self, field: impl Into<String>, message: impl Into<String>) {
        let (field, message) = (field.into(), message.into());
        self.0.borrow_mut().push(Fault { field, message });
    }

    /// What was read, if nothing was wrong.
    pub fn or<T>(self, read: Option<T>) -> Result<T, Problem> {
        match (self.0.into_inner(), read) {
            (faults, Some(read)) if faults.is_empty() => Ok(read),
            (faults, _) => Err(Problem::invalid(faults)),
        }
    }
}

/// Where an object stands in the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// By a JSON pointer.
    Pointer(String),
    /// In a line of CSV, counted from 1; its fields are columns.
    Line(usize),
}

impl Place {
    /// Where a field of the object stands.
    pub fn field(&self, name: &str) -> String {
        match self {
            Self::Pointer(pointer) => format!("{pointer}/{}", escaped(name)),
            Self::Line(line) => format!("line {line}, column {name}"),
        }
    }

    /// Where a part of a field stands.
    fn inner(&self, name: &str, inner: &str) -> String {
        let field = self.field(name);
        match self {
            Self::Pointer(_) => format!("{field}/{}", escaped(inner)),
            Self::Line(_) => format!("{field}.{inner}"),
        }
    }
}

impl From<&str> for Place {
    fn from(pointer: &str) -> Self {
        Self::Pointer(pointer.to_owned())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer(pointer) => f.write_str(pointer),
            Self::Line(line) => write!(f, "line {line}"),
        }
    }
}

/// An object, and where in the body it stands. `null` counts as absent where nothing else is said.
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    place: Place,
    faults: &'a Faults,
}

impl<'a> Fields<'a> {
    /// The fields of an object that has these and no others.
    pub fn of(
        value: &'a Value,
        place: impl Into<Place>,
        known: &[&str],
        faults: &'a Faults,
    ) -> Option<Self> {
        let place = place.into();
        let Some(object) = value.as_object() else {
            faults.add(place.to_string(), "must be an object");
            return None;
        };
        let fields = Self {
            object,
            place,
            faults,
        };
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            fields.fault(name, "is not a field here");
        }
        Some(fields)
    }

    /// Notes what is wrong with a field.
    pub fn fault(&self, name: &str, message: impl Into<String>) {
        self.faults.add(self.place.field(name), message);
    }

    /// Notes what is wrong with a part of a field.
    pub fn inner_fault(&self, name: &str, inner: &str, message: impl Into<String>) {
        self.faults.add(self.place.inner(name, inner), message);
    }

    /// Whether a field is there, be it `null`.
    pub fn has(&self, name: &str) -> bool {
        self.object.contains_key(name)
    }

    /// A field that may be absent.
    pub fn optional(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// A field that must be there.
    pub fn required(&self, name: &str) -> Option<&'a Value> {
        let value = self.optional(name);
        if value.is_none() {
            self.fault(name, "is required");
        }
        value
    }

    /// A text, as something better than a text.
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
        parse(text)
            .map_err(|message| self.fault(name, message))
            .ok()
    }

    /// A list.
    pub fn list(&self, name: &str, value: Option<&'a Value>) -> Option<&'a Vec<Value>> {
        let list = value?.as_array();
        if list.is_none() {
            self.fault(name, "must be a list");
        }
        list
    }
}

/// A name as a JSON pointer has it.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// One of Messenger's words.
pub fn word<T: serde::de::DeserializeOwned>(text: &str, words: &str) -> Result<T, String> {
    serde_json::from_value(Value::from(text)).map_err(|_| format!("must be one of {words}"))
}

/// A moment, with its offset from UTC.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        "must be an RFC 3339 time with an offset, as 2026-12-01T09:00:00+08:00".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_fault_is_told_with_its_pointer() {
        let body = json!({"a/b": 1, "text": 5, "list": "x", "when": "2026-12-01T09:00:00"});
        let faults = Faults::default();
        let fields =
            Fields::of(&body, "/message", &["text", "list", "when", "id"], &faults).unwrap();

        fields.parsed("text", fields.required("text"), |text| Ok(text.to_owned()));
        fields.list("list", fields.optional("list"));
        fields.parsed("when", fields.optional("when"), moment);
        fields.required("id");

        let faults = faults.0.into_inner();
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
