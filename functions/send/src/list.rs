//! Parts of lists: how much is asked for, and where a list goes on.

use std::fmt::Display;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::problem::Problem;

/// Items in one answer when nobody says how many.
pub const DEFAULT_LIMIT: usize = 50;

/// A part of a list; it may be empty and still go on.
#[derive(Serialize)]
pub struct ListPart<T> {
    /// What it holds.
    pub items: Vec<T>,
    /// Asks for the next part, unless this is the last.
    pub next_cursor: Option<String>,
}

/// How many items `limit` asks for.
pub fn limit(value: &str, max: usize) -> Result<usize, Problem> {
    let limit = value.parse().ok().filter(|limit| (1..=max).contains(limit));
    limit.ok_or_else(|| Problem::fault("limit", format!("must be a number from 1 to {max}")))
}

/// A position in a list as callers hand it back.
pub fn to_cursor(position: impl Display) -> String {
    URL_SAFE_NO_PAD.encode(position.to_string())
}

/// The position that `cursor` names.
pub fn from_cursor<T>(cursor: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Problem> {
    let position = URL_SAFE_NO_PAD.decode(cursor).ok();
    let position = position.and_then(|position| String::from_utf8(position).ok());
    let position = position.and_then(|position| parse(&position));
    position.ok_or_else(|| Problem::fault("cursor", "must be a next_cursor of this list"))
}

/// A parameter that a list does not have.
pub fn unknown_parameter(name: &str) -> Problem {
    Problem::fault(name, "is not a parameter here")
}
