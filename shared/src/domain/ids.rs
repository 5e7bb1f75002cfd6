//! Identities. They are parsed once at the edge, so a value of one of these types is a valid id.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::visible::is_visible;

/// The fault of an id in a request: a phrase for the caller of the API, whose subject is the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdFault {
    /// The id has no character.
    #[error("must not be empty")]
    Empty,
    /// The id is too long.
    #[error("must have at most {MAX_CONTACT_ID} characters")]
    TooLong,
    /// The id looks like another one, and Messenger does not know it.
    #[error(
        "must have visible characters only; character {position} is U+{code_point:04X}, which is not visible: remove it, and \
         check where the id comes from"
    )]
    Invisible {
        /// The position of the character, counted from 1.
        position: usize,
        /// The character.
        code_point: u32,
    },
    /// A spreadsheet took the id for a number, and may have lost digits.
    #[error(
        "is a number as a spreadsheet writes it, which may have lost digits of the id: import the ids into the spreadsheet \
         again, in a column of type Text, and then export the file"
    )]
    Number,
    /// The id begins with a mark that a spreadsheet writes before a text.
    #[error(
        "begins with {0}, which a spreadsheet writes before a text and which is no part of the id: set the type of the column \
         to Text, enter the ids without the mark, and export the file again"
    )]
    TextMark(&'static str),
}

/// The marks that a spreadsheet writes before a text.
const TEXT_MARKS: [&str; 2] = ["'", "=\""];
/// The maximum number of characters in the id of a contact.
const MAX_CONTACT_ID: usize = 128;

/// The id of a contact: its Page-scoped id, which Messenger takes as `recipient.id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ToSchema)]
#[schema(min_length = 1, max_length = 128, examples("6001"))]
#[serde(transparent)]
pub struct ContactId(String);

impl ContactId {
    /// Parses the id of a request: 1 to 128 visible characters, and not what a spreadsheet makes of an id.
    ///
    /// # Errors
    /// If the id breaks the rule.
    pub fn parse(id: &str) -> Result<Self, IdFault> {
        match id.chars().count() {
            0 => return Err(IdFault::Empty),
            length if length > MAX_CONTACT_ID => return Err(IdFault::TooLong),
            _ => {}
        }
        refuse_mangled(id)?;
        Ok(Self(id.to_owned()))
    }

    /// Parses an id that may be stored already. Earlier versions stored any without spaces and control characters, and a
    /// contact or a job that has one must stay readable.
    pub fn parse_stored(id: &str) -> Option<Self> {
        let is_allowed = |c: char| !c.is_control() && !c.is_whitespace();
        let is_bounded = (1..=MAX_CONTACT_ID).contains(&id.chars().count());
        (is_bounded && id.chars().all(is_allowed)).then(|| Self(id.to_owned()))
    }

    /// Returns the id as Messenger knows it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The id of a Facebook Page.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ToSchema)]
#[schema(pattern = "^[A-Za-z0-9_-]{1,64}$", examples("page-1"))]
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ToSchema)]
#[schema(pattern = "^[0-9a-f]{32}$", examples("019ac2f07d3e7c51a0e0b5c4d3e2f1a0"))]
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

    /// Returns the id that stands in place of a broadcast's in the jobs of imports; no broadcast has it.
    fn of_imports() -> Self {
        Self("0".repeat(32))
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

    /// Returns the id of the import of a Page's contacts.
    pub fn of_import(page_id: &PageId) -> Self {
        Self {
            broadcast_id: BroadcastId::of_imports(),
            page_id: page_id.clone(),
        }
    }

    /// Returns `true` if the job is an import, and no part of a broadcast.
    pub fn is_import(&self) -> bool {
        self.broadcast_id == BroadcastId::of_imports()
    }
}

impl<'de> Deserialize<'de> for ContactId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?;
        Self::parse_stored(&id).ok_or_else(|| D::Error::custom("is no contact id"))
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

/// Checks that an id is as Messenger gave it: without invisible characters, and not changed by a spreadsheet.
///
/// # Errors
/// If it is not.
pub fn refuse_mangled(id: &str) -> Result<(), IdFault> {
    if let Some((n, character)) = id.chars().enumerate().find(|(_, c)| !is_visible(*c)) {
        return Err(IdFault::Invisible {
            position: n + 1,
            code_point: character.into(),
        });
    }
    match TEXT_MARKS.into_iter().find(|mark| id.starts_with(mark)) {
        Some(mark) => Err(IdFault::TextMark(mark)),
        None if is_spreadsheet_number(id) => Err(IdFault::Number),
        None => Ok(()),
    }
}

/// Returns true for digits with a decimal point, separators of thousands or an exponent, such as `2.43E+16`. Digits alone are
/// an id.
fn is_spreadsheet_number(id: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (coefficient, exponent) = match id.split_once(['e', 'E']) {
        Some((coefficient, exponent)) => (coefficient, Some(exponent)),
        None => (id, None),
    };
    let is_exponent = |text: &str| is_digits(text.strip_prefix(['+', '-']).unwrap_or(text));
    let coefficient = coefficient.strip_prefix(['+', '-']).unwrap_or(coefficient);
    let digits = coefficient.replace(['.', ',', '\''], "");
    let is_number = coefficient.starts_with(|c: char| c.is_ascii_digit()) && is_digits(&digits);
    is_number && exponent.map_or(digits.len() < coefficient.len(), is_exponent)
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
    fn id_changed_by_a_spreadsheet_is_refused() {
        for id in [
            "2.43E+16",
            "2,43E+16",
            "2.43e16",
            "243E14",
            "24000000000000005.0",
            "24000000000000005,00",
            "24.000.000.000.000.005",
            "24,000,000,000,000,005.00",
            "24'000'000",
            "-2.4E+16",
            "5.",
        ] {
            assert_eq!(ContactId::parse(id), Err(IdFault::Number), "{id}");
        }
        assert_eq!(ContactId::parse("'24000000000000005"), Err(IdFault::TextMark("'")));
        assert_eq!(
            ContactId::parse("=\"24000000000000005\""),
            Err(IdFault::TextMark("=\""))
        );
        for id in [
            "24000000000000005",
            "e5",
            "5e",
            "c00001",
            "1-2",
            "a.b",
            "e",
            "-5",
            "\"",
            "x1E5",
            "1E5x",
        ] {
            assert!(ContactId::parse(id).is_ok(), "{id}");
        }
    }

    #[test]
    fn invisible_character_is_named_with_its_position() {
        let fault = ContactId::parse("24\u{200b}").unwrap_err();
        assert!(fault.to_string().contains("character 3 is U+200B"), "{fault}");
        let stored = serde_json::from_value::<ContactId>("24\u{200b}".into());
        assert_eq!(stored.unwrap().as_str(), "24\u{200b}");
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
