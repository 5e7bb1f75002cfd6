//! The people who have a conversation with a Page: generated ones, with names in many scripts, and odd conversations.

use axum::http::HeaderMap;
use axum::http::header;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::sandbox::faults::GraphError;

/// The most conversations in one answer.
const MOST: usize = 100;
/// The number of conversations in an answer to a call without a limit.
const USUAL: usize = 25;
/// The id of the first person.
const FIRST_ID: usize = 24_000_000_000_000_000;
/// The time of the newest conversation, in seconds since 1970; each further one is a minute older.
const NEWEST: i64 = 1_796_000_000;
/// The fields of a conversation in a list.
const FIELDS: [&str; 5] = ["id", "link", "updated_time", "can_reply", "participants"];

/// Given names and family names by script. A name is made of two of one script.
const NAMES: [(&[&str], &[&str]); 16] = [
    (
        &["Ana", "Zoë", "Jürgen", "Nguyễn"],
        &["Müller", "O’Brien", "Łukasiewicz", "da Silva"],
    ),
    (&["Мария", "Олексій", "Ђорђе"], &["Иванова", "Шевченко", "Ђокић"]),
    (&["Ελένη", "Γιώργος"], &["Παπαδοπούλου", "Ζορμπάς"]),
    (&["محمد", "فاطمة", "زهراء"], &["عبد الله", "الحسيني"]),
    (&["נועה", "דוד"], &["כהן", "בן־דוד"]),
    (&["अनिता", "क्षितिज"], &["शर्मा", "द्विवेदी"]),
    (&["আয়েশা", "সুমন"], &["চৌধুরী", "রহমান"]),
    (&["முருகன்", "லட்சுமி"], &["சுப்பிரமணியம்", "நாயர்"]),
    (&["สมชาย", "พิมพ์ใจ"], &["ศรีสุข", "ทองดี"]),
    (&["王", "歐陽"], &["小明", "秀英"]),
    (&["さくら", "タロウ"], &["佐藤", "ヤマダ"]),
    (&["서연", "민준"], &["김", "제갈"]),
    (&["ნინო", "გიორგი"], &["ბერიძე", "კაპანაძე"]),
    (&["Անի", "Տիգրան"], &["Հակոբյան", "Սարգսյան"]),
    (&["አበበ", "ሰላም"], &["ተስፋዬ", "በቀለ"]),
    (&["ស៊ីថា", "🌻 Luz"], &["សុខ", "👩\u{200D}🌾"]),
];

/// The people who have a conversation with a Page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct People {
    /// The number of people.
    pub count: usize,
    /// The number of the first of them. Two Pages with the same number have the same people.
    #[serde(default)]
    pub first: usize,
    /// The most conversations in one answer, if it is less than Messenger's hundred.
    #[serde(default)]
    pub at_once: Option<usize>,
    /// Conversations as Messenger may show them, at the beginning of the list and unchanged.
    #[serde(default)]
    pub odd: Vec<Value>,
    /// The number of times that all cursors were forgotten.
    #[serde(skip)]
    pub generation: usize,
}

/// The query of a list of conversations.
#[derive(Debug, Deserialize)]
pub struct ListQuery {
    pub fields: Option<String>,
    pub limit: Option<usize>,
    pub after: Option<String>,
}

impl People {
    /// Returns so many people.
    pub fn new(count: usize) -> People {
        People {
            count,
            ..People::default()
        }
    }

    /// Returns the id and the name of a person.
    pub fn person(&self, n: usize) -> (String, String) {
        let n = self.first + n;
        let (given, family) = NAMES[n % NAMES.len()];
        let of_script = n / NAMES.len();
        let (given, family) = (
            given[of_script % given.len()],
            family[of_script / given.len() % family.len()],
        );
        ((FIRST_ID + n).to_string(), format!("{given} {family}"))
    }

    /// Returns these people in place of those before, whose cursors are forgotten.
    pub fn after(self, before: &People) -> People {
        People {
            generation: before.generation + 1,
            ..self
        }
    }

    /// Forgets all cursors, as Messenger does after some time.
    pub fn expire_cursors(&mut self) {
        self.generation += 1;
    }

    /// Returns one page of the list: the conversations after the cursor, or else the newest.
    ///
    /// # Errors
    ///
    /// Fails if a field does not exist, or the cursor is not known any more.
    pub fn list(&self, page_id: &str, query: &ListQuery, headers: &HeaderMap) -> Result<Value, GraphError> {
        let fields: Vec<&str> = query.fields.as_deref().unwrap_or("id").split(',').collect();
        if let Some(field) = fields.iter().find(|field| !FIELDS.contains(field)) {
            let message = format!("(#100) Tried accessing nonexisting field ({field})");
            return Err(GraphError::new(100, message));
        }
        let start = match &query.after {
            None => 0,
            Some(cursor) => self
                .position(cursor)
                .ok_or_else(|| GraphError::new(100, "(#100) Invalid cursors values"))?,
        };
        let all = self.odd.len() + self.count;
        let limit = query
            .limit
            .unwrap_or(USUAL)
            .clamp(1, self.at_once.unwrap_or(MOST).min(MOST));
        let end = all.min(start + limit);
        let data: Vec<Value> = (start..end).map(|n| self.conversation(page_id, n, &fields)).collect();
        let mut listing = json!({ "data": data });
        if data.is_empty() {
            return Ok(listing);
        }
        let after = self.cursor(end);
        listing["paging"] = json!({ "cursors": { "before": self.cursor(start), "after": after } });
        if end < all {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("platform", "messenger")
                .append_pair("fields", &fields.join(","))
                .append_pair("limit", &limit.to_string())
                .append_pair("after", &after)
                .finish();
            let host = host.unwrap_or_default();
            listing["paging"]["next"] = format!("http://{host}/v25.0/{page_id}/conversations?{query}").into();
        }
        Ok(listing)
    }

    /// Returns the nth conversation of the list, with these fields and the id.
    fn conversation(&self, page_id: &str, n: usize, fields: &[&str]) -> Value {
        let Some(n) = n.checked_sub(self.odd.len()) else {
            return self.odd[n].clone();
        };
        let (id, name) = self.person(n);
        let updated =
            jiff::Timestamp::from_second(NEWEST - 60 * i64::try_from(n).unwrap_or_default()).unwrap_or_default();
        let mut conversation = Map::new();
        let names = format!("{page_id} {id}");
        conversation.insert(
            "id".to_owned(),
            format!("t_{}", BASE64_URL_SAFE_NO_PAD.encode(names)).into(),
        );
        for field in fields {
            let value = match *field {
                "link" => format!("/{page_id}/inbox/{id}/").into(),
                "updated_time" => updated.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string().into(),
                "can_reply" => true.into(),
                "participants" => json!({ "data": [
                    { "name": name, "email": format!("{id}@facebook.com"), "id": id },
                    { "name": format!("Page {page_id}"), "email": format!("{page_id}@facebook.com"), "id": page_id },
                ] }),
                _ => continue,
            };
            conversation.insert((*field).to_owned(), value);
        }
        Value::Object(conversation)
    }

    /// Returns the cursor of a position. To callers it is opaque.
    fn cursor(&self, position: usize) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{} {position}", self.generation))
    }

    /// Returns the position of a cursor, unless it is not known any more.
    fn position(&self, cursor: &str) -> Option<usize> {
        let cursor = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (generation, position) = std::str::from_utf8(&cursor).ok()?.split_once(' ')?;
        (generation == self.generation.to_string()).then(|| position.parse().ok())?
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Reads the list to its end; returns the ids of the people, and the number of calls.
    fn read(people: &People, limit: usize) -> (Vec<String>, usize) {
        let (mut ids, mut after) = (Vec::new(), None);
        for calls in 1.. {
            let query = ListQuery {
                fields: Some("participants".to_owned()),
                limit: Some(limit),
                after,
            };
            let listing = people.list("page-1", &query, &HeaderMap::new()).unwrap();
            let data = listing["data"].as_array().unwrap();
            let id = |one: &Value| one["participants"]["data"][0]["id"].as_str().unwrap().to_owned();
            ids.extend(data.iter().map(id));
            if listing["paging"]["next"].is_null() {
                return (ids, calls);
            }
            after = listing["paging"]["cursors"]["after"].as_str().map(str::to_owned);
        }
        unreachable!()
    }

    #[test]
    fn list_has_each_person_once() {
        for (count, limit, calls) in [(0, 100, 1), (100, 100, 1), (101, 100, 2), (250, 1_000, 3), (5, 2, 3)] {
            let (ids, made) = read(&People::new(count), limit);
            assert_eq!((ids.len(), made), (count, calls));
            assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), count);
        }
    }

    #[test]
    fn expired_cursor_is_refused() {
        let mut people = People::new(3);
        let query = |after| ListQuery {
            fields: None,
            limit: Some(1),
            after,
        };
        let listing = people.list("page-1", &query(None), &HeaderMap::new()).unwrap();
        let after = listing["paging"]["cursors"]["after"].as_str().map(str::to_owned);
        assert!(people.list("page-1", &query(after.clone()), &HeaderMap::new()).is_ok());
        people.expire_cursors();
        let refused = people.list("page-1", &query(after), &HeaderMap::new()).unwrap_err();
        assert_eq!(refused.code, 100);
    }
}
