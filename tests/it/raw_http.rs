//! HTTP as Messenger, or a proxy before it, may speak it: redirects, lost connections, and answers of any form. A send is
//! never repeated, and is in doubt wherever it may have been accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shared::domain::ids::BroadcastId;

use crate::fixture::raw_messenger::{RawAnswer, RawMessenger, RawRequest, with_body};
use crate::fixture::{Endpoints, Services, TestStack};

const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// Starts a stack with this server as Messenger. The promise cannot be checked by the sandbox's ledger at the end.
async fn start_before(messenger: &RawMessenger, variables: &[(&str, &str)]) -> TestStack {
    let services = Services::start().await;
    let endpoints = Endpoints {
        graph: messenger.url.clone(),
        ..services.endpoints.clone()
    };
    TestStack::start_on(services, &endpoints, variables).await
}

/// Sends to these contacts until the broadcast is finished.
async fn broadcast(stack: &TestStack, ids: &[String]) -> BroadcastId {
    let id = stack.broadcast(ids).await;
    stack.finish(&id).await;
    stack.skip_promise_check();
    id
}

/// Returns the status of a delivery, and its message id or reason.
async fn outcome(stack: &TestStack, id: &BroadcastId, contact_id: &str) -> (String, String) {
    let row = stack.delivery(id, contact_id).await;
    let text = |name: &str| row[name].as_str().map(str::to_owned);
    (
        text("status").unwrap(),
        text("message_id").or(text("reason")).unwrap_or_default(),
    )
}

fn index(contact_id: &str) -> usize {
    contact_id[1..].parse().unwrap()
}

#[tokio::test]
async fn redirect_is_in_doubt_and_not_followed() {
    let foreign = RawMessenger::start(RawAnswer::usual).await;
    for host in ["", foreign.url.trim_end_matches("/v25.0")] {
        let location = format!("{host}/v25.0/elsewhere");
        let messenger = RawMessenger::start(move |request| match &request.contact_id {
            Some(contact_id) if index(contact_id) < REDIRECTS.len() => {
                let status = REDIRECTS[index(contact_id)];
                let head = format!("HTTP/1.1 {status} Elsewhere\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
                RawAnswer::closing(head)
            }
            _ => RawAnswer::usual(request),
        })
        .await;
        let stack = start_before(&messenger, &[]).await;
        let ids = stack.import_contacts(REDIRECTS.len() + 1).await;

        let id = broadcast(&stack, &ids).await;

        assert!(foreign.requests().is_empty(), "{:?}", foreign.requests());
        assert!(
            messenger.sends().values().all(|sends| *sends == 1),
            "{:?}",
            messenger.sends()
        );
        let followed = |request: &RawRequest| request.target.contains("elsewhere");
        assert!(!messenger.requests().iter().any(followed), "{:?}", messenger.requests());
        assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 5], "{host}");
        let (_, reason) = outcome(&stack, &id, &ids[0]).await;
        assert!(reason.starts_with("answered with a redirect"), "{reason}");
    }
}

/// The second request of each connection is read, and the connection is closed.
#[tokio::test]
async fn send_on_a_connection_that_closes_is_in_doubt_and_not_repeated() {
    let messenger = RawMessenger::start(|request| match request.earlier {
        0 => RawAnswer::usual(request),
        _ => RawAnswer::closing(""),
    })
    .await;
    // One connection serves several sends only if they do not overlap.
    let stack = start_before(&messenger, &[("PAGE_RATE_PER_SECOND", "20")]).await;
    let ids = stack.import_contacts(6).await;

    let id = broadcast(&stack, &ids).await;

    let reused: Vec<_> = messenger
        .requests()
        .into_iter()
        .filter(|request| request.earlier == 1)
        .collect();
    let closed: Vec<_> = reused.into_iter().filter_map(|request| request.contact_id).collect();
    assert!(!closed.is_empty());
    assert!(
        messenger.sends().values().all(|sends| *sends == 1),
        "{:?}",
        messenger.sends()
    );
    for contact_id in &ids {
        let (status, found) = outcome(&stack, &id, contact_id).await;
        match closed.contains(contact_id) {
            true => assert!(
                status == "in_doubt" && found.starts_with("connection lost"),
                "{status} {found}"
            ),
            false => assert_eq!((status, found), ("sent".to_owned(), format!("m_{contact_id}"))),
        }
    }
}

/// A connection is closed right after its answer, which does not say so: the client may write the next request to it.
#[tokio::test]
async fn send_on_a_connection_closed_before_it_reaches_messenger_at_most_once() {
    let messenger = RawMessenger::start(|request| RawAnswer {
        closes: true,
        ..RawAnswer::usual(request)
    })
    .await;
    let stack = start_before(&messenger, &[("PAGE_RATE_PER_SECOND", "40")]).await;
    let ids = stack.import_contacts(20).await;

    let id = broadcast(&stack, &ids).await;

    let sends = messenger.sends();
    for contact_id in &ids {
        let (status, _) = outcome(&stack, &id, contact_id).await;
        match sends.get(contact_id) {
            Some(1) => assert!(["sent", "in_doubt"].contains(&&*status), "{status}"),
            None => assert_eq!(status, "in_doubt"),
            Some(more) => panic!("{more} sends to {contact_id}"),
        }
    }
}

/// Bytes after an answer, on the same connection, are not the answer to the next request.
#[tokio::test]
async fn stray_answer_is_not_taken_for_the_next_one() {
    let messenger = RawMessenger::start(|request| {
        let usual = RawAnswer::usual(request);
        let stray = with_body("200 OK", r#"{"recipient_id": "c00000", "message_id": "m_stray"}"#);
        match request.contact_id.as_deref() {
            Some("c00000") => RawAnswer {
                bytes: [usual.bytes, stray].concat(),
                closes: false,
            },
            _ => usual,
        }
    })
    .await;
    let stack = start_before(&messenger, &[("PAGE_RATE_PER_SECOND", "20")]).await;
    let ids = stack.import_contacts(4).await;

    let id = broadcast(&stack, &ids).await;

    for contact_id in &ids {
        let (_, found) = outcome(&stack, &id, contact_id).await;
        assert_ne!(found, "m_stray", "{contact_id}");
    }
    assert!(
        messenger.sends().values().all(|sends| *sends == 1),
        "{:?}",
        messenger.sends()
    );
}

/// Returns answers of many forms with the outcome that each has: a status, and the beginning of the message id or reason.
fn forms() -> Vec<(Vec<u8>, &'static str, &'static str)> {
    let ok = |body: &str| with_body("200 OK", body);
    let raw = |text: &str| text.as_bytes().to_vec();
    let accepted = r#"{"message_id": "m_1"}"#;
    let refused = r#"{"error": {"code": "551", "message": "\ud83d"}}"#;
    let before = |informational: &str| [raw(informational), ok(accepted)].concat();
    let unreadable = "answer not readable";
    vec![
        (before("HTTP/1.1 100 Continue\r\n\r\n"), "sent", "m_1"),
        (before("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"), "sent", "m_1"),
        (
            raw(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n15\r\n{\"message_id\": \"m_1\"}\r\n0\r\nx: y\r\n\r\n",
            ),
            "sent",
            "m_1",
        ),
        (raw(&format!("HTTP/1.0 200 OK\r\n\r\n{accepted}")), "sent", "m_1"),
        ([ok(accepted), raw("more than it said")].concat(), "sent", "m_1"),
        (
            ok("\u{FEFF}{\"message_id\": 17, \"more\": [\"\\ud83d\", 1e999]}"),
            "sent",
            "17",
        ),
        (with_body("500 Oops", refused), "failed", "Messenger error 551"),
        (ok(refused), "failed", "Messenger error 551"),
        (
            with_body("500 Oops", r#"{"error": {"code": 2}}"#),
            "in_doubt",
            "Messenger error 2",
        ),
        (
            with_body("500 Oops", r#"{"error": {"code": 987654}}"#),
            "in_doubt",
            "Messenger error 987654",
        ),
        (
            with_body("400 Bad", r#"{"error": "bad"}"#),
            "in_doubt",
            "answered with an unreadable error",
        ),
        (with_body("404 Not Found", "<html>"), "in_doubt", unreadable),
        (
            ok(r#"{"recipient_id": "another", "message_id": "m_1"}"#),
            "in_doubt",
            unreadable,
        ),
        (
            raw(&format!("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{accepted}")),
            "in_doubt",
            unreadable,
        ),
        (
            raw(&format!("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{accepted}")),
            "in_doubt",
            "connection lost",
        ),
        (
            raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n15\r\n{\"mess"),
            "in_doubt",
            "connection lost",
        ),
        (
            raw("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x0b\x08\x00"),
            "in_doubt",
            unreadable,
        ),
        (
            raw("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
            "in_doubt",
            "",
        ),
        (raw("nonsense\r\n\r\n"), "in_doubt", "connection lost"),
        (raw(""), "in_doubt", "connection lost"),
    ]
}

#[tokio::test]
async fn each_form_of_an_answer_has_its_outcome() {
    let forms = forms();
    let count = forms.len();
    let messenger = RawMessenger::start(move |request| match &request.contact_id {
        Some(contact_id) => RawAnswer::closing(&*forms[index(contact_id)].0),
        None => RawAnswer::usual(request),
    })
    .await;
    let stack = start_before(&messenger, &[]).await;
    let ids = stack.import_contacts(count).await;

    let id = broadcast(&stack, &ids).await;

    for (contact_id, (answer, status, beginning)) in ids.iter().zip(self::forms()) {
        let (found, text) = outcome(&stack, &id, contact_id).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            found == status && text.starts_with(beginning),
            "{answer}: {found} {text}"
        );
        assert_eq!(messenger.sends()[contact_id], 1, "{answer}");
    }
}

#[tokio::test]
async fn huge_answer_is_not_read() {
    const SIZE: usize = 60_000_000;
    let messenger = RawMessenger::start(|request| match request.contact_id {
        Some(_) => {
            let padding = " ".repeat(SIZE);
            RawAnswer::closing(with_body("200 OK", &format!("{padding}{{\"message_id\": \"m_1\"}}")))
        }
        None => RawAnswer::usual(request),
    })
    .await;
    let stack = start_before(&messenger, &[]).await;
    let ids = stack.import_contacts(1).await;

    let id = broadcast(&stack, &ids).await;

    let (status, reason) = outcome(&stack, &id, &ids[0]).await;
    assert!(
        status == "in_doubt" && reason.starts_with("answer not readable"),
        "{status} {reason}"
    );
    assert!(
        messenger.written() < SIZE / 6,
        "{} bytes were read",
        messenger.written()
    );
}

/// A conversation of long texts, each character escaped, has some hundred kilobytes.
#[tokio::test]
async fn answer_of_half_a_megabyte_is_read() {
    let messenger = RawMessenger::start(|request| match request.contact_id {
        Some(_) => {
            let padding = " ".repeat(500_000);
            RawAnswer::closing(with_body("200 OK", &format!("{padding}{{\"message_id\": \"m_1\"}}")))
        }
        None => RawAnswer::usual(request),
    })
    .await;
    let stack = start_before(&messenger, &[]).await;
    let ids = stack.import_contacts(1).await;

    let id = broadcast(&stack, &ids).await;

    assert_eq!(
        outcome(&stack, &id, &ids[0]).await,
        ("sent".to_owned(), "m_1".to_owned())
    );
}

/// Status 429 refuses a request, whatever its body: nothing was sent, and the contact is not charged for it.
#[tokio::test]
async fn too_many_requests_is_a_rate_limit_without_a_readable_body() {
    let is_first = Arc::new(AtomicBool::new(true));
    let messenger = RawMessenger::start(move |request| match request.contact_id {
        Some(_) if is_first.swap(false, Ordering::SeqCst) => {
            RawAnswer::closing(with_body("429 Too Many Requests", "<html>"))
        }
        _ => RawAnswer::usual(request),
    })
    .await;
    let stack = start_before(&messenger, &[("RETRY_ATTEMPTS", "1")]).await;
    let ids = stack.import_contacts(2).await;

    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;
    assert_eq!(stack.report(&id).await["status"], "waiting");
    stack.advance(Duration::from_secs(120));
    let report = stack.finish(&id).await;

    stack.skip_promise_check();
    assert_eq!(report["counters"]["sent"], 2);
    for row in stack.deliveries(&id, "").await {
        assert_eq!(row["attempts"], 1, "{row}");
    }
}
