//! Imports write contacts in batches of statements. Each contact ends as by a write of its own, whatever happens meanwhile.

use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::types::AttributeValue;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use local::clients;
use serde_json::{Value, json};

use crate::fixture::proxy::{self, ProxiedCall};
use crate::fixture::{ApiResponse, Endpoints, PAGES, Services, TestStack};

const BATCH: &str = "BatchExecuteStatement";

/// Starts a stack whose calls of the database a hook answers.
async fn start<F: Future<Output = Response> + Send + 'static>(
    services: Services,
    hook: impl Fn(ProxiedCall) -> F + Clone + Send + Sync + 'static,
) -> TestStack {
    let endpoints = Endpoints {
        dynamodb: proxy::start(&services.endpoints.dynamodb, hook).await,
        ..services.endpoints.clone()
    };
    TestStack::start_on(services, &endpoints, &[]).await
}

async fn import(stack: &TestStack, contacts: Value) -> ApiResponse {
    let body = json!({"contacts": contacts});
    stack.call("PUT", "/v1/contacts", None, Some(&body)).await
}

async fn contact(stack: &TestStack, id: &str) -> Value {
    let answer = stack.call("GET", &format!("/v1/contacts/{id}"), None, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

#[tokio::test]
async fn new_and_known_contacts_take_a_batch_for_each_25() {
    let writes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&writes);
    let stack = start(Services::start().await, move |call: ProxiedCall| {
        let operation = call.name().rsplit('.').next().unwrap().to_owned();
        if operation == BATCH || operation == "UpdateItem" && call.body().contains("attributes.") {
            seen.lock().unwrap().push(operation);
        }
        call.forward()
    })
    .await;
    let contact_of = |n: usize, attributes: Value| {
        json!({
            "contact_id": format!("c{n}"), "page_id": PAGES[0], "first_name": format!("Ana {n}"), "tags": ["vip", "new"],
            "attributes": attributes,
        })
    };
    let all = |attributes: Value| (0..60).map(|n| contact_of(n, attributes.clone())).collect::<Value>();

    for attributes in [
        json!({"city": "Porto", "age": 40.5}),
        json!({"city": "Faro", "age": null}),
    ] {
        let imported = import(&stack, all(attributes)).await;
        assert_eq!(imported.body, json!({"upserted": 60}));
        assert_eq!(std::mem::take(&mut *writes.lock().unwrap()), [BATCH; 3]);
        stack.let_reads_catch_up();
    }

    let found = contact(&stack, "c59").await;
    assert_eq!(found["attributes"], json!({"city": "Faro"}));
    assert_eq!(
        (&found["first_name"], &found["source"]),
        (&json!("Ana 59"), &json!("api"))
    );
    // What only a write of its own can do.
    stack.write_contact_by_hand("of-an-earlier-version", PAGES[0]).await;
    stack.let_reads_catch_up();
    let many = (0..100).map(|n| (format!("a{n:063}"), json!(n)));
    let others = json!([
        {"contact_id": "c0", "page_id": PAGES[0], "attributes": null},
        {"contact_id": "of-an-earlier-version", "page_id": PAGES[0], "attributes": {"city": "Faro"}},
        {"contact_id": "long", "page_id": PAGES[0], "attributes": many.collect::<serde_json::Map<_, _>>()},
    ]);
    assert_eq!(import(&stack, others).await.body, json!({"upserted": 3}));
    assert_eq!(contact(&stack, "c0").await["attributes"], json!({}));
    assert_eq!(contact(&stack, "of-an-earlier-version").await["source"], "api");
    assert_eq!(
        contact(&stack, "long").await["attributes"].as_object().unwrap().len(),
        100
    );
    assert_eq!(*writes.lock().unwrap(), ["UpdateItem"; 3]);
}

/// Between the look at the contacts and the batch, a webhook creates one of them, and another is deleted.
#[tokio::test]
async fn contacts_that_are_created_or_deleted_meanwhile_end_as_by_a_write_of_their_own() {
    let services = Services::start().await;
    let database = clients::dynamodb(&services.endpoints.dynamodb);
    let meanwhile = Arc::new(Mutex::new(None));
    let (pending, read) = (Arc::clone(&meanwhile), database.clone());
    let stack = start(services, move |call: ProxiedCall| {
        let pending = match call.name().ends_with(BATCH) {
            true => pending.lock().unwrap().take(),
            false => None,
        };
        let database = database.clone();
        async move {
            if let Some(table) = pending {
                let create = database.put_item().table_name(&table);
                let create = create
                    .item("contact_id", text("created"))
                    .item("page_id", text(PAGES[0]));
                let create = create.item("schema", AttributeValue::N("9".to_owned()));
                let create = create.item("source", text("webhook")).item("last_name", text("Sá"));
                create.send().await.unwrap();
                let delete = database.delete_item().table_name(&table);
                delete.key("contact_id", text("gone")).send().await.unwrap();
            }
            call.forward().await
        }
    })
    .await;
    let named = |id: &str, field: &str| json!({"contact_id": id, "page_id": PAGES[0], field: "New"});
    import(&stack, json!([named("gone", "last_name"), named("known", "last_name")])).await;
    stack.let_reads_catch_up();
    let table = stack.app.config.contacts_table.clone();
    *meanwhile.lock().unwrap() = Some(table.clone());

    let ids = ["gone", "known", "created", "unknown"];
    let patches: Value = ids.iter().map(|id| named(id, "first_name")).collect();
    assert_eq!(import(&stack, patches).await.body, json!({"upserted": 4}));

    for (id, last_name, source) in [
        ("gone", Value::Null, "api"),
        ("known", json!("New"), "api"),
        ("created", json!("Sá"), "webhook"),
        ("unknown", Value::Null, "api"),
    ] {
        let found = contact(&stack, id).await;
        assert_eq!(
            (&found["first_name"], &found["last_name"], &found["source"]),
            (&json!("New"), &last_name, &json!(source)),
            "{id}"
        );
    }
    let created = read.get_item().table_name(table);
    let created = created.key("contact_id", text("created")).consistent_read(true);
    let created = created.send().await.unwrap().item.unwrap();
    assert_eq!(
        created["schema"],
        AttributeValue::N("9".to_owned()),
        "of a later version"
    );
}

/// Reads that lag show the contact on its former Page.
#[tokio::test]
async fn known_contact_that_was_moved_meanwhile_is_not_changed() {
    let stack = TestStack::start().await;
    let on = |page: &str, name: &str| json!([{"contact_id": "ana", "page_id": page, "first_name": name}]);
    import(&stack, on(PAGES[0], "Ana")).await;
    stack.let_reads_catch_up();
    stack.call("DELETE", "/v1/contacts/ana", None, None).await;
    stack.write_contact_by_hand("ana", PAGES[1]).await;

    let answer = import(&stack, on(PAGES[0], "New")).await;

    assert_eq!(answer.status, StatusCode::CONFLICT, "{answer:?}");
    let found = contact(&stack, "ana").await;
    assert_eq!(
        (&found["page_id"], &found["first_name"]),
        (&json!(PAGES[1]), &Value::Null)
    );
}

/// DynamoDB throttles statements one by one.
#[tokio::test]
async fn contact_whose_statement_fails_is_written_by_itself() {
    let stack = start(Services::start().await, |call: ProxiedCall| async move {
        if !call.name().ends_with(BATCH) {
            return call.forward().await;
        }
        let asked: Value = serde_json::from_str(&call.body()).unwrap();
        let count = asked["Statements"].as_array().unwrap().len();
        let throttled = json!({"Error": {"Code": "ThrottlingError", "Message": "too fast"}});
        let answer = json!({"Responses": vec![throttled; count]});
        (StatusCode::OK, answer.to_string()).into_response()
    })
    .await;

    let contacts: Value = (0..30)
        .map(|n| json!({"contact_id": format!("c{n}"), "page_id": PAGES[0]}))
        .collect();
    assert_eq!(import(&stack, contacts).await.body, json!({"upserted": 30}));

    for n in [0, 29] {
        assert_eq!(contact(&stack, &format!("c{n}")).await["page_id"], PAGES[0]);
    }
}
