//! Times of controls, which are printed. The tests take minutes, and mean something on a quiet machine only:
//!
//! ```sh
//! cargo test -p tests --test it -- --ignored --nocapture control_times
//! ```

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use futures_util::future::join_all;
use serde_json::json;

use crate::fixture::controls::OBEYED_WITHIN;
use crate::fixture::{PAGES, TestStack};

/// The orders that are given at each rate.
const ORDERS: u32 = 50;
/// The contacts of the large broadcast.
const CONTACTS: usize = 100_000;
/// The longest time for the cancellation of all of them.
const CANCELLED_WITHIN: Duration = Duration::from_secs(60);

/// Pauses and cancels come at every moment of a run: the delays before them are spread over the two seconds between two checkpoints.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes; prints how long after the answer the last send started"]
async fn last_send_starts_within_seconds_after_fifty_pauses_and_cancels_at_each_rate() {
    for rate in ["30", "300"] {
        let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", rate)]).await;
        let ids = stack.import_contacts(2_000).await;
        let (mut delays, mut answers, mut sent_after) = (Vec::new(), Vec::new(), 0);
        for order in 0..ORDERS {
            let verb = if order % 2 == 0 { "pause" } else { "cancel" };
            let id = stack.another_broadcast(&ids).await;
            let wake_up = stack.wake_up_for(&id).await;
            let ordering = async {
                while stack.received(&id).is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                tokio::time::sleep(Duration::from_secs(2) * order / ORDERS).await;
                let begun = Instant::now();
                stack.control(verb, &id).await;
                (begun.elapsed(), stack.app.clock.now().as_millisecond())
            };
            let ((took, answered), _) = tokio::join!(ordering, stack.process_job(&wake_up));
            let ours = stack.sandbox.received().into_iter();
            let ours = ours.filter(|message| message.metadata.as_ref().unwrap().contains(&id.to_string()));
            let after: Vec<_> = ours.filter(|message| message.at > answered).collect();
            let last = after
                .iter()
                .map(|message| Duration::from_millis(message.at.abs_diff(answered)));
            delays.push(last.max().unwrap_or_default());
            answers.push(took);
            sent_after += after.len();
            stack.control("cancel", &id).await;
            stack.drain_queue().await;
        }
        delays.sort();
        answers.sort();
        let middle = delays.len() / 2;
        println!(
            "{ORDERS} pauses and cancels at {rate}/s: the last send started {:?} after the answer at most, {:?} in the median; \
             {sent_after} sends after the answers; answered in {:?} at most, {:?} in the median",
            delays[delays.len() - 1],
            delays[middle],
            answers[answers.len() - 1],
            answers[middle],
        );
        assert!(delays[delays.len() - 1] < OBEYED_WITHIN);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; prints the times of controls of 100,000 contacts, and of their cancellation"]
async fn hundred_thousand_pending_contacts_are_cancelled() {
    let stack = TestStack::start().await;
    let mut all = Vec::new();
    for (page, name) in PAGES.iter().enumerate() {
        let ids: Vec<_> = (0..CONTACTS / PAGES.len() + 1)
            .map(|n| format!("{page}{n:06}"))
            .collect();
        stack.import(name, &ids).await;
        all.extend(ids);
    }
    all.truncate(CONTACTS);
    stack.let_reads_catch_up();
    let id = stack.another_broadcast(&all).await;
    while let Some(wake_up) = stack.receive().await {
        stack.delete(&wake_up).await;
    }

    for verb in ["pause", "resume", "pause", "cancel?dry_run=true", "cancel"] {
        let begun = Instant::now();
        let answer = stack.try_control(verb, &id, &json!({})).await;
        println!("{verb} of {CONTACTS} contacts: answered in {:?}", begun.elapsed());
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    }
    let begun = Instant::now();
    while stack.status(&id).await != "cancelled" {
        let mut wake_ups = Vec::new();
        while let Some(wake_up) = stack.receive().await {
            wake_ups.push(wake_up);
        }
        let drains = wake_ups.iter().map(async |wake_up| {
            stack.process_job(wake_up).await;
            stack.delete(wake_up).await;
        });
        join_all(drains).await;
        assert!(
            begun.elapsed() < 4 * CANCELLED_WITHIN,
            "not cancelled: {:#}",
            stack.report(&id).await
        );
    }

    println!(
        "{CONTACTS} pending contacts on {} Pages: cancelled in {:?}",
        PAGES.len(),
        begun.elapsed()
    );
    assert_eq!(stack.report(&id).await["counters"]["skipped"], CONTACTS);
    assert!(begun.elapsed() < CANCELLED_WITHIN);
}
