//! The pace of a Page: never above its rate, not slowed by a slow Messenger, and shared by its jobs one at a time.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::fixture::TestStack;

#[tokio::test]
async fn sends_are_pipelined_within_the_rate() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "30")]).await;
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
    assert!(peak <= 40, "{peak} in a second");
    assert!(stack.sandbox.peak_in_flight() <= 60);
}

/// The jobs run one after the other, in any order; no job is forgotten, or halted because it waits.
#[tokio::test]
async fn fifty_jobs_on_one_page_all_complete() {
    const JOBS: usize = 50;
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "200")]).await;
    stack.sandbox.set_latency_ms(20);
    let ids = stack.import_contacts(2 * JOBS).await;
    let mut broadcasts = Vec::new();
    for ids in ids.chunks(2) {
        broadcasts.push(stack.broadcast(ids).await);
    }

    // Two concurrent workers, each with its own job; the queue itself would not deliver two wake-ups of one Page at once.
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
            (&report["status"], &report["counters"]["sent"]),
            (&json!("completed"), &json!(2))
        );
    }

    assert_eq!(stack.sandbox.received_count(), 2 * JOBS);
}
