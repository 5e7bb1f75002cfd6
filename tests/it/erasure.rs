//! Erasure: everything that is stored of a contact is deleted, but for what keeps the promise.

use std::time::Duration;

use axum::http::StatusCode;
use jiff::SignedDuration;
use local::sandbox::{Answer, Fault, GraphError, Operation};
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;

use crate::fixture::doubts::{FIRST_LOOKUP, LAST_LOOKUP, RESEND};
use crate::fixture::{PAGES, TEXT, TestStack, request};

/// A time after which no worker can still be sending for a job that is completed.
const ALL_OVER: Duration = Duration::from_secs(700);

impl TestStack {
    /// Erases a contact, in requests that read at most so many broadcasts; returns all of their answers as one.
    async fn erase_by(&self, contact_id: &str, limit: usize) -> Value {
        self.let_reads_catch_up();
        let (mut erased, mut kept) = (json!({"contact": false, "deliveries": 0, "unknown_ids": 0}), Vec::new());
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/contacts/{contact_id}?erase=true&limit={limit}{cursor}");
            let mut answer = self.call("DELETE", &path, None, None).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let part = &answer.body["erased"];
            let number = |of: &Value, name: &str| of[name].as_u64().unwrap();
            erased = json!({
                "contact": erased["contact"] == true || part["contact"] == true,
                "deliveries": number(&erased, "deliveries") + number(part, "deliveries"),
                "unknown_ids": number(&erased, "unknown_ids") + number(part, "unknown_ids"),
            });
            kept.append(answer.body["kept"].as_array_mut().unwrap());
            match answer.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return json!({"erased": erased, "kept": kept}),
            }
        }
    }

    async fn erase(&self, contact_id: &str) -> Value {
        self.erase_by(contact_id, 1_000).await
    }

    /// Returns the stored items that name a contact, but for the lists of ids that expire by themselves.
    async fn items_naming(&self, contact_id: &str) -> Vec<String> {
        let items = self.stored_items().await.into_iter();
        let items = items.filter(|item| {
            let key = item.get("pk").and_then(|key| key.as_s().ok());
            !key.is_some_and(|key| key.starts_with("segments#"))
        });
        let items = items.map(|item| format!("{item:?}"));
        items.filter(|item| item.contains(contact_id)).collect()
    }

    /// Returns the number of messages that a contact has got.
    fn messages_to(&self, contact_id: &str) -> usize {
        let received = self.sandbox.received().into_iter();
        received.filter(|message| message.contact_id == contact_id).count()
    }
}

/// Returns the broadcasts that an answer lists as kept, with the state of the delivery.
fn kept(answer: &Value) -> Vec<(&str, &str)> {
    let kept = answer["kept"].as_array().unwrap().iter();
    let kept = kept.map(|one| {
        (
            one["broadcast_id"].as_str().unwrap(),
            one["status"].as_str().unwrap_or("none"),
        )
    });
    kept.collect()
}

#[tokio::test]
async fn erased_contact_is_named_by_no_item_and_gets_nothing_again() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let contact = &ids[0];
    let post = async |key: &str| {
        let body = json!({"contact_ids": ids, "message": {"text": format!("{key} {TEXT}")}});
        let id = stack.post(&body).await.broadcast_id();
        stack.finish(&id).await;
        id
    };
    let to_contact = |fault: Fault| stack.sandbox.add_fault(fault.to_contacts([contact]));
    let mut ended = vec![post("sent").await];
    to_contact(Fault::answering(GraphError::new(551, "blocked")));
    ended.push(post("failed").await);
    stack.sandbox.clear_faults();
    to_contact(Fault::answering(Answer::Reset));
    ended.push(post("lost").await);
    stack.sandbox.clear_faults();
    stack.tick_at_both_lookups().await;
    stack.tick_after(ALL_OVER).await;
    to_contact(Fault::answering(Answer::Reset).but_arriving());
    ended.push(post("found").await);
    stack.sandbox.clear_faults();
    stack.tick_at_both_lookups().await;
    stack
        .call("DELETE", &format!("/v1/contacts/{contact}"), None, None)
        .await;
    stack.let_reads_catch_up();
    post("unknown").await;
    stack.import_contacts(1).await;
    let due = stack.app.clock.now() + SignedDuration::from_hours(48);
    let body = json!({"contact_ids": ids, "message": {"text": TEXT}, "scheduled_at": due});
    let scheduled = stack.post(&body).await.broadcast_id();
    stack.advance(ALL_OVER);
    // Every kind of item names it: the contact, four deliveries, a message that a lookup has claimed, an unknown id.
    let named = stack.items_naming(contact).await;
    assert_eq!(named.len(), 7, "{named:#?}");
    let messages = stack.messages_to(contact);

    let answer = stack.erase(contact).await;

    let erased = json!({"contact": true, "deliveries": 4, "unknown_ids": 1});
    assert_eq!(answer["erased"], erased, "{answer:#}");
    assert_eq!(kept(&answer), [(&*scheduled.to_string(), "none")]);
    let reason = "the job is scheduled, and may have the contact in its backlog";
    assert_eq!(answer["kept"][0]["reason"], reason);
    assert_eq!(stack.items_naming(contact).await, [] as [String; 0]);
    for id in &ended {
        stack.process_job(&stack.wake_up_for(id).await).await;
        for (metadata, message_id) in stack.echoes(id) {
            stack.echo(id, metadata.contact_id.as_str(), 1, &message_id).await;
        }
        assert_eq!(stack.deliveries(id, "").await.len(), 2, "the others' are left");
    }
    stack.advance(Duration::from_secs(48 * 3_600));
    stack.tick().await;
    stack.finish(&scheduled).await;
    assert_eq!(stack.delivery(&scheduled, contact).await["status"], "skipped");
    assert_eq!(stack.messages_to(contact), messages);
    stack.advance(ALL_OVER);
    let answer = stack.erase(contact).await;
    let erased = json!({"contact": false, "deliveries": 1, "unknown_ids": 0});
    assert_eq!(answer, json!({"erased": erased, "kept": []}));
    assert_eq!(stack.items_naming(contact).await, [] as [String; 0]);
    stack.skip_promise_check();
}

/// A worker that has been overtaken may still have the contact ahead of it, and the row is all that stops it.
#[tokio::test]
async fn delivery_is_kept_while_a_worker_may_be_sending() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let sent = stack.broadcast(&ids).await;
    stack.drain_queue().await;
    let busy = Fault::answering(GraphError::new(613, "too fast"));
    stack.sandbox.add_fault(busy.to_contacts([&ids[0]]));
    let waiting = stack.post_with_key("waiting", &request(&ids)).await.broadcast_id();
    stack.drain_queue().await;

    let answer = stack.erase(&ids[0]).await;

    let both = [(&*waiting.to_string(), "waiting"), (&*sent.to_string(), "sent")];
    assert_eq!(kept(&answer), both, "{answer:#}");
    assert_eq!(answer["kept"][0]["reason"], "the job is waiting");
    assert_eq!(
        answer["erased"],
        json!({"contact": true, "deliveries": 0, "unknown_ids": 0})
    );
    stack.finish(&waiting).await;
    stack.advance(ALL_OVER);
    assert_eq!(stack.erase(&ids[0]).await["erased"]["deliveries"], 2);
    stack.skip_promise_check();
}

/// Without the row of the second broadcast, its message would settle the delivery of the first, which did not arrive.
#[tokio::test]
async fn no_delivery_is_erased_while_another_is_to_be_looked_up() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let lost = stack.broadcast_with_doubts(&ids, &[], &[0]).await;
    let sent = stack.post_with_key("sent", &request(&ids)).await.broadcast_id();
    stack.finish(&sent).await;
    stack.advance(ALL_OVER);

    let answer = stack.erase(&ids[0]).await;

    let both = [(&*sent.to_string(), "sent"), (&*lost.to_string(), "in_doubt")];
    assert_eq!(kept(&answer), both, "{answer:#}");
    assert_eq!(answer["kept"][1]["reason"], "it is still to be looked up");
    stack.tick_after(FIRST_LOOKUP).await;
    stack.tick_after(LAST_LOOKUP).await;
    assert_eq!(stack.sent_failed_in_doubt(&lost).await, [0, 0, 1]);
    // The last lookup was made: the doubt stays for good, and has nothing to wait for.
    let answer = stack.erase(&ids[0]).await;
    assert_eq!(
        (&answer["erased"]["deliveries"], &answer["kept"]),
        (&json!(2), &json!([]))
    );
    stack.skip_promise_check();
}

/// The resend takes the rows that it names; the backlog's other positions are behind the cursor.
#[tokio::test]
async fn resend_to_another_contact_sends_nothing_to_the_erased_one() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast_with_doubts(&ids, &[], &[1]).await;
    let limited = Fault::answering(GraphError::new(613, "too fast")).on(Operation::Lookup);
    stack.sandbox.add_fault(limited);
    stack.tick_after(ALL_OVER).await;
    assert_eq!(stack.erase(&ids[0]).await["erased"]["deliveries"], 1);
    // The contact writes again.
    stack.import(PAGES[0], &ids[..1]).await;
    stack.sandbox.clear_faults();

    for _ in 0..4 {
        stack.tick_after(Duration::from_secs(70)).await;
        stack.drain_queue().await;
    }

    assert_eq!(stack.received(&id), [(ids[0].clone(), 1), (ids[1].clone(), 1)].into());
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [2, 0, 0]);
    stack.skip_promise_check();
}

#[tokio::test]
async fn erasure_goes_on_from_its_cursor() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let mut sent: Vec<BroadcastId> = Vec::new();
    for n in 0..5 {
        sent.push(stack.post_with_key(&n.to_string(), &request(&ids)).await.broadcast_id());
        stack.drain_queue().await;
    }
    stack.advance(ALL_OVER);

    let path = format!("/v1/contacts/{}?erase=true&limit=4", ids[0]);
    let first = stack.call("DELETE", &path, None, None).await;
    assert_eq!(
        first.body["erased"],
        json!({"contact": true, "deliveries": 0, "unknown_ids": 0})
    );
    let all = stack.erase_by(&ids[0], 2).await;

    assert_eq!(all["erased"]["deliveries"], 5, "{all:#}");
    assert_eq!(all["kept"], json!([]));
    assert_eq!(stack.items_naming(&ids[0]).await, [] as [String; 0]);
    stack.skip_promise_check();
}

#[tokio::test]
async fn wrong_parameter_of_an_erasure_deletes_nothing() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let queries = [
        ("erase=True", "erase"),
        ("erase=true&limit=0", "limit"),
        ("erase=true&cursor=x", "cursor"),
        ("erase=true&page_id=a/b", "page_id"),
        ("limit=5", "erase"),
        ("ersae=true", "ersae"),
    ];
    for (query, field) in queries {
        let answer = stack
            .call("DELETE", &format!("/v1/contacts/{}?{query}", ids[0]), None, None)
            .await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.body["errors"][0]["field"], field, "{query}");
    }
    let answer = stack.call("GET", &format!("/v1/contacts/{}", ids[0]), None, None).await;
    assert_eq!(answer.status, StatusCode::OK);
}
