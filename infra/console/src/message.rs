//! The parts of a message as a contact sees them. Files are named and not shown: a page loads nothing from another host.

use serde_json::Value;
use shared::domain::message::Message;

/// A part of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// A text.
    Text(String),
    /// A picture, film, sound or other file, with its URL or the id of its upload.
    File { kind: String, source: String },
    /// A card, with what can be tapped on below it.
    Card {
        title: String,
        subtitle: String,
        buttons: Vec<String>,
    },
}

impl Part {
    /// Returns the part in one line.
    pub fn line(&self) -> String {
        match self {
            Part::Text(text) => text.clone(),
            Part::File { kind, source } => format!("{kind}: {source}"),
            Part::Card { title, .. } => title.clone(),
        }
    }
}

/// Returns the parts of a message, in their order.
pub fn parts(text: Option<&str>, attachment: Option<&Value>, template: Option<&Value>) -> Vec<Part> {
    let text = text.map(|text| Part::Text(text.to_owned()));
    let attached = attachment.map(attached).unwrap_or_default();
    text.into_iter().chain(attached).chain(template.map(approved)).collect()
}

/// The message of a broadcast, with its variables.
pub struct Shown {
    /// The parts, in their order.
    pub parts: Vec<Part>,
    /// The answers that a contact can tap on.
    pub replies: Vec<String>,
}

/// Returns the message of a broadcast, as a page shows it.
pub fn of(message: &Message) -> Shown {
    let Message {
        text,
        attachment,
        template,
        quick_replies,
    } = message;
    let replies = Value::Array(quick_replies.clone());
    Shown {
        parts: parts(text.as_deref(), attachment.as_ref(), template.as_ref()),
        replies: self::replies(Some(&replies)),
    }
}

/// Returns the texts of the answers that the contact can tap on.
pub fn replies(quick_replies: Option<&Value>) -> Vec<String> {
    let replies = quick_replies.and_then(Value::as_array).into_iter().flatten();
    replies
        .map(|reply| match reply["content_type"].as_str() {
            Some("user_phone_number") => "My phone number".to_owned(),
            Some("user_email") => "My e-mail address".to_owned(),
            _ => word(&reply["title"]),
        })
        .collect()
}

fn attached(attachment: &Value) -> Vec<Part> {
    let (kind, payload) = (word(&attachment["type"]), &attachment["payload"]);
    if kind != "template" {
        return vec![file(&kind, payload)];
    }
    let Some(elements) = payload["elements"].as_array() else {
        return vec![card(&payload["text"], payload)];
    };
    let element = |element: &Value| match element["media_type"].as_str() {
        Some(kind) => file(kind, element),
        None => card(&element["title"], element),
    };
    elements.iter().map(element).collect()
}

fn file(kind: &str, payload: &Value) -> Part {
    let source = payload.get("url").or_else(|| payload.get("attachment_id"));
    Part::File {
        kind: kind.to_owned(),
        source: source.map(word).unwrap_or_default(),
    }
}

fn card(title: &Value, element: &Value) -> Part {
    let buttons = element["buttons"].as_array().into_iter().flatten();
    Part::Card {
        title: word(title),
        subtitle: word(&element["subtitle"]),
        buttons: buttons.map(|button| word(&button["title"])).collect(),
    }
}

/// Returns an approved template by its name and values: only Meta has its text.
fn approved(template: &Value) -> Part {
    let components = template["components"].as_array().into_iter().flatten();
    let parameters = components.flat_map(|component| component["parameters"].as_array().into_iter().flatten());
    let values: Vec<_> = parameters.map(|parameter| word(&parameter["text"])).collect();
    Part::Card {
        title: format!(
            "Template {} ({})",
            word(&template["name"]),
            word(&template["language"]["code"])
        ),
        subtitle: values.join(" · "),
        buttons: Vec::new(),
    }
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_message_has_parts() {
        let card = |title: &str, subtitle: &str, buttons: &[&str]| Part::Card {
            title: title.to_owned(),
            subtitle: subtitle.to_owned(),
            buttons: buttons.iter().map(|&button| button.to_owned()).collect(),
        };
        let image = json!({"type": "image", "payload": {"url": "https://example.com/menu.png"}});
        let button = json!({"type": "template", "payload": {
            "template_type": "button", "text": "The menu of today",
            "buttons": [{"type": "web_url", "url": "https://example.com/menu", "title": "Menu"}],
        }});
        let generic = json!({"type": "template", "payload": {
            "template_type": "generic", "elements": [{"title": "Soup", "subtitle": "hot"}, {"title": "Bread"}],
        }});
        let order = json!({
            "name": "order_update", "language": {"code": "en"},
            "components": [{"type": "body", "parameters": [{"type": "text", "text": "A-17"}]}],
        });

        assert_eq!(parts(Some("Hi"), None, None), [Part::Text("Hi".to_owned())]);
        assert_eq!(
            parts(None, Some(&image), None)[0].line(),
            "image: https://example.com/menu.png"
        );
        assert_eq!(
            parts(None, Some(&button), None),
            [card("The menu of today", "", &["Menu"])]
        );
        assert_eq!(
            parts(None, Some(&generic), None),
            [card("Soup", "hot", &[]), card("Bread", "", &[])]
        );
        assert_eq!(
            parts(None, None, Some(&order)),
            [card("Template order_update (en)", "A-17", &[])]
        );
    }

    #[test]
    fn contact_can_tap_on_the_titles_of_quick_replies() {
        let replies_of =
            json!([{"content_type": "text", "title": "Yes", "payload": "YES"}, {"content_type": "user_email"}]);

        assert_eq!(replies(Some(&replies_of)), ["Yes", "My e-mail address"]);
        assert_eq!(replies(None), [""; 0]);
    }
}
