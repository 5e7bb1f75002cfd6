//! One worker at a time has a job; who comes second does nothing, and who was overtaken harms nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::SignedDuration;

use serde_json::json;
use shared::delivery::State;
use shared::ids::{BroadcastId, ContactId, JobId};
use shared::line::{Entry, Line, Next, Progress};
use shared::store::deliveries::{Doubt, Record, Reservation, Reserve};
use shared::store::jobs::{Checkpoint, Checkpointed, Claim, Claimed, HandOver};
use shared::store::pages::Acquired;

use crate::proxy::{self, Fate};
use crate::stack::{Endpoints, PAGES, Services, Stack};
use local::sandbox::{Answer, Fault};

const LEASE: Duration = Duration::from_secs(90);

async fn claim(stack: &Stack, job: &JobId) -> Claim {
    match stack
        .app
        .store
        .claim(job, LEASE, stack.app.clock.now())
        .await
        .unwrap()
    {
        Claimed::Won(claim) => *claim,
        other => panic!("{other:?}"),
    }
}

async fn reserve(stack: &Stack, claim: &Claim, contact: &ContactId) -> Reservation {
    let reserved = stack
        .app
        .store
        .reserve(&claim.job, contact, None, stack.app.clock.now())
        .await
        .unwrap();
    match reserved {
        Reserve::Granted(reservation) => reservation,
        Reserve::Refused(row) => panic!("{row:?}"),
    }
}

/// A worker who has reserved the first contact, and another who has claimed the job since.
struct Overtaken {
    reservation: Reservation,
    contact: ContactId,
    new: Claim,
}

impl Overtaken {
    async fn on(stack: &Stack, id: &BroadcastId, contact_id: &str) -> Self {
        let job = stack.job(id).await.id();
        let contact = ContactId::parse(contact_id).unwrap();
        let old = claim(stack, &job).await;
        let reservation = reserve(stack, &old, &contact).await;
        stack.advance(LEASE + Duration::from_secs(1));
        Self {
            reservation,
            contact,
            new: claim(stack, &job).await,
        }
    }

    /// What the newer worker will put in doubt.
    async fn doubt(&self, stack: &Stack) -> (Entry, Doubt) {
        let (store, now) = (&stack.app.store, stack.app.clock.now());
        let refused = store.reserve(&self.new.job, &self.contact, None, now).await;
        let Reserve::Refused(seen) = refused.unwrap() else {
            panic!()
        };
        let mut line = Line::new(1, 1, 0);
        line.load(
            store
                .segment(&self.new.job.snapshot, 0)
                .await
                .unwrap()
                .unwrap(),
        );
        let Next::Contact(entry) = line.next(now) else {
            panic!()
        };
        let doubt = Doubt {
            token: seen.token,
            reserved_at: seen.reserved_at,
            reason: "its sender was lost".to_owned(),
            ours: false,
        };
        (entry, doubt)
    }

    /// The older worker has its answer at last.
    async fn record_late(&self, stack: &Stack, outcome: &State) -> Record {
        let (store, now) = (&stack.app.store, stack.app.clock.now());
        let recorded = store.record(&self.reservation, outcome, now).await;
        recorded.unwrap()
    }
}

async fn checkpoint_doubt(stack: &Stack, claim: &mut Claim, doubt: (Entry, Doubt)) -> Checkpointed {
    let what = Checkpoint {
        doubts: &[doubt],
        ..Checkpoint::default()
    };
    stack
        .app
        .store
        .checkpoint(claim, &what, stack.app.clock.now())
        .await
        .unwrap()
}

#[tokio::test]
async fn of_two_workers_racing_for_a_job_one_works() {
    let stack = Stack::start().await;
    let ids = stack.contacts(100).await;
    stack.sandbox.set_latency_ms(100);
    let id = stack.broadcast(&ids).await;
    let hint = stack.receive().await.unwrap();

    let (a, b) = tokio::join!(stack.process_job(&hint), stack.process_job(&hint));

    assert!(a.batch_item_failures.is_empty() && b.batch_item_failures.is_empty());
    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["sent"]),
        (&json!("completed"), &json!(100))
    );
    assert_eq!(report["duplicates_prevented"]["claim"], 1);
}

/// CHECKED 13: two invocations of one process are two.
#[tokio::test]
async fn of_two_claims_at_once_one_is_won() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let job = stack.job(&id).await.id();
    let (store, now) = (&stack.app.store, stack.app.clock.now());

    let (a, b) = tokio::join!(store.claim(&job, LEASE, now), store.claim(&job, LEASE, now));

    let won = [a.unwrap(), b.unwrap()]
        .into_iter()
        .filter(|claimed| matches!(claimed, Claimed::Won(_)));
    assert_eq!((won.count(), stack.job(&id).await.epoch), (1, 1));
}

#[tokio::test]
async fn a_claim_is_refused_while_the_lease_lives_and_won_after_it() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let job = stack.job(&id).await.id();
    let first = claim(&stack, &job).await;

    let refused = stack
        .app
        .store
        .claim(&job, LEASE, stack.app.clock.now())
        .await
        .unwrap();
    stack.advance(LEASE + Duration::from_secs(1));
    let second = claim(&stack, &job).await;

    assert!(matches!(refused, Claimed::HeldByAnother), "{refused:?}");
    assert_eq!((first.job.epoch, second.job.epoch), (1, 2));
}

#[tokio::test]
async fn of_two_workers_racing_for_a_contact_one_may_send() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let job = stack.job(&id).await.id();
    let old = claim(&stack, &job).await;
    stack.advance(LEASE + Duration::from_secs(1));
    let new = claim(&stack, &job).await;
    let contact = ContactId::parse(&ids[0]).unwrap();
    let (store, now) = (&stack.app.store, stack.app.clock.now());

    let (a, b) = tokio::join!(
        store.reserve(&old.job, &contact, None, now),
        store.reserve(&new.job, &contact, None, now)
    );

    let granted = [a.unwrap(), b.unwrap()]
        .into_iter()
        .filter(|reserve| matches!(reserve, Reserve::Granted(_)));
    assert_eq!(granted.count(), 1);
}

/// CHECKED 5, without a segment to append.
#[tokio::test]
async fn a_worker_that_was_overtaken_neither_checkpoints_nor_hands_over() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let job = stack.job(&id).await.id();
    let mut old = claim(&stack, &job).await;
    stack.advance(LEASE + Duration::from_secs(1));
    let _new = claim(&stack, &job).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());

    let checkpointed = store
        .checkpoint(&mut old, &Checkpoint::default(), now)
        .await
        .unwrap();
    let handed_over = store
        .hand_over(old, &HandOver::Completed, now)
        .await
        .unwrap();

    assert!(
        matches!(checkpointed, Checkpointed::Stale),
        "{checkpointed:?}"
    );
    assert_eq!(handed_over, None);
    assert_eq!(stack.report(&id).await["status"], "processing");
}

#[tokio::test]
async fn a_hint_delivered_twice_is_worked_off_once() {
    let stack = Stack::start().await;
    let ids = stack.contacts(10).await;
    let id = stack.broadcast(&ids).await;
    let hint = stack.receive().await.unwrap();

    stack.process_job(&hint).await;
    stack.process_job(&hint).await;

    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["sent"]),
        (&json!("completed"), &json!(10))
    );
    assert_eq!(stack.sandbox.received_count(), 10);
}

#[tokio::test]
async fn a_page_sends_for_one_job_at_a_time() {
    let stack = Stack::start().await;
    let ids = stack.contacts(2).await;
    let first = stack.broadcast(&ids[..1]).await;
    let second = stack.broadcast(&ids[1..]).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (first, second) = (stack.job(&first).await.id(), stack.job(&second).await.id());

    let Acquired::Lease(page) = store.acquire_page(&first, LEASE, now).await.unwrap() else {
        panic!()
    };
    let same = store.acquire_page(&first, LEASE, now).await.unwrap();
    let other = store.acquire_page(&second, LEASE, now).await.unwrap();
    store.release_page(&page).await.unwrap();
    let released = store.acquire_page(&second, LEASE, now).await.unwrap();
    // A worker that comes late gives back what is another's by now.
    store.release_page(&page).await.unwrap();
    let late = store.acquire_page(&first, LEASE, now).await.unwrap();

    assert!(matches!(same, Acquired::SameJob), "{same:?}");
    assert!(
        matches!(other, Acquired::Held(until) if until == now + LEASE),
        "{other:?}"
    );
    assert!(matches!(released, Acquired::Lease(_)), "{released:?}");
    assert!(matches!(late, Acquired::Held(_)), "{late:?}");
}

/// Whom a worker finds a Page held for is looked at again when it is free, not only when the queue says so.
#[tokio::test]
async fn a_job_whose_page_is_busy_comes_back() {
    let stack = Stack::start().await;
    let ids = stack.contacts(2).await;
    let busy = stack.broadcast(&ids[..1]).await;
    let busy = stack.job(&busy).await.id();
    let id = stack.broadcast(&ids[1..]).await;
    let Acquired::Lease(_) = stack
        .app
        .store
        .acquire_page(&busy, LEASE, stack.app.clock.now())
        .await
        .unwrap()
    else {
        panic!()
    };

    let hint = stack.hint_for(&id).await;
    stack.process_job_for(&hint, Duration::from_secs(2)).await;

    let job = stack.job(&id).await;
    assert_eq!(stack.sandbox.received_count(), 0);
    let wake_at = job.wake_at.unwrap();
    assert!(wake_at <= stack.app.clock.now() + LEASE, "{wake_at}");
    stack.advance(LEASE + Duration::from_secs(1));
    let report = stack.finish(&id).await;
    assert_eq!(report["counters"]["sent"], 1);
}

/// CHECKED 2: its answer comes after a newer worker has put the row in doubt.
#[tokio::test]
async fn a_worker_that_loses_its_lease_in_mid_send_still_settles_what_it_sent() {
    let stack = Stack::with(&[("MESSENGER_TIMEOUT_SECONDS", "30")]).await;
    let ids = stack.contacts(3).await;
    stack.sandbox.add_fault(
        Fault::answering(Answer::Ok)
            .to_contacts([&ids[1]])
            .after_ms(1_500),
    );
    let id = stack.broadcast(&ids).await;
    let hint = stack.receive().await.unwrap();

    let slow = stack.process_job(&hint);
    let overtaking = async {
        while stack.deliveries(&id, "&status=sent").await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stack.advance(LEASE + Duration::from_secs(1));
        stack.process_job(&hint).await;
        let report = stack.report(&id).await;
        assert_eq!(
            (&report["status"], &report["counters"]["in_doubt"]),
            (&json!("completed"), &json!(1))
        );
    };
    tokio::join!(slow, overtaking);

    let report = stack.report(&id).await;
    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["in_doubt"]),
        (&json!(3), &json!(0))
    );
    assert_eq!(stack.received(&id).len(), 3);
}

/// CHECKED 6: a contact passed by a newer worker is not to be had through its old place in line.
#[tokio::test]
async fn a_row_that_waits_is_stamped_by_who_passes_it() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    stack.sandbox.unreachable().await;
    let id = stack.broadcast(&ids).await;
    let hint = stack.receive().await.unwrap();
    stack.process_job(&hint).await;
    let job = stack.job(&id).await;
    let contact = ContactId::parse(&ids[0]).unwrap();
    let (store, due) = (&stack.app.store, job.due_at.unwrap());
    let mut newer = job.clone();
    newer.epoch += 1;

    let Reserve::Refused(row) = store
        .reserve(&newer, &contact, None, job.created_at)
        .await
        .unwrap()
    else {
        panic!()
    };
    store.stamp(&newer, &row).await.unwrap();
    // Who was overtaken does not take that back.
    store.stamp(&job, &row).await.unwrap();
    let stale = store.reserve(&job, &contact, None, due).await.unwrap();
    let current = store.reserve(&newer, &contact, None, due).await.unwrap();

    assert!(matches!(stale, Reserve::Refused(_)), "{stale:?}");
    assert!(matches!(current, Reserve::Granted(_)), "{current:?}");
    assert_eq!(PAGES[0], job.page_id.to_string());
}

/// CHECKED 9: frozen between reserving and sending, for longer than Messenger's time-out by the wall clock.
#[tokio::test]
async fn a_worker_that_was_frozen_before_it_sent_does_not_send() {
    let services = Services::start().await;
    let clock = services.clock.clone();
    let frozen = Arc::new(AtomicBool::new(false));
    let hook = {
        let frozen = Arc::clone(&frozen);
        move |call: &str| {
            let reserves = call.contains("SET #status = :reserved");
            if reserves && !frozen.swap(true, Ordering::SeqCst) {
                clock.advance(SignedDuration::from_secs(30));
            }
            Fate::Arrives
        }
    };
    let endpoints = Endpoints {
        dynamodb: proxy::start(&services.endpoints.dynamodb, hook).await,
        ..services.endpoints.clone()
    };
    let stack = Stack::over(services, &endpoints, &[]).await;
    let ids = stack.contacts(1).await;
    let id = stack.broadcast(&ids).await;

    let hint = stack.receive().await.unwrap();
    stack.process_job(&hint).await;

    assert!(frozen.load(Ordering::SeqCst));
    assert_eq!(
        stack.job(&id).await.segments,
        2,
        "did not stand in line again"
    );
    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["sent"]),
        (&json!("completed"), &json!(1))
    );
    let delivery = &stack.deliveries(&id, "").await[0];
    assert_eq!(
        (&delivery["status"], &delivery["attempts"]),
        (&json!("sent"), &json!(1))
    );
}

/// CHECKED 6, by the engine: the worker who walks past a contact that waits for later stamps the row.
#[tokio::test]
async fn a_worker_who_passes_a_waiting_row_shuts_out_the_one_before() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let old = claim(&stack, &stack.job(&id).await.id()).await;
    let store = &stack.app.store;
    let contact = ContactId::parse(&ids[0]).unwrap();
    let due = stack.app.clock.now() + Duration::from_secs(3_600);
    let reservation = reserve(&stack, &old, &contact).await;
    let waiting = State::Waiting {
        not_before: due,
        reason: "no connection".to_owned(),
    };
    store
        .record(&reservation, &waiting, stack.app.clock.now())
        .await
        .unwrap();

    stack.advance(LEASE + Duration::from_secs(1));
    let hint = stack.receive().await.unwrap();
    stack.process_job(&hint).await;

    assert_eq!(stack.report(&id).await["counters"]["waiting"], 1);
    let stale = store.reserve(&old.job, &contact, None, due).await.unwrap();
    assert!(matches!(stale, Reserve::Refused(_)), "{stale:?}");
}

/// CHECKED 4: a row that entered and left doubt is in the counters, and is not counted again by who walks past it.
#[tokio::test]
async fn a_row_that_is_counted_is_not_counted_again() {
    let stack = Stack::start().await;
    let ids = stack.contacts(2).await;
    let id = stack.broadcast(&ids).await;
    let mut overtaken = Overtaken::on(&stack, &id, &ids[0]).await;
    let doubt = overtaken.doubt(&stack).await;
    let written = checkpoint_doubt(&stack, &mut overtaken.new, doubt).await;
    assert!(
        matches!(written, Checkpointed::Written(None)),
        "{written:?}"
    );

    // The old worker has its answer now, and a third walks the line from its beginning.
    let sent = State::Sent {
        message_id: stack.deliver_by_hand(&id, &ids[0]).await,
    };
    let late = overtaken.record_late(&stack, &sent).await;
    assert!(matches!(late, Record::WrittenLate), "{late:?}");
    stack.advance(LEASE + Duration::from_secs(1));
    let report = stack.finish(&id).await;

    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["in_doubt"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(report["duplicates_prevented"]["reservation"], 1);
}

/// A refusal that comes when the row is in doubt moves it and the counters together, as an acceptance does.
#[tokio::test]
async fn a_refusal_that_comes_late_is_counted() {
    let stack = Stack::start().await;
    let ids = stack.contacts(2).await;
    let id = stack.broadcast(&ids).await;
    let mut overtaken = Overtaken::on(&stack, &id, &ids[0]).await;
    let doubt = overtaken.doubt(&stack).await;
    checkpoint_doubt(&stack, &mut overtaken.new, doubt).await;
    let refused = State::Failed {
        reason: "refused".to_owned(),
    };

    let late = overtaken.record_late(&stack, &refused).await;
    stack.advance(LEASE + Duration::from_secs(1));
    let report = stack.finish(&id).await;

    assert!(matches!(late, Record::WrittenLate), "{late:?}");
    let counters = &report["counters"];
    assert_eq!(
        [
            &counters["sent"],
            &counters["failed"],
            &counters["in_doubt"]
        ],
        [&json!(1), &json!(1), &json!(0)]
    );
}

/// CHECKED 5: a segment joins the line with the cursor and the counters, or not at all.
#[tokio::test]
async fn a_worker_that_was_overtaken_appends_nothing() {
    let stack = Stack::start().await;
    let ids = stack.contacts(2).await;
    let id = stack.broadcast(&ids).await;
    let mut overtaken = Overtaken::on(&stack, &id, &ids[0]).await;
    let doubt = overtaken.doubt(&stack).await;
    stack.advance(LEASE + Duration::from_secs(1));
    let newest = claim(&stack, &stack.job(&id).await.id()).await;
    let again = (ContactId::parse(&ids[1]).unwrap(), stack.app.clock.now());
    let what = Checkpoint {
        progress: Progress {
            cursor: 2,
            waiting: 1,
            again: vec![again],
            ..Progress::default()
        },
        doubts: &[doubt],
        ..Checkpoint::default()
    };

    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let written = store
        .checkpoint(&mut overtaken.new, &what, now)
        .await
        .unwrap();

    assert!(matches!(written, Checkpointed::Stale), "{written:?}");
    let job = stack.job(&id).await;
    assert_eq!((job.segments, job.cursor), (1, 0));
    assert_eq!(job.outcomes, newest.job.outcomes);
    let appended = store.segment(&job.snapshot, 1).await.unwrap();
    assert!(appended.is_none(), "{appended:?}");
}

/// CHECKED 14: what changed between being seen and being put in doubt is left out, and handled as found.
#[tokio::test]
async fn a_row_that_was_settled_meanwhile_is_not_put_in_doubt() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let mut overtaken = Overtaken::on(&stack, &id, &ids[0]).await;
    let doubt = overtaken.doubt(&stack).await;
    let sent = State::Sent {
        message_id: stack.deliver_by_hand(&id, &ids[0]).await,
    };
    overtaken.record_late(&stack, &sent).await;

    let changed = checkpoint_doubt(&stack, &mut overtaken.new, doubt).await;

    let Checkpointed::Changed(rows) = changed else {
        panic!("{changed:?}")
    };
    assert_eq!((rows[0].0, &rows[0].1.state), (0, &sent));
    assert_eq!(stack.job(&id).await.outcomes.in_doubt, 0);
}

/// CHECKED: token at record. Whoever held the row before may not say what became of it now.
#[tokio::test]
async fn an_outcome_is_recorded_under_its_own_reservation_only() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let claim = claim(&stack, &stack.job(&id).await.id()).await;
    let contact = ContactId::parse(&ids[0]).unwrap();
    let first = reserve(&stack, &claim, &contact).await;
    stack.write_waiting_by_hand(&claim.job.id(), &ids[0]).await;
    let second = reserve(&stack, &claim, &contact).await;
    let failed = State::Failed {
        reason: "refused".to_owned(),
    };

    let old = stack
        .app
        .store
        .record(&first, &failed, stack.app.clock.now())
        .await
        .unwrap();
    let current = stack
        .app
        .store
        .record(&second, &failed, stack.app.clock.now())
        .await
        .unwrap();

    assert!(matches!(old, Record::Refused(_)), "{old:?}");
    assert!(matches!(current, Record::Written), "{current:?}");
}

/// Overtaken with much unwritten and much in flight: it starts nothing more, sees its sends to their end, and ends.
#[tokio::test]
async fn a_fast_worker_that_was_overtaken_comes_to_its_end() {
    let stack = Stack::with(&[("MESSENGER_TIMEOUT_SECONDS", "30")]).await;
    let ids = stack.contacts(600).await;
    let slow = ids.iter().step_by(8);
    stack.sandbox.add_fault(
        Fault::answering(Answer::Ok)
            .to_contacts(slow)
            .after_ms(3_000),
    );
    let id = stack.broadcast(&ids).await;
    let hint = stack.receive().await.unwrap();

    let work = stack.process_job(&hint);
    let overtaking = async {
        while stack.sandbox.received_count() < 50 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let job = stack.job(&id).await.id();
        // Until it is between two checkpoints of the worker, which go by the same clock.
        loop {
            stack.advance(LEASE + Duration::from_secs(1));
            let claimed = stack.app.store.claim(&job, LEASE, stack.app.clock.now());
            if let Claimed::Won(_) = claimed.await.unwrap() {
                break;
            }
        }
    };
    let both = async { tokio::join!(work, overtaking) };
    let ended = tokio::time::timeout(Duration::from_secs(60), both).await;

    assert!(ended.is_ok(), "it goes on for ever");
    stack.delete(&hint).await;
    assert!(
        stack.sandbox.received_count() < 600,
        "it was not overtaken in the middle"
    );
    stack.advance(LEASE + Duration::from_secs(1));
    let report = stack.finish(&id).await;
    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["in_doubt"]),
        (&json!(600), &json!(0))
    );
}
