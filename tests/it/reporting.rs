//! What became of whom: the report, the list of deliveries, the log.

use axum::http::StatusCode;
use local::sandbox::{Answer, Fault};
use serde_json::json;

use crate::stack::{PAGES, Stack};

#[tokio::test]
async fn deliveries_are_listed_by_page_and_contact_without_gap_or_repeat() {
    let stack = Stack::start().await;
    let mut ids = Vec::new();
    for page in PAGES {
        let of_page: Vec<_> = (0..7).map(|n| format!("{page}-{n}")).collect();
        stack.import(page, &of_page).await;
        ids.extend(of_page);
    }
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Reset).to_contacts([&ids[3]]));
    let id = stack.broadcast(&ids).await;
    stack.finish(&id).await;

    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/broadcasts/{id}/deliveries?limit=4{cursor}");
        let answer = stack.call("GET", &path, None, None).await;
        let items = answer.body["items"].as_array().unwrap();
        assert!(items.len() <= 4);
        listed.extend(
            items
                .iter()
                .map(|item| item["contact_id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = answer.body["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    let in_doubt = stack.deliveries(&id, "&status=in_doubt").await;

    assert_eq!(listed, ids);
    assert_eq!(in_doubt.len(), 1);
    assert_eq!(
        (&in_doubt[0]["contact_id"], &in_doubt[0]["page_id"]),
        (&json!(ids[3]), &json!(PAGES[0]))
    );
    assert_eq!(
        (&in_doubt[0]["status"], &in_doubt[0]["reason"]),
        (&json!("in_doubt"), &json!("connection lost"))
    );
    let sent = &stack.deliveries(&id, "&status=sent").await[0];
    let message = stack
        .sandbox
        .received()
        .into_iter()
        .find(|message| sent["contact_id"] == message.contact_id.as_str());
    assert_eq!(sent["message_id"], message.unwrap().message_id);
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_cannot_be_asked_is_400() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let unknown = shared::ids::BroadcastId::random();
    for (method, path, status) in [
        (
            "GET",
            format!("/v1/broadcasts/{unknown}"),
            StatusCode::NOT_FOUND,
        ),
        (
            "GET",
            "/v1/broadcasts/nonsense".to_owned(),
            StatusCode::NOT_FOUND,
        ),
        (
            "GET",
            format!("/v1/broadcasts/{unknown}/deliveries"),
            StatusCode::NOT_FOUND,
        ),
        (
            "GET",
            "/v1/contacts/nobody".to_owned(),
            StatusCode::NOT_FOUND,
        ),
        ("GET", "/v1/contacts/%FF".to_owned(), StatusCode::NOT_FOUND),
        ("GET", "/v2".to_owned(), StatusCode::NOT_FOUND),
        (
            "DELETE",
            format!("/v1/broadcasts/{id}"),
            StatusCode::METHOD_NOT_ALLOWED,
        ),
        (
            "GET",
            format!("/v1/broadcasts/{id}/deliveries?status=lost"),
            StatusCode::BAD_REQUEST,
        ),
        (
            "GET",
            format!("/v1/broadcasts/{id}/deliveries?limit=1001"),
            StatusCode::BAD_REQUEST,
        ),
        (
            "GET",
            format!("/v1/broadcasts/{id}/deliveries?cursor=x"),
            StatusCode::BAD_REQUEST,
        ),
        ("GET", "/v1/health".to_owned(), StatusCode::OK),
    ] {
        let answer = stack.call(method, &path, None, None).await;
        assert_eq!(answer.status, status, "{method} {path}");
    }
}
