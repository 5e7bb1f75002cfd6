//! The faults of the form, each at its field.

use client::Error;
use client::api::problems::ProblemDetails;

use crate::failure::Failure;

/// The fields of the form by their names, each as the page calls it.
const LABELS: [(&str, &str); 29] = [
    ("audience", "Saved audience"),
    ("page", "Pages"),
    ("tags_any", "With any of these tags"),
    ("tags_all", "With all of these tags"),
    ("tags_none", "With none of these tags"),
    ("active_within", "Wrote within"),
    ("inactive_for", "Has not written for"),
    ("attributes", "Attributes"),
    ("not_sent_in", "Earlier broadcasts"),
    ("everybody", "Everyone"),
    ("save_as", "Name of the audience"),
    ("ids", "Ids"),
    ("text", "Text"),
    ("replies", "Replies to tap on"),
    ("template_name", "Name of the template"),
    ("template_language", "Language of the template"),
    ("template_values", "Values of the template"),
    ("messaging_type", "Kind of message"),
    ("notification_type", "Notification"),
    ("testers", "Testers"),
    ("name", "Name"),
    ("at", "Begins at"),
    ("zone", "Time zone"),
    ("expires", "Ends at"),
    ("quiet_from", "Quiet from"),
    ("quiet_to", "Quiet until"),
    ("urgent", "Urgent"),
    ("requires_approval", "Approval"),
    ("confirm", "Number of contacts"),
];

/// The parts of a request, by the beginning of their place in it, each with the field of the form that it comes from. The first
/// that fits counts.
const PLACES: [(&str, &str); 30] = [
    ("/contact_ids", "ids"),
    ("/audience/name", "audience"),
    ("/audience/page_ids", "page"),
    ("/audience/tags_any", "tags_any"),
    ("/audience/tags_all", "tags_all"),
    ("/audience/tags_none", "tags_none"),
    ("/audience/active_within_hours", "active_within"),
    ("/audience/inactive_for_hours", "inactive_for"),
    ("/audience/attributes", "attributes"),
    ("/audience/not_sent_in", "not_sent_in"),
    ("/audience", "everybody"),
    ("/message/template/language", "template_language"),
    ("/message/template/components", "template_values"),
    ("/message/template", "template_name"),
    ("/message/quick_replies", "replies"),
    ("/message", "text"),
    ("/allow_literal_braces", "text"),
    ("/messaging_type", "messaging_type"),
    ("/tag", "messaging_type"),
    ("/outside_window", "messaging_type"),
    ("/notification_type", "notification_type"),
    ("/scheduled_at", "at"),
    ("/time_zone", "zone"),
    ("/quiet_hours/time_zone", "zone"),
    ("/quiet_hours/to", "quiet_to"),
    ("/quiet_hours", "quiet_from"),
    ("/expires_at", "expires"),
    ("/priority", "urgent"),
    ("/requires_approval", "requires_approval"),
    ("/name", "name"),
];

/// A fault of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The name of the field.
    pub field: &'static str,
    /// The fault, such as "must not be empty".
    pub message: String,
}

impl Fault {
    /// Returns the field as the page calls it.
    pub fn label(&self) -> &'static str {
        let label = LABELS.iter().find(|(field, _)| *field == self.field);
        label.map_or(self.field, |(_, label)| label)
    }
}

/// The faults that were found so far.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault.
    pub fn add(&mut self, field: &'static str, message: impl Into<String>) {
        let message = message.into();
        self.0.push(Fault { field, message });
    }

    /// Returns the value; `None` with the fault if it is wrong.
    pub fn check<T>(&mut self, field: &'static str, value: Result<T, impl ToString>) -> Option<T> {
        value.map_err(|fault| self.add(field, fault.to_string())).ok()
    }

    /// Returns the value, unless there is a fault.
    ///
    /// # Errors
    ///
    /// Fails with the faults.
    pub fn or<T>(self, value: T) -> Result<T, Refusal> {
        match self.0.is_empty() {
            true => Ok(value),
            false => Err(Refusal {
                title: "Nothing was sent: something is to be mended".to_owned(),
                lines: Vec::new(),
                faults: self.0,
            }),
        }
    }
}

/// The reason why the form is shown again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub title: String,
    /// More about it, a line each.
    pub lines: Vec<String>,
    /// The faults of the fields.
    pub faults: Vec<Fault>,
}

impl Refusal {
    /// Returns a refusal without a fault of a field.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            ..Self::default()
        }
    }

    /// Adds a line.
    pub fn and(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Returns a refusal for the fault of one field.
    pub fn of(field: &'static str, message: impl Into<String>) -> Self {
        let mut faults = Faults::default();
        faults.add(field, message);
        match faults.or(()) {
            Err(refusal) => refusal,
            Ok(()) => Self::default(),
        }
    }

    fn of_problem(problem: &ProblemDetails) -> Self {
        let mut refusal = Self::new(problem.detail.clone());
        for fault in &problem.errors {
            let place = PLACES.iter().find(|(place, _)| fault.field.starts_with(place));
            match place {
                Some((place, field)) => refusal.faults.push(Fault {
                    field,
                    message: numbered(fault.field.get(place.len()..), &fault.message),
                }),
                None => refusal.lines.push(format!("{}: {}", fault.field, fault.message)),
            }
        }
        refusal
    }
}

/// Returns the message, with the number of the entry of a list that it is about.
fn numbered(below: Option<&str>, message: &str) -> String {
    let entry = below.and_then(|below| below.strip_prefix('/'));
    let entry = entry.and_then(|entry| entry.split('/').next());
    match entry.and_then(|entry| entry.parse::<usize>().ok()) {
        Some(entry) => format!("entry {} {message}", entry + 1),
        None => message.to_owned(),
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused { problem, .. } if !problem.errors.is_empty() => Self::of_problem(&problem),
            other => {
                let Failure { title, lines, .. } = Failure::from(other);
                Self {
                    title,
                    lines,
                    faults: Vec::new(),
                }
            }
        }
    }
}
