//! Numbers of a JSON body that would come out of a text otherwise than they are written.
//!
//! `1.0` is stored as 1, and an integer beyond 64 bits is rounded when it is parsed. The parsed value does not tell, so the
//! numbers are compared as they are written.

use std::collections::HashMap;

use serde_json::Number;
use shared::domain::template::shown_number;

/// Numbers that would be shown otherwise than they are written, with the way in which they are written.
#[derive(Default)]
pub struct ChangedNumbers(HashMap<Number, String>);

impl ChangedNumbers {
    /// Reads a body, which must be valid JSON.
    pub fn in_json(body: &str) -> Self {
        let changed = numbers(body).filter_map(|written| {
            let number: Number = serde_json::from_str(written).ok()?;
            (shown_number(&number) != written).then(|| (number, written.to_owned()))
        });
        Self(changed.collect())
    }

    /// Returns the way in which a number is written, if it would be shown otherwise.
    pub fn get(&self, number: &Number) -> Option<&str> {
        self.0.get(number).map(String::as_str)
    }
}

/// Returns the numbers of a JSON text as they are written.
fn numbers(json: &str) -> impl Iterator<Item = &str> {
    let mut rest = json;
    std::iter::from_fn(move || {
        loop {
            let begin = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit())?;
            let token = rest.get(begin..)?;
            if let Some(string) = token.strip_prefix('"') {
                rest = after_string(string);
                continue;
            }
            let is_part = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
            let end = token.find(|c| !is_part(c)).unwrap_or(token.len());
            let (number, after) = token.split_at(end);
            rest = after;
            return Some(number);
        }
    })
}

/// Returns what follows a string, whose opening quotation mark is not there any more.
fn after_string(string: &str) -> &str {
    let mut escaped = false;
    let end = string.find(|c| {
        let is_end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end
    });
    end.and_then(|end| string.get(end + 1..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn number_that_would_be_shown_otherwise_is_found_as_it_is_written() {
        for written in [
            "1.0",
            "19.90",
            "-0",
            "-0.0",
            "0.0",
            "1e21",
            "1E2",
            "1e-7",
            "18446744073709551616.5",
            "123456789012345678901234567890",
            "0.1000000000000000055511151231257827",
            "9007199254740993.0",
        ] {
            let body = format!("{{\"a\\\\\": \"7.0 \\\" 8.0\", \"b\": [1, {written}], \"c\": 0.5}}");
            let value: Value = serde_json::from_str(&body).unwrap();
            let changed = ChangedNumbers::in_json(&body);
            let number = value["b"][1].as_number().unwrap();
            assert_eq!(changed.get(number), Some(written));
            assert_eq!(changed.0.len(), 1, "{written}");
        }
        let body = "[0, -1, 18446744073709551615, -9223372036854775808, 0.1, 1000000000000000000000, 0.0000001, -2.5]";
        assert!(ChangedNumbers::in_json(body).0.is_empty());
    }
}
