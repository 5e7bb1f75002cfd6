//! An import of contacts whose processes die and freeze: at each external call in turn, and the whole stack again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::stream::{self, StreamExt};
use local::sandbox::People;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::exhaustive_faults::TICK_INTERVAL;
use crate::fixture::fault_plan::{FaultPlan, InjectedFault};
use crate::fixture::installation::{Installation, completed};
use crate::fixture::up::UpProcess;
use crate::fixture::{PAGES, Services, TestStack};

/// Imports that run concurrently, each with its own fault.
const CONCURRENT: usize = 8;
/// More calls than any import here needs.
const MAX_CALLS: usize = 200;
const PATH: &str = "/v1/pages/page-1/import";

type Invocation<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

/// One import, its fault, and its frozen invocations.
struct FaultyImport<'a> {
    stack: &'a TestStack,
    plan: Arc<FaultPlan>,
    frozen: Vec<Invocation<'a>>,
}

impl<'a> FaultyImport<'a> {
    /// Invokes a function until it ends, dies or freezes; returns its result, or false if it does not end.
    async fn invoke(&mut self, mut invocation: Invocation<'a>) -> bool {
        self.plan.set_counting(true);
        let ended = tokio::select! {
            ended = &mut invocation => ended,
            () = self.plan.stopped() => {
                if self.plan.is_frozen() {
                    self.frozen.push(invocation);
                }
                false
            }
        };
        self.plan.set_counting(false);
        ended
    }

    /// Requests the import, again until there is an answer, as a caller does.
    async fn start(&mut self) {
        let stack = self.stack;
        for _ in 0..5 {
            let accepted = self.invoke(Box::pin(async move {
                let answer = stack.call("POST", PATH, None, None).await;
                answer.status == StatusCode::ACCEPTED
            }));
            if accepted.await {
                return;
            }
        }
        panic!("the request is never accepted")
    }

    /// Processes wake-ups and advances the clock until the import is completed.
    async fn finish(&mut self) -> Value {
        let stack = self.stack;
        for _ in 0..40 {
            while let Some(wake_up) = stack.receive().await {
                stack.delete(&wake_up).await;
                let processed = self.invoke(Box::pin(async move {
                    stack.process_job(&wake_up).await;
                    true
                }));
                processed.await;
            }
            let import = stack.page_import(PAGES[0]).await;
            if import["status"] == "completed" {
                return import;
            }
            stack.advance(TICK_INTERVAL);
            let ticked = self.invoke(Box::pin(async move {
                let ends = Instant::now() + Duration::from_secs(30);
                // A failed tick is repeated by the next one.
                scheduled::handle(&stack.app, ends).await.is_ok()
            }));
            ticked.await;
        }
        panic!("the import does not complete: {:#}", stack.page_import(PAGES[0]).await)
    }
}

/// Imports three people in two parts while a fault is injected at one call; returns the name of that call.
async fn import_with_fault(at: Option<usize>, fault: InjectedFault) -> Option<String> {
    let plan = FaultPlan::new(at.map(|at| (at, fault)));
    let services = Services::start().await;
    let endpoints = plan.start_proxies(&services.endpoints).await;
    let stack = TestStack::start_on(services, &endpoints, &[("MESSENGER_TIMEOUT_SECONDS", "2")]).await;
    let people = stack.give_people(PAGES[0], 3, 2);
    let mut run = FaultyImport {
        stack: &stack,
        plan: Arc::clone(&plan),
        frozen: Vec::new(),
    };

    run.start().await;
    let import = run.finish().await;
    let injected_at = plan.injected().pop().map(|(call, _)| call);
    let context = format!("{fault:?} at call {at:?}, {injected_at:?}");
    check(&stack, &people, &import, &context).await;
    for frozen in std::mem::take(&mut run.frozen) {
        plan.thaw();
        let thawed = tokio::time::timeout(Duration::from_secs(60), frozen).await;
        assert!(thawed.is_ok(), "{context}: a thawed invocation does not end");
        let import = run.finish().await;
        check(&stack, &people, &import, &format!("{context}, thawed")).await;
    }
    injected_at
}

/// Checks that each person is a contact under its name, and that the import counts each conversation once.
async fn check(stack: &TestStack, people: &People, import: &Value, context: &str) {
    for n in 0..people.count {
        let (id, name) = people.person(n);
        let contact = stack.call("GET", &format!("/v1/contacts/{id}"), None, None).await.body;
        let shown = ["page_id", "name", "source"].map(|field| &contact[field]);
        assert_eq!(
            shown,
            [&json!(PAGES[0]), &json!(name), &json!("conversations")],
            "{context}"
        );
    }
    let count = |name: &str| import[name].as_u64().unwrap();
    assert_eq!(count("conversations"), 3, "{context}: {import:#}");
    assert_eq!(count("created") + count("known"), 3, "{context}: {import:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_at_any_call_leaves_nobody_out() {
    assert_eq!(import_with_fault(None, InjectedFault::Fails).await, None);
    // The first call, by fault, that an import did not make any more.
    let ends = InjectedFault::ALL.map(|_| AtomicUsize::new(usize::MAX));
    let runs = (0..MAX_CALLS).flat_map(|at| {
        InjectedFault::ALL
            .iter()
            .zip(&ends)
            .map(move |(fault, end)| (at, *fault, end))
    });
    let runs = stream::iter(runs).map(|(at, fault, end)| async move {
        if at > end.load(Ordering::SeqCst) {
            return None;
        }
        let call = import_with_fault(Some(at), fault).await;
        if call.is_none() {
            end.fetch_min(at, Ordering::SeqCst);
        }
        Some((at, fault, call?))
    });
    let runs: Vec<_> = runs.buffer_unordered(CONCURRENT).collect().await;
    let mut injected = Vec::new();
    for (fault, end) in InjectedFault::ALL.iter().zip(ends) {
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
        "{} faults injected at {} kinds of calls of an import: nobody left out",
        injected.len(),
        kinds.len()
    );
    for kind in ["UpdateItem", "SendMessage", "/conversations"] {
        assert!(kinds.iter().any(|call| call.contains(kind)), "{kinds:?}");
    }
}

/// The longest time without progress of an import before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the import has read so many conversations, or is over; returns its report.
async fn has_read(up: &UpProcess, conversations: u64) -> Value {
    let (mut read, mut since) = (0, Instant::now());
    loop {
        let import = up.call("GET", PATH, &Value::Null).await;
        assert_ne!(import["status"], "halted", "{import:#}");
        let now = import["conversations"].as_u64().unwrap();
        if now >= conversations || import["status"] == "completed" {
            return import;
        }
        if now > read {
            (read, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "{import:#}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Checks that each person is a contact under its name.
async fn check_people(up: &UpProcess, people: &People) {
    let ids = stream::iter(0..people.count).map(|n| async move {
        let (id, name) = people.person(n);
        let contact = up.call("GET", &format!("/v1/contacts/{id}"), &Value::Null).await;
        assert_eq!(
            (&contact["name"], &contact["page_id"]),
            (&json!(name), &json!("page-1")),
            "{id}"
        );
    });
    ids.buffer_unordered(8).collect::<Vec<_>>().await;
}

/// Gives every tenth person a tag.
async fn tag_every_tenth(up: &UpProcess, people: &People) -> BTreeSet<String> {
    let tagged: Vec<_> = (0..people.count).step_by(10).map(|n| people.person(n).0).collect();
    for ids in tagged.chunks(1_000) {
        let changed = up
            .call(
                "POST",
                "/v1/contacts/tags",
                &json!({"add": ["vip"], "contact_ids": ids}),
            )
            .await;
        assert_eq!(changed["changed"], ids.len(), "{changed:#}");
    }
    tagged.into_iter().collect()
}

/// Sends to the people with the tag, and kills the stack so many times meanwhile: each of them gets it once, or is in doubt, and
/// nobody else gets it.
async fn broadcast_to_tagged(installation: &Installation, mut up: UpProcess, tagged: BTreeSet<String>, kills: usize) {
    let body = json!({"audience": {"page_id": "page-1", "tags_any": ["vip"]}, "message": {"text": "We open at nine."}});
    let accepted = up.call("POST", "/v1/broadcasts", &body).await;
    let id = accepted["broadcast_id"].as_str().unwrap();
    for kill in 1..=kills {
        installation.has_received(kill * tagged.len() / (kills + 2)).await;
        up.kill_all();
        up = installation.up();
    }
    let report = completed(&up, id).await;

    let mut received = BTreeMap::<_, usize>::new();
    for message in installation.sandbox.received() {
        *received.entry(message.contact_id).or_default() += 1;
    }
    let path = format!("/v1/broadcasts/{id}/deliveries?status=in_doubt&limit=1000");
    let in_doubt = up.call("GET", &path, &Value::Null).await;
    let in_doubt = in_doubt["items"].as_array().unwrap().iter();
    let in_doubt: BTreeSet<_> = in_doubt
        .map(|row| row["contact_id"].as_str().unwrap().to_owned())
        .collect();
    println!(
        "{} with the tag, the stack killed {kills} times: {} received it, {} in doubt",
        tagged.len(),
        received.len(),
        in_doubt.len()
    );
    assert!(received.values().all(|messages| *messages == 1));
    let reached: BTreeSet<_> = received.into_keys().chain(in_doubt).collect();
    assert_eq!(reached, tagged);
    assert_eq!(report["contacts"]["accepted"], tagged.len());
}

/// Imports so many people, shown so many at once, while the stack is killed so many times, and sends to a tenth of them.
async fn import_with_kills(people: &People, kills: usize) {
    let installation = Installation::new(&["page-1"], 300).await;
    let sandbox = &installation.sandbox;
    sandbox.set_people("page-1", people.clone());
    let mut up = installation.up();
    let begun = Instant::now();
    let answer = up.send("POST", PATH, None, &Value::Null).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let mut read = 0;
    for kill in 1..=kills {
        let share = (kill * people.count / (kills + 1)) as u64;
        let import = has_read(&up, share.max(read + 1)).await;
        assert_ne!(import["status"], "completed", "killed too late");
        read = import["conversations"].as_u64().unwrap();
        println!("kill {kill} after {:.0?}: {read} conversations read", begun.elapsed());
        // Alternately `up` alone, whose functions then end by themselves, and all processes at once.
        match kill % 2 {
            1 => up.kill(),
            _ => up.kill_all(),
        }
        up = installation.up();
    }
    let import = has_read(&up, u64::MAX).await;
    let took = begun.elapsed();
    let calls = sandbox.conversation_calls();

    let count = |name: &str| import[name].as_u64().unwrap();
    assert_eq!(import["status"], "completed");
    assert_eq!(count("conversations"), people.count as u64, "{import:#}");
    assert_eq!(count("created") + count("known"), people.count as u64, "{import:#}");
    assert!(sandbox.peak_conversation_calls_per_second() <= 2);
    check_people(&up, people).await;
    println!(
        "{} people imported, the stack killed {kills} times: {} created, {} known; {calls} calls in {:.0} s, {:.0} contacts a second",
        people.count,
        count("created"),
        count("known"),
        took.as_secs_f64(),
        people.count as f64 / took.as_secs_f64()
    );
    let tagged = tag_every_tenth(&up, people).await;
    broadcast_to_tagged(&installation, up, tagged, kills / 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn import_outlives_the_stack() {
    let people = People {
        at_once: Some(5),
        ..People::new(60)
    };
    import_with_kills(&people, 2).await;
}

/// The import takes nine minutes at Messenger's two calls a second, which no setting changes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a quarter of an hour: a named longer run"]
async fn ten_kills_of_an_import_of_a_hundred_thousand_leave_nobody_out() {
    import_with_kills(&People::new(100_000), 10).await;
}

/// A run ends in the middle, and the next goes on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes two minutes: a named longer run"]
async fn import_keeps_the_pace_of_two_calls_a_second() {
    const CALLS: usize = 180;
    let installation = Installation::new(&["page-1"], 30).await;
    let sandbox = &installation.sandbox;
    sandbox.set_people("page-1", People::new(100 * CALLS));
    for latency_ms in [0, 300] {
        sandbox.set_latency_ms(latency_ms);
        sandbox.forget_conversation_calls();
        let up = installation.up_with(&["--process-timeout", "70s"]);
        up.send("POST", PATH, None, &Value::Null).await;
        has_read(&up, u64::MAX).await;
        let times = sandbox.conversation_call_times("page-1");
        let mut gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let took = times[times.len() - 1] - times[1];
        gaps.sort_unstable();
        println!(
            "answers after {latency_ms} ms: {:.1} contacts a second; between two calls {} ms in the middle, {} ms in 99 of 100, {} ms at most",
            (100 * (CALLS - 1)) as f64 * 1_000.0 / took as f64,
            gaps[gaps.len() / 2],
            gaps[gaps.len() * 99 / 100],
            gaps[gaps.len() - 1]
        );
        assert_eq!(times.len(), CALLS + 1);
    }
}
