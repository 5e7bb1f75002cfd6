//! Metrics: what is counted is what was written, however often it was tried; and what is printed adds up to it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use local::sandbox::{Answer, Fault, GraphError, Sandbox};
use serde_json::{Value, json};
use shared::delivery::State;
use shared::ids::ContactId;
use shared::settle::{Heard, settle_by_echo};
use shared::store::deliveries::{Record, Reserve};
use shared::store::jobs::Claimed;
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep};

use crate::stack::{PAGES, Stack};
use crate::up::Up;

type Counts = BTreeMap<String, u64>;

pub fn of<const N: usize>(counts: [(&str, u64); N]) -> Counts {
    counts.map(|(name, count)| (name.to_owned(), count)).into()
}

/// What the functions of this stack have counted.
pub fn counted_in(stack: &Stack) -> Counts {
    summed(&stack.metrics())
}

/// The sums of these lines; of what has a dimension, by its value.
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

/// Its echo and its answer both say that a message was sent: it was sent once.
#[tokio::test]
async fn an_echo_that_is_quicker_than_the_answer_is_not_counted_twice() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (job, lease) = (stack.job(&id).await.id(), Duration::from_secs(90));
    let Claimed::Won(claim) = store.claim(&job, lease, now).await.unwrap() else {
        panic!("not claimed");
    };
    let contact = ContactId::parse(&ids[0]).unwrap();
    let reserved = store
        .reserve(&claim.job, &contact, None, now)
        .await
        .unwrap();
    let Reserve::Granted(reservation) = reserved else {
        panic!("not reserved");
    };

    let message_id = stack.deliver_by_hand(&id, &ids[0]).await;
    let heard = settle_by_echo(&stack.app, &reservation.metadata(), &message_id).await;
    let sent = State::Sent { message_id };
    let later = now + Duration::from_millis(500);
    let recorded = store.record(&reservation, &sent, later).await.unwrap();

    assert_eq!(heard.unwrap(), Heard::Settled);
    assert!(matches!(recorded, Record::Written), "{recorded:?}");
    assert_eq!(counted_in(&stack), of([("Sent", 1)]));
}

/// One is refused for ever, one for a while, two are not answered, of which one arrived; a Page has no token; ids and the
/// request are repeated.
#[tokio::test]
async fn what_is_printed_adds_up_to_what_became_of_everybody() {
    let token = [(PAGES[0].to_owned(), "EAAB-token".to_owned())];
    let sandbox = Sandbox::start(token.clone().into()).await.unwrap();
    let fault = |fault: Fault, id: &str| sandbox.add_fault(fault.to_contacts([id]));
    fault(Fault::answering(GraphError::new(551, "blocked")), "c01");
    fault(
        Fault::answering(GraphError::new(613, "too fast")).times(1),
        "c02",
    );
    fault(Fault::answering(Answer::Reset).but_arriving(), "c03");
    fault(Fault::answering(Answer::Reset), "c04");
    let mut tokens = NamedTempFile::new().unwrap();
    write!(tokens, "{}", json!(BTreeMap::from(token))).unwrap();
    let up = Up::start(
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
            ("DOUBT_CHECK_SECONDS", "3,15"),
        ],
    );
    let ids: Vec<_> = (0..30).map(|n| format!("c{n:02}")).collect();
    let contact = |(n, id): (usize, &String)| {
        let page = if n == 29 {
            "page-without-token"
        } else {
            PAGES[0]
        };
        json!({"contact_id": id, "page_id": page})
    };
    let contacts: Vec<_> = ids.iter().enumerate().map(contact).collect();
    up.call("PUT", "/v1/contacts", &json!({"contacts": contacts}))
        .await;
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
    assert!(ages.iter().any(|age| *age >= 14), "{ages:?}");
    assert_eq!(
        (ages.first(), ages.last()),
        (Some(&0), Some(&0)),
        "{ages:?}"
    );
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
    assert_eq!(sums, of(expected));
}
