//! A Page is never pushed beyond its rate, and a slow Messenger does not slow it down.

use std::time::{Duration, Instant};

use crate::stack::Stack;

#[tokio::test]
async fn sends_are_pipelined_and_keep_the_rate() {
    let stack = Stack::with(&[("PAGE_RATE_PER_SECOND", "30")]).await;
    let ids = stack.contacts(600).await;
    stack.sandbox.set_latency_ms(300);
    let id = stack.broadcast(&ids).await;
    let hint = stack.receive().await.unwrap();

    let begun = Instant::now();
    stack.process_job(&hint).await;
    let took = begun.elapsed();

    assert_eq!(stack.report(&id).await["counters"]["sent"], 600);
    assert!(
        (19..27).contains(&took.as_secs()),
        "600 contacts at 30/s took {took:?}"
    );
    let peak = stack.sandbox.summary().peak_per_second;
    assert!(peak <= 40, "{peak} in a second");
    assert!(stack.sandbox.peak_in_flight() <= 60);
    assert!(took > Duration::from_secs(19));
}
