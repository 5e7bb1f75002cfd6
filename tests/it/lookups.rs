//! Lookups: what they take for evidence, their pace, and their cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use local::sandbox::{Answer, Fault, ForeignMessage, GraphError, Operation};
use serde_json::json;
use shared::domain::digest::digest;
use shared::domain::ids::{BroadcastId, ContactId};
use shared::reconcile::settle::settle_doubts;
use shared::store::deliveries::Reserve;
use tokio::time::Instant;

use crate::fixture::doubts::{FIRST_LOOKUP, LAST_LOOKUP, RESEND};
use crate::fixture::proxy::Reply;
use crate::fixture::{PAGES, TestStack, request};

#[tokio::test]
async fn message_too_new_at_the_last_lookup_is_looked_up_again() {
    for policy in ["hold", "resend"] {
        let stack = TestStack::start_with(&[(RESEND.0, policy)]).await;
        let ids = stack.import_contacts(1).await;
        let id = stack.broadcast_with_doubts(&ids, &[], &[0]).await;
        stack.tick_after(FIRST_LOOKUP).await;
        stack.advance(LAST_LOOKUP - FIRST_LOOKUP);
        stack.add_foreign_message(&ids[0], None);

        stack.tick().await;
        let row = stack.delivery(&id, &ids[0]).await;
        assert_eq!(
            (&row["status"], &row["reason"]),
            (&json!("in_doubt"), &json!("connection lost"))
        );
        stack.tick_after(Duration::from_secs(11)).await;

        assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 0], "{policy}");
        assert_eq!(stack.report(&id).await["status"], "completed");
        stack.skip_promise_check();
    }
}

#[tokio::test]
async fn delivery_reserved_after_the_message_is_no_rival() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let first = stack.broadcast_with_doubts(&ids, &[0], &[]).await;
    // Later by more than clocks may differ.
    stack.advance(Duration::from_secs(310));
    stack.sandbox.add_fault(Fault::answering(Answer::Reset));
    let second = stack.post_with_key("second", &request(&ids)).await.broadcast_id();
    stack.drain_queue().await;
    stack.sandbox.clear_faults();

    stack.tick_after(FIRST_LOOKUP).await;

    assert_eq!(stack.sent_failed_in_doubt(&first).await, [1, 0, 0]);
    assert_eq!(stack.sent_failed_in_doubt(&second).await, [0, 0, 1]);
}

/// A worker of an older broadcast may be frozen for as long as it likes, and send when it thaws.
#[tokio::test]
async fn older_job_that_is_not_completed_is_a_rival() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let contact = ContactId::parse(&ids[0]).unwrap();
    let older = stack.broadcast(&ids).await;
    let claim = stack.claim(&stack.job(&older).await.id()).await;
    stack.advance(Duration::from_secs(86_400));
    let newer = stack.post_with_key("newer", &request(&ids)).await.broadcast_id();
    stack.sandbox.add_fault(Fault::answering(Answer::Reset));
    stack.process_job(&stack.wake_up_for(&newer).await).await;
    stack.sandbox.clear_faults();
    assert_eq!(stack.sent_failed_in_doubt(&newer).await, [0, 0, 1]);

    // The older worker thaws: it reserves and sends, and is frozen again.
    let text = digest(&format!("Hi Nr {}, we open at nine.", ids[0]));
    let reserved = stack.app.store.deliveries();
    let reserved = reserved.reserve(&claim.job, &contact, Some(&text), stack.app.clock.now());
    assert!(matches!(reserved.await.unwrap(), Reserve::Granted(_)));
    stack.add_foreign_message(&ids[0], None);
    stack.tick_at_both_lookups().await;

    let row = stack.delivery(&newer, &ids[0]).await;
    assert_eq!(
        row["reason"],
        "connection lost; a message like it may be another broadcast's"
    );
    stack.skip_promise_check();
}

/// Case 15: Messenger may show other line ends than were sent.
#[tokio::test]
async fn line_ends_do_not_matter() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let lost = Fault::answering(Answer::Reset);
    stack.sandbox.add_fault(lost.to_contacts([&ids[1]]));
    let body = json!({"contact_ids": ids, "message": {"text": "Hello\r\nfrom\rthe shop"}});
    let id = stack.post(&body).await.broadcast_id();
    stack.drain_queue().await;
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 1]);
    let sent = stack.sandbox.received().remove(0);
    assert_eq!(sent.text.as_deref(), Some("Hello\nfrom\nthe shop"));

    stack.sandbox.add_message(ForeignMessage {
        page_id: PAGES[0].to_owned(),
        contact_id: ids[1].clone(),
        text: "Hello\r\nfrom\nthe shop".to_owned(),
        from_contact: false,
        at: None,
    });
    stack.tick_after(FIRST_LOOKUP).await;

    assert_eq!(stack.sent_failed_in_doubt(&id).await, [2, 0, 0]);
    stack.skip_promise_check();
}

/// Each invocation has the time for one lookup at most, and the next one follows at once.
#[tokio::test]
async fn invocations_in_succession_keep_messengers_limit() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(4).await;
    let id = stack.broadcast_with_doubts(&ids, &[0, 1, 2, 3], &[]).await;
    stack.advance(FIRST_LOOKUP);

    for _ in 0..12 {
        let ends = Instant::now() + Duration::from_millis(700);
        settle_doubts(&stack.app, ends).await.unwrap();
    }

    assert_eq!(stack.sent_failed_in_doubt(&id).await, [4, 0, 0]);
    assert!(stack.sandbox.peak_conversation_calls_per_second() <= 2);
}

/// A conversation that Messenger refuses to show is no reason to give up the Page's other lookups.
#[tokio::test]
async fn refused_conversation_does_not_stop_the_other_lookups() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(5).await;
    let id = stack.broadcast_with_doubts(&ids, &[0, 1, 2, 3, 4], &[]).await;
    let refused = Fault::answering(GraphError::new(200, "This person isn't available right now"));
    stack
        .sandbox
        .add_fault(refused.on(Operation::Lookup).to_contacts([&ids[1], &ids[3]]));

    stack.tick_after(FIRST_LOOKUP).await;

    assert_eq!(stack.sent_failed_in_doubt(&id).await, [3, 0, 2]);
}

/// Stores jobs of the first Page that were completed long ago, as far as the indexes show them.
async fn plant_completed_jobs(stack: &TestStack, jobs: usize) {
    let text = AttributeValue::S;
    let dynamodb = local::clients::dynamodb(&stack.endpoints().dynamodb);
    let table = &stack.app.config.broadcasts_table;
    let completed = stack.app.clock.now().as_millisecond() - 86_400_000;
    let job = |n: usize| {
        let time = AttributeValue::N((completed + i64::try_from(n).unwrap()).to_string());
        let item = PutRequest::builder()
            .item("pk", text(format!("broadcast#{}", BroadcastId::random())))
            .item("sk", text(format!("job#{}", PAGES[0])))
            .item("page_id", text(PAGES[0].to_owned()))
            .item("created_at", time.clone())
            .item("may_send_until", time);
        WriteRequest::builder().put_request(item.build().unwrap()).build()
    };
    let requests: Vec<_> = (0..jobs).map(job).collect();
    for requests in requests.chunks(25) {
        let write = dynamodb.batch_write_item();
        write.request_items(table, requests.to_vec()).send().await.unwrap();
    }
}

/// A lookup reads the jobs that may have sent at the time, however many the Page has had.
#[tokio::test]
async fn cost_of_a_lookup_does_not_grow_with_the_jobs_of_the_page() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let hook = move |_: &str| {
        counter.fetch_add(1, Ordering::SeqCst);
        Reply::Arrives
    };
    let stack = TestStack::start_with_lossy_database(hook, &[]).await;
    let ids = stack.import_contacts(2).await;
    // The first firing also looks for contacts of an earlier version.
    stack.tick().await;
    let mut costs = Vec::new();
    for planted in [0, 5_000] {
        plant_completed_jobs(&stack, planted).await;
        let key = planted.to_string();
        let unanswered = Fault::answering(Answer::Reset).but_arriving();
        stack.sandbox.add_fault(unanswered.to_contacts([&ids[0]]));
        let id = stack.post_with_key(&key, &request(&ids)).await.broadcast_id();
        stack.drain_queue().await;
        stack.sandbox.clear_faults();
        stack.advance(Duration::from_secs(3_600));
        stack.sandbox.forget_conversation_calls();

        calls.store(0, Ordering::SeqCst);
        stack.tick().await;
        costs.push(calls.load(Ordering::SeqCst));

        assert_eq!(stack.sent_failed_in_doubt(&id).await, [2, 0, 0]);
    }
    assert_eq!(costs[0], costs[1], "{costs:?}");
}
