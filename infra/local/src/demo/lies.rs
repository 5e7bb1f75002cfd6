//! What Messenger does wrong in `demo --faults`, and for whom.

use std::collections::BTreeMap;

use super::audience::Audience;
use crate::sandbox::{Answer, Fault, GraphError, Operation, Sandbox};

/// Contacts for each lie.
const EACH: usize = 6;
/// The Page whose token is revoked on the way.
pub const REVOKED_PAGE: &str = "page-3";

/// Has the sandbox take messages and not say so, in every way that it can; refuse some; meet its limit; and lose every
/// second echo of what it did not own up to, so that only a look-up can tell.
pub fn tell(sandbox: &Sandbox, audience: &Audience) {
    let mut contacts = audience.contacts.iter().map(|contact| &contact.contact_id);
    let mut next = || contacts.by_ref().take(EACH).cloned().collect::<Vec<_>>();
    let garbage = |status, body: &str| Answer::Raw {
        status,
        body: body.to_owned(),
    };
    let unclear = [
        Answer::Reset,
        Answer::Hang,
        garbage(500, "<html>"),
        garbage(200, "<html>"),
        GraphError::new(1, "Please try again later").into(),
        GraphError::new(2, "Please try again later").into(),
    ];
    let mut lost_echoes = Vec::new();
    for answer in unclear {
        let concerned = next();
        lost_echoes.extend(concerned.iter().step_by(2).cloned());
        sandbox.add_fault(
            Fault::answering(answer)
                .but_arriving()
                .to_contacts(concerned),
        );
    }
    // These did not even arrive.
    for answer in [Answer::Reset, Answer::Hang] {
        sandbox.add_fault(Fault::answering(answer).to_contacts(next()));
    }
    let blocked = GraphError::new(
        551,
        "This person isn't receiving messages from you right now",
    );
    sandbox.add_fault(Fault::answering(blocked).to_contacts(next()));
    let usage = r#"{"1":[{"type":"messenger","call_count":100,"total_cputime":20,"total_time":20,"estimated_time_to_regain_access":0}]}"#;
    let limit = Answer::Error {
        error: GraphError::new(613, "Calls to this api have exceeded the rate limit."),
        headers: BTreeMap::from([("x-business-use-case-usage".to_owned(), usage.to_owned())]),
    };
    sandbox.add_fault(Fault::answering(limit).on_pages(["page-2"]).times(2));
    let no_echo = Fault::answering(Answer::Reset).on(Operation::Echo);
    sandbox.add_fault(no_echo.to_contacts(lost_echoes));
}
