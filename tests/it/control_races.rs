//! Controls at every moment of a run: at each external call of the workers of a small broadcast, before it is made and before it
//! is answered, the operator gives orders; then the worker goes on, or is dead, or is frozen until others have done its work.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;
use shared::reconcile::settle::settle_by_echo;

use crate::exhaustive_faults::{TICK_INTERVAL, assert_adds_up, check};
use crate::fixture::by_hand::LEASE;
use crate::fixture::fault_plan::{FaultPlan, InjectedFault};
use crate::fixture::{Services, TestStack};

/// Broadcasts that run concurrently, each with its own race.
const CONCURRENT: usize = 8;
/// More calls than any broadcast here needs.
const MAX_CALLS: usize = 200;
/// The time after which a process that does not end is taken to hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// One lookup; a second one would make the same calls.
const ONE_LOOKUP: (&str, &str) = ("DOUBT_CHECK_SECONDS", "150");

type Invocation<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The fate of the worker during whose call the orders are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    GoesOn,
    Dies,
    /// It is frozen until the broadcast is at rest.
    Freezes,
}

/// Orders at one call of a worker.
#[derive(Clone, Copy, Debug)]
struct Race {
    orders: &'static [&'static str],
    /// The orders are given before the call is made, and otherwise before it is answered.
    before: bool,
    fate: Fate,
    run: RacedWork,
}

/// The work that orders come between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RacedWork {
    /// The first sends.
    Sends,
    /// A retry.
    Retry,
    /// The resolution of an audience; a part of it is done.
    Resolution,
}

impl Race {
    fn fault(self) -> InjectedFault {
        match (self.fate, self.before) {
            (Fate::Dies, true) => InjectedFault::DiesBefore,
            (Fate::Dies, false) => InjectedFault::DiesAfter,
            (Fate::GoesOn | Fate::Freezes, true) => InjectedFault::FreezesBefore,
            (Fate::GoesOn | Fate::Freezes, false) => InjectedFault::FreezesAfter,
        }
    }
}

/// One broadcast and its race.
struct RacedRun<'a> {
    stack: &'a TestStack,
    plan: Arc<FaultPlan>,
    race: Race,
    id: BroadcastId,
    frozen: Option<Invocation<'a>>,
    /// The last order that was accepted.
    word: Option<&'static str>,
}

impl<'a> RacedRun<'a> {
    /// Works on a wake-up, until the worker ends or the orders come.
    async fn work(&mut self, mut worker: Invocation<'a>) {
        let is_raced = self.race.run != RacedWork::Resolution || self.stack.job(&self.id).await.is_resolving();
        self.plan.set_counting(is_raced);
        let comes_to_call = tokio::select! {
            () = &mut worker => false,
            () = self.plan.stopped() => true,
        };
        self.plan.set_counting(false);
        if !comes_to_call {
            return;
        }
        for order in self.race.orders {
            self.order(order).await;
        }
        match self.race.fate {
            Fate::Dies => {}
            Fate::Freezes => self.frozen = Some(worker),
            Fate::GoesOn => thaw(&self.plan, worker).await,
        }
    }

    /// Gives an order. It may come too late: then the answer says so, and the broadcast is over.
    async fn order(&mut self, order: &'static str) {
        let answer = self.stack.try_control(order, &self.id, &json!({})).await;
        if answer.status == StatusCode::ACCEPTED {
            self.word = Some(order);
        } else {
            assert_eq!(answer.status, StatusCode::CONFLICT, "{order}: {answer:?}");
            let status = self.stack.status(&self.id).await;
            let is_over = status == "completed" || self.word == Some("cancel");
            assert!(is_over, "{order} is refused, and the broadcast is {status}");
        }
    }

    /// Processes the wake-ups in the queue and one more, advances the clock, and invokes scheduled.
    async fn advance(&mut self) {
        let stack = self.stack;
        while let Some(wake_up) = stack.receive().await {
            stack.delete(&wake_up).await;
            self.work(Box::pin(async move {
                stack.process_job(&wake_up).await;
            }))
            .await;
        }
        stack.advance(TICK_INTERVAL);
        stack.tick().await;
    }

    /// Advances until the broadcast is at rest: completed, cancelled or paused, as the last accepted order wants it, and its end
    /// is announced.
    async fn come_to_rest(&mut self) -> String {
        for _ in 0..40 {
            self.advance().await;
            let report = self.report().await;
            let status = report["status"].as_str().unwrap();
            // A paused job keeps a retry.
            let is_stopping = ["pause", "cancel"].contains(&report["jobs"][0]["command"].as_str().unwrap_or_default());
            let is_announced = !self.stack.is_unannounced(&self.id).await;
            if !is_stopping && is_announced && ["completed", "cancelled", "paused"].contains(&status) {
                match self.word {
                    Some("cancel") => assert_eq!(status, "cancelled"),
                    Some("pause") => assert_ne!(status, "cancelled"),
                    _ => assert_eq!(status, "completed"),
                }
                return status.to_owned();
            }
        }
        panic!("the broadcast does not come to rest: {:#}", self.report().await)
    }

    /// Returns the report, of which the counters add up to the contacts.
    async fn report(&self) -> Value {
        let report = self.stack.report(&self.id).await;
        assert_adds_up(&report);
        report
    }

    /// Checks that nothing is sent for a paused broadcast, whoever wakes it.
    async fn stays_paused(&mut self) {
        let received = self.stack.sandbox.received_count();
        for _ in 0..3 {
            let spurious = self.stack.wake_up_for(&self.id).await;
            self.stack.process_job(&spurious).await;
            self.advance().await;
        }
        assert_eq!(self.report().await["status"], "paused");
        assert_eq!(self.stack.sandbox.received_count(), received, "sent while paused");
    }

    /// Lets the broadcast come to its end: a paused one is resumed, and a frozen worker thaws once all is at rest.
    async fn finish(&mut self) -> String {
        let mut status = self.come_to_rest().await;
        if status == "paused" {
            self.stays_paused().await;
        }
        if let Some(worker) = self.frozen.take() {
            thaw(&self.plan, worker).await;
            status = self.come_to_rest().await;
        }
        if status == "paused" {
            self.order("resume").await;
            status = self.come_to_rest().await;
        }
        // Only an echo shows what a worker sent when it thawed, after the last lookup.
        for (metadata, message_id) in self.stack.echoes(&self.id) {
            settle_by_echo(&self.stack.app, &metadata, &message_id).await.unwrap();
        }
        status
    }
}

/// Thaws a frozen worker, and awaits its end.
async fn thaw(plan: &FaultPlan, worker: Invocation<'_>) {
    plan.thaw();
    let ended = tokio::time::timeout(PATIENCE, worker).await;
    assert!(ended.is_ok(), "a thawed worker does not end");
}

/// Sends to four contacts while orders are given at one call of a worker; returns the name of that call.
///
/// One of the contacts is rate-limited, one gets the message without an answer, and one is refused.
async fn send_with_orders(race: Race, at: usize) -> Option<String> {
    let plan = FaultPlan::new([(at, race.fault())]);
    let services = Services::start().await;
    let endpoints = plan.start_proxies(&services.endpoints).await;
    let stack = TestStack::start_on(services, &endpoints, &[ONE_LOOKUP]).await;
    let ids = stack.import_contacts(4).await;
    let is_retry = race.run == RacedWork::Retry;
    let to = |fault: Fault, id: &String| stack.sandbox.add_fault(fault.to_contacts([id]));
    to(Fault::answering(GraphError::new(613, "too fast")).times(1), &ids[1]);
    // In a retry it would get the message twice, as the operator orders.
    let lost = Fault::answering(Answer::Reset).times(1);
    to(if is_retry { lost } else { lost.but_arriving() }, &ids[2]);
    to(Fault::answering(GraphError::new(551, "blocked")), &ids[3]);
    let id = match race.run {
        RacedWork::Sends | RacedWork::Retry => stack.broadcast(&ids).await,
        RacedWork::Resolution => resolved_in_part(&stack, &ids).await,
    };
    let mut run = RacedRun {
        stack: &stack,
        plan: Arc::clone(&plan),
        race,
        id,
        frozen: None,
        word: None,
    };
    if is_retry {
        stack.finish(&run.id).await;
        let retry = json!({"statuses": ["failed", "in_doubt"]});
        let answer = stack.try_control("retry", &run.id, &retry).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    }

    let status = run.finish().await;
    check(
        &stack,
        &run.id,
        &ids,
        &[&ids[3]],
        &status,
        &format!("{race:?} at call {at}"),
    )
    .await;
    plan.injected().pop().map(|(call, _)| call)
}

/// Requests a broadcast to everybody, of which a worker has resolved a part before it died.
pub async fn resolved_in_part(stack: &TestStack, ids: &[String]) -> BroadcastId {
    stack.let_reads_catch_up();
    let id = stack.broadcast_to(&json!({"everybody": true})).await;
    let mut claim = stack.claim(&stack.job(&id).await.id()).await;
    assert!(stack.resolve(&mut claim, &ids[..2]).await);
    stack.advance(LEASE + Duration::from_secs(1));
    id
}

/// Gives these orders at every call in turn, until a broadcast ends with fewer calls: their number depends on the orders.
async fn order_at_every_call(races: &[Race], expected: &str) {
    // The first call, by race, that a broadcast did not make any more.
    let ends: Vec<_> = races.iter().map(|_| AtomicUsize::new(usize::MAX)).collect();
    let runs = (0..MAX_CALLS).flat_map(|at| races.iter().zip(&ends).map(move |(race, end)| (at, *race, end)));
    let runs = stream::iter(runs).map(|(at, race, end)| async move {
        if at > end.load(Ordering::SeqCst) {
            return None;
        }
        let run = AssertUnwindSafe(Box::pin(send_with_orders(race, at)))
            .catch_unwind()
            .await;
        let call = run.unwrap_or_else(|_| panic!("{race:?} at call {at}"));
        if call.is_none() {
            end.fetch_min(at, Ordering::SeqCst);
        }
        call
    });
    let calls: Vec<_> = runs.buffer_unordered(CONCURRENT).collect().await;
    for (race, end) in races.iter().zip(ends) {
        assert!(end.into_inner() < MAX_CALLS, "{race:?}: the number of calls has no end");
    }
    let mut kinds = BTreeMap::<_, usize>::new();
    for call in calls.into_iter().flatten() {
        *kinds.entry(call).or_default() += 1;
    }
    println!("orders at {} calls: {kinds:#?}", kinds.values().sum::<usize>());
    assert!(kinds.keys().any(|call| call.contains(expected)), "{kinds:?}");
}

/// Returns the races with these orders, at every moment and with every fate.
fn races(orders: &[&'static [&'static str]], run: RacedWork) -> Vec<Race> {
    let mut races = Vec::new();
    for &orders in orders {
        for fate in [Fate::GoesOn, Fate::Dies, Fate::Freezes] {
            races.extend([true, false].map(|before| Race {
                orders,
                before,
                fate,
                run,
            }));
        }
    }
    races
}

/// Returns a cancel before a call of a worker that goes on, and a pause between two calls of one that is overtaken: the other
/// moments of [`races`] differ little.
fn stopping_races(run: RacedWork) -> [Race; 2] {
    let race = |orders, fate| Race {
        orders,
        before: fate == Fate::GoesOn,
        fate,
        run,
    };
    [race(&["cancel"], Fate::GoesOn), race(&["pause"], Fate::Freezes)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_or_cancel_at_any_call_stops_the_broadcast_and_loses_no_contact() {
    order_at_every_call(&stopping_races(RacedWork::Sends), "/messages").await;
}

/// The same orders at the calls of a resolution; what comes after it is a run as any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_or_cancel_at_any_call_of_a_resolution_loses_no_contact() {
    order_at_every_call(&stopping_races(RacedWork::Resolution), "TransactWriteItems").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes: a named longer run"]
async fn every_order_at_any_call_leaves_the_last_one_standing() {
    let orders: [&[&str]; 5] = [
        &["pause"],
        &["cancel"],
        &["pause", "resume"],
        &["pause", "resume", "pause"],
        &["pause", "cancel"],
    ];
    order_at_every_call(&races(&orders, RacedWork::Sends), "/messages").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes: a named longer run"]
async fn every_order_at_any_call_of_a_retry_leaves_the_last_one_standing() {
    let orders: [&[&str]; 4] = [&[], &["pause"], &["pause", "resume"], &["cancel"]];
    order_at_every_call(&races(&orders, RacedWork::Retry), "/messages").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: a named longer run"]
async fn every_order_at_any_call_of_a_resolution_leaves_the_last_one_standing() {
    let orders: [&[&str]; 4] = [&["pause"], &["cancel"], &["pause", "resume"], &["pause", "cancel"]];
    order_at_every_call(&races(&orders, RacedWork::Resolution), "TransactWriteItems").await;
}
