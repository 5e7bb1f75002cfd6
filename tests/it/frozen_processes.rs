//! Function processes that are killed, and that are frozen and thaw later, when another worker has taken over their job; also
//! while the operator pauses and resumes it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use local::lambda::Function;
use local::sandbox::Sandbox;
use local::stack::Stack;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::fixture::controls::OBEYED_WITHIN;
use crate::fixture::process_stack::{self, ApiClient, signal};

const PAGES: usize = 4;
/// The rate of each Page.
const RATE_PER_SECOND: &str = "40";
/// Longer than the lease, and shorter than the time-out of the process.
const FROZEN_FOR: Duration = Duration::from_millis(4_500);
const PROCESS_TIMEOUT: Duration = Duration::from_secs(10);
/// The latency of Messenger.
const LATENCY: Duration = Duration::from_millis(300);
/// The rounds between two pauses.
const PAUSE_EVERY: usize = 6;

/// Returns a process in the middle of an invocation that is not frozen already.
fn busy(function: &Function, frozen: &BTreeSet<u32>) -> Option<u32> {
    let running = function.processes_running().into_iter();
    let mut busy = running.filter(|process| process.busy && !frozen.contains(&process.pid));
    busy.next().map(|process| process.pid)
}

/// Wakes a job as a queue that repeats a message does, also while a worker processes the job.
async fn wake_up(function: Function, broadcast_id: String, page: String) {
    let job = json!({"broadcast_id": broadcast_id, "page_id": page});
    let event = json!({"Records": [{"messageId": "again", "body": job.to_string()}]});
    // The worker may be killed.
    let _ = function.invoke(event.to_string()).await;
}

/// Returns the statuses of the deliveries of a broadcast, by contact.
async fn statuses(api: &ApiClient, broadcast_id: &str) -> BTreeMap<String, String> {
    let rows = api.deliveries(broadcast_id, "").await.into_iter();
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    rows.map(|row| (text(&row, "contact_id"), text(&row, "status")))
        .collect()
}

/// Kills and freezes `rounds` workers in turn, and lets the others send `apart` messages in between; returns the number of
/// killed and the number of frozen workers.
async fn stop_workers(stack: &Stack, api: &ApiClient, id: &str, rounds: usize, apart: usize) -> (usize, usize) {
    let (function, sandbox) = (stack.process_job(), stack.sandbox().unwrap());
    let (mut frozen, mut thaws) = (BTreeSet::new(), JoinSet::new());
    let (mut killed, mut stopped) = (0, 0);
    let begun = Instant::now();
    while killed + stopped < rounds {
        assert!(begun.elapsed().as_secs() < 300, "too few workers were stopped in time");
        while let Some(thawed) = thaws.try_join_next() {
            frozen.remove(&thawed.unwrap());
        }
        // A job that has lost five workers in a row is halted, and the operator resumes it.
        let report = api.report(id).await;
        assert_ne!(
            report["status"], "completed",
            "the broadcast completed before every worker was stopped"
        );
        if report["status"] == "halted" {
            api.resume(id).await;
        }
        let received = sandbox.received_count();
        if let Some(pid) = busy(function, &frozen) {
            if (killed + stopped) % 2 == 0 {
                signal("KILL", pid);
                killed += 1;
            } else {
                signal("STOP", pid);
                stopped += 1;
                frozen.insert(pid);
                thaws.spawn(async move {
                    sleep(FROZEN_FOR).await;
                    signal("CONT", pid);
                    pid
                });
            }
        }
        if (killed + stopped) % PAUSE_EVERY == PAUSE_EVERY / 2 {
            pause_and_resume(api, id, sandbox).await;
        }
        // The other workers send meanwhile.
        let next = Instant::now() + Duration::from_secs(3);
        while sandbox.received_count() < received + apart && Instant::now() < next {
            sleep(Duration::from_millis(50)).await;
        }
    }
    while thaws.join_next().await.is_some() {}
    (killed, stopped)
}

/// Pauses the broadcast while workers are dead or frozen, and resumes it when every job is paused; checks that no send starts
/// later than it may. A worker that is frozen thaws before that.
async fn pause_and_resume(api: &ApiClient, id: &str, sandbox: &Sandbox) {
    api.control(id, "pause").await;
    let answered = Timestamp::now();
    let begun = Instant::now();
    loop {
        let report = api.report(id).await;
        let mut jobs = report["jobs"].as_array().unwrap().iter();
        if jobs.all(|job| ["paused", "completed", "halted"].contains(&job["status"].as_str().unwrap())) {
            break;
        }
        assert!(begun.elapsed().as_secs() < 60, "not paused: {report:#}");
        sleep(Duration::from_millis(100)).await;
    }
    sleep(OBEYED_WITHIN.saturating_sub(begun.elapsed()) + FROZEN_FOR).await;
    let times = sandbox.received().into_iter().map(|message| message.at);
    let late = times.max().unwrap_or_default() - answered.as_millisecond();
    println!("paused: the last message arrived {late} ms after the answer");
    let latest = OBEYED_WITHIN + LATENCY;
    assert!(
        u128::try_from(late).unwrap_or_default() <= latest.as_millis(),
        "sent while paused"
    );
    api.control(id, "resume").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_frozen_workers_send_no_duplicate_and_lose_no_contact() {
    broadcast_with_stopped_workers(12).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: a named longer run"]
async fn fifty_killed_and_frozen_workers_send_no_duplicate_and_lose_no_contact() {
    broadcast_with_stopped_workers(50).await;
}

/// Sends to a hundred contacts for each worker that is killed or frozen, and checks the outcome of every contact.
async fn broadcast_with_stopped_workers(rounds: usize) {
    let contacts = 100 * rounds;
    let variables = [
        ("PAGE_RATE_PER_SECOND", RATE_PER_SECOND),
        ("DOUBT_CHECK_SECONDS", "10,20"),
    ];
    let (stack, api) = process_stack::start(PROCESS_TIMEOUT, &variables).await;
    stack.subscribe_to_sandbox().await.unwrap();
    let sandbox = stack.sandbox().unwrap();
    sandbox.set_latency_ms(LATENCY.as_millis().try_into().unwrap());
    let ids: Vec<_> = (0..contacts).map(|n| format!("c{n:05}")).collect();
    let pages: Vec<_> = (1..=PAGES).map(|n| format!("page-{n}")).collect();
    for (ids, page) in ids.chunks(contacts / PAGES).zip(&pages) {
        for ids in ids.chunks(1_000) {
            api.import(page, ids).await;
        }
    }
    let begun = Instant::now();
    let id = api.broadcast(&ids).await;
    let mut repeated = JoinSet::new();
    for page in &pages {
        let (function, id, page) = (stack.process_job().clone(), id.clone(), page.clone());
        repeated.spawn(async move {
            loop {
                wake_up(function.clone(), id.clone(), page.clone()).await;
                sleep(Duration::from_millis(500)).await;
            }
        });
    }

    let (killed, stopped) = stop_workers(&stack, &api, &id, rounds, 40).await;
    let report = api.settled(&id, sandbox).await;
    repeated.shutdown().await;
    let took = begun.elapsed();
    let statuses = statuses(&api, &id).await;
    let mut received = BTreeMap::<_, usize>::new();
    for message in sandbox.received() {
        *received.entry(message.contact_id).or_default() += 1;
    }
    stack.stop().await;

    let in_doubt = statuses.values().filter(|status| *status == "in_doubt");
    let in_doubt = in_doubt.count();
    println!(
        "{contacts} contacts on {PAGES} Pages, {killed} workers killed and {stopped} frozen in {took:.1?}: {} received, {in_doubt} in doubt, {} workers refused",
        received.len(),
        report["duplicates_prevented"]["claim"],
    );
    let twice: Vec<_> = received.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "got two messages: {twice:?}");
    for id in &ids {
        let status = statuses.get(id).map(String::as_str);
        let expected = match received.contains_key(id) {
            true => "sent",
            // The message may have been lost with its process; no evidence can show that.
            false => "in_doubt",
        };
        assert_eq!(status, Some(expected), "{id}");
    }
    assert_eq!(report["counters"]["sent"], received.len());
    assert_eq!(report["counters"]["in_doubt"], in_doubt);
}

/// Lambda kills the process, the wake-up becomes visible again, and the next worker finds the rows that it left.
#[tokio::test(flavor = "multi_thread")]
async fn worker_that_never_thaws_is_killed_at_its_timeout_and_its_job_continues() {
    let (stack, api) = process_stack::start(Duration::from_secs(8), &[("PAGE_RATE_PER_SECOND", "40")]).await;
    let sandbox = stack.sandbox().unwrap();
    sandbox.set_latency_ms(500);
    let ids: Vec<_> = (0..100).map(|n| format!("c{n:03}")).collect();
    api.import("page-1", &ids).await;
    let id = api.broadcast(&ids).await;

    let pid = loop {
        match busy(stack.process_job(), &BTreeSet::new()) {
            Some(pid) if sandbox.received_count() > 0 => break pid,
            _ => sleep(Duration::from_millis(5)).await,
        }
    };
    signal("STOP", pid);
    let begun = Instant::now();
    while api.report(&id).await["status"] != "completed" {
        assert!(begun.elapsed().as_secs() < 120, "{:#}", api.report(&id).await);
        sleep(Duration::from_millis(50)).await;
    }

    let running = stack.process_job().processes_running();
    assert!(
        running.iter().all(|process| process.pid != pid),
        "the frozen process still runs"
    );
    let report = api.report(&id).await;
    let received: BTreeSet<_> = sandbox.received().into_iter().map(|m| m.contact_id).collect();
    let in_doubt = report["counters"]["in_doubt"].as_u64().unwrap();
    assert_eq!(sandbox.received_count(), received.len());
    assert!(in_doubt > 0, "it was frozen before it sent");
    assert_eq!(report["counters"]["sent"].as_u64().unwrap() + in_doubt, 100);
    stack.stop().await;
}
