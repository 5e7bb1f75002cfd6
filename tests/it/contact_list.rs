//! The list of contacts: each once, however many parts it has and whatever changes meanwhile; and as a file that can be imported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::callers::{PAGES_CLAIM, limited_to};
use crate::fixture::proxy::Reply;
use crate::fixture::{ApiResponse, PAGES, TestStack};

const JSON: &str = "application/json";
const CSV: &str = "text/csv";
const NDJSON: &str = "application/x-ndjson";

async fn get(stack: &TestStack, path: &str, accept: &str) -> Response<Bytes> {
    let request = Request::get(path).header("accept", accept);
    let answer = stack.send_raw(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::OK, "{path}: {answer:?}");
    answer
}

/// A part of the list: the contacts by id, and the cursor of the next part.
struct Part {
    ids: Vec<String>,
    cursor: Option<String>,
}

/// Returns a part of the list; `filters` begins with `?`.
async fn part(stack: &TestStack, filters: &str, cursor: Option<&str>, accept: &str) -> Part {
    let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
    let answer = get(stack, &format!("/v1/contacts{filters}{cursor}"), accept).await;
    let header = answer
        .headers()
        .get("x-next-cursor")
        .map(|cursor| cursor.to_str().unwrap().to_owned());
    let id = |contact: &Value| contact["contact_id"].as_str().unwrap().to_owned();
    match accept {
        CSV => Part {
            ids: rows(answer.body())
                .into_iter()
                .map(|row| row["contact_id"].clone())
                .collect(),
            cursor: header,
        },
        NDJSON => {
            let lines = std::str::from_utf8(answer.body()).unwrap().lines();
            let contacts = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
            Part {
                ids: contacts.map(|contact| id(&contact)).collect(),
                cursor: header,
            }
        }
        _ => {
            let body: Value = serde_json::from_slice(answer.body()).unwrap();
            Part {
                ids: body["items"].as_array().unwrap().iter().map(id).collect(),
                cursor: body["next_cursor"].as_str().map(str::to_owned),
            }
        }
    }
}

/// Returns the rows of a file, by the names of its columns.
fn rows(file: &[u8]) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(file);
    let rows = reader.deserialize();
    rows.map(Result::unwrap).collect()
}

/// Returns the ids of the whole list, read in parts.
async fn list(stack: &TestStack, filters: &str, accept: &str) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let part = part(stack, filters, cursor.as_deref(), accept).await;
        ids.extend(part.ids);
        cursor = part.cursor;
        if cursor.is_none() {
            return ids;
        }
    }
}

/// Returns the ids without their order; each must be there once.
#[track_caller]
fn set(ids: &[String]) -> BTreeSet<&str> {
    let set: BTreeSet<_> = ids.iter().map(String::as_str).collect();
    assert_eq!(set.len(), ids.len(), "a contact is listed twice: {ids:?}");
    set
}

async fn import(stack: &TestStack, contacts: Value) {
    let answer = stack
        .call("PUT", "/v1/contacts", None, Some(&json!({ "contacts": contacts })))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    stack.let_reads_catch_up();
}

/// Imports contacts of two Pages; returns the ids of all, and of the first Page.
async fn import_two_pages(stack: &TestStack) -> (Vec<String>, Vec<String>) {
    let of = |page: usize, n: usize| (0..n).map(|n| format!("{page}-{n:03}")).collect::<Vec<_>>();
    let (first, second) = (of(1, 60), of(2, 25));
    stack.import(PAGES[0], &first).await;
    stack.import(PAGES[1], &second).await;
    stack.let_reads_catch_up();
    ([first.clone(), second].concat(), first)
}

#[tokio::test]
async fn each_contact_is_listed_once_in_every_form() {
    let stack = TestStack::start().await;
    let (all, first) = import_two_pages(&stack).await;

    for accept in [JSON, CSV, NDJSON] {
        for limit in [1, 7, 59, 60, 85, 1_000] {
            let listed = list(&stack, &format!("?limit={limit}"), accept).await;
            assert_eq!(set(&listed), set(&all), "{accept}, limit {limit}");
            let of_page = list(&stack, &format!("?page_id={}&limit={limit}", PAGES[0]), accept).await;
            assert_eq!(of_page, first, "{accept}, limit {limit}");
        }
    }
    assert_eq!(part(&stack, "", None, JSON).await.ids.len(), 50);
    assert_eq!(part(&stack, "", None, CSV).await.ids.len(), 85);
    assert_eq!(list(&stack, "?page_id=page-9", JSON).await, [] as [&str; 0]);
    let shown = stack.call("GET", "/v1/contacts/1-007", None, None).await.body;
    let listed = stack.call("GET", "/v1/contacts?q=1-007", None, None).await.body;
    assert_eq!(listed, json!({"items": [shown], "next_cursor": null}));
}

#[tokio::test]
async fn contact_that_stays_is_listed_once_while_others_come_and_go() {
    let stack = TestStack::start().await;
    let (all, first) = import_two_pages(&stack).await;

    for (filters, expected) in [("?limit=5", &all), (&format!("?limit=5&page_id={}", PAGES[0]), &first)] {
        let (mut ids, mut cursor, mut gone) = (Vec::new(), None, BTreeSet::new());
        for n in 0.. {
            let part = part(&stack, filters, cursor.as_deref(), JSON).await;
            // The contact that the cursor names is deleted, others change, and new ones come all over the list.
            if let Some(last) = part.ids.last()
                && n % 2 == 0
            {
                let path = format!("/v1/contacts/{last}");
                assert!(stack.call("DELETE", &path, None, None).await.status.is_success());
                gone.insert(last.clone());
            }
            let tagged = json!({"add": [format!("t{n}")], "contact_ids": part.ids.iter().chain(&first[..]).collect::<BTreeSet<_>>()});
            stack.call("POST", "/v1/contacts/tags", None, Some(&tagged)).await;
            let new =
                (0..3).map(|m| json!({"contact_id": format!("{}-{n}{m}new", 1 + m % 2), "page_id": PAGES[m % 2]}));
            import(&stack, new.collect()).await;
            ids.extend(part.ids);
            cursor = part.cursor;
            if cursor.is_none() {
                break;
            }
        }

        let listed = set(&ids);
        let missing: Vec<_> = expected
            .iter()
            .filter(|id| !listed.contains(id.as_str()) && !gone.contains(*id))
            .collect();
        assert_eq!(missing, [] as [&String; 0], "{filters}");
        for id in gone {
            let page = PAGES[usize::from(id.starts_with('2'))];
            import(&stack, json!([{"contact_id": id, "page_id": page}])).await;
        }
    }
}

#[tokio::test]
async fn contacts_are_found_by_page_tag_and_part_of_a_name() {
    let stack = TestStack::start().await;
    let contacts = json!([
        {"contact_id": "6001", "page_id": PAGES[0], "first_name": "José", "last_name": "Álvarez", "tags": ["vip", "new"]},
        {"contact_id": "6002", "page_id": PAGES[0], "first_name": "Josefa", "tags": ["VIP"]},
        {"contact_id": "6003", "page_id": PAGES[1], "first_name": "さくら", "last_name": "田中", "tags": ["vip"]},
        {"contact_id": "7004", "page_id": PAGES[1], "first_name": "नरेन्द्र", "tags": ["a;b", "vip "], "opted_out": true},
        {"contact_id": "7005", "page_id": PAGES[1], "last_name": "Straße", "name": "Ŝi Straße"},
    ]);
    import(&stack, contacts).await;

    for (filters, expected) in [
        (format!("?page_id={}", PAGES[1]), vec!["6003", "7004", "7005"]),
        ("?tag=vip".to_owned(), vec!["6001", "6003", "7004"]),
        ("?tag=%20vip".to_owned(), vec!["6001", "6003", "7004"]),
        ("?tag=a;b".to_owned(), vec!["7004"]),
        ("?tag=a".to_owned(), vec![]),
        (format!("?tag=vip&page_id={}", PAGES[1]), vec!["6003", "7004"]),
        ("?q=JOSE".to_owned(), vec!["6001", "6002"]),
        ("?q=jos%C3%A9%20alv".to_owned(), vec!["6001"]),
        ("?q=%E7%94%B0".to_owned(), vec!["6003"]),
        ("?q=%E0%A4%A8%E0%A4%B0%E0%A5%87".to_owned(), vec!["7004"]),
        ("?q=STRASSE".to_owned(), vec!["7005"]),
        ("?q=si%20str".to_owned(), vec!["7005"]),
        ("?q=700".to_owned(), vec!["7004", "7005"]),
        (format!("?q=e&tag=vip&page_id={}", PAGES[0]), vec!["6001"]),
    ] {
        for limit in [1, 100] {
            let filters = format!("{filters}&limit={limit}");
            let listed = list(&stack, &filters, JSON).await;
            assert_eq!(set(&listed), expected.iter().copied().collect(), "{filters}");
        }
    }
}

#[tokio::test]
async fn caller_lists_the_contacts_of_its_own_pages_alone() {
    let stack = TestStack::start_with(&[PAGES_CLAIM]).await;
    let (all, first) = import_two_pages(&stack).await;
    let listed_by = async |pages: &str, filters: &str| {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/contacts?limit=9{filters}{cursor}");
            let answer: ApiResponse = stack.call_as(&limited_to(pages), ("GET", &path), None, None).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let items = answer.body["items"].as_array().unwrap().iter();
            ids.extend(items.map(|contact| contact["contact_id"].as_str().unwrap().to_owned()));
            match answer.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return ids,
            }
        }
    };
    let both = format!("[{} page-9 {}]", PAGES[0], PAGES[1]);

    assert_eq!(listed_by(PAGES[0], "").await, first);
    assert_eq!(
        listed_by(PAGES[0], &format!("&page_id={}", PAGES[1])).await,
        [] as [&str; 0]
    );
    assert_eq!(listed_by(PAGES[0], "&q=2-001").await, [] as [&str; 0]);
    assert_eq!(listed_by(&both, "").await, all);
    assert_eq!(listed_by("page-9", "").await, [] as [&str; 0]);

    let pages = async |pages: &str| {
        let limited = limited_to(pages);
        let list = stack.call_as(&limited, ("GET", "/v1/pages"), None, None).await.body;
        let listed = list["items"].as_array().unwrap().iter();
        listed.map(|page| page["page_id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(pages(PAGES[0]).await, [PAGES[0]]);
    assert_eq!(pages("page-9").await, [] as [&str; 0]);
}

#[tokio::test]
async fn cursor_of_another_list_of_contacts_is_refused() {
    let stack = TestStack::start_with(&[PAGES_CLAIM]).await;
    import_two_pages(&stack).await;
    let page = format!("?limit=1&page_id={}", PAGES[0]);
    let cursors = [
        (
            "?limit=1".to_owned(),
            part(&stack, "?limit=1", None, JSON).await.cursor.unwrap(),
        ),
        (page.clone(), part(&stack, &page, None, JSON).await.cursor.unwrap()),
        (
            "?limit=1&q=1".to_owned(),
            part(&stack, "?limit=1&q=1", None, CSV).await.cursor.unwrap(),
        ),
    ];
    for (of, cursor) in &cursors {
        for (filters, _) in &cursors {
            let path = format!("/v1/contacts{filters}&cursor={cursor}");
            let answer = stack.call("GET", &path, None, None).await;
            let expected = if filters == of {
                StatusCode::OK
            } else {
                StatusCode::BAD_REQUEST
            };
            assert_eq!(answer.status, expected, "{path}: {answer:?}");
        }
    }
    // The list of a limited caller has an order of its own.
    let path = format!("/v1/contacts?limit=1&cursor={}", cursors[0].1);
    let limited = limited_to(&format!("[{} {}]", PAGES[0], PAGES[1]));
    let answer = stack.call_as(&limited, ("GET", &path), None, None).await;
    assert_eq!(answer.body["errors"][0]["field"], "cursor", "{answer:?}");
}

#[tokio::test]
async fn wrong_parameter_of_a_list_of_contacts_is_refused_and_named() {
    let stack = TestStack::start().await;
    let long = "x".repeat(101);
    for (form, parameter, value) in [
        (JSON, "limit", "0"),
        (JSON, "limit", "1001"),
        (CSV, "limit", "10001"),
        (NDJSON, "limit", "10001"),
        (JSON, "page_id", "a%20b"),
        (JSON, "tag", ""),
        (JSON, "tag", "%20"),
        (JSON, "q", ""),
        (JSON, "q", "%E2%80%8B"),
        (JSON, "q", "%CC%81"),
        (JSON, "q", &long),
        (JSON, "cursor", "x"),
        (JSON, "tags", "vip"),
    ] {
        let request = Request::get(format!("/v1/contacts?{parameter}={value}")).header("accept", form);
        let answer = stack.send_raw(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{form} {parameter}={value}");
        let problem: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(problem["errors"][0]["field"], parameter);
    }
    for (form, limit) in [(JSON, 1_000), (CSV, 10_000), (NDJSON, 10_000)] {
        assert_eq!(list(&stack, &format!("?limit={limit}"), form).await, [] as [&str; 0]);
    }
    let long = "x".repeat(100);
    assert_eq!(list(&stack, &format!("?q={long}"), JSON).await, [] as [&str; 0]);
}

/// Contacts as people have them, and as they try to break a file.
fn odd_contacts() -> Value {
    let name = |id: &str, first: &str, last: &str| json!({"contact_id": id, "page_id": PAGES[0], "first_name": first, "last_name": last});
    json!([
        name("plain", "Ana", "Sá"),
        name("latin", "Zoë \"Zo\", jr.", "O'Hara; Smith"),
        name("japanese", "さくら", "田中"),
        name("korean", "지민", "한"),
        name("hindi", "नरेन्द्र", "मोदी"),
        name("arabic", "\u{2067}محمد\u{2069}", "عبد‌الله"),
        name("hebrew", "דָּוִד", "בן־גוריון"),
        name("thai", "สมชาย", "ใจดี"),
        name("emoji", "👩‍👧 Mia", "🇵🇹"),
        name("formula", "=HYPERLINK(\"http://x\",\"y\")", "+1"),
        name("marked", "'=1+1", "''-2"),
        name("quote", "'Aziza", "'"),
        name("at", "@SUM(A1)", "-"),
        name("error", "#N/A", "####"),
        name("lines", "A\nB\r\nC", "tab\there"),
        name("=1+1", "id is a formula", "x"),
        name("-5", "id is negative", "x"),
        json!({"contact_id": "labels", "page_id": PAGES[0], "tags": ["a;b", "c\\", ";", "\\;", "=x", "\"q\"", "é, ö", "'t", "\\"]}),
        json!({"contact_id": "marked_tags", "page_id": PAGES[0], "tags": ["'=1", "-2"]}),
        json!({"contact_id": "flags", "page_id": PAGES[0], "opted_out": true, "tester": true,
            "last_interaction_at": "2026-11-01T01:02:03.004Z"}),
        json!({"contact_id": "attributes", "page_id": PAGES[0], "attributes": {
            "city": "Porto", "note": " = with blanks ", "formula": "=1", "lines": "a\r\nb", "zero": "007", "big": "1e21",
            "script": "город", "A_1": "\"", "error": "#REF!", "apostrophe": "'+"
        }}),
        json!({"contact_id": "profile", "page_id": PAGES[0], "name": "=Ana Sá", "locale": "pt_BR", "timezone": -3.5, "source": "fair"}),
        json!({"contact_id": "bare", "page_id": PAGES[1]}),
    ])
}

async fn contact(stack: &TestStack, id: &str) -> Value {
    let path = format!("/v1/contacts/{}", id.replace('=', "%3D").replace('+', "%2B"));
    let answer = stack.call("GET", &path, None, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{id}: {answer:?}");
    answer.body
}

#[tokio::test]
async fn exported_file_is_imported_as_it_was() {
    let stack = TestStack::start().await;
    import(&stack, odd_contacts()).await;
    let ids = list(&stack, "?limit=100", JSON).await;
    let mut before = Vec::new();
    for id in &ids {
        before.push(contact(&stack, id).await);
    }

    let file = get(&stack, "/v1/contacts", CSV).await;
    for row in rows(file.body()) {
        for (column, cell) in row {
            let is_number = column == "timezone";
            assert!(
                is_number || !cell.starts_with(['=', '+', '-', '@', '\t', '\r']),
                "{column}: {cell:?}"
            );
        }
    }
    for id in &ids {
        let path = format!("/v1/contacts/{}", id.replace('=', "%3D").replace('+', "%2B"));
        assert_eq!(
            stack.call("DELETE", &path, None, None).await.status,
            StatusCode::NO_CONTENT
        );
    }
    stack.let_reads_catch_up();
    assert_eq!(list(&stack, "?limit=1", JSON).await, [] as [&str; 0]);
    let imported = stack.import_as("text/csv", file.body().clone()).await;

    assert_eq!(imported.body, json!({"upserted": ids.len()}), "{imported:?}");
    for (id, before) in ids.iter().zip(before) {
        assert_eq!(contact(&stack, id).await, before);
    }
    // The same file over the same contacts changes nothing, and neither does the file of one Page.
    stack.let_reads_catch_up();
    let again = get(&stack, "/v1/contacts", CSV).await;
    assert_eq!(again.body(), file.body());
    let of_page = get(&stack, &format!("/v1/contacts?page_id={}", PAGES[0]), CSV).await;
    let by_id = |file: &[u8]| -> BTreeMap<_, _> {
        let rows = rows(file).into_iter().filter(|row| row["contact_id"] != "bare");
        rows.map(|row| (row["contact_id"].clone(), row)).collect()
    };
    assert_eq!(by_id(of_page.body()), by_id(file.body()));
}

/// A file that was exported before a contact opted out does not opt it in again.
#[tokio::test]
async fn import_of_an_old_export_keeps_a_later_opt_out() {
    let stack = TestStack::start().await;
    import(
        &stack,
        json!([{"contact_id": "ana", "page_id": PAGES[0], "opted_out": false, "tester": true}]),
    )
    .await;
    let file = get(&stack, "/v1/contacts", CSV).await;

    import(
        &stack,
        json!([{"contact_id": "ana", "page_id": PAGES[0], "opted_out": true}]),
    )
    .await;
    let imported = stack.import_as("text/csv", file.body().clone()).await;

    assert_eq!(imported.body, json!({"upserted": 1}));
    let ana = contact(&stack, "ana").await;
    assert_eq!((&ana["opted_out"], &ana["tester"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn lines_of_json_are_contacts_as_they_are_stored() {
    let stack = TestStack::start().await;
    let contacts = json!([
        {"contact_id": "ana", "page_id": PAGES[0], "attributes": {"age": 40, "vip": true, "city": "Porto", "empty": ""}},
        {"contact_id": "ben", "page_id": PAGES[0], "first_name": "Ben\n"},
    ]);
    import(&stack, contacts).await;

    let answer = get(&stack, &format!("/v1/contacts?page_id={}", PAGES[0]), NDJSON).await;

    assert_eq!(answer.headers()["content-type"], NDJSON);
    let lines = std::str::from_utf8(answer.body()).unwrap();
    assert!(lines.ends_with('\n'));
    let found: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found, [contact(&stack, "ana").await, contact(&stack, "ben").await]);
}

/// A request reads what it needs, and a request that finds nothing reads in small queries that a busy database can answer.
#[tokio::test]
async fn request_for_contacts_reads_a_bounded_part() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let asked = Arc::clone(&asked);
        move |body: &str| {
            let query: Value = serde_json::from_str(body).unwrap();
            if query["UpdateExpression"].is_null() {
                asked.lock().unwrap().extend(query["Limit"].as_u64());
            }
            Reply::Arrives
        }
    };
    let stack = TestStack::start_with_lossy_database(hook, &[]).await;
    stack.import_contacts(2_500).await;
    stack.let_reads_catch_up();
    asked.lock().unwrap().clear();
    let asked = || std::mem::take(&mut *asked.lock().unwrap());

    assert_eq!(part(&stack, "", None, JSON).await.ids.len(), 50);
    assert_eq!(asked(), [50]);
    assert_eq!(part(&stack, "?q=nobody", None, JSON).await.ids.len(), 0);
    assert_eq!(asked(), [1_000; 3]);
    assert_eq!(part(&stack, "", None, CSV).await.ids.len(), 2_500);
    assert_eq!(asked(), [1_000; 3]);
    assert_eq!(
        part(&stack, &format!("?page_id={}", PAGES[0]), None, JSON)
            .await
            .ids
            .len(),
        50
    );
    let of_page = asked();
    assert!(of_page.iter().sum::<u64>() <= 160, "{of_page:?}");
    let nobody = format!("?page_id={}&tag=nobody", PAGES[0]);
    assert_eq!(list(&stack, &nobody, JSON).await, [] as [&str; 0]);
    let of_tag = asked();
    assert!(of_tag.iter().all(|limit| *limit <= 500), "{of_tag:?}");
}

#[tokio::test]
async fn largest_answers_with_contacts_stay_below_lambdas_limit() {
    let stack = TestStack::start().await;
    let ids: Vec<_> = (0..200).map(|n| format!("large-{n:03}")).collect();
    for ids in ids.chunks(50) {
        let text = "\"\u{1}".repeat(500);
        let contact = |id| json!({"contact_id": id, "page_id": PAGES[0], "attributes": {"a": text, "b": text, "c": text, "d": text}});
        import(&stack, ids.iter().map(contact).collect()).await;
    }
    for filters in [String::new(), format!("&page_id={}", PAGES[0])] {
        for accept in [JSON, CSV, NDJSON] {
            let (mut listed, mut cursor, mut parts) = (Vec::new(), String::new(), 0);
            loop {
                let answer = get(&stack, &format!("/v1/contacts?limit=1000{filters}{cursor}"), accept).await;
                let body = std::str::from_utf8(answer.body()).unwrap();
                assert!(json!(body).to_string().len() < 5_000_000);
                let header = answer
                    .headers()
                    .get("x-next-cursor")
                    .map(|next| next.to_str().unwrap().to_owned());
                let part = part(
                    &stack,
                    &format!("?limit=1000{filters}"),
                    cursor.strip_prefix("&cursor="),
                    accept,
                )
                .await;
                assert_eq!(
                    part.cursor.is_some(),
                    header.is_some() || accept == JSON && part.cursor.is_some()
                );
                listed.extend(part.ids);
                parts += 1;
                match part.cursor {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(set(&listed), set(&ids), "{accept} {filters}");
            assert!(parts > 1, "{accept} {filters}: {parts}");
        }
    }
}

/// An exported file has at most as many columns as an import takes: the rest comes in the next one.
#[tokio::test]
async fn every_exported_file_can_be_imported_whatever_attributes_there_are() {
    let stack = TestStack::start().await;
    let contacts = (0..30).map(|n| {
        let attributes: BTreeMap<_, _> = (0..10).map(|m| (format!("a{n}_{m}"), format!("{n} {m}"))).collect();
        json!({"contact_id": format!("c{n:02}"), "page_id": PAGES[0], "attributes": attributes})
    });
    import(&stack, contacts.collect()).await;

    let (mut listed, mut cursor, mut files) = (0, String::new(), 0);
    loop {
        let file = get(&stack, &format!("/v1/contacts?page_id={}{cursor}", PAGES[0]), CSV).await;
        let imported = stack.import_as("text/csv", file.body().clone()).await;
        assert_eq!(imported.status, StatusCode::OK, "{imported:?}");
        listed += imported.body["upserted"].as_u64().unwrap();
        files += 1;
        match file.headers().get("x-next-cursor") {
            Some(next) => cursor = format!("&cursor={}", next.to_str().unwrap()),
            None => break,
        }
    }
    assert_eq!((listed, files), (30, 3));
}
