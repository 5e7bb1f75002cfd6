//! Contacts: imported as JSON or CSV under one set of rules, merged with the stored values, and deleted completely.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::fixture::{ApiResponse, PAGES, TestStack, request};

async fn import_csv(stack: &TestStack, file: &str) -> ApiResponse {
    stack.import_as("text/csv", file.to_owned()).await
}

async fn contact(stack: &TestStack, id: &str) -> Value {
    let answer = stack.call("GET", &format!("/v1/contacts/{id}"), None, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

async fn delete(stack: &TestStack, id: &str) -> ApiResponse {
    stack.call("DELETE", &format!("/v1/contacts/{id}"), None, None).await
}

fn fields(answer: &ApiResponse) -> Vec<&str> {
    let errors = answer.body["errors"].as_array().unwrap();
    errors.iter().map(|error| error["field"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn import_is_atomic_and_merges() {
    let stack = TestStack::start().await;
    let put = |contacts: Value| {
        let stack = &stack;
        async move {
            stack
                .call("PUT", "/v1/contacts", None, Some(&json!({"contacts": contacts})))
                .await
        }
    };
    let ana = json!({"contact_id": "ana", "page_id": "p", "first_name": "Ana", "tags": ["vip"], "attributes": {"city": "Porto", "age": 40}});
    assert_eq!(put(json!([ana])).await.body, json!({"upserted": 1}));

    let bad =
        put(json!([{"contact_id": "ben", "page_id": "p"}, {"contact_id": "eve", "page_id": "p q", "nick": 1}])).await;
    let fields: Vec<_> = bad.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["field"].clone())
        .collect();
    assert_eq!(fields, ["/contacts/1/nick", "/contacts/1/page_id"]);
    let ben = stack.call("GET", "/v1/contacts/ben", None, None).await;
    assert_eq!(ben.status, StatusCode::NOT_FOUND);

    put(json!([{"contact_id": "ana", "page_id": "p", "last_name": "Sá", "tags": null, "attributes": {"city": null}}]))
        .await;
    let ana = stack.call("GET", "/v1/contacts/ana", None, None).await.body;
    assert_eq!((&ana["first_name"], &ana["last_name"]), (&json!("Ana"), &json!("Sá")));
    assert_eq!((&ana["tags"], &ana["attributes"]), (&json!([]), &json!({"age": 40})));
}

#[tokio::test]
async fn import_rejects_values_that_the_table_cannot_store() {
    let stack = TestStack::start().await;
    let ben = json!({"contact_id": "ben", "page_id": "p"});
    for attributes in [
        json!({"n": 1e300}),
        json!({"n": 1e-200}),
        json!({"9": 1}),
        json!({"a b": 1}),
        json!({"list": []}),
    ] {
        let ana = json!({"contact_id": "ana", "page_id": "p", "attributes": attributes});
        let answer = stack
            .call("PUT", "/v1/contacts", None, Some(&json!({"contacts": [ben, ana]})))
            .await;

        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{attributes}");
        let field = answer.body["errors"][0]["field"].as_str().unwrap();
        assert!(field.starts_with("/contacts/1/attributes/"), "{field}");
    }
    let tags: Vec<_> = (0..100).map(|_| "🙂".repeat(1_000)).collect();
    let large = json!({"contacts": [ben, {"contact_id": "ana", "page_id": "p", "tags": tags}]});
    let answer = stack.call("PUT", "/v1/contacts", None, Some(&large)).await;
    assert_eq!(
        (answer.status, &answer.body["errors"][0]["field"]),
        (StatusCode::BAD_REQUEST, &json!("/contacts/1"))
    );

    let ben = stack.call("GET", "/v1/contacts/ben", None, None).await;
    assert_eq!(ben.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn csv_import_equals_json_import() {
    let stack = TestStack::start().await;
    let ana = json!({
        "contact_id": "ana", "page_id": "p", "first_name": "Ana \"Sá\", jr.", "last_name": "de\nSousa", "name": "Ana Sá de Sousa",
        "locale": "pt_PT", "timezone": -3.5, "source": "till", "tags": ["vip", "new"], "opted_out": true, "last_interaction_at": "2026-11-01T09:00:00+08:00",
        "attributes": {"city": "Porto", "age": "40"},
    });
    let file = "\u{feff}page_id,contact_id,first_name,last_name,tags,opted_out,last_interaction_at,attributes.city,attributes.age,\
        name,locale,Time Zone,source\r\n\
        p,ben,\"Ana \"\"Sá\"\", jr.\",\"de\nSousa\",vip; new;,TRUE,2026-11-01T01:00:00Z,Porto,40,\
        Ana Sá de Sousa,pt_PT, -3.5,till\r\n\
        \r\n\
        p,eve,Eve,,,false,,,,,,,\r\n";

    let by_json = stack
        .call("PUT", "/v1/contacts", None, Some(&json!({"contacts": [ana]})))
        .await;
    let by_csv = stack.import_as("Text/CSV; charset=utf-8", file).await;

    assert_eq!(by_json.body, json!({"upserted": 1}));
    assert_eq!(by_csv.body, json!({"upserted": 2}));
    let (ana, mut ben) = (contact(&stack, "ana").await, contact(&stack, "ben").await);
    ben["contact_id"] = json!("ana");
    assert_eq!(ben, ana);
    let eve = json!({
        "contact_id": "eve", "page_id": "p", "first_name": "Eve", "last_name": null, "name": null, "locale": null,
        "timezone": null, "tags": [], "opted_out": false, "tester": false, "last_interaction_at": null, "source": "api",
        "attributes": {},
    });
    assert_eq!(contact(&stack, "eve").await, eve);
}

#[tokio::test]
async fn first_source_of_a_contact_is_kept() {
    let stack = TestStack::start().await;
    import_csv(&stack, "contact_id,page_id,source\nana,p,till\nben,p,\n").await;

    import_csv(&stack, "contact_id,page_id,source\nana,p,other\nben,p,other\n").await;
    let cleared = json!({"contacts": [{"contact_id": "ana", "page_id": "p", "source": null}]});
    stack.call("PUT", "/v1/contacts", None, Some(&cleared)).await;

    assert_eq!(contact(&stack, "ana").await["source"], "till");
    assert_eq!(contact(&stack, "ben").await["source"], "api");
}

#[tokio::test]
async fn empty_cell_keeps_the_stored_value() {
    let stack = TestStack::start().await;
    let header = "contact_id,page_id,first_name,last_name,tags,opted_out,last_interaction_at,attributes.city";
    let full = "ana,p,Ana,Sá,vip,true,2026-11-01T01:00:00Z,Porto";
    import_csv(&stack, &format!("{header}\n{full}\n")).await;
    let before = contact(&stack, "ana").await;

    let answer = import_csv(&stack, &format!("{header}\nana,p,,,;,,,\n")).await;

    assert_eq!(answer.body, json!({"upserted": 1}));
    assert_eq!(contact(&stack, "ana").await, before);
    import_csv(&stack, "contact_id,page_id,first_name,attributes.age\nana,p,Anna,40").await;
    let after = contact(&stack, "ana").await;
    assert_eq!(
        (&after["first_name"], &after["last_name"]),
        (&json!("Anna"), &json!("Sá"))
    );
    assert_eq!(after["attributes"], json!({"age": "40", "city": "Porto"}));
}

#[tokio::test]
async fn import_without_opted_out_keeps_the_opt_out() {
    let stack = TestStack::start().await;
    let ids = ["ana".to_owned()];
    import_csv(&stack, "contact_id,page_id,opted_out\nana,page-1,true").await;

    stack.import(PAGES[0], &ids).await;
    import_csv(&stack, "contact_id,page_id,first_name\nana,page-1,Ana").await;
    import_csv(&stack, "contact_id,page_id,opted_out\nana,page-1,\nben,page-1,false").await;
    let refused = stack.post(&request(&ids)).await;
    import_csv(&stack, "contact_id,page_id,opted_out\nana,page-1,false").await;
    let accepted = stack.post(&request(&ids)).await;

    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(accepted.body["contacts"]["accepted"], 1);
}

#[tokio::test]
async fn csv_errors_name_line_and_column_and_store_nothing() {
    let stack = TestStack::start().await;
    let cases: [(&[u8], &[&str]); 18] = [
        (b"", &["line 1"]),
        (b"contact_id,page_id\n\n", &["line 2"]),
        (b"contact_id\nana\n", &["line 1, column page_id"]),
        (
            b"contact_id|page_id\nana|p\n",
            &[
                "line 1, column contact_id|page_id",
                "line 1, column contact_id",
                "line 1, column page_id",
            ],
        ),
        (
            b"contact_id,page_id,nick,,tags,tags,attributes,attributes.9\nana,p,A,,,,,\n",
            &[
                "line 1, column nick",
                "line 1, column 4",
                "line 1, column tags",
                "line 1, column attributes",
                "line 1, column attributes.9",
            ],
        ),
        (b"contact_id,page_id,\xff\nana,p,\n", &["line 1, column 3"]),
        (b"contact_id,\"page_id\nana,p\n", &["line 1, column 2"]),
        (
            b"contact_id,page_id\nana,p\nben,\n,p\nb n,p q\n",
            &[
                "line 3, column page_id",
                "line 4, column contact_id",
                "line 5, column contact_id",
                "line 5, column page_id",
            ],
        ),
        (
            b"contact_id,page_id,first_name\nana,p\nben,p,Ben,1\n",
            &["line 2", "line 3"],
        ),
        // Lines are counted as an editor counts them: with any line end, with quoted line breaks and with blank lines.
        (
            b"\xef\xbb\xbfcontact_id,page_id,first_name,opted_out\r\nana,p,\"A\r\nB\",true\r\n\r\nben,p,Ben,yes\r\neve,p,Eve,1",
            &["line 5, column opted_out", "line 6, column opted_out"],
        ),
        (
            b"contact_id,page_id,last_interaction_at\nana,p,2026-11-01\nben,p,1.11.2026\n",
            &[
                "line 2, column last_interaction_at",
                "line 3, column last_interaction_at",
            ],
        ),
        (
            b"page_id,contact_id\np,ana\np,ben\np,ana\n",
            &["line 4, column contact_id"],
        ),
        // The quote is not closed: the reader would read the rest of the file as a name.
        (
            b"contact_id,page_id,first_name\nana,p,\"Ana\nben,p,Ben\n",
            &["line 2, column first_name"],
        ),
        (
            b"contact_id,page_id,first_name\nana,p,\"Ana\" Maria\nben,p,\"Ben\"\n",
            &["line 2, column first_name"],
        ),
        (
            b"contact_id,page_id,first_name\nben,p,Ben\nana,p, \"Ana\"\n",
            &["line 3, column first_name"],
        ),
        (
            b"contact_id,page_id,first_name\nana,p,\xc1na\nben,p q,Ben\n",
            &["line 2, column first_name", "line 3, column page_id"],
        ),
        (b"\xff\xfec\0o\0n\0", &["line 1, column con", "line 1, column contact_id", "line 1, column page_id"]),
        (
            b"contact_id,page_id\nana,p\nana,p\n ,p\n",
            &["line 3, column contact_id", "line 4, column contact_id"],
        ),
    ];
    for (file, expected) in cases {
        let answer = stack.import_as("text/csv", file).await;

        let file = String::from_utf8_lossy(file);
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{file}");
        assert_eq!(fields(&answer), expected, "{file}");
    }
    for id in ["ana", "ben", "eve"] {
        let answer = stack.call("GET", &format!("/v1/contacts/{id}"), None, None).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{id}");
    }
}

#[tokio::test]
async fn csv_values_follow_the_json_rules() {
    let stack = TestStack::start().await;
    let long = "x".repeat(1_001);
    let row = |id: &str| json!({"contact_id": id, "page_id": "p", "first_name": long, "tags": [long], "attributes": {"city": long}});
    let file = format!(
        "contact_id,page_id,first_name,tags,attributes.city\nana,p,{long},{long},{long}\nana b,p,,,{}\n",
        "x".repeat(32_000)
    );

    let by_json = stack
        .call("PUT", "/v1/contacts", None, Some(&json!({"contacts": [row("ana")]})))
        .await;
    let by_csv = import_csv(&stack, &file).await;

    assert_eq!(
        fields(&by_json),
        [
            "/contacts/0/first_name",
            "/contacts/0/tags",
            "/contacts/0/attributes/city"
        ]
    );
    assert_eq!(
        fields(&by_csv),
        [
            "line 2, column first_name",
            "line 2, column tags",
            "line 2, column attributes.city",
            "line 3",
            "line 3, column contact_id",
            "line 3, column attributes.city",
        ]
    );
    let message = |answer: &ApiResponse, n: usize| answer.body["errors"][n]["message"].clone();
    assert_eq!(message(&by_json, 0), message(&by_csv, 0));
    assert_eq!(message(&by_json, 2), message(&by_csv, 2));
}

#[tokio::test]
async fn csv_import_takes_a_thousand_contacts_and_lists_a_hundred_errors() {
    let stack = TestStack::start().await;
    let file = |n: usize, page: &str| {
        let rows = (0..n).map(|n| format!("c{n:05},{page}\n"));
        format!("contact_id,page_id\n{}", rows.collect::<String>())
    };

    let thousand = import_csv(&stack, &file(1_000, "p")).await;
    let one_more = import_csv(&stack, &file(1_001, "p")).await;
    let faulty = import_csv(&stack, &file(150, "p q")).await;

    assert_eq!(thousand.body, json!({"upserted": 1_000}));
    assert_eq!(one_more.status, StatusCode::BAD_REQUEST);
    assert_eq!(fields(&one_more), ["line 1002"]);
    assert_eq!(faulty.body["detail"], "The request has 150 faults; nothing was stored.");
    assert_eq!(fields(&faulty).len(), 100);
    assert_eq!(fields(&faulty)[99], "line 101, column page_id");
}

#[tokio::test]
async fn unsupported_content_type_is_rejected_naming_the_supported_ones() {
    let stack = TestStack::start().await;
    for content_type in ["text/plain", "application/csv", ""] {
        let answer = stack.import_as(content_type, "contact_id,page_id\nana,p\n").await;

        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(
            detail.contains("application/json") && detail.contains("text/csv"),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn deleted_contact_is_removed_completely() {
    let stack = TestStack::start().await;
    let file = "contact_id,page_id,first_name,attributes.city\nana,page-1,Ana,Porto";
    import_csv(&stack, file).await;

    let deleted = delete(&stack, "ana").await;
    let again = delete(&stack, "ana").await;
    stack.let_reads_catch_up();
    let asked = stack.post(&request(&["ana".to_owned()])).await;

    assert_eq!((deleted.status, deleted.body), (StatusCode::NO_CONTENT, Value::Null));
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    assert_eq!(asked.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(delete(&stack, "a%20b").await.status, StatusCode::NOT_FOUND);

    import_csv(&stack, "contact_id,page_id\nana,page-1").await;
    let ana = contact(&stack, "ana").await;
    assert_eq!((&ana["first_name"], &ana["attributes"]), (&Value::Null, &json!({})));
}

#[tokio::test]
async fn contact_stays_on_its_page() {
    let stack = TestStack::start().await;
    import_csv(&stack, "contact_id,page_id,first_name\nana,p,Ana\nben,q,Ben\n").await;
    stack.let_reads_catch_up();
    let put = async |contacts: Value| {
        let body = json!({"contacts": contacts});
        stack.call("PUT", "/v1/contacts", None, Some(&body)).await
    };
    let contact_of = |id: &str, page: &str| json!({"contact_id": id, "page_id": page, "first_name": "New"});

    let by_json = put(json!([
        contact_of("new", "p"),
        contact_of("ben", "p"),
        contact_of("ana", "q")
    ]))
    .await;
    let by_csv = import_csv(
        &stack,
        "page_id,first_name,contact_id\nq,\"N\new\",new\nq,\"A\n\",ana\n",
    )
    .await;

    for answer in [&by_json, &by_csv] {
        assert_eq!(answer.status, StatusCode::CONFLICT);
        assert_eq!(answer.body["type"], "/v1/problems/contact-on-another-page");
    }
    assert_eq!(fields(&by_json), ["/contacts/1/page_id", "/contacts/2/page_id"]);
    let message = &by_json.body["errors"][0]["message"];
    assert_eq!(message, "must be q, on which the contact is stored");
    assert_eq!(fields(&by_csv), ["line 4, column page_id"]);
    let new = stack.call("GET", "/v1/contacts/new", None, None).await;
    assert_eq!(new.status, StatusCode::NOT_FOUND, "nothing is stored");
    for (id, page, name) in [("ana", "p", "Ana"), ("ben", "q", "Ben")] {
        let contact = contact(&stack, id).await;
        assert_eq!(
            (&contact["page_id"], &contact["first_name"]),
            (&json!(page), &json!(name))
        );
    }

    // Who deletes it may create it anew at once, while other reads still show the old Page.
    stack.let_reads_catch_up();
    delete(&stack, "ana").await;
    assert_eq!(put(json!([contact_of("ana", "q")])).await.status, StatusCode::OK);
    assert_eq!(put(json!([contact_of("ana", "q")])).await.status, StatusCode::OK);
    assert_eq!(contact(&stack, "ana").await["page_id"], "q");
}

/// A script imports the names that its broadcast needs, and requests the broadcast at once.
#[tokio::test]
async fn contact_is_sent_to_as_it_was_imported_a_moment_ago() {
    let stack = TestStack::start().await;
    import_csv(&stack, "contact_id,page_id,first_name,opted_out\nana,page-1,,true").await;
    stack.let_reads_catch_up();

    import_csv(&stack, "contact_id,page_id,first_name,opted_out\nana,page-1,Ana,false").await;
    let id = stack.broadcast(&["ana".to_owned()]).await;
    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["sent"], 1, "{report:#}");
    let message = &stack.sandbox.received()[0];
    assert_eq!(message.text.as_deref(), Some("Hi Ana, we open at nine."));
}

#[tokio::test]
async fn contact_deleted_while_pending_is_skipped() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let id = stack.broadcast(&ids).await;

    assert_eq!(delete(&stack, &ids[1]).await.status, StatusCode::NO_CONTENT);
    let report = stack.finish(&id).await;

    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["skipped"]),
        (&json!(2), &json!(1))
    );
    let skipped = stack.deliveries(&id, "&status=skipped").await;
    assert_eq!(
        (&skipped[0]["contact_id"], &skipped[0]["reason"]),
        (&json!(ids[1]), &json!("contact_deleted"))
    );
    assert!(!stack.received(&id).contains_key(&ids[1]));
}
