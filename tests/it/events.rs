//! Events: others are told that a broadcast has ended, was halted or has deliveries left in doubt. Nothing that happened is lost, and
//! each happening has one id, whoever dies meanwhile. The fixture checks the same at the end of every test.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;
use shared::store::hand_over::HandOver;
use shared::worker::announce::announce;

use crate::fixture::by_hand::LEASE;
use crate::fixture::doubts::{FIRST_LOOKUP, LAST_LOOKUP, RESEND};
use crate::fixture::invariants::Item;
use crate::fixture::template::TEMPLATE;
use crate::fixture::{PAGES, TestStack, request};
use crate::pausing::scheduled;

/// The time after which a job is woken of which the worker has died.
const AFTER_LEASE: Duration = Duration::from_secs(LEASE.as_secs() + 61);

/// Returns the events of a broadcast in short: the type, and the Page if it is about one.
async fn told(stack: &TestStack, id: &BroadcastId) -> Vec<String> {
    let events = stack.events(id).await.into_iter().map(|event| {
        let event = serde_json::to_value(event).unwrap();
        let [kind, page] = [&event["type"], &event["data"]["page_id"]].map(|text| text.as_str().unwrap());
        format!("{} {page}", kind.strip_prefix("broadcast.").unwrap())
            .trim_end()
            .to_owned()
    });
    events.collect()
}

/// Returns a broadcast to a contact of each of two Pages.
async fn of_two_pages(stack: &TestStack) -> BroadcastId {
    stack.import(PAGES[0], &["one".to_owned()]).await;
    stack.import(PAGES[1], &["two".to_owned()]).await;
    stack.broadcast(&["one", "two"].map(str::to_owned)).await
}

/// Ends a job without work on it, as a worker that dies afterwards.
async fn end_by_hand(stack: &TestStack, job: &shared::domain::job::Job, to: HandOver) -> shared::domain::job::Job {
    let claim = stack.claim(&job.id()).await;
    let ended = stack
        .app
        .store
        .jobs()
        .hand_over(claim, &to, stack.app.clock.now())
        .await;
    ended.unwrap().unwrap().job
}

#[tokio::test]
async fn broadcast_that_its_request_has_sent_is_told_of_before_the_answer() {
    let stack = TestStack::start_with(&[("INLINE_LIMIT", "25")]).await;
    let ids = stack.import_contacts(3).await;

    let answer = stack.post(&request(&ids)).await;

    assert_eq!(answer.status, StatusCode::OK);
    let id = answer.broadcast_id();
    let [event] = &stack.events(&id).await[..] else {
        panic!("not one event")
    };
    assert_eq!(
        serde_json::to_value(event).unwrap(),
        json!({
            "id": event.id,
            "type": "broadcast.completed",
            "timestamp": event.timestamp,
            "data": {"broadcast_id": id, "page_id": ""},
        })
    );
    assert_eq!(stack.job(&id).await.wake_at, None);
}

#[tokio::test]
async fn broadcast_of_several_pages_is_told_of_when_the_last_job_ends() {
    let stack = TestStack::start().await;
    let id = of_two_pages(&stack).await;

    let first = stack.receive().await.unwrap();
    stack.process_job(&first).await;
    let after_first = told(&stack, &id).await;
    stack.delete(&first).await;
    stack.drain_queue().await;

    assert_eq!(after_first, [""; 0]);
    assert_eq!(told(&stack, &id).await, ["completed"]);
}

#[tokio::test]
async fn jobs_that_end_at_once_are_told_of_once() {
    let stack = TestStack::start().await;
    let id = of_two_pages(&stack).await;
    let (_, jobs) = stack.app.store.broadcasts().get_with_jobs(&id).await.unwrap().unwrap();
    let mut ended = Vec::new();
    for job in &jobs {
        ended.push(end_by_hand(&stack, job, HandOver::Completed).await);
    }

    let (one, other) = tokio::join!(announce(&stack.app, &ended[0]), announce(&stack.app, &ended[1]));
    one.unwrap();
    other.unwrap();
    announce(&stack.app, &ended[0]).await.unwrap();

    assert_eq!(told(&stack, &id).await, ["completed"]);
    // Nothing was sent.
    stack.skip_promise_check();
}

#[tokio::test]
async fn halt_is_told_of_at_once_and_the_completion_after_the_resume() {
    let stack = TestStack::start().await;
    let id = of_two_pages(&stack).await;
    let blocked = Fault::answering(GraphError::new(368, "temporarily blocked"));
    stack.sandbox.add_fault(blocked.to_contacts(["two"]));

    stack.drain_queue().await;
    let halted = told(&stack, &id).await;
    stack.sandbox.clear_faults();
    stack.advance(Duration::from_secs(1));
    stack.control("resume", &id).await;
    stack.drain_queue().await;

    assert_eq!(halted, [format!("halted {}", PAGES[1])]);
    assert_eq!(told(&stack, &id).await, [&halted[0], "completed"]);
}

#[tokio::test]
async fn cancelled_broadcast_is_told_of_when_its_drain_has_ended() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = scheduled(&stack, &ids).await;

    stack.control("cancel", &id).await;
    let ordered = told(&stack, &id).await;
    stack.drain_queue().await;

    assert_eq!(ordered, [""; 0]);
    assert_eq!(told(&stack, &id).await, ["cancelled"]);
}

#[tokio::test]
async fn completion_after_a_retry_is_another_event() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let blocked = Fault::answering(GraphError::new(551, "not available"));
    stack.sandbox.add_fault(blocked.to_contacts([&ids[1]]));
    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;
    stack.sandbox.clear_faults();

    let answer = stack.try_control("retry", &id, &json!({})).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let ordered = told(&stack, &id).await;
    stack.advance(Duration::from_secs(1));
    stack.finish(&id).await;

    assert_eq!(ordered, ["completed"]);
    assert_eq!(told(&stack, &id).await, ["completed", "completed"]);
    let ids: BTreeSet<_> = stack.events(&id).await.into_iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), 2);
}

/// One of the deliveries arrived, and its lookup finds the message.
#[tokio::test]
async fn deliveries_left_in_doubt_are_told_of_once_for_their_run() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(4).await;
    let id = stack.broadcast_with_doubts(&ids, &[0], &[1, 2]).await;
    let page = PAGES[0];

    stack.tick_after(FIRST_LOOKUP).await;
    let after_first_lookup = told(&stack, &id).await;
    stack.tick_after(LAST_LOOKUP - FIRST_LOOKUP).await;
    let after_last_lookup = told(&stack, &id).await;
    stack.sandbox.add_fault(Fault::answering(Answer::Reset));
    let retry = json!({"statuses": ["in_doubt"]});
    stack.try_control("retry", &id, &retry).await;
    stack.drain_queue().await;
    stack.sandbox.clear_faults();
    stack.tick_at_both_lookups().await;

    assert_eq!(after_first_lookup, ["completed"]);
    assert_eq!(after_last_lookup, ["completed".to_owned(), format!("in_doubt {page}")]);
    let again = ["completed".to_owned(), format!("in_doubt {page}")];
    assert_eq!(told(&stack, &id).await, [&after_last_lookup[..], &again].concat());
    let items = stack.stored_items().await;
    assert!(
        !items.iter().any(|item| item.contains_key("look_at")),
        "looked up for ever"
    );
}

/// The lookup of a delivery that an echo settles meanwhile leaves nothing in doubt.
#[tokio::test]
async fn delivery_that_was_settled_meanwhile_is_not_told_of() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast_with_doubts(&ids, &[0], &[]).await;
    let (broadcast, jobs) = stack.app.store.broadcasts().get_with_jobs(&id).await.unwrap().unwrap();
    let job = jobs[0].id();
    let contact_id = shared::domain::ids::ContactId::parse(&ids[0]).unwrap();
    let seen = stack
        .app
        .store
        .deliveries()
        .get(&job, &contact_id)
        .await
        .unwrap()
        .unwrap();
    let message_id = stack.newest_message_id(&ids[0]);
    stack.echo(&id, &ids[0], 1, &message_id).await;

    let event = shared::domain::event::BroadcastEvent::of_doubt(&job, seen.epoch, stack.app.clock.now());
    let transactions = stack.app.store.transactions();
    let left = transactions.leave_in_doubt(&job, &seen, "not found", &broadcast, &event);
    left.await.unwrap();

    assert_eq!(told(&stack, &id).await, ["completed"]);
    assert_eq!(stack.delivery(&id, &ids[0]).await["status"], "sent");
}

/// The worker dies between the last write of the job and its event: its wake-up comes again, or comes only with the schedule.
#[tokio::test]
async fn end_of_a_dead_worker_is_told_of_by_whoever_is_woken() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let halted = format!("halted {}", PAGES[0]);
    for (to, expected, is_redelivered) in [
        (HandOver::Halted("no token".to_owned()), halted.as_str(), true),
        (HandOver::Completed, "completed", false),
        (HandOver::Cancelled(None), "cancelled", false),
    ] {
        let id = stack.another_broadcast(&ids).await;
        let wake_up = stack.receive().await.unwrap();
        stack.delete(&wake_up).await;
        let ended = end_by_hand(&stack, &stack.job(&id).await, to).await;
        let at_death = told(&stack, &id).await;

        if is_redelivered {
            stack.process_job(&wake_up).await;
        } else {
            stack.advance(AFTER_LEASE);
            stack.tick().await;
            stack.drain_queue().await;
        }

        assert_eq!(at_death, [""; 0]);
        assert_eq!(told(&stack, &id).await, [expected]);
        let job = stack.job(&id).await;
        assert_eq!((job.status, job.wake_at), (ended.status, None));
        stack.process_job(&wake_up).await;
        assert_eq!(told(&stack, &id).await, [expected]);
    }
    // Nothing was sent.
    stack.skip_promise_check();
}

/// The worker has died before it told of the halt, and the operator resumes the job before anybody is woken.
#[tokio::test]
async fn end_is_told_of_before_an_order_takes_it_back() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    end_by_hand(&stack, &stack.job(&id).await, HandOver::Halted("no token".to_owned())).await;

    stack.control("resume", &id).await;
    let resumed = told(&stack, &id).await;
    stack.finish(&id).await;

    let halted = format!("halted {}", PAGES[0]);
    assert_eq!(resumed, [halted.as_str()]);
    assert_eq!(told(&stack, &id).await, [&halted, "completed"]);
}

/// The worker that announces is overtaken by an order: the wake-up of the job that goes on stays.
#[tokio::test]
async fn late_announcement_leaves_a_job_alone_that_goes_on() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let halted = end_by_hand(&stack, &stack.job(&id).await, HandOver::Halted("no token".to_owned())).await;
    stack.control("resume", &id).await;

    announce(&stack.app, &halted).await.unwrap();

    assert!(stack.job(&id).await.wake_at.is_some());
    assert_eq!(told(&stack, &id).await, [format!("halted {}", PAGES[0])]);
    stack.finish(&id).await;
}

#[tokio::test]
async fn job_is_not_resent_to_before_its_end_is_told_of() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast_with_doubts(&ids, &[], &[1]).await;
    stack
        .set_wake_up_by_hand(&id, stack.app.clock.now() + 10 * LAST_LOOKUP)
        .await;

    stack.tick_at_both_lookups().await;
    let unannounced = stack.status(&id).await;
    announce(&stack.app, &stack.job(&id).await).await.unwrap();
    stack.tick_after(Duration::from_secs(61)).await;

    assert_eq!(unannounced, "completed");
    assert_eq!(stack.status(&id).await, "queued");
    stack.finish(&id).await;
    assert_eq!(told(&stack, &id).await, ["completed", "completed"]);
}

#[tokio::test]
async fn nobody_is_told_of_imports_and_of_sends_to_testers() {
    let stack = TestStack::start_with(&[("INLINE_LIMIT", "25")]).await;
    let tester = |id: &str| json!({"contact_id": id, "page_id": PAGES[0], "tester": true});
    stack.import_json(json!([tester("ana"), tester("ben")])).await;
    stack.give_people(PAGES[1], 3, 100);
    let lost = Fault::answering(Answer::Reset).to_contacts(["ben"]);
    stack.sandbox.add_fault(lost);
    let body = json!({"contact_ids": ["ana", "ben"], "message": {"text": "Hi."}});

    let answer = stack.call("POST", "/v1/broadcasts/test", None, Some(&body)).await;
    stack.start_import(PAGES[1]).await;
    stack.drain_queue().await;
    stack.tick_at_both_lookups().await;

    let report = (&answer.body["status"], &answer.body["counters"]["in_doubt"]);
    assert_eq!(report, (&json!("completed"), &json!(1)));
    assert_eq!(stack.page_import(PAGES[1]).await["status"], "completed");
    let items = stack.stored_items().await;
    assert!(!items.iter().any(|item| item.contains_key("event_id")));
    assert!(
        !items
            .iter()
            .any(|item| item.contains_key("wake_at") || item.contains_key("look_at"))
    );
}

#[tokio::test]
async fn event_is_kept_as_long_as_the_report() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = scheduled(&stack, &ids).await;
    stack.advance(Duration::from_secs(3_600));
    stack.tick().await;
    stack.drain_queue().await;
    assert_eq!(told(&stack, &id).await, ["completed"]);

    let items = stack.stored_items().await;
    let kept_until = |key: &str| {
        let item = items
            .iter()
            .find(|item| item.get("sk").is_some_and(|sk| sk.as_s().unwrap() == key));
        item.unwrap()["expires_at"].as_n().unwrap().clone()
    };
    assert_eq!(kept_until("event"), kept_until("broadcast"));
}

/// An event of which the receiver was told stays out of the outbox, although its job is announced again.
#[tokio::test]
async fn delivered_event_does_not_come_back() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;
    stack.let_reads_catch_up();
    let events = stack.app.store.events();
    let due = events.due(stack.app.clock.now()).await.unwrap();
    let undelivered = events.undelivered(&due[0]).await.unwrap().unwrap();

    events.finish(&undelivered).await.unwrap();
    stack.set_wake_up_by_hand(&id, stack.app.clock.now()).await;
    announce(&stack.app, &stack.job(&id).await).await.unwrap();
    stack.let_reads_catch_up();

    assert_eq!(due.len(), 1);
    assert_eq!(events.due(Timestamp::MAX).await.unwrap(), [""; 0]);
    assert!(events.undelivered(&due[0]).await.unwrap().is_none());
    assert_eq!(told(&stack, &id).await, ["completed"]);
}

/// Fills in the template of the Pipe with the values of an item, as EventBridge does.
fn piped(item: &Item) -> Value {
    let target = &TEMPLATE.properties("EventsPipe")["TargetParameters"];
    let mut filled = String::new();
    let mut rest = target["InputTemplate"].as_str().unwrap();
    while let Some((before, after)) = rest.split_once("<$.dynamodb.NewImage.") {
        let (name, after) = after.split_once(".S>").unwrap();
        filled.push_str(before);
        filled.push_str(item[name].as_s().unwrap());
        rest = after;
    }
    serde_json::from_str(&(filled + rest)).unwrap()
}

#[tokio::test]
async fn pipe_makes_the_json_of_the_local_stack_of_events_alone() {
    let stack = TestStack::start().await;
    let id = of_two_pages(&stack).await;
    let blocked = Fault::answering(GraphError::new(368, "temporarily blocked"));
    stack.sandbox.add_fault(blocked.to_contacts(["two"]));
    stack.drain_queue().await;
    stack.sandbox.clear_faults();
    stack.control("resume", &id).await;
    stack.drain_queue().await;
    let pipe = TEMPLATE.properties("EventsPipe");
    let filter = pipe["SourceParameters"]["FilterCriteria"]["Filters"][0]["Pattern"]
        .as_str()
        .unwrap();
    let filter: Value = serde_json::from_str(filter).unwrap();
    let prefix = filter["dynamodb"]["Keys"]["pk"]["S"][0]["prefix"].as_str().unwrap();

    let items = stack.stored_items().await;
    let passes = |item: &&Item| item.get("pk").is_some_and(|pk| pk.as_s().unwrap().starts_with(prefix));
    let mut piped: Vec<_> = items.iter().filter(passes).map(piped).collect();

    piped.sort_by_key(|event| event["timestamp"].to_string());
    let events = stack.events(&id).await;
    assert_eq!(events.len(), 2);
    assert_eq!(piped, serde_json::to_value(events).unwrap().as_array().unwrap().clone());
    let kind = &pipe["TargetParameters"]["EventBridgeEventBusParameters"]["DetailType"];
    assert_eq!(kind, "$.dynamodb.NewImage.type.S");
}
