//! Every external call of a small broadcast, and at each of them everything that can happen there: the process dies before
//! or after it, freezes before or after it until others have finished its work, the call fails, or its answer is lost.
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
use shared::ids::BroadcastId;
use tokio::time::Instant;

use crate::stack::{self, PAGES, Services, Stack};
use crate::strikes::{Plan, STRIKES, Strike};

/// Broadcasts that are struck at once.
const AT_ONCE: usize = 8;
/// More than any broadcast here needs.
const MAX_CALLS: usize = 400;
/// Time that goes by between two firings of the schedule: more than a lease, and than any look-up waits for.
pub const A_WHILE: Duration = Duration::from_secs(700);

type Invocation<'a> = Pin<Box<dyn Future<Output = Option<BroadcastId>> + Send + 'a>>;

/// One broadcast, and the invocations that are frozen.
struct Story<'a> {
    stack: &'a Stack,
    plan: Arc<Plan>,
    frozen: Vec<Invocation<'a>>,
}

impl<'a> Story<'a> {
    /// Invokes a function until it ends, dies or freezes.
    async fn invoke(&mut self, mut invocation: Invocation<'a>) -> Option<BroadcastId> {
        self.plan.count(true);
        let ended = tokio::select! {
            ended = &mut invocation => ended,
            () = self.plan.struck() => {
                if self.plan.is_frozen() {
                    self.frozen.push(invocation);
                }
                None
            }
        };
        self.plan.count(false);
        ended
    }

    /// Asks for the broadcast as a caller does: again, under the same key, until there is an answer.
    async fn ask(&mut self, ids: &'a [String]) -> BroadcastId {
        let stack = self.stack;
        for _ in 0..5 {
            let asked = self.invoke(Box::pin(async move {
                let answer = stack.post_with_key("the-key", &stack::request(ids)).await;
                (answer.status == StatusCode::ACCEPTED).then(|| answer.broadcast_id())
            }));
            if let Some(id) = asked.await {
                return id;
            }
        }
        panic!("never accepted")
    }

    /// Hints are worked off, the schedule fires, time goes by.
    async fn let_time_pass(&mut self) {
        let stack = self.stack;
        while let Some(hint) = stack.receive().await {
            stack.delete(&hint).await;
            let worked = self.invoke(Box::pin(async move {
                stack.process_job(&hint).await;
                None
            }));
            worked.await;
        }
        stack.advance(A_WHILE);
        let looked = self.invoke(Box::pin(async move {
            let ends = Instant::now() + Duration::from_secs(30);
            // What fails is tried again at the next firing.
            let _ = scheduled::handle(&stack.app, ends).await;
            None
        }));
        looked.await;
    }

    /// Until the broadcast is completed, and everything in doubt has been looked up.
    async fn finish(&mut self, id: &BroadcastId) {
        for _ in 0..40 {
            self.let_time_pass().await;
            let is_completed = self.stack.report(id).await["status"] == "completed";
            let mut in_doubt = self
                .stack
                .deliveries(id, "&status=in_doubt")
                .await
                .into_iter();
            // Who was looked for in vain has the reason to show for it.
            let looked_up = in_doubt.all(|row| row["reason"].as_str().unwrap().contains("; "));
            if is_completed && looked_up {
                return;
            }
        }
        panic!("never completed: {:#}", self.stack.report(id).await)
    }
}

/// What becomes of a send that the last look-up does not find.
type Policy = (&'static str, &'static str);
const HOLD: Policy = ("IN_DOUBT_POLICY", "hold");
const RESEND: Policy = ("IN_DOUBT_POLICY", "resend");

/// A second look is made like the first.
const ONE_LOOK: (&str, &str) = ("DOUBT_CHECK_SECONDS", "150");

/// Sends to five contacts, of whom one meets a limit, one gets the message without an answer, one does not get it and there
/// is no answer either, and one is refused, while something happens at one call; what call that was, and how many there
/// were.
async fn strike(policy: Policy, at: Option<usize>, strike: Strike) -> (Option<String>, usize) {
    let plan = Plan::new(at.map(|at| (at, strike)));
    let services = Services::start().await;
    let endpoints = plan.on_the_way_to(&services.endpoints).await;
    let stack = Stack::over(services, &endpoints, &[policy, ONE_LOOK]).await;
    let ids = stack.contacts(5).await;
    let to = |fault: Fault, id: &String| stack.sandbox.add_fault(fault.to_contacts([id]));
    let limit = GraphError::new(613, "too fast");
    to(Fault::answering(limit).times(1), &ids[1]);
    to(Fault::answering(Answer::Reset).but_arriving(), &ids[2]);
    to(Fault::answering(GraphError::new(551, "blocked")), &ids[3]);
    to(Fault::answering(Answer::Reset).times(1), &ids[4]);
    let mut story = Story {
        stack: &stack,
        plan: Arc::clone(&plan),
        frozen: Vec::new(),
    };

    let id = story.ask(&ids).await;
    story.finish(&id).await;
    for frozen in std::mem::take(&mut story.frozen) {
        plan.thaw();
        let thawed = tokio::time::timeout(Duration::from_secs(60), frozen).await;
        assert!(thawed.is_ok(), "an invocation never ended");
        story.finish(&id).await;
        // What it sent when it thawed, after the last look-up, only an echo can tell of.
        for message in stack.sandbox.received() {
            stack
                .echo(&id, &message.contact_id, 1, &message.message_id)
                .await;
        }
    }

    let struck_at = plan.struck_at().pop().map(|(call, _)| call);
    let context = format!("{policy:?}, {strike:?} at call {at:?}, {struck_at:?}");
    check(&stack, &id, &ids, &[&ids[3]], &context).await;
    (struck_at, plan.calls())
}

/// Nobody twice, nobody missing, and the report is what the contacts would say: only of these may it say that they were
/// refused. The fixture checks line and counters.
pub async fn check(
    stack: &Stack,
    id: &BroadcastId,
    ids: &[String],
    refused: &[&str],
    context: &str,
) {
    let received = stack.received(id);
    assert_eq!(
        received.values().sum::<usize>(),
        stack.sandbox.received_count(),
        "{context}: another broadcast was made"
    );
    let rows = stack.deliveries(id, "").await;
    let listed: BTreeSet<_> = rows
        .iter()
        .map(|row| row["contact_id"].as_str().unwrap())
        .collect();
    assert_eq!(listed.len(), ids.len(), "{context}: somebody is missing");
    for row in &rows {
        let contact = row["contact_id"].as_str().unwrap();
        let got = received.get(contact).copied().unwrap_or_default();
        let status = row["status"].as_str().unwrap();
        match (got, status) {
            (1, "sent") => {}
            // Nobody knows that it was not sent; only Messenger could say so, and does not.
            (0, "in_doubt") => {}
            (0, "failed") if refused.contains(&contact) => {}
            _ => panic!("{context}: got {got}, and the report says {row}"),
        }
    }
    let report = stack.report(id).await;
    assert_eq!(report["status"], "completed", "{context}");
    assert_eq!(report["jobs"][0]["page_id"], PAGES[0]);
}

/// Strikes at every call in turn, in each of these ways: until a broadcast comes to its end with fewer calls. How many
/// there are differs with what happens.
async fn strike_everywhere(policy: Policy, strikes: &[Strike]) {
    let (struck, calls) = strike(policy, None, Strike::Fails).await;
    assert_eq!(struck, None);
    let mut struck = Vec::new();
    for kind in strikes {
        let end = AtomicUsize::new(usize::MAX);
        let of_kind = stream::iter(0..MAX_CALLS)
            .map(|at| {
                let end = &end;
                async move {
                    if at > end.load(Ordering::SeqCst) {
                        return None;
                    }
                    let (call, _) = strike(policy, Some(at), *kind).await;
                    if call.is_none() {
                        end.fetch_min(at, Ordering::SeqCst);
                    }
                    call.map(|call| (at, call))
                }
            })
            .buffer_unordered(AT_ONCE);
        let of_kind: Vec<_> = of_kind.collect().await;
        let end = end.into_inner();
        assert!(end < MAX_CALLS, "{kind:?}: it never comes to its end");
        let of_kind = of_kind.into_iter().flatten();
        let of_kind: BTreeMap<_, _> = of_kind.filter(|(at, _)| *at < end).collect();
        assert_eq!(of_kind.len(), end, "{kind:?}: not every call was struck");
        struck.extend(of_kind.into_values());
    }
    let kinds: BTreeSet<_> = struck.iter().collect();
    println!(
        "{policy:?}: {calls} calls without a fault; struck {} times at {} kinds of calls: nobody twice, nobody missing",
        struck.len(),
        kinds.len(),
    );
    // From the first to the last thing that a broadcast does.
    for kind in [
        "TransactWriteItems",
        "SendMessage",
        "/messages",
        "/conversations",
    ] {
        assert!(kinds.iter().any(|call| call.contains(kind)), "{kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_happens_at_any_call_makes_a_duplicate_or_loses_anybody() {
    strike_everywhere(HOLD, &STRIKES).await;
}

/// But for a process that freezes, which is what `resend` assumes away; of the other strikes those that leave something
/// behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: a named longer run"]
async fn nor_does_it_where_what_is_in_doubt_is_sent_again() {
    strike_everywhere(RESEND, &[Strike::DiesAfter, Strike::AnswerLost]).await;
}
