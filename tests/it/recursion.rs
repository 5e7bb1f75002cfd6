//! Lambda's detection of recursive loops: each run wakes the next through the queue that invoked it, which Lambda would stop
//! after sixteen runs.

use std::time::Duration;

use local::clients;
use local::lambda::RecursiveLoop;
use local::stack::Stack;
use tokio::time::{Instant, sleep};

use crate::fixture::process_stack::{self, ApiClient};

const CONTACTS: usize = 150;

/// Starts a broadcast that takes more than seventeen runs: each sends for half a second, at ten messages a second.
async fn start(recursive_loop: Option<RecursiveLoop>) -> (Stack, ApiClient, String) {
    let variables = [("PAGE_RATE_PER_SECOND", "10")];
    let change = |settings: &mut local::stack::Settings| settings.recursive_loop = recursive_loop;
    let (stack, api) = process_stack::start_with(Duration::from_secs(2), &variables, change).await;
    stack.ready().await.unwrap();
    let ids: Vec<_> = (0..CONTACTS).map(|n| format!("c{n:03}")).collect();
    api.import("page-1", &ids).await;
    let id = api.broadcast(&ids).await;
    (stack, api, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn job_of_more_runs_than_lambda_allows_in_a_loop_completes_as_the_template_declares() {
    let (stack, api, id) = start(None).await;

    let begun = Instant::now();
    while api.report(&id).await["status"] != "completed" {
        assert!(begun.elapsed().as_secs() < 120, "{:#}", api.report(&id).await);
        sleep(Duration::from_millis(100)).await;
    }

    assert_eq!(api.report(&id).await["counters"]["sent"], CONTACTS);
    assert_eq!(stack.sandbox().unwrap().received_count(), CONTACTS);
    stack.stop().await;
}

/// The message stays in the queue, and goes to the dead letters after its last receive.
#[tokio::test(flavor = "multi_thread")]
async fn job_stalls_after_sixteen_runs_without_the_templates_declaration() {
    let (stack, api, id) = start(Some(RecursiveLoop::Terminate)).await;
    let sqs = clients::sqs(stack.queue_endpoint());

    let begun = Instant::now();
    let dead = loop {
        let dead = sqs.receive_message().queue_url(&stack.queue_urls().dead_letters);
        let dead = dead.wait_time_seconds(1).send().await.unwrap();
        if let Some(message) = dead.messages().first() {
            break message.body().unwrap().to_owned();
        }
        assert!(begun.elapsed().as_secs() < 120, "{:#}", api.report(&id).await);
    };

    assert!(dead.contains(&id), "{dead}");
    let report = api.report(&id).await;
    assert_eq!(report["status"], "queued");
    let sent = report["counters"]["sent"].as_u64().unwrap();
    assert!((16..150).contains(&sent), "{sent} sent");
    stack.stop().await;
}
