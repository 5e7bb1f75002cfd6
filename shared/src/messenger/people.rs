//! The list of a Page's conversations, part by part, and the people in them.
//!
//! A conversation has a list of participants: the person, and the Page. Its `updated_time` also changes with messages of the Page,
//! so that it tells nothing about the person's last interaction. Source:
//! <https://developers.facebook.com/documentation/business-messaging/messenger-platform/conversations>

use crate::domain::ids::{ContactId, PageId};
use crate::domain::visible::{is_blank, trimmed};
use crate::messenger::MessengerClient;
use crate::messenger::conversations::has_more;
use crate::messenger::errors::SendError;
use crate::messenger::json::Object;

/// The most characters of a name; a longer one is none, as an import of contacts would refuse it.
const MAX_NAME: usize = 1_000;

/// A person who has a conversation with a Page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The Page-scoped id.
    pub contact_id: ContactId,
    /// The name as Messenger shows it, if it shows one that a reader sees.
    pub name: Option<String>,
}

/// A part of the list of a Page's conversations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeoplePart {
    /// The number of conversations.
    pub conversations: u64,
    /// The number of those in which no person can be read: an account may be deleted.
    pub unreadable: u64,
    /// The people in the others.
    pub people: Vec<Person>,
    /// The cursor of the next part; `None` if this is the last.
    pub next: Option<String>,
}

impl MessengerClient {
    /// Reads a part of the list of the Page's conversations: of at most so many, after this cursor or from the beginning.
    ///
    /// # Errors
    /// If Messenger refuses the call, or does not answer it with such a list.
    pub async fn people(&self, after: Option<&str>, most: usize) -> Result<PeoplePart, SendError> {
        let most = most.to_string();
        let mut query = vec![
            ("platform", "messenger"),
            ("fields", "participants"),
            ("limit", most.as_str()),
        ];
        query.extend(after.map(|after| ("after", after)));
        let path = [self.page_id.as_str(), "conversations"];
        let (listed, _) = self.get(&path, &query).await?;
        let part = PeoplePart::parse(&listed, &self.page_id).ok_or(SendError::NoAnswer("list not readable"))?;
        match part.next.as_deref() {
            // It would be read for ever.
            Some(next) if after == Some(next) => Err(SendError::NoAnswer("list does not go on")),
            _ => Ok(part),
        }
    }
}

impl PeoplePart {
    /// Parses a part of the list; `None` if it is no list, or its continuation cannot be read. What cannot be read of one
    /// conversation spoils no other.
    fn parse(json: &str, page_id: &PageId) -> Option<Self> {
        let listed = Object::parse(json)?;
        let conversations = listed.list("data")?;
        let next = match has_more(&listed) {
            true => Some(listed.object("paging")?.object("cursors")?.text("after")?),
            false => None,
        };
        let (mut people, mut unreadable) = (Vec::new(), 0);
        for conversation in &conversations {
            let known = people.len();
            people.extend(people_in(conversation.get(), page_id));
            unreadable += u64::from(people.len() == known);
        }
        Some(Self {
            conversations: conversations.len() as u64,
            unreadable,
            people,
            next,
        })
    }
}

/// Returns the participants of a conversation whose id is readable, without the Page itself.
fn people_in(json: &str, page_id: &PageId) -> Vec<Person> {
    let participants = Object::parse(json).and_then(|conversation| conversation.object("participants"));
    let participants = participants.and_then(|participants| participants.list("data"));
    let person = |participant: &str| {
        let participant = Object::parse(participant)?;
        let id = participant.text("id").filter(|id| id != page_id.as_str())?;
        Some(Person {
            contact_id: ContactId::parse(&id).ok()?,
            name: participant.text("name").as_deref().and_then(name),
        })
    };
    let participants = participants.unwrap_or_default().into_iter();
    participants
        .filter_map(|participant| person(participant.get()))
        .collect()
}

/// Returns a name without the blanks at its ends, and otherwise as it is; `None` for one that cannot be stored or seen.
fn name(shown: &str) -> Option<String> {
    let name = trimmed(shown);
    let is_name = !is_blank(name) && !name.contains('\0') && name.chars().count() <= MAX_NAME;
    is_name.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(listed: &str) -> Option<PeoplePart> {
        PeoplePart::parse(listed, &PageId::parse("42").unwrap())
    }

    /// Returns the people in one conversation with these participants, as ids and names.
    fn people(participants: &Value) -> Vec<(String, Option<String>)> {
        let listed = json!({"data": [{"id": "t_1", "participants": participants}]}).to_string();
        let part = parse(&listed).unwrap();
        assert_eq!(
            (part.conversations, part.unreadable),
            (1, u64::from(part.people.is_empty()))
        );
        let people = part.people.into_iter();
        people
            .map(|person| (person.contact_id.to_string(), person.name))
            .collect()
    }

    fn person(id: &str, name: Option<&str>) -> (String, Option<String>) {
        (id.to_owned(), name.map(str::to_owned))
    }

    #[test]
    fn page_is_no_person_and_ids_are_texts_or_numbers() {
        let both = json!({"data": [{"id": 6001, "name": " Ana "}, {"id": "42", "name": "The Page"}]});
        assert_eq!(people(&both), [person("6001", Some("Ana"))]);
        let page_as_number = json!({"data": [{"id": 42}, {"id": "6001"}]});
        assert_eq!(people(&page_as_number), [person("6001", None)]);
    }

    #[test]
    fn odd_participants_are_no_people() {
        let long = "x".repeat(129);
        for odd in [
            json!(null),
            json!([]),
            json!({}),
            json!({"data": null}),
            json!({"data": {}}),
            json!({"data": [{"id": "42"}]}),
            json!({"data": [5, null, "6001", [], {}, {"id": null}, {"id": {}}, {"id": ""}, {"id": "a b"}, {"id": long}]}),
        ] {
            assert_eq!(people(&odd), [], "{odd}");
        }
        let beside = json!({"data": [5, {"id": "6001", "name": {"first": "Ana"}}, {"name": "nobody"}]});
        assert_eq!(people(&beside), [person("6001", None)]);
    }

    #[test]
    fn name_stays_as_it_is_in_any_script() {
        for verbatim in [
            "Αλέξης Ζορμπάς",
            "محمد علي",
            "王 小明",
            "O’Brien-Ünal",
            "क्\u{200D}ष",
            "👩\u{200D}👧",
        ] {
            let one = json!({"data": [{"id": "6001", "name": format!("\u{FEFF}{verbatim} ")}]});
            assert_eq!(people(&one), [person("6001", Some(verbatim))]);
        }
        for none in ["", " \u{200B}\u{3164}", "A\0na", &"x".repeat(1_001)] {
            let one = json!({"data": [{"id": "6001", "name": none}]});
            assert_eq!(people(&one), [person("6001", None)], "{none:?}");
        }
        let half = r#"{"data": [{"participants": {"data": [{"id": "6001", "name": "\ud83d"}]}}]}"#;
        assert_eq!(parse(half).unwrap().people[0].name, None);
    }

    #[test]
    fn list_without_a_readable_continuation_is_no_list() {
        let listed = |paging: Value| parse(&json!({"data": [], "paging": paging}).to_string());
        let last = listed(json!({"cursors": {"before": "a", "after": "b"}})).unwrap();
        assert_eq!((last.next, last.conversations), (None, 0));
        let next = listed(json!({"cursors": {"after": "b"}, "next": "https://…"})).unwrap();
        assert_eq!(next.next.as_deref(), Some("b"));
        for unreadable in [
            json!({"next": "https://…"}),
            json!({"cursors": {"after": []}, "next": "https://…"}),
            json!("…"),
        ] {
            assert_eq!(listed(unreadable), None);
        }
        for no_list in ["{}", r#"{"data": {}}"#, "[]", "5"] {
            assert_eq!(parse(no_list), None);
        }
    }
}
