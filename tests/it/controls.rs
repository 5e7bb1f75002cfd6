//! Controls of a broadcast: their bodies, dry runs and history, their callers, and controls that meet other changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use shared::domain::command::StopCommand;
use shared::domain::control::JobChange;
use shared::domain::history::{Action, HistoryEntry};
use shared::domain::ids::BroadcastId;
use shared::domain::job::{Job, JobStatus};
use shared::store::hand_over::HandOver;
use shared::store::transactions::Controlled;

use crate::fixture::proxy::Reply;
use crate::fixture::{PAGES, TEXT, TestStack, request};
use crate::pausing::scheduled;

/// Returns a broadcast to two contacts of the first Page and one of the second.
async fn of_two_pages(stack: &TestStack) -> BroadcastId {
    let ids = stack.import_contacts(2).await;
    stack.import(PAGES[1], &["other".to_owned()]).await;
    let all = [&ids[..], &["other".to_owned()]].concat();
    stack.post(&request(&all)).await.broadcast_id()
}

fn statuses(report: &Value) -> Vec<&str> {
    let jobs = report["jobs"].as_array().unwrap().iter();
    jobs.map(|job| job["status"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn control_of_one_page_leaves_the_others_alone() {
    let stack = TestStack::start().await;
    let id = of_two_pages(&stack).await;
    let one = |page: &str| json!({"page_id": page});

    let paused = stack.try_control("pause", &id, &one(PAGES[1])).await.body;
    assert_eq!(statuses(&paused), ["queued", "paused"]);
    assert_eq!(
        paused["affected"],
        json!({"jobs": 1, "contacts": 1, "resolving": false})
    );
    assert_eq!(paused["history"][0]["page_id"], PAGES[1]);
    let rest = stack.control("pause", &id).await;
    assert_eq!(rest["affected"], json!({"jobs": 1, "contacts": 2, "resolving": false}));
    let resumed = stack.try_control("resume", &id, &one(PAGES[0])).await.body;
    assert_eq!(statuses(&resumed), ["queued", "paused"]);
    let cancelled = stack.try_control("cancel", &id, &one(PAGES[1])).await.body;
    stack.drain_queue().await;

    assert_eq!(
        cancelled["affected"],
        json!({"jobs": 1, "contacts": 1, "resolving": false})
    );
    assert_eq!(statuses(&stack.report(&id).await), ["completed", "cancelled"]);
    // The cancelled job is in the wanted state, so that a cancel of all is no fault.
    assert_eq!(stack.control("cancel", &id).await["affected"]["jobs"], 0);
    let completed = stack.try_control("cancel", &id, &one(PAGES[0])).await;
    assert_eq!(completed.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn dry_run_counts_and_changes_nothing() {
    let stack = TestStack::start().await;
    let id = of_two_pages(&stack).await;
    stack.try_control("pause", &id, &json!({"page_id": PAGES[1]})).await;
    let before = stack.report_of_facts(&id).await;
    let stored = stack.stored_items().await.len();

    for (verb, affected) in [
        ("pause", json!({"jobs": 1, "contacts": 2, "resolving": false})),
        ("resume", json!({"jobs": 1, "contacts": 1, "resolving": false})),
        ("cancel", json!({"jobs": 2, "contacts": 3, "resolving": false})),
    ] {
        let answer = stack.control(&format!("{verb}?dry_run=true"), &id).await;
        assert_eq!(
            (&answer["affected"], &answer["dry_run"]),
            (&affected, &json!(true)),
            "{verb}"
        );
        let told = stack.report_of_facts(&id).await;
        assert_eq!(told, before, "{verb}");
    }
    assert_eq!(stack.stored_items().await.len(), stored);
    assert_eq!(stack.control("pause?dry_run=false", &id).await["dry_run"], false);
}

#[tokio::test]
async fn history_tells_who_ordered_what_and_when() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let id = scheduled(&stack, &ids).await;
    let ana = json!({"jwt": {"claims": {"sub": "ana"}, "scopes": []}});
    let path = format!("/v1/broadcasts/{id}/pause");

    let answer = stack.call_as(&ana, ("POST", &path), None, None).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    stack.advance(std::time::Duration::from_secs(60));
    stack.control("resume", &id).await;
    stack.control("cancel", &id).await;

    let history = stack.report(&id).await["history"].clone();
    let of = |n: usize| (&history[n]["action"], &history[n]["jobs"], &history[n]["contacts"]);
    assert_eq!(of(0), (&json!("pause"), &json!(1), &json!(3)));
    assert_eq!(of(1), (&json!("resume"), &json!(1), &json!(3)));
    assert_eq!(of(2), (&json!("cancel"), &json!(1), &json!(3)));
    assert!(history[0]["caller"].as_str().unwrap().contains("ana"), "{history:#}");
    assert_eq!(
        (&history[1]["caller"], &history[1]["page_id"]),
        (&Value::Null, &Value::Null)
    );
    let time = |n: usize| history[n]["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time(1).duration_since(time(0)).as_secs() >= 60, "{history:#}");
}

/// A program that pauses and resumes for ever does not make reports ever larger.
#[tokio::test]
async fn history_keeps_the_latest_hundred_orders() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = scheduled(&stack, &ids).await;
    for _ in 0..51 {
        stack.control("pause", &id).await;
        stack.advance(std::time::Duration::from_secs(1));
        stack.control("resume", &id).await;
        stack.advance(std::time::Duration::from_secs(1));
    }
    stack.control("pause", &id).await;

    let history = stack.report(&id).await["history"].as_array().unwrap().clone();

    assert_eq!(history.len(), 100);
    let times: Vec<_> = history.iter().map(|entry| entry["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(
        (&history[98]["action"], &history[99]["action"]),
        (&json!("resume"), &json!("pause"))
    );
}

#[tokio::test]
async fn wrong_control_is_refused_and_changes_nothing() {
    let stack = TestStack::start().await;
    let id = of_two_pages(&stack).await;
    let before = stack.report_of_facts(&id).await;
    for verb in ["pause", "resume", "cancel"] {
        for (query, body, field) in [
            ("", json!({"page_id": PAGES[2]}), "/page_id"),
            ("", json!({"page_id": "a/b"}), "/page_id"),
            ("", json!({"page_id": 1}), "/page_id"),
            ("", json!({"pages": []}), "/pages"),
            ("", json!([]), ""),
            ("?dry_run=yes", json!({}), "dry_run"),
            ("?dryrun=true", json!({}), "dryrun"),
        ] {
            let answer = stack.try_control(&format!("{verb}{query}"), &id, &body).await;
            assert_eq!(
                answer.status,
                StatusCode::BAD_REQUEST,
                "{verb}{query} {body}: {answer:?}"
            );
            assert_eq!(answer.body["errors"][0]["field"], field, "{verb}{query} {body}");
        }
        let unknown = stack.try_control(verb, &BroadcastId::random(), &json!({})).await;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND);
        let path = format!("/v1/broadcasts/{id}/{verb}");
        let of_type = |content_type: &'static str, body: &'static str| {
            let request = Request::post(&path).header("content-type", content_type);
            stack.send_raw(request.body(Body::from(body)).unwrap())
        };
        assert_eq!(
            of_type("text/plain", "{}").await.status(),
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        );
        assert_eq!(of_type("application/json", "{").await.status(), StatusCode::BAD_REQUEST);
    }
    assert_eq!(stack.report_of_facts(&id).await, before);
}

/// No body is needed, and no content type then.
#[tokio::test]
async fn control_needs_no_body() {
    let stack = TestStack::start().await;
    let id = of_two_pages(&stack).await;
    for verb in ["pause", "resume", "cancel"] {
        let request = Request::post(format!("/v1/broadcasts/{id}/{verb}"));
        let answer = stack.send_raw(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{verb}");
        assert_eq!(answer.headers()["location"], format!("/v1/broadcasts/{id}"));
    }
    stack.drain_queue().await;
}

/// A broadcast of which the caller may not use every Page does not exist for it, whichever Page the control names.
#[tokio::test]
async fn caller_controls_only_broadcasts_of_its_pages() {
    let stack = TestStack::start_with(&[("PAGES_CLAIM", "pages")]).await;
    let ids = stack.import_contacts(2).await;
    stack.import(PAGES[1], &["other".to_owned()]).await;
    let mine = stack.another_broadcast(&ids).await;
    let both = stack
        .another_broadcast(&[&ids[..], &["other".to_owned()]].concat())
        .await;
    let caller = json!({"jwt": {"claims": {"sub": "ana", "pages": PAGES[0]}, "scopes": []}});
    let body = json!({"page_id": PAGES[0]});

    for verb in ["pause", "resume", "cancel", "retry"] {
        let path = |id: &BroadcastId| format!("/v1/broadcasts/{id}/{verb}");
        let seen = stack.call_as(&caller, ("POST", &path(&mine)), None, Some(&body)).await;
        let unseen = stack.call_as(&caller, ("POST", &path(&both)), None, Some(&body)).await;
        assert_ne!(seen.status, StatusCode::NOT_FOUND, "{verb}: {seen:?}");
        assert_eq!(unseen.status, StatusCode::NOT_FOUND, "{verb}: {unseen:?}");
    }
    assert_eq!(stack.report(&both).await["status"], "queued");
    stack.drain_queue().await;
}

/// The control is written, and its answer is lost: the repetition by the SDK is no second order.
#[tokio::test]
async fn lost_answer_to_a_control_is_not_a_refusal() {
    let lost = Arc::new(AtomicUsize::new(0));
    let hook = {
        let lost = Arc::clone(&lost);
        move |call: &str| match call.contains("history#") && lost.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            true => Reply::IsLost,
            false => Reply::Arrives,
        }
    };
    let stack = TestStack::start_with_lossy_database(hook, &[]).await;
    let ids = stack.import_contacts(2).await;
    let id = scheduled(&stack, &ids).await;

    for (n, verb) in ["pause", "resume", "cancel"].into_iter().enumerate() {
        let answer = stack.control(verb, &id).await;
        assert_eq!(answer["affected"]["jobs"], 1, "{verb}: {answer:#}");
        assert_eq!(answer["history"].as_array().unwrap().len(), n + 1, "{verb}");
    }
    assert!(lost.load(Ordering::SeqCst) >= 3, "no answer was lost");
    stack.drain_queue().await;
    assert_eq!(stack.status(&id).await, "cancelled");
}

/// The control was decided for a job that is not so any more.
#[tokio::test]
async fn control_is_written_only_for_jobs_as_they_were_read() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.another_broadcast(&ids).await;
    let queued = stack.job(&id).await;
    let claim = stack.claim(&queued.id()).await;
    let processing = stack.job(&id).await;
    let due_later = Job {
        due_at: Some(stack.app.clock.now()),
        ..processing.clone()
    };
    let older = Job {
        epoch: processing.epoch - 1,
        ..processing.clone()
    };

    for (seen, change) in [
        (&queued, JobChange::Pause),
        (&due_later, JobChange::TakeBackPause),
        (&older, JobChange::Drain),
    ] {
        assert!(!written(&stack, seen, change.clone()).await, "{change:?}");
    }
    assert_eq!(stack.report(&id).await["history"], json!([]));
    let now = stack.app.clock.now();
    stack.control("pause", &id).await;
    // A cancel that was decided before the pause.
    let cancel = JobChange::CommandStop(StopCommand::Cancel);
    assert!(!written(&stack, &processing, cancel).await);
    stack
        .app
        .store
        .jobs()
        .hand_over(claim, &HandOver::Queued, now)
        .await
        .unwrap();
    assert_eq!(stack.job(&id).await.status, JobStatus::Paused);
}

/// Writes a change of a job as it was seen; `false` if it is refused.
async fn written(stack: &TestStack, seen: &Job, change: JobChange) -> bool {
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let found = store.broadcasts().get_with_history(&seen.broadcast_id).await.unwrap();
    let (_, _, history) = found.unwrap();
    let entry = HistoryEntry {
        time: now,
        caller: None,
        action: Action::Pause,
        page_id: None,
        jobs: 1,
        contacts: 0,
        details: None,
    };
    let changes = [(seen.clone(), change)];
    let controlled = store.transactions().control(&changes, &history, &entry, now).await;
    matches!(controlled.unwrap(), Controlled::Written(_))
}

/// Two operators and a worker at once: each control is answered, and the job ends as the last of them says.
#[tokio::test(flavor = "multi_thread")]
async fn controls_at_once_are_all_answered() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(40).await;
    for _ in 0..5 {
        let id = stack.another_broadcast(&ids).await;
        let wake_up = stack.wake_up_for(&id).await;
        let none = json!({});
        let (one, other, _) = tokio::join!(
            stack.try_control("pause", &id, &none),
            stack.try_control("cancel", &id, &none),
            stack.process_job(&wake_up),
        );
        for answer in [&one, &other] {
            assert!([202, 409].contains(&answer.status.as_u16()), "{answer:?}");
        }
        stack.drain_queue().await;
        stack.advance(std::time::Duration::from_secs(200));
        stack.tick().await;
        stack.drain_queue().await;
        let status = stack.status(&id).await;
        let expected = match other.status == StatusCode::ACCEPTED {
            true => "cancelled",
            false => "completed",
        };
        assert_eq!(status, expected, "{one:?} {other:?}");
    }
}

/// The list of broadcasts, which reads no history, finds the broadcast by its status all the same.
#[tokio::test]
async fn paused_broadcast_is_listed_with_its_status() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let body = json!({"contact_ids": ids, "message": {"text": TEXT}});
    let id = stack.post(&body).await.broadcast_id();
    stack.control("pause", &id).await;
    stack.let_reads_catch_up();

    let listed = stack.call("GET", "/v1/broadcasts?status=paused", None, None).await.body;

    assert_eq!(listed["items"][0]["broadcast_id"], id.to_string(), "{listed:#}");
}
