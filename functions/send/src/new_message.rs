//! The message object of a request, checked against the known limits of Messenger.

use serde_json::Value;
use shared::domain::markup::{refuse_all_placeholders, refuse_foreign_placeholders};
use shared::domain::message::Message;
use shared::domain::template::Template;
use shared::domain::visible::{is_blank, is_visible};

use crate::contact_values::{OUT_OF_BOUNDS, is_in_bounds};
use crate::fields::{Faults, Fields, escaped};

/// The maximum number of quick replies to one message.
const MAX_QUICK_REPLIES: usize = 13;
/// The maximum number of characters in the title of a quick reply.
const MAX_TITLE: usize = 20;
/// The maximum number of characters in the payload of a quick reply, a URL, an attachment id or the name of a template.
const MAX_STRING: usize = 1_000;
/// The maximum size of an attachment, a template or a quick reply in bytes of JSON: within what an item of DynamoDB and
/// Messenger accept.
const MAX_PART: usize = 20_000;
/// The maximum number of levels of an attachment, a template or a quick reply. An item of DynamoDB has at most 32, with those
/// above the part.
const MAX_LEVELS: usize = 28;

/// The request's consent to texts in braces and the like that look like placeholders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiteralBraces {
    /// They are refused, because every contact would get them as they are.
    Refused,
    /// They are sent as they are.
    Allowed,
}

/// Reads `/message`: one of text, attachment and template. The first two may have quick replies.
pub fn read(message: &Value, braces: LiteralBraces, faults: &Faults) -> Option<Message> {
    const KNOWN: [&str; 4] = ["text", "attachment", "template", "quick_replies"];
    let fields = Fields::of(message, "/message", &KNOWN, faults)?;
    let contents = ["text", "attachment", "template"];
    let given: Vec<_> = contents
        .into_iter()
        .filter(|name| fields.optional(name).is_some())
        .collect();
    if given.len() != 1 {
        faults.add("/message", "must have exactly one of text, attachment and template");
        return None;
    }
    let text = fields.parsed("text", fields.optional("text"), |text| {
        if braces == LiteralBraces::Refused {
            refuse_foreign_placeholders(text).map_err(|fault| fault.to_string())?;
        }
        refuse_nul(text)?;
        let template = Template::parse(text).map_err(|error| error.to_string());
        template.map(|_| text.to_owned())
    });
    if let Some(value) = fields.optional("attachment") {
        attachment(value, faults);
    }
    if let Some(value) = fields.optional("template") {
        template(value, faults);
    }
    if given == ["template"] && fields.optional("quick_replies").is_some() {
        fields.fault("quick_replies", "are not allowed with a template");
    }
    let quick_replies = fields.optional("quick_replies");
    let quick_replies = fields.list("quick_replies", quick_replies).cloned().unwrap_or_default();
    if quick_replies.len() > MAX_QUICK_REPLIES {
        fields.fault(
            "quick_replies",
            format!("must have at most {MAX_QUICK_REPLIES} entries"),
        );
    }
    for (n, reply) in quick_replies.iter().enumerate() {
        quick_reply(reply, &format!("/message/quick_replies/{n}"), faults);
    }
    if braces == LiteralBraces::Refused {
        for name in ["attachment", "template", "quick_replies"] {
            if let Some(value) = fields.optional(name) {
                shown_texts(value, &format!("/message/{name}"), faults);
            }
        }
    }
    Some(Message {
        text,
        attachment: fields.optional("attachment").cloned(),
        template: fields.optional("template").cloned(),
        quick_replies,
    })
}

fn attachment(value: &Value, faults: &Faults) {
    const POINTER: &str = "/message/attachment";
    let Some(fields) = Fields::of(value, POINTER, &["type", "payload"], faults) else {
        return;
    };
    bounded(value, POINTER, faults);
    let kind = one_of(&fields, "type", &["audio", "file", "image", "template", "video"]);
    let Some(payload) = fields.required("payload") else {
        return;
    };
    let pointer = format!("{POINTER}/payload");
    match kind {
        None => {}
        // Messenger has many templates of its own, and checks them itself.
        Some("template") if payload.get("template_type").is_some_and(Value::is_string) => {}
        Some("template") => faults.add(pointer, "must be an object with a template_type"),
        Some(_) => {
            let known = ["url", "attachment_id", "is_reusable"];
            let Some(payload) = Fields::of(payload, pointer.as_str(), &known, faults) else {
                return;
            };
            match (payload.optional("url"), payload.optional("attachment_id")) {
                (Some(_), None) => url(&payload, "url"),
                (None, Some(_)) => short(&payload, "attachment_id", MAX_STRING),
                _ => faults.add(pointer, "must have either url or attachment_id"),
            }
            if payload.optional("is_reusable").is_some_and(|flag| !flag.is_boolean()) {
                payload.fault("is_reusable", "must be true or false");
            }
        }
    }
}

fn template(value: &Value, faults: &Faults) {
    const POINTER: &str = "/message/template";
    let known = ["name", "language", "components"];
    let Some(fields) = Fields::of(value, POINTER, &known, faults) else {
        return;
    };
    bounded(value, POINTER, faults);
    short(&fields, "name", MAX_STRING);
    let pointer = format!("{POINTER}/language");
    let language = fields.required("language");
    if let Some(language) = language.and_then(|value| Fields::of(value, pointer.as_str(), &["code"], faults)) {
        short(&language, "code", 20);
    }
    fields.list("components", fields.optional("components"));
}

fn quick_reply(value: &Value, pointer: &str, faults: &Faults) {
    let known = ["content_type", "title", "payload", "image_url"];
    let Some(fields) = Fields::of(value, pointer, &known, faults) else {
        return;
    };
    bounded(value, pointer, faults);
    let kinds = ["text", "user_email", "user_phone_number"];
    if one_of(&fields, "content_type", &kinds) == Some("text") {
        short(&fields, "title", MAX_TITLE);
        short(&fields, "payload", MAX_STRING);
    }
    if fields.optional("image_url").is_some() {
        url(&fields, "image_url");
    }
}

/// Checks the texts in a part of the message that contacts see and that is not rendered: a variable in them would reach every
/// contact as it is.
fn shown_texts(value: &Value, pointer: &str, faults: &Faults) {
    const SHOWN: [&str; 3] = ["text", "title", "subtitle"];
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let pointer = format!("{pointer}/{}", escaped(name));
                match value.as_str().filter(|_| SHOWN.contains(&name.as_str())) {
                    Some(text) => {
                        if let Err(fault) = refuse_all_placeholders(text) {
                            faults.add(pointer, fault.to_string());
                        }
                    }
                    None => shown_texts(value, &pointer, faults),
                }
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                shown_texts(item, &format!("{pointer}/{n}"), faults);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn refuse_nul(text: &str) -> Result<(), String> {
    match text.contains('\0') {
        true => Err("must not have the character U+0000".to_owned()),
        false => Ok(()),
    }
}

/// Checks that a part of the message can be stored.
fn bounded(value: &Value, pointer: &str, faults: &Faults) {
    if value.to_string().len() > MAX_PART {
        faults.add(pointer, format!("must have at most {MAX_PART} bytes"));
    }
    storable(value, pointer, MAX_LEVELS, faults);
}

/// Checks that DynamoDB stores a value, below which there may be so many levels.
fn storable(value: &Value, pointer: &str, levels: usize, faults: &Faults) {
    let below = match value {
        Value::Object(_) | Value::Array(_) => levels.checked_sub(1),
        _ => Some(levels),
    };
    let Some(below) = below else {
        return faults.add(
            pointer,
            format!("must not be nested in more than {MAX_LEVELS} objects and lists"),
        );
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let pointer = format!("{pointer}/{}", escaped(name));
                if name.is_empty() {
                    faults.add(pointer.as_str(), "must have a name that is not empty");
                }
                storable(value, &pointer, below, faults);
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                storable(item, &format!("{pointer}/{n}"), below, faults);
            }
        }
        Value::Number(number) if !is_in_bounds(number) => faults.add(pointer, OUT_OF_BOUNDS),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn one_of<'a>(fields: &Fields<'a>, name: &str, words: &[&'a str]) -> Option<&'a str> {
    let given = fields.required(name)?;
    let word = words.iter().find(|word| given == **word).copied();
    if word.is_none() {
        fields.fault(name, format!("must be one of {}", words.join(", ")));
    }
    word
}

fn short(fields: &Fields<'_>, name: &str, max: usize) {
    fields.parsed(name, fields.required(name), |text| match text.chars().count() {
        length if !(1..=max).contains(&length) => Err(format!("must have 1 to {max} characters")),
        _ if is_blank(text) => Err("must have a visible character".to_owned()),
        _ => refuse_nul(text),
    });
}

fn url(fields: &Fields<'_>, name: &str) {
    fields.parsed(name, fields.required(name), |text| {
        let is_web = ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme));
        let is_visible = text.chars().all(is_visible);
        match is_web && is_visible && text.chars().count() <= MAX_STRING {
            true => Ok(()),
            false => Err(format!(
                "must be an http or https URL of at most {MAX_STRING} characters"
            )),
        }
    });
}
