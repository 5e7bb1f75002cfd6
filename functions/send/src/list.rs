//! Parts of lists: the number of items, and the cursor at which the next part begins.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use axum::http::HeaderName;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use shared::domain::ids::{ContactId, PageId};

/// The number of items in an answer if the request does not say.
pub const DEFAULT_LIMIT: usize = 50;
/// The maximum number of broadcasts, or of jobs, in an answer.
pub const MAX_LIMIT: usize = 100;
/// The length of a cursor's check sum, in bytes.
const CHECK: usize = 8;

/// The maximum number of items in one query. A database that serves running jobs as well must answer each query within the 2 s
/// of a call.
pub const MAX_QUERIED_ITEMS: usize = 1_000;
/// The maximum number of queries for one answer. Each of 90 Pages takes at least one, so does each megabyte of rows, and a
/// filter may find nothing in many.
const MAX_QUERIES: usize = 128;
/// The time after which no further query is made; API Gateway waits 29 s.
const MAX_TIME: Duration = Duration::from_secs(15);

/// The work that one answer may take. A list that is not at its end by then has a cursor.
pub struct Budget {
    queries: usize,
    ends: Instant,
}

impl Budget {
    /// Returns the budget of an answer that begins now.
    pub fn begin() -> Self {
        Self {
            queries: MAX_QUERIES,
            ends: Instant::now() + MAX_TIME,
        }
    }

    /// Counts a query.
    pub fn spend_query(&mut self) {
        self.queries = self.queries.saturating_sub(1);
    }

    /// Returns true if no further query may be made.
    pub fn is_spent(&self) -> bool {
        self.queries == 0 || Instant::now() >= self.ends
    }
}

/// A position in a list that goes Page by Page: a contact of a Page, or the beginning of the Page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagePosition {
    /// The Page.
    pub page_id: PageId,
    /// The contact after which the list goes on.
    pub after: Option<ContactId>,
}

impl PagePosition {
    /// Parses a position as it is displayed.
    pub fn parse(text: &str) -> Option<Self> {
        let (page_id, after) = text.split_once(' ')?;
        let after = match after {
            "" => None,
            after => Some(ContactId::parse_stored(after)?),
        };
        let page_id = PageId::parse(page_id).ok()?;
        Some(Self { page_id, after })
    }

    /// Returns the contact of this Page after which a list goes on from a position, `None` for its first one; or `None` if the
    /// list is beyond the Page.
    pub fn on(position: Option<&Self>, page_id: &PageId) -> Option<Option<ContactId>> {
        match position {
            Some(position) if position.page_id > *page_id => None,
            Some(position) if position.page_id == *page_id => Some(position.after.clone()),
            _ => Some(None),
        }
    }
}

/// Writes the ids with a space between; neither kind of id has one.
impl Display for PagePosition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let after = self.after.as_ref().map_or("", ContactId::as_str);
        write!(f, "{} {after}", self.page_id)
    }
}

/// Returns the header with the cursor of the next part, for answers that are no JSON.
pub fn next_cursor(cursor: String) -> [(HeaderName, String); 1] {
    [(HeaderName::from_static("x-next-cursor"), cursor)]
}

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
