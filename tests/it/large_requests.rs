//! Large requests: within API Gateway's time-out and the memory of a small function.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::fixture::up::EXECUTABLE;
use crate::fixture::{TestStack, request};

#[tokio::test]
async fn ninety_pages_are_accepted_and_ninety_one_rejected() {
    let stack = TestStack::start().await;
    let contacts = |n: usize| -> Vec<Value> {
        let contact = |n| json!({"contact_id": format!("c{n}"), "page_id": format!("p{n}")});
        (0..n).map(contact).collect()
    };
    let body = json!({"contacts": contacts(91)});
    stack.call("PUT", "/v1/contacts", None, Some(&body)).await;
    let ids: Vec<_> = (0..91).map(|n| format!("c{n}")).collect();

    let too_many = stack.post(&request(&ids)).await;
    let most = stack.post(&request(&ids[..90])).await;

    assert_eq!(too_many.status, StatusCode::BAD_REQUEST);
    assert_eq!(too_many.body["errors"][0]["field"], "/contact_ids");
    assert_eq!(most.status, StatusCode::ACCEPTED);
    assert_eq!(most.body["jobs"].as_array().unwrap().len(), 90);
}

/// `cargo test -p tests --test it -- --ignored --nocapture hundred_thousand_ids` prints the time and the memory.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: a named longer run"]
async fn hundred_thousand_ids_are_accepted_within_time_and_memory_limits() {
    let settings = local::stack::Settings {
        executable: EXECUTABLE.into(),
        env: [("PAGE_RATE_PER_SECOND".to_owned(), "1".to_owned())].into(),
        ..local::stack::Settings::default()
    };
    let stack = local::stack::Stack::start(settings).await.unwrap();
    stack.ready().await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = async |method: &str, path: &str, body: Value| {
        let call = http.request(method.parse().unwrap(), format!("{}{path}", stack.api_url()));
        let call = call.header("content-type", "application/json").body(body.to_string());
        let answer = call.send().await.unwrap();
        let status = answer.status();
        let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert!(status.is_success(), "{status}: {body}");
        body
    };
    let ids: Vec<_> = (0..100_000).map(|n| format!("{:017}", 6_000_000_000_u64 + n)).collect();
    for ids in ids.chunks(1_000) {
        let contact = |id: &String| json!({"contact_id": id, "page_id": "page-1", "first_name": "Ana"});
        let contacts: Vec<_> = ids.iter().map(contact).collect();
        call("PUT", "/v1/contacts", json!({"contacts": contacts})).await;
    }

    let body = request(&ids);
    let bytes = body.to_string().len();
    let begun = Instant::now();
    let answer = call("POST", "/v1/broadcasts", body).await;
    let took = begun.elapsed();

    assert_eq!(answer["contacts"]["accepted"], 100_000);
    let peak = stack
        .send()
        .processes_running()
        .iter()
        .map(|process| peak_memory(process.pid))
        .max();
    let peak = peak.unwrap();
    println!("100,000 ids, {bytes} bytes: {took:.1?}, {} MB", peak / 1_024);
    stack.stop().await;
    assert!(took < Duration::from_secs(29), "{took:?}");
    assert!(peak < 128 * 1_024, "{peak} KB");
}

/// Returns the peak memory of a process, in KB.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
