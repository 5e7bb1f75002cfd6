//! The import of a Page's contacts from its conversations: whole, once, and never over what is known.

use std::time::Duration;

use axum::http::StatusCode;
use local::sandbox::People;
use serde_json::{Value, json};
use shared::domain::ids::PageId;
use shared::domain::import::ImportProgress;
use shared::store::hand_over::HandOver;
use tokio::time::Instant;

use crate::fixture::by_hand::LEASE;
use crate::fixture::page_imports::{SHORT, check_contacts, counts, job_of, path};
use crate::fixture::{PAGES, TestStack, WakeUpMessage};

fn wake_up() -> WakeUpMessage {
    WakeUpMessage::new(&serde_json::to_string(&job_of(PAGES[0])).unwrap())
}

#[tokio::test]
async fn everybody_becomes_a_contact_under_the_name_that_messenger_shows() {
    let stack = TestStack::start().await;
    let people = stack.give_people(PAGES[0], 230, 100);

    let first = stack.import_whole(PAGES[0]).await;
    assert_eq!(
        (&first["status"], counts(&first)),
        (&json!("completed"), [230, 230, 0, 0, 0])
    );
    assert_eq!(first["command"], Value::Null);
    let time = |field: &str| first[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time("ended_at") >= time("updated_at"));
    let contacts = stack.contacts().await;
    check_contacts(&contacts, PAGES[0], &people);
    // Messenger's time of a conversation is not that of the person's message.
    let (id, _) = people.person(0);
    let shown = stack.call("GET", &format!("/v1/contacts/{id}"), None, None).await.body;
    assert_eq!(shown["last_interaction_at"], Value::Null);

    let second = stack.import_whole(PAGES[0]).await;
    assert_eq!(counts(&second), [230, 0, 230, 0, 0]);
    assert_eq!(stack.contacts().await, contacts);
}

/// The import fills in a name where there is none, and changes nothing else.
#[tokio::test]
async fn what_is_known_of_a_contact_is_not_overwritten() {
    let stack = TestStack::start().await;
    let people = stack.give_people(PAGES[0], 3, 100);
    let [(named, _), (nameless, shown_name), _] = [0, 1, 2].map(|n| people.person(n));
    let contact = |id: &str| {
        json!({
            "contact_id": id, "page_id": PAGES[0], "first_name": "Nickname", "tags": ["vip"], "opted_out": true,
            "last_interaction_at": "2026-11-01T10:00:00Z", "attributes": {"city": "Porto"},
        })
    };
    let mut contacts = [contact(&named), contact(&nameless)];
    contacts[0]["name"] = json!("The name of the operator's list");
    let put = json!({"contacts": contacts});
    assert_eq!(
        stack.call("PUT", "/v1/contacts", None, Some(&put)).await.status,
        StatusCode::OK
    );

    let import = stack.import_whole(PAGES[0]).await;

    assert_eq!(counts(&import), [3, 1, 2, 0, 0]);
    for (mut expected, name) in contacts
        .into_iter()
        .zip(["The name of the operator's list", &shown_name])
    {
        let id = expected["contact_id"].as_str().unwrap();
        let shown = stack.call("GET", &format!("/v1/contacts/{id}"), None, None).await.body;
        expected["name"] = json!(name);
        expected["source"] = json!("api");
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(shown[field], *value, "{field}");
        }
    }
}

#[tokio::test]
async fn odd_conversations_are_counted_and_stop_nothing() {
    let stack = TestStack::start().await;
    let participants = |data: Value| json!({"id": "t_odd", "participants": {"data": data}});
    let page = json!({"id": PAGES[0], "name": "The Page"});
    let odd = vec![
        json!({"id": "t_without"}),
        json!({"id": "t_null", "participants": null}),
        json!("no conversation"),
        participants(json!([])),
        participants(json!([page.clone()])),
        participants(json!([{"name": "an account without an id"}, page.clone()])),
        participants(json!([{"id": 7001, "name": " \u{200B} "}, page.clone()])),
        participants(json!([page, 5, {"id": "7002", "name": "A\u{0}na"}])),
    ];
    let people = People { odd, ..People::new(20) };
    stack.sandbox.set_people(PAGES[0], people);

    let import = stack.import_whole(PAGES[0]).await;

    assert_eq!(
        (&import["status"], counts(&import)),
        (&json!("completed"), [28, 22, 0, 0, 6])
    );
    let contacts = stack.contacts().await;
    assert_eq!(contacts.len(), 22);
    for id in ["7001", "7002"] {
        assert_eq!(contacts[id].get("name"), None);
    }
}

#[tokio::test]
async fn person_on_two_pages_stays_a_contact_of_the_first() {
    let stack = TestStack::start().await;
    let people = stack.give_people(PAGES[0], 10, 100);
    let others = People {
        first: 8,
        ..People::new(10)
    };
    stack.sandbox.set_people(PAGES[1], others);

    assert_eq!(counts(&stack.import_whole(PAGES[0]).await), [10, 10, 0, 0, 0]);
    assert_eq!(counts(&stack.import_whole(PAGES[1]).await), [10, 8, 0, 2, 0]);

    let contacts = stack.contacts().await;
    assert_eq!(contacts.len(), 18);
    for n in 0..10 {
        assert_eq!(contacts[&people.person(n).0]["page_id"], PAGES[0]);
    }
}

#[tokio::test]
async fn two_imports_of_a_page_at_once_are_one() {
    let stack = TestStack::start().await;
    let people = stack.give_people(PAGES[0], 25, 10);

    let (one, two) = tokio::join!(stack.start_import(PAGES[0]), stack.start_import(PAGES[0]));
    assert_eq!(one["started_at"], two["started_at"]);
    let (message, by_another) = (stack.receive().await.unwrap(), wake_up());
    assert!(stack.receive().await.is_none(), "a second wake-up");
    let (third, ..) = tokio::join!(
        async {
            while stack.page_import(PAGES[0]).await["status"] != "processing" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let calls = stack.sandbox.conversation_calls();
            let third = stack.start_import(PAGES[0]).await;
            assert!(
                stack.sandbox.conversation_calls() <= calls + 1,
                "an import under way is checked again"
            );
            third
        },
        stack.process_job(&message),
        stack.process_job(&by_another),
    );
    assert_eq!(third["started_at"], one["started_at"]);
    stack.delete(&message).await;

    let import = stack.finish_import(PAGES[0]).await;
    assert_eq!(counts(&import), [25, 25, 0, 0, 0]);
    check_contacts(&stack.contacts().await, PAGES[0], &people);
}

/// An import that is handed over between any two parts reads each part once.
#[tokio::test]
async fn import_goes_on_where_the_run_before_has_ended() {
    let stack = TestStack::start().await;
    let people = stack.give_people(PAGES[0], 7, 1);
    stack.start_import(PAGES[0]).await;
    let mut runs = 0;
    while let Some(message) = stack.receive().await {
        stack.process_job_for(&message, SHORT).await;
        stack.delete(&message).await;
        runs += 1;
    }

    let import = stack.page_import(PAGES[0]).await;
    assert!(runs > 2, "{runs} runs");
    assert_eq!(
        (&import["status"], counts(&import)),
        (&json!("completed"), [7, 7, 0, 0, 0])
    );
    check_contacts(&stack.contacts().await, PAGES[0], &people);
    // The check, and one call for each part.
    assert_eq!(stack.sandbox.conversation_calls(), 8);
}

#[tokio::test]
async fn cancelled_import_ends_at_once_and_may_begin_again() {
    let stack = TestStack::start().await;
    let people = stack.give_people(PAGES[0], 40, 1);
    assert_eq!(stack.cancel_import(PAGES[0]).await.status, StatusCode::NOT_FOUND);
    stack.start_import(PAGES[0]).await;
    let message = stack.receive().await.unwrap();
    let cancel = async {
        while stack.page_import(PAGES[0]).await["conversations"] == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stack.cancel_import(PAGES[0]).await
    };
    let begun = Instant::now();
    let (answer, _) = tokio::join!(cancel, stack.process_job(&message));
    stack.delete(&message).await;

    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let cancelled = stack.page_import(PAGES[0]).await;
    assert_eq!(
        (&cancelled["status"], &cancelled["command"]),
        (&json!("cancelled"), &Value::Null)
    );
    assert!(cancelled["ended_at"].is_string());
    let so_far = stack.contacts().await.len();
    assert_eq!(cancelled["created"], so_far, "{cancelled:#}");
    assert!((1..40).contains(&so_far));
    assert_eq!(stack.cancel_import(PAGES[0]).await.status, StatusCode::ACCEPTED);

    stack.give_people(PAGES[0], 40, 100);
    let import = stack.import_whole(PAGES[0]).await;
    assert_eq!(
        (&import["status"], &import["conversations"], &import["known"]),
        (&json!("completed"), &json!(40), &json!(so_far))
    );
    check_contacts(&stack.contacts().await, PAGES[0], &people);
    let answer = stack.cancel_import(PAGES[0]).await;
    assert_eq!(
        (answer.status, &answer.body["type"]),
        (StatusCode::CONFLICT, &json!("/v1/problems/nothing-to-cancel"))
    );
}

#[tokio::test]
async fn import_that_no_worker_has_is_cancelled_without_a_call() {
    let stack = TestStack::start().await;
    stack.give_people(PAGES[0], 3, 100);
    stack.start_import(PAGES[0]).await;
    let calls = stack.sandbox.conversation_calls();
    assert_eq!(stack.cancel_import(PAGES[0]).await.body["command"], "cancel");
    let import = stack.finish_import(PAGES[0]).await;
    assert_eq!((&import["status"], counts(&import)), (&json!("cancelled"), [0; 5]));
    assert_eq!(stack.sandbox.conversation_calls(), calls);
    // The command is of this import, and not of the next.
    assert_eq!(stack.import_whole(PAGES[0]).await["status"], "completed");
}

#[tokio::test]
async fn stale_worker_changes_no_progress() {
    let stack = TestStack::start().await;
    stack.give_people(PAGES[0], 3, 100);
    stack.start_import(PAGES[0]).await;
    let (job, imports) = (job_of(PAGES[0]), stack.app.store.imports());
    let mut old = stack.claim(&job).await;
    stack.advance(LEASE + Duration::from_secs(1));
    let mut new = stack.claim(&job).await;
    let progress = |conversations| ImportProgress {
        conversations,
        ..ImportProgress::default()
    };
    let now = stack.app.clock.now();

    assert!(
        imports
            .checkpoint_if_claimed(&mut new, &progress(2), now)
            .await
            .unwrap()
    );
    assert!(
        !imports
            .checkpoint_if_claimed(&mut old, &progress(1), now)
            .await
            .unwrap()
    );
    let left = stack.app.store.jobs().hand_over(old, &HandOver::Completed, now).await;

    assert!(left.unwrap().is_none());
    let import = stack.page_import(PAGES[0]).await;
    assert_eq!(
        (&import["status"], &import["conversations"]),
        (&json!("processing"), &json!(2))
    );
}

/// A worker of the import before is frozen meanwhile, and a cancel of it is repeated.
#[tokio::test]
async fn worker_and_cancel_of_an_earlier_import_do_not_concern_the_next() {
    let stack = TestStack::start().await;
    stack.give_people(PAGES[0], 3, 100);
    stack.start_import(PAGES[0]).await;
    let (job, imports, now) = (job_of(PAGES[0]), stack.app.store.imports(), stack.app.clock.now());
    let mut old = stack.claim(&job).await;
    let seen = stack.app.store.jobs().get(&job).await.unwrap().unwrap();
    let shared::domain::control::Decision::Change(cancel) = shared::domain::control::Control::Cancel.decide(&seen, now)
    else {
        panic!("{seen:?}");
    };
    assert!(imports.change_if_unchanged(&seen, &cancel, now).await.unwrap());
    stack.advance(LEASE + Duration::from_secs(61));
    stack.tick().await;
    assert_eq!(stack.finish_import(PAGES[0]).await["status"], "cancelled");
    stack.start_import(PAGES[0]).await;
    stack.claim(&job).await;

    assert!(!imports.change_if_unchanged(&seen, &cancel, now).await.unwrap());
    let late = ImportProgress {
        conversations: 1_000,
        ..ImportProgress::default()
    };
    assert!(!imports.checkpoint_if_claimed(&mut old, &late, now).await.unwrap());

    stack.advance(LEASE + Duration::from_secs(1));
    stack.process_job(&wake_up()).await;
    let import = stack.finish_import(PAGES[0]).await;
    assert_eq!(
        (&import["status"], counts(&import)),
        (&json!("completed"), [3, 3, 0, 0, 0])
    );
}

#[tokio::test]
async fn import_that_loses_five_workers_without_a_part_is_halted() {
    let stack = TestStack::start().await;
    stack.give_people(PAGES[0], 3, 100);
    stack.start_import(PAGES[0]).await;
    for _ in 0..5 {
        stack.claim(&job_of(PAGES[0])).await;
        stack.advance(LEASE + Duration::from_secs(1));
    }
    stack.process_job(&wake_up()).await;
    let import = stack.page_import(PAGES[0]).await;
    assert_eq!(import["status"], "halted");
    assert!(import["reason"].as_str().unwrap().starts_with("stalled"));
}

/// An import sends nothing. Its worker dies, too, while sending is off.
#[tokio::test]
async fn import_goes_on_while_sending_is_off() {
    let stack = TestStack::start().await;
    let people = stack.give_people(PAGES[0], 5, 100);
    for body in [json!({"state": "off"}), json!({"state": "off", "page_id": PAGES[0]})] {
        let answer = stack.call("PUT", "/v1/sending", None, Some(&body)).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    stack.start_import(PAGES[0]).await;
    let message = stack.receive().await.unwrap();
    stack.delete(&message).await;
    stack.claim(&job_of(PAGES[0])).await;
    stack.advance(LEASE + Duration::from_secs(61));
    stack.let_reads_catch_up();
    stack.tick().await;
    stack.drain_queue().await;

    assert_eq!(stack.page_import(PAGES[0]).await["status"], "completed");
    check_contacts(&stack.contacts().await, PAGES[0], &people);
}

#[tokio::test]
async fn import_is_no_broadcast() {
    let stack = TestStack::start().await;
    stack.give_people(PAGES[0], 3, 100);
    stack.import_whole(PAGES[0]).await;
    stack.let_reads_catch_up();
    for list in [
        "/v1/broadcasts".to_owned(),
        format!("/v1/broadcasts?page_id={}", PAGES[0]),
    ] {
        assert_eq!(stack.call("GET", &list, None, None).await.body["items"], json!([]));
    }
    let id = "0".repeat(32);
    for (method, path) in [
        ("GET", ""),
        ("POST", "/cancel"),
        ("POST", "/resume"),
        ("GET", "/deliveries"),
    ] {
        let answer = stack
            .call(method, &format!("/v1/broadcasts/{id}{path}"), None, None)
            .await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
    }
    // A lookup asks for the jobs of the Page that may have sent.
    let page = PageId::parse(PAGES[0]).unwrap();
    let jobs = stack.app.store.jobs();
    let sent = jobs
        .that_may_have_sent(&page, "1970-01-01T00:00:00Z".parse().unwrap())
        .await;
    assert_eq!(sent.unwrap(), []);
}

#[tokio::test]
async fn page_of_others_is_unknown_to_a_limited_caller() {
    let stack = TestStack::start_with(&[("PAGES_CLAIM", "pages")]).await;
    stack.give_people(PAGES[0], 3, 100);
    stack.give_people(PAGES[1], 3, 100);
    stack.start_import(PAGES[0]).await;
    let caller =
        json!({"jwt": {"claims": {"iss": "https://issuer", "sub": "partner", "pages": PAGES[1]}, "scopes": []}});
    for (method, path) in [
        ("POST", path(PAGES[0])),
        ("GET", path(PAGES[0])),
        ("POST", format!("{}/cancel", path(PAGES[0]))),
        ("POST", path("no page")),
    ] {
        let path = path.replace(' ', "%20");
        let answer = stack.call_as(&caller, (method, &path), None, None).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
        assert_eq!(answer.body["detail"], "There is no such Page.");
    }
    let own = path(PAGES[1]);
    let answer = stack.call_as(&caller, ("POST", &own), None, None).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let unknown = stack.call("GET", &format!("{own}?limit=5"), None, None).await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
}
