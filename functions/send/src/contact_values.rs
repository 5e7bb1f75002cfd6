//! Rules for the values of a contact's fields, by kind of field. An import holds JSON and CSV to the same rules.

use serde_json::{Number, Value, json};
use shared::domain::template::shown_number;
use shared::domain::visible::{is_blank, trimmed};

use crate::fields;
use crate::numbers::ChangedNumbers;

/// The maximum number of tags, or of attributes, of one contact.
pub const MAX_ENTRIES: usize = 100;
/// The rule for a number, as the message of a fault.
pub const OUT_OF_BOUNDS: &str = "must have a magnitude from 1e-130 to 9e125";
/// The rule for the name of an attribute, as the message of a fault.
pub const ATTRIBUTE_NAME: &str = "must have a name of 1 to 64 letters, digits and _, not beginning with a digit";

/// The maximum number of characters in a name, a tag or the value of an attribute.
const MAX_TEXT: usize = 1_000;

/// The largest difference from UTC in hours that Messenger gives, in either direction:
/// <https://developers.facebook.com/docs/messenger-platform/identity/user-profile>.
const MAX_HOURS: f64 = 24.0;

/// A value as the table stores it, `None` if the field is cleared, or the message of the fault.
pub type Checked = Result<Option<Value>, String>;

/// Checks a name. Blanks at its ends are removed; a name of which a reader sees nothing is no name.
///
/// # Errors
/// If the value is not a string, is too long, or has U+0000.
pub fn name(value: &Value) -> Checked {
    let name = trimmed(text(value)?);
    Ok(Some(name).filter(|name| !is_blank(name)).map(Value::from))
}

/// Checks a list of tags. Blanks at the ends of a tag are removed, and blank tags are left out.
///
/// # Errors
/// If the value is not a list of short texts, or has too many entries.
pub fn tags(value: &Value) -> Checked {
    let tags = value.as_array().filter(|tags| tags.len() <= MAX_ENTRIES);
    let tags = tags.and_then(|tags| tags.iter().map(|tag| text(tag).ok()).collect::<Option<Vec<_>>>());
    let Some(tags) = tags else {
        return Err(format!(
            "must be a list of at most {MAX_ENTRIES} strings of at most {MAX_TEXT} characters, without U+0000"
        ));
    };
    let tags: Vec<_> = tags.into_iter().map(trimmed).filter(|tag| !is_blank(tag)).collect();
    Ok(Some(json!(tags)))
}

/// Checks a flag.
///
/// # Errors
/// If the value is neither `true` nor `false`.
pub fn flag(value: &Value) -> Checked {
    match value {
        Value::Bool(_) => Ok(Some(value.clone())),
        _ => Err("must be true or false".to_owned()),
    }
}

/// Checks a time, which the table stores in milliseconds of the epoch.
///
/// # Errors
/// If the value is not an RFC 3339 time with an offset.
pub fn time(value: &Value) -> Checked {
    let time = value.as_str().and_then(|text| fields::time(text).ok());
    time.map(|time| Some(json!(time.as_millisecond())))
        .ok_or_else(|| "must be an RFC 3339 time with an offset".to_owned())
}

/// Checks a difference from UTC.
///
/// # Errors
/// If the value is not a number from -24 to 24.
pub fn hours(value: &Value) -> Checked {
    match value.as_f64() {
        Some(hours) if hours.abs() <= MAX_HOURS => Ok(Some(value.clone())),
        _ => Err("must be a number of hours from -24 to 24".to_owned()),
    }
}

/// Checks the value of an attribute; `null` clears it. A text shows a number as it is written in the request, or the number is
/// refused: `changed` are those that it would show otherwise.
///
/// # Errors
/// If the value is not a string, a number, a boolean or `null`, is out of the bounds of its type, or would be changed.
pub fn attribute(value: &Value, changed: &ChangedNumbers) -> Checked {
    match value {
        Value::Null => Ok(None),
        Value::Bool(_) => Ok(Some(value.clone())),
        Value::Number(number) if !is_in_bounds(number) => Err(OUT_OF_BOUNDS.to_owned()),
        Value::Number(number) => match changed.get(number) {
            None => Ok(Some(value.clone())),
            Some(written) => Err(format!(
                "is written {written}, and a text would show {}: write it so, or send it as a string",
                shown_number(number)
            )),
        },
        Value::String(_) => text(value).map(|text| Some(json!(text))),
        Value::Array(_) | Value::Object(_) => Err("must be a string, a number, true, false or null".to_owned()),
    }
}

/// Returns a short text.
fn text(value: &Value) -> Result<&str, String> {
    match value.as_str() {
        Some(text) if text.contains('\0') => Err("must not have the character U+0000".to_owned()),
        Some(text) if text.chars().count() <= MAX_TEXT => Ok(text),
        _ => Err(format!("must be a string of at most {MAX_TEXT} characters")),
    }
}

/// Returns true if DynamoDB stores the number: zero, or a magnitude from 1E-130 to just below 1E+126
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html>). The upper
/// bound here is rounded down.
pub fn is_in_bounds(number: &Number) -> bool {
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
