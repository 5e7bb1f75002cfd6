//! Parts of lists: the number of items, and the cursor at which the next part begins.

use std::fmt::Display;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::problem::Problem;

/// The number of items in an answer if the request does not say.
pub const DEFAULT_LIMIT: usize = 50;

/// Parses the parameter `limit`.
///
/// # Errors
/// If the value is not a number from 1 to `max` (400).
pub fn limit(value: &str, max: usize) -> Result<usize, Problem> {
    let limit = value.parse().ok().filter(|limit| (1..=max).contains(limit));
    limit.ok_or_else(|| Problem::fault("limit", format!("must be a number from 1 to {max}")))
}

/// Encodes a position in a list as a cursor, which callers hand back.
pub fn to_cursor(position: impl Display) -> String {
    URL_SAFE_NO_PAD.encode(position.to_string())
}

/// Decodes the parameter `cursor`.
///
/// # Errors
/// If the cursor is not one of this list (400).
pub fn from_cursor<T>(cursor: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Problem> {
    let position = URL_SAFE_NO_PAD.decode(cursor).ok();
    let position = position.and_then(|position| String::from_utf8(position).ok());
    let position = position.and_then(|position| parse(&position));
    position.ok_or_else(|| Problem::fault("cursor", "must be a next_cursor of this list"))
}

/// Returns the problem of a parameter that the list does not have.
pub fn unknown_parameter(name: &str) -> Problem {
    Problem::fault(name, "is not a known parameter")
}
