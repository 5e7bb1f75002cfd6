//! The pace of a Page: never above its rate, not slowed by a slow Messenger, and shared by its jobs: large ones take turns,
//! small and urgent ones go beside them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::ids::{BroadcastId, PageId};
use shared::store::page_leases::{Acquired, Demand, Taken};

use crate::fixture::by_hand::LEASE;
use crate::fixture::{PAGES, TestStack, request};

const RATE: (&str, &str) = ("PAGE_RATE_PER_SECOND", "30");
const INLINE: (&str, &str) = ("INLINE_LIMIT", "25");
/// The rate at which Messenger stops a Page.
const TOO_FAST: usize = 40;

impl TestStack {
    /// Processes wake-ups with so many workers at once until the queue is empty, each for this time.
    async fn work_at_once(&self, workers: usize, time: Duration) {
        let worker = async || {
            while let Some(wake_up) = self.receive().await {
                self.process_job_for(&wake_up, time).await;
                self.delete(&wake_up).await;
            }
        };
        join_all((0..workers).map(|_| worker())).await;
    }

    /// Works on wake-ups as they come, by ten workers, until this many messages are received.
    async fn work_until_received(&self, count: usize) {
        while self.sandbox.received_count() < count {
            self.work_at_once(10, Duration::from_secs(120)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_received(&self, count: usize) {
        while self.sandbox.received_count() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn demand(count: u32) -> Demand {
        Demand {
            count,
            length: Demand::length_of(count, 30.try_into().unwrap()),
            lead: SignedDuration::ZERO,
            ahead: SignedDuration::from_secs(8),
        }
    }

    async fn take_slots(&self, demand: Demand) -> Taken {
        let (pages, page, now) = (
            self.app.store.page_leases(),
            PageId::parse(PAGES[0]),
            self.app.clock.now(),
        );
        let taken = pages.take_slots(&page.unwrap(), None, demand, None, now).await;
        taken.unwrap()
    }
}

fn urgent(ids: &[String]) -> Value {
    let mut body = request(ids);
    body["priority"] = json!("high");
    body
}

#[tokio::test]
async fn sends_are_pipelined_within_the_rate() {
    let stack = TestStack::start_with(&[RATE]).await;
    let ids = stack.import_contacts(240).await;
    stack.sandbox.set_latency_ms(300);
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();

    let begun = Instant::now();
    stack.process_job(&wake_up).await;
    let took = begun.elapsed();

    assert_eq!(stack.report(&id).await["counters"]["sent"], 240);
    assert!((7..15).contains(&took.as_secs()), "240 contacts at 30/s took {took:?}");
    let peak = stack.sandbox.summary().peak_per_second;
    assert!(peak < TOO_FAST, "{peak} in a second");
    assert!(stack.sandbox.peak_in_flight() <= 60);
}

/// The jobs run side by side or one after the other, in any order; no job is forgotten, or halted because it waits.
#[tokio::test]
async fn fifty_jobs_on_one_page_all_complete() {
    const JOBS: usize = 50;
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "200")]).await;
    stack.sandbox.set_latency_ms(20);
    let ids = stack.import_contacts(26 * 10 + 2 * (JOBS - 10)).await;
    let (large, small) = ids.split_at(26 * 10);
    let mut broadcasts = Vec::new();
    for ids in large.chunks(26).chain(small.chunks(2)) {
        broadcasts.push(stack.broadcast(ids).await);
    }

    // Two concurrent workers, each with its own job; the queue itself would not deliver two wake-ups of large jobs of one Page
    // at once.
    let wake_up = async |id| {
        let wake_up = stack.wake_up_for(id).await;
        stack.process_job_for(&wake_up, Duration::from_secs(4)).await
    };
    for pair in broadcasts.chunks(2) {
        tokio::join!(wake_up(&pair[0]), wake_up(&pair[1]));
    }
    for id in &broadcasts {
        let report = stack.finish(id).await;
        assert_eq!(
            (&report["status"], &report["counters"]["pending"]),
            (&json!("completed"), &json!(0))
        );
    }

    assert_eq!(stack.sandbox.received_count(), ids.len());
}

#[tokio::test]
async fn small_broadcast_is_sent_beside_a_large_one() {
    let stack = TestStack::start_with(&[RATE, INLINE]).await;
    let ids = stack.import_contacts(243).await;
    let large = stack.broadcast(&ids[3..]).await;
    let wake_up = stack.receive().await.unwrap();

    let small = async {
        stack.until_received(20).await;
        let begun = Instant::now();
        let answer = stack.post(&request(&ids[..3])).await;
        (answer, begun.elapsed(), stack.report(&large).await)
    };
    let ((answer, took, report), _) = tokio::join!(small, stack.process_job(&wake_up));

    assert_eq!(
        (answer.status, &answer.body["counters"]["sent"]),
        (StatusCode::OK, &json!(3))
    );
    assert_eq!(report["status"], "processing", "the large broadcast was over before");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(stack.report(&large).await["counters"]["sent"], 240);
    let peak = stack.sandbox.summary().peak_per_second;
    assert!(peak < TOO_FAST, "{peak} in a second");
}

/// Each is a request of its own, and takes its slots itself.
#[tokio::test]
async fn many_small_broadcasts_at_once_reach_the_rate_and_keep_it() {
    let stack = TestStack::start_with(&[RATE, INLINE]).await;
    let ids = stack.import_contacts(90).await;

    let begun = Instant::now();
    let requests: Vec<_> = ids.chunks(1).map(request).collect();
    join_all(requests.iter().map(|body| stack.post(body))).await;
    stack.work_at_once(10, Duration::from_secs(60)).await;
    let took = begun.elapsed();

    assert_eq!(stack.sandbox.received_count(), 90);
    assert!(took >= Duration::from_millis(2_700), "{took:?}");
    let peak = stack.sandbox.summary().peak_per_second;
    assert!(peak < TOO_FAST, "{peak} in a second");
}

/// More than are sent within the time of a request; what is left goes on from the queue.
#[tokio::test]
async fn small_broadcasts_that_get_no_slot_in_time_are_left_to_the_queue() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "2"), INLINE]).await;
    let ids = stack.import_contacts(14).await;

    let requests: Vec<_> = ids.chunks(1).map(request).collect();
    let begun = Instant::now();
    let answers = join_all(requests.iter().map(|body| stack.post(body))).await;
    let took = begun.elapsed();
    let left = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::ACCEPTED)
        .count();
    assert!((2..14).contains(&left), "{left} left to the queue");
    assert!(took < Duration::from_secs(8), "{took:?}");

    stack.work_at_once(6, Duration::from_secs(60)).await;
    assert_eq!(stack.sandbox.received_count(), 14);
    let peak = stack.sandbox.summary().peak_per_second;
    assert!(peak <= 3, "{peak} in a second");
}

#[tokio::test]
async fn large_urgent_broadcast_is_sent_beside_another() {
    let stack = TestStack::start_with(&[RATE]).await;
    let ids = stack.import_contacts(240).await;
    let (normal, high) = ids.split_at(180);
    let normal = stack.broadcast(normal).await;
    let first = stack.receive().await.unwrap();

    let beside = async {
        stack.until_received(20).await;
        let answer = stack.post(&urgent(high)).await;
        // The queue delivers it although a wake-up of the same Page is in flight.
        let wake_up = stack.receive().await.unwrap();
        stack.process_job(&wake_up).await;
        (answer.broadcast_id(), stack.report(&normal).await)
    };
    let ((high, report), _) = tokio::join!(beside, stack.process_job(&first));

    assert_eq!(stack.report(&high).await["counters"]["sent"], 60);
    assert_eq!(report["status"], "processing", "the other broadcast was over before");
    assert_eq!(stack.report(&normal).await["counters"]["sent"], 180);
    let peak = stack.sandbox.summary().peak_per_second;
    assert!(peak < TOO_FAST, "{peak} in a second");
}

/// Large jobs take slots only while a second of them is given away already, however many they are.
#[tokio::test]
async fn small_broadcast_is_sent_beside_eight_large_urgent_ones() {
    let stack = TestStack::start_with(&[RATE, INLINE]).await;
    let ids = stack.import_contacts(1 + 8 * 80).await;
    for ids in ids[1..].chunks(80) {
        stack.post(&urgent(ids)).await;
    }

    let small = async {
        stack.until_received(90).await;
        let begun = Instant::now();
        let answer = stack.post(&request(&ids[..1])).await;
        (answer, begun.elapsed())
    };
    let (answer, took) = tokio::select! {
        answered = small => answered,
        () = stack.work_at_once(8, Duration::from_secs(120)) => panic!("the large broadcasts are over"),
    };

    assert_eq!(answer.body["counters"]["sent"], 1, "{answer:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    // The workers of the large ones are gone.
    stack.skip_promise_check();
}

/// Small jobs take every slot for the next three seconds.
#[tokio::test]
async fn large_job_is_not_starved_by_small_ones() {
    let stack = TestStack::start_with(&[RATE]).await;
    let ids = stack.import_contacts(26).await;
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();
    let small_jobs = async {
        loop {
            let demand = Demand {
                ahead: SignedDuration::from_secs(3),
                ..TestStack::demand(3)
            };
            if !matches!(stack.take_slots(demand).await, Taken::Slots(_)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };

    let begun = Instant::now();
    tokio::select! {
        _ = stack.process_job(&wake_up) => {}
        () = small_jobs => {}
    }

    let took = begun.elapsed().as_secs();
    assert_eq!(stack.sent(&id).await, 26);
    assert!(took < 30, "{took} s");
}

/// A run has slots of some seconds later, and does not use them.
#[tokio::test]
async fn job_that_waits_for_its_slots_stops_when_the_page_pauses() {
    let stack = TestStack::start_with(&[RATE]).await;
    let ids = stack.import_contacts(3).await;
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();
    for _ in 0..7 {
        stack.take_slots(TestStack::demand(30)).await;
    }

    let (pages, page) = (stack.app.store.page_leases(), PageId::parse(PAGES[0]).unwrap());
    let next_slot = async || {
        let permission = stack.app.store.sending().read_for(&page, stack.app.clock.now()).await;
        permission.unwrap().page.next_slot_at
    };
    let before = next_slot().await;
    let pause = async {
        while next_slot().await == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let until = stack.app.clock.now() + Duration::from_secs(600);
        pages.pause_if_longer(&page, until, 1).await.unwrap();
    };
    tokio::join!(pause, stack.process_job(&wake_up));
    stack.delete(&wake_up).await;

    assert_eq!(stack.report(&id).await["status"], "waiting");
    assert_eq!(stack.sandbox.received_count(), 0);
    assert_eq!(stack.finish(&id).await["counters"]["sent"], 3);
}

/// Each has a run, then the next: the queue delivers one wake-up of their group at a time.
#[tokio::test]
async fn large_jobs_of_one_page_take_turns() {
    let stack = TestStack::start_with(&[RATE]).await;
    let ids = stack.import_contacts(3 * 200).await;
    let mut broadcasts = Vec::new();
    for ids in ids.chunks(200) {
        broadcasts.push(stack.broadcast(ids).await);
    }

    for _ in 0..3 {
        let wake_up = stack.receive().await.unwrap();
        assert!(stack.receive().await.is_none(), "two wake-ups of one Page at once");
        stack.process_job_for(&wake_up, Duration::from_secs(12)).await;
        stack.delete(&wake_up).await;
    }

    let sent = join_all(broadcasts.iter().map(|id| stack.sent(id))).await;
    assert!(sent.iter().all(|sent| (20..120).contains(sent)), "{sent:?}");
    stack.drain_queue().await;
    assert_eq!(stack.sandbox.received_count(), 600);
}

impl TestStack {
    async fn sent(&self, id: &BroadcastId) -> u64 {
        self.report(id).await["counters"]["sent"].as_u64().unwrap()
    }
}

/// The pause is known to the large job's run within two seconds, before that run asks Messenger itself.
#[tokio::test]
async fn pause_that_a_small_job_finds_stops_the_large_one() {
    let stack = TestStack::start_with(&[RATE, INLINE]).await;
    let ids = stack.import_contacts(240).await;
    let busy = GraphError::new(613, "too fast");
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::from(busy)).to_contacts([&ids[0]]).times(1));
    let large = stack.broadcast(&ids[1..]).await;
    let wake_up = stack.receive().await.unwrap();

    let small = async {
        stack.until_received(20).await;
        let answer = stack.post(&request(&ids[..1])).await;
        (answer, stack.sandbox.received_count())
    };
    let ((answer, received), _) = tokio::join!(small, stack.process_job(&wake_up));

    assert_eq!(answer.body["status"], "waiting", "{answer:?}");
    let more = stack.sandbox.received_count() - received;
    assert!(more <= 3 * 30, "{more} sent after the pause was found");
    assert_eq!(stack.report(&large).await["status"], "waiting");
    stack.delete(&wake_up).await;
    assert_eq!(stack.finish(&large).await["counters"]["sent"], 239);
    assert_eq!(stack.finish(&answer.broadcast_id()).await["counters"]["sent"], 1);
}

#[tokio::test]
async fn success_after_a_pause_ends_the_back_off_for_all() {
    let stack = TestStack::start_with(&[RATE, INLINE]).await;
    let ids = stack.import_contacts(2).await;
    let busy = GraphError::new(613, "too fast");
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::from(busy)).to_contacts([&ids[0]]).times(1));
    let pauses = async || {
        let (sending, page) = (stack.app.store.sending(), PageId::parse(PAGES[0]).unwrap());
        sending
            .read_for(&page, stack.app.clock.now())
            .await
            .unwrap()
            .page
            .backoffs
    };

    let limited = stack.post(&request(&ids[..1])).await;
    assert_eq!((limited.body["status"].as_str(), pauses().await), (Some("waiting"), 1));
    let other = stack.post(&request(&ids[1..])).await;
    assert_eq!(other.body["status"], "queued", "sent while the Page pauses");
    stack.finish(&limited.broadcast_id()).await;

    assert_eq!(pauses().await, 0);
}

#[tokio::test]
async fn runs_that_take_slots_at_once_get_different_ones() {
    let stack = TestStack::start().await;

    let (pages, page, now) = (
        stack.app.store.page_leases(),
        PageId::parse(PAGES[0]),
        stack.app.clock.now(),
    );
    let page = page.unwrap();
    let take = async || {
        pages
            .take_slots(&page, None, TestStack::demand(3), None, now)
            .await
            .unwrap()
    };
    let taken = join_all((0..40).map(|_| take())).await;

    let firsts: BTreeSet<Timestamp> = taken
        .iter()
        .map(|taken| match taken {
            Taken::Slots(slots) => slots.first,
            other => panic!("{other:?}"),
        })
        .collect();
    let firsts: Vec<_> = firsts.into_iter().collect();
    assert_eq!(firsts.len(), 40);
    assert!(
        firsts
            .windows(2)
            .all(|pair| pair[1].duration_since(pair[0]).as_millis() == 100),
        "{firsts:?}"
    );
}

#[tokio::test]
async fn slots_too_far_ahead_or_of_a_page_that_pauses_are_not_taken() {
    let stack = TestStack::start().await;
    let (pages, page) = (stack.app.store.page_leases(), PageId::parse(PAGES[0]).unwrap());
    let begun = stack.app.clock.now();
    for _ in 0..9 {
        stack.take_slots(TestStack::demand(30)).await;
    }

    let busy = stack.take_slots(TestStack::demand(1)).await;
    assert!(
        matches!(busy, Taken::Busy(next) if next.duration_since(begun).as_secs() >= 9),
        "{busy:?}"
    );
    // As a run asks that has seen a slot in time, before others took it.
    let (seen, now) = (begun + Duration::from_secs(7), stack.app.clock.now());
    let busy = pages
        .take_slots(&page, None, TestStack::demand(1), Some(seen), now)
        .await;
    assert!(matches!(busy, Ok(Taken::Busy(_))), "{busy:?}");
    stack.advance(Duration::from_secs(2));
    let taken = stack.take_slots(TestStack::demand(1)).await;
    assert!(matches!(taken, Taken::Slots(_)), "{taken:?}");

    let until = stack.app.clock.now() + Duration::from_secs(30);
    pages.pause_if_longer(&page, until, 1).await.unwrap();
    pages
        .pause_if_longer(&page, until - Duration::from_secs(20), 1)
        .await
        .unwrap();
    stack.advance(Duration::from_secs(20));
    let paused = stack.take_slots(TestStack::demand(1)).await;
    assert!(
        matches!(paused, Taken::Paused(end) if end.as_millisecond() == until.as_millisecond()),
        "{paused:?}"
    );
    pages.end_backoff_if_unchanged(&page, 3).await.unwrap();
    let permission = stack.app.store.sending().read_for(&page, stack.app.clock.now()).await;
    assert_eq!(
        permission.unwrap().page.backoffs,
        1,
        "ended by a success before the pause"
    );
    stack.advance(Duration::from_secs(11));
    let taken = stack.take_slots(TestStack::demand(1)).await;
    assert!(
        matches!(taken, Taken::Slots(slots) if slots.first >= until),
        "slots of the time of the pause: {taken:?}"
    );
}

/// A function whose clock was minutes ahead has taken slots that nobody else could follow.
#[tokio::test]
async fn slots_of_a_wrong_clock_are_taken_again() {
    let stack = TestStack::start().await;
    let ahead = stack.app.clock.now() + Duration::from_secs(300);
    let pages = stack.app.store.page_leases();
    let page = PageId::parse(PAGES[0]).unwrap();
    let wrong = pages.take_slots(&page, None, TestStack::demand(30), None, ahead).await;
    assert!(matches!(wrong, Ok(Taken::Slots(_))), "{wrong:?}");

    let taken = stack.take_slots(TestStack::demand(1)).await;

    let latest = stack.app.clock.now();
    assert!(
        matches!(taken, Taken::Slots(slots) if slots.first <= latest),
        "{taken:?}"
    );
}

#[tokio::test]
async fn large_job_takes_no_slots_after_another_has_its_page() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(52).await;
    let (first, second) = (stack.broadcast(&ids[..26]).await, stack.broadcast(&ids[26..]).await);
    let (first, second) = (stack.job(&first).await.id(), stack.job(&second).await.id());
    let (pages, now) = (stack.app.store.page_leases(), stack.app.clock.now());
    let Ok(Acquired::Lease(lease)) = pages.acquire(&first, LEASE, now).await else {
        panic!("the Page is not free")
    };
    let take = async |now| {
        let demand = TestStack::demand(1);
        pages
            .take_slots(&first.page_id, Some(&lease), demand, None, now)
            .await
            .unwrap()
    };
    assert!(matches!(take(now).await, Taken::Slots(_)));

    let later = now + LEASE + Duration::from_secs(1);
    let other = pages.acquire(&second, LEASE, later).await.unwrap();
    assert!(matches!(other, Acquired::Lease(_)), "{other:?}");
    let refused = take(later).await;
    assert!(matches!(refused, Taken::LeaseLost), "{refused:?}");
}

#[tokio::test]
async fn unknown_priority_is_refused_and_a_known_one_is_part_of_the_request() {
    let stack = TestStack::start_with(&[INLINE]).await;
    let ids = stack.import_contacts(1).await;
    let mut body = request(&ids);
    for wrong in [json!("urgent"), json!(1), json!(true)] {
        body["priority"] = wrong;
        let answer = stack.post(&body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        assert_eq!(answer.body["errors"][0]["field"], "/priority");
    }
    body["priority"] = json!("normal");
    let normal = stack.post(&body).await;
    let without = stack.post(&request(&ids)).await;
    let high = stack.post(&urgent(&ids)).await;

    assert!(without.replayed, "the default is another request");
    assert_ne!(normal.broadcast_id(), high.broadcast_id());
}

/// The figures of shared/README.md, by the sandbox's ledger, on one machine with two cores.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; prints figures"]
async fn measured_waits_of_small_jobs_and_shares_of_large_ones() {
    waits_beside_a_large_broadcast().await;
    two_hundred_at_once().await;
    five_large_jobs().await;
    both_lanes_full().await;
}

async fn waits_beside_a_large_broadcast() {
    let stack = TestStack::start_with(&[RATE, INLINE]).await;
    stack.sandbox.set_latency_ms(200);
    let ids = stack.import_contacts(6_020).await;
    let large = stack.broadcast(&ids[20..]).await;
    let wake_up = stack.receive().await.unwrap();
    let mut waits = Vec::new();
    let small = async {
        stack.until_received(100).await;
        for id in ids[..20].chunks(1) {
            let begun = Instant::now();
            let answer = stack.post(&request(id)).await;
            waits.push(begun.elapsed().as_millis());
            assert_eq!(answer.body["counters"]["sent"], 1, "{answer:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        () = small => {}
        _ = stack.process_job_for(&wake_up, Duration::from_secs(120)) => panic!("the large run is over"),
    }
    waits.sort_unstable();
    let (sent, summary) = (stack.sent(&large).await, stack.sandbox.summary());
    println!("one contact beside 6,000 at 30/s, 20 times: answered with the outcome after {waits:?} ms");
    println!(
        "    meanwhile {sent} of the large one; at most {} in a second",
        summary.peak_per_second
    );
    stack.skip_promise_check();
}

async fn two_hundred_at_once() {
    let stack = TestStack::start_with(&[RATE, INLINE]).await;
    stack.sandbox.set_latency_ms(200);
    let ids = stack.import_contacts(200).await;
    let requests: Vec<_> = ids.chunks(1).map(request).collect();
    let (begun, at) = (Instant::now(), Timestamp::now().as_millisecond());
    let requests = async {
        let answers = join_all(requests.iter().map(|body| stack.post(body))).await;
        let inline = answers.iter().filter(|answer| answer.status == StatusCode::OK);
        (inline.count(), begun.elapsed())
    };
    let ((inline, answered), ()) = tokio::join!(requests, stack.work_until_received(200));
    let mut waits: Vec<_> = stack.sandbox.received().iter().map(|message| message.at - at).collect();
    waits.sort_unstable();
    assert_eq!(waits.len(), 200);
    println!(
        "200 broadcasts of one contact at once at 30/s: median {} ms, last {} ms; {inline} within the request, all answered after {} ms",
        waits[100],
        waits[199],
        answered.as_millis()
    );
    println!("    at most {} in a second", stack.sandbox.summary().peak_per_second);
}

async fn five_large_jobs() {
    let stack = TestStack::start_with(&[RATE]).await;
    stack.sandbox.set_latency_ms(200);
    let ids = stack.import_contacts(5 * 400).await;
    let mut broadcasts = Vec::new();
    for ids in ids.chunks(400) {
        broadcasts.push(stack.broadcast(ids).await);
    }
    // Runs of ten seconds, so that each has more than one turn.
    let worker = async || {
        while let Some(wake_up) = stack.receive().await {
            stack.process_job_for(&wake_up, Duration::from_secs(35)).await;
            stack.delete(&wake_up).await;
            let sent = join_all(broadcasts.iter().map(|id| stack.sent(id))).await;
            println!("    after a run: {sent:?}");
        }
    };
    println!("five large jobs of 400 contacts of one Page at 30/s, in runs of 10 s:");
    let begun = Instant::now();
    worker().await;
    println!(
        "    all after {} s; at most {} in a second",
        begun.elapsed().as_secs(),
        stack.sandbox.summary().peak_per_second
    );
}

async fn both_lanes_full() {
    let stack = TestStack::start_with(&[RATE, INLINE]).await;
    stack.sandbox.set_latency_ms(200);
    let ids = stack.import_contacts(1_500).await;
    let (small, large) = ids.split_at(300);
    let mut broadcasts = Vec::new();
    for ids in large[..800].chunks(400) {
        broadcasts.push(stack.broadcast(ids).await);
    }
    broadcasts.push(stack.post(&urgent(&large[800..])).await.broadcast_id());
    let begun = Instant::now();
    let singles = async {
        let mut waits = Vec::new();
        for ids in small.chunks(10) {
            let begun = Instant::now();
            let requests: Vec<_> = ids.chunks(1).map(request).collect();
            join_all(requests.iter().map(|body| stack.post(body))).await;
            waits.push(begun.elapsed().as_millis());
        }
        waits.sort_unstable();
        waits
    };
    let (waits, ()) = tokio::join!(singles, stack.work_at_once(4, Duration::from_secs(120)));
    stack.work_at_once(4, Duration::from_secs(120)).await;
    println!(
        "both lanes full at 30/s (2 × 400 normal, 400 high, 30 × 10 of one contact): {} contacts in {} s, at most {} in a second",
        stack.sandbox.received_count(),
        begun.elapsed().as_secs(),
        stack.sandbox.summary().peak_per_second
    );
    println!(
        "    ten of one contact at once: all answered after {} ms (median) to {} ms",
        waits[waits.len() / 2],
        waits[waits.len() - 1]
    );
    assert!(stack.sandbox.summary().peak_per_second < TOO_FAST);
}
