//! The policy before the call: contacts that Messenger's window is over for, or that got another broadcast a short while ago, are
//! skipped before anything is sent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use jiff::SignedDuration;
use local::sandbox::{Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::ids::{BroadcastId, ContactId, JobId, PageId};
use shared::store::contacts::Marked;

use crate::fixture::proxy::Reply;
use crate::fixture::{PAGES, TestStack, request};

/// A gap of an hour between two broadcasts to a contact.
const GAP: (&str, &str) = ("MIN_GAP_SECONDS", "3600");

/// Imports contacts of the first Page, which wrote to it so many minutes ago.
async fn import_writers(stack: &TestStack, minutes_ago: &[(&str, i64)]) -> Vec<String> {
    let contacts = minutes_ago.iter().map(|(id, minutes)| {
        let at = stack.app.clock.now() - SignedDuration::from_mins(*minutes);
        json!({"contact_id": id, "page_id": PAGES[0], "last_interaction_at": at})
    });
    let contacts = json!({"contacts": contacts.collect::<Vec<_>>()});
    let answer = stack.call("PUT", "/v1/contacts", None, Some(&contacts)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    minutes_ago.iter().map(|(id, _)| (*id).to_owned()).collect()
}

/// Returns the contacts that were skipped for this reason.
async fn skipped(stack: &TestStack, id: &BroadcastId, reason: &str) -> Vec<String> {
    let rows = stack.deliveries(id, &format!("&status=skipped&reason={reason}")).await;
    let ids = rows.iter().map(|row| row["contact_id"].as_str().unwrap().to_owned());
    ids.collect()
}

#[tokio::test]
async fn contact_outside_the_window_is_skipped() {
    for messaging_type in ["UPDATE", "RESPONSE"] {
        let stack = TestStack::start().await;
        let writers = [
            ("just-now", 0),
            ("inside", 1_400),
            ("within-the-margin", 1_415),
            ("outside", 1_500),
        ];
        let mut ids = import_writers(&stack, &writers).await;
        stack.import(PAGES[0], &["unknown".to_owned()]).await;
        ids.push("unknown".to_owned());
        let mut body = request(&ids);
        body["messaging_type"] = json!(messaging_type);

        let id = stack.post(&body).await.broadcast_id();
        let report = stack.finish(&id).await;

        assert_eq!(
            skipped(&stack, &id, "outside_window").await,
            ["outside", "within-the-margin"]
        );
        assert_eq!(report["counters"]["sent"], 3, "{report:#}");
        let reason = &report["reasons"][0];
        assert_eq!(
            (&reason["code"], &reason["contacts"]),
            (&json!("outside_window"), &json!(2))
        );
    }
}

#[tokio::test]
async fn contact_outside_the_window_is_sent_to_where_it_need_not_be_open_or_the_caller_insists() {
    let stack = TestStack::start().await;
    let ids = import_writers(&stack, &[("outside", 3_000)]).await;
    let template = json!({"name": "reminder", "language": {"code": "en"}});
    for change in [
        json!({"messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT"}),
        json!({"messaging_type": "UTILITY", "message": {"template": template}}),
        json!({"outside_window": "send"}),
    ] {
        let mut body = request(&ids);
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let id = stack.post(&body).await.broadcast_id();
        let report = stack.finish(&id).await;
        assert_eq!(report["counters"]["sent"], 1, "{change}: {report:#}");
    }
    for wrong in [json!("maybe"), json!(true)] {
        let mut body = request(&ids);
        body["outside_window"] = wrong;
        let answer = stack.post(&body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.body["errors"][0]["field"], "/outside_window");
    }
}

#[tokio::test]
async fn window_is_that_of_the_send_and_not_of_the_request() {
    let stack = TestStack::start().await;
    let ids = import_writers(&stack, &[("closes", 1_400), ("opens", 3_000)]).await;
    let mut body = request(&ids);
    body["scheduled_at"] = json!(stack.app.clock.now() + SignedDuration::from_mins(60));
    let id = stack.post(&body).await.broadcast_id();
    stack.advance(Duration::from_secs(1_800));
    let now = stack.app.clock.now().as_millisecond();
    let event = json!({
        "sender": {"id": "opens"}, "recipient": {"id": PAGES[0]}, "timestamp": now, "message": {"mid": "m", "text": "Hello"},
    });
    assert_eq!(stack.webhook(PAGES[0], &[event]).await, StatusCode::OK);
    stack.advance(Duration::from_secs(1_900));
    stack.let_reads_catch_up();
    stack.tick().await;

    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["sent"], 1, "{report:#}");
    assert_eq!(skipped(&stack, &id, "outside_window").await, ["closes"]);
}

#[tokio::test]
async fn treatment_of_the_window_is_changed_until_the_broadcast_is_due() {
    let stack = TestStack::start().await;
    let ids = import_writers(&stack, &[("outside", 3_000)]).await;
    let mut body = request(&ids);
    body["scheduled_at"] = json!(stack.app.clock.now() + SignedDuration::from_mins(60));
    let id = stack.post(&body).await.broadcast_id();
    let change = json!({"outside_window": "send"});
    let path = format!("/v1/broadcasts/{id}");
    let answer = stack.call("PATCH", &path, None, Some(&change)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    // A change of something else keeps it.
    let rename = json!({"name": "Opening hours"});
    let answer = stack.call("PATCH", &path, None, Some(&rename)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    stack.advance(Duration::from_secs(3_700));
    stack.let_reads_catch_up();
    stack.tick().await;

    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["sent"], 1, "{report:#}");
}

#[tokio::test]
async fn other_broadcast_within_the_gap_is_too_soon() {
    let stack = TestStack::start_with(&[GAP]).await;
    let ids = stack.import_contacts(2).await;
    let send = async |key: &str, ids: &[String]| {
        let id = stack.post_with_key(key, &request(ids)).await.broadcast_id();
        let report = stack.finish(&id).await;
        (id, report["counters"]["sent"].as_u64().unwrap())
    };

    let (_, sent) = send("first", &ids[..1]).await;
    assert_eq!(sent, 1);
    let (second, sent) = send("second", &ids).await;
    assert_eq!(sent, 1);
    assert_eq!(skipped(&stack, &second, "too_soon").await, ids[..1]);
    stack.advance(Duration::from_secs(3_500));
    // The skip was no send.
    let (_, sent) = send("within-the-hour", &ids).await;
    assert_eq!(sent, 0);
    stack.advance(Duration::from_secs(200));
    let (_, sent) = send("after-the-hour", &ids).await;
    assert_eq!(sent, 2);
    // An import keeps the mark.
    stack.import_contacts(2).await;
    let (_, sent) = send("after-an-import", &ids).await;
    assert_eq!(sent, 0);
}

#[tokio::test]
async fn gap_is_off_by_default() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    for key in ["first", "second"] {
        let id = stack.post_with_key(key, &request(&ids)).await.broadcast_id();
        assert_eq!(stack.finish(&id).await["counters"]["sent"], 2);
    }
    let contacts = stack.stored_items().await.into_iter();
    let marked = contacts.filter(|item| item.contains_key("last_broadcast")).count();
    assert_eq!(marked, 0);
}

/// The same broadcast tries again after a rate limit.
#[tokio::test]
async fn retry_of_the_same_broadcast_is_not_too_soon() {
    let stack = TestStack::start_with(&[GAP]).await;
    let ids = stack.import_contacts(3).await;
    let limited = Fault::answering(GraphError::new(613, "too fast")).times(1);
    stack.sandbox.add_fault(limited.to_contacts([&ids[1]]));

    let id = stack.broadcast(&ids).await;
    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["sent"], 3, "{report:#}");
}

/// Both workers read the contact before either marks it; the write of the mark decides.
#[tokio::test]
async fn one_of_two_broadcasts_at_the_same_moment_marks_the_contact() {
    let stack = TestStack::start_with(&[GAP]).await;
    let ids = stack.import_contacts(1).await;
    let contact = ContactId::parse(&ids[0]).unwrap();
    let job = || JobId {
        broadcast_id: BroadcastId::random(),
        page_id: PageId::parse(PAGES[0]).unwrap(),
    };
    let (first, second, gap) = (job(), job(), Duration::from_secs(3_600));
    let contacts = stack.app.store.contacts();
    let mark = async |job: &JobId| {
        let now = stack.app.clock.now();
        contacts.mark_if_gap_is_over(&contact, job, gap, now).await.unwrap()
    };

    assert_eq!(mark(&first).await, Marked::Now);
    assert_eq!(mark(&second).await, Marked::TooSoon);
    assert_eq!(mark(&first).await, Marked::Now);
    stack.advance(gap);
    assert_eq!(mark(&second).await, Marked::Now);
    let deleted = stack
        .call("DELETE", &format!("/v1/contacts/{}", ids[0]), None, None)
        .await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(mark(&second).await, Marked::Unknown);
    let gone = stack.call("GET", &format!("/v1/contacts/{}", ids[0]), None, None).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}

/// Two Pages send at once to contacts that move from one to the other.
#[tokio::test]
async fn broadcasts_that_run_at_the_same_time_share_no_contact() {
    let stack = TestStack::start_with(&[GAP]).await;
    let ids: Vec<_> = (0..40).map(|n| format!("c{n:02}")).collect();
    stack.import(PAGES[0], &ids).await;
    stack.let_reads_catch_up();
    let mut urgent = request(&ids);
    urgent["priority"] = json!("high");
    let mut broadcasts = Vec::new();
    for key in ["first", "second"] {
        broadcasts.push(stack.post_with_key(key, &urgent).await.broadcast_id());
    }
    let mut wake_ups = Vec::new();
    for id in &broadcasts {
        wake_ups.push(stack.wake_up_for(id).await);
    }

    tokio::join!(stack.process_job(&wake_ups[0]), stack.process_job(&wake_ups[1]));

    let mut by_broadcast = Vec::new();
    for id in &broadcasts {
        stack.finish(id).await;
        by_broadcast.push(stack.received(id).into_keys().collect::<BTreeSet<_>>());
    }
    let [first, second] = &by_broadcast[..] else { panic!() };
    assert!(first.is_disjoint(second), "{:?}", first.intersection(second));
    assert_eq!(first.len() + second.len(), ids.len());
}

/// The right to send is not known to be had, so nothing is sent; and a mark that was made hinders no later attempt.
#[tokio::test]
async fn contact_that_cannot_be_marked_waits() {
    let unavailable = Arc::new(AtomicBool::new(true));
    let is_unavailable = Arc::clone(&unavailable);
    let hook = move |call: &str| match call.contains("SET last_broadcast") && is_unavailable.load(Ordering::SeqCst) {
        true => Reply::IsLost,
        false => Reply::Arrives,
    };
    let stack = TestStack::start_with_lossy_database(hook, &[GAP]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;
    let row = stack.delivery(&id, &ids[0]).await;
    assert_eq!(
        (&row["status"], &row["attempts"]),
        (&json!("waiting"), &json!(0)),
        "{row}"
    );
    assert_eq!(stack.sandbox.received_count(), 0);

    unavailable.store(false, Ordering::SeqCst);
    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["sent"], 1, "{report:#}");
    let reasons: &Value = &report["reasons"];
    assert_eq!(reasons, &json!([]));
}
