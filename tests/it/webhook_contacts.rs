//! Contacts that come from webhooks: an unknown person who writes to a Page becomes a contact of it, and nothing that was imported
//! is overwritten.

use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use local::clients;
use serde_json::{Value, json};
use shared::domain::contact::Source;
use shared::domain::ids::{ContactId, PageId};
use shared::store::found_contacts::{Added, NewContact};

use crate::fixture::invariants::Item;
use crate::fixture::proxy::{self, ProxiedCall};
use crate::fixture::{APP_SECRET, Endpoints, PAGES, Services, TestStack, request};
use crate::metrics::{count_events, counts};

/// The time of the events, by Meta.
const AT: i64 = 1_795_000_000_000;
/// The same time, as the API shows it.
const SHOWN_AT: &str = "2026-11-18T11:06:40Z";

/// Returns an event that this contact of the first Page caused.
fn event(contact_id: &str, at: i64, what: &Value) -> Value {
    let mut event = json!({"sender": {"id": contact_id}, "recipient": {"id": PAGES[0]}, "timestamp": at});
    event.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
    event
}

fn message(contact_id: &str, at: i64, text: &str) -> Value {
    event(contact_id, at, &json!({"message": {"mid": "m", "text": text}}))
}

/// Returns a contact as the API shows it; `null` if there is none.
async fn contact(stack: &TestStack, id: &str) -> Value {
    let answer = stack.call("GET", &format!("/v1/contacts/{id}"), None, None).await;
    match answer.status {
        StatusCode::NOT_FOUND => Value::Null,
        _ => answer.body,
    }
}

/// Returns the number of stored contacts.
async fn stored_contacts(stack: &TestStack) -> usize {
    let items = stack.stored_items().await.into_iter();
    let is_contact = |item: &Item| item.contains_key("contact_id") && !item.contains_key("job");
    items.filter(is_contact).count()
}

#[tokio::test]
async fn unknown_person_becomes_a_contact_by_each_kind_of_event() {
    let stack = TestStack::start().await;
    let kinds = [
        json!({"message": {"mid": "m", "text": "Hello"}}),
        json!({"message": {"mid": "m", "attachments": [{"type": "image"}]}}),
        json!({"postback": {"title": "Get started", "payload": "start"}}),
        json!({"reaction": {"reaction": "love", "action": "react", "mid": "m"}}),
        json!({"referral": {"ref": "flyer", "source": "SHORTLINK", "type": "OPEN_THREAD"}}),
        json!({"optin": {"type": "notification_messages", "payload": "x", "notification_messages_token": "t"}}),
        json!({"optin": {"ref": "door"}}),
    ];
    let events = kinds.iter().enumerate();
    let events: Vec<_> = events.map(|(n, what)| event(&format!("p{n}"), AT, what)).collect();
    // The call may name the Page in one place only, and another app may control the conversation.
    let mut bare = message("p7", AT, "Hello");
    bare.as_object_mut().unwrap().remove("recipient");
    let body = json!({"object": "page", "entry": [
        {"id": PAGES[0], "messaging": events},
        {"id": PAGES[0], "messaging": [bare], "standby": [message("p8", AT, "Hello")]},
        {"messaging": [message("p9", AT, "Hello")]},
    ]});

    assert_eq!(
        stack.signed_webhook(&body.to_string(), APP_SECRET).await,
        StatusCode::OK
    );

    for n in 0..10 {
        let id = format!("p{n}");
        let expected = json!({
            "contact_id": id, "page_id": PAGES[0], "first_name": null, "last_name": null, "name": null, "locale": null,
            "timezone": null, "tags": [], "opted_out": false, "tester": false, "last_interaction_at": SHOWN_AT,
            "source": "webhook", "attributes": {},
        });
        assert_eq!(contact(&stack, &id).await, expected);
    }
    let ids = ["p0".to_owned(), "p8".to_owned()];
    let body = json!({"contact_ids": ids, "message": {"text": "Hi, we open at nine."}, "outside_window": "send"});
    let id = stack.post(&body).await.broadcast_id();
    assert_eq!(stack.finish(&id).await["counters"]["sent"], 2);
}

/// The Page had no contact before, so that no list had it.
#[tokio::test]
async fn first_contact_of_a_page_is_in_the_audience_of_everybody() {
    let stack = TestStack::start().await;
    let body = json!({"object": "page", "entry": [{"id": PAGES[0], "messaging": [message("p", AT, "Hello")]}]});
    assert_eq!(
        stack.signed_webhook(&body.to_string(), APP_SECRET).await,
        StatusCode::OK
    );
    stack.let_reads_catch_up();

    let everybody = json!({"everybody": true});
    let counted = stack.call("POST", "/v1/audiences/count", None, Some(&everybody)).await;

    assert_eq!(counted.body["matching"], 1, "{counted:?}");
}

#[tokio::test]
async fn other_events_make_no_contact() {
    let stack = TestStack::start().await;
    let hello = || json!({"message": {"mid": "m", "text": "Hello"}});
    let events = [
        event(
            "odd",
            AT,
            &json!({"message": {"mid": "m", "text": "Hello", "is_echo": true}}),
        ),
        event("odd", AT, &json!({"read": {"watermark": AT}})),
        event("odd", AT, &json!({"delivery": {"mids": ["m"], "watermark": AT}})),
        event(
            "odd",
            AT,
            &json!({"recipient": {"id": PAGES[1]}, "message": {"mid": "m"}}),
        ),
        event(
            "odd",
            AT,
            &json!({"optin": {"notification_messages_status": "STOP NOTIFICATIONS"}}),
        ),
        event("odd", AT, &json!({"timestamp": "noon", "message": {"mid": "m"}})),
        event("o d\u{200b}d", AT, &hello()),
        // The Page itself, as sender of what is not marked as an echo.
        event(PAGES[0], AT, &hello()),
        json!({"recipient": {"id": PAGES[0]}, "timestamp": AT, "optin": {"ref": "x", "user_ref": "odd"}}),
    ];
    assert_eq!(stack.webhook(PAGES[0], &events).await, StatusCode::OK);
    for call in [
        json!({"object": "instagram", "entry": [{"id": PAGES[0], "messaging": [event("odd", AT, &hello())]}]}),
        json!({"object": "page", "entry": [{"id": "p q", "messaging": [event("odd", AT, &json!({"recipient": {"id": "p q"}, "message": {}}))]}]}),
        json!({"object": "page", "entry": [{"messaging": [event("odd", AT, &json!({"recipient": null, "message": {}}))]}]}),
    ] {
        let status = stack.signed_webhook(&call.to_string(), APP_SECRET).await;
        assert_eq!(status, StatusCode::OK, "{call}");
    }

    assert_eq!(stored_contacts(&stack).await, 0);
}

#[tokio::test]
async fn unknown_person_stays_unknown_where_that_is_configured() {
    let stack = TestStack::start_with(&[("CONTACTS_FROM_WEBHOOKS", "off")]).await;
    let ids = stack.import_contacts(1).await;

    let events = [
        message("new", AT, "Hello"),
        message("new", AT, "stop"),
        message(&ids[0], AT, "Hello"),
    ];
    assert_eq!(stack.webhook(PAGES[0], &events).await, StatusCode::OK);

    assert_eq!(contact(&stack, "new").await, Value::Null);
    assert_eq!(contact(&stack, &ids[0]).await["last_interaction_at"], SHOWN_AT);
}

#[tokio::test]
async fn webhook_overwrites_nothing_that_was_imported() {
    let stack = TestStack::start().await;
    let imported = json!({
        "contact_id": "ana", "page_id": PAGES[0], "first_name": "Ana", "last_name": "Sá", "name": "Ana Sá", "locale": "pt_PT",
        "timezone": 1, "tags": ["vip"], "opted_out": true, "tester": true, "last_interaction_at": "2026-11-01T09:00:00Z",
        "source": "till", "attributes": {"city": "Porto"},
    });
    stack
        .call("PUT", "/v1/contacts", None, Some(&json!({"contacts": [imported]})))
        .await;

    let events = [message("ana", AT, "Hello"), message("ana", AT - 1_000, "Hello")];
    assert_eq!(stack.webhook(PAGES[0], &events).await, StatusCode::OK);

    let mut expected = imported;
    expected["last_interaction_at"] = json!(SHOWN_AT);
    assert_eq!(contact(&stack, "ana").await, expected);

    // An id belongs to one Page. Another Page that reports it does not move it, and did not open its window.
    let mut elsewhere = message("ana", AT + 1_000, "Hello");
    elsewhere["recipient"]["id"] = json!(PAGES[1]);
    assert_eq!(stack.webhook(PAGES[1], &[elsewhere]).await, StatusCode::OK);
    assert_eq!(contact(&stack, "ana").await, expected);
}

#[tokio::test]
async fn repeated_and_reordered_events_leave_the_last_interaction() {
    let stack = TestStack::start().await;
    let events: Vec<_> = [3, 1, 2, 3, 0]
        .map(|n| message("new", AT - 3_000 + n * 1_000, "Hello"))
        .into();
    for events in [&events[..], &events[..2], &events[2..]] {
        assert_eq!(stack.webhook(PAGES[0], events).await, StatusCode::OK);
        assert_eq!(contact(&stack, "new").await["last_interaction_at"], SHOWN_AT);
    }
    assert_eq!(stored_contacts(&stack).await, 1);
}

/// The write of the word itself fails: between the two writes, too, the new contact must not be addressable.
#[tokio::test]
async fn new_contact_that_asks_for_no_messages_is_created_opted_out() {
    let services = Services::start().await;
    let hook = |call: ProxiedCall| async move {
        match call.body().contains("consent_at") {
            true => proxy::no_answer(),
            false => call.forward().await,
        }
    };
    let endpoints = Endpoints {
        dynamodb: proxy::start(&services.endpoints.dynamodb, hook).await,
        ..services.endpoints.clone()
    };
    let stack = TestStack::start_on(services, &endpoints, &[]).await;

    let status = stack.webhook(PAGES[0], &[message("new", AT, " Stop!")]).await;

    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(contact(&stack, "new").await["opted_out"], true);
    let refused = stack.post(&request(&["new".to_owned()])).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn words_count_for_a_new_contact() {
    let stack = TestStack::start_with(&[("OPT_IN_WORDS", "start")]).await;
    count_events(&stack);

    let events = [
        message("out", AT, "STOP"),
        message("back", AT, "start"),
        message("none", AT, "Hello"),
    ];
    for _ in 0..2 {
        assert_eq!(stack.webhook(PAGES[0], &events).await, StatusCode::OK);
    }

    for (id, opted_out) in [("out", true), ("back", false), ("none", false)] {
        assert_eq!(contact(&stack, id).await["opted_out"], opted_out, "{id}");
    }
    assert_eq!(count_events(&stack), counts([("OptedIn", 1), ("OptedOut", 1)]));
    let later = [message("out", AT + 1, "start"), message("back", AT + 1, "stop")];
    assert_eq!(stack.webhook(PAGES[0], &later).await, StatusCode::OK);
    // A late repetition of the first word.
    assert_eq!(stack.webhook(PAGES[0], &events).await, StatusCode::OK);
    for (id, opted_out) in [("out", false), ("back", true)] {
        assert_eq!(contact(&stack, id).await["opted_out"], opted_out, "{id}");
    }
}

/// `import_speed::contacts_a_second_of_webhooks` does the same with a thousand, and prints the time: a busy machine takes longer for
/// them than the function has.
#[tokio::test]
async fn hundreds_of_unknown_people_in_one_call_become_contacts() {
    let stack = TestStack::start().await;
    let events: Vec<_> = (0..300).map(|n| message(&format!("p{n}"), AT, "Hello")).collect();

    assert_eq!(stack.webhook(PAGES[0], &events).await, StatusCode::OK);

    assert_eq!(stored_contacts(&stack).await, 300);
    assert_eq!(contact(&stack, "p299").await["last_interaction_at"], SHOWN_AT);
}

#[tokio::test]
async fn person_who_is_reported_while_it_is_imported_has_the_values_of_both() {
    let stack = TestStack::start().await;
    let ids: Vec<_> = (0..40).map(|n| format!("p{n}")).collect();
    let events: Vec<_> = ids.iter().map(|id| message(id, AT, "Hello")).collect();
    let backwards: Vec<_> = ids.iter().rev().cloned().collect();

    let (status, ()) = tokio::join!(stack.webhook(PAGES[0], &events), stack.import(PAGES[0], &backwards));

    assert_eq!(status, StatusCode::OK);
    for id in &ids {
        let contact = contact(&stack, id).await;
        assert_eq!(contact["first_name"], format!("Nr {id}"));
        assert_eq!(
            (&contact["last_interaction_at"], &contact["page_id"]),
            (&json!(SHOWN_AT), &json!(PAGES[0]))
        );
    }
    assert_eq!(stored_contacts(&stack).await, 40);
}

/// Import and webhook name different Pages for a new contact at the same moment: one of them is first, and the contact is whole.
#[tokio::test]
async fn person_who_is_imported_on_another_page_meanwhile_is_on_one_page() {
    let stack = TestStack::start().await;
    for n in 0..20 {
        let id = format!("p{n}");
        let body = json!({"contacts": [{"contact_id": id, "page_id": PAGES[1], "first_name": "Ana"}]});
        let events = [message(&id, AT, "Hello")];
        let import = stack.call("PUT", "/v1/contacts", None, Some(&body));
        let (status, imported) = tokio::join!(stack.webhook(PAGES[0], &events), import);

        assert_eq!(status, StatusCode::OK);
        let contact = contact(&stack, &id).await;
        let seen = (&contact["page_id"], &contact["first_name"], &contact["source"]);
        match imported.status {
            StatusCode::OK => assert_eq!(seen, (&json!(PAGES[1]), &json!("Ana"), &json!("api"))),
            status => {
                assert_eq!(status, StatusCode::CONFLICT);
                assert_eq!(seen, (&json!(PAGES[0]), &Value::Null, &json!("webhook")));
            }
        }
    }
}

#[tokio::test]
async fn contact_that_is_deleted_while_an_event_comes_is_whole_or_gone() {
    let stack = TestStack::start().await;
    let ids: Vec<_> = (0..40).map(|n| format!("p{n}")).collect();
    stack.import(PAGES[0], &ids).await;
    let events: Vec<_> = ids.iter().map(|id| message(id, AT, "stop")).collect();
    let deletes = async {
        for id in &ids {
            stack.call("DELETE", &format!("/v1/contacts/{id}"), None, None).await;
        }
    };

    let (status, ()) = tokio::join!(stack.webhook(PAGES[0], &events), deletes);

    assert_eq!(status, StatusCode::OK);
    for id in &ids {
        let contact = contact(&stack, id).await;
        if contact.is_null() {
            continue;
        }
        let seen = (&contact["first_name"], &contact["source"], &contact["opted_out"]);
        assert_eq!(seen, (&Value::Null, &json!("webhook"), &json!(true)), "{contact}");
    }
}

fn found(id: &str, name: Option<&str>, at: Option<i64>) -> NewContact {
    NewContact {
        contact_id: ContactId::parse(id).unwrap(),
        page_id: PageId::parse(PAGES[0]).unwrap(),
        name: name.map(str::to_owned),
        last_interaction_at: at.map(|at| Timestamp::from_millisecond(at).unwrap()),
        opted_out: false,
        source: Source::Conversations,
    }
}

#[tokio::test]
async fn added_contact_gets_only_what_it_lacks() {
    let stack = TestStack::start().await;
    let contacts = stack.app.store.contacts();
    let add = async |new: NewContact| contacts.add(&new).await.unwrap();
    let seen = async || {
        let contact = contact(&stack, "ana").await;
        ["name", "last_interaction_at", "source"].map(|field| contact[field].clone())
    };

    assert_eq!(add(found("ana", None, None)).await, Added::Created);
    assert_eq!(seen().await, [Value::Null, Value::Null, json!("conversations")]);
    assert_eq!(add(found("ana", Some("Ana Sá"), Some(AT))).await, Added::Known);
    assert_eq!(seen().await, [json!("Ana Sá"), json!(SHOWN_AT), json!("conversations")]);
    assert_eq!(add(found("ana", Some("Another"), Some(AT - 1))).await, Added::Known);
    assert_eq!(add(found("ana", Some("Another"), None)).await, Added::Known);
    assert_eq!(seen().await, [json!("Ana Sá"), json!(SHOWN_AT), json!("conversations")]);
    let elsewhere = |at| NewContact {
        page_id: PageId::parse(PAGES[1]).unwrap(),
        ..found("ana", Some("Another"), at)
    };
    for at in [None, Some(AT + 1)] {
        assert_eq!(add(elsewhere(at)).await, Added::OnAnotherPage);
    }
    assert_eq!(seen().await, [json!("Ana Sá"), json!(SHOWN_AT), json!("conversations")]);

    // An earlier time than the known one brings the name all the same.
    stack.webhook(PAGES[0], &[message("ben", AT, "Hello")]).await;
    assert_eq!(add(found("ben", Some("Ben"), Some(AT - 1))).await, Added::Known);
    let ben = contact(&stack, "ben").await;
    assert_eq!(
        (&ben["name"], &ben["last_interaction_at"]),
        (&json!("Ben"), &json!(SHOWN_AT))
    );
}

/// The contact is deleted between the refused write, which was too early, and the one that fills in the name.
#[tokio::test]
async fn contact_that_is_deleted_while_it_is_filled_in_stays_deleted() {
    let services = Services::start().await;
    let database = services.endpoints.dynamodb.clone();
    let hook = move |call: ProxiedCall| {
        let deleting = clients::dynamodb(&database).delete_item();
        let asked: Value = serde_json::from_str(&call.body()).unwrap();
        let id = aws_sdk_dynamodb::types::AttributeValue::S("ana".to_owned());
        let deleting = deleting
            .set_table_name(asked["TableName"].as_str().map(str::to_owned))
            .key("contact_id", id);
        let fills_in = call.name().ends_with("UpdateItem") && asked["UpdateExpression"].to_string().contains("#name");
        let is_second = fills_in && asked["ConditionExpression"] == "page_id = :page_id";
        async move {
            if is_second {
                deleting.send().await.unwrap();
            }
            call.forward().await
        }
    };
    let endpoints = Endpoints {
        dynamodb: proxy::start(&services.endpoints.dynamodb, hook).await,
        ..services.endpoints.clone()
    };
    let stack = TestStack::start_on(services, &endpoints, &[]).await;
    stack.webhook(PAGES[0], &[message("ana", AT, "Hello")]).await;
    stack.advance(Duration::from_secs(1));

    let contacts = stack.app.store.contacts();
    let added = contacts.add(&found("ana", Some("Ana"), Some(AT - 1))).await;

    assert_eq!(added.unwrap(), Added::Known);
    assert_eq!(contact(&stack, "ana").await, Value::Null);
}
