//! Secrets in parameters of the Systems Manager: read when needed, cached for minutes, and never taken to be missing because a
//! read failed.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use jiff::SignedDuration;
use serde_json::json;

use crate::fixture::parameter_store::{ParameterStore, SECRET, TOKEN, start_stack};
use crate::fixture::{APP_SECRET, PAGES, VERIFY_TOKEN, request};

#[tokio::test]
async fn parameter_is_read_once_in_five_minutes() {
    let (stack, store) = start_stack(&[]).await;
    let ids = stack.import_contacts(3).await;

    for (n, minutes, readings) in [(0, 0, 1), (1, 4, 0), (2, 2, 1)] {
        stack.advance(Duration::from_secs(minutes * 60));
        stack.broadcast(&ids[n..=n]).await;
        stack.drain_queue().await;
        assert_eq!(stack.sandbox.received_count(), n + 1);
        for name in [TOKEN, SECRET] {
            assert_eq!(store.take_reads(name), readings, "{name} for broadcast {n}");
        }
    }
}

/// Otherwise a rotated secret would be unknown for as long as the clock went back.
#[tokio::test]
async fn parameter_is_read_again_after_the_clock_went_back() {
    let (stack, store) = start_stack(&[]).await;
    let ids = stack.import_contacts(2).await;
    for n in 0..2 {
        stack.broadcast(&ids[n..=n]).await;
        stack.drain_queue().await;
        assert_eq!(stack.sandbox.received_count(), n + 1);
        assert_eq!(store.take_reads(TOKEN), 1, "for broadcast {n}");
        stack.app.clock.advance(SignedDuration::from_hours(-1));
    }
}

/// An error that the operator must fix halts the job with its reason; a temporary error does not; nothing is sent meanwhile.
#[tokio::test]
async fn missing_parameter_halts_the_job_and_unavailable_one_delays_it() {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    type Breakage = fn(&ParameterStore);
    let cases: [(&str, Breakage, &str, &str); 7] = [
        (
            "no token",
            |store| store.remove(TOKEN),
            "halted",
            "no access token for this Page: put it into the parameter /oncecast/page-tokens/page-1, and resume",
        ),
        (
            "a text that is not a token",
            |store| store.set(TOKEN, "two words"),
            "halted",
            "the parameter /oncecast/page-tokens/page-1 must hold one line of visible ASCII characters",
        ),
        (
            "no app secret, although one is configured",
            |store| store.remove(SECRET),
            "halted",
            "the parameter /oncecast/app-secret does not exist: create it, and resume",
        ),
        (
            "not allowed",
            |store| store.refuse(Some((BAD, "AccessDeniedException"))),
            "halted",
            "the parameter /oncecast/page-tokens/page-1 cannot be read: AccessDeniedException",
        ),
        (
            "throttled",
            |store| store.refuse(Some((BAD, "ThrottlingException"))),
            "waiting",
            "",
        ),
        (
            "broken",
            |store| store.refuse(Some((StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"))),
            "waiting",
            "",
        ),
        (
            "unknown error",
            |store| store.refuse(Some((BAD, "AnErrorOfTomorrow"))),
            "waiting",
            "",
        ),
    ];
    for (case, break_it, status, reason) in cases {
        let (stack, store) = start_stack(&[]).await;
        let ids = stack.import_contacts(2).await;
        break_it(&store);
        let id = stack.broadcast(&ids).await;

        stack.drain_queue().await;

        let report = stack.report(&id).await;
        assert_eq!(report["status"], status, "{case}");
        assert_eq!(
            report["jobs"][0]["reason"].as_str().unwrap_or_default(),
            reason,
            "{case}"
        );
        assert_eq!(stack.sandbox.received_count(), 0, "{case}");
        assert_eq!(report["counters"]["pending"], 2, "{case}");

        store.refuse(None);
        store.set(TOKEN, &format!("EAAB-{}", PAGES[0]));
        store.set(SECRET, APP_SECRET);
        if status == "halted" {
            let path = format!("/v1/broadcasts/{id}/resume");
            stack.call("POST", &path, None, None).await;
        }
        assert_eq!(stack.finish(&id).await["counters"]["sent"], 2, "{case}");
    }
}

#[tokio::test]
async fn renewed_token_is_used_without_a_resume() {
    let (stack, store) = start_stack(&[]).await;
    let ids = stack.import_contacts(30).await;
    let before = stack.broadcast(&ids).await;
    stack.finish(&before).await;
    store.take_reads(TOKEN);

    stack.sandbox.set_token(PAGES[0], "EAAB-renewed");
    store.set(TOKEN, "EAAB-renewed");
    let mut body = request(&ids);
    body["message"]["text"] = json!("Again");
    let id = stack.post(&body).await.broadcast_id();
    stack.drain_queue().await;

    let report = stack.report(&id).await;
    assert_eq!(report["counters"]["sent"], 30, "{report:#}");
    assert_eq!(store.take_reads(TOKEN), 1);
    let attempts = stack.deliveries(&id, "").await.into_iter();
    let attempts = attempts.map(|row| row["attempts"].as_u64().unwrap());
    assert_eq!(attempts.max(), Some(1), "a refused token costs no attempt");
}

#[tokio::test]
async fn refused_token_halts_the_job_after_one_reread() {
    let (stack, store) = start_stack(&[]).await;
    let ids = stack.import_contacts(30).await;
    stack.sandbox.revoke_token(PAGES[0]);
    let id = stack.broadcast(&ids).await;

    stack.drain_queue().await;

    let report = stack.report(&id).await;
    assert_eq!(report["status"], "halted");
    assert_eq!(report["jobs"][0]["reason"], "Messenger error 190/460");
    assert_eq!(store.take_reads(TOKEN), 2);
}

/// The token is refused, and the parameter cannot be read for a new one: the job is retried by itself.
#[tokio::test]
async fn refused_token_does_not_halt_the_job_while_the_parameter_is_unavailable() {
    let (stack, store) = start_stack(&[]).await;
    let ids = stack.import_contacts(3).await;
    stack.broadcast(&ids[..1]).await;
    stack.drain_queue().await;
    stack.sandbox.set_token(PAGES[0], "EAAB-renewed");
    store.refuse(Some((StatusCode::BAD_REQUEST, "ThrottlingException")));
    let id = stack.broadcast(&ids[1..]).await;

    stack.drain_queue().await;

    assert_eq!(stack.report(&id).await["status"], "waiting");
    store.refuse(None);
    store.set(TOKEN, "EAAB-renewed");
    assert_eq!(stack.finish(&id).await["counters"]["sent"], 2);
}

#[tokio::test]
async fn unverifiable_webhook_is_answered_with_503() {
    let (stack, store) = start_stack(&[]).await;
    let verify = async || {
        let query = format!("hub.mode=subscribe&hub.challenge=7&hub.verify_token={VERIFY_TOKEN}");
        let request = Request::get(format!("/v1/webhooks/messenger?{query}"));
        stack.send_raw(request.body(Body::empty()).unwrap()).await.status()
    };
    let deliver = async || stack.webhook(PAGES[0], &[]).await;
    let throttled = Some((StatusCode::BAD_REQUEST, "ThrottlingException"));

    store.refuse(throttled);
    assert_eq!(verify().await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(deliver().await, StatusCode::SERVICE_UNAVAILABLE);
    store.refuse(None);
    store.remove(SECRET);
    assert_eq!(deliver().await, StatusCode::SERVICE_UNAVAILABLE);
    store.set(SECRET, APP_SECRET);

    assert_eq!(verify().await, StatusCode::OK);
    assert_eq!(deliver().await, StatusCode::OK);
}
