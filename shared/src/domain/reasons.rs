//! Reasons in short: the code of a reason, and the contacts of a job by status and code. Pure, no I/O.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// The most codes by which a job counts its contacts, over all statuses: each is an attribute of the job's item, which is to
/// stay small. Further codes are counted as [`OTHER`].
const MAX_CODES: usize = 30;
/// The most characters of a code.
const MAX_CODE: usize = 64;
/// The code of what is counted under no code of its own.
pub const OTHER: &str = "other";
/// The words before Messenger's own code in a reason.
const BEFORE_MESSENGERS_CODE: &str = "Messenger error ";
/// The beginning of the names of the attributes that hold the totals: `reasons.STATUS/CODE`.
const PREFIX: &str = "reasons.";

/// A status of contacts that are not known to have got the message; each such contact has a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[schema(description = "A status of contacts that are not known to have got the message.")]
#[serde(rename_all = "snake_case")]
pub enum NotSent {
    /// The message cannot be sent.
    Failed,
    /// The message was not sent, because it should not be.
    Skipped,
    /// Messenger may or may not have accepted the message.
    InDoubt,
}

impl NotSent {
    const ALL: [Self; 3] = [Self::Failed, Self::Skipped, Self::InDoubt];

    fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::InDoubt => "in_doubt",
        }
    }
}

/// Writes the name that rows and reports have.
impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns the code of a reason: its words up to the first comma, colon or semicolon, and of an error of Messenger only its
/// numbers, such as `551/1545041`. Every reason begins with such words; what follows them may differ from contact to contact.
pub fn code_of(reason: &str) -> String {
    let words = reason.split([',', ';', ':']).next().unwrap_or_default();
    let code = words.strip_prefix(BEFORE_MESSENGERS_CODE).unwrap_or(words);
    code.chars().take(MAX_CODE).collect()
}

/// Returns `true` if a code is the wanted one, or Messenger's code that is wanted with any subcode: `551/1545041` is a `551`.
pub fn is_of(code: &str, wanted: &str) -> bool {
    code.strip_prefix(wanted)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The contacts of a job that its counters hold as `failed`, `skipped` or `in_doubt`, by status and code.
///
/// It is stored as one attribute for each total, so that writers of different totals do not disturb each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasons(BTreeMap<(NotSent, String), i64>);

impl Reasons {
    /// Adds contacts to a total, however many totals there are.
    pub fn add(&mut self, status: NotSent, code: &str, contacts: i64) {
        *self.0.entry((status, code.to_owned())).or_default() += contacts;
    }

    /// Counts contacts, and returns the code under which they are counted: their own, or [`OTHER`] if it would be one too many.
    pub fn count(&mut self, status: NotSent, code: &str, contacts: i64) -> String {
        let is_known = self.has(status, code) || self.0.len() < MAX_CODES;
        let code = if is_known { code } else { OTHER };
        self.add(status, code, contacts);
        code.to_owned()
    }

    /// Takes one contact out of the total that holds it. A contact that an earlier version counted is in none.
    pub fn discount(&mut self, status: NotSent, code: &str) {
        if let Some(code) = [code, OTHER].into_iter().find(|code| self.has(status, code)) {
            self.add(status, code, -1);
        }
    }

    fn has(&self, status: NotSent, code: &str) -> bool {
        self.0.contains_key(&(status, code.to_owned()))
    }

    /// Returns the totals that are not zero, by status and code.
    pub fn totals(&self) -> impl Iterator<Item = (NotSent, &str, u64)> {
        let totals = self.0.iter();
        let totals =
            totals.map(|((status, code), contacts)| (*status, code.as_str(), u64::try_from(*contacts).unwrap_or(0)));
        totals.filter(|(_, _, contacts)| *contacts > 0)
    }

    /// Returns the difference from other totals, by the names of their attributes.
    pub fn changes_since(&self, before: &Self) -> Vec<(String, i64)> {
        let changed = self.0.iter().filter_map(|(of, contacts)| {
            let change = contacts - before.0.get(of).copied().unwrap_or_default();
            (change != 0).then(|| (attribute(of.0, &of.1), change))
        });
        changed.collect()
    }
}

/// Returns the name of the attribute of a job's item that holds a total.
pub fn attribute(status: NotSent, code: &str) -> String {
    format!("{PREFIX}{status}/{code}")
}

impl<'a> IntoIterator for &'a Reasons {
    type Item = (NotSent, &'a str, i64);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(
            self.0
                .iter()
                .map(|((status, code), contacts)| (*status, code.as_str(), *contacts)),
        )
    }
}

/// Writes the attributes of a job's item.
impl Serialize for Reasons {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.0
                .iter()
                .map(|((status, code), contacts)| (attribute(*status, code), contacts)),
        )
    }
}

/// Reads the attributes of a job's item that hold totals, and ignores all others.
impl<'de> Deserialize<'de> for Reasons {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Attributes;

        impl<'de> Visitor<'de> for Attributes {
            type Value = Reasons;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the attributes of a job")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut attributes: M) -> Result<Reasons, M::Error> {
                let mut reasons = Reasons::default();
                while let Some(name) = attributes.next_key::<String>()? {
                    match of_attribute(&name) {
                        Some((status, code)) => reasons.add(status, code, attributes.next_value()?),
                        None => drop(attributes.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(reasons)
            }
        }

        deserializer.deserialize_map(Attributes)
    }
}

/// Returns the status and the code of an attribute's name; `None` for the name of another one.
fn of_attribute(name: &str) -> Option<(NotSent, &str)> {
    let (status, code) = name.strip_prefix(PREFIX)?.split_once('/')?;
    let status = NotSent::ALL.into_iter().find(|known| known.name() == status)?;
    Some((status, code))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn code_is_the_beginning_of_a_reason() {
        for (reason, code) in [
            ("opted_out", "opted_out"),
            ("opted_out; an earlier attempt may have arrived", "opted_out"),
            ("missing first_name", "missing first_name"),
            ("no connection, 5 times", "no connection"),
            ("template: invalid operation (line 2)", "template"),
            ("Messenger error 551", "551"),
            ("Messenger error 10/2018278; not found in Messenger", "10/2018278"),
        ] {
            assert_eq!(code_of(reason), code);
        }
        assert_eq!(code_of(&"é".repeat(100)), "é".repeat(64));
    }

    #[test]
    fn code_without_subcode_is_of_every_subcode() {
        for (code, wanted, is_same) in [
            ("551/1545041", "551", true),
            ("551", "551", true),
            ("551", "551/1545041", false),
            ("5512", "551", false),
            ("opted_out", "opted", false),
        ] {
            assert_eq!(is_of(code, wanted), is_same, "{code} {wanted}");
        }
    }

    #[test]
    fn totals_are_attributes_of_their_own() {
        let mut reasons = Reasons::default();
        reasons.count(NotSent::Failed, "10/2018278", 2);
        reasons.count(NotSent::InDoubt, "connection lost", 1);

        let stored = serde_json::to_value(&reasons).unwrap();
        assert_eq!(
            stored,
            json!({"reasons.failed/10/2018278": 2, "reasons.in_doubt/connection lost": 1})
        );

        let item = json!({
            "reasons.failed/10/2018278": 2, "reasons.in_doubt/connection lost": 1, "failed": 2, "reason": "x",
            "reasons.later": {"a": 1},
        });
        assert_eq!(serde_json::from_value::<Reasons>(item).unwrap(), reasons);
    }

    #[test]
    fn codes_beyond_thirty_are_counted_together_and_taken_out_again() {
        let mut reasons = Reasons::default();
        for code in 0..40 {
            reasons.count(NotSent::Failed, &code.to_string(), 1);
        }
        assert_eq!(reasons.totals().count(), 31);
        assert_eq!(reasons.count(NotSent::Failed, "29", 1), "29");
        let before = reasons.clone();

        reasons.discount(NotSent::Failed, "29");
        reasons.discount(NotSent::Failed, "30");
        reasons.discount(NotSent::Skipped, "opted_out");

        let expected = [
            ("reasons.failed/29".to_owned(), -1),
            ("reasons.failed/other".to_owned(), -1),
        ];
        assert_eq!(reasons.changes_since(&before), expected);
    }
}
