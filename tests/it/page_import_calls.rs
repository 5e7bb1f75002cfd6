//! The calls of an import to Messenger: within its limit, together with lookups, and in spite of its refusals and failures.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use local::sandbox::{Answer, Fault, GraphError, Operation};
use serde_json::{Value, json};
use shared::domain::ids::PageId;
use shared::reconcile::settle::settle_doubts;
use shared::store::hand_over::HandOver;
use shared::worker::claim::{Worked, work_on};
use tokio::time::Instant;

use crate::fixture::doubts::FIRST_LOOKUP;
use crate::fixture::page_imports::{SHORT, check_contacts, counts, job_of, path};
use crate::fixture::{PAGE_WITHOUT_TOKEN, PAGES, TestStack};

impl TestStack {
    /// As [`TestStack::finish_import`], with hours in between: longer than any back-off.
    async fn finish_import_slowly(&self) -> Value {
        for _ in 0..12 {
            self.advance(Duration::from_secs(2 * 3_600));
            self.tick().await;
            self.drain_queue().await;
            let import = self.page_import(PAGES[0]).await;
            if import["status"] != "waiting" {
                return import;
            }
        }
        panic!("the import does not end: {:#}", self.page_import(PAGES[0]).await)
    }

    async fn refused_import(&self, page: &str) -> String {
        let answer = self.request_import(page).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{answer:?}");
        assert_eq!(answer.body["type"], "/v1/problems/page-not-readable");
        answer.body["detail"].as_str().unwrap().to_owned()
    }
}

fn on_list(answer: impl Into<Answer>) -> Fault {
    Fault::answering(answer).on(Operation::List)
}

#[tokio::test]
async fn import_begins_again_when_messenger_forgets_its_place() {
    let stack = TestStack::start().await;
    let people = stack.give_people(PAGES[0], 5, 1);
    stack.start_import(PAGES[0]).await;
    let message = stack.receive().await.unwrap();
    stack.process_job_for(&message, SHORT).await;
    stack.delete(&message).await;
    let before = stack.page_import(PAGES[0]).await;
    let created = before["created"].as_u64().unwrap();
    assert!((1..5).contains(&created), "{before:#}");

    stack.sandbox.expire_cursors(PAGES[0]);
    let import = stack.finish_import(PAGES[0]).await;

    assert_eq!(import["started_over"], true);
    assert_eq!(
        (&import["status"], counts(&import)),
        (&json!("completed"), [5, 5, created, 0, 0])
    );
    check_contacts(&stack.contacts().await, PAGES[0], &people);
}

/// A place that Messenger forgets each time would be read for ever.
#[tokio::test]
async fn import_whose_place_is_forgotten_twice_is_halted() {
    let stack = TestStack::start().await;
    stack.give_people(PAGES[0], 9, 1);
    stack.start_import(PAGES[0]).await;
    for _ in 0..2 {
        let message = stack.receive().await.unwrap();
        stack.process_job_for(&message, SHORT).await;
        stack.delete(&message).await;
        stack.sandbox.expire_cursors(PAGES[0]);
    }

    let import = stack.finish_import(PAGES[0]).await;

    assert_eq!(
        (&import["status"], &import["reason"]),
        (&json!("halted"), &json!("Messenger error 100"))
    );
    assert!(import["remedy"].as_str().unwrap().contains("start the import again"));
    assert_eq!(stack.import_whole(PAGES[0]).await["status"], "completed");
}

/// The pause holds for the lookups of the Page, too, and no other Page.
#[tokio::test]
async fn rate_limit_pauses_the_calls_of_the_page_until_messengers_own_time() {
    let stack = TestStack::start().await;
    let people = stack.give_people(PAGES[0], 3, 1);
    stack.start_import(PAGES[0]).await;
    let limit = Answer::Error {
        error: GraphError::new(613, "too fast"),
        headers: BTreeMap::from([(
            "x-business-use-case-usage".to_owned(),
            json!({PAGES[0]: [{"type": "messenger", "call_count": 100, "estimated_time_to_regain_access": 10}]})
                .to_string(),
        )]),
    };
    stack.sandbox.add_fault(on_list(limit).times(1));
    stack.drain_queue().await;

    let import = stack.page_import(PAGES[0]).await;
    assert_eq!(import["status"], "waiting");
    assert_eq!(import["reason"], "Messenger limits the calls for the Page");
    let calls = stack.sandbox.conversation_call_times(PAGES[0]).len();
    stack.advance(Duration::from_secs(9 * 60));
    stack.tick().await;
    stack.drain_queue().await;
    let waits = stack.request_import(PAGES[0]).await;
    assert_eq!(
        (waits.status, &waits.body["status"]),
        (StatusCode::ACCEPTED, &json!("waiting"))
    );
    assert_eq!(stack.import_whole(PAGES[1]).await["status"], "completed");
    // Another import does not call, either, and a shorter pause changes nothing.
    stack.cancel_import(PAGES[0]).await;
    stack.drain_queue().await;
    assert_eq!(stack.page_import(PAGES[0]).await["status"], "cancelled");
    let (pages, page) = (stack.app.store.page_leases(), PageId::parse(PAGES[0]).unwrap());
    let sooner = stack.app.clock.now() + Duration::from_secs(1);
    pages.pause_calls_if_longer(&page, sooner).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    stack.start_import(PAGES[0]).await;
    stack.drain_queue().await;
    let import = stack.page_import(PAGES[0]).await;
    assert_eq!(
        (&import["status"], &import["reason"]),
        (&json!("waiting"), &json!("the calls for the Page pause"))
    );
    let calls_of_first = stack.sandbox.conversation_call_times(PAGES[0]).len();
    assert_eq!(calls_of_first, calls, "called during the pause");

    stack.advance(Duration::from_secs(2 * 60));
    stack.tick().await;
    stack.drain_queue().await;

    let import = stack.page_import(PAGES[0]).await;
    assert_eq!(
        (&import["status"], counts(&import)),
        (&json!("completed"), [3, 3, 0, 0, 0])
    );
    check_contacts(&stack.contacts().await, PAGES[0], &people);
}

/// A rate limit never halts an import, however often it comes.
#[tokio::test]
async fn repeated_rate_limits_only_delay_an_import() {
    let stack = TestStack::start_with(&[("RETRY_ATTEMPTS", "2")]).await;
    stack.give_people(PAGES[0], 3, 100);
    stack.start_import(PAGES[0]).await;
    stack
        .sandbox
        .add_fault(on_list(GraphError::new(4, "too many")).times(6));

    assert_eq!(counts(&stack.finish_import_slowly().await), [3, 3, 0, 0, 0]);
}

/// An answer may have been too much for Messenger, so that the next call is for less.
#[tokio::test]
async fn failed_call_is_repeated_later_for_less_and_halts_the_import_in_the_end() {
    let stack = TestStack::start_with(&[("RETRY_ATTEMPTS", "3")]).await;
    stack.give_people(PAGES[0], 60, 100);
    stack.start_import(PAGES[0]).await;
    let too_much = GraphError {
        status: 500,
        ..GraphError::new(1, "Please reduce the amount of data you're asking for")
    };
    stack.sandbox.add_fault(on_list(too_much.clone()).times(2));
    stack.drain_queue().await;
    let import = stack.page_import(PAGES[0]).await;
    assert_eq!(
        (&import["status"], &import["reason"]),
        (&json!("waiting"), &json!("Messenger did not answer"))
    );

    let import = stack.finish_import_slowly().await;
    assert_eq!(
        (&import["status"], counts(&import)),
        (&json!("completed"), [60, 60, 0, 0, 0])
    );
    // The check, two that failed, 25 people, and the others.
    assert_eq!(stack.sandbox.conversation_calls(), 5);

    stack.start_import(PAGES[0]).await;
    stack.sandbox.add_fault(on_list(too_much));
    let import = stack.finish_import_slowly().await;
    assert_eq!(
        (&import["status"], &import["reason"]),
        (&json!("halted"), &json!("Messenger error 1"))
    );
    // The check, four that failed.
    assert_eq!(stack.sandbox.conversation_calls(), 5 + 1 + 4);
}

#[tokio::test]
async fn page_that_messenger_does_not_show_is_refused_with_the_code_and_the_remedy() {
    let stack = TestStack::start().await;
    stack.give_people(PAGES[0], 3, 100);

    let detail = stack.refused_import(PAGE_WITHOUT_TOKEN).await;
    assert!(detail.contains("no access token"), "{detail}");
    stack.sandbox.revoke_token(PAGES[0]);
    let detail = stack.refused_import(PAGES[0]).await;
    assert!(
        detail.contains("190/460") && detail.contains("new access token"),
        "{detail}"
    );
    stack.sandbox.restore_token(PAGES[0]);
    for (code, word) in [
        (200, "pages_messaging"),
        (10, "pages_messaging"),
        (368, "support inbox"),
        (803, "reference"),
    ] {
        let refusal = GraphError::new(code, "no");
        stack.sandbox.add_fault(on_list(refusal).times(1));
        let detail = stack.refused_import(PAGES[0]).await;
        assert!(
            detail.contains(&format!("the code {code}.")) && detail.contains(word),
            "{detail}"
        );
    }

    let answer = stack.call("GET", &path(PAGES[0]), None, None).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "nothing has begun");
    assert!(stack.receive().await.is_none());
    // Disturbances that pass refuse nothing.
    for passing in [GraphError::new(613, "too fast").into(), Answer::Reset] {
        stack.sandbox.add_fault(on_list(passing).times(1));
        assert_eq!(stack.import_whole(PAGES[0]).await["status"], "completed");
    }
}

#[tokio::test]
async fn permission_lost_on_the_way_halts_the_import_which_begins_anew_afterwards() {
    let stack = TestStack::start().await;
    let people = stack.give_people(PAGES[0], 4, 1);
    stack.start_import(PAGES[0]).await;
    let message = stack.receive().await.unwrap();
    stack.process_job_for(&message, SHORT).await;
    stack.delete(&message).await;
    stack
        .sandbox
        .add_fault(on_list(GraphError::new(200, "no permission")).times(1));

    let halted = stack.finish_import(PAGES[0]).await;

    assert_eq!(
        (&halted["status"], &halted["reason"]),
        (&json!("halted"), &json!("Messenger error 200"))
    );
    assert!(halted["remedy"].as_str().unwrap().contains("pages_messaging"));
    let import = stack.import_whole(PAGES[0]).await;
    assert_eq!(
        (&import["status"], &import["conversations"]),
        (&json!("completed"), &json!(4))
    );
    assert_ne!(import["started_at"], halted["started_at"]);
    check_contacts(&stack.contacts().await, PAGES[0], &people);
}

/// Another token may have come meanwhile: then the import goes on.
#[tokio::test]
async fn refused_token_halts_the_import_unless_there_is_another() {
    let stack = TestStack::start().await;
    stack.give_people(PAGES[0], 3, 100);
    stack.start_import(PAGES[0]).await;
    stack.sandbox.revoke_token(PAGES[0]);
    let halted = stack.finish_import(PAGES[0]).await;
    assert_eq!(
        (&halted["status"], &halted["reason"]),
        (&json!("halted"), &json!("Messenger error 190/460"))
    );
    assert!(halted["remedy"].as_str().unwrap().contains("new access token"));
    stack.sandbox.restore_token(PAGES[0]);
    assert_eq!(stack.import_whole(PAGES[0]).await["status"], "completed");
}

/// Each of the two gets at least every second call, and their sum keeps Messenger's limit.
#[tokio::test]
async fn lookups_and_an_import_share_the_two_calls_a_second() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(4).await;
    let id = stack.broadcast_with_doubts(&ids, &[0, 1, 2, 3], &[]).await;
    stack.advance(FIRST_LOOKUP);
    stack.give_people(PAGES[0], 60, 1);
    stack.start_import(PAGES[0]).await;
    stack.sandbox.forget_conversation_calls();
    let job = job_of(PAGES[0]);
    let begun = Instant::now();

    let lookups = async {
        settle_doubts(&stack.app, begun + Duration::from_secs(60))
            .await
            .unwrap();
        (begun.elapsed(), stack.page_import(PAGES[0]).await)
    };
    let import = work_on(&stack.app, &job, begun + Duration::from_secs(36));
    let ((looked_up_within, meanwhile), worked) = tokio::join!(lookups, import);

    assert_eq!(stack.sent_failed_in_doubt(&id).await, [4, 0, 0]);
    // Eight calls, each of which waits for one of the import.
    assert!(looked_up_within < Duration::from_secs(12), "{looked_up_within:?}");
    let of_import = meanwhile["conversations"].as_u64().unwrap();
    assert!(
        of_import >= 4,
        "the import had {of_import} calls beside eight of lookups"
    );
    assert_eq!(worked.unwrap(), Worked::HandedOver(HandOver::Queued));
    let calls = stack.sandbox.conversation_calls();
    assert!(
        calls as u64 <= 2 * begun.elapsed().as_secs() + 2,
        "{calls} calls in {:?}",
        begun.elapsed()
    );
    assert!(
        calls as u64 * 3 / 4 >= begun.elapsed().as_secs(),
        "{calls} calls in {:?}",
        begun.elapsed()
    );
    assert!(stack.sandbox.peak_conversation_calls_per_second() <= 2);
    assert_eq!(
        stack.page_import(PAGES[0]).await["reason"],
        Value::Null,
        "Messenger's limit was reached"
    );
}

/// It would be read for ever.
#[tokio::test]
async fn list_that_does_not_go_on_is_asked_for_again_later() {
    let stack = TestStack::start().await;
    stack.start_import(PAGES[0]).await;
    let message = stack.receive().await.unwrap();
    let body = json!({"data": [], "paging": {"cursors": {"after": "x"}, "next": "https://…"}}).to_string();
    stack.sandbox.add_fault(on_list(Answer::Raw { status: 200, body }));

    stack.process_job_for(&message, Duration::from_secs(4)).await;

    let import = stack.page_import(PAGES[0]).await;
    assert_eq!(
        (&import["status"], &import["reason"]),
        (&json!("waiting"), &json!("Messenger did not answer"))
    );
}
