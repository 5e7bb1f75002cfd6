//! The Rust client: every route of the document, errors, and the repetition of requests.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use client::api::audiences::AudienceChoice;
use client::api::broadcasts::NewBroadcast;
use client::api::changes::BroadcastChange;
use client::api::contacts::{ContactChange, ContactImport};
use client::api::controls::RetryRequest;
use client::api::sending::SendingChange;
use client::api::tags::TagsChange;
use client::api::test_sends::TestSend;
use client::{
    BroadcastQuery, Client, ContactQuery, ControlOptions, CountQuery, DeliveryQuery, ErasureQuery, Error, PartQuery,
};
use secrecy::SecretString;
use serde_json::json;
use shared::domain::audience::{Audience, AudienceName};
use shared::domain::delivery::Status;
use shared::domain::ids::{BroadcastId, ContactId, PageId};
use shared::domain::job::JobStatus;
use shared::domain::message::Message;
use shared::domain::sending::SendingState;
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::fixture::document::operations;
use crate::fixture::up::UpProcess;

/// An id that must be escaped in a path.
const CONTACT: &str = "6001/a?b#c";
const PROBLEM: &str = "invalid-request";
const PAGE: &str = "page-1";
const BROADCAST: &str = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0";

fn contact_id(id: &str) -> ContactId {
    ContactId::parse(id).unwrap()
}

fn contacts() -> ContactImport {
    let contact = |id, page| ContactChange::new(contact_id(id), PageId::parse(page).unwrap());
    ContactImport {
        contacts: vec![contact(CONTACT, "page-1"), contact("6002", "page-2")],
    }
}

fn text_to(ids: &[&str]) -> NewBroadcast {
    let message = Message {
        text: Some("Hi {{ first_name | default('there') }}.".to_owned()),
        attachment: None,
        template: None,
        quick_replies: Vec::new(),
    };
    NewBroadcast::new(ids.iter().map(|id| contact_id(id)).collect(), message)
}

#[tokio::test]
async fn client_sends_a_broadcast_and_reads_its_report() {
    let up = UpProcess::start(&[], &[]);
    let client = Client::new(reqwest::Client::new(), up.url()).unwrap();
    let imported = client.import_contacts(&contacts()).await.unwrap();
    assert_eq!(imported.upserted, 2);
    let shown = client.contact(&contact_id(CONTACT)).await.unwrap();
    assert_eq!(shown.page_id.to_string(), "page-1");

    let new = text_to(&[CONTACT, "6002", CONTACT]);
    let first = client.create_broadcast(&new, Some("monday")).await.unwrap();
    let second = client.create_broadcast(&new, Some("monday")).await.unwrap();
    let id = first.report.summary.broadcast_id;
    assert_eq!((first.replayed, second.replayed), (false, true));
    assert_eq!(second.report.summary.broadcast_id, id);

    // Two contacts are sent within the request.
    let report = client.broadcast(&id).await.unwrap();
    assert_eq!(report.summary.status, JobStatus::Completed);
    assert_eq!(report.summary.counters.outcomes.sent, 2);
    assert_eq!(report.summary.duplicates_prevented.request, 1);
    let tagged = client.broadcast_if_changed(&id, None).await.unwrap().unwrap();
    assert_eq!(tagged.report, report);
    let unchanged = client.broadcast_if_changed(&id, tagged.tag.as_deref()).await.unwrap();
    assert!(unchanged.is_none());
    let one = client.delivery(&id, &contact_id("6002")).await.unwrap();
    assert_eq!(one.delivery.status, Status::Sent);
    // The index of jobs lags by two seconds.
    let of_contact = loop {
        let all = PartQuery::default();
        let list = client.contact_deliveries(&contact_id("6002"), &all).await.unwrap();
        if list.items.iter().any(|item| item.delivery.status == Status::Sent) {
            break list.items;
        }
        sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(of_contact, [one]);
    let (status, limit) = (Some(Status::Sent), Some(1));
    let query = DeliveryQuery {
        status,
        limit,
        ..DeliveryQuery::default()
    };
    let part = client.deliveries(&id, &query).await.unwrap();
    assert_eq!(part.items[0].contact_id, contact_id(CONTACT));
    let cursor = part.next_cursor;
    let part = client
        .deliveries_csv(&id, &DeliveryQuery { cursor, ..query })
        .await
        .unwrap();
    assert!(part.csv.starts_with(b"contact_id,"));
    assert!(client.delete_contact(&contact_id("6002")).await.unwrap());
    assert!(!client.delete_contact(&contact_id("6002")).await.unwrap());
}

#[tokio::test]
async fn error_carries_the_problem() {
    let up = UpProcess::start(&[], &[]);
    let client = Client::new(reqwest::Client::new(), up.url()).unwrap();
    let refused = client.create_broadcast(&text_to(&[]), None).await.unwrap_err();
    let Error::Refused {
        call, status, problem, ..
    } = refused
    else {
        panic!("{refused}");
    };
    assert_eq!(call, "POST /v1/broadcasts");
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(problem.errors[0].field, "/contact_ids");
}

/// The status of an answer, and its `Retry-After`.
type Prepared = (StatusCode, Option<&'static str>);

/// A server that records requests, and answers with these answers in turn and then with a problem.
#[derive(Clone, Default)]
struct Recorder {
    requests: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    answers: Arc<Mutex<VecDeque<Prepared>>>,
}

impl Recorder {
    /// Starts it; returns it and a client of it.
    async fn start(answers: &[Prepared]) -> (Self, Client) {
        let recorder = Self::default();
        recorder.answers.lock().unwrap().extend(answers);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(recorder.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        let client = Client::new(reqwest::Client::new(), &url).unwrap();
        let token = SecretString::from("token-of-the-caller".to_owned());
        (recorder, client.with_token(token))
    }

    fn requests(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|(request, _)| request.clone()).collect()
    }
}

async fn answer(State(recorder): State<Recorder>, request: Request) -> Response {
    let name = format!("{} {}", request.method(), request.uri().path());
    let headers = request.headers().clone();
    recorder.requests.lock().unwrap().push((name, headers));
    let next = recorder.answers.lock().unwrap().pop_front();
    let (status, retry_after) = next.unwrap_or((StatusCode::BAD_REQUEST, None));
    let retry_after = retry_after.map(|seconds| [(header::RETRY_AFTER, seconds)]);
    (status, retry_after, json!({"message": "no"}).to_string()).into_response()
}

#[tokio::test]
async fn client_has_a_call_for_every_route_of_the_document() {
    let (recorder, client) = Recorder::start(&[]).await;
    let (contact, broadcast) = (contact_id(CONTACT), BroadcastId::parse(BROADCAST).unwrap());
    let change = SendingChange {
        state: SendingState::Off,
        reason: None,
        page_id: None,
    };

    client.health().await.unwrap_err();
    client.document().await.unwrap_err();
    client.checks(None).await.unwrap_err();
    client.sending(None).await.unwrap_err();
    client.change_sending(&change).await.unwrap_err();
    client.import_contacts(&contacts()).await.unwrap_err();
    client.import_csv(b"contact_id,page_id".to_vec()).await.unwrap_err();
    client.import_right_contacts(&contacts()).await.unwrap_err();
    client
        .import_right_csv(b"contact_id,page_id".to_vec())
        .await
        .unwrap_err();
    client.import_right_json(b"{}".to_vec()).await.unwrap_err();
    client.contacts(&ContactQuery::default()).await.unwrap_err();
    client.contacts_csv(&ContactQuery::default()).await.unwrap_err();
    client.change_tags(&TagsChange::default()).await.unwrap_err();
    client.pages(&PartQuery::default()).await.unwrap_err();
    client.contact(&contact).await.unwrap_err();
    client.delete_contact(&contact).await.unwrap_err();
    client
        .erase_contact(&contact, &ErasureQuery::default())
        .await
        .unwrap_err();
    let page = PageId::parse(PAGE).unwrap();
    client.start_page_import(&page).await.unwrap_err();
    client.page_import(&page).await.unwrap_err();
    client.cancel_page_import(&page).await.unwrap_err();
    client.create_broadcast(&text_to(&[CONTACT]), None).await.unwrap_err();
    client.broadcasts(&BroadcastQuery::default()).await.unwrap_err();
    client.broadcast(&broadcast).await.unwrap_err();
    client
        .change_broadcast(&broadcast, &BroadcastChange::default())
        .await
        .unwrap_err();
    client.approve(&broadcast).await.unwrap_err();
    let message = text_to(&[CONTACT]).message;
    let test = TestSend::new(vec![contact.clone()], message);
    client.send_to_testers(&test, None).await.unwrap_err();
    let all = ControlOptions::default();
    client.pause(&broadcast, &all).await.unwrap_err();
    client.resume(&broadcast, &all).await.unwrap_err();
    client.cancel(&broadcast, &all).await.unwrap_err();
    client
        .retry(&broadcast, &RetryRequest::default(), false)
        .await
        .unwrap_err();
    client.broadcast_if_changed(&broadcast, None).await.unwrap_err();
    client.delivery(&broadcast, &contact).await.unwrap_err();
    client
        .contact_deliveries(&contact, &PartQuery::default())
        .await
        .unwrap_err();
    client.problem_type(PROBLEM).await.unwrap_err();
    // Any name will do.
    let (name, audience) = (AudienceName::parse(PROBLEM).unwrap(), Audience::default());
    client.save_audience(&name, &audience).await.unwrap_err();
    client.audience(&name).await.unwrap_err();
    client.delete_audience(&name).await.unwrap_err();
    client.audiences(&PartQuery::default()).await.unwrap_err();
    client.count_audience(&name, &CountQuery::default()).await.unwrap_err();
    let audience = AudienceChoice::Filters(audience);
    client
        .count_contacts(&audience, &CountQuery::default())
        .await
        .unwrap_err();
    client
        .deliveries(&broadcast, &DeliveryQuery::default())
        .await
        .unwrap_err();
    client
        .deliveries_csv(&broadcast, &DeliveryQuery::default())
        .await
        .unwrap_err();

    let escaped = "6001%2Fa%3Fb%23c";
    let called: BTreeSet<_> = recorder
        .requests()
        .iter()
        .map(|request| {
            let request = request.replace(" /base/", " /").replace(escaped, "{contact_id}");
            let request = request.replace(BROADCAST, "{id}").replace(PROBLEM, "{name}");
            request.replace(PAGE, "{page_id}")
        })
        .collect();
    let documented: BTreeSet<_> = operations()
        .into_keys()
        // Messenger calls these.
        .filter(|route| !route.contains("/v1/webhooks/"))
        .collect();
    assert_eq!(called, documented);
    let requests = recorder.requests.lock().unwrap();
    assert!(
        requests
            .iter()
            .all(|(_, headers)| headers["authorization"] == "Bearer token-of-the-caller")
    );
}

#[tokio::test]
async fn request_that_may_be_repeated_is_repeated() {
    let busy = [
        (StatusCode::SERVICE_UNAVAILABLE, None),
        (StatusCode::TOO_MANY_REQUESTS, Some("1")),
    ];
    let (recorder, client) = Recorder::start(&busy).await;
    let error = client
        .create_broadcast(&text_to(&[CONTACT]), Some("monday"))
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST));
    assert_eq!(recorder.requests(), ["POST /base/v1/broadcasts"; 3]);
    let requests = recorder.requests.lock().unwrap();
    assert!(
        requests
            .iter()
            .all(|(_, headers)| headers["idempotency-key"] == "monday")
    );
    drop(requests);
}

#[tokio::test]
async fn request_is_given_up_after_four_repetitions() {
    let (recorder, client) = Recorder::start(&[(StatusCode::SERVICE_UNAVAILABLE, None); 9]).await;
    let error = client.health().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(recorder.requests().len(), 5);
}

#[tokio::test]
async fn post_without_a_key_is_sent_once() {
    let busy = [(StatusCode::SERVICE_UNAVAILABLE, None)];
    let (recorder, client) = Recorder::start(&busy).await;
    let error = client.create_broadcast(&text_to(&[CONTACT]), None).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(recorder.requests().len(), 1);

    let (recorder, client) = Recorder::start(&busy).await;
    client
        .resume(&BroadcastId::parse(BROADCAST).unwrap(), &ControlOptions::default())
        .await
        .unwrap_err();
    assert_eq!(recorder.requests().len(), 1);
}

#[tokio::test]
async fn request_is_not_repeated_before_a_distant_time() {
    let (recorder, client) = Recorder::start(&[(StatusCode::SERVICE_UNAVAILABLE, Some("31"))]).await;
    let error = client.health().await.unwrap_err();
    assert!(matches!(error, Error::Refused { retry_after: Some(after), .. } if after.as_secs() == 31));
    assert_eq!(recorder.requests().len(), 1);
}
