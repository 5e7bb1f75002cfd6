//! The text of a message: a minijinja template that is rendered for each contact.

use std::sync::{Arc, Mutex};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, Value, ValueKind};
use minijinja::{Environment, ErrorKind, Output, State, UndefinedBehavior, escape_formatter};

use crate::domain::contact::{ATTRIBUTE_PREFIX, ATTRIBUTES, Contact, FIELDS, Field, FieldKind, template_variables};
use crate::domain::markup::{MarkupFault, refuse_tags};
use crate::domain::visible::is_blank;

/// The most UTF-16 units of a rendered text. Messenger takes "less than 2000 characters"; the unit is not documented, and
/// UTF-16 is the longest of the candidates that people count in. Source:
/// <https://developers.facebook.com/docs/messenger-platform/reference/send-api>
const MAX_TEXT_UNITS: usize = 1_999;

/// The limit of one rendering, in minijinja's units: it bounds time, and memory at about 64 bytes for each unit.
const RENDER_FUEL: u64 = 20_000;

/// The most bytes of a template: ten times what it may render to.
const MAX_TEMPLATE_BYTES: usize = 20_000;

/// The name of the only template in its environment.
const NAME: &str = "text";

/// A compiled text. One that [`Template::parse`] returned uses known variables only and renders within bounds.
pub struct Template<'t> {
    environment: Environment<'t>,
}

/// An error in a text, for one contact or for every contact. Never holds the text itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The contact has no value for a variable that has no default.
    #[error("missing {0}")]
    Missing(String),
    /// A reader would see nothing of the rendered text.
    #[error("text is empty")]
    Empty,
    /// The rendered text is too long.
    #[error("text is too long: {0} UTF-16 units, and Messenger takes {MAX_TEXT_UNITS} at most")]
    TooLong(usize),
    /// The text does not compile as a template, or exceeds what a template may do.
    #[error("template: {0}")]
    Template(String),
    /// The text uses a variable that no contact has.
    #[error("unknown variable {0}; known are {known} and {ATTRIBUTES}.*", known = known_variables())]
    UnknownVariable(String),
    /// The text has a comment or a block tag.
    #[error(transparent)]
    Markup(#[from] MarkupFault),
    /// The source is too long for a message of 1,999 characters.
    #[error("template has more than {MAX_TEMPLATE_BYTES} bytes")]
    TemplateTooLong,
}

impl<'t> Template<'t> {
    /// Compiles a text, and checks it by rendering it for a contact that has a value for every variable.
    ///
    /// # Errors
    /// If no contact could get the text: it does not compile, has comments or block tags, uses an unknown variable, does too
    /// much work, or is empty or too long whatever the contact.
    pub fn parse(text: &'t str) -> Result<Self, TextError> {
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(TextError::TemplateTooLong);
        }
        refuse_tags(text)?;
        let template = Self::compile(text)?;
        if is_blank(text) {
            return Err(TextError::Empty);
        }
        template.check_names()?;
        let rendered = template.render_with(Variables::of_a_complete_contact())?;
        if !text.contains("{{") {
            check_length(&rendered)?;
        }
        Ok(template)
    }

    /// Compiles a text that [`Template::parse`] accepted before, without checking it again. A text that an earlier version
    /// accepted may have block tags.
    ///
    /// # Errors
    /// If the text does not compile.
    pub fn compile(text: &'t str) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_formatter(write_value);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax.map_err(|e| template_error(&e))?);
        environment.set_fuel(Some(RENDER_FUEL));
        environment.add_template(NAME, text).map_err(|e| template_error(&e))?;
        Ok(Self { environment })
    }

    /// Renders the text for one contact.
    ///
    /// # Errors
    /// If the contact has no value for a variable without a default, or the rendered text is empty or too long.
    pub fn render(&self, contact: &Contact) -> Result<String, TextError> {
        let text = self.render_with(Variables::of(contact))?;
        check_length(&text)?;
        Ok(text)
    }

    /// Returns `true` if the text uses this variable.
    pub fn uses(&self, variable: &str) -> bool {
        let template = self.environment.get_template(NAME);
        template.is_ok_and(|template| template.undeclared_variables(false).contains(variable))
    }

    fn check_names(&self) -> Result<(), TextError> {
        let template = self.environment.get_template(NAME).map_err(|e| template_error(&e))?;
        let mut unknown: Vec<_> = template
            .undeclared_variables(true)
            .into_iter()
            .filter(|name| !template_variables().any(|known| known == name) && !name.starts_with(ATTRIBUTE_PREFIX))
            .collect();
        unknown.sort();
        unknown
            .into_iter()
            .next()
            .map_or(Ok(()), |name| Err(TextError::UnknownVariable(name)))
    }

    fn render_with(&self, variables: Variables) -> Result<String, TextError> {
        let variables = Arc::new(variables);
        let template = self.environment.get_template(NAME).map_err(|e| template_error(&e))?;
        template
            .render(Value::from_dyn_object(Arc::clone(&variables)))
            .map_err(|error| match (error.kind(), variables.last_missing()) {
                (ErrorKind::UndefinedError, Some(name)) => TextError::Missing(name),
                _ => template_error(&error),
            })
    }
}

fn template_error(error: &minijinja::Error) -> TextError {
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    TextError::Template(match error.kind() {
        ErrorKind::OutOfFuel => format!("does too much work{line}"),
        kind => format!("{kind}{line}"),
    })
}

fn check_length(text: &str) -> Result<(), TextError> {
    match text.encode_utf16().count() {
        0 => Err(TextError::Empty),
        units if units > MAX_TEXT_UNITS => Err(TextError::TooLong(units)),
        _ if is_blank(text) => Err(TextError::Empty),
        _ => Ok(()),
    }
}

/// Writes a value of a contact as it was imported: minijinja writes `True` for `true`, and lists as code.
///
/// # Errors
/// If the value is an empty list, which counts as missing, or as minijinja says.
fn write_value(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    match value.kind() {
        ValueKind::Bool => out.write_str(if value.is_true() { "true" } else { "false" })?,
        ValueKind::Seq if value.len() == Some(0) => return Err(ErrorKind::UndefinedError.into()),
        ValueKind::Seq => {
            for (n, item) in value.try_iter()?.enumerate() {
                if n > 0 {
                    out.write_str(", ")?;
                }
                write_value(out, state, &item)?;
            }
        }
        _ => escape_formatter(out, state, value)?,
    }
    Ok(())
}

/// The variables of a contact that a template can use. A value of which a reader sees nothing counts as missing. The name of the last variable that
/// was missing is kept, since minijinja's error does not tell it.
#[derive(Debug)]
struct Variables {
    known: Vec<(String, Value)>,
    attributes: Option<Value>,
    missing: Arc<Mutex<Option<String>>>,
}

impl Variables {
    fn of(contact: &Contact) -> Self {
        let missing = Arc::default();
        let attributes = Attributes {
            known: contact
                .attributes
                .iter()
                .map(|(name, value)| (name.clone(), scalar(value)))
                .collect(),
            any: false,
            missing: Arc::clone(&missing),
        };
        Self {
            known: values_of_fields(|field| field_value(&(field.value)(contact))),
            attributes: Some(Value::from_object(attributes)),
            missing,
        }
    }

    fn of_a_complete_contact() -> Self {
        let missing = Arc::default();
        let attributes = Attributes {
            known: Vec::new(),
            any: true,
            missing: Arc::clone(&missing),
        };
        let value = |field: &Field| match field.kind {
            FieldKind::Tags => Value::from(vec!["x"]),
            _ => Value::from("x"),
        };
        Self {
            known: values_of_fields(value),
            attributes: Some(Value::from_object(attributes)),
            missing,
        }
    }

    fn last_missing(&self) -> Option<String> {
        self.missing.lock().ok().and_then(|name| name.clone())
    }
}

impl Object for Variables {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        if name == ATTRIBUTES {
            return self.attributes.clone();
        }
        value_of(&self.known, name, name, &self.missing)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

/// Returns the fields that a template may use, each with a value.
fn values_of_fields(value: impl Fn(&Field) -> Value) -> Vec<(String, Value)> {
    let fields = FIELDS.iter().filter(|field| field.is_template_variable);
    fields.map(|field| (field.name.to_owned(), value(field))).collect()
}

/// Returns the value of a field: a list of scalars, or a scalar.
fn field_value(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Array(items) => Value::from(items.iter().map(scalar).collect::<Vec<_>>()),
        other => scalar(other),
    }
}

fn known_variables() -> String {
    template_variables().collect::<Vec<_>>().join(", ")
}

/// The contact's own attributes, as `attributes.NAME`.
#[derive(Debug)]
struct Attributes {
    known: Vec<(String, Value)>,
    /// `true` if every name has a value.
    any: bool,
    missing: Arc<Mutex<Option<String>>>,
}

impl Object for Attributes {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        if self.any {
            return Some(Value::from("x"));
        }
        let name = key.as_str()?;
        value_of(&self.known, name, &format!("{ATTRIBUTE_PREFIX}{name}"), &self.missing)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

/// Returns the value of an attribute that is a string, a number or a boolean; anything else counts as missing.
fn scalar(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => self::number(number),
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => Value::from(()),
    }
}

/// Returns a number as the template calculates with it and shows it: a whole one without a decimal point, whatever its size.
fn number(number: &serde_json::Number) -> Value {
    let fraction = number.as_f64().filter(|_| number.is_f64());
    match fraction.map(|fraction| (fraction, fraction.to_string().parse::<i128>())) {
        None => number
            .as_i64()
            .map_or_else(|| Value::from(number.as_u64()), Value::from),
        Some((_, Ok(whole))) => Value::from(whole),
        Some((fraction, Err(_))) => Value::from(fraction),
    }
}

/// Returns the text that a number of a contact has in a message.
pub fn shown_number(number: &serde_json::Number) -> String {
    self::number(number).to_string()
}

/// Returns the value of a variable, or keeps its full name as the last one missing.
fn value_of(known: &[(String, Value)], name: &str, full_name: &str, missing: &Mutex<Option<String>>) -> Option<Value> {
    let found = known
        .iter()
        .find_map(|(known, value)| (known == name).then(|| value.clone()))
        .filter(|value| !value.is_none() && !value.as_str().is_some_and(is_blank));
    if found.as_ref().is_none_or(|value| value.len() == Some(0))
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
    fn variables_have_the_values_of_the_contact() {
        for (text, expected) in [
            ("Hi {{ first_name }}", "Hi Ana"),
            ("{{ contact_id }} {{ attributes.city }}", "1 Porto"),
            ("{{ tags | join(', ') }}", "vip, new"),
            ("{{ last_name | default('there') }}", "there"),
            ("{{ attributes.street | default('-') }}", "-"),
            ("{{ 'a' if last_name else 'b' }}", "b"),
            ("<{{ first_name }}>", "<Ana>"),
            ("two\nlines\n", "two\nlines\n"),
            ("{{ first_name }}\r\n\ttwo\r", "Ana\r\n\ttwo\r"),
            ("{{ tags }}", "vip, new"),
            ("{{ '{#' }} {{ '{%' }}", "{# {%"),
        ] {
            assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn used_variables_are_known() {
        let text = "{{ first_name | default(name) }} {{ 'a' if locale == 'pt_PT' else attributes.last_name }}";
        let template = Template::parse(text).unwrap();
        for (variable, is_used) in [
            ("first_name", true),
            ("name", true),
            ("locale", true),
            ("last_name", false),
            ("timezone", false),
        ] {
            assert_eq!(template.uses(variable), is_used, "{variable}");
        }
    }

    #[test]
    fn value_is_shown_as_it_was_imported() {
        let json = r#"{"contact_id": "1", "page_id": "p", "attributes.x": VALUE}"#;
        for (value, shown) in [
            ("true", "true"),
            ("false", "false"),
            ("0", "0"),
            ("-7", "-7"),
            ("9007199254740993", "9007199254740993"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("18446744073709551615", "18446744073709551615"),
            ("1000000000000000000000", "1000000000000000000000"),
            ("100000000000000000000000", "100000000000000000000000"),
            ("0.1", "0.1"),
            ("-19.95", "-19.95"),
            ("0.0000001", "0.0000001"),
            ("\"  two  spaces \"", "  two  spaces "),
            ("\"{{ last_name }} {# <b>&amp;\"", "{{ last_name }} {# <b>&amp;"),
            (
                "\"e\\u0301 👩\\u200d👧 ❤\\ufe0f שלום 🏴\"",
                "e\u{301} 👩\u{200d}👧 ❤\u{fe0f} שלום 🏴",
            ),
        ] {
            let contact: Contact = serde_json::from_str(&json.replace("VALUE", value)).unwrap();
            let template = Template::parse("{{ attributes.x }}").unwrap();
            assert_eq!(template.render(&contact).as_deref(), Ok(shown), "{value}");
        }
    }

    #[test]
    fn name_of_which_nothing_is_seen_is_missing() {
        for name in ["  ", "\u{a0}", "\u{200b}", "\u{3164}", "\u{2800}\u{feff}"] {
            let item = serde_json::json!({"contact_id": "1", "page_id": "p", "first_name": name, "attributes.x": name});
            let contact: Contact = serde_json::from_value(item).unwrap();
            let text = "{{ first_name | default('there') }} {{ attributes.x | default('-') }}";
            assert_eq!(
                Template::parse(text).unwrap().render(&contact).as_deref(),
                Ok("there -")
            );
            let text = "{{ first_name }}";
            let missing = TextError::Missing("first_name".to_owned());
            assert_eq!(Template::parse(text).unwrap().render(&contact), Err(missing));
        }
    }

    #[test]
    fn empty_list_is_missing_only_where_it_is_shown() {
        let item = serde_json::json!({"contact_id": "1", "page_id": "p"});
        let contact: Contact = serde_json::from_value(item).unwrap();
        let render = |text| Template::parse(text).unwrap().render(&contact);
        assert_eq!(render("{{ tags }}"), Err(TextError::Missing("tags".to_owned())));
        assert_eq!(render("{{ 'a' if 'vip' in tags else 'b' }}").as_deref(), Ok("b"));
    }

    /// The broadcast may have been accepted by an earlier version, for a time to come.
    #[test]
    fn text_with_block_tags_that_was_accepted_before_is_rendered() {
        let template = Template::compile("{% if last_name %}a{% else %}b{% endif %}{# c #}").unwrap();
        assert_eq!(template.render(&ana()).as_deref(), Ok("b"));
    }

    #[test]
    fn missing_or_empty_value_is_named() {
        for (text, name) in [
            ("{{ last_name }}", "last_name"),
            ("{{ attributes.street }}", "attributes.street"),
            ("{{ attributes.zip | upper }}", "attributes.zip"),
            ("{{ attributes.none }}", "attributes.none"),
            ("{{ attributes.zip | default('x') }} {{ last_name }}", "last_name"),
        ] {
            assert_eq!(render(text), Err(TextError::Missing(name.to_owned())), "{text}");
        }
    }

    #[test]
    fn text_that_no_contact_could_get_is_refused() {
        let long = "x".repeat(2_000);
        let long_template = format!("{{{{ first_name }}}}{}", " ".repeat(20_000));
        for text in [
            "{{ nickname }}",
            "{{ contact_id.x }}",
            "{{ attributes }}",
            "{{ first_name",
            "{{ 'x' * 99999999 }}",
            "\u{3164}\u{feff}",
            "Dear {#first_name#}, your order is ready.",
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

    /// As many expressions as a template can have, each of which shows one character or two.
    #[test]
    fn text_of_expressions_alone_renders() {
        let text = "{{contact_id}}".repeat(MAX_TEMPLATE_BYTES / 14);
        assert_eq!(render(&text), Ok("1".repeat(MAX_TEMPLATE_BYTES / 14)));
    }

    #[test]
    fn length_counts_utf16_units_of_the_rendered_text() {
        assert!(render(&"🙂".repeat(999)).is_ok());
        assert_eq!(render(&"🙂".repeat(1_000)), Err(TextError::TooLong(2_000)));
        let rendered = render("{{ first_name * 700 }}");
        assert_eq!(rendered, Err(TextError::TooLong(2_100)));
    }
}
