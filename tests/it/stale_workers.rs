//! Stale workers: a worker whose job another has claimed since changes neither the job nor another worker's rows, and still
//! settles its own sends.

use std::time::Duration;

use local::sandbox::{Answer, Fault};
use serde_json::json;
use shared::domain::backlog::{Backlog, Entry, Next, Progress};
use shared::domain::delivery::{Doubt, Reservation, State, Status};
use shared::domain::ids::{BroadcastId, ContactId};
use shared::store::deliveries::Reserve;
use shared::store::hand_over::HandOver;
use shared::store::jobs::{Claim, Claimed};
use shared::store::transactions::{Checkpoint, Checkpointed, Record};

use crate::fixture::by_hand::LEASE;
use crate::fixture::{PAGES, TestStack};

/// A stale worker that has reserved the first contact, and the worker that has claimed the job since.
struct StaleReservation {
    reservation: Reservation,
    contact: ContactId,
    new: Claim,
}

impl StaleReservation {
    async fn on(stack: &TestStack, id: &BroadcastId, contact_id: &str) -> Self {
        let job = stack.job(id).await.id();
        let contact = ContactId::parse(contact_id).unwrap();
        let old = stack.claim(&job).await;
        let reservation = stack.reserve(&old, &contact).await;
        stack.advance(LEASE + Duration::from_secs(1));
        Self {
            reservation,
            contact,
            new: stack.claim(&job).await,
        }
    }

    /// Returns the doubt that the new worker will write.
    async fn doubt(&self, stack: &TestStack) -> (Entry, Doubt) {
        let (store, now) = (&stack.app.store, stack.app.clock.now());
        let refused = store
            .deliveries()
            .reserve(&self.new.job, &self.contact, None, now)
            .await;
        let Reserve::Refused(seen) = refused.unwrap() else {
            panic!("reserved twice")
        };
        let segment = store.segments().get(&self.new.job.snapshot, 0).await.unwrap();
        let mut backlog = Backlog::new(1, 1, 0);
        backlog.load(segment.unwrap());
        let Next::Contact(entry) = backlog.next(now) else {
            panic!("the backlog is empty")
        };
        let doubt = Doubt {
            token: seen.token,
            reserved_at: seen.reserved_at,
            reason: "its sender was lost".to_owned(),
            ours: false,
            was: Status::Reserved,
        };
        (entry, doubt)
    }

    /// Records the outcome of the stale worker's send.
    async fn record_late(&self, stack: &TestStack, outcome: &State) -> Record {
        let (store, now) = (&stack.app.store, stack.app.clock.now());
        let recorded = store.transactions().record(&self.reservation, outcome, now).await;
        recorded.unwrap()
    }
}

async fn checkpoint_doubt(stack: &TestStack, claim: &mut Claim, doubt: (Entry, Doubt)) -> Checkpointed {
    let checkpoint = Checkpoint {
        doubts: &[doubt],
        ..Checkpoint::default()
    };
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    store.transactions().checkpoint(claim, &checkpoint, now).await.unwrap()
}

/// The stale worker has no segment to append.
#[tokio::test]
async fn stale_worker_cannot_checkpoint_or_hand_over() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let job = stack.job(&id).await.id();
    let mut old = stack.claim(&job).await;
    stack.advance(LEASE + Duration::from_secs(1));
    let _new = stack.claim(&job).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());

    let checkpointed = store
        .transactions()
        .checkpoint(&mut old, &Checkpoint::default(), now)
        .await
        .unwrap();
    let handed_over = store.jobs().hand_over(old, &HandOver::Completed, now).await.unwrap();

    assert!(matches!(checkpointed, Checkpointed::Stale), "{checkpointed:?}");
    assert!(handed_over.is_none(), "{handed_over:?}");
    assert_eq!(stack.report(&id).await["status"], "processing");
}

/// Messenger's answer comes after the new worker has put the row in doubt.
#[tokio::test]
async fn worker_losing_its_lease_mid_send_settles_its_delivery() {
    let stack = TestStack::start_with(&[("MESSENGER_TIMEOUT_SECONDS", "30")]).await;
    let ids = stack.import_contacts(3).await;
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Ok).to_contacts([&ids[1]]).after_ms(1_500));
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();

    let slow = stack.process_job(&wake_up);
    let takeover = async {
        while stack.deliveries(&id, "&status=sent").await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stack.advance(LEASE + Duration::from_secs(1));
        stack.process_job(&wake_up).await;
        let report = stack.report(&id).await;
        assert_eq!(
            (&report["status"], &report["counters"]["in_doubt"]),
            (&json!("completed"), &json!(1))
        );
    };
    tokio::join!(slow, takeover);

    let report = stack.report(&id).await;
    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["in_doubt"]),
        (&json!(3), &json!(0))
    );
    assert_eq!(stack.received(&id).len(), 3);
}

/// A contact that a newer worker has passed is not available at its old position in the backlog.
#[tokio::test]
async fn stamped_waiting_row_cannot_be_reserved_by_the_stale_worker() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    stack.sandbox.unreachable().await;
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();
    stack.process_job(&wake_up).await;
    let job = stack.job(&id).await;
    let contact = ContactId::parse(&ids[0]).unwrap();
    let due = job.due_at.unwrap();
    let mut newer = job.clone();
    newer.epoch += 1;

    let deliveries = stack.app.store.deliveries();
    let refused = deliveries.reserve(&newer, &contact, None, job.created_at).await;
    let Reserve::Refused(row) = refused.unwrap() else {
        panic!("reserved before it is due")
    };
    deliveries.stamp_if_waiting(&newer, &row).await.unwrap();
    // A stamp of the stale worker does not undo the newer one.
    deliveries.stamp_if_waiting(&job, &row).await.unwrap();
    let stale = deliveries.reserve(&job, &contact, None, due).await.unwrap();
    let current = deliveries.reserve(&newer, &contact, None, due).await.unwrap();

    assert!(matches!(stale, Reserve::Refused(_)), "{stale:?}");
    assert!(matches!(current, Reserve::Granted(_)), "{current:?}");
    assert_eq!(PAGES[0], job.page_id.to_string());
}

/// The engine itself stamps the row of a waiting contact that it passes.
#[tokio::test]
async fn new_worker_stamps_waiting_row_it_passes() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let old = stack.claim(&stack.job(&id).await.id()).await;
    let store = &stack.app.store;
    let contact = ContactId::parse(&ids[0]).unwrap();
    let due = stack.app.clock.now() + Duration::from_secs(3_600);
    let reservation = stack.reserve(&old, &contact).await;
    let waiting = State::Waiting {
        not_before: due,
        reason: "no connection".to_owned(),
    };
    store
        .transactions()
        .record(&reservation, &waiting, stack.app.clock.now())
        .await
        .unwrap();

    stack.advance(LEASE + Duration::from_secs(1));
    let wake_up = stack.receive().await.unwrap();
    stack.process_job(&wake_up).await;

    assert_eq!(stack.report(&id).await["counters"]["waiting"], 1);
    let stale = store.deliveries().reserve(&old.job, &contact, None, due).await.unwrap();
    assert!(matches!(stale, Reserve::Refused(_)), "{stale:?}");
}

/// A row that has entered and left doubt is in the counters; a worker that passes it does not count it again.
#[tokio::test]
async fn counted_row_is_not_counted_again() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast(&ids).await;
    let mut stale = StaleReservation::on(&stack, &id, &ids[0]).await;
    let doubt = stale.doubt(&stack).await;
    let written = checkpoint_doubt(&stack, &mut stale.new, doubt).await;
    assert!(matches!(written, Checkpointed::Written(None)), "{written:?}");

    // The stale worker gets its answer now, and a third worker starts at the beginning of the backlog.
    let sent = State::Sent {
        message_id: stack.deliver_by_hand(&id, &ids[0]).await,
    };
    let late = stale.record_late(&stack, &sent).await;
    assert!(matches!(late, Record::WrittenLate), "{late:?}");
    stack.advance(LEASE + Duration::from_secs(1));
    let report = stack.finish(&id).await;

    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["in_doubt"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(report["duplicates_prevented"]["reservation"], 1);
}

/// A refusal that arrives when the row is in doubt changes the row and the counters together, as an acceptance does.
#[tokio::test]
async fn late_refusal_is_counted() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast(&ids).await;
    let mut stale = StaleReservation::on(&stack, &id, &ids[0]).await;
    let doubt = stale.doubt(&stack).await;
    checkpoint_doubt(&stack, &mut stale.new, doubt).await;
    let refused = State::Failed {
        reason: "Messenger error 551".to_owned(),
    };

    let late = stale.record_late(&stack, &refused).await;
    stack.advance(LEASE + Duration::from_secs(1));
    let report = stack.finish(&id).await;

    assert!(matches!(late, Record::WrittenLate), "{late:?}");
    let counters = &report["counters"];
    assert_eq!(
        [&counters["sent"], &counters["failed"], &counters["in_doubt"]],
        [&json!(1), &json!(1), &json!(0)]
    );
}

/// A segment joins the backlog together with the cursor and the counters, or not at all.
#[tokio::test]
async fn stale_worker_cannot_append_a_segment() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast(&ids).await;
    let mut stale = StaleReservation::on(&stack, &id, &ids[0]).await;
    let doubt = stale.doubt(&stack).await;
    stack.advance(LEASE + Duration::from_secs(1));
    let newest = stack.claim(&stack.job(&id).await.id()).await;
    let requeued = (ContactId::parse(&ids[1]).unwrap(), stack.app.clock.now());
    let checkpoint = Checkpoint {
        progress: Progress {
            cursor: 2,
            waiting: 1,
            requeued: vec![requeued],
            ..Progress::default()
        },
        doubts: &[doubt],
        ..Checkpoint::default()
    };

    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let written = store
        .transactions()
        .checkpoint(&mut stale.new, &checkpoint, now)
        .await
        .unwrap();

    assert!(matches!(written, Checkpointed::Stale), "{written:?}");
    let job = stack.job(&id).await;
    assert_eq!((job.segments, job.cursor), (1, 0));
    assert_eq!(job.outcomes, newest.job.outcomes);
    let appended = store.segments().get(&job.snapshot, 1).await.unwrap();
    assert!(appended.is_none(), "{appended:?}");
}

/// A row that changes after the worker saw it is left out of the checkpoint, and handled as found.
#[tokio::test]
async fn row_settled_meanwhile_is_not_put_in_doubt() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let mut stale = StaleReservation::on(&stack, &id, &ids[0]).await;
    let doubt = stale.doubt(&stack).await;
    let sent = State::Sent {
        message_id: stack.deliver_by_hand(&id, &ids[0]).await,
    };
    stale.record_late(&stack, &sent).await;

    let changed = checkpoint_doubt(&stack, &mut stale.new, doubt).await;

    let Checkpointed::Changed(rows) = changed else {
        panic!("{changed:?}")
    };
    assert_eq!((rows[0].0, &rows[0].1.state), (0, &sent));
    assert_eq!(stack.job(&id).await.outcomes.in_doubt, 0);
}

/// The worker becomes stale with many outcomes unwritten and many sends in flight: it starts no further send, awaits the sends
/// in flight, and ends.
#[tokio::test]
async fn stale_worker_with_sends_in_flight_terminates() {
    let stack = TestStack::start_with(&[("MESSENGER_TIMEOUT_SECONDS", "30")]).await;
    let ids = stack.import_contacts(600).await;
    let slow = ids.iter().step_by(8);
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Ok).to_contacts(slow).after_ms(3_000));
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();

    let work = stack.process_job(&wake_up);
    let takeover = async {
        while stack.sandbox.received_count() < 50 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let job = stack.job(&id).await.id();
        // Retried until it is between two checkpoints of the worker, each of which extends the lease by the same clock.
        loop {
            stack.advance(LEASE + Duration::from_secs(1));
            let claimed = stack.app.store.jobs().claim(&job, LEASE, stack.app.clock.now()).await;
            if let Claimed::Won(_) = claimed.unwrap() {
                break;
            }
        }
    };
    let both = async { tokio::join!(work, takeover) };
    let ended = tokio::time::timeout(Duration::from_secs(60), both).await;

    assert!(ended.is_ok(), "the worker does not end");
    stack.delete(&wake_up).await;
    assert!(
        stack.sandbox.received_count() < 600,
        "the worker was done before it became stale"
    );
    stack.sandbox.clear_faults();
    stack.advance(LEASE + Duration::from_secs(1));
    let report = stack.finish(&id).await;
    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["in_doubt"]),
        (&json!(600), &json!(0))
    );
}
