//! Claims, reservations and leases: one worker at a time has a job, and one may send to a contact.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use shared::domain::delivery::State;
use shared::domain::ids::ContactId;
use shared::store::deliveries::Reserve;
use shared::store::jobs::Claimed;
use shared::store::page_leases::Acquired;
use shared::store::transactions::Record;

use crate::fixture::by_hand::LEASE;
use crate::fixture::proxy::{self, Reply};
use crate::fixture::{Endpoints, Services, TestStack};

#[tokio::test]
async fn one_of_two_racing_workers_processes_the_job() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(100).await;
    stack.sandbox.set_latency_ms(100);
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();

    let (a, b) = tokio::join!(stack.process_job(&wake_up), stack.process_job(&wake_up));

    assert!(a.batch_item_failures.is_empty() && b.batch_item_failures.is_empty());
    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["sent"]),
        (&json!("completed"), &json!(100))
    );
    assert_eq!(report["duplicates_prevented"]["claim"], 1);
}

/// Two invocations in one process are two claims.
#[tokio::test]
async fn one_of_two_concurrent_claims_wins() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let job = stack.job(&id).await.id();
    let (jobs, now) = (stack.app.store.jobs(), stack.app.clock.now());

    let (a, b) = tokio::join!(jobs.claim(&job, LEASE, now), jobs.claim(&job, LEASE, now));

    let won = [a.unwrap(), b.unwrap()]
        .into_iter()
        .filter(|claimed| matches!(claimed, Claimed::Won(_)));
    assert_eq!((won.count(), stack.job(&id).await.epoch), (1, 1));
}

#[tokio::test]
async fn lease_expiry_allows_claim() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let job = stack.job(&id).await.id();
    let first = stack.claim(&job).await;

    let refused = stack
        .app
        .store
        .jobs()
        .claim(&job, LEASE, stack.app.clock.now())
        .await
        .unwrap();
    stack.advance(LEASE + Duration::from_secs(1));
    let second = stack.claim(&job).await;

    assert!(matches!(refused, Claimed::HeldByAnother), "{refused:?}");
    assert_eq!((first.job.epoch, second.job.epoch), (1, 2));
}

#[tokio::test]
async fn one_of_two_racing_workers_reserves_the_contact() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let job = stack.job(&id).await.id();
    let old = stack.claim(&job).await;
    stack.advance(LEASE + Duration::from_secs(1));
    let new = stack.claim(&job).await;
    let contact = ContactId::parse(&ids[0]).unwrap();
    let (deliveries, now) = (stack.app.store.deliveries(), stack.app.clock.now());

    let (a, b) = tokio::join!(
        deliveries.reserve(&old.job, &contact, None, now),
        deliveries.reserve(&new.job, &contact, None, now)
    );

    let granted = [a.unwrap(), b.unwrap()]
        .into_iter()
        .filter(|reserve| matches!(reserve, Reserve::Granted(_)));
    assert_eq!(granted.count(), 1);
}

#[tokio::test]
async fn duplicate_wake_up_is_processed_once() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(10).await;
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();

    stack.process_job(&wake_up).await;
    stack.process_job(&wake_up).await;

    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["sent"]),
        (&json!("completed"), &json!(10))
    );
    assert_eq!(stack.sandbox.received_count(), 10);
}

#[tokio::test]
async fn page_lease_is_held_by_one_job_at_a_time() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(52).await;
    let first = stack.broadcast(&ids[..26]).await;
    let second = stack.broadcast(&ids[26..]).await;
    let (leases, now) = (stack.app.store.page_leases(), stack.app.clock.now());
    let (first, second) = (stack.job(&first).await.id(), stack.job(&second).await.id());

    let Acquired::Lease(page) = leases.acquire(&first, LEASE, now).await.unwrap() else {
        panic!("the lease is not free")
    };
    let same = leases.acquire(&first, LEASE, now).await.unwrap();
    let other = leases.acquire(&second, LEASE, now).await.unwrap();
    leases.release_if_held(&page).await.unwrap();
    let released = leases.acquire(&second, LEASE, now).await.unwrap();
    // A late worker releases a lease that another job has by now.
    leases.release_if_held(&page).await.unwrap();
    let late = leases.acquire(&first, LEASE, now).await.unwrap();

    assert!(matches!(same, Acquired::SameJob(_)), "{same:?}");
    assert!(
        matches!(other, Acquired::Held(until) if until == now + LEASE),
        "{other:?}"
    );
    assert!(matches!(released, Acquired::Lease(_)), "{released:?}");
    assert!(matches!(late, Acquired::Held(_)), "{late:?}");
}

/// A large job that finds its Page leased is rescheduled for the end of that lease, not only by the queue's next delivery.
#[tokio::test]
async fn job_with_busy_page_is_rescheduled() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(52).await;
    let busy = stack.broadcast(&ids[..26]).await;
    let busy = stack.job(&busy).await.id();
    let id = stack.broadcast(&ids[26..]).await;
    let leases = stack.app.store.page_leases();
    let held = leases.acquire(&busy, LEASE, stack.app.clock.now()).await.unwrap();
    assert!(matches!(held, Acquired::Lease(_)), "{held:?}");

    let wake_up = stack.wake_up_for(&id).await;
    stack.process_job_for(&wake_up, Duration::from_secs(2)).await;

    let job = stack.job(&id).await;
    assert_eq!(stack.sandbox.received_count(), 0);
    let wake_at = job.wake_at.unwrap();
    assert!(wake_at <= stack.app.clock.now() + LEASE, "{wake_at}");
    stack.advance(LEASE + Duration::from_secs(1));
    let report = stack.finish(&id).await;
    assert_eq!(report["counters"]["sent"], 26);
}

/// The lease of the dead worker refuses the next one. Without a wake-up at its end the job would wait for minutes.
#[tokio::test]
async fn job_whose_worker_died_between_page_and_claim_is_woken_when_the_page_is_free() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(26).await;
    let id = stack.broadcast(&ids).await;
    let job = stack.job(&id).await.id();
    let leases = stack.app.store.page_leases();
    let held = leases.acquire(&job, LEASE, stack.app.clock.now()).await.unwrap();
    assert!(matches!(held, Acquired::Lease(_)), "{held:?}");

    stack.drain_queue().await;
    let refused = stack.report(&id).await;
    stack.advance(LEASE + Duration::from_secs(1));
    stack.let_reads_catch_up();
    stack.tick().await;
    stack.drain_queue().await;

    assert_eq!(refused["duplicates_prevented"]["claim"], 1);
    assert_eq!(stack.report(&id).await["counters"]["sent"], 26);
}

/// The worker is frozen between reserving and sending, for longer than the Messenger time-out by the wall clock.
#[tokio::test]
async fn worker_frozen_between_reserve_and_send_does_not_send() {
    worker_frozen_at_a_call_does_not_send(|call| call.contains("SET #status = :reserved")).await;
}

/// An erasure deletes the contact, and then the row that would refuse the reservation.
#[tokio::test]
async fn worker_frozen_between_reading_the_contact_and_reserve_does_not_send() {
    let reads_contact = |call: &str| {
        let reads = call.contains("\"ConsistentRead\":true") && call.contains("\"Key\":{\"contact_id\"");
        reads && !call.contains("\"job\"")
    };
    worker_frozen_at_a_call_does_not_send(reads_contact).await;
}

/// Freezes a worker for longer than Messenger's time-out at the first call to the database that is such a call.
async fn worker_frozen_at_a_call_does_not_send(is_such: impl Fn(&str) -> bool + Send + Sync + 'static) {
    let services = Services::start().await;
    let clock = services.clock.clone();
    let frozen = Arc::new(AtomicBool::new(false));
    let hook = {
        let frozen = Arc::clone(&frozen);
        move |call: &str| {
            if is_such(call) && !frozen.swap(true, Ordering::SeqCst) {
                clock.advance(SignedDuration::from_secs(30));
            }
            Reply::Arrives
        }
    };
    let endpoints = Endpoints {
        dynamodb: proxy::start_lossy(&services.endpoints.dynamodb, hook).await,
        ..services.endpoints.clone()
    };
    let stack = TestStack::start_on(services, &endpoints, &[]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;

    let wake_up = stack.receive().await.unwrap();
    stack.process_job(&wake_up).await;

    assert!(frozen.load(Ordering::SeqCst));
    assert_eq!(stack.job(&id).await.segments, 2, "the contact was not requeued");
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

/// An older reservation of the row must not decide its outcome.
#[tokio::test]
async fn outcome_is_recorded_only_under_its_own_reservation() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let claim = stack.claim(&stack.job(&id).await.id()).await;
    let contact = ContactId::parse(&ids[0]).unwrap();
    let first = stack.reserve(&claim, &contact).await;
    stack.write_waiting_by_hand(&claim.job.id(), &ids[0]).await;
    let second = stack.reserve(&claim, &contact).await;
    let failed = State::Failed {
        reason: "Messenger error 551".to_owned(),
    };

    let old = stack
        .app
        .store
        .transactions()
        .record(&first, &failed, stack.app.clock.now())
        .await
        .unwrap();
    let current = stack
        .app
        .store
        .transactions()
        .record(&second, &failed, stack.app.clock.now())
        .await
        .unwrap();

    assert!(matches!(old, Record::Refused(_)), "{old:?}");
    assert!(matches!(current, Record::Written), "{current:?}");
}
