//! Identities. They are parsed once at the edge, so a value of one of these types is a valid id.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

/// The id of a contact: its Page-scoped id, which Messenger takes as `recipient.id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ContactId(String);

impl ContactId {
    /// Accepts 1 to 128 visible characters.
    ///
    /// # Errors
    /// A phrase for the caller of the API that states the rule that the id breaks.
    pub fn parse(id: &str) -> Result<Self, &'static str> {
        match id.chars().count() {
            0 => return Err("must not be empty"),
            1..=128 => {}
            _ => return Err("must have at most 128 characters"),
        }
        if id.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("must have visible characters only");
        }
        Ok(Self(id.to_owned()))
    }

    /// Returns the id as Messenger knows it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The id of a Facebook Page.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct PageId(String);

impl PageId {
    /// Accepts 1 to 64 characters of `[A-Za-z0-9_-]`.
    ///
    /// # Errors
    /// A phrase for the caller of the API that states the rule that the id breaks.
    pub fn parse(id: &str) -> Result<Self, &'static str> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if (1..=64).contains(&id.len()) && id.chars().all(allowed) {
            Ok(Self(id.to_owned()))
        } else {
            Err("must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -")
        }
    }

    /// Returns the id as Messenger knows it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The Pages that a caller may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Every Page.
    All,
    /// These Pages only.
    Only(BTreeSet<PageId>),
}

impl Pages {
    /// Returns `true` if this Page is among them.
    pub fn allow(&self, page_id: &PageId) -> bool {
        match self {
            Self::All => true,
            Self::Only(pages) => pages.contains(page_id),
        }
    }

    /// Returns `true` if no Page is among them.
    pub fn are_none(&self) -> bool {
        matches!(self, Self::Only(pages) if pages.is_empty())
    }
}

/// The id of an accepted request to send: 32 hexadecimal digits that sort by creation time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct BroadcastId(String);

impl BroadcastId {
    /// Returns a new id.
    pub fn random() -> Self {
        Self(Uuid::now_v7().simple().to_string())
    }

    /// Parses an id of the form that [`BroadcastId::random`] makes.
    pub fn parse(id: &str) -> Option<Self> {
        let hexadecimal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        (id.len() == 32 && id.chars().all(hexadecimal)).then(|| Self(id.to_owned()))
    }
}

/// The id of a job: the part of a broadcast for one Page, which a worker claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId {
    /// The broadcast that the job is a part of.
    pub broadcast_id: BroadcastId,
    /// The Page that sends.
    pub page_id: PageId,
}

impl JobId {
    /// Parses a job id in its displayed form.
    pub fn parse(name: &str) -> Option<Self> {
        let (broadcast_id, page_id) = name.split_once('/')?;
        Some(Self {
            broadcast_id: BroadcastId::parse(broadcast_id)?,
            page_id: PageId::parse(page_id).ok()?,
        })
    }
}

impl<'de> Deserialize<'de> for ContactId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?;
        Self::parse(&id).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for PageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?;
        Self::parse(&id).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for BroadcastId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?;
        Self::parse(&id).ok_or_else(|| D::Error::custom("is no broadcast id"))
    }
}

/// Writes `broadcast/page`: the partition key of the job's deliveries, and the job's name in logs.
impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.broadcast_id, self.page_id)
    }
}

impl fmt::Display for ContactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BroadcastId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the first ten ids for a log line, separated by spaces, which no id has.
pub fn first_ten(ids: &[ContactId]) -> String {
    let ids: Vec<_> = ids.iter().take(10).map(ContactId::as_str).collect();
    ids.join(" ")
}

/// Returns a random value for a conditional write to carry, so that its lost answer can be told from a refusal.
pub fn token() -> String {
    Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contact_id_is_visible_and_of_bounded_length() {
        for id in ["6001", "é", &"9".repeat(128)] {
            assert!(ContactId::parse(id).is_ok(), "{id:?}");
        }
        for id in ["", " ", "a b", "a\n", "a\u{0}", &"9".repeat(129)] {
            assert!(ContactId::parse(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn page_id_is_valid_as_message_group_id() {
        assert!(PageId::parse("page_1-A").is_ok());
        for id in ["", "a/b", "a b", "é", &"9".repeat(65)] {
            assert!(PageId::parse(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn displayed_id_parses_to_the_same_id() {
        let id = BroadcastId::random();
        assert_eq!(BroadcastId::parse(&id.to_string()), Some(id.clone()));
        let job = JobId {
            broadcast_id: id,
            page_id: PageId::parse("page").unwrap(),
        };
        assert_eq!(JobId::parse(&job.to_string()), Some(job));
        assert_eq!(BroadcastId::parse("not-one"), None);
    }
}
