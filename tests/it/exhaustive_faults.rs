//! Every fault at every external call of a small broadcast: the process dies before or after the call, freezes before or after
//! it until other processes have finished its work, the call fails, or its answer is lost.
//!
//! The engine is the real one, over the real local services.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::stream::{self, StreamExt};
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;
use tokio::time::Instant;

use crate::fixture::by_hand::LEASE;
use crate::fixture::fault_plan::{FaultPlan, InjectedFault};
use crate::fixture::{PAGES, Services, TestStack, WakeUpMessage, request};

/// Broadcasts that run concurrently, each with its own fault.
const CONCURRENT: usize = 8;
/// More calls than any broadcast here needs.
const MAX_CALLS: usize = 400;
/// The time between two ticks of the schedule: longer than a lease, and than the age of any lookup.
pub const TICK_INTERVAL: Duration = Duration::from_secs(700);

type Invocation<'a> = Pin<Box<dyn Future<Output = Option<BroadcastId>> + Send + 'a>>;

/// The way in which a broadcast names its contacts, and the calls at which faults are injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recipients {
    /// By their ids: at every call.
    Ids,
    /// By an audience: at every call of the workers that resolve it. A worker before them has resolved a part, and died.
    Audience,
}

/// One broadcast, its fault, and its frozen invocations.
struct FaultyRun<'a> {
    stack: &'a TestStack,
    plan: Arc<FaultPlan>,
    recipients: Recipients,
    frozen: Vec<Invocation<'a>>,
}

impl<'a> FaultyRun<'a> {
    /// Invokes a function until it ends, dies or freezes; returns its result if it ends.
    async fn invoke(&mut self, invocation: Invocation<'a>) -> Option<BroadcastId> {
        let counts = self.recipients == Recipients::Ids;
        self.invoke_counting(invocation, counts).await
    }

    async fn invoke_counting(&mut self, mut invocation: Invocation<'a>, counts: bool) -> Option<BroadcastId> {
        self.plan.set_counting(counts);
        let ended = tokio::select! {
            ended = &mut invocation => ended,
            () = self.plan.stopped() => {
                if self.plan.is_frozen() {
                    self.frozen.push(invocation);
                }
                None
            }
        };
        self.plan.set_counting(false);
        ended
    }

    /// Requests the broadcast under one key, again until there is an answer, as a caller does.
    async fn request(&mut self, ids: &'a [String]) -> BroadcastId {
        let stack = self.stack;
        for _ in 0..5 {
            let accepted = self.invoke(Box::pin(async move {
                let answer = stack.post_with_key("the-key", &request(ids)).await;
                (answer.status == StatusCode::ACCEPTED).then(|| answer.broadcast_id())
            }));
            if let Some(id) = accepted.await {
                return id;
            }
        }
        panic!("the request is never accepted")
    }

    /// Requests the broadcast to the audience, and has a worker resolve its first contacts.
    async fn request_audience(&mut self, ids: &[String]) -> BroadcastId {
        let stack = self.stack;
        let id = stack.broadcast_to(&json!({"tags_any": ["vip"]})).await;
        let mut claim = stack.claim(&stack.job(&id).await.id()).await;
        assert!(stack.resolve(&mut claim, &ids[..2]).await);
        stack.advance(LEASE + Duration::from_secs(1));
        let wake_up = stack.receive().await.unwrap();
        stack.delete(&wake_up).await;
        self.process(id.clone(), wake_up).await;
        id
    }

    async fn process(&mut self, id: BroadcastId, wake_up: WakeUpMessage) {
        let stack = self.stack;
        let counts = self.recipients == Recipients::Ids || stack.job(&id).await.is_resolving();
        let processed = Box::pin(async move {
            stack.process_job(&wake_up).await;
            None
        });
        self.invoke_counting(processed, counts).await;
    }

    /// Processes the wake-ups in the queue, advances the clock, and invokes scheduled.
    async fn advance(&mut self, id: &BroadcastId) {
        let stack = self.stack;
        while let Some(wake_up) = stack.receive().await {
            stack.delete(&wake_up).await;
            self.process(id.clone(), wake_up).await;
        }
        stack.advance(TICK_INTERVAL);
        let ticked = self.invoke(Box::pin(async move {
            let ends = Instant::now() + Duration::from_secs(30);
            // A failed tick is repeated by the next one.
            let _ = scheduled::handle(&stack.app, ends).await;
            None
        }));
        ticked.await;
    }

    /// Advances until the broadcast is completed, which is announced, and every delivery in doubt has been looked up.
    async fn finish(&mut self, id: &BroadcastId) {
        for _ in 0..40 {
            self.advance(id).await;
            let report = self.stack.report(id).await;
            assert_adds_up(&report);
            let is_completed = report["status"] == "completed" && !self.stack.is_unannounced(id).await;
            let mut in_doubt = self.stack.deliveries(id, "&status=in_doubt").await.into_iter();
            // A lookup that finds nothing adds its result to the reason.
            let looked_up = in_doubt.all(|row| row["reason"].as_str().unwrap().contains("; "));
            if is_completed && looked_up {
                return;
            }
        }
        panic!("the broadcast does not complete: {:#}", self.stack.report(id).await)
    }
}

/// A variable of the functions, such as the one that decides about a send that the last lookup does not find.
type Policy = (&'static str, &'static str);
type Case = (Policy, Recipients);
const HOLD: Policy = ("IN_DOUBT_POLICY", "hold");
const RESEND: Policy = ("IN_DOUBT_POLICY", "resend");

/// The contacts have no names, and Messenger has.
const PROFILES: Policy = ("PROFILES", "on");

/// One lookup; a second one would make the same calls.
const ONE_LOOKUP: (&str, &str) = ("DOUBT_CHECK_SECONDS", "150");

/// Checks that the counters of a report add up to the contacts that its jobs have.
pub fn assert_adds_up(report: &Value) {
    let sum = |counters: &Value| -> u64 {
        let counters = counters.as_object().unwrap().values();
        counters.map(|count| count.as_u64().unwrap()).sum()
    };
    assert_eq!(sum(&report["counters"]), report["contacts"]["accepted"], "{report:#}");
    for job in report["jobs"].as_array().unwrap() {
        assert_eq!(sum(&job["counters"]), job["contacts"], "{report:#}");
    }
}

/// Sends to five contacts while a fault is injected at one call; returns the name of that call and the number of calls.
///
/// One of the contacts is rate-limited, one gets the message without an answer, one gets neither message nor answer, and one
/// is refused.
async fn send_with_fault(
    (policy, recipients): Case,
    at: Option<usize>,
    fault: InjectedFault,
) -> (Option<String>, usize) {
    let plan = FaultPlan::new(at.map(|at| (at, fault)));
    let services = Services::start().await;
    let endpoints = plan.start_proxies(&services.endpoints).await;
    let stack = TestStack::start_on(services, &endpoints, &[policy, ONE_LOOKUP]).await;
    let ids = match recipients {
        Recipients::Ids => stack.import_contacts(5).await,
        Recipients::Audience => {
            let ids: Vec<_> = (0..5).map(|n| format!("c{n:05}")).collect();
            stack.import_tagged(PAGES[0], &ids, &["vip"]).await;
            stack
                .import_tagged(PAGES[0], &["c00001x".to_owned(), "d".to_owned()], &["new"])
                .await;
            stack.let_reads_catch_up();
            ids
        }
    };
    if policy == PROFILES {
        let nameless = ids
            .iter()
            .map(|id| json!({"contact_id": id, "page_id": PAGES[0], "first_name": null}));
        let nameless = json!({"contacts": nameless.collect::<Vec<_>>()});
        stack.call("PUT", "/v1/contacts", None, Some(&nameless)).await;
        let profile = json!({"first_name": "Zoë"});
        for id in &ids {
            stack.sandbox.set_profile(id, profile.as_object().unwrap().clone());
        }
    }
    let to = |fault: Fault, id: &String| stack.sandbox.add_fault(fault.to_contacts([id]));
    let limit = GraphError::new(613, "too fast");
    to(Fault::answering(limit).times(1), &ids[1]);
    to(Fault::answering(Answer::Reset).but_arriving(), &ids[2]);
    to(Fault::answering(GraphError::new(551, "blocked")), &ids[3]);
    to(Fault::answering(Answer::Reset).times(1), &ids[4]);
    // The first firing also looks for contacts of an earlier version.
    stack.tick().await;
    let mut run = FaultyRun {
        stack: &stack,
        plan: Arc::clone(&plan),
        recipients,
        frozen: Vec::new(),
    };

    let id = match recipients {
        Recipients::Ids => run.request(&ids).await,
        Recipients::Audience => run.request_audience(&ids).await,
    };
    run.finish(&id).await;
    for frozen in std::mem::take(&mut run.frozen) {
        plan.thaw();
        let thawed = tokio::time::timeout(Duration::from_secs(60), frozen).await;
        assert!(thawed.is_ok(), "a thawed invocation does not end");
        run.finish(&id).await;
        // Only an echo shows what it sent when it thawed, after the last lookup.
        for message in stack.sandbox.received() {
            stack.echo(&id, &message.contact_id, 1, &message.message_id).await;
        }
    }

    let injected_at = plan.injected().pop().map(|(call, _)| call);
    let context = format!("{policy:?}, {recipients:?}, {fault:?} at call {at:?}, {injected_at:?}");
    check(&stack, &id, &ids, &[&ids[3]], "completed", &context).await;
    (injected_at, plan.calls())
}

/// Checks that the broadcast has this status, that the report agrees with the messages received, that no contact is missing, and
/// that only the contacts in `refused` are reported as failed. The fixture checks duplicates, backlog and counters.
pub async fn check(stack: &TestStack, id: &BroadcastId, ids: &[String], refused: &[&str], status: &str, context: &str) {
    let received = stack.received(id);
    assert_eq!(
        received.values().sum::<usize>(),
        stack.sandbox.received_count(),
        "{context}: another broadcast was made"
    );
    let report = stack.report(id).await;
    let rows = stack.deliveries(id, "").await;
    let listed: BTreeSet<_> = rows.iter().map(|row| row["contact_id"].as_str().unwrap()).collect();
    assert!(
        listed.iter().all(|listed| ids.iter().any(|id| id == listed)),
        "{context}: {listed:?}"
    );
    // Cancelled before its audience was resolved: not all contacts are known.
    let is_whole = report["audience"].is_null() || report["audience"]["resolved"] == true;
    match is_whole {
        true => assert_eq!(listed.len(), ids.len(), "{context}: a contact is missing"),
        false => assert_eq!(
            (status, &json!(listed.len())),
            ("cancelled", &report["contacts"]["accepted"]),
            "{context}"
        ),
    }
    for row in &rows {
        let contact = row["contact_id"].as_str().unwrap();
        let got = received.get(contact).copied().unwrap_or_default();
        match (got, row["status"].as_str().unwrap()) {
            (1, "sent") => {}
            // Only Messenger could tell that the message was not accepted, and its API has no such answer.
            (0, "in_doubt") => {}
            (0, "failed") if refused.contains(&contact) => {}
            (0, "skipped") if status == "cancelled" => assert_eq!(row["reason"], "cancelled", "{context}"),
            _ => panic!("{context}: got {got}, and the report says {row}"),
        }
    }
    assert_eq!(report["status"], status, "{context}");
    assert_eq!(report["jobs"][0]["page_id"], PAGES[0]);
}

/// Injects each of these faults at every call in turn, until a broadcast completes with fewer calls: their number depends on
/// the faults.
async fn inject_at_every_call(case: Case, faults: &[InjectedFault], expected: &[&str]) {
    let (injected_at, calls) = send_with_fault(case, None, InjectedFault::Fails).await;
    assert_eq!(injected_at, None);
    // The first call, by fault, that a broadcast did not make any more.
    let ends: Vec<_> = faults.iter().map(|_| AtomicUsize::new(usize::MAX)).collect();
    // All faults at a call before the next call: few runs are started in vain at the end.
    let runs = (0..MAX_CALLS).flat_map(|at| faults.iter().zip(&ends).map(move |(fault, end)| (at, *fault, end)));
    let runs = stream::iter(runs).map(|(at, fault, end)| async move {
        if at > end.load(Ordering::SeqCst) {
            return None;
        }
        let (call, _) = send_with_fault(case, Some(at), fault).await;
        if call.is_none() {
            end.fetch_min(at, Ordering::SeqCst);
        }
        Some((at, fault, call?))
    });
    let runs: Vec<_> = runs.buffer_unordered(CONCURRENT).collect().await;
    let mut injected = Vec::new();
    for (fault, end) in faults.iter().zip(ends) {
        let end = end.into_inner();
        assert!(end < MAX_CALLS, "{fault:?}: the number of calls has no end");
        let of_fault = runs.iter().flatten().filter(|(_, of, _)| of == fault);
        let by_call: BTreeMap<_, _> = of_fault.map(|(at, _, call)| (*at, call)).collect();
        let before_end: Vec<_> = by_call.range(..end).map(|(_, call)| *call).collect();
        assert_eq!(before_end.len(), end, "{fault:?}: not every call had its fault");
        injected.extend(before_end);
    }
    let kinds: BTreeSet<_> = injected.iter().collect();
    println!(
        "{case:?}: {calls} calls without a fault; {} faults injected at {} kinds of calls: no duplicate, no contact lost",
        injected.len(),
        kinds.len(),
    );
    for kind in expected {
        assert!(kinds.iter().any(|call| call.contains(kind)), "{kinds:?}");
    }
}

/// The kinds of calls of a broadcast from its first to its last step.
const ALL_STEPS: [&str; 4] = ["TransactWriteItems", "SendMessage", "/messages", "/conversations"];
/// Those of a broadcast to an audience, before its lookups.
const STEPS_OF_A_RESOLUTION: [&str; 4] = ["Query", "TransactWriteItems", "UpdateItem", "SendMessage"];

/// A death, a freeze and a lost answer; the other faults, in the longer run, differ little from them.
const THREE_FAULTS: [InjectedFault; 3] = [
    InjectedFault::DiesAfter,
    InjectedFault::FreezesBefore,
    InjectedFault::AnswerLost,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_at_any_call_sends_no_duplicate_and_loses_no_contact() {
    inject_at_every_call((HOLD, Recipients::Ids), &THREE_FAULTS, &ALL_STEPS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_at_any_call_of_a_resolution_sends_no_duplicate_and_loses_no_contact() {
    inject_at_every_call((HOLD, Recipients::Audience), &THREE_FAULTS, &STEPS_OF_A_RESOLUTION).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: a named longer run"]
async fn every_fault_at_any_call_sends_no_duplicate_and_loses_no_contact() {
    inject_at_every_call((HOLD, Recipients::Ids), &InjectedFault::ALL, &ALL_STEPS).await;
    inject_at_every_call(
        (HOLD, Recipients::Audience),
        &InjectedFault::ALL,
        &STEPS_OF_A_RESOLUTION,
    )
    .await;
}

/// Injects the faults that leave a call carried out. Frozen processes are left out, because `resend` assumes that there are
/// none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: a named longer run"]
async fn fault_at_any_call_under_resend_policy_sends_no_duplicate_and_loses_no_contact() {
    let faults = [InjectedFault::DiesAfter, InjectedFault::AnswerLost];
    inject_at_every_call((RESEND, Recipients::Ids), &faults, &ALL_STEPS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: a named longer run"]
async fn fault_at_any_call_with_profiles_sends_no_duplicate_and_loses_no_contact() {
    inject_at_every_call((PROFILES, Recipients::Ids), &InjectedFault::ALL, &ALL_STEPS).await;
}
