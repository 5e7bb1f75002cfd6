//! Metrics: each written outcome is counted once, however often the write is tried, and the emitted records add up to it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use local::sandbox::{Answer, Fault, GraphError, Sandbox};
use serde_json::{Value, json};
use shared::domain::delivery::State;
use shared::domain::ids::ContactId;
use shared::reconcile::settle::{EchoResult, settle_by_echo};
use shared::store::transactions::Record;
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep};

use crate::fixture::up::UpProcess;
use crate::fixture::{PAGES, TestStack};

type Counts = BTreeMap<String, u64>;

/// Returns expected counts.
pub fn counts<const N: usize>(counts: [(&str, u64); N]) -> Counts {
    counts.map(|(name, count)| (name.to_owned(), count)).into()
}

/// Returns the events that the functions of this stack have counted.
pub fn count_events(stack: &TestStack) -> Counts {
    summed(&stack.metrics())
}

/// Sums the counts of these EMF records, by metric and, if there is one, by the value of its dimension.
fn summed(lines: &[Value]) -> Counts {
    let mut sums = Counts::new();
    for line in lines {
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        for metric in directive["Metrics"].as_array().unwrap() {
            let name = metric["Name"].as_str().unwrap();
            let layer = line["Layer"].as_str();
            let full = layer.map_or(name.to_owned(), |layer| format!("{name} {layer}"));
            *sums.entry(full).or_default() += line[name].as_u64().unwrap();
        }
    }
    sums
}

/// The echo and the answer both prove that the message was sent; it is counted once.
#[tokio::test]
async fn echo_before_the_response_is_counted_once() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let claim = stack.claim(&stack.job(&id).await.id()).await;
    let contact = ContactId::parse(&ids[0]).unwrap();
    let reservation = stack.reserve(&claim, &contact).await;

    let message_id = stack.deliver_by_hand(&id, &ids[0]).await;
    let echoed = settle_by_echo(&stack.app, &reservation.metadata(), &message_id).await;
    let sent = State::Sent { message_id };
    let later = now + Duration::from_millis(500);
    let recorded = store.transactions().record(&reservation, &sent, later).await.unwrap();

    assert_eq!(echoed.unwrap(), EchoResult::Settled);
    assert!(matches!(recorded, Record::Written), "{recorded:?}");
    assert_eq!(count_events(&stack), counts([("Sent", 1)]));
}

/// The index still shows the delivery as in doubt.
#[tokio::test]
async fn delivery_that_has_just_been_settled_is_not_the_oldest_doubt() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast_with_doubts(&ids, &[0], &[]).await;
    stack.let_reads_catch_up();
    let doubts = stack.app.store.doubts();
    assert!(doubts.oldest().await.unwrap().is_some());

    for (metadata, message_id) in stack.echoes(&id) {
        settle_by_echo(&stack.app, &metadata, &message_id).await.unwrap();
    }

    assert_eq!(doubts.oldest().await.unwrap(), None);
}

/// One contact is refused and one rate-limited once; two sends get no answer, one of which arrives; a Page has no token; ids
/// and the request are repeated.
#[tokio::test]
async fn emitted_metrics_add_up_to_the_outcomes() {
    let token = [(PAGES[0].to_owned(), "EAAB-token".to_owned())];
    let sandbox = Sandbox::start(token.clone().into()).await.unwrap();
    let fault = |fault: Fault, id: &str| sandbox.add_fault(fault.to_contacts([id]));
    fault(Fault::answering(GraphError::new(551, "blocked")), "c01");
    fault(Fault::answering(GraphError::new(613, "too fast")).times(1), "c02");
    fault(Fault::answering(Answer::Reset).but_arriving(), "c03");
    fault(Fault::answering(Answer::Reset), "c04");
    let mut tokens = NamedTempFile::new().unwrap();
    write!(tokens, "{}", json!(BTreeMap::from(token))).unwrap();
    let up = UpProcess::start(
        &[
            "--graph-url",
            &sandbox.url(),
            "--page-tokens",
            tokens.path().to_str().unwrap(),
        ],
        &[
            ("METRICS_NAMESPACE", "Oncecast/test"),
            ("INLINE_LIMIT", "0"),
            ("RETRY_BASE_SECONDS", "1"),
            ("DOUBT_CHECK_SECONDS", "3,12"),
        ],
    );
    let ids: Vec<_> = (0..30).map(|n| format!("c{n:02}")).collect();
    let contact = |(n, id): (usize, &String)| {
        let page = if n == 29 { "page-without-token" } else { PAGES[0] };
        json!({"contact_id": id, "page_id": page})
    };
    let contacts: Vec<_> = ids.iter().enumerate().map(contact).collect();
    up.call("PUT", "/v1/contacts", &json!({"contacts": contacts})).await;
    let twice = [&ids[..], &ids[..2]].concat();
    let body = json!({"contact_ids": twice, "message": {"text": "Hi"}});
    up.call("POST", "/v1/broadcasts", &body).await;
    up.call("POST", "/v1/broadcasts", &body).await;

    let printed = || {
        let lines = up.printed().into_iter();
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        lines.collect::<Vec<_>>()
    };
    let ends = Instant::now() + Duration::from_secs(90);
    let is_over = |lines: &[Value]| summed(lines).contains_key("DoubtsLeft");
    while !is_over(&printed()) {
        assert!(Instant::now() < ends, "{:#?}", summed(&printed()));
        sleep(Duration::from_millis(100)).await;
    }

    let lines = printed();
    let gauge = |line: &Value| line["OldestDoubtSeconds"].as_u64();
    let ages: Vec<_> = lines.iter().filter_map(gauge).collect();
    assert!(ages.iter().any(|age| *age >= 11), "{ages:?}");
    assert_eq!((ages.first(), ages.last()), (Some(&0), Some(&0)), "{ages:?}");
    let mut sums = summed(&lines);
    sums.remove("OldestDoubtSeconds");
    let expected = [
        ("Sent", 27),
        ("Failed", 1),
        ("InDoubt", 2),
        ("DoubtsSettled", 1),
        ("DoubtsLeft", 1),
        ("RateLimitWaits", 1),
        ("JobsCompleted", 1),
        ("JobsHalted", 1),
        ("DuplicatesPrevented request", 2),
        ("DuplicatesPrevented replay", 1),
    ];
    assert_eq!(sums, counts(expected));
}
