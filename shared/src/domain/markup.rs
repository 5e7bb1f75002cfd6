//! Markup in a text that its author meant otherwise than it would be sent: tags of template languages, and placeholders of
//! other systems.

use std::fmt;
use std::sync::LazyLock;

use regex_lite::Regex;

use crate::domain::contact::{ATTRIBUTE_PREFIX, template_variables};

/// The forms of placeholders, by what surrounds the name: `{…}`, `{{…}}`, `${…}`, `{!…}`; `[…]`, `[[…]]`; `%…%`, `%%…%%`;
/// `*|…|*`; `<…>`, `<<…>>`. Some take a default after the name. A percent or less-than sign beside a space is ordinary text.
const FORMS: [&str; 5] = [
    r"\{[{!]*\s*(NAME)\s*(?:\|[^{}]*)?\}",
    r"\[\[?\s*(NAME)\s*(?:(?:\||\s[Oo][Rr]\s)[^\[\]]*)?\]",
    r"%%?(NAME)(?:\|[^%|]*)?%%?",
    r"\*\|(NAME)(?::[^|*]*)?\|\*",
    r"<<?(NAME)>>?",
];
/// The form of a name: words of letters and digits, with spaces, points, `_` and `-` between.
const NAME: &str = "[A-Za-z](?:[A-Za-z0-9_. -]*[A-Za-z0-9])?";

/// The names that other systems give to what a contact has, in lower case and without separators, and the variables here.
const NAMES: [(&str, &[&str]); 12] = [
    (
        "first_name",
        &["firstname", "fname", "givenname", "forename", "username", "nickname"],
    ),
    ("last_name", &["lastname", "lname", "surname", "familyname"]),
    ("name", &["name", "fullname", "displayname"]),
    (
        "contact_id",
        &["contactid", "psid", "userid", "recipientid", "subscriberid"],
    ),
    ("tags", &["tags"]),
    ("attributes.email", &["email", "emailaddress"]),
    ("attributes.phone", &["phone", "phonenumber", "mobile", "mobilenumber"]),
    ("attributes.city", &["city"]),
    ("attributes.country", &["country"]),
    ("attributes.company", &["company", "companyname"]),
    ("attributes.birthday", &["birthday"]),
    ("attributes.address", &["address"]),
];
/// The words that other systems write before such a name.
const OWNERS: [&str; 13] = [
    "contact",
    "user",
    "recipient",
    "subscriber",
    "customer",
    "client",
    "person",
    "profile",
    "member",
    "lead",
    "messenger",
    "facebook",
    "fb",
];

static PLACEHOLDERS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let forms = FORMS.iter().map(|form| form.replace("NAME", NAME));
    forms.filter_map(|form| Regex::new(&form).ok()).collect()
});

/// A fault of the markup in a text. It never holds the text itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkupFault {
    /// The text has a tag, which would delete text or is none that the author may use.
    #[error(
        "has {tag} at {at}; comments and blocks are not supported. To send the characters themselves, write {{{{ '{tag}' }}}}"
    )]
    Tag {
        /// The beginning of the tag.
        tag: &'static str,
        /// The position of the tag.
        at: Position,
    },
    /// The text has a placeholder that is none here, so every contact would get it as it is.
    #[error(
        "has a placeholder of another system at {at}: write {{{{ {variable} }}}}, or set allow_literal_braces to send it as it is"
    )]
    Foreign {
        /// The variable that the author probably means.
        variable: String,
        /// The position of the placeholder.
        at: Position,
    },
    /// A text that is not rendered has a placeholder.
    #[error(
        "has a placeholder at {at}, and only the text of a message is rendered: set allow_literal_braces to send it as it is"
    )]
    NotRendered {
        /// The position of the placeholder.
        at: Position,
    },
}

/// A position in a text, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    line: usize,
    column: usize,
}

impl Position {
    /// Returns the position of this byte.
    fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Checks that a text has no comments and no block tags outside of its expressions: a comment deletes text for every contact.
///
/// # Errors
/// If it has one.
pub fn refuse_tags(text: &str) -> Result<(), MarkupFault> {
    let (bytes, mut offset) = (text.as_bytes(), 0);
    while let Some(pair) = bytes.get(offset..offset + 2) {
        let tag = match pair {
            b"{#" => "{#",
            b"{%" => "{%",
            b"{{" => {
                offset = end_of_expression(bytes, offset + 2);
                continue;
            }
            _ => {
                offset += 1;
                continue;
            }
        };
        let at = Position::of(text, offset);
        return Err(MarkupFault::Tag { tag, at });
    }
    Ok(())
}

/// Returns the offset after the expression that begins here. Quotation marks and brackets hide the end marks in them.
fn end_of_expression(bytes: &[u8], mut offset: usize) -> usize {
    let (mut depth, mut quotation) = (0_usize, None);
    while let Some(&byte) = bytes.get(offset) {
        match (quotation, byte) {
            (Some(_), b'\\') => offset += 1,
            (Some(mark), byte) if byte == mark => quotation = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quotation = Some(byte),
            (None, b'}') if depth == 0 && bytes.get(offset + 1) == Some(&b'}') => return offset + 2,
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            (None, _) => {}
        }
        offset += 1;
    }
    offset
}

/// Checks that a text has no placeholders of other systems, and no variables under names of other systems.
///
/// # Errors
/// If it has one: the first.
pub fn refuse_foreign_placeholders(text: &str) -> Result<(), MarkupFault> {
    let foreign = placeholders(text)
        .into_iter()
        .filter(|placeholder| !placeholder.is_ours);
    foreign
        .min_by_key(|placeholder| placeholder.offset)
        .map_or(Ok(()), |found| {
            Err(MarkupFault::Foreign {
                variable: found.variable,
                at: Position::of(text, found.offset),
            })
        })
}

/// Checks that a text that is sent as it is has no placeholders, of this system or another.
///
/// # Errors
/// If it has one: the first.
pub fn refuse_all_placeholders(text: &str) -> Result<(), MarkupFault> {
    let first = placeholders(text)
        .into_iter()
        .map(|placeholder| placeholder.offset)
        .min();
    first.map_or(Ok(()), |offset| {
        let at = Position::of(text, offset);
        Err(MarkupFault::NotRendered { at })
    })
}

/// A placeholder in a text.
struct Placeholder {
    offset: usize,
    /// The variable of this system that it stands for.
    variable: String,
    /// True if it is written as this system does.
    is_ours: bool,
}

/// Returns every placeholder with a known name. They may overlap, since a mark such as `%` opens and closes.
fn placeholders(text: &str) -> Vec<Placeholder> {
    let mut found = Vec::new();
    for form in PLACEHOLDERS.iter() {
        let mut from = 0;
        while let Some(captures) = form.captures_at(text, from) {
            let (Some(all), Some(name)) = (captures.get(0), captures.get(1)) else {
                break;
            };
            let name = name.as_str();
            // A link in Markdown, which no system replaces.
            let is_link = all.as_str().starts_with('[') && text[all.end()..].starts_with('(');
            let is_expression = all.as_str().starts_with("{{") && !all.as_str().starts_with("{{{");
            from = all.start() + 1;
            if let Some(variable) = variable(name).filter(|_| !is_link) {
                from = all.end();
                found.push(Placeholder {
                    offset: all.start(),
                    is_ours: is_expression && variable == name,
                    variable,
                });
            }
        }
    }
    found
}

/// Returns the variable that a name of this or another system stands for, if it is a known name.
fn variable(name: &str) -> Option<String> {
    if name.starts_with(ATTRIBUTE_PREFIX) || template_variables().any(|known| known == name) {
        return Some(name.to_owned());
    }
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    let name: String = letters.map(|c| c.to_ascii_lowercase()).collect();
    let known = |name: &str| {
        let known = NAMES.iter().find(|(_, names)| names.contains(&name));
        known.map(|(variable, _)| (*variable).to_owned())
    };
    let owned = || OWNERS.iter().find_map(|owner| known(name.strip_prefix(owner)?));
    known(&name).or_else(owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_compiles() {
        assert_eq!(PLACEHOLDERS.len(), FORMS.len());
    }

    #[test]
    fn tag_is_refused_with_its_position_and_not_in_a_string() {
        for (text, tag, place) in [
            ("Dear {#first_name#}, your order", "{#", "line 1, column 6"),
            ("é\n{% if tags %}", "{%", "line 2, column 1"),
            ("{{ '}}' }}{#", "{#", "line 1, column 11"),
            ("{{ {'a': '\\'}}'}['a'] }} {%- raw %}", "{%", "line 1, column 26"),
            ("a {# not closed", "{#", "line 1, column 3"),
            ("{{{#", "{#", ""),
        ] {
            let fault = refuse_tags(text);
            match place {
                "" => assert_eq!(fault, Ok(()), "{text}"),
                place => {
                    let message = fault.unwrap_err().to_string();
                    assert!(message.starts_with(&format!("has {tag} at {place};")), "{message}");
                }
            }
        }
        for text in [
            "{{ '{#' }}",
            "{{ \"{% x\" }}",
            "# { # { %",
            "100%}",
            "#}",
            "{",
            "{{",
            "",
        ] {
            assert_eq!(refuse_tags(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn foreign_placeholder_is_refused_with_the_right_spelling() {
        for (text, variable) in [
            ("{first_name}", "first_name"),
            ("{FirstName}", "first_name"),
            ("{firstName}", "first_name"),
            ("{ FIRST NAME }", "first_name"),
            ("${first_name}", "first_name"),
            ("#{first-name}", "first_name"),
            ("{!Contact.FirstName}", "first_name"),
            ("{first_name|there}", "first_name"),
            ("{{first name}}", "first_name"),
            ("{{ FirstName }}", "first_name"),
            ("{{{first_name}}}", "first_name"),
            ("{{contact.firstname | default('x')}}", "first_name"),
            ("{{ user_first_name }}", "first_name"),
            ("*|FNAME|*", "first_name"),
            ("*|LNAME:friend|*", "last_name"),
            ("%FIRST_NAME%", "first_name"),
            ("%%First Name%%", "first_name"),
            ("%{last_name}", "last_name"),
            ("100%{LastName}%", "last_name"),
            ("[[name]]", "name"),
            ("[[FIRSTNAME OR \"there\"]]", "first_name"),
            ("[First Name]", "first_name"),
            ("[SURNAME|friend]", "last_name"),
            ("<first_name>", "first_name"),
            ("<<Full Name>>", "name"),
            ("{Email}", "attributes.email"),
            ("{{ email }}", "attributes.email"),
            ("{attributes.city}", "attributes.city"),
            ("{psid}", "contact_id"),
            ("{tags}", "tags"),
            ("{first_name}}", "first_name"),
            ("{{ first_name | default('{LastName}') }}", "last_name"),
            ("a%off%FIRST_NAME%", "first_name"),
        ] {
            let fault = refuse_foreign_placeholders(text).unwrap_err().to_string();
            assert!(
                fault.contains(&format!("write {{{{ {variable} }}}},")),
                "{text}: {fault}"
            );
        }
        let fault = refuse_foreign_placeholders("Hi {{ first_name }},\nDear [[name]] and {LastName}").unwrap_err();
        assert!(fault.to_string().contains("at line 2, column 6:"), "{fault}");
    }

    #[test]
    fn ordinary_text_is_no_placeholder() {
        for text in [
            "Hi {{ first_name }} {{last_name|default('there')}} {{ attributes.city }} {{ tags | join(', ') }}",
            "{{ first_name ~ ' ' ~ last_name }} {{ last_name if first_name else contact_id }}",
            ":-{ :} {} { } {{}} }-: ;-} [] [ ] <> << >> % %% *||*",
            "{\"name\": \"Ana\", \"email\": {\"first_name\": 1}}",
            "50 % off, 20% name, 30 % off",
            "50% name 20%",
            "100%",
            "[[Main page]] [[File:name.png]] [1] [x]",
            "[name](https://example.com) and [email](mailto:x@example.com)",
            "<3 a < name > b <name@example.com> <https://example.com/name>",
            "f(x) = {x | x > 0}, \\frac{a}{b}, {ok}, {code}",
            "name, first_name, FirstName, email",
            "|name| * name *",
        ] {
            assert_eq!(refuse_foreign_placeholders(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn text_that_is_not_rendered_has_no_placeholder_at_all() {
        for text in [
            "Hi {{ first_name }}",
            "{FirstName}",
            "x [[name]]",
            "{{ attributes.city | upper }}",
        ] {
            assert!(refuse_all_placeholders(text).is_err(), "{text}");
        }
        assert_eq!(refuse_all_placeholders("Yes {} [x] 50 % {{"), Ok(()));
    }
}
