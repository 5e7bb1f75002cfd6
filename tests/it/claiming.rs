//! One worker at a time has a job; who comes second does nothing, and who was overtaken harms nothing.

use std::time::Duration;

use serde_json::json;
use shared::ids::JobId;
use shared::store::deliveries::Reserve;
use shared::store::jobs::{Checkpoint, Checkpointed, Claim, Claimed, HandOver};
use shared::store::pages::Acquired;

use crate::stack::{PAGES, Stack};
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
    let contact = shared::ids::ContactId::parse(&ids[0]).unwrap();
    let (store, now) = (&stack.app.store, stack.app.clock.now());

    let (a, b) = tokio::join!(
        store.reserve(&old.job, &contact, now),
        store.reserve(&new.job, &contact, now)
    );

    let granted = [a.unwrap(), b.unwrap()]
        .into_iter()
        .filter(|reserve| matches!(reserve, Reserve::Granted(_)));
    assert_eq!(granted.count(), 1);
}

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

    assert!(matches!(same, Acquired::SameJob), "{same:?}");
    assert!(
        matches!(other, Acquired::NotBefore(until) if until == now + LEASE),
        "{other:?}"
    );
    assert!(matches!(released, Acquired::Lease(_)), "{released:?}");
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
    let contact = shared::ids::ContactId::parse(&ids[0]).unwrap();
    let (store, due) = (&stack.app.store, job.due_at.unwrap());
    let mut newer = job.clone();
    newer.epoch += 1;

    let Reserve::Refused(row) = store
        .reserve(&newer, &contact, job.created_at)
        .await
        .unwrap()
    else {
        panic!()
    };
    store.stamp(&newer, &row).await.unwrap();
    let stale = store.reserve(&job, &contact, due).await.unwrap();
    let current = store.reserve(&newer, &contact, due).await.unwrap();

    assert!(matches!(stale, Reserve::Refused(_)), "{stale:?}");
    assert!(matches!(current, Reserve::Granted(_)), "{current:?}");
    assert_eq!(PAGES[0], job.page_id.to_string());
}
