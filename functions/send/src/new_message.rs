//! Messenger's message object as a request has it, checked against what Messenger is known to take.

use serde_json::Value;
use shared::message::{Message, Template};

use crate::fields::{Faults, Fields};

/// Quick replies below one message.
const MAX_QUICK_REPLIES: usize = 13;
/// Characters in the title of a quick reply.
const MAX_TITLE: usize = 20;
/// Characters in the payload of a quick reply, in a URL, an attachment id or a template's name.
const MAX_STRING: usize = 1_000;
/// Bytes of an attachment or a template as JSON; an item of DynamoDB has room for it, and so has Messenger.
const MAX_PART: usize = 20_000;

/// Reads `/message`: one of text, attachment and template, with quick replies to the first two.
pub fn read(message: &Value, faults: &Faults) -> Option<Message> {
    const KNOWN: [&str; 4] = ["text", "attachment", "template", "quick_replies"];
    let fields = Fields::of(message, "/message", &KNOWN, faults)?;
    let contents = ["text", "attachment", "template"];
    let given: Vec<_> = contents
        .into_iter()
        .filter(|name| fields.optional(name).is_some())
        .collect();
    if given.len() != 1 {
        faults.add(
            "/message",
            "must have exactly one of text, attachment and template",
        );
        return None;
    }
    let text = fields.parsed("text", fields.optional("text"), |text| {
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
        fields.fault("quick_replies", "do not go with a template");
    }
    let quick_replies = fields.optional("quick_replies");
    let quick_replies = fields
        .list("quick_replies", quick_replies)
        .cloned()
        .unwrap_or_default();
    if quick_replies.len() > MAX_QUICK_REPLIES {
        fields.fault(
            "quick_replies",
            format!("must be {MAX_QUICK_REPLIES} at most"),
        );
    }
    for (n, reply) in quick_replies.iter().enumerate() {
        quick_reply(reply, &format!("/message/quick_replies/{n}"), faults);
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
    let kind = one_of(
        &fields,
        "type",
        &["audio", "file", "image", "template", "video"],
    );
    let Some(payload) = fields.required("payload") else {
        return;
    };
    let pointer = format!("{POINTER}/payload");
    match kind {
        None => {}
        // Messenger's own templates are many, and Messenger's to check.
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
            if payload
                .optional("is_reusable")
                .is_some_and(|flag| !flag.is_boolean())
            {
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
    if let Some(language) =
        language.and_then(|value| Fields::of(value, pointer.as_str(), &["code"], faults))
    {
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

fn bounded(value: &Value, pointer: &str, faults: &Faults) {
    if value.to_string().len() > MAX_PART {
        faults.add(pointer, format!("must have at most {MAX_PART} bytes"));
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

fn short(fields: &Fields<'_>, name: &str, most: usize) {
    fields.parsed(name, fields.required(name), |text| {
        match text.chars().count() {
            length if (1..=most).contains(&length) => Ok(()),
            _ => Err(format!("must have 1 to {most} characters")),
        }
    });
}

fn url(fields: &Fields<'_>, name: &str) {
    fields.parsed(name, fields.required(name), |text| {
        let web = ["https://", "http://"]
            .iter()
            .any(|scheme| text.starts_with(scheme));
        let visible = text.chars().all(|c| !c.is_whitespace() && !c.is_control());
        match web && visible && text.chars().count() <= MAX_STRING {
            true => Ok(()),
            false => Err(format!(
                "must be an http or https URL of at most {MAX_STRING} characters"
            )),
        }
    });
}
