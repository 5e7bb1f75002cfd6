//! Rules for the values of a contact's fields, by kind of field. An import holds JSON and CSV to the same rules.

use serde_json::{Number, Value, json};

use crate::fields;

/// The maximum number of tags, or of attributes, of one contact.
pub const MAX_ENTRIES: usize = 100;
/// The rule for the name of an attribute, as the message of a fault.
pub const ATTRIBUTE_NAME: &str = "must have a name of 1 to 64 letters, digits and _, not beginning with a digit";

/// The maximum number of characters in a name, a tag or the value of an attribute.
const MAX_TEXT: usize = 1_000;

/// A value as the table stores it, or the message of the fault.
pub type Checked = Result<Value, &'static str>;

/// Checks a short text.
///
/// # Errors
/// If the value is not a string, or is too long.
pub fn text(value: &Value) -> Checked {
    match value.as_str() {
        Some(text) if text.chars().count() <= MAX_TEXT => Ok(value.clone()),
        _ => Err("must be a string of at most 1000 characters"),
    }
}

/// Checks a list of tags.
///
/// # Errors
/// If the value is not a list of short texts, or has too many entries.
pub fn tags(value: &Value) -> Checked {
    let tags = value.as_array().filter(|tags| tags.len() <= MAX_ENTRIES);
    match tags {
        Some(tags) if tags.iter().all(|tag| text(tag).is_ok()) => Ok(value.clone()),
        _ => Err("must be a list of at most 100 strings of at most 1000 characters"),
    }
}

/// Checks a flag.
///
/// # Errors
/// If the value is neither `true` nor `false`.
pub fn flag(value: &Value) -> Checked {
    value.is_boolean().then(|| value.clone()).ok_or("must be true or false")
}

/// Checks a time, which the table stores in milliseconds of the epoch.
///
/// # Errors
/// If the value is not an RFC 3339 time with an offset.
pub fn time(value: &Value) -> Checked {
    let time = value.as_str().and_then(|text| fields::time(text).ok());
    time.map(|time| json!(time.as_millisecond()))
        .ok_or("must be an RFC 3339 time with an offset")
}

/// Checks the value of an attribute; `null` clears it.
///
/// # Errors
/// If the value is not a string, a number, a boolean or `null`, or is out of the bounds of its type.
pub fn attribute(value: &Value) -> Result<Option<Value>, &'static str> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(_) => Ok(Some(value.clone())),
        Value::Number(number) if is_in_bounds(number) => Ok(Some(value.clone())),
        Value::Number(_) => Err("must have a magnitude from 1e-130 to 9e125"),
        Value::String(_) => text(value).map(Some),
        Value::Array(_) | Value::Object(_) => Err("must be a string, a number, true, false or null"),
    }
}

/// Returns true if DynamoDB stores the number: zero, or a magnitude from 1E-130 to just below 1E+126
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html>). The upper
/// bound here is rounded down.
fn is_in_bounds(number: &Number) -> bool {
    number
        .as_f64()
        .is_some_and(|number| number == 0.0 || (1e-130..9e125).contains(&number.abs()))
}

/// Returns true if an attribute may have this name.
pub fn is_attribute_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}
