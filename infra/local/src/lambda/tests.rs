//! Tests of functions as processes. The child process is this test executable, which runs the one test `child`.

use std::collections::BTreeMap;
use std::time::Duration;

use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time;

use super::*;

#[test]
#[ignore = "runs as the child process of the other tests"]
fn child() {
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(lambda_runtime::run(service_fn(obey))).unwrap();
}

/// Does what the payload, or the body of the SQS message in it, says.
async fn obey(event: LambdaEvent<Value>) -> Result<Value, lambda_runtime::Error> {
    let in_message = event.payload["Records"][0]["body"].as_str();
    match in_message.or(event.payload["do"].as_str()) {
        Some("exit") => std::process::exit(3),
        Some("fail") => Err("as asked".into()),
        Some("hang") => std::future::pending().await,
        Some("hang on") => loop {
            terminated().await;
        },
        Some("say goodbye") => {
            terminated().await;
            std::fs::write(event.payload["to"].as_str().unwrap(), "goodbye").unwrap();
            std::process::exit(0)
        }
        Some("ramble") => Ok("la".repeat(4 * 1024 * 1024).into()),
        _ => Ok(json!({ "pid": std::process::id(), "deadline": event.context.deadline,
            "trace": std::env::var("_X_AMZN_TRACE_ID")?,
        })),
    }
}

/// Waits for SIGTERM.
async fn terminated() {
    signal(SignalKind::terminate()).unwrap().recv().await;
}

pub fn function(timeout: Duration) -> Function {
    Function::new(definition(timeout))
}

fn definition(timeout: Duration) -> Definition {
    Definition {
        name: "obey".to_owned(),
        executable: std::env::current_exe().unwrap(),
        args: ["--exact", "lambda::tests::child", "--ignored", "--quiet"]
            .map(str::to_owned)
            .to_vec(),
        env: BTreeMap::new(),
        timeout,
        max_children: 2,
        recursive_loop: RecursiveLoop::Terminate,
    }
}

async fn invoke(function: &Function, payload: Value) -> Result<Value, InvokeError> {
    let answer = function.invoke(payload.to_string()).await?;
    Ok(serde_json::from_slice(&answer).unwrap())
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn process_serves_successive_invocations_and_gets_their_deadline() {
    let function = function(LONG);

    let first = invoke(&function, json!({})).await.unwrap();
    let second = invoke(&function, json!({})).await.unwrap();

    assert_eq!(first["pid"], second["pid"]);
    let left = first["deadline"].as_i64().unwrap() - jiff::Timestamp::now().as_millisecond();
    assert!((10_000..=20_000).contains(&left), "{left} ms left");
}

#[tokio::test]
async fn concurrent_invocations_run_in_separate_processes() {
    let function = function(LONG);

    let (first, second) = tokio::join!(invoke(&function, json!({})), invoke(&function, json!({})));

    assert_ne!(first.unwrap()["pid"], second.unwrap()["pid"]);
}

#[tokio::test]
async fn error_is_reported_and_the_process_is_kept() {
    let function = function(LONG);
    let before = invoke(&function, json!({})).await.unwrap();

    let error = invoke(&function, json!({ "do": "fail" })).await.unwrap_err();

    assert!(matches!(error, InvokeError::Failed(message) if message.contains("as asked")));
    assert_eq!(invoke(&function, json!({})).await.unwrap()["pid"], before["pid"]);
}

#[tokio::test]
async fn crash_fails_the_invocation_and_the_process_is_replaced() {
    let function = function(LONG);

    let error = invoke(&function, json!({ "do": "exit" })).await.unwrap_err();

    assert!(matches!(error, InvokeError::Crashed));
    invoke(&function, json!({})).await.unwrap();
}

#[tokio::test]
async fn invocation_is_killed_at_its_time_out() {
    let function = function(Duration::from_millis(300));

    let error = invoke(&function, json!({ "do": "hang" })).await.unwrap_err();

    assert!(matches!(error, InvokeError::TimedOut));
    assert_eq!(function.processes_running(), []);
    invoke(&function, json!({})).await.unwrap();
}

#[tokio::test]
async fn kill_one_busy_kills_a_process_in_an_invocation() {
    let function = function(LONG);
    let hanging = tokio::spawn({
        let function = function.clone();
        async move { invoke(&function, json!({ "do": "hang" })).await }
    });
    while !function.processes_running().iter().any(|process| process.busy) {
        time::sleep(Duration::from_millis(5)).await;
    }

    assert!(function.kill_one_busy().await.is_some());

    assert!(matches!(hanging.await.unwrap(), Err(InvokeError::Crashed)));
}

#[tokio::test]
async fn stopped_function_has_no_processes_and_refuses_invocations() {
    let function = function(LONG);
    invoke(&function, json!({})).await.unwrap();

    function.stop(Duration::from_secs(1)).await;

    assert_eq!(function.processes_running(), []);
    let refused = invoke(&function, json!({})).await;
    assert!(matches!(refused, Err(InvokeError::Stopped)));
}

#[tokio::test]
async fn oversized_answer_fails_the_invocation_and_the_process_is_kept() {
    let function = function(LONG);
    let before = invoke(&function, json!({})).await.unwrap();

    let error = invoke(&function, json!({ "do": "ramble" })).await.unwrap_err();

    assert!(matches!(error, InvokeError::Failed(message) if message.contains("too large")));
    assert_eq!(invoke(&function, json!({})).await.unwrap()["pid"], before["pid"]);
}

#[tokio::test]
async fn stop_refuses_a_waiting_invocation() {
    let function = function(LONG);
    let slot = function.slot().await.unwrap();
    let (stopping, waiting) = (function.clone(), function.clone());
    let stopped = tokio::spawn(async move { stopping.stop(LONG).await });
    tokio::task::yield_now().await;
    let waiting = tokio::spawn(async move { invoke(&waiting, json!({})).await });
    tokio::task::yield_now().await;

    drop(slot);

    stopped.await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(InvokeError::Stopped)));
    assert_eq!(function.processes_running(), []);
}

#[tokio::test]
async fn process_is_told_to_end_and_killed_two_seconds_later() {
    let goodbye = tempfile::NamedTempFile::new().unwrap();
    let function = function(Duration::from_millis(500));

    let polite = json!({ "do": "say goodbye", "to": goodbye.path() });
    let error = invoke(&function, polite).await.unwrap_err();
    assert!(matches!(error, InvokeError::TimedOut));
    assert_eq!(std::fs::read_to_string(goodbye.path()).unwrap(), "goodbye");

    let begun = time::Instant::now();
    let error = invoke(&function, json!({ "do": "hang on" })).await.unwrap_err();
    assert!(matches!(error, InvokeError::TimedOut));
    let took = begun.elapsed();
    assert!(
        (Duration::from_millis(2_500)..Duration::from_secs(12)).contains(&took),
        "{took:?}"
    );
    assert_eq!(function.processes_running(), []);
}

#[tokio::test]
async fn payload_above_lambdas_limit_is_refused() {
    let function = function(LONG);
    let payload = |bytes: usize| json!({ "filler": "a".repeat(bytes) });

    invoke(&function, payload(6_000_000)).await.unwrap();
    let error = invoke(&function, payload(6 * 1024 * 1024)).await.unwrap_err();

    assert!(matches!(error, InvokeError::TooLarge(_)), "{error}");
}

#[tokio::test]
async fn seventeenth_invocation_in_a_chain_is_refused_unless_it_is_allowed() {
    for recursive_loop in [RecursiveLoop::Terminate, RecursiveLoop::Allow] {
        let function = Function::new(Definition {
            recursive_loop,
            ..definition(LONG)
        });
        let mut trace = None;
        for invocation in 1..=20 {
            let slot = function.slot().await.unwrap();
            let answer = function.invoke_in(slot, "{}", trace.as_deref()).await;
            match answer {
                Err(InvokeError::RecursiveLoop) => {
                    assert_eq!((recursive_loop, invocation), (RecursiveLoop::Terminate, 17));
                    break;
                }
                answer => {
                    let answer: Value = serde_json::from_slice(&answer.unwrap()).unwrap();
                    trace = Some(answer["trace"].as_str().unwrap().to_owned());
                }
            }
            assert!(invocation < 17 || recursive_loop == RecursiveLoop::Allow);
        }
    }
}
