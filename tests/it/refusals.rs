//! Refusals: a mistake of configuration halts the job at no contact's cost, and a contact that alone is refused fails alone.

use std::time::Duration;

use local::sandbox::{Answer, Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;

use crate::fixture::doubts::RESEND;
use crate::fixture::{TestStack, request};

/// A pace at which a few sends are in flight when the first answer arrives.
const PACE: (&str, &str) = ("PAGE_RATE_PER_SECOND", "10");

/// Returns a refusal whose body is Messenger's own.
fn refusal(error: Value) -> Answer {
    Answer::Raw {
        status: 400,
        body: json!({ "error": error }).to_string(),
    }
}

/// Returns a refusal by this code alone.
fn code(code: i64) -> Answer {
    GraphError::new(code, "Messenger says no").into()
}

/// Returns a job's status and reason, and its counters `sent`, `failed` and `in_doubt`.
async fn outcome(stack: &TestStack, id: &BroadcastId) -> (String, String, [u64; 3]) {
    let report = stack.report(id).await;
    let job = &report["jobs"][0];
    let text = |name: &str| job[name].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), stack.sent_failed_in_doubt(id).await)
}

async fn resume(stack: &TestStack, id: &BroadcastId) {
    let answer = stack
        .call("POST", &format!("/v1/broadcasts/{id}/resume"), None, None)
        .await;
    assert!(answer.status.is_success(), "{answer:?}");
}

#[tokio::test]
async fn mistake_of_configuration_halts_the_job_and_spends_no_contact() {
    let wrong_proof = json!({
        "message": "Invalid appsecret_proof provided in the API argument", "type": "GraphMethodException",
        "code": 100, "fbtrace_id": "A",
    });
    let proof_required = json!({
        "message": "API calls from the server require an appsecret_proof argument", "type": "GraphMethodException",
        "code": 100, "fbtrace_id": "A",
    });
    let unknown_path = json!({
        "message": "Unknown path components: /messages", "type": "OAuthException", "code": 2500, "fbtrace_id": "A",
    });
    let answers = [wrong_proof, proof_required, unknown_path].map(refusal);
    let answers = answers.into_iter().chain([803, 21, 104, 2_069_032].map(code));
    let expected = [100, 100, 2_500, 803, 21, 104, 2_069_032];
    for (answer, code) in answers.zip(expected) {
        let stack = TestStack::start_with(&[PACE]).await;
        let ids = stack.import_contacts(20).await;
        stack.sandbox.add_fault(Fault::answering(answer));

        let id = stack.broadcast(&ids).await;
        stack.finish(&id).await;

        let halted = ("halted".to_owned(), format!("Messenger error {code}"), [0, 0, 0]);
        assert_eq!(outcome(&stack, &id).await, halted);
        stack.sandbox.clear_faults();
        resume(&stack, &id).await;
        assert_eq!(stack.finish(&id).await["counters"]["sent"], 20);
    }
}

/// The ten sends may have arrived, and so they stay in doubt; no outage is suspected, and no more are sent.
#[tokio::test]
async fn ten_unknown_codes_in_a_row_halt_the_job_with_the_code() {
    let no_lookups = ("DOUBT_CHECK_SECONDS", "86400");
    let stack = TestStack::start_with(&[PACE, no_lookups]).await;
    let ids = stack.import_contacts(40).await;
    let unknown = GraphError {
        subcode: Some(7),
        ..GraphError::new(987_654, "A code that no page of Meta lists")
    };
    stack.sandbox.add_fault(Fault::answering(unknown));

    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();
    stack.process_job(&wake_up).await;

    let (status, reason, [sent, failed, in_doubt]) = outcome(&stack, &id).await;
    assert_eq!(status, "halted", "{reason}");
    assert!(reason.starts_with("Messenger error 987654/7,"), "{reason}");
    assert_eq!((sent, failed), (0, 0));
    // Those in flight at the tenth answer end in doubt, too.
    assert!((10..=15).contains(&in_doubt), "{in_doubt} in doubt");
}

#[tokio::test]
async fn contact_that_alone_is_refused_fails_alone() {
    let not_available = json!({
        "message": "(#200) This person isn't available right now", "type": "OAuthException", "code": 200,
        "fbtrace_id": "A",
    });
    for which in [0, 9, 19] {
        for rate in ["10", "1000"] {
            let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", rate)]).await;
            let ids = stack.import_contacts(20).await;
            let fault = Fault::answering(refusal(not_available.clone()));
            stack.sandbox.add_fault(fault.to_contacts([&ids[which]]));

            let id = stack.broadcast(&ids).await;
            stack.drain_queue().await;

            let completed = ("completed".to_owned(), String::new(), [19, 1, 0]);
            assert_eq!(outcome(&stack, &id).await, completed, "contact {which} at {rate}/s");
            let row = stack.delivery(&id, &ids[which]).await;
            assert_eq!(
                (&row["reason"], &row["attempts"]),
                (&json!("Messenger error 200"), &json!(1))
            );
        }
    }
}

/// Every code that a contact alone may get is compared with another contact; the others are believed at once.
#[tokio::test]
async fn refusal_is_confirmed_by_another_contact_except_of_page_and_call() {
    for (code, subcode, is_confirmed) in [
        (3, None, true),
        (10, None, true),
        (100, Some(33), true),
        (100, Some(2_018_047), true),
        (299, None, true),
        (10, Some(1_893_063), false),
        (190, Some(463), false),
        (368, None, false),
        (613, Some(2_018_338), false),
        (2_022, None, false),
    ] {
        let stack = TestStack::start_with(&[PACE]).await;
        let ids = stack.import_contacts(4).await;
        let refusal = GraphError {
            subcode,
            ..GraphError::new(code, "Messenger says no")
        };
        stack
            .sandbox
            .add_fault(Fault::answering(refusal).to_contacts([&ids[0]]));

        let id = stack.broadcast(&ids).await;
        stack.drain_queue().await;

        let (status, reason, [_, failed, in_doubt]) = outcome(&stack, &id).await;
        let expected = match is_confirmed {
            true => ("completed", 1),
            false => ("halted", 0),
        };
        assert_eq!((&*status, failed), expected, "{code}/{subcode:?}: {reason}");
        assert_eq!(in_doubt, 0);
    }
}

/// A permission that is lost while sixty sends are in flight is no contact's fault.
#[tokio::test]
async fn confirmed_refusal_halts_the_job_and_charges_no_attempt() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "30")]).await;
    let ids = stack.import_contacts(100).await;
    stack.sandbox.set_latency_ms(500);
    stack.sandbox.add_fault(Fault::answering(code(200)));

    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;

    let reason = "Messenger error 200, for two contacts in a row".to_owned();
    assert_eq!(outcome(&stack, &id).await, ("halted".to_owned(), reason, [0, 0, 0]));
    for row in stack.deliveries(&id, "").await {
        assert_eq!((&row["status"], &row["attempts"]), (&json!("waiting"), &json!(0)));
    }
    stack.sandbox.clear_faults();
    stack.sandbox.set_latency_ms(0);
    resume(&stack, &id).await;
    let report = stack.finish(&id).await;
    assert_eq!(report["counters"]["sent"], 100, "{report:#}");
}

/// Contacts that are refused next to each other look like a fault of the Page, once.
#[tokio::test]
async fn two_refused_contacts_in_a_row_halt_the_job_once() {
    let stack = TestStack::start_with(&[PACE]).await;
    let ids = stack.import_contacts(6).await;
    stack
        .sandbox
        .add_fault(Fault::answering(code(200)).to_contacts([&ids[2], &ids[3]]));

    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;
    assert_eq!(outcome(&stack, &id).await.0, "halted");
    resume(&stack, &id).await;
    stack.drain_queue().await;

    let completed = ("completed".to_owned(), String::new(), [4, 2, 0]);
    assert_eq!(outcome(&stack, &id).await, completed);
}

/// With no other contact to ask the job halts, since the Page may be the cause. The operator's resume says that it is not:
/// a contact that is refused again then fails.
#[tokio::test]
async fn only_contact_halts_its_job_until_the_operator_resumes_it() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    stack.sandbox.add_fault(Fault::answering(code(200)));

    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;
    let (status, reason, counters) = outcome(&stack, &id).await;
    assert_eq!((&*status, counters), ("halted", [0, 0, 0]));
    assert!(reason.starts_with("Messenger error 200,"), "{reason}");
    assert_eq!(stack.delivery(&id, &ids[0]).await["attempts"], 0);
    resume(&stack, &id).await;
    stack.drain_queue().await;

    let completed = ("completed".to_owned(), String::new(), [0, 1, 0]);
    assert_eq!(outcome(&stack, &id).await, completed);
}

/// The run is over before another contact was asked: the next run asks the contact again, and then another one.
#[tokio::test]
async fn suspicion_does_not_outlive_its_run() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "1")]).await;
    let ids = stack.import_contacts(3).await;
    stack
        .sandbox
        .add_fault(Fault::answering(code(200)).to_contacts([&ids[0]]));
    let limit = Fault::answering(GraphError::new(613, "too fast"));
    stack.sandbox.add_fault(limit.times(1));

    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();
    stack.process_job(&wake_up).await;
    stack.delete(&wake_up).await;
    let paused = stack.report(&id).await;
    assert_eq!(paused["status"], "waiting", "{paused:#}");
    let row = stack.delivery(&id, &ids[0]).await;
    assert_eq!((&row["status"], &row["attempts"]), (&json!("waiting"), &json!(0)));
    stack.finish(&id).await;

    let completed = ("completed".to_owned(), String::new(), [2, 1, 0]);
    assert_eq!(outcome(&stack, &id).await, completed);
}

/// The first attempt may have arrived, whatever the second one is told.
#[tokio::test]
async fn contact_once_in_doubt_does_not_fail_alone() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast_with_doubts(&ids, &[], &[0]).await;
    stack.tick_at_both_lookups().await;
    stack.sandbox.add_fault(Fault::answering(code(200)));

    stack.finish(&id).await;
    assert_eq!(outcome(&stack, &id).await.0, "halted");
    resume(&stack, &id).await;
    stack.finish(&id).await;

    let completed = ("completed".to_owned(), String::new(), [1, 0, 1]);
    assert_eq!(outcome(&stack, &id).await, completed);
}

/// The next one that is accepted within the request decides, too.
#[tokio::test]
async fn contact_that_alone_is_refused_fails_within_the_request() {
    let stack = TestStack::start_with(&[("INLINE_LIMIT", "25")]).await;
    let ids = stack.import_contacts(20).await;
    stack
        .sandbox
        .add_fault(Fault::answering(code(200)).to_contacts([&ids[19]]));

    let answer = stack.post(&request(&ids)).await;

    assert_eq!(answer.status, axum::http::StatusCode::OK, "{answer:?}");
    let counters = &answer.body["counters"];
    assert_eq!((&counters["sent"], &counters["failed"]), (&json!(19), &json!(1)));
}

/// A worker that dies between a refusal and its confirmation leaves no doubt.
#[tokio::test]
async fn refused_contact_is_no_doubt_of_a_dead_worker() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "1")]).await;
    let ids = stack.import_contacts(2).await;
    stack
        .sandbox
        .add_fault(Fault::answering(code(200)).to_contacts([&ids[0]]));
    stack.sandbox.add_fault(Fault::answering(Answer::Hang).times(1));
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();

    // The second contact's send is in flight when the worker dies.
    let dies = tokio::time::timeout(Duration::from_secs(2), stack.process_job(&wake_up));
    assert!(dies.await.is_err());
    stack.advance(Duration::from_secs(200));
    stack.process_job(&stack.wake_up_for(&id).await).await;

    let row = stack.delivery(&id, &ids[0]).await;
    assert!(
        ["failed", "waiting"].contains(&row["status"].as_str().unwrap()),
        "{row}"
    );
    assert_eq!(stack.delivery(&id, &ids[1]).await["status"], "in_doubt");
}
