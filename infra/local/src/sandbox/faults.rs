//! Injected faults: the errors that the sandbox is asked to make, the contacts and Pages that they affect, and their
//! number.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The operation that a fault applies to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The send of a message to a contact.
    #[default]
    Send,
    /// A call of the Conversations API for one conversation.
    Lookup,
    /// A call of the Conversations API for the list of a Page's conversations.
    List,
    /// A call for the profile of a contact.
    Profile,
    /// The echo webhook of a message. Under a fault it is sent only if the fault's answer is `ok`, or with `accept`.
    Echo,
}

/// The active faults in order. The first one that matches an operation applies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// The latency of every answer in milliseconds, to which a fault's own latency is added.
    #[serde(default)]
    pub latency_ms: u64,
    /// The faults in order.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

impl Faults {
    /// Returns the treatment of one operation, and counts it for the fault that applies.
    pub fn take(&mut self, on: Operation, page_id: &str, contact_id: &str) -> Treatment {
        let latency_ms = match on {
            Operation::Send | Operation::Lookup | Operation::List | Operation::Profile => self.latency_ms,
            Operation::Echo => 0,
        };
        let mut treatment = Treatment {
            latency: Duration::from_millis(latency_ms),
            accept: true,
            answer: Answer::Ok,
        };
        let matching = self
            .faults
            .iter_mut()
            .find(|fault| fault.matches(on, page_id, contact_id));
        if let Some(fault) = matching {
            fault.times = fault.times.map(|times| times - 1);
            treatment.latency += Duration::from_millis(fault.latency_ms);
            treatment.accept = fault.accepts();
            treatment.answer = fault.answer.clone();
        }
        treatment
    }
}

/// The treatment of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Treatment {
    pub latency: Duration,
    /// True if the message is delivered, independently of the answer.
    pub accept: bool,
    pub answer: Answer,
}

/// An injected fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The operation that the fault applies to; by default sends.
    #[serde(default)]
    pub on: Operation,
    /// The contacts that the fault applies to; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contacts: Option<BTreeSet<String>>,
    /// The Pages that the fault applies to; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<BTreeSet<String>>,
    /// The number of operations that the fault applies to; by default unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// The additional latency of the answer in milliseconds, or the delay of the echo.
    #[serde(default)]
    pub latency_ms: u64,
    /// True if the message is delivered in spite of the answer, for example before a time-out. By default a message is
    /// delivered only with the answer `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<bool>,
    /// The answer that the caller gets.
    pub answer: Answer,
}

/// The answer of a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The usual success.
    Ok,
    /// The connection is closed without an answer.
    Reset,
    /// No answer until the caller gives up.
    Hang,
    /// An error in the form of the Graph API.
    #[serde(untagged)]
    Error {
        error: GraphError,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
    },
    /// Any body, such as the HTML page of a broken proxy.
    #[serde(untagged)]
    Raw { status: u16, body: String },
}

/// An error of the Graph API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphError {
    /// The HTTP status; nearly always 400, even for rate limits.
    #[serde(default = "bad_request")]
    pub status: u16,
    /// The error code.
    pub code: i64,
    /// The error subcode.
    #[serde(default)]
    pub subcode: Option<i64>,
    /// Messenger's error message.
    #[serde(default)]
    pub message: String,
}

fn bad_request() -> u16 {
    400
}

impl GraphError {
    /// Returns an error with HTTP status 400 and no subcode.
    pub fn new(code: i64, message: impl Into<String>) -> GraphError {
        GraphError {
            status: bad_request(),
            code,
            subcode: None,
            message: message.into(),
        }
    }

    /// Returns the error for a field that does not exist.
    pub fn no_field(field: &str) -> GraphError {
        let message = format!("(#100) Tried accessing nonexisting field ({field})");
        GraphError::new(100, message)
    }
}

impl From<GraphError> for Answer {
    fn from(error: GraphError) -> Answer {
        Answer::Error {
            error,
            headers: BTreeMap::new(),
        }
    }
}

impl Fault {
    /// Returns a fault that gives every send this answer.
    pub fn answering(answer: impl Into<Answer>) -> Fault {
        Fault {
            on: Operation::Send,
            contacts: None,
            pages: None,
            times: None,
            latency_ms: 0,
            accept: None,
            answer: answer.into(),
        }
    }

    /// Applies the fault to another operation than sends.
    pub fn on(mut self, operation: Operation) -> Fault {
        self.on = operation;
        self
    }

    /// Limits the fault to these contacts.
    pub fn to_contacts(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Fault {
        self.contacts = Some(ids.into_iter().map(Into::into).collect());
        self
    }

    /// Limits the fault to these Pages.
    pub fn on_pages(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Fault {
        self.pages = Some(ids.into_iter().map(Into::into).collect());
        self
    }

    /// Limits the fault to this number of operations.
    pub fn times(mut self, times: u32) -> Fault {
        self.times = Some(times);
        self
    }

    /// Delays the answer or the echo by this many milliseconds.
    pub fn after_ms(mut self, latency_ms: u64) -> Fault {
        self.latency_ms = latency_ms;
        self
    }

    /// Delivers the message in spite of the answer.
    pub fn but_arriving(mut self) -> Fault {
        self.accept = Some(true);
        self
    }

    fn accepts(&self) -> bool {
        self.accept.unwrap_or(self.answer == Answer::Ok)
    }

    fn matches(&self, on: Operation, page_id: &str, contact_id: &str) -> bool {
        let affects = |ids: &Option<BTreeSet<String>>, id: &str| ids.as_ref().is_none_or(|ids| ids.contains(id));
        self.on == on && self.times != Some(0) && affects(&self.pages, page_id) && affects(&self.contacts, contact_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_matching_fault_applies_until_its_times_are_used_up() {
        let mut faults = Faults {
            latency_ms: 5,
            faults: vec![
                Fault::answering(Answer::Hang).to_contacts(["ana"]).times(1),
                Fault::answering(GraphError::new(613, "too fast")).on_pages(["page-1"]),
            ],
        };

        assert_eq!(faults.take(Operation::Send, "page-1", "ana").answer, Answer::Hang);
        let second = faults.take(Operation::Send, "page-1", "ana");
        assert_eq!(second.answer, GraphError::new(613, "too fast").into());
        assert!(!second.accept);
        assert_eq!(faults.take(Operation::Send, "page-2", "ana").answer, Answer::Ok);
        let latency = |treatment: Treatment| treatment.latency.as_millis();
        assert_eq!(latency(faults.take(Operation::Send, "page-2", "ana")), 5);
        assert_eq!(latency(faults.take(Operation::Lookup, "page-2", "ana")), 5);
        assert_eq!(latency(faults.take(Operation::Echo, "page-2", "ana")), 0);
    }

    #[test]
    fn fault_applies_to_its_operation_only() {
        let mut faults = Faults {
            latency_ms: 0,
            faults: vec![Fault::answering(Answer::Hang).on(Operation::Lookup)],
        };

        let answer = |treatment: Treatment| treatment.answer;
        assert_eq!(answer(faults.take(Operation::Send, "page-1", "ana")), Answer::Ok);
        assert_eq!(answer(faults.take(Operation::Lookup, "page-1", "ana")), Answer::Hang);
    }

    #[test]
    fn documented_json_is_accepted() {
        let faults: Faults = serde_json::from_value(serde_json::json!({
            "latency_ms": 300,
            "faults": [
                { "contacts": ["1"], "times": 2, "accept": true, "answer": "hang" },
                { "answer": { "error": { "code": 613 }, "headers": { "x-app-usage": "{}" } } },
                { "pages": ["p"], "latency_ms": 10, "answer": "ok" },
                { "answer": { "status": 502, "body": "<html>" } },
                { "on": "lookup", "answer": "reset" },
            ],
        }))
        .unwrap();

        assert_eq!(faults.faults[0].on, Operation::Send);
        assert_eq!(faults.faults[4].on, Operation::Lookup);
        assert!(faults.faults[0].accepts());
        assert!(matches!(&faults.faults[1].answer, Answer::Error { error, headers }
            if error.status == 400 && headers.contains_key("x-app-usage")));
        assert!(faults.faults[2].accepts());
        assert_eq!(
            faults.faults[3].answer,
            Answer::Raw {
                status: 502,
                body: "<html>".to_owned()
            }
        );
    }
}
