//! How a send ends, and what that means for the contact, the Page and the job.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use local::sandbox::{Answer, Fault, GraphError, MessagingType, NotificationType};
use serde_json::{Value, json};

use crate::stack::{IMPATIENT, PAGE_WITHOUT_TOKEN, PAGES, Stack, request};

fn refusal(code: i64, subcode: Option<i64>) -> GraphError {
    GraphError {
        subcode,
        ..GraphError::new(code, "Messenger says no")
    }
}

/// Works one hint off, without going on as time does.
async fn work_once(stack: &Stack) {
    let hint = stack.receive().await.unwrap();
    stack.process_job(&hint).await;
    stack.delete(&hint).await;
}

async fn delivery(stack: &Stack, id: &shared::ids::BroadcastId, contact_id: &str) -> Value {
    let deliveries = stack.deliveries(id, "").await;
    deliveries
        .into_iter()
        .find(|delivery| delivery["contact_id"] == contact_id)
        .unwrap_or_default()
}

#[tokio::test]
async fn a_final_refusal_fails_this_contact_only() {
    for (code, subcode) in [
        (551, None),
        (10, Some(2_018_278)),
        (100, Some(2_018_001)),
        (100, None),
        (2_018_300, None),
    ] {
        let stack = Stack::start().await;
        let ids = stack.contacts(5).await;
        stack
            .sandbox
            .add_fault(Fault::answering(refusal(code, subcode)).to_contacts([&ids[1]]));

        let id = stack.broadcast(&ids).await;
        work_once(&stack).await;

        let report = stack.report(&id).await;
        assert_eq!(report["status"], "completed", "{code}/{subcode:?}");
        assert_eq!(
            (&report["counters"]["sent"], &report["counters"]["failed"]),
            (&json!(4), &json!(1))
        );
        let failed = delivery(&stack, &id, &ids[1]).await;
        assert!(
            failed["reason"]
                .as_str()
                .unwrap()
                .contains(&code.to_string()),
            "{failed}"
        );
    }
}

#[tokio::test]
async fn what_concerns_everybody_halts_the_job_and_spends_no_contact() {
    for (code, subcode) in [
        (190, Some(463)),
        (200, None),
        (10, None),
        (368, None),
        (100, Some(33)),
        (100, Some(2_018_047)),
    ] {
        let stack = Stack::with(&[("PAGE_RATE_PER_SECOND", "10")]).await;
        let ids = stack.contacts(30).await;
        stack
            .sandbox
            .add_fault(Fault::answering(refusal(code, subcode)));

        let id = stack.broadcast(&ids).await;
        work_once(&stack).await;

        let report = stack.report(&id).await;
        assert_eq!(report["status"], "halted", "{code}/{subcode:?}");
        assert!(
            report["jobs"][0]["reason"]
                .as_str()
                .unwrap()
                .contains(&code.to_string())
        );
        assert_eq!(
            (
                &report["counters"]["failed"],
                &report["counters"]["in_doubt"]
            ),
            (&json!(0), &json!(0))
        );
        let first = delivery(&stack, &id, &ids[0]).await;
        assert_eq!(
            (&first["status"], &first["attempts"]),
            (&json!("waiting"), &json!(0))
        );
    }
}

#[tokio::test]
async fn ten_suspicious_refusals_in_a_row_halt_the_job() {
    let stack = Stack::with(&[("PAGE_RATE_PER_SECOND", "8")]).await;
    let ids = stack.contacts(200).await;
    stack
        .sandbox
        .add_fault(Fault::answering(refusal(100, None)));

    let id = stack.broadcast(&ids).await;
    work_once(&stack).await;

    let report = stack.report(&id).await;
    assert_eq!(report["status"], "halted");
    // Ten in a row, and who was in flight then.
    let failed = report["counters"]["failed"].as_u64().unwrap();
    assert!(
        (10..=26).contains(&failed),
        "{failed} failed before the job was halted"
    );
}

#[tokio::test]
async fn what_may_have_arrived_is_in_doubt_and_never_sent_again() {
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
        (
            unclear(refusal(1, Some(1_357_046)).into()),
            "Messenger error 1/1357046",
        ),
        (unclear(refusal(2, None).into()), "Messenger error 2"),
        (unclear(refusal(1_200, None).into()), "Messenger error 1200"),
        (
            unclear(refusal(987_654, None).into()),
            "Messenger error 987654",
        ),
    ] {
        let stack = Stack::with(&[IMPATIENT]).await;
        let ids = stack.contacts(4).await;
        stack.sandbox.add_fault(fault.to_contacts([&ids[2]]));

        let id = stack.broadcast(&ids).await;
        let report = stack.finish(&id).await;
        let in_doubt = delivery(&stack, &id, &ids[2]).await;
        stack.advance(Duration::from_secs(86_400));
        stack.scheduled().await;
        stack.work_off().await;

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
async fn a_send_that_found_no_connection_is_tried_again_and_sent_once() {
    let stack = Stack::start().await;
    let ids = stack.contacts(3).await;
    stack.sandbox.unreachable().await;
    let id = stack.broadcast(&ids).await;

    work_once(&stack).await;
    let waiting = stack.report(&id).await;
    stack.sandbox.reachable().await.unwrap();
    let report = stack.finish(&id).await;

    assert_eq!(
        (&waiting["status"], &waiting["counters"]["waiting"]),
        (&json!("waiting"), &json!(3))
    );
    assert_eq!(report["counters"]["sent"], 3);
    let delivery = delivery(&stack, &id, &ids[0]).await;
    assert_eq!(
        (&delivery["status"], &delivery["attempts"]),
        (&json!("sent"), &json!(2))
    );
}

#[tokio::test]
async fn attempts_run_out() {
    let stack = Stack::with(&[("RETRY_ATTEMPTS", "2")]).await;
    let ids = stack.contacts(1).await;
    stack.sandbox.unreachable().await;

    let id = stack.broadcast(&ids).await;
    let report = stack.finish(&id).await;

    assert_eq!(
        (&report["status"], &report["counters"]["failed"]),
        (&json!("completed"), &json!(1))
    );
    assert_eq!(
        delivery(&stack, &id, &ids[0]).await["reason"],
        "no connection, 2 times"
    );
}

#[tokio::test]
async fn a_rate_limit_pauses_the_page_until_messenger_says_and_costs_no_attempt() {
    let stack = Stack::with(&[("RETRY_ATTEMPTS", "1"), ("PAGE_RATE_PER_SECOND", "40")]).await;
    let ids = stack.contacts(60).await;
    let usage = json!({"1": [{"type": "messenger", "call_count": 100, "estimated_time_to_regain_access": 19}]});
    let limit = Answer::Error {
        error: refusal(80_006, None),
        headers: BTreeMap::from([("X-Business-Use-Case-Usage".to_owned(), usage.to_string())]),
    };
    stack.sandbox.add_fault(Fault::answering(limit).times(1));
    let id = stack.broadcast(&ids).await;
    work_once(&stack).await;

    let paused = stack.job(&id).await;
    let minutes = paused
        .due_at
        .unwrap()
        .duration_since(stack.app.clock.now())
        .as_mins();
    assert!((17..19).contains(&minutes), "{minutes}");

    // The pause is the Page's: another broadcast waits for it, too.
    let other = stack.broadcast(&ids[..2]).await;
    let received = stack.sandbox.received_count();
    stack.work_off().await;
    assert_eq!(stack.sandbox.received_count(), received);

    // Then it begins at half the rate.
    let left = 60 - received;
    stack.advance(Duration::from_secs(1_200));
    let hint = stack.hint_for(&id).await;
    let begun = Instant::now();
    stack.process_job(&hint).await;
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
async fn a_messenger_that_is_down_for_a_while_costs_few_doubts() {
    // Look-ups take their time, and are other stories'.
    let none_looked_up = ("DOUBT_CHECK_SECONDS", "86400");
    let rate = ("PAGE_RATE_PER_SECOND", "30");
    let stack = Stack::with(&[IMPATIENT, rate, none_looked_up]).await;
    let ids = stack.contacts(150).await;
    stack.sandbox.add_fault(Fault::answering(Answer::Hang));
    let id = stack.broadcast(&ids).await;

    for _ in 0..4 {
        work_once(&stack).await;
        assert_eq!(stack.report(&id).await["status"], "waiting");
        stack.advance(Duration::from_secs(600));
        stack.scheduled().await;
    }
    stack.sandbox.clear_faults();
    let report = stack.finish(&id).await;

    let in_doubt = report["counters"]["in_doubt"].as_u64().unwrap();
    // Two seconds' worth of the rate in flight, those that end before the fifth, and a probe after each pause.
    assert!((5..=69).contains(&in_doubt), "{in_doubt} in doubt");
    assert_eq!(report["counters"]["sent"].as_u64().unwrap() + in_doubt, 150);
}

#[tokio::test]
async fn a_messenger_that_stays_down_halts_the_job() {
    let stack = Stack::start().await;
    let ids = stack.contacts(50).await;
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
async fn a_page_without_a_token_halts_its_job_and_the_others_go_on() {
    let stack = Stack::start().await;
    let ids = stack.contacts(2).await;
    stack
        .import(PAGE_WITHOUT_TOKEN, &["lonely".to_owned()])
        .await;
    let all = [&ids[..], &["lonely".to_owned()]].concat();

    let id = stack.broadcast(&all).await;
    stack.work_off().await;

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
async fn the_text_is_the_contacts_own() {
    let stack = Stack::start().await;
    let contacts = json!({"contacts": [
        {"contact_id": "ana", "page_id": PAGES[0], "first_name": "Ana", "attributes": {"city": "Porto"}},
        {"contact_id": "ben", "page_id": PAGES[0], "first_name": "", "attributes": {"city": "Rio"}},
        {"contact_id": "eve", "page_id": PAGES[0], "first_name": "x".repeat(1_000), "attributes": {"city": "Rome"}},
    ]});
    stack
        .call("PUT", "/v1/contacts", None, Some(&contacts))
        .await;
    let text = "{{ first_name }} {{ first_name }} in {{ attributes.city }}";

    let body = json!({"contact_ids": ["ana", "ben", "eve"], "message": {"text": text}});
    let id = stack.post(&body).await.broadcast_id();
    stack.finish(&id).await;

    assert_eq!(
        stack.sandbox.received()[0].text.as_deref(),
        Some("Ana Ana in Porto")
    );
    assert_eq!(
        delivery(&stack, &id, "ben").await["reason"],
        "missing first_name"
    );
    let too_long = delivery(&stack, &id, "eve").await;
    assert_eq!(too_long["status"], "failed");
    assert!(
        too_long["reason"]
            .as_str()
            .unwrap()
            .contains("2009 UTF-16 units"),
        "{too_long}"
    );
}

#[tokio::test]
async fn who_opted_out_after_the_request_is_skipped() {
    let stack = Stack::start().await;
    let ids = stack.contacts(3).await;
    let id = stack.broadcast(&ids).await;
    let opted_out =
        json!({"contacts": [{"contact_id": ids[1], "page_id": PAGES[0], "opted_out": true}]});
    stack
        .call("PUT", "/v1/contacts", None, Some(&opted_out))
        .await;

    let report = stack.finish(&id).await;

    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["skipped"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(delivery(&stack, &id, &ids[1]).await["reason"], "opted_out");
}

#[tokio::test]
async fn who_moved_is_sent_to_by_the_page_that_accepted_them() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = stack.broadcast(&ids).await;

    stack.import(PAGES[1], &ids).await;
    stack.finish(&id).await;

    assert_eq!(stack.sandbox.received()[0].page_id, PAGES[0]);
}

#[tokio::test]
async fn messenger_gets_what_was_asked_for_and_proof_of_who_asks() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    writeln!(secret, "the-apps-secret").unwrap();
    let secret = format!("file:{}", secret.path().display());
    let stack = Stack::with(&[("APP_SECRET", &secret)]).await;
    let ids = stack.contacts(1).await;
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
async fn a_message_that_is_no_hint_goes_back_to_the_queue_and_harms_nobody() {
    let stack = Stack::start().await;
    for body in [
        "",
        "{}",
        "nonsense",
        r#"{"broadcast_id": "x", "page_id": "y"}"#,
    ] {
        let answer = stack.process_job(&crate::stack::Hint::new(body)).await;
        assert_eq!(
            answer.batch_item_failures[0].item_identifier, "by hand",
            "{body}"
        );
    }
}

/// The illness is Messenger's and the pause is the Page's: further jobs do not find out for themselves.
#[tokio::test]
async fn each_further_job_of_an_ill_page_spends_one_probe() {
    let stack = Stack::with(&[("PAGE_RATE_PER_SECOND", "30")]).await;
    let ids = stack.contacts(120).await;
    stack.sandbox.add_fault(Fault::answering(Answer::Reset));
    let mut broadcasts = Vec::new();
    for ids in ids.chunks(40) {
        broadcasts.push(stack.broadcast(ids).await);
    }

    for _ in &broadcasts {
        work_once(&stack).await;
        stack.advance(Duration::from_secs(3_600));
    }

    let mut in_doubt = Vec::new();
    for id in &broadcasts {
        in_doubt.push(
            stack.report(id).await["counters"]["in_doubt"]
                .as_u64()
                .unwrap(),
        );
    }
    assert!((5..40).contains(&in_doubt[0]), "{in_doubt:?}");
    assert_eq!(in_doubt[1..], [1, 1]);
}

#[tokio::test]
async fn attachments_templates_and_quick_replies_go_as_they_came() {
    let stack = Stack::start().await;
    let ids = stack.contacts(2).await;
    let image = json!({"type": "image", "payload": {"url": "https://example.com/a.png", "is_reusable": true}});
    let sound = json!({"type": "audio", "payload": {"attachment_id": "1857777774821032"}});
    let replies = json!([{"content_type": "text", "title": "Yes", "payload": "YES"}, {"content_type": "user_email"}]);
    let template = json!({"name": "order_update", "language": {"code": "en"}, "components": [{"type": "body", "parameters": [{"type": "text", "text": "12"}]}]});
    for (message, messaging_type) in [
        (
            json!({"attachment": image, "quick_replies": replies}),
            "UPDATE",
        ),
        (json!({"attachment": sound}), "RESPONSE"),
        (json!({"text": "Well?", "quick_replies": replies}), "UPDATE"),
        (json!({"template": template}), "UTILITY"),
    ] {
        let body =
            json!({"contact_ids": ids, "message": message, "messaging_type": messaging_type});
        let id = stack.post(&body).await.broadcast_id();
        let report = stack.finish(&id).await;

        assert_eq!(report["counters"]["sent"], 2, "{message}");
        let received = stack.sandbox.received().pop().unwrap();
        assert_eq!(
            received.text.map_or(Value::Null, Value::from),
            message["text"]
        );
        assert_eq!(
            received.attachment.unwrap_or_default(),
            message["attachment"]
        );
        assert_eq!(received.template.unwrap_or_default(), message["template"]);
        assert_eq!(
            received.quick_replies.unwrap_or_default(),
            message["quick_replies"]
        );
    }
}

/// Messenger takes ten sounds and films a second from a Page, whatever it takes of texts.
#[tokio::test]
async fn films_are_sent_more_slowly() {
    let stack = Stack::start().await;
    let ids = stack.contacts(20).await;
    let film = json!({"attachment": {"type": "video", "payload": {"attachment_id": "1"}}});

    let id = stack
        .post(&json!({"contact_ids": ids, "message": film}))
        .await
        .broadcast_id();
    stack.finish(&id).await;

    let peak = stack.sandbox.summary().peak_per_second;
    assert!(peak <= 14, "{peak} in a second");
}
