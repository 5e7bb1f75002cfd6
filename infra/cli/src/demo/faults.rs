//! The injected faults of `demo --faults`, and the contacts that each of them affects.

use std::collections::BTreeMap;

use local::sandbox::{Answer, Fault, GraphError, Operation, Sandbox};

use super::audience::Audience;

/// The number of contacts that one fault affects.
const CONTACTS_PER_FAULT: usize = 6;
/// The Page that has its token revoked during the broadcast.
pub const REVOKED_PAGE: &str = "page-3";

/// Injects faults of every kind that the sandbox has: messages that are delivered although the answer is lost or an
/// error, messages that are lost, refusals, and a rate limit. For every second delivered message with such an answer
/// the echo is lost too, so that only a lookup can settle it.
pub fn inject(sandbox: &Sandbox, audience: &Audience) {
    let mut contacts = audience.contacts.iter().map(|contact| contact.contact_id.as_str());
    let mut next = || {
        contacts
            .by_ref()
            .take(CONTACTS_PER_FAULT)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let unreadable = |status, body: &str| Answer::Raw {
        status,
        body: body.to_owned(),
    };
    let ambiguous = [
        Answer::Reset,
        Answer::Hang,
        unreadable(500, "<html>"),
        unreadable(200, "<html>"),
        GraphError::new(1, "Please try again later").into(),
        GraphError::new(2, "Please try again later").into(),
    ];
    let mut without_echo = Vec::new();
    for answer in ambiguous {
        let affected = next();
        without_echo.extend(affected.iter().step_by(2).cloned());
        sandbox.add_fault(Fault::answering(answer).but_arriving().to_contacts(affected));
    }
    // These messages are not delivered.
    for answer in [Answer::Reset, Answer::Hang] {
        sandbox.add_fault(Fault::answering(answer).to_contacts(next()));
    }
    let blocked = GraphError::new(551, "This person isn't receiving messages from you right now");
    sandbox.add_fault(Fault::answering(blocked).to_contacts(next()));
    let usage = r#"{"1":[{"type":"messenger","call_count":100,"total_cputime":20,"total_time":20,"estimated_time_to_regain_access":0}]}"#;
    let limit = Answer::Error {
        error: GraphError::new(613, "Calls to this api have exceeded the rate limit."),
        headers: BTreeMap::from([("x-business-use-case-usage".to_owned(), usage.to_owned())]),
    };
    sandbox.add_fault(Fault::answering(limit).on_pages(["page-2"]).times(2));
    let no_echo = Fault::answering(Answer::Reset).on(Operation::Echo);
    sandbox.add_fault(no_echo.to_contacts(without_echo));
}
