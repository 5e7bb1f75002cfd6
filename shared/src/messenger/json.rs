//! Messenger's JSON, read field by field: a value stays as it came until it is needed, so that an odd one spoils no other.
//!
//! A typed parser refuses the whole document for one odd value in it: half a surrogate pair (`"\ud83d"`), a number out of
//! range, or a type that nobody expected.

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde_json::value::RawValue;

/// The text of a document: without a byte order mark, and with U+FFFD in place of bytes that are not UTF-8.
pub fn document(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes))
}

/// The values of a list, each unparsed; `None` if this is no list.
pub fn list(json: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json).ok()
}

/// The fields of an object, each unparsed. A field that is `null` counts as absent; of repeated fields the last counts.
pub struct Object<'a>(HashMap<Name, &'a RawValue>);

impl<'a> Object<'a> {
    /// Reads the fields of an object; `None` if this is no object.
    pub fn parse(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok().map(Self)
    }

    /// Returns a field, unless it is absent.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied().filter(|value| value.get() != "null")
    }

    /// Returns `true` if no other fields than these are present.
    pub fn has_only(&self, names: &[&str]) -> bool {
        self.0.keys().all(|Name(name)| names.contains(&name.as_str()))
    }

    /// Returns a field that is an object.
    pub fn object(&self, name: &str) -> Option<Self> {
        Self::parse(self.get(name)?.get())
    }

    /// Returns a field that is a list.
    pub fn list(&self, name: &str) -> Option<Vec<&'a RawValue>> {
        list(self.get(name)?.get())
    }

    /// Returns a field that is a string, or a number as it is written: ids come as either.
    pub fn text(&self, name: &str) -> Option<String> {
        let json = self.get(name)?.get();
        match json.starts_with(['{', '[', 't', 'f']) {
            true => None,
            false if json.starts_with('"') => serde_json::from_str(json).ok(),
            false => Some(json.to_owned()),
        }
    }

    /// Returns a field that is a finite number, or a string that contains one.
    pub fn number(&self, name: &str) -> Option<f64> {
        let number: f64 = self.text(name)?.trim().parse().ok()?;
        number.is_finite().then_some(number)
    }

    /// Returns a field that is a whole number, or a string that contains one.
    pub fn integer(&self, name: &str) -> Option<i64> {
        // Every whole number up to this one is exact.
        const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
        let exact = self.text(name)?.trim().parse().ok();
        exact.or_else(|| {
            let number = self.number(name)?;
            #[expect(clippy::cast_possible_truncation, reason = "it is whole, and in the range")]
            (number.fract() == 0.0 && number.abs() <= MAX_EXACT).then_some(number as i64)
        })
    }

    /// Returns `true` for a field that says so as a boolean, a number or a string.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| matches!(value.get(), "true" | "1" | r#""true""# | r#""1""#))
    }
}

/// The name of a field. It is read as bytes, since a name that is no text must not spoil the others.
#[derive(PartialEq, Eq, Hash)]
struct Name(String);

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Name, E> {
                Ok(Name(String::from_utf8_lossy(name).into_owned()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_value_spoils_no_other() {
        let deep = "[".repeat(500) + &"]".repeat(500);
        for odd in [r#""\ud83d""#, r#""\udc00\ud800""#, "1e999", "{}", "null", &deep] {
            for json in [
                format!(r#"{{"odd": {odd}, "id": "7"}}"#),
                format!(r#"{{"id": "7", "odd": {odd}, "\ud83d": 1}}"#),
            ] {
                let object = Object::parse(&json).unwrap();
                assert_eq!(object.text("id").as_deref(), Some("7"), "{json}");
            }
        }
        let surrogate = Object::parse(r#"{"text": "\ud83d"}"#).unwrap();
        assert_eq!(surrogate.text("text"), None);
        assert!(surrogate.get("text").is_some());
    }

    #[test]
    fn byte_order_mark_and_invalid_bytes_are_no_obstacle() {
        let text = document(b"\xEF\xBB\xBF{\"id\": 7, \"text\": \"\xED\xA0\xBD\"}");
        assert_eq!(Object::parse(&text).unwrap().text("id").as_deref(), Some("7"));
    }

    #[test]
    fn values_are_read_in_whatever_type() {
        let json = r#"{"s": "19", "n": 19, "f": 19.0, "half": "1.5", "big": 17841400000000001, "yes": "true", "no": false,
                       "nan": "NaN", "l": [1]}"#;
        let object = Object::parse(json).unwrap();
        for name in ["s", "n", "f"] {
            assert_eq!(object.integer(name), Some(19), "{name}");
        }
        assert_eq!((object.integer("half"), object.number("half")), (None, Some(1.5)));
        assert_eq!(object.text("big").as_deref(), Some("17841400000000001"));
        assert_eq!(object.integer("big"), Some(17_841_400_000_000_001));
        assert!(object.is_true("yes") && !object.is_true("no") && !object.is_true("absent"));
        for name in ["nan", "l", "no", "absent"] {
            assert_eq!((object.number(name), object.integer(name)), (None, None), "{name}");
        }
        assert_eq!(object.text("l"), None);
        assert_eq!(object.list("l").map(|list| list.len()), Some(1));
    }

    #[test]
    fn what_is_no_object_has_no_fields() {
        for json in [
            "",
            "nonsense",
            "[]",
            "7",
            r#""text""#,
            "null",
            r#"{"id": 7"#,
            r#"{"id": 7} {}"#,
        ] {
            assert!(Object::parse(json).is_none(), "{json}");
        }
        assert_eq!(Object::parse(r#"{"id": null}"#).unwrap().text("id"), None);
    }
}
