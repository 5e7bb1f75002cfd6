//! Audiences over HTTP: saved, counted, and refused with a word on every fault.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;

use crate::callers::{PAGES_CLAIM, limited_to, signed_by};
use crate::fixture::{ApiResponse, PAGES, TestStack};

const COUNT: &str = "/v1/audiences/count";

async fn call(stack: &TestStack, method: &str, path: &str, body: Option<Value>) -> ApiResponse {
    stack.call(method, path, None, body.as_ref()).await
}

/// Returns the faults of a refused audience by field, as it is refused wherever it is sent.
async fn faults(stack: &TestStack, audience: &Value) -> Vec<(String, String)> {
    let answer = call(stack, "POST", COUNT, Some(audience.clone())).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{audience}: {answer:?}");
    let saved = call(stack, "PUT", "/v1/audiences/vips", Some(audience.clone())).await;
    assert_eq!(saved.status, StatusCode::BAD_REQUEST, "{audience}: {saved:?}");
    assert_eq!(saved.body["errors"], answer.body["errors"]);
    let errors = answer.body["errors"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    errors
        .map(|error| (text(&error["field"]), text(&error["message"])))
        .collect()
}

/// Imports contacts: `a` and `b` of the first Page and `c` of the second are tagged `vip`, `d` of the first opted out.
async fn import_four(stack: &TestStack) {
    let contacts = json!({"contacts": [
        {"contact_id": "a", "page_id": PAGES[0], "tags": ["vip"]},
        {"contact_id": "b", "page_id": PAGES[0], "tags": ["vip", "new"]},
        {"contact_id": "c", "page_id": PAGES[1], "tags": ["vip"]},
        {"contact_id": "d", "page_id": PAGES[0], "tags": ["vip"], "opted_out": true},
    ]});
    let answer = call(stack, "PUT", "/v1/contacts", Some(contacts)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    stack.let_reads_catch_up();
}

#[tokio::test]
async fn every_fault_of_an_audience_is_named_in_its_place() {
    let stack = TestStack::start().await;
    let (x, y) = (BroadcastId::random(), BroadcastId::random());
    for (audience, expected) in [
        (json!({}), vec![("", "for all contacts say")]),
        (json!({"tags_any": null}), vec![("", "must have a filter")]),
        (json!([]), vec![("", "must be an object")]),
        (
            json!({"tag_any": ["vip"], "everybody": true}),
            vec![("/tag_any", "; tags_any is one")],
        ),
        (
            json!({"everybody": true, "tags_any": ["vip"]}),
            vec![("/everybody", "must be there alone")],
        ),
        (
            json!({"everybody": true, "page_id": PAGES[0]}),
            vec![("/everybody", "must be there alone")],
        ),
        (json!({"everybody": false}), vec![("/everybody", "must be true")]),
        (json!({"page_id": "a b"}), vec![("/page_id", "")]),
        (
            json!({"page_id": "p", "page_ids": ["q"]}),
            vec![("/page_ids", "must not be there with page_id")],
        ),
        (
            json!({"page_ids": ["p", "a b", 5]}),
            vec![("/page_ids/1", ""), ("/page_ids/2", "must be a string")],
        ),
        (json!({"tags_any": []}), vec![("/tags_any", "must have 1 to 100 tags")]),
        (json!({"tags_any": "vip"}), vec![("/tags_any", "must be a list")]),
        (
            json!({"tags_any": ["vip", " ", 5]}),
            vec![("/tags_any/1", "visible"), ("/tags_any/2", "string")],
        ),
        (
            json!({"tags_any": ["a", "b"], "tags_all": ["c"], "tags_none": ["c", "b"]}),
            vec![
                ("/tags_any/1", "must not be in tags_none"),
                ("/tags_none/1", "must not be in tags_any"),
                ("/tags_all/0", "must not be in tags_none"),
                ("/tags_none/0", "must not be in tags_all"),
            ],
        ),
        (
            json!({"sent_in": [x], "not_sent_in": [x]}),
            vec![("/sent_in/0", "not_sent_in"), ("/not_sent_in/0", "sent_in")],
        ),
        (
            json!({"sent_in": ["monday"]}),
            vec![("/sent_in/0", "must be the id of a broadcast")],
        ),
        (
            json!({"tags_any": ["vip"], "not_sent_in": [x, y]}),
            vec![
                ("/not_sent_in/0", "no broadcast whose"),
                ("/not_sent_in/1", "no broadcast whose"),
            ],
        ),
        (
            json!({"active_within_hours": 24, "inactive_for_hours": 24}),
            vec![
                ("/active_within_hours", "nobody matches"),
                ("/inactive_for_hours", "nobody matches"),
            ],
        ),
        (
            json!({"active_within_hours": 0}),
            vec![("/active_within_hours", "from 1 to 87600")],
        ),
        (
            json!({"active_within_hours": 87_601}),
            vec![("/active_within_hours", "from 1 to 87600")],
        ),
        (
            json!({"inactive_for_hours": 1.5}),
            vec![("/inactive_for_hours", "whole number")],
        ),
        (json!({"attributes": {}}), vec![("/attributes", "1 to 20 entries")]),
        (
            json!({"attributes": {"city": "Porto", "a b": ["x"], "c": [null], "d": [[]]}}),
            vec![
                ("/attributes/a b", "must have a name"),
                ("/attributes/c", "strings, numbers"),
                ("/attributes/city", "must be a list"),
                ("/attributes/d", "must be a string"),
            ],
        ),
        (
            json!({"tags_any": ["x".repeat(1_001)]}),
            vec![("/tags_any/0", "at most 1000")],
        ),
        (
            json!({"tags_any": vec!["x".repeat(1_000); 33]}),
            vec![("", "at most 32000 bytes")],
        ),
    ] {
        let found = faults(&stack, &audience).await;
        let fields: Vec<_> = found.iter().map(|(field, _)| field.as_str()).collect();
        let expected_fields: Vec<_> = expected.iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, expected_fields, "{audience}: {found:?}");
        for ((_, message), (_, part)) in found.iter().zip(expected) {
            assert!(message.contains(part), "{audience}: {message}");
        }
    }
}

/// The numbers of entries that an audience may have.
#[tokio::test]
async fn lists_of_an_audience_have_limits() {
    let stack = TestStack::start().await;
    let texts = |n: usize| (0..n).map(|n| format!("t{n}")).collect::<Vec<_>>();
    let ids = |n: usize| (0..n).map(|_| BroadcastId::random()).collect::<Vec<_>>();
    let attributes = |n: usize| {
        let names = texts(n).into_iter().map(|name| (name, json!(["x"])));
        names.collect::<serde_json::Map<_, _>>()
    };
    for (field, most, too_many) in [
        ("page_ids", json!(texts(90)), json!(texts(91))),
        ("tags_any", json!(texts(100)), json!(texts(101))),
        ("attributes", json!(attributes(20)), json!(attributes(21))),
        ("attributes", json!({"city": texts(100)}), json!({"city": texts(101)})),
        // Twenty are looked for, and not found.
        ("sent_in", json!(ids(20)), json!(ids(21))),
    ] {
        let answer = call(&stack, "POST", COUNT, Some(json!({ field: most }))).await;
        let is_looked_for = field == "sent_in" && answer.body["errors"][0]["field"] == "/sent_in/0";
        assert!(answer.status.is_success() || is_looked_for, "{field}: {answer:?}");
        let found = faults(&stack, &json!({ field: too_many })).await;
        let [(at, _)] = &found[..] else {
            panic!("{field}: {found:?}");
        };
        assert!(at.starts_with(&format!("/{field}")), "{at}");
    }
}

#[tokio::test]
async fn hours_and_bytes_of_an_audience_have_limits() {
    let stack = TestStack::start().await;
    let of_bytes = |bytes: usize| {
        let mut tags: Vec<_> = (0..31).map(|n| format!("{n:01000}")).collect();
        tags.push(String::new());
        let missing = bytes - json!({"tags_any": tags}).to_string().len();
        tags[31] = "x".repeat(missing);
        json!({"tags_any": tags})
    };
    for (most, too_much) in [
        (
            json!({"active_within_hours": 87_600}),
            json!({"active_within_hours": 87_601}),
        ),
        (
            json!({"inactive_for_hours": 87_600}),
            json!({"inactive_for_hours": 87_601}),
        ),
        (of_bytes(32_000), of_bytes(32_001)),
    ] {
        let answer = call(&stack, "POST", COUNT, Some(most)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(faults(&stack, &too_much).await.len(), 1);
    }
}

#[tokio::test]
async fn saved_audience_is_shown_listed_changed_and_deleted() {
    let stack = TestStack::start().await;
    let path = "/v1/audiences/vips";
    assert_eq!(call(&stack, "GET", path, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(call(&stack, "DELETE", path, None).await.status, StatusCode::NOT_FOUND);

    let vips = json!({"page_id": PAGES[0], "tags_any": [" vip "], "attributes": {"city": ["Porto", 5, true]}});
    let saved = call(&stack, "PUT", path, Some(vips)).await;
    assert_eq!(saved.status, StatusCode::OK, "{saved:?}");
    let shown = call(&stack, "GET", path, None).await;
    assert_eq!(shown.body, saved.body);
    let stored = json!({"page_id": PAGES[0], "tags_any": ["vip"], "attributes": {"city": ["Porto", 5, true]}});
    assert_eq!(
        (&shown.body["name"], &shown.body["audience"]),
        (&json!("vips"), &stored)
    );

    let all = json!({"everybody": true});
    let changed = call(&stack, "PUT", path, Some(all.clone())).await;
    assert_eq!((changed.status, &changed.body["audience"]), (StatusCode::OK, &all));
    for name in ["a", "z"] {
        let answer = call(&stack, "PUT", &format!("/v1/audiences/{name}"), Some(all.clone())).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let part = call(&stack, "GET", &format!("/v1/audiences?limit=2{cursor}"), None).await;
        let items = part.body["items"].as_array().unwrap().iter();
        names.extend(items.map(|item| item["name"].as_str().unwrap().to_owned()));
        let Some(next) = part.body["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(names, ["a", "vips", "z"]);

    assert_eq!(call(&stack, "DELETE", path, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(call(&stack, "GET", path, None).await.status, StatusCode::NOT_FOUND);
    for name in ["a%20b", &"x".repeat(65)] {
        let answer = call(&stack, "PUT", &format!("/v1/audiences/{name}"), Some(all.clone())).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}");
        assert_eq!(answer.body["errors"][0]["field"], "name", "{name}");
    }
    let answer = call(&stack, "PUT", COUNT, Some(all)).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn count_tells_who_matches_and_why_the_rest_does_not() {
    let stack = TestStack::start().await;
    import_four(&stack).await;
    let vips = json!({"tags_any": ["vip"], "tags_none": ["new"]});
    let expected = json!({
        "matching": 2, "considered": 4, "next_cursor": null,
        "by_page": [{"page_id": PAGES[0], "matching": 1}, {"page_id": PAGES[1], "matching": 1}],
        "excluded": [{"filter": "tags_none", "contacts": 1}, {"filter": "opted_out", "contacts": 1}],
    });
    let counted = call(&stack, "POST", COUNT, Some(vips.clone())).await;
    assert_eq!((counted.status, &counted.body), (StatusCode::OK, &expected));

    call(&stack, "PUT", "/v1/audiences/vips", Some(vips)).await;
    let counted = call(&stack, "GET", "/v1/audiences/vips/count", None).await;
    assert_eq!((counted.status, &counted.body), (StatusCode::OK, &expected));
    let by_name = call(&stack, "POST", COUNT, Some(json!({"name": "vips"}))).await;
    assert_eq!(by_name.body, expected);

    let unknown = call(&stack, "POST", COUNT, Some(json!({"name": "vip"}))).await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
    assert_eq!(unknown.body["errors"][0]["field"], "/name");
    let missing = call(&stack, "GET", "/v1/audiences/vip/count", None).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let both = call(
        &stack,
        "POST",
        COUNT,
        Some(json!({"name": "vips", "tags_any": ["vip"]})),
    )
    .await;
    assert_eq!(both.body["errors"][0]["field"], "/tags_any", "{both:?}");
    // A Page without contacts.
    let nobody = call(&stack, "POST", COUNT, Some(json!({"page_id": PAGES[2]}))).await;
    assert_eq!(
        (&nobody.body["matching"], &nobody.body["considered"]),
        (&json!(0), &json!(0))
    );
}

#[tokio::test]
async fn parts_of_a_count_add_up_to_the_whole() {
    let stack = TestStack::start().await;
    stack
        .write_contacts_by_hand(PAGES[0], (0..2_500).map(|n| (format!("a{n}"), None)))
        .await;
    stack
        .write_contacts_by_hand(PAGES[1], (0..1_200).map(|n| (format!("b{n}"), None)))
        .await;
    stack.let_reads_catch_up();

    let (mut counts, mut cursor) = (Vec::new(), String::new());
    loop {
        let part = call(
            &stack,
            "POST",
            &format!("{COUNT}?limit=1000{cursor}"),
            Some(json!({"everybody": true})),
        )
        .await;
        assert_eq!(part.status, StatusCode::OK, "{part:?}");
        counts.push((
            part.body["considered"].as_u64().unwrap(),
            part.body["matching"].as_u64().unwrap(),
        ));
        let Some(next) = part.body["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
        let of_another = json!({"tags_any": ["vip"]});
        let other = call(&stack, "POST", &format!("{COUNT}?limit=1000{cursor}"), Some(of_another)).await;
        assert_eq!(other.body["errors"][0]["field"], "cursor");
    }
    assert!(counts.len() > 2, "{counts:?}");
    for (limit, status) in [(10_000_000, StatusCode::OK), (10_000_001, StatusCode::BAD_REQUEST)] {
        let part = call(
            &stack,
            "POST",
            &format!("{COUNT}?limit={limit}"),
            Some(json!({"everybody": true})),
        )
        .await;
        assert_eq!(part.status, status, "{limit}");
    }
    assert_eq!(counts.iter().map(|(considered, _)| considered).sum::<u64>(), 3_700);
    assert_eq!(counts.iter().map(|(_, matching)| matching).sum::<u64>(), 3_700);
}

/// An audience of those who have not got a broadcast would be everybody once the broadcast is gone.
#[tokio::test]
async fn saved_audience_with_a_broadcast_that_is_no_longer_kept_is_refused() {
    let stack = TestStack::start().await;
    import_four(&stack).await;
    let sent = stack.broadcast(&["a".to_owned()]).await;
    stack.drain_queue().await;
    let saved = call(
        &stack,
        "PUT",
        "/v1/audiences/missed",
        Some(json!({"not_sent_in": [sent]})),
    )
    .await;
    assert_eq!(saved.status, StatusCode::OK, "{saved:?}");
    let counted = call(&stack, "GET", "/v1/audiences/missed/count", None).await;
    assert_eq!(counted.body["matching"], 2, "{counted:?}");

    // The retention and thirty days more: its rows are deleted at any moment.
    stack.advance(Duration::from_secs(121 * 86_400));

    for (method, path, body) in [
        ("GET", "/v1/audiences/missed/count", None),
        ("POST", COUNT, Some(json!({"name": "missed"}))),
    ] {
        let refused = call(&stack, method, path, body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
        let message = refused.body["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("kept"), "{message}");
    }
}

#[tokio::test]
async fn page_limited_caller_counts_and_saves_for_its_own_pages() {
    let stack = TestStack::start_with(&[PAGES_CLAIM]).await;
    let owner = limited_to(&format!("[{} {}]", PAGES[0], PAGES[1]));
    let limited = limited_to(&format!("[{}]", PAGES[1]));
    let all = signed_by("AROAOWNER:1");
    let call = async |caller: &Value, method: &str, path: &str, body: Option<Value>| {
        stack.call_as(caller, (method, path), None, body.as_ref()).await
    };
    let contacts = json!({"contacts": [
        {"contact_id": "a", "page_id": PAGES[0]}, {"contact_id": "b", "page_id": PAGES[1]},
    ]});
    assert_eq!(
        call(&owner, "PUT", "/v1/contacts", Some(contacts)).await.status,
        StatusCode::OK
    );
    stack.let_reads_catch_up();

    let everybody = json!({"everybody": true});
    for (caller, matching) in [(&limited, 1), (&owner, 2), (&all, 2)] {
        let counted = call(caller, "POST", COUNT, Some(everybody.clone())).await;
        assert_eq!(counted.body["matching"], matching, "{caller}");
    }
    let foreign = call(&limited, "POST", COUNT, Some(json!({"page_ids": [PAGES[1], PAGES[0]]}))).await;
    assert_eq!(foreign.body["errors"][0]["field"], "/page_ids/1");

    let body = json!({"contact_ids": ["a"], "message": {"text": "Hi."}});
    let sent = call(&all, "POST", "/v1/broadcasts", Some(body)).await.broadcast_id();
    let missed = json!({"not_sent_in": [sent]});
    let counted = call(&owner, "POST", COUNT, Some(missed.clone())).await;
    assert_eq!(counted.status, StatusCode::OK, "{counted:?}");
    let foreign = call(&limited, "POST", COUNT, Some(missed)).await;
    assert_eq!(foreign.body["errors"][0]["field"], "/not_sent_in/0", "{foreign:?}");

    let save = |caller, name: &str, audience: Value| {
        let path = format!("/v1/audiences/{name}");
        async move { call(caller, "PUT", &path, Some(audience)).await.status }
    };
    assert_eq!(save(&all, "of-all", everybody.clone()).await, StatusCode::OK);
    assert_eq!(
        save(&owner, "of-both", json!({"page_ids": [PAGES[0], PAGES[1]]})).await,
        StatusCode::OK
    );
    assert_eq!(
        save(&limited, "of-mine", json!({"page_id": PAGES[1]})).await,
        StatusCode::OK
    );
    assert_eq!(save(&limited, "new", everybody.clone()).await, StatusCode::BAD_REQUEST);
    // It can use the audience of all, which is of its own Pages then, and change none that is of others, too.
    let counted = call(&limited, "GET", "/v1/audiences/of-all/count", None).await;
    assert_eq!(counted.body["matching"], 1);
    for name in ["of-all", "of-both"] {
        assert_eq!(
            save(&limited, name, json!({"page_id": PAGES[1]})).await,
            StatusCode::FORBIDDEN,
            "{name}"
        );
    }
    let delete = async |name: &str| {
        call(&limited, "DELETE", &format!("/v1/audiences/{name}"), None)
            .await
            .status
    };
    assert_eq!(delete("of-all").await, StatusCode::FORBIDDEN);
    assert_eq!(delete("of-both").await, StatusCode::NOT_FOUND);
    let listed = call(&limited, "GET", "/v1/audiences", None).await;
    let listed = listed.body["items"].as_array().unwrap().iter();
    let names: Vec<_> = listed.map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["of-all", "of-mine"]);
    assert_eq!(delete("of-mine").await, StatusCode::NO_CONTENT);
}

/// Two writes at once, of which one is of other Pages: the check of the caller is of the audience that it replaces.
#[tokio::test]
async fn audience_that_changed_since_it_was_read_is_not_overwritten() {
    let stack = TestStack::start().await;
    let audiences = stack.app.store.audiences();
    let save = |filters: Value| {
        let name = serde_json::from_value(json!("vips")).unwrap();
        let audience = serde_json::from_value(filters).unwrap();
        let (changed_by, changed_at) = (None, stack.app.clock.now());
        shared::domain::audience::SavedAudience {
            name,
            audience,
            changed_by,
            changed_at,
        }
    };
    let (first, second) = (save(json!({"page_id": PAGES[0]})), save(json!({"page_id": PAGES[1]})));
    assert!(audiences.save_if_unchanged(&first, None).await.unwrap());
    let seen = audiences.get(&first.name).await.unwrap().unwrap();
    assert!(!audiences.save_if_unchanged(&second, None).await.unwrap());
    assert!(audiences.save_if_unchanged(&second, Some(&seen)).await.unwrap());
    assert!(!audiences.save_if_unchanged(&first, Some(&seen)).await.unwrap());
    assert!(!audiences.delete_if_unchanged(&seen).await.unwrap());
    assert_eq!(audiences.get(&first.name).await.unwrap().unwrap().saved, second);
}
