//! Times of a broadcast: by the clock of a time zone, quiet hours, and changes until it is due.

use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::fixture::{TEXT, TestStack, request};

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
