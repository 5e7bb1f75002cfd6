//! The request `POST /v1/broadcasts`, parsed. Everything that needs neither a table nor a clock is checked here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::domain::ids::{ContactId, Pages, token};
use shared::domain::job::Priority;
use shared::domain::message::{Envelope, Message, MessagingType, NotificationType, Tag};
use shared::domain::visible::{is_blank, trimmed};
use shared::domain::window::OutsideWindow;
use shared::store::requests::RequestKey;

use crate::api::broadcasts::{MAX_CONTACT_IDS, NewBroadcast};
use crate::audience::read_choice;
use crate::fields::{Faults, Fields, word};
use crate::new_message::{self, LiteralBraces};
use crate::problem::Problem;
use crate::schedule::Times;

/// The maximum number of characters in the name of a broadcast.
const MAX_NAME: usize = 200;
/// The maximum number of entries of the metadata.
const MAX_METADATA: usize = 20;
/// The maximum number of characters in a key of the metadata.
const MAX_KEY: usize = 40;
/// The maximum number of characters in a value of the metadata.
const MAX_VALUE: usize = 500;
/// The time for which a request with an `Idempotency-Key` is recognised.
const KEY_VALID_FOR: Duration = Duration::from_secs(30 * 86_400);
/// The time for which a request without a key is recognised by its body: long enough for a double click.
const BODY_VALID_FOR: Duration = Duration::from_secs(300);

impl NewBroadcast {
    /// Parses a request of a caller that may use these Pages.
    ///
    /// # Errors
    /// If anything is wrong with it: a problem (400) that lists all faults.
    pub fn parse(body: &Value, pages: &Pages) -> Result<Self, Problem> {
        let faults = Faults::default();
        let known = [
            &["contact_ids", "audience", "requires_approval", "priority"],
            Terms::FIELDS,
        ]
        .concat();
        let read = Self::read(body, &known, pages, &faults);
        faults.or(read)
    }

    /// Reads a request that may have these fields, of a caller that may use these Pages.
    pub fn read(body: &Value, known: &[&str], pages: &Pages, faults: &Faults) -> Option<Self> {
        let fields = Fields::of(body, "", known, faults)?;
        let audience = match fields.optional("audience") {
            None => Some(None),
            Some(audience) => read_choice(audience, "/audience", pages, faults).map(Some),
        };
        let contact_ids = contact_ids(&fields, faults);
        let requires_approval = flag(&fields, "requires_approval");
        let priority = match fields.optional("priority") {
            None => Some(Priority::Normal),
            given => fields.parsed("priority", given, |text| word(text, "normal and high")),
        };
        let Terms {
            name,
            metadata,
            message,
            braces,
            envelope,
            times,
            outside_window,
        } = Terms::read(&fields, faults)?;
        Some(Self {
            contact_ids: contact_ids?,
            audience: audience?,
            name,
            metadata,
            message,
            allow_literal_braces: braces == LiteralBraces::Allowed,
            messaging_type: envelope.messaging_type,
            tag: envelope.tag,
            notification_type: envelope.notification_type,
            scheduled_at: times.scheduled_at,
            time_zone: times.time_zone,
            quiet_hours: times.quiet_hours,
            expires_at: times.expires_at,
            requires_approval,
            outside_window,
            priority: priority?,
        })
    }

    /// Returns the times of the request.
    pub fn times(&self) -> Times {
        Times {
            scheduled_at: self.scheduled_at,
            time_zone: self.time_zone.clone(),
            quiet_hours: self.quiet_hours.clone(),
            expires_at: self.expires_at,
        }
    }

    /// Returns the fields that go with the message in each call of the Send API.
    pub fn envelope(&self) -> Envelope {
        Envelope {
            messaging_type: self.messaging_type,
            tag: self.tag,
            notification_type: self.notification_type,
        }
    }

    /// Returns the key by which repetitions of the request are recognised: a digest of the caller and its `Idempotency-Key`
    /// if there is one, else the fingerprint.
    ///
    /// The fingerprint is a digest of the caller and the normalised body: the ids as a set, everything else as parsed. It
    /// also tells whether two requests with one `Idempotency-Key` are the same.
    pub fn key(&self, caller: Option<&str>, idempotency_key: Option<&str>) -> RequestKey {
        let fingerprint = self.fingerprint("body", caller);
        match idempotency_key {
            Some(key) => RequestKey {
                digest: digest("key", caller, key),
                fingerprint,
                valid_for: KEY_VALID_FOR,
            },
            None => RequestKey {
                digest: fingerprint.clone(),
                fingerprint,
                valid_for: BODY_VALID_FOR,
            },
        }
    }

    /// Returns the key by which repetitions of a send to testers are recognised: only by an `Idempotency-Key`, since a tester looks
    /// at the same message again.
    pub fn test_key(&self, caller: Option<&str>, idempotency_key: Option<&str>) -> RequestKey {
        RequestKey {
            digest: match idempotency_key {
                Some(key) => digest("test key", caller, key),
                None => token(),
            },
            fingerprint: self.fingerprint("test body", caller),
            valid_for: KEY_VALID_FOR,
        }
    }

    fn fingerprint(&self, kind: &str, caller: Option<&str>) -> String {
        let mut body = vec![json!(self.message), json!(self.envelope()), json!(self.scheduled_at)];
        // Absent otherwise, so that requests which earlier versions have accepted keep their fingerprints.
        if let Some(audience) = &self.audience {
            body.push(json!({"audience": audience}));
        }
        if self.allow_literal_braces {
            body.push(json!("allow_literal_braces"));
        }
        if let Some(name) = &self.name {
            body.push(json!({"name": name}));
        }
        if !self.metadata.is_empty() {
            body.push(json!({"metadata": self.metadata}));
        }
        if let Some(time_zone) = &self.time_zone {
            body.push(json!({"time_zone": time_zone}));
        }
        if let Some(quiet_hours) = &self.quiet_hours {
            body.push(json!({"quiet_hours": quiet_hours}));
        }
        if let Some(expires_at) = &self.expires_at {
            body.push(json!({"expires_at": expires_at}));
        }
        if self.requires_approval {
            body.push(json!("requires_approval"));
        }
        if self.outside_window != OutsideWindow::Skip {
            body.push(json!({"outside_window": self.outside_window}));
        }
        if self.priority != Priority::Normal {
            body.push(json!({"priority": self.priority}));
        }
        digest(kind, caller, &with_ids(&self.contact_ids, &body))
    }

    /// Checks the times of the request against the time at which it was received.
    ///
    /// # Errors
    /// If one is out of range (400).
    pub fn check_time(&self, received: Timestamp) -> Result<(), Problem> {
        let faults = Faults::default();
        let times = self.times();
        times.check_start(received, &faults);
        times.check_end(received, &faults);
        faults.or(Some(()))
    }
}

/// Everything that a request says about a broadcast, except for its contacts: it can be changed until sending begins.
pub struct Terms {
    /// The name.
    pub name: Option<String>,
    /// The caller's notes.
    pub metadata: BTreeMap<String, String>,
    /// The message.
    pub message: Message,
    /// The consent to texts that look like placeholders.
    pub braces: LiteralBraces,
    /// The fields that go with the message.
    pub envelope: Envelope,
    /// The times.
    pub times: Times,
    /// The treatment of contacts that Messenger's window is over for.
    pub outside_window: OutsideWindow,
}

impl Terms {
    /// The names of their fields.
    pub const FIELDS: &[&str] = &[
        "message",
        "allow_literal_braces",
        "messaging_type",
        "tag",
        "notification_type",
        "scheduled_at",
        "time_zone",
        "quiet_hours",
        "expires_at",
        "name",
        "metadata",
        "outside_window",
    ];

    /// Reads them from the fields of a body.
    pub fn read(fields: &Fields<'_>, faults: &Faults) -> Option<Self> {
        let braces = literal_braces(fields);
        let message = fields
            .required("message")
            .and_then(|message| new_message::read(message, braces, faults));
        let envelope = envelope(fields, fields.optional("message"));
        let times = Times::read(fields, faults);
        let name = fields.parsed("name", fields.optional("name"), name);
        let metadata = metadata(fields);
        let outside_window = match fields.optional("outside_window") {
            None => Some(OutsideWindow::Skip),
            given => fields.parsed("outside_window", given, |text| word(text, "skip and send")),
        };
        Some(Self {
            name,
            metadata,
            message: message?,
            braces,
            envelope: envelope?,
            times,
            outside_window: outside_window?,
        })
    }
}

fn literal_braces(fields: &Fields<'_>) -> LiteralBraces {
    match flag(fields, "allow_literal_braces") {
        true => LiteralBraces::Allowed,
        false => LiteralBraces::Refused,
    }
}

/// Reads a field that is true or false; false if it is absent.
fn flag(fields: &Fields<'_>, name: &str) -> bool {
    let value = fields.optional(name);
    if value.is_some_and(|value| !value.is_boolean()) {
        fields.fault(name, "must be true or false");
    }
    value == Some(&Value::Bool(true))
}

/// Reads the ids of the contacts; none if there is an audience in their place.
fn contact_ids(fields: &Fields<'_>, faults: &Faults) -> Option<Vec<ContactId>> {
    let ids = fields.optional("contact_ids");
    match (ids, fields.optional("audience")) {
        (Some(_), None) => {}
        (None, None) => fields.fault("contact_ids", "is required, or an audience in its place"),
        (Some(_), Some(_)) => fields.fault("audience", "must not be there with contact_ids"),
        (None, Some(_)) => return Some(Vec::new()),
    }
    let ids = fields.list("contact_ids", ids)?;
    if !(1..=MAX_CONTACT_IDS).contains(&ids.len()) {
        fields.fault(
            "contact_ids",
            format!("must have 1 to {MAX_CONTACT_IDS} ids, and has {}", ids.len()),
        );
        return None;
    }
    let parsed = ids.iter().enumerate().filter_map(|(n, id)| {
        let id = match id.as_str() {
            Some(id) => ContactId::parse(id).map_err(|fault| fault.to_string()),
            None => Err("must be a string".to_owned()),
        };
        id.map_err(|message| faults.add(format!("/contact_ids/{n}"), message))
            .ok()
    });
    Some(parsed.collect())
}

fn envelope(fields: &Fields<'_>, message: Option<&Value>) -> Option<Envelope> {
    let messaging_type = match fields.optional("messaging_type") {
        None => Some(MessagingType::Update),
        given => fields.parsed("messaging_type", given, |text| {
            word(text, "RESPONSE, UPDATE, MESSAGE_TAG and UTILITY")
        }),
    };
    let notification_type = match fields.optional("notification_type") {
        None => Some(NotificationType::Regular),
        given => fields.parsed("notification_type", given, |text| {
            word(text, "REGULAR, SILENT_PUSH and NO_PUSH")
        }),
    };
    let tag = fields.parsed("tag", fields.optional("tag"), tag);
    match (messaging_type, fields.optional("tag")) {
        (Some(MessagingType::MessageTag), None) => fields.fault("tag", "is required with MESSAGE_TAG"),
        (Some(kind), Some(_)) if kind != MessagingType::MessageTag => {
            fields.fault("tag", "is allowed only with messaging_type MESSAGE_TAG");
        }
        _ => {}
    }
    let has_template = message
        .and_then(|message| message.get("template"))
        .is_some_and(|template| !template.is_null());
    if messaging_type.is_some_and(|kind| (kind == MessagingType::Utility) != has_template) {
        fields.fault(
            "messaging_type",
            "must be UTILITY with a template, and with nothing else",
        );
    }
    Some(Envelope {
        messaging_type: messaging_type?,
        tag,
        notification_type: notification_type?,
    })
}

/// Checks the name of a broadcast; blanks at its ends are removed.
fn name(text: &str) -> Result<String, String> {
    let text = trimmed(text);
    match text.chars().count() {
        _ if is_blank(text) => Err("must have a visible character".to_owned()),
        n if n > MAX_NAME => Err(format!("must have at most {MAX_NAME} characters")),
        _ if text.contains(char::is_control) => Err("must have no control character".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// Reads the metadata: strings by key, which are kept as they are.
fn metadata(fields: &Fields<'_>) -> BTreeMap<String, String> {
    const NAME: &str = "metadata";
    let mut metadata = BTreeMap::new();
    let Some(value) = fields.optional(NAME) else {
        return metadata;
    };
    let Some(entries) = value.as_object().filter(|entries| entries.len() <= MAX_METADATA) else {
        let message = format!("must be an object with at most {MAX_METADATA} entries");
        fields.fault(NAME, message);
        return metadata;
    };
    for (key, value) in entries {
        let is_key = !is_blank(key) && key.chars().count() <= MAX_KEY && !key.contains(char::is_control);
        let value = value
            .as_str()
            .filter(|value| value.chars().count() <= MAX_VALUE && !value.contains('\0'));
        match value {
            _ if !is_key => {
                let message = format!("must have a key of 1 to {MAX_KEY} visible characters");
                fields.entry_fault(NAME, key, message);
            }
            None => {
                let message = format!("must be a string of at most {MAX_VALUE} characters, without U+0000");
                fields.entry_fault(NAME, key, message);
            }
            Some(value) => drop(metadata.insert(key.clone(), value.to_owned())),
        }
    }
    metadata
}

fn tag(text: &str) -> Result<Tag, String> {
    const WITHDRAWN: [&str; 3] = ["ACCOUNT_UPDATE", "CONFIRMED_EVENT_UPDATE", "POST_PURCHASE_UPDATE"];
    if WITHDRAWN.contains(&text) {
        let instead = "send an approved template with messaging_type UTILITY instead";
        return Err(format!("is refused by Messenger since 27 April 2026; {instead}"));
    }
    word(text, "HUMAN_AGENT")
}

/// Returns the JSON of a list of the sorted ids and these values. The values of 100,000 ids are not made all at once.
fn with_ids(ids: &[ContactId], others: &[Value]) -> String {
    let ids: BTreeSet<_> = ids.iter().collect();
    let mut list = "[".to_owned();
    for id in ids {
        let mark = if list.len() > 1 { "," } else { "" };
        list.push_str(&format!("{mark}{}", json!(id)));
    }
    let others: Vec<_> = others.iter().map(|other| format!(",{other}")).collect();
    format!("[{list}]{}]", others.concat())
}

/// Returns the SHA-256 of a text, in hexadecimal.
///
/// Digests are domain-separated per kind, and per caller (length-prefixed name), so callers cannot collide. Unauthenticated
/// callers keep the format from before authentication.
fn digest(kind: &str, caller: Option<&str>, of: &str) -> String {
    let mut digest = Sha256::new();
    if let Some(caller) = caller {
        digest.update("caller\0");
        digest.update(caller.len().to_be_bytes());
        digest.update(caller);
    }
    let digest = digest.chain_update(kind).chain_update([0]).chain_update(of).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(caller: Option<&str>, key: Option<&str>) -> RequestKey {
        let body = json!({"contact_ids": ["6001"], "message": {"text": "Hi"}});
        NewBroadcast::parse(&body, &Pages::All).unwrap().key(caller, key)
    }

    #[test]
    fn callers_share_no_request_keys() {
        let callers = [None, Some("a"), Some("ab"), Some("")];
        // One caller appends to its name what another prepends to its key.
        let keys = [None, Some("k"), Some("bk"), Some("key")];
        let mut digests = BTreeSet::new();
        for caller in callers {
            for name in keys {
                digests.insert(key(caller, name).digest);
            }
        }
        assert_eq!(digests.len(), callers.len() * keys.len());
        assert_ne!(key(Some("a"), None).fingerprint, key(Some("b"), None).fingerprint);
    }

    #[test]
    fn name_and_key_do_not_run_together() {
        let digest = |caller, of| digest("key", Some(caller), of);
        assert_ne!(digest("a", "key\0b"), digest("akey\0", "b"));
    }

    #[test]
    fn consent_to_literal_braces_is_part_of_the_fingerprint() {
        let fingerprint = |allow: Value| {
            let body = json!({"contact_ids": ["6001"], "message": {"text": "Hi"}, "allow_literal_braces": allow});
            NewBroadcast::parse(&body, &Pages::All)
                .unwrap()
                .key(None, None)
                .fingerprint
        };
        assert_eq!(fingerprint(json!(false)), key(None, None).fingerprint);
        assert_eq!(fingerprint(json!(null)), key(None, None).fingerprint);
        assert_ne!(fingerprint(json!(true)), key(None, None).fingerprint);
    }

    /// A repetition is known by what it says: the saved audience may have changed since.
    #[test]
    fn audience_is_part_of_the_fingerprint_as_it_is_named() {
        let fingerprint = |audience: Value| {
            let body = json!({"audience": audience, "message": {"text": "Hi"}});
            let new = NewBroadcast::parse(&body, &Pages::All).unwrap();
            new.key(None, None).fingerprint
        };
        let audiences = [
            json!({"everybody": true}),
            json!({"name": "vips"}),
            json!({"tags_any": ["vip"]}),
            json!({"tags_all": ["vip"]}),
            json!({"page_id": "page-1", "tags_any": ["vip"]}),
        ];
        assert_eq!(fingerprint(audiences[1].clone()), fingerprint(audiences[1].clone()));
        let digests: BTreeSet<_> = audiences.into_iter().map(fingerprint).collect();
        assert_eq!(digests.len(), 5);
    }

    #[test]
    fn name_and_metadata_are_part_of_the_fingerprint_if_they_are_given() {
        let fingerprint = |more: Value| {
            let mut body = json!({"contact_ids": ["6001"], "message": {"text": "Hi"}});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            NewBroadcast::parse(&body, &Pages::All)
                .unwrap()
                .key(None, None)
                .fingerprint
        };
        let without = fingerprint(json!({}));
        assert_eq!(fingerprint(json!({"name": null, "metadata": {}})), without);
        let given = [
            json!({"name": "a"}),
            json!({"name": "b"}),
            json!({"metadata": {"name": "a"}}),
            json!({"name": "a", "metadata": {"name": "a"}}),
        ];
        let digests: BTreeSet<_> = given.into_iter().map(fingerprint).chain([without]).collect();
        assert_eq!(digests.len(), 5);
    }

    #[test]
    fn ids_are_sorted_and_written_as_json() {
        let ids = ["b", "a\"", "b"].map(|id| ContactId::parse(id).unwrap());
        let written = with_ids(&ids, &[json!({"text": "Hi"}), json!(null)]);
        assert_eq!(written, json!([["a\"", "b"], {"text": "Hi"}, null]).to_string());
        assert_eq!(with_ids(&[], &[]), "[[]]");
    }

    /// The data directory of an earlier version holds such keys. If they changed, its requests could be made twice.
    #[test]
    fn keys_of_unauthenticated_callers_are_stable() {
        assert_eq!(
            key(None, Some("k")).digest,
            "903662806b80f155e989d7cb4595c36f60d08e2ac8cf693d0a4614a9d6d0f81e"
        );
        assert_eq!(
            key(None, None).digest,
            "cae10f8196fc81c6a523343017151e1a6c9041690500f023f22b31aa12a43d93"
        );
    }
}
