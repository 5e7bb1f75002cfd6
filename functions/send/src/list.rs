//! Parts of lists: the number of items, and the cursor at which the next part begins.

use std::fmt::Display;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// The number of items in an answer if the request does not say.
pub const DEFAULT_LIMIT: usize = 50;
/// The maximum number of broadcasts, or of jobs, in an answer.
pub const MAX_LIMIT: usize = 100;
/// The length of a cursor's check sum, in bytes.
const CHECK: usize = 8;

/// Parses the parameter `limit`.
///
/// # Errors
/// If the value is not a number from 1 to `max`.
pub fn limit(value: &str, max: usize) -> Result<usize, String> {
    let limit = value.parse().ok().filter(|limit| (1..=max).contains(limit));
    limit.ok_or_else(|| format!("must be a number from 1 to {max}"))
}

/// Encodes a position in a list as a cursor, which callers hand back.
pub fn to_cursor(list_id: &str, position: impl Display) -> String {
    let position = position.to_string();
    URL_SAFE_NO_PAD.encode([&check(list_id, &position)[..], position.as_bytes()].concat())
}

/// Decodes the parameter `cursor`.
///
/// # Errors
/// If the cursor is of another list, or was changed.
pub fn from_cursor<T>(cursor: &str, list_id: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, String> {
    let decoded = URL_SAFE_NO_PAD.decode(cursor).ok();
    let position = decoded.as_deref().and_then(|decoded| {
        let (found, position) = decoded.split_at_checked(CHECK)?;
        let position = str::from_utf8(position).ok()?;
        (found == check(list_id, position)).then_some(position)
    });
    let position = position.and_then(parse);
    position.ok_or_else(|| "must be a next_cursor of this list, asked for with the same parameters".to_owned())
}

/// Returns the check sum of a position in a list, by which a mistake is found. It is no protection: a position gives access to
/// nothing that the list itself does not.
fn check(list_id: &str, position: &str) -> Vec<u8> {
    let digest = Sha256::new()
        .chain_update(list_id)
        .chain_update([0])
        .chain_update(position);
    digest.finalize().into_iter().take(CHECK).collect()
}
