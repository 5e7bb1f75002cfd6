//! What the sandbox is asked to do wrong, for whom and how often.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The faults in force, in order: the first that matches a message is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// How long every message waits for its answer, a fault's own latency included.
    #[serde(default)]
    pub latency_ms: u64,
    /// What goes wrong, in order.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

impl Faults {
    /// What happens to this message; uses up one of the fault's times.
    pub fn take(&mut self, page_id: &str, contact_id: &str) -> Treatment {
        let mut treatment = Treatment {
            latency: Duration::from_millis(self.latency_ms),
            accept: true,
            answer: Answer::Ok,
        };
        let matching = self
            .faults
            .iter_mut()
            .find(|fault| fault.matches(page_id, contact_id));
        if let Some(fault) = matching {
            fault.times = fault.times.map(|times| times - 1);
            treatment.latency += Duration::from_millis(fault.latency_ms);
            treatment.accept = fault.accepts();
            treatment.answer = fault.answer.clone();
        }
        treatment
    }
}

/// How one message is treated.
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
    /// Only for these contacts; absent: for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contacts: Option<BTreeSet<String>>,
    /// Only for these Pages; absent: for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<BTreeSet<String>>,
    /// How many messages it strikes; absent: all that come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// How long the answer takes, besides the latency of every message.
    #[serde(default)]
    pub latency_ms: u64,
    /// Whether the contact gets the message all the same: so a time-out is played whose message did arrive.
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
    /// Gives everybody this answer, for ever.
    pub fn answering(answer: impl Into<Answer>) -> Fault {
        Fault {
            contacts: None,
            pages: None,
            times: None,
            latency_ms: 0,
            accept: None,
            answer: answer.into(),
        }
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

    /// Ends it after this many messages.
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

    fn matches(&self, page_id: &str, contact_id: &str) -> bool {
        let concerns = |ids: &Option<BTreeSet<String>>, id: &str| {
            ids.as_ref().is_none_or(|ids| ids.contains(id))
        };
        self.times != Some(0)
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

        assert_eq!(faults.take("page-1", "ana").answer, Answer::Hang);
        let second = faults.take("page-1", "ana");
        assert_eq!(second.answer, GraphError::new(613, "too fast").into());
        assert!(!second.accept);
        assert_eq!(faults.take("page-2", "ana").answer, Answer::Ok);
        assert_eq!(
            faults.take("page-2", "ana").latency,
            Duration::from_millis(5)
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
            ],
        }))
        .unwrap();

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
