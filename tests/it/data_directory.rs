//! `up --data DIR`: a stack continues from the state that the one before left, however that ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fixture::installation::{Installation, completed};
use crate::fixture::up::UpProcess;

const PAGE: &str = "page-1";
const RATE_PER_SECOND: usize = 50;

async fn import(up: &UpProcess, ids: &[String]) {
    let contact = |id| json!({"contact_id": id, "page_id": PAGE});
    let contacts: Vec<_> = ids.iter().map(contact).collect();
    let body = json!({"contacts": contacts});
    let answer = up.call("PUT", "/v1/contacts", &body).await;
    assert_eq!(answer["upserted"], ids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn broadcast_continues_after_each_kill_of_the_stack() {
    const CONTACTS: usize = 200;
    const KILLS: usize = 3;
    let installation = Installation::new(&[PAGE], RATE_PER_SECOND).await;
    let sandbox = &installation.sandbox;
    sandbox.set_latency_ms(100);
    let ids: Vec<_> = (0..CONTACTS).map(|n| format!("c{n:03}")).collect();
    let body = json!({"contact_ids": ids, "message": {"text": "Hi, we open at nine."}});
    let mut up = installation.up();
    import(&up, &ids).await;
    let accepted = up.send("POST", "/v1/broadcasts", Some("opening-hours"), &body).await;
    let accepted: Value = serde_json::from_slice(&accepted.bytes().await.unwrap()).unwrap();
    let id = accepted["broadcast_id"].as_str().unwrap();

    for kill in 1..=KILLS {
        let share = kill * CONTACTS / (KILLS + 1);
        installation.has_received(share).await;
        up.kill();
        up = installation.up();
    }
    let report = completed(&up, id).await;

    let mut received = BTreeMap::<_, usize>::new();
    for message in sandbox.received() {
        *received.entry(message.contact_id).or_default() += 1;
    }
    let twice: Vec<_> = received.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "got two messages: {twice:?}");
    let path = format!("/v1/broadcasts/{id}/deliveries?status=in_doubt&limit=1000");
    let list = up.call("GET", &path, &Value::Null).await;
    let in_doubt: BTreeSet<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["contact_id"].as_str().unwrap().to_owned())
        .collect();
    let reached = |id: &&String| received.contains_key(*id) || in_doubt.contains(*id);
    assert_eq!(ids.iter().filter(reached).count(), CONTACTS, "missing");
    let counters = &report["counters"];
    assert_eq!(counters["in_doubt"], in_doubt.len());
    assert_eq!(counters["sent"], CONTACTS - in_doubt.len());
    // At most the sends in flight at each kill are in doubt: two seconds' worth of the rate.
    assert!(in_doubt.len() <= KILLS * 2 * RATE_PER_SECOND);
    println!(
        "{CONTACTS} contacts, the stack killed {KILLS} times: {} received, {} in doubt",
        received.len(),
        in_doubt.len()
    );

    let again = up.send("POST", "/v1/broadcasts", Some("opening-hours"), &body).await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn broadcast_due_while_stopped_is_sent_at_the_next_start() {
    let installation = Installation::new(&[PAGE], RATE_PER_SECOND).await;
    let up = installation.up();
    import(&up, &["ana".to_owned()]).await;
    let at = Timestamp::now() + Duration::from_secs(4);
    let body = json!({"contact_ids": ["ana"], "message": {"text": "Hi"}, "scheduled_at": at});
    let accepted = up.call("POST", "/v1/broadcasts", &body).await;
    assert_eq!(accepted["status"], "scheduled");
    up.kill();

    let time_left = at.duration_since(Timestamp::now());
    sleep(Duration::try_from(time_left).unwrap_or_default()).await;
    assert_eq!(installation.sandbox.received_count(), 0);
    let up = installation.up();

    let report = completed(&up, accepted["broadcast_id"].as_str().unwrap()).await;
    assert_eq!(report["counters"]["sent"], 1);
    assert_eq!(installation.sandbox.received_count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn second_up_on_a_directory_in_use_is_refused() {
    let installation = Installation::new(&[PAGE], RATE_PER_SECOND).await;
    let first = installation.up();

    let refusal = installation.refused_up();
    first.kill();
    let (ended, _) = installation.up().terminate();

    assert!(refusal.contains("is in use: another `up` runs on it"), "{refusal}");
    assert!(ended.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_of_a_later_version_is_refused() {
    let installation = Installation::new(&[PAGE], RATE_PER_SECOND).await;
    let (ended, _) = installation.up().terminate();
    assert!(ended.success());
    fs::write(installation.data().join("format"), "2\n").unwrap();

    let refusal = installation.refused_up();

    assert!(refusal.contains("has format 2, of a later version"), "{refusal}");
}
