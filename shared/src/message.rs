//! What is sent: Messenger's own message object, whose text is a template, and how it is to be treated.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, Value};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::contact::Contact;

/// Messenger takes less than 2,000 characters; its unit is not documented, and UTF-16 is the longest of the candidates
/// that people count in.
pub const MAX_TEXT_UNITS: usize = 1_999;

/// Bounds what one rendering may cost, in minijinja's units: time, and about 64 bytes of memory each.
const RENDER_FUEL: u64 = 20_000;

/// Ten times what it may come to.
const MAX_TEMPLATE_BYTES: usize = 20_000;

/// The names that a text may use, besides `attributes.*`.
const VARIABLES: [&str; 4] = ["contact_id", "first_name", "last_name", "tags"];

/// Messenger's message object: a text, an attachment or a template. Only the text is rendered for each contact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// A minijinja template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A file, picture, sound or film, by URL or by id; or one of Messenger's own templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<serde_json::Value>,
    /// A template that Meta has approved, for `UTILITY` messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<serde_json::Value>,
    /// Answers to tap on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quick_replies: Vec<serde_json::Value>,
}

impl Message {
    /// Messenger takes less of sound and film than of everything else: so many a second for one Page.
    pub fn most_per_second(&self) -> Option<NonZeroU32> {
        let kind = self.attachment.as_ref()?.get("type")?.as_str()?;
        ["audio", "video"]
            .contains(&kind)
            .then_some(MEDIA_PER_SECOND)
    }
}

/// What a rendered text is known again by: 128 bits of its SHA-256 in hexadecimal, without the white space around it, which
/// Messenger may not keep.
pub fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.trim());
    let bytes = digest.iter().take(16);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// Messenger's limit for audio and video; see its documentation on rate limiting.
const MEDIA_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

/// What goes with the message in every call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Why the message is sent, in Messenger's words.
    pub messaging_type: MessagingType,
    /// What allows a `MESSAGE_TAG` message outside of the 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// Whether a telephone rings.
    pub notification_type: NotificationType,
}

/// Messenger's `messaging_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MessagingType {
    /// An answer, within 24 hours.
    Response,
    /// Unasked, within 24 hours.
    Update,
    /// Outside of the 24 hours, as the tag allows.
    MessageTag,
    /// An approved template, at any time.
    Utility,
}

/// Messenger's `tag`; the others died on 27 April 2026.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Tag {
    /// A human answers within seven days.
    HumanAgent,
}

/// Messenger's `notification_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NotificationType {
    /// Sound or vibration.
    Regular,
    /// A notification on the screen only.
    SilentPush,
    /// None.
    NoPush,
}

/// A text that compiled, whose names are known, and that renders within bounds.
pub struct Template<'t> {
    environment: Environment<'t>,
}

/// Why a text cannot be sent to one contact, or to anybody. Never holds the text itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The contact has no value for a variable that has no default.
    #[error("missing {0}")]
    Missing(String),
    /// The text came out empty.
    #[error("text is empty")]
    Empty,
    /// The text came out too long.
    #[error("text has {0} UTF-16 units, more than the {MAX_TEXT_UNITS} that Messenger takes")]
    TooLong(usize),
    /// It is no template, or does what templates here may not.
    #[error("template: {0}")]
    Template(String),
    /// A name that no contact has.
    #[error(
        "unknown variable {0}; known are contact_id, first_name, last_name, tags and attributes.*"
    )]
    UnknownVariable(String),
    /// It is no text for a message of 1,999 characters.
    #[error("template has more than {MAX_TEMPLATE_BYTES} bytes")]
    TemplateTooLong,
}

impl<'t> Template<'t> {
    /// Compiles a text and tries it on a contact who has everything.
    pub fn parse(text: &'t str) -> Result<Self, TextError> {
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(TextError::TemplateTooLong);
        }
        let template = Self::compile(text)?;
        if text.trim().is_empty() {
            return Err(TextError::Empty);
        }
        template.check_names()?;
        let rendered = template.render_with(Facts::of_a_contact_with_everything())?;
        if !text.contains("{{") && !text.contains("{%") {
            check_length(&rendered)?;
        }
        Ok(template)
    }

    /// Compiles a text that [`Template::parse`] accepted before.
    pub fn compile(text: &'t str) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax.map_err(|e| template_error(&e))?);
        environment.set_fuel(Some(RENDER_FUEL));
        environment
            .add_template(NAME, text)
            .map_err(|e| template_error(&e))?;
        Ok(Self { environment })
    }

    /// The text for one contact.
    pub fn render(&self, contact: &Contact) -> Result<String, TextError> {
        let text = self.render_with(Facts::of(contact))?;
        check_length(&text)?;
        Ok(text)
    }

    fn check_names(&self) -> Result<(), TextError> {
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|e| template_error(&e))?;
        let mut unknown: Vec<_> = template
            .undeclared_variables(true)
            .into_iter()
            .filter(|name| !VARIABLES.contains(&name.as_str()) && !name.starts_with("attributes."))
            .collect();
        unknown.sort();
        unknown
            .into_iter()
            .next()
            .map_or(Ok(()), |name| Err(TextError::UnknownVariable(name)))
    }

    fn render_with(&self, facts: Facts) -> Result<String, TextError> {
        let facts = Arc::new(facts);
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|e| template_error(&e))?;
        template
            .render(Value::from_dyn_object(Arc::clone(&facts)))
            .map_err(|error| match (error.kind(), facts.last_missing()) {
                (ErrorKind::UndefinedError, Some(name)) => TextError::Missing(name),
                _ => template_error(&error),
            })
    }
}

const NAME: &str = "text";

fn template_error(error: &minijinja::Error) -> TextError {
    let line = error
        .line()
        .map(|line| format!(" (line {line})"))
        .unwrap_or_default();
    TextError::Template(match error.kind() {
        ErrorKind::OutOfFuel => format!("does too much work{line}"),
        kind => format!("{kind}{line}"),
    })
}

fn check_length(text: &str) -> Result<(), TextError> {
    match text.encode_utf16().count() {
        0 => Err(TextError::Empty),
        units if units > MAX_TEXT_UNITS => Err(TextError::TooLong(units)),
        _ if text.trim().is_empty() => Err(TextError::Empty),
        _ => Ok(()),
    }
}

/// What a template sees of a contact. An empty value is as good as none; the last one looked for in vain is remembered,
/// since minijinja's error does not name it.
#[derive(Debug)]
struct Facts {
    known: Vec<(String, Value)>,
    attributes: Option<Value>,
    missing: Arc<Mutex<Option<String>>>,
}

impl Facts {
    fn of(contact: &Contact) -> Self {
        let missing = Arc::default();
        let mut known = vec![
            (
                "contact_id".to_owned(),
                Value::from(contact.contact_id.to_string()),
            ),
            ("tags".to_owned(), Value::from(contact.tags.clone())),
        ];
        for (name, value) in [
            ("first_name", &contact.first_name),
            ("last_name", &contact.last_name),
        ] {
            known.extend(
                value
                    .clone()
                    .map(|value| (name.to_owned(), Value::from(value))),
            );
        }
        let attributes = Attributes {
            known: contact
                .attributes()
                .map(|(name, value)| (name.to_owned(), scalar(value)))
                .collect(),
            any: false,
            missing: Arc::clone(&missing),
        };
        Self {
            known,
            attributes: Some(Value::from_object(attributes)),
            missing,
        }
    }

    fn of_a_contact_with_everything() -> Self {
        let missing = Arc::default();
        let attributes = Attributes {
            known: Vec::new(),
            any: true,
            missing: Arc::clone(&missing),
        };
        let known = ["contact_id", "first_name", "last_name"]
            .map(|name| (name.to_owned(), Value::from("x")));
        Self {
            known: known
                .into_iter()
                .chain([("tags".to_owned(), Value::from(vec!["x"]))])
                .collect(),
            attributes: Some(Value::from_object(attributes)),
            missing,
        }
    }

    fn last_missing(&self) -> Option<String> {
        self.missing.lock().ok().and_then(|name| name.clone())
    }
}

impl Object for Facts {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        if name == "attributes" {
            return self.attributes.clone();
        }
        look_up(&self.known, name, name, &self.missing)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

#[derive(Debug)]
struct Attributes {
    known: Vec<(String, Value)>,
    /// Has a value for every name.
    any: bool,
    missing: Arc<Mutex<Option<String>>>,
}

impl Object for Attributes {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        if self.any {
            return Some(Value::from("x"));
        }
        let name = key.as_str()?;
        look_up(
            &self.known,
            name,
            &format!("attributes.{name}"),
            &self.missing,
        )
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

/// An attribute is a string, a number or a boolean; anything else is as good as none.
fn scalar(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::from(whole),
            (None, fraction) => Value::from(fraction),
        },
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            Value::from(())
        }
    }
}

fn look_up(
    known: &[(String, Value)],
    name: &str,
    full_name: &str,
    missing: &Mutex<Option<String>>,
) -> Option<Value> {
    let found = known
        .iter()
        .find_map(|(known, value)| (known == name).then(|| value.clone()))
        .filter(|value| !value.is_none() && value.as_str() != Some(""));
    if found.is_none()
        && let Ok(mut missing) = missing.lock()
    {
        *missing = Some(full_name.to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ana() -> Contact {
        serde_json::from_value(serde_json::json!({
            "contact_id": "1", "page_id": "p", "first_name": "Ana", "last_name": "",
            "tags": ["vip", "new"], "attributes.city": "Porto", "attributes.street": null,
        }))
        .unwrap()
    }

    fn render(text: &str) -> Result<String, TextError> {
        Template::parse(text)?.render(&ana())
    }

    #[test]
    fn variables_are_the_contacts() {
        for (text, expected) in [
            ("Hi {{ first_name }}", "Hi Ana"),
            ("{{ contact_id }} {{ attributes.city }}", "1 Porto"),
            ("{{ tags | join(', ') }}", "vip, new"),
            ("{{ last_name | default('there') }}", "there"),
            ("{{ attributes.street | default('-') }}", "-"),
            ("{% if last_name %}a{% else %}b{% endif %}", "b"),
            ("<{{ first_name }}>", "<Ana>"),
            ("two\nlines\n", "two\nlines\n"),
        ] {
            assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_value_that_is_missing_or_empty_is_named() {
        for (text, name) in [
            ("{{ last_name }}", "last_name"),
            ("{{ attributes.street }}", "attributes.street"),
            ("{{ attributes.zip | upper }}", "attributes.zip"),
            (
                "{{ attributes.zip | default('x') }} {{ last_name }}",
                "last_name",
            ),
        ] {
            assert_eq!(
                render(text),
                Err(TextError::Missing(name.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn what_nobody_could_get_is_refused_at_once() {
        let long = "x".repeat(2_000);
        let long_template = format!("{{# {} #}}x", "x".repeat(20_000));
        for text in [
            "{{ nickname }}",
            "{{ contact_id.x }}",
            "{{ attributes }}",
            "{{ first_name",
            "{% for i in range(9999999) %}x{% endfor %}",
            "{% for a in 'x' * 9999 %}{% for b in 'x' * 9999 %}{% endfor %}{% endfor %}",
            "{% set a = 'x' * 99999999 %}{{ first_name }}",
            "  \n",
            "",
            long.as_str(),
            long_template.as_str(),
        ] {
            assert!(Template::parse(text).is_err(), "{text:.40}");
        }
    }

    #[test]
    fn length_counts_utf16_units_of_the_rendered_text() {
        assert!(render(&"🙂".repeat(999)).is_ok());
        assert_eq!(render(&"🙂".repeat(1_000)), Err(TextError::TooLong(2_000)));
        let rendered = render("{{ first_name * 700 }}");
        assert_eq!(rendered, Err(TextError::TooLong(2_100)));
    }
}
