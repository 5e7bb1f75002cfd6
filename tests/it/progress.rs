//! The progress in the report of a broadcast: the messages of each minute, the expected end, and the state of the Pages.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;

use crate::fixture::proxy::Reply;
use crate::fixture::{PAGE_WITHOUT_TOKEN, PAGES, TestStack, request};

/// Returns the progress of a broadcast.
async fn progress(stack: &TestStack, id: &BroadcastId) -> Value {
    stack.let_reads_catch_up();
    stack.report(id).await["progress"].clone()
}

/// Returns the messages of each minute.
fn minutes(progress: &Value) -> Vec<(Timestamp, u64)> {
    let minutes = progress["sent_per_minute"].as_array().unwrap().iter();
    let minutes = minutes.map(|minute| {
        let at = minute["minute"].as_str().unwrap().parse().unwrap();
        (at, minute["sent"].as_u64().unwrap())
    });
    minutes.collect()
}

#[tokio::test]
async fn report_shows_the_speed_of_the_last_minutes_and_the_expected_end() {
    let stack = TestStack::start().await;
    let ids: Vec<_> = (0..4_000).map(|n| format!("c{n:05}")).collect();
    stack.import(PAGES[0], &ids).await;
    let id = stack.broadcast(&ids).await;
    let before = progress(&stack, &id).await;
    assert_eq!(minutes(&before), []);
    let by_rate: Timestamp = before["expected_end"].as_str().unwrap().parse().unwrap();
    let seconds = by_rate.duration_since(stack.app.clock.now()).as_secs();
    assert!(
        (2..=4).contains(&seconds),
        "4,000 contacts at 1,000 a second in {seconds} s"
    );

    let mut sent = Vec::new();
    // Invocations that end soon; the second one ten minutes after the first.
    for (seconds, then) in [(1, 600), (3, 60)] {
        let before: u64 = sent.iter().sum();
        let wake_up = stack.wake_up_for(&id).await;
        stack.process_job_for(&wake_up, Duration::from_secs(seconds)).await;
        let counters = stack.report(&id).await["counters"].clone();
        sent.push(counters["sent"].as_u64().unwrap() - before);
        stack.advance(Duration::from_secs(then));
    }

    assert!(sent.iter().all(|sent| *sent >= 100), "{sent:?}");
    let report = progress(&stack, &id).await;
    let shown = minutes(&report);
    assert_eq!(
        shown.iter().map(|(_, sent)| sent).sum::<u64>(),
        sent.iter().sum::<u64>()
    );
    assert_eq!(minutes(&report["pages"][0]), shown);
    // By the speed of the last five minutes.
    let recent = shown
        .iter()
        .filter(|(minute, _)| *minute + Duration::from_secs(360) > stack.app.clock.now());
    let recent: Vec<_> = recent.map(|(_, sent)| *sent).collect();
    let speed = recent.iter().sum::<u64>() / recent.len() as u64;
    let left = 4_000 - sent.iter().sum::<u64>();
    let seconds = (left * 60).div_ceil(speed);
    let expected: Timestamp = report["expected_end"].as_str().unwrap().parse().unwrap();
    let difference = expected.duration_since(stack.app.clock.now()).as_secs() - i64::try_from(seconds).unwrap();
    assert!((-3..=1).contains(&difference), "{difference} s off {seconds} s");

    stack.finish(&id).await;
    let done = progress(&stack, &id).await;
    assert_eq!(done["expected_end"], Value::Null);
    stack.advance(Duration::from_secs(3_700));
    assert_eq!(minutes(&progress(&stack, &id).await), []);
}

#[tokio::test]
async fn pages_are_shown_with_their_rate_and_pause_and_token() {
    let stack = TestStack::start().await;
    let mut ids = Vec::new();
    for page in [PAGES[0], PAGES[1], PAGES[2], PAGE_WITHOUT_TOKEN] {
        ids.push(format!("of-{page}"));
        stack.import(page, &ids[ids.len() - 1..]).await;
    }
    stack.sandbox.revoke_token(PAGES[1]);
    let limited = Answer::Error {
        error: GraphError::new(80_006, "too many"),
        headers: BTreeMap::new(),
    };
    stack
        .sandbox
        .add_fault(Fault::answering(limited).times(1).to_contacts([&ids[2]]));
    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;

    let report = progress(&stack, &id).await;

    let page = |name: &str| {
        let mut pages = report["pages"].as_array().unwrap().iter();
        pages.find(|page| page["page_id"] == name).unwrap()
    };
    let tokens = [PAGES[0], PAGES[1], PAGES[2], PAGE_WITHOUT_TOKEN].map(|name| &page(name)["token"]);
    assert_eq!(tokens, ["ok", "refused", "ok", "missing"]);
    assert_eq!(
        (
            &page(PAGES[0])["rate"],
            &page(PAGES[0])["backoffs"],
            &page(PAGES[0])["paused_until"]
        ),
        (&json!(1_000), &json!(0), &Value::Null)
    );
    // At half the rate after a pause.
    let limited = page(PAGES[2]);
    assert_eq!((&limited["rate"], &limited["backoffs"]), (&json!(500), &json!(1)));
    let paused_until: Timestamp = limited["paused_until"].as_str().unwrap().parse().unwrap();
    assert!(paused_until > stack.app.clock.now());
    let expected: Timestamp = limited["expected_end"].as_str().unwrap().parse().unwrap();
    assert!((0..=1).contains(&expected.duration_since(paused_until).as_secs()));
    // Halted jobs do not go on by themselves.
    assert_eq!(page(PAGES[1])["expected_end"], Value::Null);

    stack.sandbox.restore_token(PAGES[1]);
    stack.add_token(PAGE_WITHOUT_TOKEN);
    stack
        .call("POST", &format!("/v1/broadcasts/{id}/resume"), None, None)
        .await;
    stack.finish(&id).await;
    let report = progress(&stack, &id).await;
    for page in report["pages"].as_array().unwrap() {
        assert_eq!(
            (&page["token"], &page["paused_until"]),
            (&json!("ok"), &Value::Null),
            "{page}"
        );
    }
}

/// Most broadcasts are small, and a write for each would be dear.
#[tokio::test]
async fn small_broadcast_keeps_no_minutes() {
    let stack = TestStack::start_with(&[("INLINE_LIMIT", "25")]).await;
    let ids = stack.import_contacts(25).await;
    let answer = stack.post(&request(&ids)).await;
    assert_eq!(answer.body.get("progress"), None, "only the report has it");

    let id = answer.broadcast_id();
    assert_eq!(minutes(&progress(&stack, &id).await), []);
    let items = stack.stored_items().await.into_iter();
    let kept = items.filter(|item| item.contains_key("minutes")).count();
    assert_eq!(kept, 0);
}

#[tokio::test]
async fn speed_that_cannot_be_kept_does_not_stop_the_job() {
    let hook = |call: &str| match call.contains("SET minutes") {
        true => Reply::IsLost,
        false => Reply::Arrives,
    };
    let stack = TestStack::start_with_lossy_database(hook, &[]).await;
    let ids = stack.import_contacts(300).await;
    let id = stack.broadcast(&ids).await;

    let report = stack.finish(&id).await;

    assert_eq!(
        (&report["status"], &report["counters"]["sent"]),
        (&json!("completed"), &json!(300))
    );
}
