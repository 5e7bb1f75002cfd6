//! The whole local stack with its functions as real processes, which are killed, and with a foreign message in its queue.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use local::clients;
use serde_json::{Value, json};
use shared::worker::pace::MAX_IN_FLIGHT;
use tokio::time::{Instant, sleep};

use crate::fixture::process_stack::{self, ApiClient, VISIBILITY_MARGIN};

const PAGES: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn three_thousand_contacts_receive_three_thousand_messages() {
    let in_doubt = broadcast_with_kills(3_000, 0).await;

    assert_eq!(in_doubt, 0);
}

/// Every kill hits a worker with sends in flight; only the contacts of those sends may be in doubt.
#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_send_no_duplicate_and_lose_no_contact() {
    const KILLS: usize = 6;

    let in_doubt = broadcast_with_kills(10_000, KILLS).await;

    assert!(in_doubt <= KILLS * MAX_IN_FLIGHT, "{in_doubt} in doubt");
}

/// Sends to this many contacts while this many workers are killed; returns the number of contacts in doubt.
async fn broadcast_with_kills(contacts: usize, kills: usize) -> usize {
    // The wake-up of a killed worker becomes visible again after the time-out. Without kills, the time-out must not end a
    // worker on a slow machine.
    let process_timeout = Duration::from_secs(if kills == 0 { 60 } else { 8 });
    let (stack, api) = process_stack::start(process_timeout, &[]).await;
    let sandbox = stack.sandbox().unwrap();
    sandbox.set_latency_ms(100);
    let ids: Vec<_> = (0..contacts).map(|n| format!("c{n:05}")).collect();
    for (batch, ids) in ids.chunks(1_000).enumerate() {
        let page = format!("page-{}", batch % PAGES + 1);
        api.import(&page, ids).await;
    }

    let begun = Instant::now();
    let id = &api.broadcast(&ids).await;
    let mut killed = 0;
    let report = loop {
        let report = api.report(id).await;
        if report["status"] == "completed" {
            break report;
        }
        let elapsed = begun.elapsed();
        assert!(elapsed.as_secs() < 600, "never completed: {report:#}");
        if killed < kills && sandbox.received_count() > (killed + 1) * contacts / (kills + 2) {
            killed += usize::from(stack.process_job().kill_one_busy().await.is_some());
        }
        sleep(Duration::from_millis(200)).await;
    };
    let took = begun.elapsed();
    let (report, in_doubt) = report_with_doubts(&api, id, report).await;

    let mut received = BTreeMap::<_, usize>::new();
    for message in sandbox.received() {
        // The sandbox refuses a wrong proof: the functions have the generated app secret.
        assert!(message.appsecret_proof.is_some());
        *received.entry(message.contact_id).or_default() += 1;
    }
    stack.stop().await;
    println!(
        "{contacts} contacts on {PAGES} Pages in {took:.1?}: {} received, {killed} processes killed, {} in doubt",
        received.values().sum::<usize>(),
        in_doubt.len()
    );
    assert_eq!(killed, kills, "a kill found no busy worker");
    let twice: Vec<_> = received.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "got two messages: {twice:?}");
    let reached = |id: &String| received.contains_key(id) || in_doubt.contains(id);
    let missed: Vec<_> = ids.iter().filter(|id| !reached(id)).collect();
    assert!(missed.is_empty(), "missed: {missed:?}");
    let counters = &report["counters"];
    assert_eq!(counters["in_doubt"], in_doubt.len());
    assert_eq!(counters["sent"], contacts - in_doubt.len());
    in_doubt.len()
}

/// Reads the contacts in doubt, and the report that goes with them: on a slow machine a lookup may settle one of them between
/// the two calls.
async fn report_with_doubts(api: &ApiClient, id: &str, mut report: Value) -> (Value, BTreeSet<String>) {
    for _ in 0..5 {
        let in_doubt = api.in_doubt(id).await;
        let before = std::mem::replace(&mut report, api.report(id).await);
        if before["counters"] == report["counters"] {
            return (report, in_doubt);
        }
    }
    panic!("the counters never rest: {report:#}");
}

/// The message is received five times, each time for the visibility time-out. Until then it blocks its own group, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_message_becomes_a_dead_letter_and_unblocks_its_group() {
    const FOREIGN: &str = r#"{"order": 17}"#;
    const RECEIVES: u32 = 5;
    let process_timeout = Duration::from_secs(4);
    let visibility = process_timeout + VISIBILITY_MARGIN;
    let (stack, api) = process_stack::start(process_timeout, &[]).await;
    let (sandbox, queues) = (stack.sandbox().unwrap(), stack.queue_urls());
    let sqs = clients::sqs(stack.queue_endpoint());
    // Large jobs: the wake-ups of those of one Page are a group.
    let ids = |page: &str| (0..30).map(|n| format!("{page}-{n}")).collect::<Vec<_>>();
    let (behind_it, beside_it) = (ids("page-1"), ids("page-2"));
    api.import("page-1", &behind_it).await;
    api.import("page-2", &beside_it).await;

    let begun = Instant::now();
    sqs.send_message()
        .queue_url(&queues.jobs)
        .message_body(FOREIGN)
        .message_group_id("page-1")
        .message_deduplication_id("17")
        .send()
        .await
        .unwrap();
    let behind = api.broadcast(&behind_it).await;
    let beside = api.broadcast(&beside_it).await;

    completed(&api, &beside, begun + visibility * RECEIVES).await;
    let beside_took = begun.elapsed();
    assert_eq!(api.report(&behind).await["counters"]["pending"], 30);

    completed(&api, &behind, begun + visibility * (RECEIVES + 2)).await;
    let behind_took = begun.elapsed();
    println!("5 receives of {visibility:?}: beside it {beside_took:.1?}, behind it {behind_took:.1?}");
    assert!(behind_took >= visibility * RECEIVES, "{behind_took:.1?}");
    let dead = sqs.receive_message().queue_url(&queues.dead_letters);
    let dead = dead.send().await.unwrap();
    let bodies: Vec<_> = dead.messages().iter().map(|letter| letter.body()).collect();
    assert_eq!(bodies, [Some(FOREIGN)]);
    let received = sandbox.received().into_iter();
    let mut received: Vec<_> = received.map(|message| message.contact_id).collect();
    received.sort();
    let mut all = [behind_it, beside_it].concat();
    all.sort();
    assert_eq!(received, all);
    stack.stop().await;
}

/// Waits until a broadcast is completed; fails at this time.
async fn completed(api: &ApiClient, id: &str, until: Instant) {
    loop {
        let report = api.report(id).await;
        if report["status"] == "completed" {
            return;
        }
        assert!(Instant::now() < until, "not completed in time: {report:#}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A kill may come while the worker waits for the index, while it reads the contacts, and between two of its writes.
#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_resolve_an_audience_without_a_gap_or_a_repeat() {
    const KILLS: usize = 3;
    let (stack, api) = process_stack::start(Duration::from_secs(8), &[]).await;
    let sandbox = stack.sandbox().unwrap();
    let ids: Vec<_> = (0..6_000).map(|n| format!("c{n:05}")).collect();
    for ids in ids.chunks(1_000) {
        api.import_tagged("page-1", ids, "vip").await;
    }
    let others: Vec<_> = (0..1_000).map(|n| format!("c{n:05}x")).collect();
    api.import_tagged("page-1", &others, "new").await;

    let id = &api.broadcast_to(&json!({"tags_any": ["vip"]})).await;
    let (begun, mut killed) = (Instant::now(), 0);
    let is_busy = || {
        stack
            .process_job()
            .processes_running()
            .iter()
            .any(|process| process.busy)
    };
    loop {
        // The report is not asked for while there is a worker to kill: it may take longer than the worker.
        while killed < KILLS && is_busy() {
            // The first waits for the index. The others resolve six thousand in a moment, and each gets further.
            sleep(Duration::from_millis(20 + 40 * killed as u64)).await;
            killed += usize::from(stack.process_job().kill_one_busy().await.is_some());
        }
        let report = api.report(id).await;
        if report["audience"]["resolved"] == true {
            break;
        }
        assert!(begun.elapsed().as_secs() < 300, "never resolved: {report:#}");
        sleep(Duration::from_millis(10)).await;
    }
    // A kill may have come during the first sends: their contacts stay in doubt if their echoes are late.
    completed(&api, id, Instant::now() + Duration::from_secs(180)).await;
    let report = api.report(id).await;

    let mut received = BTreeMap::<_, usize>::new();
    for message in sandbox.received() {
        *received.entry(message.contact_id).or_default() += 1;
    }
    let in_doubt = api.in_doubt(id).await;
    stack.stop().await;
    println!(
        "{killed} workers killed; {} received, {} in doubt",
        received.len(),
        in_doubt.len()
    );
    assert!(
        killed > 0,
        "no kill found a busy worker before the audience was resolved"
    );
    assert!(received.values().all(|messages| *messages == 1));
    let reached: BTreeSet<_> = received.into_keys().chain(in_doubt).collect();
    assert_eq!(reached, ids.into_iter().collect());
    assert_eq!(report["contacts"]["accepted"], 6_000);
    assert_eq!(report["contacts"]["requested"], 7_000);
}
