//! What `POST /v1/broadcasts` asks for, read whole: whatever can be checked without a table or a clock is checked here.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::ids::ContactId;
use shared::message::{Envelope, Message, MessagingType, NotificationType, Tag};
use shared::store::requests::RequestKey;

use crate::fields::{Faults, Fields, moment, word};
use crate::new_message;
use crate::problem::Problem;

/// Ids in one request.
const MAX_CONTACT_IDS: usize = 100_000;
/// How far ahead a broadcast may be scheduled.
const FARTHEST: SignedDuration = SignedDuration::from_hours(366 * 24);
/// How long a request is recognised by its `Idempotency-Key` …
const KEY_VALID_FOR: Duration = Duration::from_secs(30 * 86_400);
/// … and how long by its body, which is for a double click.
const BODY_VALID_FOR: Duration = Duration::from_secs(300);

/// A message for a set of contacts, as asked for.
#[derive(Debug)]
pub struct NewBroadcast {
    /// Whom it is for, as often as the request names them.
    pub contact_ids: Vec<ContactId>,
    /// What is sent.
    pub message: Message,
    /// How Messenger is to treat it.
    pub envelope: Envelope,
    /// When it is to be sent, if not at once.
    pub scheduled_at: Option<Timestamp>,
}

impl NewBroadcast {
    /// Reads a request, or says everything that is wrong with it.
    pub fn parse(body: &Value) -> Result<Self, Problem> {
        let faults = Faults::default();
        let read = Self::read(body, &faults);
        faults.or(read)
    }

    fn read(body: &Value, faults: &Faults) -> Option<Self> {
        const KNOWN: [&str; 7] = [
            "contact_ids",
            "audience",
            "message",
            "messaging_type",
            "tag",
            "notification_type",
            "scheduled_at",
        ];
        let fields = Fields::of(body, "", &KNOWN, faults)?;
        let contact_ids = contact_ids(&fields, faults);
        let message = fields
            .required("message")
            .and_then(|message| new_message::read(message, faults));
        let envelope = envelope(&fields, fields.optional("message"));
        let scheduled_at = fields.parsed("scheduled_at", fields.optional("scheduled_at"), moment);
        Some(Self {
            contact_ids: contact_ids?,
            message: message?,
            envelope: envelope?,
            scheduled_at,
        })
    }

    /// A request is known by its key if it has one, else by what it asks for: the ids as a set, the rest as it is.
    pub fn key(&self, idempotency_key: Option<&str>) -> RequestKey {
        let ids: BTreeSet<_> = self.contact_ids.iter().collect();
        let asks_for = json!([ids, self.message, self.envelope, self.scheduled_at]);
        let fingerprint = digest("body", &asks_for.to_string());
        match idempotency_key {
            Some(key) => RequestKey {
                digest: digest("key", key),
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

    /// Whether it can be sent when it asks to be.
    pub fn check_time(&self, received: Timestamp) -> Result<(), Problem> {
        match self.scheduled_at {
            Some(at) if at <= received => Err(Problem::fault("/scheduled_at", "is in the past")),
            Some(at) if at > received + FARTHEST => {
                Err(Problem::fault("/scheduled_at", "is over a year ahead"))
            }
            _ => Ok(()),
        }
    }
}

fn contact_ids(fields: &Fields<'_>, faults: &Faults) -> Option<Vec<ContactId>> {
    let ids = fields.optional("contact_ids");
    match (ids, fields.optional("audience")) {
        (Some(_), None) => {}
        (None, None) => fields.fault("contact_ids", "is required"),
        (Some(_), Some(_)) => fields.fault("audience", "must not be there with contact_ids"),
        (None, Some(_)) => fields.fault(
            "audience",
            "is not supported yet; name the contacts in contact_ids",
        ),
    }
    let ids = fields.list("contact_ids", ids)?;
    if !(1..=MAX_CONTACT_IDS).contains(&ids.len()) {
        fields.fault(
            "contact_ids",
            format!(
                "must have 1 to {MAX_CONTACT_IDS} ids, and has {}",
                ids.len()
            ),
        );
        return None;
    }
    let parsed = ids.iter().enumerate().filter_map(|(n, id)| {
        let id = id
            .as_str()
            .ok_or("must be a string")
            .and_then(ContactId::parse);
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
        (Some(MessagingType::MessageTag), None) => {
            fields.fault("tag", "is required with MESSAGE_TAG")
        }
        (Some(kind), Some(_)) if kind != MessagingType::MessageTag => {
            fields.fault("tag", "goes with messaging_type MESSAGE_TAG only");
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

fn tag(text: &str) -> Result<Tag, String> {
    const DEAD: [&str; 3] = [
        "ACCOUNT_UPDATE",
        "CONFIRMED_EVENT_UPDATE",
        "POST_PURCHASE_UPDATE",
    ];
    if DEAD.contains(&text) {
        let instead = "send an approved template with messaging_type UTILITY instead";
        return Err(format!(
            "is refused by Messenger since 27 April 2026; {instead}"
        ));
    }
    word(text, "HUMAN_AGENT")
}

fn digest(kind: &str, of: &str) -> String {
    let digest = Sha256::new()
        .chain_update(kind)
        .chain_update([0])
        .chain_update(of)
        .finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
