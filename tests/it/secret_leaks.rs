//! Attempts to make the functions leak a secret or a message text.
//!
//! The fixture searches for leaks in every test: in each answer, in the stored items at the end, and in the log of all
//! functions, which is one log for all concurrent tests.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::json;

use crate::fixture::secret_scan::searched_log_lines;
use crate::fixture::{APP_SECRET, PAGES, TestStack, VERIFY_TOKEN, request};

/// Meta's errors quote the token that they refuse.
#[tokio::test]
async fn token_quoted_by_messenger_is_not_repeated() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(6).await;
    let message = format!("Malformed access token EAAB-{} for {APP_SECRET}", PAGES[0]);
    let codes = [551, 100, 613, 1, 987_654];
    for (code, id) in codes.into_iter().zip(&ids) {
        let fault = Fault::answering(GraphError::new(code, &*message));
        stack.sandbox.add_fault(fault.to_contacts([id]).times(1));
    }
    let body = Answer::Raw {
        status: 400,
        body: message.clone(),
    };
    stack.sandbox.add_fault(Fault::answering(body).to_contacts([&ids[5]]));

    let id = stack.broadcast(&ids).await;
    let report = stack.finish(&id).await;
    let fault = Fault::answering(GraphError::new(190, message));
    stack.sandbox.add_fault(fault);
    let mut again = request(&ids);
    again["message"]["text"] = json!("Again, we open at nine");
    let halted = stack.post(&again).await.broadcast_id();
    stack.drain_queue().await;

    assert_eq!(report["status"], "completed", "{report:#}");
    assert_eq!(stack.report(&halted).await["status"], "halted");
    let searched = searched_log_lines();
    assert!(searched > 20, "{searched} log lines searched, which proves nothing");
}

/// An error does not repeat the parts of the request that may be secret.
#[tokio::test]
async fn misplaced_secret_is_not_repeated_in_the_response() {
    let stack = TestStack::start().await;
    let wrong = format!("EAAB-{}", PAGES[0]);
    let query = format!("hub.mode=subscribe&hub.challenge=7&hub.verify_token=not-{VERIFY_TOKEN}");
    for request in [
        Request::get(format!("/v1/webhooks/messenger?{query}")).body(Body::empty()),
        Request::post("/v1/webhooks/messenger")
            .header("x-hub-signature-256", format!("sha256={APP_SECRET}"))
            .body(Body::from("{}")),
        Request::get("/v1/broadcasts")
            .header("authorization", format!("Bearer {wrong}"))
            .body(Body::empty()),
        Request::post("/v1/broadcasts")
            .header("content-type", "application/json")
            .header("idempotency-key", format!("{wrong} {wrong}"))
            .body(Body::from("{")),
    ] {
        let answer = stack.send_raw(request.unwrap()).await;
        assert!(answer.status() != StatusCode::INTERNAL_SERVER_ERROR, "{answer:?}");
    }
}
