//! Inputs of the kind that people have: ids and files that passed through a spreadsheet, characters that nobody sees, texts
//! that were written for another system. Each is read as it is meant, or refused with the place and the remedy.

use std::collections::HashMap;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::fixture::{ApiResponse, PAGES, TestStack, request};

/// The contents of a file below `cases`.
macro_rules! case {
    ($file:literal) => {
        include_str!(concat!("cases/", $file))
    };
}

/// Starts a stack that works small broadcasts off within the request.
async fn start() -> TestStack {
    TestStack::start_with(&[("INLINE_LIMIT", "25")]).await
}

async fn import_json(stack: &TestStack, body: impl Into<Body>) -> ApiResponse {
    stack.import_as("application/json", body).await
}

async fn import_csv(stack: &TestStack, body: impl Into<Body>) -> ApiResponse {
    stack.import_as("text/csv", body).await
}

async fn contact(stack: &TestStack, id: &str) -> Value {
    let answer = stack.call("GET", &format!("/v1/contacts/{id}"), None, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

/// Returns the faults of an answer with status 400, each as field and message.
#[track_caller]
fn faults(answer: &ApiResponse) -> Vec<(&str, &str)> {
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    let errors = answer.body["errors"].as_array().unwrap();
    let text = |n: usize, name: &str| errors[n][name].as_str().unwrap();
    (0..errors.len())
        .map(|n| (text(n, "field"), text(n, "message")))
        .collect()
}

#[track_caller]
fn fields(answer: &ApiResponse) -> Vec<&str> {
    faults(answer).into_iter().map(|(field, _)| field).collect()
}

/// Sends a message to these contacts, and returns the texts that they received.
async fn received_texts(stack: &TestStack, ids: &[&str], message: &Value) -> HashMap<String, String> {
    let answer = stack.post(&json!({"contact_ids": ids, "message": message})).await;
    assert_eq!(answer.body["counters"]["sent"], ids.len(), "{answer:?}");
    let id = answer.broadcast_id().to_string();
    let received = stack.sandbox.received().into_iter();
    let received = received.filter(|message| message.metadata.as_ref().unwrap().contains(&id));
    received
        .map(|message| (message.contact_id, message.text.unwrap()))
        .collect()
}

#[tokio::test]
async fn invisible_character_in_an_id_is_refused_with_code_point_and_position() {
    let stack = start().await;

    let csv = import_csv(&stack, case!("05-invisible-characters-in-ids/contacts.csv")).await;
    let broadcast: Value = serde_json::from_str(case!("05-invisible-characters-in-ids/broadcast.json")).unwrap();
    let broadcast = stack.post(&broadcast).await;
    let page = import_csv(&stack, "contact_id,page_id\n1,1002\u{2060}003\n").await;

    let found: Vec<_> = faults(&csv)
        .into_iter()
        .map(|(field, message)| (field, message.split("; ").nth(1).unwrap().split(',').next().unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            ("line 3, column contact_id", "character 1 is U+FEFF"),
            ("line 4, column contact_id", "character 18 is U+200B"),
            ("line 5, column contact_id", "character 1 is U+202A"),
            ("line 6, column contact_id", "character 18 is U+2060"),
            ("line 7, column contact_id", "character 18 is U+00AD"),
        ]
    );
    let [(second, zero_width_space), (third, byte_order_mark)] = faults(&broadcast)[..] else {
        panic!("{broadcast:?}");
    };
    assert_eq!((second, third), ("/contact_ids/1", "/contact_ids/2"));
    assert!(
        zero_width_space.contains("character 18 is U+200B"),
        "{zero_width_space}"
    );
    assert!(byte_order_mark.contains("character 1 is U+FEFF"), "{byte_order_mark}");
    let [("line 2, column page_id", message)] = faults(&page)[..] else {
        panic!("{page:?}");
    };
    assert!(message.contains("character 5 is U+2060"), "{message}");
}

/// An earlier version stored such ids.
#[tokio::test]
async fn stored_contact_with_an_invisible_character_can_be_shown_and_deleted() {
    let stack = start().await;
    stack.write_contact_by_hand("24\u{200b}", PAGES[0]).await;
    let path = "/v1/contacts/24%E2%80%8B";

    let shown = stack.call("GET", path, None, None).await;
    let deleted = stack.call("DELETE", path, None, None).await;

    assert_eq!(shown.body["contact_id"], "24\u{200b}");
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn id_changed_by_a_spreadsheet_is_refused_with_the_remedy() {
    let stack = start().await;
    for file in [
        case!("06-spreadsheet-mangled-ids/contacts-1.csv"),
        case!("06-spreadsheet-mangled-ids/contacts-2.csv"),
        case!("06-spreadsheet-mangled-ids/contacts-3.csv"),
        case!("06-spreadsheet-mangled-ids/contacts-4.csv"),
        case!("06-spreadsheet-mangled-ids/contacts-5.csv"),
        "contact_id;page_id\n2,43E+16;1002003004005\n",
        "contact_id\tpage_id\n#N/A\t1002003004005\n",
        "contact_id,page_id\n########,1002003004005\n",
    ] {
        let answer = import_csv(&stack, file).await;

        let [("line 2, column contact_id", message)] = faults(&answer)[..] else {
            panic!("{file}: {answer:?}");
        };
        assert!(message.contains("spreadsheet"), "{message}");
        assert!(message.contains("export the file"), "{message}");
    }

    let page = import_csv(&stack, "contact_id,page_id\n1,1E+12\n").await;
    let json = json!({"contacts": [{"contact_id": "2.43E+16", "page_id": "1"}]});
    let json = import_json(&stack, json.to_string()).await;
    let broadcast = stack
        .post(&request(&["1".to_owned(), "24000000000000005.0".to_owned()]))
        .await;

    assert_eq!(fields(&page), ["line 2, column page_id"]);
    assert_eq!(fields(&json), ["/contacts/0/contact_id"]);
    assert_eq!(fields(&broadcast), ["/contact_ids/1"]);
    assert!(stack.stored_items().await.is_empty());
}

#[tokio::test]
async fn rows_and_columns_of_separators_alone_are_skipped() {
    let stack = start().await;

    let answer = import_csv(&stack, case!("07-rows-of-commas/contacts.csv")).await;
    let wider = "contact_id,page_id,first_name,,\n1,p,Ana,,\n,,\n , \u{a0},\u{200b},,,,\n\"\",\"\",\"\",,\n2,p,Ben\n";
    let wider = import_csv(&stack, wider).await;
    let only = import_csv(&stack, "contact_id,page_id\n,\n,\n").await;
    let outside = import_csv(&stack, "contact_id,page_id,\n1,p,x\n").await;

    assert_eq!((answer.status, answer.body), (StatusCode::OK, json!({"upserted": 1})));
    assert_eq!((wider.status, wider.body), (StatusCode::OK, json!({"upserted": 2})));
    assert_eq!(fields(&only), ["line 2"]);
    assert_eq!(fields(&outside), ["line 2"]);
}

#[tokio::test]
async fn csv_is_read_in_each_form_that_spreadsheets_write() {
    let stack = start().await;
    let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        format!("\u{feff}{text}").encode_utf16().flat_map(bytes).collect()
    };
    let commas = "contact_id,page_id,first_name,tags,attributes.city\n1,p,\"Zoë 🙂, jr.\",\"a;b\",Łódź\n\n";
    let semicolons = "contact_id;page_id;first_name;tags;attributes.city\n1;p;Zoë 🙂, jr.;\"a;b\";Łódź\n";
    let tabs = semicolons
        .replace("\"a;b\"", "a,b")
        .replace(';', "\t")
        .replace("a,b", "a;b");
    let files: [(Vec<u8>, &str); 13] = [
        (
            commas.into(),
            "UTF-8, cells separated by commas; 1 contacts, 0 blank rows skipped",
        ),
        (format!("\u{feff}{commas}").into(), "UTF-8, cells separated by commas"),
        (semicolons.into(), "UTF-8, cells separated by semicolons"),
        (tabs.clone().into(), "UTF-8, cells separated by tabs"),
        (utf16(commas, u16::to_le_bytes), "UTF-16, cells separated by commas"),
        (
            utf16(semicolons, u16::to_be_bytes),
            "UTF-16, cells separated by semicolons",
        ),
        (utf16(&tabs, u16::to_le_bytes), "UTF-16, cells separated by tabs"),
        (commas.replace('\n', "\r\n").into(), "UTF-8, cells separated by commas"),
        (commas.replace('\n', "\r").into(), "UTF-8, cells separated by commas"),
        (commas.trim_end().into(), "UTF-8, cells separated by commas"),
        (
            format!("sep=;\r\n{semicolons}").into(),
            "UTF-8, cells separated by semicolons",
        ),
        (
            commas
                .replace("contact_id", "Contact ID")
                .replace("page_id", "PAGE_ID")
                .replace("first_name", "FirstName")
                .into(),
            "UTF-8, cells separated by commas",
        ),
        (
            commas.replace("tags,attributes", " Tags\u{200b},ATTRIBUTES").into(),
            "UTF-8, cells separated by commas",
        ),
    ];
    for (file, read_as) in files {
        let shown = String::from_utf8_lossy(&file).into_owned();
        let import = Request::put("/v1/contacts").header("content-type", "text/csv");
        let answer = stack.send_raw(import.body(Body::from(file)).unwrap()).await;

        assert_eq!(answer.status(), StatusCode::OK, "{shown}: {answer:?}");
        assert_eq!(&answer.body()[..], b"{\"upserted\":1}");
        let header = answer.headers()["x-csv-read-as"].to_str().unwrap();
        assert!(header.starts_with(read_as), "{shown}: {header}");
        let expected = json!({
            "contact_id": "1", "page_id": "p", "first_name": "Zoë 🙂, jr.", "last_name": null, "name": null,
            "locale": null, "timezone": null, "tags": ["a", "b"], "opted_out": false, "tester": false,
            "last_interaction_at": null, "source": "api", "attributes": {"city": "Łódź"},
        });
        assert_eq!(contact(&stack, "1").await, expected, "{shown}");
        stack.call("DELETE", "/v1/contacts/1", None, None).await;
    }
}

#[tokio::test]
async fn csv_fault_names_its_line_in_each_form() {
    let stack = start().await;
    let broken_utf16: Vec<u8> = [0xFEFF, 0x61, 0x0A, 0x0A, 0xD800, 0x61]
        .into_iter()
        .flat_map(u16::to_le_bytes)
        .collect();
    let files: [(Vec<u8>, &[&str]); 10] = [
        // Only CR ends lines.
        (
            b"contact_id,page_id\r1,p\r\r2,p q\r".into(),
            &["line 4, column page_id"],
        ),
        // Each kind of line end in one file, and one between CR and LF of which the reader stops.
        (
            b"contact_id,page_id\r\n1,p\r2,p\n\r\n3,p q\r\n".into(),
            &["line 5, column page_id"],
        ),
        // The cell begins on the second line of its row.
        (
            b"contact_id,page_id,first_name,opted_out\n1,p,\"A\nB\",maybe\n2,p,\"A\r\nB\r\",\"x\n".into(),
            &["line 3, column opted_out", "line 6, column opted_out"],
        ),
        (
            b"contact_id,page_id,first_name,attributes.city\n1,p,\"A\nB\",\"\0\"\n".into(),
            &["line 3, column attributes.city"],
        ),
        (
            b"sep=;\ncontact_id;page_id\n1;p q\n".into(),
            &["line 3, column page_id"],
        ),
        (b"sep=;\n".into(), &["line 2"]),
        (b"contact_id;page_id;tags\n1;p;a;b\n".into(), &["line 2"]),
        (broken_utf16, &["line 3"]),
        // UTF-16 without a byte order mark is not guessed.
        (
            "contact_id,page_id".encode_utf16().flat_map(u16::to_le_bytes).collect(),
            &[
                "line 1, column 1",
                "line 1, column 2",
                "line 1, column contact_id",
                "line 1, column page_id",
            ],
        ),
        // Windows-1252.
        (
            b"contact_id,page_id,first_name\n1,p,Zo\xEB\n".into(),
            &["line 2, column first_name"],
        ),
    ];
    for (file, expected) in files {
        let shown = String::from_utf8_lossy(&file).into_owned();
        let answer = import_csv(&stack, file).await;
        assert_eq!(fields(&answer), expected, "{shown:?}");
    }
    let answer = import_csv(&stack, "contact_id;page_id;tags\n1;p;a;b\n").await;
    let message = faults(&answer)[0].1.to_owned();
    assert!(
        message.ends_with("the file was read as UTF-8, cells separated by semicolons"),
        "{message}"
    );
}

#[tokio::test]
async fn json_may_begin_with_a_byte_order_mark() {
    let stack = start().await;
    let contacts = "\u{feff}{\"contacts\": [{\"contact_id\": \"1\", \"page_id\": \"page-1\"}]}";
    assert_eq!(import_json(&stack, contacts).await.body, json!({"upserted": 1}));
}

#[tokio::test]
async fn name_that_nobody_sees_is_no_name() {
    let stack = start().await;
    let contacts = case!("10-blank-name/contacts.json").replace("1002003004005", PAGES[0]);
    let message = serde_json::from_str(case!("10-blank-name/message.json")).unwrap();
    let ids = [
        "25000000000000000",
        "25000000000000001",
        "25000000000000002",
        "25000000000000003",
    ];

    assert_eq!(import_json(&stack, contacts).await.body, json!({"upserted": 4}));
    let texts = received_texts(&stack, &ids, &message).await;

    assert_eq!(texts.len(), 4);
    assert!(texts.values().all(|text| text == "Hi there,"), "{texts:?}");
    assert_eq!(contact(&stack, ids[3]).await["first_name"], Value::Null);
}

#[tokio::test]
async fn names_and_tags_are_trimmed_and_have_no_nul() {
    let stack = start().await;
    let ana = json!({
        "contact_id": "1", "page_id": PAGES[0], "first_name": "\u{feff} Ana ❤\u{fe0f}\u{a0}", "last_name": "Sá\n",
        "tags": [" vip ", "\u{200b}", "👩\u{200d}👧"], "attributes": {"x": "  \u{200b}", "y": " kept "},
    });
    import_json(&stack, json!({"contacts": [ana]}).to_string()).await;

    let stored = contact(&stack, "1").await;
    let message = json!({"text": "{{ first_name }}|{{ last_name }}|{{ tags }}|{{ attributes.x | default('-') }}|{{ attributes.y }}"});
    let texts = received_texts(&stack, &["1"], &message).await;
    let nul = json!({
        "contact_id": "2", "page_id": "p", "first_name": "a\0", "tags": ["\0"], "attributes": {"x": "\0"},
    });
    let nul = import_json(&stack, json!({"contacts": [nul]}).to_string()).await;
    let text = stack
        .post(&json!({"contact_ids": ["1"], "message": {"text": "a\0b"}}))
        .await;

    assert_eq!(
        (&stored["first_name"], &stored["last_name"]),
        (&json!("Ana ❤\u{fe0f}"), &json!("Sá"))
    );
    assert_eq!(stored["tags"], json!(["vip", "👩\u{200d}👧"]));
    assert_eq!(texts["1"], "Ana ❤\u{fe0f}|Sá|vip, 👩\u{200d}👧|-| kept ");
    assert_eq!(
        fields(&nul),
        ["/contacts/0/first_name", "/contacts/0/tags", "/contacts/0/attributes/x"]
    );
    assert_eq!(fields(&text), ["/message/text"]);
}

#[tokio::test]
async fn text_of_which_nothing_is_seen_is_not_sent() {
    let stack = start().await;
    let ana = json!({"contact_id": "1", "page_id": PAGES[0], "attributes": {"flag": true}});
    import_json(&stack, json!({"contacts": [ana]}).to_string()).await;

    let literal = stack
        .post(&json!({"contact_ids": ["1"], "message": {"text": "\u{3164}\u{200b}\u{2800}"}}))
        .await;
    let rendered = json!({"contact_ids": ["1"], "message": {"text": "{{ '\u{200b}' if attributes.flag else 'x' }}"}});
    let rendered = stack.post(&rendered).await;

    assert_eq!(fields(&literal), ["/message/text"]);
    assert_eq!(rendered.body["counters"]["failed"], 1);
    let rows = stack.deliveries(&rendered.broadcast_id(), "").await;
    assert_eq!(rows[0]["reason"], "text is empty");
}

#[tokio::test]
async fn tag_that_would_swallow_text_is_refused_with_its_position() {
    let stack = start().await;
    stack.import(PAGES[0], &["1".to_owned()]).await;
    let message: Value = serde_json::from_str(case!("09-brace-hash-swallowed/message.json")).unwrap();
    for (message, place) in [
        (message, "{# at line 1, column 6"),
        (
            json!({"text": "Hi\n{% if tags %}a{% endif %}"}),
            "{% at line 2, column 1",
        ),
        (json!({"text": "Hi {# not closed"}), "{# at line 1, column 4"),
    ] {
        for allow in [false, true] {
            let body = json!({"contact_ids": ["1"], "message": message, "allow_literal_braces": allow});
            let answer = stack.post(&body).await;

            let [("/message/text", fault)] = faults(&answer)[..] else {
                panic!("{answer:?}");
            };
            assert!(fault.contains(place), "{fault}");
        }
    }
    let texts = received_texts(&stack, &["1"], &json!({"text": "{{ '{#' }} {{ '{%' }} :-{ 50 %} #}"})).await;
    assert_eq!(texts["1"], "{# {% :-{ 50 %} #}");
}

#[tokio::test]
async fn placeholder_of_another_system_is_refused_unless_it_is_allowed() {
    let stack = start().await;
    stack.import(PAGES[0], &["1".to_owned()]).await;
    let body = |text: &str, allow: bool| {
        let mut body = json!({"contact_ids": ["1"], "message": {"text": text}});
        if allow {
            body["allow_literal_braces"] = json!(true);
        }
        body
    };
    for text in [
        "Hi {first_name}",
        "Hi {FirstName}",
        "Hi *|FNAME|*",
        "Hi %FIRST_NAME%",
        "Hi [[firstname]]",
        "Hi {{first name}}",
        "Hi {{FirstName}}",
    ] {
        let refused = stack.post(&body(text, false)).await;
        let [("/message/text", message)] = faults(&refused)[..] else {
            panic!("{refused:?}");
        };
        assert!(
            message.contains("{{ first_name }}") && message.contains("column 4"),
            "{message}"
        );
        assert!(message.contains("allow_literal_braces"), "{message}");
    }

    let sent = stack.post_with_key("k", &body("Hi {FirstName}", true)).await;
    let again = stack.post_with_key("k", &body("Hi {FirstName}", true)).await;
    let plain = stack.post_with_key("l", &body("Hi {}", false)).await;
    let other = stack.post_with_key("l", &body("Hi {}", true)).await;
    let wrong = json!({"contact_ids": ["1"], "message": {"text": "a"}, "allow_literal_braces": "yes"});

    assert_eq!(sent.body["counters"]["sent"], 1, "{sent:?}");
    assert_eq!(stack.sandbox.received()[0].text.as_deref(), Some("Hi {FirstName}"));
    assert!(again.replayed && plain.status.is_success());
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(fields(&stack.post(&wrong).await), ["/allow_literal_braces"]);
}

#[tokio::test]
async fn variable_in_a_text_that_is_not_rendered_is_refused() {
    let stack = start().await;
    stack.import(PAGES[0], &["1".to_owned()]).await;
    let button = json!({"type": "postback", "title": "Hi {FirstName}", "payload": "{first_name}"});
    let payload = json!({"template_type": "button", "text": "Hi {{ first_name }}", "buttons": [button]});
    let attachment = json!({"attachment": {"type": "template", "payload": payload}});
    let reply = json!({"content_type": "text", "title": "{{ first_name }}", "payload": "{{ first_name }}"});
    let replies = json!({"text": "a", "quick_replies": [reply]});

    let attachment = json!({"contact_ids": ["1"], "message": attachment});
    let mut replies = json!({"contact_ids": ["1"], "message": replies});

    assert_eq!(
        fields(&stack.post(&attachment).await),
        [
            "/message/attachment/payload/buttons/0/title",
            "/message/attachment/payload/text"
        ]
    );
    assert_eq!(fields(&stack.post(&replies).await), ["/message/quick_replies/0/title"]);
    replies["allow_literal_braces"] = json!(true);
    assert_eq!(stack.post(&replies).await.body["counters"]["sent"], 1);
}

/// The value is given as JSON. Its text is the value of a string, and the JSON of any other.
#[tokio::test]
async fn value_comes_out_of_a_text_as_it_is_written_or_is_refused() {
    let stack = start().await;
    let body = |value: &str| {
        let contact = format!(
            "{{\"contact_id\": \"1\", \"page_id\": \"{}\", \"attributes\": {{\"x\": {value}}}}}",
            PAGES[0]
        );
        format!("{{\"contacts\": [{contact}]}}")
    };
    let long = format!("\"{}\"", "ж".repeat(1_000));
    for value in [
        "true",
        "false",
        "0",
        "-1",
        "40",
        "9007199254740993",
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551615",
        "1000000000000000000000",
        "0.1",
        "19.95",
        "-0.000001",
        "3.141592653589793",
        "\"1.0\"",
        "\"007\"",
        "\"  two  spaces  \"",
        "\"line\\r\\nbreak\\t\"",
        "\"e\\u0301 n\\u0303\"",
        "\"שלום \\u202bעולם\\u202c مرحبا\"",
        "\"👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️\"",
        "\"{{ first_name }} {# {% <b> & \\\" ' \\\\ \"",
        long.as_str(),
    ] {
        let imported = import_json(&stack, body(value)).await;
        assert_eq!(imported.body, json!({"upserted": 1}), "{value}");
        let message = json!({"text": format!("{{{{ attributes.x }}}}|{}", unique())});
        let texts = received_texts(&stack, &["1"], &message).await;

        let expected = serde_json::from_str::<String>(value).unwrap_or_else(|_| value.to_owned());
        // Line ends are sent as line feeds, by which a lookup knows the text.
        let expected = expected.replace("\r\n", "\n");
        assert_eq!(texts["1"].rsplit_once('|').unwrap().0, expected, "{value}");
    }
    for value in [
        "1.0",
        "19.90",
        "-0",
        "1e3",
        "1E21",
        "1e21",
        "18446744073709551617",
        "123456789012345678901234567890",
        "0.12345678901234567890123",
        "1e300",
        "1e-200",
        "[1]",
        "{}",
        "\"\\u0000\"",
    ] {
        let refused = import_json(&stack, body(value)).await;
        let [("/contacts/0/attributes/x", message)] = faults(&refused)[..] else {
            panic!("{value}: {refused:?}");
        };
        assert!(!message.is_empty());
    }
}

/// Each import is within its limits; what adds up is not.
#[tokio::test]
async fn contact_that_would_outgrow_its_item_is_refused_and_unchanged() {
    let stack = start().await;
    let import = |n: usize| {
        let attributes: serde_json::Map<_, _> = (0..30)
            .map(|a| (format!("a{n}_{a}"), json!("x".repeat(1_000))))
            .collect();
        let ana = json!({"contact_id": "1", "page_id": PAGES[0], "attributes": attributes});
        import_json(&stack, json!({"contacts": [ana]}).to_string())
    };
    let mut last = import(0).await;
    let mut n = 1;
    while last.status == StatusCode::OK && n < 20 {
        last = import(n).await;
        n += 1;
    }

    assert_eq!(last.status, StatusCode::CONFLICT, "{last:?}");
    let attributes = contact(&stack, "1").await["attributes"].as_object().unwrap().len();
    assert_eq!(attributes, 30 * (n - 1));
    let cleared = json!({"contacts": [{"contact_id": "1", "page_id": PAGES[0], "attributes": null}]});
    assert_eq!(import_json(&stack, cleared.to_string()).await.status, StatusCode::OK);
    assert_eq!(import(n).await.status, StatusCode::OK);
}

/// Returns a text that no other broadcast of the test has.
fn unique() -> String {
    shared::domain::ids::token()
}
