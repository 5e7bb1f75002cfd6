//! The form as a request of the API.

use client::api::broadcasts::NewBroadcast;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shared::domain::ids::ContactId;
use shared::domain::job::Priority;
use shared::domain::markup::refuse_foreign_placeholders;
use shared::domain::message::{Message, MessagingType, NotificationType, Tag};
use shared::domain::schedule::{QuietHours, TimeOfDay, Zone};
use shared::domain::template::Template;
use shared::domain::window::OutsideWindow;

use super::faults::{Faults, Refusal};
use super::recipients::Recipients;
use crate::fields::Fields;
use crate::show::hex;

/// The time zone of a form that names none.
pub const UTC: &str = "UTC";

/// Reads the whole form.
///
/// # Errors
///
/// Fails with the faults of its fields.
pub fn read(fields: &Fields) -> Result<NewBroadcast, Refusal> {
    let mut faults = Faults::default();
    let recipients = Recipients::read(fields, &mut faults);
    let message = message(fields, &mut faults);
    let zone = zone(fields, &mut faults);
    let scheduled_at = time(fields, "at", zone.as_ref(), &mut faults);
    let expires_at = time(fields, "expires", zone.as_ref(), &mut faults);
    let quiet_hours = quiet_hours(fields, zone.as_ref(), &mut faults);
    let (Some(recipients), Some(message)) = (recipients, message) else {
        return faults.or(NewBroadcast::new(Vec::new(), no_message()));
    };
    let has_time = scheduled_at.is_some() || expires_at.is_some();
    let new = NewBroadcast {
        name: fields.get("name").map(str::to_owned),
        scheduled_at,
        time_zone: zone.filter(|_| has_time),
        quiet_hours,
        expires_at,
        requires_approval: fields.is_ticked("requires_approval"),
        priority: match fields.is_ticked("urgent") {
            true => Priority::High,
            false => Priority::Normal,
        },
        ..with_message(recipients, message, fields)
    };
    faults.or(new)
}

/// Reads the recipients and the message only, for a look at the message while it is written: of a list of ids the first ones. Without
/// a message there is a mark in its place, so that the recipients can be counted.
///
/// # Errors
///
/// Fails with the faults of the recipients.
pub fn read_for_preview(fields: &Fields, most_ids: usize) -> Result<NewBroadcast, Refusal> {
    let mut faults = Faults::default();
    let recipients = match Recipients::read(fields, &mut faults) {
        Some(Recipients::Ids(mut ids)) => {
            ids.truncate(most_ids);
            Recipients::Ids(ids)
        }
        Some(audience) => audience,
        None => Recipients::Ids(Vec::new()),
    };
    // What is still empty is no fault.
    let message = match has_text(fields) {
        true => message(fields, &mut faults),
        false => message(fields, &mut Faults::default()),
    };
    let new = with_message(recipients, message.clone().unwrap_or_else(no_message), fields);
    faults.or(match message {
        Some(_) => new,
        // A mark has no other kind.
        None => NewBroadcast {
            messaging_type: MessagingType::Update,
            tag: None,
            ..new
        },
    })
}

/// Returns true if there is a text.
pub fn has_text(fields: &Fields) -> bool {
    messaging_type(fields) != MessagingType::Utility && fields.get("text").is_some()
}

/// Reads the message.
pub fn message(fields: &Fields, faults: &mut Faults) -> Option<Message> {
    if messaging_type(fields) == MessagingType::Utility {
        return template(fields, faults);
    }
    // Browsers send the ends of lines as two characters; Messenger counts each.
    let text = fields.raw("text").replace("\r\n", "\n");
    if text.trim().is_empty() {
        faults.add("text", "write what the contacts shall read");
        return None;
    }
    if !fields.is_ticked("literal")
        && let Err(fault) = refuse_foreign_placeholders(&text)
    {
        let fault = fault
            .to_string()
            .replace("set allow_literal_braces", "tick the box below the text");
        faults.add("text", fault);
        return None;
    }
    faults.check("text", Template::parse(&text).map(drop))?;
    let replies = replies(fields).into_iter();
    Some(Message {
        text: Some(text),
        quick_replies: replies
            .map(|title| json!({"content_type": "text", "title": title, "payload": title}))
            .collect(),
        ..no_message()
    })
}

/// Returns the replies that contacts can tap on, one a line.
pub fn replies(fields: &Fields) -> Vec<String> {
    let lines = fields.raw("replies").lines().map(str::trim);
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Reads an approved template. Its values are one a line, in their order.
fn template(fields: &Fields, faults: &mut Faults) -> Option<Message> {
    let [name, language] = ["template_name", "template_language"].map(|field| {
        let value = fields.get(field);
        faults.check(field, value.ok_or("must not be empty"))
    });
    let values = fields.raw("template_values").lines().map(str::trim);
    let values: Vec<_> = values
        .filter(|value| !value.is_empty())
        .map(|text| json!({"type": "text", "text": text}))
        .collect();
    let mut template = json!({"name": name?, "language": {"code": language?}});
    if !values.is_empty()
        && let Some(template) = template.as_object_mut()
    {
        let body = json!([{"type": "body", "parameters": values}]);
        template.insert("components".to_owned(), body);
    }
    Some(Message {
        text: None,
        template: Some(template),
        ..no_message()
    })
}

/// Returns the mark in place of a message that is not written yet.
fn no_message() -> Message {
    Message {
        text: Some("–".to_owned()),
        attachment: None::<Value>,
        template: None,
        quick_replies: Vec::new(),
    }
}

/// Returns the kind of message.
pub fn messaging_type(fields: &Fields) -> MessagingType {
    fields.word("messaging_type").unwrap_or(MessagingType::Update)
}

/// Returns the kind of notification.
pub fn notification_type(fields: &Fields) -> NotificationType {
    fields.word("notification_type").unwrap_or(NotificationType::Regular)
}

/// Returns the reason that allows a message of this kind outside of the 24 hours: only one is left that a person may use.
pub fn tag(kind: MessagingType) -> Option<Tag> {
    (kind == MessagingType::MessageTag).then_some(Tag::HumanAgent)
}

fn with_message(recipients: Recipients, message: Message, fields: &Fields) -> NewBroadcast {
    let kind = messaging_type(fields);
    let new = match recipients {
        Recipients::Ids(ids) => NewBroadcast::new(ids, message),
        Recipients::Audience(audience) => NewBroadcast::to_audience(audience, message),
    };
    NewBroadcast {
        allow_literal_braces: fields.is_ticked("literal"),
        messaging_type: kind,
        tag: tag(kind),
        notification_type: notification_type(fields),
        outside_window: match fields.is_ticked("outside") {
            true => OutsideWindow::Send,
            false => OutsideWindow::Skip,
        },
        ..new
    }
}

fn zone(fields: &Fields, faults: &mut Faults) -> Option<Zone> {
    faults.check("zone", Zone::parse(fields.get("zone").unwrap_or(UTC)))
}

fn time(fields: &Fields, name: &'static str, zone: Option<&Zone>, faults: &mut Faults) -> Option<Timestamp> {
    let (text, zone) = (fields.get(name)?, zone?);
    faults.check(
        name,
        zone.read(text)
            .ok_or("must be a date and a time, such as 2026-12-01T09:00"),
    )
}

fn quiet_hours(fields: &Fields, zone: Option<&Zone>, faults: &mut Faults) -> Option<QuietHours> {
    let [from, to] = ["quiet_from", "quiet_to"].map(|name| {
        let time = fields.get(name)?;
        Some(faults.check(name, TimeOfDay::parse(time)))
    });
    match (from, to) {
        (Some(from), Some(to)) => Some(QuietHours {
            from: from?,
            to: to?,
            time_zone: zone?.clone(),
        }),
        (None, None) => None,
        (Some(_), None) => {
            faults.add("quiet_to", "is needed with the other end of the quiet hours");
            None
        }
        (None, Some(_)) => {
            faults.add("quiet_from", "is needed with the other end of the quiet hours");
            None
        }
    }
}

/// Reads the testers.
pub fn testers(fields: &Fields, faults: &mut Faults) -> Vec<ContactId> {
    let words = fields.raw("testers").split(|c: char| c.is_whitespace() || c == ',');
    let ids = words.filter(|id| !id.is_empty()).map(ContactId::parse);
    let ids: Vec<_> = ids.map(|id| faults.check("testers", id)).collect();
    if ids.is_empty() {
        faults.add("testers", "name a contact that is marked as a tester");
    }
    ids.into_iter().flatten().collect()
}

/// Returns a digest of the audience of a request, by which a look at it tells whether it is still the same; `None` for a list of ids.
pub fn audience_digest(new: &NewBroadcast) -> Option<String> {
    let audience = serde_json::to_string(new.audience.as_ref()?).ok()?;
    Some(hex(&Sha256::digest(audience)))
}

/// Returns a digest of a request and its key, by which the form tells whether it was changed since.
pub fn digest(key: &str, new: &NewBroadcast) -> String {
    let body = serde_json::to_string(new).unwrap_or_default();
    hex(&Sha256::digest(format!("{key}:{body}")))
}
