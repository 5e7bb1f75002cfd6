//! Outcomes of a send, and their effect on the contact, the Page and the job.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use local::sandbox::{Answer, Fault, GraphError, MessagingType, NotificationType};
use serde_json::{Value, json};

use crate::fixture::{PAGE_WITHOUT_TOKEN, PAGES, SHORT_MESSENGER_TIMEOUT, TestStack, WakeUpMessage, request};

fn refusal(code: i64, subcode: Option<i64>) -> GraphError {
    GraphError {
        subcode,
        ..GraphError::new(code, "Messenger says no")
    }
}

/// Processes one wake-up, without advancing the clock.
async fn process_one_wake_up(stack: &TestStack) {
    let wake_up = stack.receive().await.unwrap();
    stack.process_job(&wake_up).await;
    stack.delete(&wake_up).await;
}

#[tokio::test]
async fn final_refusal_fails_only_this_contact() {
    for (code, subcode) in [
        (551, None),
        (10, Some(2_018_278)),
        (100, Some(2_018_001)),
        (100, None),
        (2_018_300, None),
    ] {
        let stack = TestStack::start().await;
        let ids = stack.import_contacts(5).await;
        stack
            .sandbox
            .add_fault(Fault::answering(refusal(code, subcode)).to_contacts([&ids[1]]));

        let id = stack.broadcast(&ids).await;
        process_one_wake_up(&stack).await;

        let report = stack.report(&id).await;
        assert_eq!(report["status"], "completed", "{code}/{subcode:?}");
        assert_eq!(
            (&report["counters"]["sent"], &report["counters"]["failed"]),
            (&json!(4), &json!(1))
        );
        let failed = stack.delivery(&id, &ids[1]).await;
        assert!(
            failed["reason"].as_str().unwrap().contains(&code.to_string()),
            "{failed}"
        );
    }
}

#[tokio::test]
async fn job_wide_refusal_halts_the_job_and_spends_no_contact() {
    for (code, subcode) in [
        (190, Some(463)),
        (200, None),
        (10, None),
        (368, None),
        (100, Some(33)),
        (100, Some(2_018_047)),
    ] {
        let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "10")]).await;
        let ids = stack.import_contacts(30).await;
        stack.sandbox.add_fault(Fault::answering(refusal(code, subcode)));

        let id = stack.broadcast(&ids).await;
        process_one_wake_up(&stack).await;

        let report = stack.report(&id).await;
        assert_eq!(report["status"], "halted", "{code}/{subcode:?}");
        assert!(
            report["jobs"][0]["reason"]
                .as_str()
                .unwrap()
                .contains(&code.to_string())
        );
        assert_eq!(
            (&report["counters"]["failed"], &report["counters"]["in_doubt"]),
            (&json!(0), &json!(0))
        );
        let first = stack.delivery(&id, &ids[0]).await;
        assert_eq!((&first["status"], &first["attempts"]), (&json!("waiting"), &json!(0)));
    }
}

#[tokio::test]
async fn ten_consecutive_suspicious_refusals_halt_the_job() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "8")]).await;
    let ids = stack.import_contacts(200).await;
    stack.sandbox.add_fault(Fault::answering(refusal(100, None)));

    let id = stack.broadcast(&ids).await;
    process_one_wake_up(&stack).await;

    let report = stack.report(&id).await;
    assert_eq!(report["status"], "halted");
    // The ten in a row, and the sends in flight at that time.
    let failed = report["counters"]["failed"].as_u64().unwrap();
    assert!((10..=26).contains(&failed), "{failed} failed before the job was halted");
}

#[tokio::test]
async fn unclear_outcome_is_in_doubt_and_never_resent() {
    let unclear = |answer: Answer| Fault::answering(answer).but_arriving();
    for (fault, reason) in [
        (unclear(Answer::Hang), "no answer in time"),
        (unclear(Answer::Reset), "connection lost"),
        (
            unclear(Answer::Raw {
                status: 502,
                body: "<html>".to_owned(),
            }),
            "answered with a server error",
        ),
        (
            unclear(Answer::Raw {
                status: 200,
                body: "<html>".to_owned(),
            }),
            "answer not readable",
        ),
        (unclear(refusal(1, Some(1_357_046)).into()), "Messenger error 1/1357046"),
        (unclear(refusal(2, None).into()), "Messenger error 2"),
        (unclear(refusal(1_200, None).into()), "Messenger error 1200"),
        (unclear(refusal(987_654, None).into()), "Messenger error 987654"),
    ] {
        let stack = TestStack::start_with(&[SHORT_MESSENGER_TIMEOUT]).await;
        let ids = stack.import_contacts(4).await;
        stack.sandbox.add_fault(fault.to_contacts([&ids[2]]));

        let id = stack.broadcast(&ids).await;
        let report = stack.finish(&id).await;
        let in_doubt = stack.delivery(&id, &ids[2]).await;
        stack.advance(Duration::from_secs(86_400));
        stack.tick().await;
        stack.drain_queue().await;

        assert_eq!(
            (&report["counters"]["sent"], &report["counters"]["in_doubt"]),
            (&json!(3), &json!(1)),
            "{reason}"
        );
        assert_eq!(in_doubt["reason"], reason);
        assert_eq!(stack.received(&id)[&ids[2]], 1);
    }
}

#[tokio::test]
async fn send_without_connection_is_retried_and_sent_once() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    stack.sandbox.unreachable().await;
    let id = stack.broadcast(&ids).await;

    process_one_wake_up(&stack).await;
    let waiting = stack.report(&id).await;
    stack.sandbox.reachable().await.unwrap();
    let report = stack.finish(&id).await;

    assert_eq!(
        (&waiting["status"], &waiting["counters"]["waiting"]),
        (&json!("waiting"), &json!(3))
    );
    assert_eq!(report["counters"]["sent"], 3);
    let delivery = stack.delivery(&id, &ids[0]).await;
    assert_eq!(
        (&delivery["status"], &delivery["attempts"]),
        (&json!("sent"), &json!(2))
    );
}

#[tokio::test]
async fn contact_fails_after_its_last_attempt() {
    let stack = TestStack::start_with(&[("RETRY_ATTEMPTS", "2")]).await;
    let ids = stack.import_contacts(1).await;
    stack.sandbox.unreachable().await;

    let id = stack.broadcast(&ids).await;
    let report = stack.finish(&id).await;

    assert_eq!(
        (&report["status"], &report["counters"]["failed"]),
        (&json!("completed"), &json!(1))
    );
    assert_eq!(stack.delivery(&id, &ids[0]).await["reason"], "no connection, 2 times");
}

#[tokio::test]
async fn rate_limit_pauses_the_page_and_costs_no_attempt() {
    let stack = TestStack::start_with(&[("RETRY_ATTEMPTS", "1"), ("PAGE_RATE_PER_SECOND", "40")]).await;
    let ids = stack.import_contacts(60).await;
    let usage = json!({PAGES[0]: [{"type": "messenger", "call_count": 100, "estimated_time_to_regain_access": 19}]});
    let limit = Answer::Error {
        error: refusal(80_006, None),
        headers: BTreeMap::from([("X-Business-Use-Case-Usage".to_owned(), usage.to_string())]),
    };
    stack.sandbox.add_fault(Fault::answering(limit).times(1));
    let id = stack.broadcast(&ids).await;
    process_one_wake_up(&stack).await;

    let paused = stack.job(&id).await;
    let minutes = paused.due_at.unwrap().duration_since(stack.app.clock.now()).as_mins();
    assert!((17..19).contains(&minutes), "{minutes}");

    // The Page pauses, so another broadcast waits too.
    let other = stack.broadcast(&ids[..2]).await;
    let received = stack.sandbox.received_count();
    stack.drain_queue().await;
    assert_eq!(stack.sandbox.received_count(), received);

    // After the pause it sends at half the rate.
    let left = 60 - received;
    stack.advance(Duration::from_secs(1_200));
    let wake_up = stack.wake_up_for(&id).await;
    let begun = Instant::now();
    stack.process_job(&wake_up).await;
    assert_eq!(stack.sandbox.received_count(), 60);
    let least = Duration::from_millis(1_000 / 20 * (left as u64 - 5));
    assert!(begun.elapsed() > least, "{left} in {:?}", begun.elapsed());

    for id in [id, other] {
        let report = stack.finish(&id).await;
        assert_eq!(
            (&report["status"], &report["counters"]["failed"]),
            (&json!("completed"), &json!(0))
        );
        for delivery in stack.deliveries(&id, "").await {
            assert_eq!(delivery["attempts"], 1, "{delivery}");
        }
    }
}

#[tokio::test]
async fn temporary_outage_costs_few_doubts() {
    // Lookups take time, and other tests cover them.
    let no_lookups = ("DOUBT_CHECK_SECONDS", "86400");
    let rate = ("PAGE_RATE_PER_SECOND", "30");
    let stack = TestStack::start_with(&[SHORT_MESSENGER_TIMEOUT, rate, no_lookups]).await;
    let ids = stack.import_contacts(150).await;
    stack.sandbox.add_fault(Fault::answering(Answer::Hang));
    let id = stack.broadcast(&ids).await;

    for _ in 0..4 {
        process_one_wake_up(&stack).await;
        assert_eq!(stack.report(&id).await["status"], "waiting");
        stack.advance(Duration::from_secs(600));
        stack.tick().await;
    }
    stack.sandbox.clear_faults();
    let report = stack.finish(&id).await;

    let in_doubt = report["counters"]["in_doubt"].as_u64().unwrap();
    // Two seconds' worth of the rate in flight, the sends that end before the fifth, and a probe after each pause.
    assert!((5..=69).contains(&in_doubt), "{in_doubt} in doubt");
    assert_eq!(report["counters"]["sent"].as_u64().unwrap() + in_doubt, 150);
}

#[tokio::test]
async fn lasting_outage_halts_the_job() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(50).await;
    stack.sandbox.unreachable().await;

    let id = stack.broadcast(&ids).await;
    let report = stack.finish(&id).await;

    assert_eq!(
        (&report["status"], &report["counters"]["failed"]),
        (&json!("halted"), &json!(0))
    );
    assert!(
        report["jobs"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("could not be reached")
    );
}

#[tokio::test]
async fn page_without_token_halts_only_its_own_job() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    stack.import(PAGE_WITHOUT_TOKEN, &["lonely".to_owned()]).await;
    let all = [&ids[..], &["lonely".to_owned()]].concat();

    let id = stack.broadcast(&all).await;
    stack.drain_queue().await;

    let report = stack.report(&id).await;
    let jobs = report["jobs"].as_array().unwrap();
    assert_eq!(
        (&jobs[0]["page_id"], &jobs[0]["status"]),
        (&json!(PAGES[0]), &json!("completed"))
    );
    assert_eq!(
        (&jobs[1]["page_id"], &jobs[1]["status"]),
        (&json!(PAGE_WITHOUT_TOKEN), &json!("halted"))
    );
    assert!(jobs[1]["reason"].as_str().unwrap().contains("token"));
}

#[tokio::test]
async fn text_is_rendered_for_each_contact() {
    let stack = TestStack::start().await;
    let contacts = json!({"contacts": [
        {"contact_id": "ana", "page_id": PAGES[0], "first_name": "Ana", "attributes": {"city": "Porto"}},
        {"contact_id": "ben", "page_id": PAGES[0], "first_name": "", "attributes": {"city": "Rio"}},
        {"contact_id": "eve", "page_id": PAGES[0], "first_name": "x".repeat(1_000), "attributes": {"city": "Rome"}},
    ]});
    stack.call("PUT", "/v1/contacts", None, Some(&contacts)).await;
    let text = "{{ first_name }} {{ first_name }} in {{ attributes.city }}";

    let body = json!({"contact_ids": ["ana", "ben", "eve"], "message": {"text": text}});
    let id = stack.post(&body).await.broadcast_id();
    stack.finish(&id).await;

    assert_eq!(stack.sandbox.received()[0].text.as_deref(), Some("Ana Ana in Porto"));
    assert_eq!(stack.delivery(&id, "ben").await["reason"], "missing first_name");
    let too_long = stack.delivery(&id, "eve").await;
    assert_eq!(too_long["status"], "failed");
    assert!(
        too_long["reason"].as_str().unwrap().contains("2009 UTF-16 units"),
        "{too_long}"
    );
}

#[tokio::test]
async fn contact_opted_out_after_the_request_is_skipped() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    stack.let_reads_catch_up();
    let id = stack.broadcast(&ids).await;
    let opted_out = json!({"contacts": [{"contact_id": ids[1], "page_id": PAGES[0], "opted_out": true}]});
    stack.call("PUT", "/v1/contacts", None, Some(&opted_out)).await;
    stack.let_reads_catch_up();

    let report = stack.finish(&id).await;

    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["skipped"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(stack.delivery(&id, &ids[1]).await["reason"], "opted_out");
}

/// The contacts that come next are read together, as of a moment ago.
#[tokio::test]
async fn contact_that_has_opted_in_a_moment_ago_is_not_skipped() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let change = |opted_out| json!({"contacts": [{"contact_id": ids[1], "page_id": PAGES[0], "opted_out": opted_out}]});
    let id = stack.broadcast(&ids).await;
    stack.call("PUT", "/v1/contacts", None, Some(&change(true))).await;
    stack.let_reads_catch_up();
    stack.call("PUT", "/v1/contacts", None, Some(&change(false))).await;

    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["sent"], 3);
}

/// At one a second four contacts are read at once; the last of them is sent to three seconds later.
#[tokio::test]
async fn contact_is_read_again_when_its_read_is_two_seconds_old() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "1")]).await;
    let ids = stack.import_contacts(4).await;
    stack.let_reads_catch_up();
    let id = stack.broadcast(&ids).await;
    // Reads that lag do not show it for two seconds.
    let opted_out = json!({"contacts": [{"contact_id": ids[3], "page_id": PAGES[0], "opted_out": true}]});
    stack.call("PUT", "/v1/contacts", None, Some(&opted_out)).await;

    let report = stack.finish(&id).await;

    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["skipped"]),
        (&json!(3), &json!(1))
    );
}

#[tokio::test]
async fn moved_contact_is_sent_to_by_the_accepting_page() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;

    let path = format!("/v1/contacts/{}", ids[0]);
    stack.call("DELETE", &path, None, None).await;
    stack.import(PAGES[1], &ids).await;
    stack.finish(&id).await;

    assert_eq!(stack.sandbox.received()[0].page_id, PAGES[0]);
}

#[tokio::test]
async fn messenger_receives_the_requested_fields_and_the_proof() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    writeln!(secret, "the-apps-secret").unwrap();
    let secret = format!("file:{}", secret.path().display());
    let stack = TestStack::start_with(&[("APP_SECRET", &secret)]).await;
    let ids = stack.import_contacts(1).await;
    let mut body = request(&ids);
    body["messaging_type"] = json!("MESSAGE_TAG");
    body["tag"] = json!("HUMAN_AGENT");
    body["notification_type"] = json!("NO_PUSH");

    let id = stack.post(&body).await.broadcast_id();
    stack.finish(&id).await;

    let message = stack.sandbox.received().remove(0);
    assert_eq!(message.messaging_type, MessagingType::MessageTag);
    assert_eq!(message.tag.as_deref(), Some("HUMAN_AGENT"));
    assert_eq!(message.notification_type, Some(NotificationType::NoPush));
    assert_eq!(message.appsecret_proof.map(|proof| proof.len()), Some(64));
    let metadata = format!("oncecast/1 {id} {} 1 {}", PAGES[0], ids[0]);
    assert_eq!(message.metadata, Some(metadata));
}

#[tokio::test]
async fn malformed_wake_up_returns_to_the_queue() {
    let stack = TestStack::start().await;
    for body in ["", "{}", "nonsense", r#"{"broadcast_id": "x", "page_id": "y"}"#] {
        let answer = stack.process_job(&WakeUpMessage::new(body)).await;
        assert_eq!(
            answer.batch_item_failures[0].item_identifier,
            WakeUpMessage::UNQUEUED_ID,
            "{body}"
        );
    }
}

/// The outage pauses the Page, so that a further job spends only its probe and does not find the outage out by itself.
#[tokio::test]
async fn each_further_job_during_an_outage_spends_one_probe() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "30")]).await;
    let ids = stack.import_contacts(120).await;
    stack.sandbox.add_fault(Fault::answering(Answer::Reset));
    let mut broadcasts = Vec::new();
    for ids in ids.chunks(40) {
        broadcasts.push(stack.broadcast(ids).await);
    }

    for _ in &broadcasts {
        process_one_wake_up(&stack).await;
        stack.advance(Duration::from_secs(3_600));
    }

    let mut in_doubt = Vec::new();
    for id in &broadcasts {
        in_doubt.push(stack.report(id).await["counters"]["in_doubt"].as_u64().unwrap());
    }
    assert!((5..40).contains(&in_doubt[0]), "{in_doubt:?}");
    assert_eq!(in_doubt[1..], [1, 1]);
}

#[tokio::test]
async fn attachments_templates_and_quick_replies_are_sent_unchanged() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let image = json!({"type": "image", "payload": {"url": "https://example.com/a.png", "is_reusable": true}});
    let audio = json!({"type": "audio", "payload": {"attachment_id": "1857777774821032"}});
    let replies = json!([{"content_type": "text", "title": "Yes", "payload": "YES"}, {"content_type": "user_email"}]);
    let template = json!({"name": "order_update", "language": {"code": "en"}, "components": [{"type": "body", "parameters": [{"type": "text", "text": "12"}]}]});
    for (message, messaging_type) in [
        (json!({"attachment": image, "quick_replies": replies}), "UPDATE"),
        (json!({"attachment": audio}), "RESPONSE"),
        (json!({"text": "Well?", "quick_replies": replies}), "UPDATE"),
        (json!({"template": template}), "UTILITY"),
    ] {
        let body = json!({"contact_ids": ids, "message": message, "messaging_type": messaging_type});
        let id = stack.post(&body).await.broadcast_id();
        let report = stack.finish(&id).await;

        assert_eq!(report["counters"]["sent"], 2, "{message}");
        let received = stack.sandbox.received().pop().unwrap();
        assert_eq!(received.text.map_or(Value::Null, Value::from), message["text"]);
        assert_eq!(received.attachment.unwrap_or_default(), message["attachment"]);
        assert_eq!(received.template.unwrap_or_default(), message["template"]);
        assert_eq!(received.quick_replies.unwrap_or_default(), message["quick_replies"]);
    }
}

/// Messenger accepts ten audio or video messages a second from a Page, fewer than texts.
#[tokio::test]
async fn videos_are_sent_at_a_lower_rate() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(20).await;
    let video = json!({"attachment": {"type": "video", "payload": {"attachment_id": "1"}}});

    let id = stack
        .post(&json!({"contact_ids": ids, "message": video}))
        .await
        .broadcast_id();
    stack.finish(&id).await;

    let peak = stack.sandbox.summary().peak_per_second;
    assert!(peak <= 14, "{peak} in a second");
}
