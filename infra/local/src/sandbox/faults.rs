//! What the sandbox is asked to do wrong, for whom and how often.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a fault strikes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// A message on its way to a contact.
    #[default]
    Send,
    /// A call of the Conversations API.
    Lookup,
    /// The webhook that tells of a message: it comes only if the fault's answer is `ok`, or with `accept`.
    Echo,
}

/// The faults in force, in order: the first that matches an operation is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// How long every call waits for its answer, besides a fault's own latency.
    #[serde(default)]
    pub latency_ms: u64,
    /// What goes wrong, in order.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

impl Faults {
    /// What happens this time; uses up one of the fault's times.
    pub fn take(&mut self, on: Operation, page_id: &str, contact_id: &str) -> Treatment {
        let latency_ms = match on {
            Operation::Send | Operation::Lookup => self.latency_ms,
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

/// How one operation is treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Treatment {
    pub latency: Duration,
    /// Whether the contact gets the message, whatever the answer says.
    pub accept: bool,
    pub answer: Answer,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What it strikes; absent: sends.
    #[serde(default)]
    pub on: Operation,
    /// Only for these contacts; absent: for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contacts: Option<BTreeSet<String>>,
    /// Only for these Pages; absent: for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<BTreeSet<String>>,
    /// How often it strikes; absent: whenever it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// How long the answer takes, besides the latency of every call; how late the echo is.
    #[serde(default)]
    pub latency_ms: u64,
    /// Whether the contact gets the message sent all the same: so a time-out is played whose message did arrive.
    /// Absent: only with the answer `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<bool>,
    /// What the caller gets to see.
    pub answer: Answer,
}

/// What the caller gets to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The usual success.
    Ok,
    /// The connection is closed in place of an answer.
    Reset,
    /// Nothing, until the caller gives up.
    Hang,
    /// An error as the Graph API words it.
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
    /// The HTTP status; nearly always 400, rate limits included.
    #[serde(default = "bad_request")]
    pub status: u16,
    /// The kind of error.
    pub code: i64,
    /// The kind in detail.
    #[serde(default)]
    pub subcode: Option<i64>,
    /// What Messenger says in words.
    #[serde(default)]
    pub message: String,
}

fn bad_request() -> u16 {
    400
}

impl GraphError {
    /// An error with HTTP status 400 and no subcode.
    pub fn new(code: i64, message: impl Into<String>) -> GraphError {
        GraphError {
            status: bad_request(),
            code,
            subcode: None,
            message: message.into(),
        }
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
    /// Gives every send this answer, for ever.
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

    /// Makes it strike something other than sends.
    pub fn on(mut self, operation: Operation) -> Fault {
        self.on = operation;
        self
    }

    /// Narrows it to these contacts.
    pub fn to_contacts(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Fault {
        self.contacts = Some(ids.into_iter().map(Into::into).collect());
        self
    }

    /// Narrows it to these Pages.
    pub fn on_pages(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Fault {
        self.pages = Some(ids.into_iter().map(Into::into).collect());
        self
    }

    /// Ends it after this many strikes.
    pub fn times(mut self, times: u32) -> Fault {
        self.times = Some(times);
        self
    }

    /// Lets the answer take this long.
    pub fn after_ms(mut self, latency_ms: u64) -> Fault {
        self.latency_ms = latency_ms;
        self
    }

    /// Lets the contact get the message although the answer does not say so.
    pub fn but_arriving(mut self) -> Fault {
        self.accept = Some(true);
        self
    }

    fn accepts(&self) -> bool {
        self.accept.unwrap_or(self.answer == Answer::Ok)
    }

    fn matches(&self, on: Operation, page_id: &str, contact_id: &str) -> bool {
        let concerns = |ids: &Option<BTreeSet<String>>, id: &str| {
            ids.as_ref().is_none_or(|ids| ids.contains(id))
        };
        self.on == on
            && self.times != Some(0)
            && concerns(&self.pages, page_id)
            && concerns(&self.contacts, contact_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_matching_fault_is_used_until_its_times_are_up() {
        let mut faults = Faults {
            latency_ms: 5,
            faults: vec![
                Fault::answering(Answer::Hang).to_contacts(["ana"]).times(1),
                Fault::answering(GraphError::new(613, "too fast")).on_pages(["page-1"]),
            ],
        };

        assert_eq!(
            faults.take(Operation::Send, "page-1", "ana").answer,
            Answer::Hang
        );
        let second = faults.take(Operation::Send, "page-1", "ana");
        assert_eq!(second.answer, GraphError::new(613, "too fast").into());
        assert!(!second.accept);
        assert_eq!(
            faults.take(Operation::Send, "page-2", "ana").answer,
            Answer::Ok
        );
        let latency = |treatment: Treatment| treatment.latency.as_millis();
        assert_eq!(latency(faults.take(Operation::Send, "page-2", "ana")), 5);
        assert_eq!(latency(faults.take(Operation::Lookup, "page-2", "ana")), 5);
        assert_eq!(latency(faults.take(Operation::Echo, "page-2", "ana")), 0);
    }

    #[test]
    fn a_fault_strikes_only_what_it_is_for() {
        let mut faults = Faults {
            latency_ms: 0,
            faults: vec![Fault::answering(Answer::Hang).on(Operation::Lookup)],
        };

        let answer = |treatment: Treatment| treatment.answer;
        assert_eq!(
            answer(faults.take(Operation::Send, "page-1", "ana")),
            Answer::Ok
        );
        assert_eq!(
            answer(faults.take(Operation::Lookup, "page-1", "ana")),
            Answer::Hang
        );
    }

    #[test]
    fn faults_read_as_documented() {
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
        assert!(
            matches!(&faults.faults[1].answer, Answer::Error { error, headers }
            if error.status == 400 && headers.contains_key("x-app-usage"))
        );
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
