//! The contacts in the console: what is found and shown, what is deleted, and the files that are imported and exported.

use client::Client;
use console::{Entry, Settings};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::fixture::console::{Page, Visitor};
use crate::fixture::other_api;
use crate::fixture::up::UpProcess;

/// Stores contacts of the first Page.
async fn store(up: &UpProcess, contacts: &[Value]) {
    let page = |contact: &Value| {
        let mut contact = contact.clone();
        let fields = contact.as_object_mut().unwrap();
        fields.entry("page_id").or_insert(json!("page-1"));
        contact
    };
    let contacts: Vec<_> = contacts.iter().map(page).collect();
    let stored = up.call("PUT", "/v1/contacts", &json!({"contacts": contacts})).await;
    assert_eq!(stored["upserted"], contacts.len(), "{stored}");
}

/// Returns the path of the next part of a list.
fn more(page: &Page) -> String {
    let before = page.html.split("\">More →").next().unwrap();
    let path = before.rsplit("href=\"").next().unwrap();
    path.replace("&#38;", "&")
}

#[tokio::test]
async fn contacts_are_found_by_name_tag_and_page_and_shown_as_text() {
    let up = UpProcess::start(&[], &[]);
    let visitor = Visitor::open(up.url()).await;
    let empty = visitor.page("/contacts").await;
    assert!(empty.has("There are no contacts yet."), "{}", empty.html);
    let mut contacts: Vec<_> = (10..65)
        .map(|n| json!({"contact_id": format!("60{n}"), "first_name": "Ana", "last_name": format!("Nr {n}")}))
        .collect();
    contacts.push(json!({"contact_id": "1", "name": "<script>alert(1)</script>", "tags": ["<b>bold</b>"]}));
    contacts.push(json!({"contact_id": "2", "name": "محمد عبد الله", "opted_out": true, "page_id": "page-2"}));
    contacts.push(json!({"contact_id": "a/b?c#d%20é", "name": "Odd"}));
    store(&up, &contacts).await;

    let first = visitor.sees("/contacts", "More →").await;
    let rest = visitor.page(&more(&first)).await;
    let rows = |page: &Page| page.html.matches("<a class=\"clamp\" href=\"/contacts/").count();
    assert_eq!((rows(&first), rows(&rest)), (50, 8));

    let found = visitor
        .sees("/contacts?q=SCRIPT", "&#60;script&#62;alert(1)&#60;/script&#62;")
        .await;
    assert_eq!(rows(&found), 1, "{}", found.html);
    assert!(
        found.has("<bdi class=\"tag\">&#60;b&#62;bold&#60;/b&#62;</bdi>"),
        "{}",
        found.html
    );
    assert!(!found.has("<script>alert") && !found.has("<b>bold"), "{}", found.html);
    let found = visitor
        .sees("/contacts?page_id=page-2&q=&tag=", "<bdi>محمد عبد الله</bdi>")
        .await;
    assert_eq!(rows(&found), 1);
    assert!(found.has("opted out"), "{}", found.html);
    let none = visitor.page("/contacts?tag=nobody").await;
    assert!(none.has("No contact matches."), "{}", none.html);

    let refused = visitor.page("/contacts?page_id=a+b&q=Ana").await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.has("value=\"a b\"") && refused.has("value=\"Ana\""),
        "{}",
        refused.html
    );

    let odd = visitor.page("/contacts?q=odd").await;
    let path = odd
        .html
        .split("href=\"/contacts/")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let odd = visitor.page(&format!("/contacts/{path}")).await;
    assert!(odd.has("· a/b?c#d%20é ·"), "{}", odd.html);
    let one = visitor.page("/contacts/1").await;
    assert!(one.has("&#60;script&#62;") && !one.has("<script>alert"), "{}", one.html);
    assert_eq!(visitor.page("/contacts/nobody").await.status, 404);
}

#[tokio::test]
async fn contact_is_shown_with_what_was_sent_to_it_and_takes_marks() {
    let up = UpProcess::start(&[], &[]);
    let visitor = Visitor::open(up.url()).await;
    store(
        &up,
        &[json!({"contact_id": "6001", "first_name": "Ana", "attributes": {"city": "<i>Porto"}})],
    )
    .await;
    let body = json!({"contact_ids": ["6001"], "message": {"text": "Hi"}, "name": "Opening <hours>", "outside_window": "send"});
    let sent = up.call("POST", "/v1/broadcasts", &body).await;
    let id = sent["broadcast_id"].as_str().unwrap();

    let page = visitor
        .sees("/contacts/6001", "<bdi>Opening &#60;hours&#62;</bdi>")
        .await;

    assert!(
        page.has(&format!("href=\"/broadcasts/{id}/deliveries/6001\"")),
        "{}",
        page.html
    );
    assert!(
        page.has("<code>attributes.city</code>") && page.has("&#60;i&#62;Porto"),
        "{}",
        page.html
    );
    for (mark, value, shown) in [
        ("opted_out", "true", "opted out"),
        ("opted_out", "false", "receives messages"),
        ("tester", "true", "<span class=\"chip waiting\">tester"),
    ] {
        let fields = [("page_id", "page-1"), (mark, value)];
        let changed = visitor.submit("/contacts/6001/change", &fields).await;
        assert_eq!(
            (changed.status, changed.location.as_deref()),
            (303, Some("/contacts/6001"))
        );
        assert!(visitor.page("/contacts/6001").await.has(shown));
        let stored = up.call("GET", "/v1/contacts/6001", &Value::Null).await;
        assert_eq!(stored[mark].to_string(), value);
        assert_eq!(stored["first_name"], "Ana", "the rest stays");
    }
}

#[tokio::test]
async fn contact_is_deleted_and_erased_once_its_id_was_typed() {
    let up = UpProcess::start(&[], &[]);
    let visitor = Visitor::open(up.url()).await;
    store(
        &up,
        &[
            json!({"contact_id": "6001", "first_name": "Ana"}),
            json!({"contact_id": "6002"}),
        ],
    )
    .await;
    let asked = visitor.page("/contacts/6001/delete").await;
    assert!(asked.has("<bdi>Ana</bdi>?"), "{}", asked.html);

    let mistyped = [("what", "everything"), ("typed", "6002")];
    let refused = visitor.submit("/contacts/6001/delete", &mistyped).await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.has("Type the id of the contact to erase everything"),
        "{}",
        refused.html
    );
    assert_eq!(visitor.page("/contacts/6001").await.status, 200, "it is still there");

    let deleted = visitor.submit("/contacts/6001/delete", &[("what", "contact")]).await;
    assert_eq!(
        (deleted.status, deleted.location.as_deref()),
        (303, Some("/contacts/6001"))
    );
    let gone = visitor.page("/contacts/6001").await;
    assert_eq!(gone.status, 404);
    assert!(gone.has("href=\"/contacts/6001/delete\""), "{}", gone.html);
    let rest = [("what", "everything"), ("typed", "6001"), ("page_id", "page-1")];
    let erased = visitor.submit("/contacts/6001/delete", &rest).await;
    assert!(erased.has("Everything is erased"), "{}", erased.html);

    let body = json!({"contact_ids": ["6002"], "message": {"text": "Hi"}, "outside_window": "send"});
    let sent = up.call("POST", "/v1/broadcasts", &body).await;
    visitor.sees("/contacts/6002", "<span class=\"chip sent\">").await;
    let erased = visitor
        .submit("/contacts/6002/delete", &[("what", "everything"), ("typed", "6002")])
        .await;
    assert_eq!(erased.status, 200);
    assert_eq!(visitor.page("/contacts/6002").await.status, 404);
    // A delivery of a moment ago is kept for a while, and named.
    let id = sent["broadcast_id"].as_str().unwrap();
    assert!(erased.has(&format!("href=\"/broadcasts/{id}\"")), "{}", erased.html);
}

#[tokio::test]
async fn uploaded_file_is_imported_and_its_refused_rows_are_listed() {
    let up = UpProcess::start(&[], &[]);
    let (visitor, other) = (Visitor::open(up.url()).await, Visitor::open(up.url()).await);
    let mut csv = "contact_id,page_id,first_name,opted_out\n".to_owned();
    csv.extend((0..2_500).map(|n| format!("60{n:04},page-1,Ana,\n")));
    csv.push_str("1,,Ana,\n2,page-1,Ana,maybe\n3,page-1,Rui,true\n");

    let begun = visitor.upload("/import", "people <1>.csv", &csv).await;

    assert_eq!(begun.status, 303, "{}", begun.html);
    let path = begun.location.unwrap();
    let done = visitor
        .sees(&path, "<span class=\"chip completed\">completed</span>")
        .await;
    for shown in [
        "<bdi>people &#60;1&#62;.csv</bdi>",
        "<dd>2,501</dd>",
        "<dd>2</dd>",
        "<td class=\"num\">2,502</td><td><code>page_id</code></td><td><bdi>is required</bdi></td>",
        "<td class=\"num\">2,503</td><td><code>opted_out</code></td><td><bdi>must be true or false</bdi></td>",
    ] {
        assert!(done.has(shown), "{shown}: {}", done.html);
    }
    assert!(!done.has("hx-get"), "nothing changes any more");
    let rows = visitor.get(&format!("{path}/refused.csv")).send().await.unwrap();
    assert!(
        rows.headers()["content-disposition"]
            .to_str()
            .unwrap()
            .starts_with("attachment")
    );
    let rows = rows.text().await.unwrap();
    assert_eq!(
        rows,
        "line,column,message\r\n2502,page_id,is required\r\n2503,opted_out,must be true or false\r\n"
    );
    assert_eq!(up.call("GET", "/v1/contacts/3", &Value::Null).await["opted_out"], true);
    assert!(visitor.page("/import").await.has(&path));
    // Another visitor may not see what was refused.
    assert_eq!(other.page(&path).await.status, 404);
    assert_eq!(other.page(&format!("{path}/refused.csv")).await.status, 404);
    assert!(!other.page("/import").await.has(&path));
}

#[tokio::test]
async fn upload_that_is_no_file_of_contacts_is_refused_with_a_remedy() {
    let up = UpProcess::start(&[], &[]);
    let visitor = Visitor::open(up.url()).await;
    for (name, content, what, remedy) in [
        (
            "a.xlsx",
            b"PK\x03\x04rest".as_slice(),
            "is a spreadsheet",
            "Save it as CSV UTF-8",
        ),
        ("a.csv", b"", "is empty", "Export the contacts again."),
        ("a.gz", b"\x1f\x8brest", "is compressed", "Unpack it"),
        ("a.bin", b"a\0b", "is a binary file", "Choose a file of CSV"),
        ("a.json", b"[{}]", "is a list of JSON", "Write a contact in each line"),
        ("", b"", "Choose a file", ""),
    ] {
        let refused = visitor.upload("/import", name, content).await;
        assert_eq!(refused.status, 422, "{name}");
        assert!(refused.has(what) && refused.has(remedy), "{name}: {}", refused.html);
        assert!(refused.has("type=\"file\""), "the form is there again");
    }
    let csv = b"contact_id,page_id\n1,page-1\n".as_slice();
    let token = visitor.csrf().as_bytes();
    let file = ("file", Some("a.csv"), csv);
    for parts in [
        vec![file],
        vec![("csrf", None, b"wrong".as_slice()), file],
        vec![file, ("csrf", None, token)],
    ] {
        assert_eq!(
            visitor.post_parts("/import", &parts).send().await.unwrap().status(),
            403
        );
    }
    assert_eq!(up.call("GET", "/v1/contacts/1", &Value::Null).await["status"], 404);
    let broken = visitor
        .post("/import", &[])
        .header("content-type", "multipart/form-data; boundary=x");
    assert_eq!(broken.body("--x\r\n").send().await.unwrap().status(), 422);
}

/// Opens a console over an API in place of the real one.
async fn console_over(api: &str) -> Visitor {
    let router = console::router(Settings {
        client: Client::new(reqwest::Client::new(), api).unwrap(),
        entry: Entry::Open,
        sandbox: None,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await });
    Visitor::open(&url).await
}

/// Returns the switch for sending, without which no page has a form.
fn switch() -> Value {
    json!({"state": "on", "reason": null, "changed_by": null, "changed_at": null, "page_id": null, "all_pages": "on", "history": []})
}

#[tokio::test]
async fn imports_wait_for_their_turn_and_can_be_stopped() {
    let api = other_api::start(|head, _| match head.uri.path() {
        "/v1/sending" => Some(other_api::json(200, &switch())),
        _ => None,
    });
    let visitor = console_over(&api.await).await;
    let mut paths = Vec::new();
    for _ in 0..4 {
        let begun = visitor
            .upload("/import", "a.csv", "contact_id,page_id\n1,page-1\n")
            .await;
        paths.push(begun.location.unwrap());
    }
    for path in &paths[..3] {
        let running = visitor.sees(path, "importing").await;
        assert!(running.has(&format!("hx-get=\"{path}?part=live\"")), "{}", running.html);
    }
    assert!(visitor.page(&paths[3]).await.has("waits for its turn"));
    let live = visitor.get(&format!("{}?part=live", paths[0])).send().await.unwrap();
    let tag = live.headers()["etag"].clone();
    let part = live.text().await.unwrap();
    assert!(part.trim_start().starts_with("<div id=\"live\""), "{part}");
    let again = visitor
        .get(&format!("{}?part=live", paths[0]))
        .header("if-none-match", tag);
    assert_eq!(again.send().await.unwrap().status(), 304);

    let stopped = visitor.submit(&format!("{}/stop", paths[1]), &[]).await;

    assert_eq!((stopped.status, stopped.location.as_ref()), (303, Some(&paths[1])));
    let stopped = visitor.page(&paths[1]).await;
    assert!(
        stopped.has("chip cancelled\">stopped") && !stopped.has("hx-get"),
        "{}",
        stopped.html
    );
    visitor.sees(&paths[3], "importing").await;
}

#[tokio::test]
async fn import_that_cannot_go_on_says_where_it_has_stopped() {
    let api = other_api::start(|head, body| {
        let is_second = String::from_utf8_lossy(body).contains("1000,page-1");
        Some(match head.uri.path() {
            "/v1/sending" => other_api::json(200, &switch()),
            "/v1/contacts" if is_second => other_api::json(
                403,
                &json!({"type": "/v1/problems/forbidden", "title": "Forbidden", "status": 403, "detail": "Not <you>.", "errors": []}),
            ),
            _ => other_api::json(200, &json!({"upserted": 1000, "refused": []})),
        })
    });
    let visitor = console_over(&api.await).await;
    let mut csv = "contact_id,page_id\n".to_owned();
    csv.extend((0..1_500).map(|n| format!("{n},page-1\n")));

    let path = visitor.upload("/import", "a.csv", &csv).await.location.unwrap();

    let failed = visitor.sees(&path, "<span class=\"chip failed\">failed</span>").await;
    assert!(failed.has("The import has stopped before line 1002"), "{}", failed.html);
    assert!(
        failed.has("Not &#60;you&#62;.") && failed.has("<dd>1,000</dd>"),
        "{}",
        failed.html
    );
    assert!(
        failed.has("Importing the same file again is harmless."),
        "{}",
        failed.html
    );

    let quote = format!("contact_id,page_id\n1,\"{}", "x".repeat(2_000_001));
    let path = visitor.upload("/import", "a.csv", &quote).await.location.unwrap();
    let failed = visitor.sees(&path, "<span class=\"chip failed\">failed</span>").await;
    assert!(failed.has("Is a quotation mark missing there?"), "{}", failed.html);

    let path = visitor
        .upload("/import", "a.csv", "contact_id,page_id\n")
        .await
        .location
        .unwrap();
    visitor.sees(&path, "The file has no contacts").await;
}

#[tokio::test]
async fn export_is_one_file_of_the_contacts_that_match() {
    let up = UpProcess::start(&[], &[]);
    let visitor = Visitor::open(up.url()).await;
    let contact = |id: &str, attributes: Value| json!({"contact_id": id, "tags": ["vip"], "attributes": attributes});
    let contacts = [
        contact("1", json!({"city": "Porto"})),
        contact("2", json!({"age": 7})),
        json!({"contact_id": "3"}),
    ];
    store(&up, &contacts).await;
    visitor.sees("/contacts?tag=vip", "href=\"/contacts/2\"").await;

    let answer = visitor.get("/contacts.csv?tag=vip").send().await.unwrap();

    assert_eq!(answer.headers()["content-type"], "text/csv; charset=utf-8");
    assert_eq!(
        answer.headers()["content-disposition"],
        "attachment; filename=\"contacts.csv\""
    );
    let csv = answer.text().await.unwrap();
    let mut lines = csv.lines();
    let header = lines.next().unwrap();
    assert!(header.ends_with("source,attributes.age,attributes.city"), "{header}");
    assert_eq!(lines.count(), 2, "{csv}");
    // It can be imported.
    let path = visitor.upload("/import", "contacts.csv", &csv).await.location.unwrap();
    visitor
        .sees(&path, "<span class=\"chip completed\">completed</span>")
        .await;
    let two = up.call("GET", "/v1/contacts/2", &Value::Null).await;
    assert_eq!(two["tags"], json!(["vip"]));
}
