//! Times of a broadcast: by the clock of a time zone, quiet hours, and changes until it is due.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use send::caller::Caller;
use send::change::entry;
use serde_json::{Value, json};
use shared::domain::history::Action;
use shared::domain::ids::BroadcastId;
use shared::store::hand_over::HandOver;
use shared::store::jobs::Claimed;
use shared::store::transactions::Changed;

use crate::fixture::invariants::Item;
use crate::fixture::proxy::Reply;
use crate::fixture::{ApiResponse, PAGES, TEXT, TestStack, request};

/// The first morning of December of next year in Manila, which has no summer time.
const NINE: (&str, &str) = ("2027-03-01T09:00", "2027-03-01T01:00:00Z");

impl TestStack {
    /// Sets the clock of all functions forward to this time.
    fn advance_to(&self, time: &str) {
        let time: Timestamp = time.parse().unwrap();
        self.advance(time.duration_since(self.app.clock.now()).try_into().unwrap());
    }
}

/// Returns the fields of the faults, and their messages.
fn faults(body: &Value) -> Vec<(String, String)> {
    let faults = body["errors"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    faults
        .map(|fault| (text(&fault["field"]), text(&fault["message"])))
        .collect()
}

/// A request with these fields besides contacts and message.
fn with(ids: &[String], more: &Value) -> Value {
    let mut body = request(ids);
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn local_time_is_sent_at_that_time_in_its_zone() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let body = with(&ids, &json!({"scheduled_at": NINE.0, "time_zone": "asia/manila"}));

    let answer = stack.post(&body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let id = answer.broadcast_id();
    let report = stack.report(&id).await;
    assert_eq!(
        (
            &report["scheduled_at"],
            &report["scheduled_local"],
            &report["jobs"][0]["due_at"]
        ),
        (
            &json!(NINE.1),
            &json!("2027-03-01T09:00:00+08:00[Asia/Manila]"),
            &json!(NINE.1)
        )
    );
    stack.advance_to("2027-03-01T00:59:59Z");
    stack.tick().await;
    assert!(stack.receive().await.is_none(), "sent before its time");
    stack.advance_to("2027-03-01T01:00:01Z");
    stack.tick().await;
    stack.drain_queue().await;
    assert_eq!(stack.report(&id).await["counters"]["sent"], 2);
}

/// The clocks of Berlin are changed on 28 March and 31 October 2027.
#[tokio::test]
async fn time_that_a_clock_change_skips_or_repeats_is_echoed_as_it_is_understood() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let cases = [
        (
            "2027-03-28T02:30",
            "2027-03-28T01:30:00Z",
            "2027-03-28T03:30:00+02:00[Europe/Berlin]",
        ),
        (
            "2027-10-31T02:30",
            "2027-10-31T00:30:00Z",
            "2027-10-31T02:30:00+02:00[Europe/Berlin]",
        ),
        (
            "2027-10-31T02:30+01:00",
            "2027-10-31T01:30:00Z",
            "2027-10-31T02:30:00+01:00[Europe/Berlin]",
        ),
    ];
    for (given, utc, local) in cases {
        let body = with(&ids, &json!({"scheduled_at": given, "time_zone": "Europe/Berlin"}));
        let answer = stack.post(&body).await;
        assert_eq!(
            (&answer.body["scheduled_at"], &answer.body["scheduled_local"]),
            (&json!(utc), &json!(local)),
            "{given}"
        );
    }
    stack.skip_promise_check();
}

#[tokio::test]
async fn wrong_times_are_refused_with_what_is_right() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let quiet = |from: &str, to: &str, zone: &str| json!({"from": from, "to": to, "time_zone": zone});
    let night = quiet("21:00", "08:00", "Asia/Manila");
    let cases = [
        (
            json!({"scheduled_at": NINE.0, "time_zone": "Asia/Manilla"}),
            "/time_zone",
            "Asia/Manila is one",
        ),
        (
            json!({"scheduled_at": NINE.0, "time_zone": "xyz"}),
            "/time_zone",
            "is not a time zone",
        ),
        (
            json!({"scheduled_at": NINE.0, "time_zone": 8}),
            "/time_zone",
            "must be a string",
        ),
        (json!({"scheduled_at": NINE.0}), "/scheduled_at", "time_zone"),
        (
            json!({"time_zone": "Asia/Manila"}),
            "/time_zone",
            "only with scheduled_at",
        ),
        (
            json!({"scheduled_at": "2027-03-01T09:00+07:00", "time_zone": "Asia/Manila"}),
            "/scheduled_at",
            "another offset",
        ),
        (
            json!({"scheduled_at": "nine", "time_zone": "Asia/Manila"}),
            "/scheduled_at",
            "must be a local time",
        ),
        (
            json!({"scheduled_at": "2020-03-01T09:00", "time_zone": "Asia/Manila"}),
            "/scheduled_at",
            "is in the past",
        ),
        (
            json!({"scheduled_at": "2099-03-01T09:00", "time_zone": "Asia/Manila"}),
            "/scheduled_at",
            "year ahead",
        ),
        (
            json!({"quiet_hours": quiet("21:00", "21:00", "Asia/Manila")}),
            "/quiet_hours/to",
            "must not equal from",
        ),
        (
            json!({"quiet_hours": quiet("24:00", "08:00", "Asia/Manila")}),
            "/quiet_hours/from",
            "time of day",
        ),
        (
            json!({"quiet_hours": quiet("21:00", "08:00", "Manila")}),
            "/quiet_hours/time_zone",
            "Asia/Manila is one",
        ),
        (
            json!({"quiet_hours": {"from": "21:00", "to": "08:00"}}),
            "/quiet_hours/time_zone",
            "is required",
        ),
        (json!({"quiet_hours": "21:00"}), "/quiet_hours", "must be an object"),
        (
            json!({"expires_at": "2020-03-01T09:00:00Z"}),
            "/expires_at",
            "later than now",
        ),
        (
            json!({"scheduled_at": NINE.0, "expires_at": NINE.0, "time_zone": "Asia/Manila"}),
            "/expires_at",
            "later than scheduled_at",
        ),
        (
            json!({
                "scheduled_at": "2027-03-01T22:00", "expires_at": "2027-03-02T08:00", "time_zone": "Asia/Manila",
                "quiet_hours": night
            }),
            "/quiet_hours",
            "no time for sending",
        ),
    ];
    for (more, field, message) in cases {
        let answer = stack.post(&with(&ids, &more)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{more}: {answer:?}");
        let faults = faults(&answer.body);
        assert_eq!(faults.len(), 1, "{more}: {faults:?}");
        assert_eq!(faults[0].0, field, "{more}");
        assert!(faults[0].1.contains(message), "{more}: {faults:?}");
    }
}

/// The quiet hours last from the first claim on; the job goes on by itself at their end.
#[tokio::test]
async fn broadcast_waits_for_the_end_of_its_quiet_hours() {
    let stack = TestStack::start_with(&[("INLINE_LIMIT", "5")]).await;
    let ids = stack.import_contacts(2).await;
    stack.advance_to("2027-03-01T20:00:00Z");
    let quiet = json!({"from": "19:00", "to": "06:30", "time_zone": "UTC"});

    let answer = stack.post(&with(&ids, &json!({"quiet_hours": quiet}))).await;

    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let job = &answer.body["jobs"][0];
    assert_eq!(
        (&job["status"], &job["reason"], &job["due_at"]),
        (&json!("waiting"), &json!("quiet_hours"), &json!("2027-03-02T06:30:00Z"))
    );
    assert_eq!(answer.body["quiet_hours"], quiet);
    let id = answer.broadcast_id();
    stack.advance_to("2027-03-02T06:29:00Z");
    stack.tick().await;
    stack.drain_queue().await;
    assert_eq!(stack.sandbox.received_count(), 0, "sent in the quiet hours");
    stack.advance_to("2027-03-02T06:30:01Z");
    stack.tick().await;
    stack.drain_queue().await;
    let report = stack.report(&id).await;
    assert_eq!(
        (
            &report["status"],
            &report["counters"]["sent"],
            &report["jobs"][0]["reason"]
        ),
        (&json!("completed"), &json!(2), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn run_under_way_stops_when_the_quiet_hours_begin() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "30")]).await;
    let ids = stack.import_contacts(200).await;
    stack.advance_to("2027-03-01T18:50:00Z");
    let quiet = json!({"from": "19:00", "to": "06:30", "time_zone": "UTC"});
    let id = stack
        .post(&with(&ids, &json!({"quiet_hours": quiet})))
        .await
        .broadcast_id();
    let wake_up = stack.receive().await.unwrap();
    let passing = async {
        while stack.sandbox.received_count() < 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stack.advance_to("2027-03-01T19:00:00Z");
    };

    tokio::join!(passing, stack.process_job(&wake_up));
    stack.delete(&wake_up).await;

    let report = stack.report(&id).await;
    let job = &report["jobs"][0];
    assert_eq!(
        (&job["status"], &job["reason"], &job["due_at"]),
        (&json!("waiting"), &json!("quiet_hours"), &json!("2027-03-02T06:30:00Z"))
    );
    let sent = report["counters"]["sent"].as_u64().unwrap();
    assert_eq!(sent, stack.sandbox.received_count() as u64);
    assert!(sent < 200, "the run sent to everybody");
    stack.advance_to("2027-03-02T06:31:00Z");
    stack.tick().await;
    assert_eq!(stack.finish(&id).await["counters"]["sent"], 200);
}

#[tokio::test]
async fn times_of_a_request_belong_to_its_fingerprint() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let quiet = json!({"from": "21:00", "to": "08:00", "time_zone": "Asia/Manila"});
    let body = json!({"contact_ids": ids, "message": {"text": TEXT}, "scheduled_at": NINE.1});
    let first = stack.post_with_key("k", &body).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    for more in [
        json!({"time_zone": "Asia/Manila"}),
        json!({"quiet_hours": quiet}),
        json!({"expires_at": "2027-03-02T01:00:00Z"}),
    ] {
        let mut other = body.clone();
        other.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = stack.post_with_key("k", &other).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{more}: {answer:?}");
    }
    stack.skip_promise_check();
}

impl TestStack {
    /// Changes a broadcast.
    async fn change(&self, id: &BroadcastId, change: &Value) -> ApiResponse {
        self.call("PATCH", &format!("/v1/broadcasts/{id}"), None, Some(change))
            .await
    }

    /// Requests a broadcast that is due in an hour.
    async fn in_an_hour(&self, ids: &[String]) -> BroadcastId {
        let at = self.app.clock.now() + Duration::from_secs(3_600);
        self.post(&with(ids, &json!({"scheduled_at": at, "name": "First"})))
            .await
            .broadcast_id()
    }
}

#[tokio::test]
async fn broadcast_is_changed_until_it_is_due() {
    let stack = TestStack::start().await;
    let mut ids = stack.import_contacts(2).await;
    stack.import(PAGES[1], &["other".to_owned()]).await;
    ids.push("other".to_owned());
    let id = stack.in_an_hour(&ids).await;
    let quiet = json!({"from": "21:00", "to": "08:00", "time_zone": "Asia/Manila"});

    let changed = stack
        .change(
            &id,
            &json!({
                "message": {"text": "At ten."}, "notification_type": "NO_PUSH", "scheduled_at": "2027-03-01T10:00",
                "time_zone": "Asia/Manila", "quiet_hours": quiet, "expires_at": "2027-03-01T18:00", "name": null,
                "metadata": {"a": "b"},
            }),
        )
        .await;

    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    let expected = json!({
        "status": "scheduled", "scheduled_at": "2027-03-01T02:00:00Z",
        "scheduled_local": "2027-03-01T10:00:00+08:00[Asia/Manila]", "expires_at": "2027-03-01T10:00:00Z", "quiet_hours": quiet,
        "name": null, "metadata": {"a": "b"},
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&changed.body[field], value, "{field}");
    }
    let mut report = stack.report(&id).await;
    assert!(report.as_object_mut().unwrap().remove("progress").is_some(), "{report}");
    assert_eq!(report, changed.body);
    let entry = &changed.body["history"][0];
    assert_eq!((&entry["action"], &entry["jobs"]), (&json!("change"), &json!(2)));
    assert!(entry["details"].as_str().unwrap().contains("quiet_hours"), "{entry}");
    // Half of the change is kept, half of it replaced.
    let changed = stack
        .change(&id, &json!({"scheduled_at": "2027-03-01T11:00", "quiet_hours": null}))
        .await;
    assert_eq!(
        (
            &changed.body["scheduled_at"],
            &changed.body["expires_at"],
            &changed.body["quiet_hours"]
        ),
        (
            &json!("2027-03-01T03:00:00Z"),
            &json!("2027-03-01T10:00:00Z"),
            &Value::Null
        )
    );

    stack.advance_to("2027-03-01T02:30:00Z");
    stack.tick().await;
    assert!(stack.receive().await.is_none(), "sent at the old time");
    stack.advance_to("2027-03-01T03:00:01Z");
    stack.tick().await;
    stack.drain_queue().await;
    let received = stack.sandbox.received();
    assert_eq!(received.len(), 3);
    assert!(
        received
            .iter()
            .all(|message| message.text.as_deref() == Some("At ten."))
    );
}

/// The segments of a broadcast outlive its time, also a later one.
#[tokio::test]
async fn broadcast_that_is_put_off_keeps_its_contacts() {
    let stack = TestStack::start_with(&[("RETENTION_DAYS", "1")]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.in_an_hour(&ids).await;
    let kept_until = |items: Vec<Item>, part: &str| {
        let is_part = |item: &Item| item.get("pk").is_some_and(|pk| pk.as_s().unwrap().starts_with(part));
        let mut times: Vec<_> = items
            .iter()
            .filter(|item| is_part(item))
            .map(|item| item["expires_at"].as_n().unwrap().parse::<i64>().unwrap())
            .collect();
        times.sort_unstable();
        times[0]
    };
    let day = 86_400;
    let due = stack.app.clock.now() + Duration::from_secs(10 * day);

    let changed = stack.change(&id, &json!({"scheduled_at": due})).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");

    let retained = due.as_second() + i64::try_from(day).unwrap();
    assert_eq!(kept_until(stack.stored_items().await, "segments#"), retained);
    assert_eq!(
        kept_until(stack.stored_items().await, "broadcast#"),
        retained + i64::try_from(30 * day).unwrap()
    );
    stack.advance(Duration::from_secs(10 * day + 100));
    stack.tick().await;
    assert_eq!(stack.finish(&id).await["counters"]["sent"], 1);
}

#[tokio::test]
async fn change_is_refused_from_the_time_on_at_which_the_broadcast_is_due() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.in_an_hour(&ids).await;
    let change = json!({"message": {"text": "Too late."}});
    let refused = async |status: &str| {
        let answer = stack.change(&id, &change).await;
        assert_eq!(
            (answer.status, &answer.body["type"]),
            (StatusCode::CONFLICT, &json!("/v1/problems/already-begun")),
            "{answer:?}"
        );
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.ends_with(&format!("is {status}.")), "{detail}");
    };

    stack.advance(Duration::from_secs(3_601));
    refused("scheduled").await;
    stack.claim(&stack.job(&id).await.id()).await;
    refused("processing").await;
    stack.advance(Duration::from_secs(300));
    stack.tick().await;
    stack.finish(&id).await;
    refused("completed").await;
    assert_ne!(stack.sandbox.received()[0].text.as_deref(), Some("Too late."));
    let unknown = stack.change(&BroadcastId::random(), &change).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

/// The claim and the change have both read the broadcast before; whichever writes first wins, and the message is whole.
#[tokio::test]
async fn race_of_a_change_with_the_first_claim_has_one_winner() {
    for change_is_first in [true, false] {
        let stack = TestStack::start().await;
        let ids = stack.import_contacts(1).await;
        let id = stack.in_an_hour(&ids).await;
        let store = &stack.app.store;
        let (seen, jobs, history) = store.broadcasts().get_with_history(&id).await.unwrap().unwrap();
        let mut changed = seen.clone();
        changed.message.text = Some("Changed.".to_owned());
        // The clock of the caller's function is behind that of the worker: by it the broadcast is not due yet.
        let earlier = stack.app.clock.now() + Duration::from_secs(3_599);
        let entry = entry(&Caller::unauthenticated(), Action::Change, &jobs, None, earlier);
        let transactions = store.transactions();
        let change = || transactions.change_if_not_begun((&seen, &jobs, &history), &changed, &entry, earlier);
        stack.advance(Duration::from_secs(3_601));
        let wake_up = stack.wake_up_for(&id).await;

        let end = if change_is_first {
            let end = change().await.unwrap();
            stack.process_job(&wake_up).await;
            end
        } else {
            let Claimed::Won(claim) = store
                .jobs()
                .claim(&jobs[0].id(), Duration::from_secs(90), stack.app.clock.now())
                .await
                .unwrap()
            else {
                panic!("the job is due");
            };
            let end = change().await.unwrap();
            let now = stack.app.clock.now();
            store.jobs().hand_over(*claim, &HandOver::Queued, now).await.unwrap();
            stack.process_job(&wake_up).await;
            end
        };

        let (expected, text) = match change_is_first {
            true => (Changed::Made, "Changed.".to_owned()),
            false => (Changed::Meanwhile, format!("Hi Nr {}, we open at nine.", ids[0])),
        };
        assert_eq!(end, expected);
        assert_eq!(stack.sandbox.received()[0].text, Some(text));
    }
}

/// Each of two callers changes what it has read, and neither loses the other's change.
#[tokio::test]
async fn two_changes_at_once_are_both_made() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.in_an_hour(&ids).await;
    let (seen, jobs, history) = stack
        .app
        .store
        .broadcasts()
        .get_with_history(&id)
        .await
        .unwrap()
        .unwrap();
    let (text, name) = (json!({"message": {"text": "New."}}), json!({"name": "Second"}));

    let (first, second) = tokio::join!(stack.change(&id, &text), stack.change(&id, &name));
    assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::OK));
    let now = stack.app.clock.now();
    let entry = entry(&Caller::unauthenticated(), Action::Change, &jobs, None, now);
    let transactions = stack.app.store.transactions();
    let outdated = transactions.change_if_not_begun((&seen, &jobs, &history), &seen, &entry, now);
    assert_eq!(outdated.await.unwrap(), Changed::Meanwhile);
    let (seen, jobs, history) = stack
        .app
        .store
        .broadcasts()
        .get_with_history(&id)
        .await
        .unwrap()
        .unwrap();
    stack.change(&id, &json!({"name": "Third"})).await;
    let outdated = transactions.change_if_not_begun((&seen, &jobs, &history), &seen, &entry, now);
    assert_eq!(outdated.await.unwrap(), Changed::Meanwhile);

    assert_eq!(stack.report(&id).await["name"], "Third");
    stack.advance(Duration::from_secs(3_700));
    stack.tick().await;
    stack.finish(&id).await;
    assert_eq!(stack.sandbox.received()[0].text.as_deref(), Some("New."));
}

#[tokio::test]
async fn wrong_changes_are_refused_together_and_change_nothing() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.in_an_hour(&ids).await;
    let before = stack.report(&id).await;
    let cases = [
        (json!({}), vec![""]),
        (json!([]), vec![""]),
        (
            json!({"contact_ids": ["a"], "page_id": "1"}),
            vec!["/contact_ids", "/page_id"],
        ),
        (
            json!({"message": {"text": ""}, "name": 5}),
            vec!["/message/text", "/name"],
        ),
        (json!({"message": null}), vec!["/message"]),
        (json!({"messaging_type": "UTILITY"}), vec!["/messaging_type"]),
        (json!({"scheduled_at": null}), vec!["/scheduled_at"]),
        (json!({"scheduled_at": "2020-01-01T09:00:00Z"}), vec!["/scheduled_at"]),
        (json!({"time_zone": "Asia/Manila"}), vec!["/time_zone"]),
        (json!({"expires_at": "2020-01-01T09:00:00Z"}), vec!["/expires_at"]),
        (json!({"requires_approval": false}), vec!["/requires_approval"]),
    ];
    for (change, fields) in cases {
        let answer = stack.change(&id, &change).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{change}: {answer:?}");
        let found: Vec<_> = faults(&answer.body).into_iter().map(|(field, _)| field).collect();
        assert_eq!(found, fields, "{change}");
    }
    assert_eq!(stack.report(&id).await, before);
    stack.skip_promise_check();
}

#[tokio::test]
async fn lost_answer_to_a_change_is_not_a_refusal() {
    let lost = AtomicBool::new(false);
    let hook = move |body: &str| match body.contains("change_id = :change_id") && !lost.swap(true, Ordering::SeqCst) {
        true => Reply::IsLost,
        false => Reply::Arrives,
    };
    let stack = TestStack::start_with_lossy_database(hook, &[]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.in_an_hour(&ids).await;
    let changed = stack.change(&id, &json!({"name": "Second"})).await;
    assert_eq!(
        (changed.status, &changed.body["name"]),
        (StatusCode::OK, &json!("Second"))
    );
    stack.skip_promise_check();
}

#[tokio::test]
async fn paused_broadcast_is_changed_and_sent_at_its_new_time() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.in_an_hour(&ids).await;
    stack.control("pause", &id).await;
    stack.advance(Duration::from_secs(4_000));
    let later = stack.app.clock.now() + Duration::from_secs(3_600);

    let changed = stack
        .change(&id, &json!({"scheduled_at": later, "message": {"text": "Later."}}))
        .await;
    assert_eq!(
        (changed.status, &changed.body["status"]),
        (StatusCode::OK, &json!("paused"))
    );
    stack.tick().await;
    assert!(stack.receive().await.is_none(), "a paused broadcast is woken");
    assert_eq!(stack.control("resume", &id).await["status"], "scheduled");
    stack.tick().await;
    assert!(stack.receive().await.is_none(), "sent before its new time");
    stack.advance(Duration::from_secs(3_601));
    stack.tick().await;
    stack.finish(&id).await;
    assert_eq!(stack.sandbox.received()[0].text.as_deref(), Some("Later."));
}
