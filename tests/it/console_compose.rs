//! The console's form for a new broadcast: as a browser without scripts uses it, and its draft in Chromium.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use client::Client;
use console::{Entry, Settings};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::browser::Browser;
use crate::fixture::console::{Page, Visitor, serve};
use crate::fixture::up::UpProcess;

/// A name that a page must not take for a part of itself.
const SCRIPT: &str = "<script>alert(1)</script>";
const ARABIC: &str = "محمد";

/// A form of the console, filled in step by step.
struct Form {
    visitor: Visitor,
    fields: BTreeMap<String, Vec<String>>,
}

impl Form {
    /// Opens the form.
    async fn open(url: &str) -> Self {
        let visitor = Visitor::open(url).await;
        let page = visitor.page("/new").await;
        assert_eq!(page.status, 200, "{}", page.html);
        let mut form = Self {
            visitor,
            fields: BTreeMap::new(),
        };
        form.take_hidden(&page);
        form
    }

    /// Opens the form, and names three contacts and a text.
    async fn to_three(url: &str) -> Self {
        let form = Self::open(url).await;
        form.with("to", "ids")
            .with("ids", "6001\r\n6002, 6003 6001;nobody")
            .with("text", "Hi {{ first_name | default('there') }}")
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    fn set(&mut self, name: &str, value: &str) {
        self.fields.insert(name.to_owned(), vec![value.to_owned()]);
    }

    /// Takes the values that the page hides in its form.
    fn take_hidden(&mut self, page: &Page) {
        for name in ["key", "test_key", "attempted", "checked", "found"] {
            match hidden(page, name) {
                Some(value) => self.set(name, &value),
                None => drop(self.fields.remove(name)),
            }
        }
    }

    fn pairs(&self) -> Vec<(&str, &str)> {
        let pairs = self.fields.iter();
        pairs
            .flat_map(|(name, values)| values.iter().map(move |value| (name.as_str(), value.as_str())))
            .collect()
    }

    /// Presses a button; the form is then as the answer has it.
    async fn press(&mut self, button: &str) -> Page {
        let page = self.post("/new", &[("do", button)]).await;
        if page.status != 303 {
            self.take_hidden(&page);
        }
        page
    }

    async fn post(&self, path: &str, more: &[(&str, &str)]) -> Page {
        self.visitor.submit(path, &[&self.pairs(), more].concat()).await
    }

    /// Checks the form, and sends it to this number of contacts.
    async fn send(&mut self, number: &str) -> Page {
        let checked = self.press("check").await;
        assert_eq!(checked.status, 200, "{}", checked.html);
        self.set("confirm", number);
        self.press("send").await
    }
}

/// Returns a value that the page hides in its form.
fn hidden(page: &Page, name: &str) -> Option<String> {
    let field = page
        .html
        .split(&format!("type=\"hidden\" name=\"{name}\" value=\""))
        .nth(1)?;
    field.split('"').next().map(str::to_owned)
}

/// Starts a stack with four contacts: one with a name like a script, one with an Arabic name, and one that has opted out.
async fn stack_with_contacts() -> UpProcess {
    let up = UpProcess::start(&[], &[]);
    let contact = |id: &str, page: &str, name: &str| json!({"contact_id": id, "page_id": page, "first_name": name, "tags": ["vip"]});
    let mut contacts = vec![
        contact("6001", "page-1", "Ana"),
        contact("6002", "page-1", SCRIPT),
        contact("6003", "page-2", ARABIC),
        contact("6004", "page-2", "Rui"),
    ];
    contacts[0]["tester"] = json!(true);
    contacts[3]["opted_out"] = json!(true);
    let stored = up.call("PUT", "/v1/contacts", &json!({ "contacts": contacts })).await;
    assert_eq!(stored["upserted"], 4, "{stored}");
    up
}

/// Returns the texts that Messenger got, by contact, once as many have arrived.
async fn messages(up: &UpProcess, number: usize) -> Vec<(String, String)> {
    let url = up.address("/sandbox/summary").replace("/summary", "/messages");
    loop {
        let received: Vec<Value> = reqwest::get(&url).await.unwrap().json().await.unwrap();
        if received.len() >= number {
            let text = |message: &Value, name: &str| message[name].as_str().unwrap().to_owned();
            let mut messages: Vec<_> = received
                .iter()
                .map(|message| (text(message, "contact_id"), text(message, "text")))
                .collect();
            messages.sort();
            return messages;
        }
    }
}

/// Waits until the list, which lags, has as many broadcasts as were accepted, and checks that it has no more.
async fn accepted_only(up: &UpProcess, number: usize) {
    loop {
        let list = up.call("GET", "/v1/broadcasts?tests=true", &Value::Null).await;
        let found = list["items"].as_array().unwrap().len();
        assert!(found <= number, "{list}");
        if found == number {
            return;
        }
    }
}

#[tokio::test]
async fn message_is_checked_and_sent_once_to_each_contact() {
    let up = stack_with_contacts().await;
    let mut form = Form::to_three(up.url()).await;

    let checked = form.press("check").await;

    assert_eq!(checked.status, 200, "{}", checked.html);
    for shown in [
        "Hi Ana",
        "Hi &#60;script&#62;alert(1)&#60;/script&#62;",
        "Hi محمد",
        "Send to 3 contacts",
        "Unknown: <bdi>nobody</bdi>",
        "6 of 1,999",
    ] {
        assert!(checked.has(shown), "{shown}: {}", checked.html);
    }
    form.set("confirm", "3");
    let form_as_sent = form
        .pairs()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let form_as_sent: Vec<_> = form_as_sent.collect();
    let sent = form.press("send").await;
    assert_eq!(sent.status, 303, "{}", sent.html);
    // A double click, and a browser that repeats a form.
    let mut again: Vec<_> = form_as_sent
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    again.push(("do", "send"));
    let (first, second) = tokio::join!(form.visitor.submit("/new", &again), form.visitor.submit("/new", &again));

    for repeated in [first, second] {
        assert_eq!(
            (repeated.status, &repeated.location),
            (303, &sent.location),
            "{}",
            repeated.html
        );
    }
    accepted_only(&up, 1).await;
    let got = messages(&up, 3).await;
    let expected = [
        ("6001", "Hi Ana".to_owned()),
        ("6002", format!("Hi {SCRIPT}")),
        ("6003", format!("Hi {ARABIC}")),
    ];
    assert_eq!(got, expected.map(|(id, text)| (id.to_owned(), text)));
    let page = form.visitor.page(&sent.location.unwrap()).await;
    assert_eq!(page.status, 200, "{}", page.html);
}

#[tokio::test]
async fn only_what_was_checked_is_sent_and_to_as_many_as_was_typed() {
    let up = stack_with_contacts().await;
    let mut form = Form::to_three(up.url()).await.with("confirm", "3");

    let unchecked = form.post("/new", &[("do", "send")]).await;
    assert_eq!(unchecked.status, 422);
    assert!(unchecked.has("the form was not checked"), "{}", unchecked.html);

    let wrong = form.send("2").await;
    assert_eq!(wrong.status, 422);
    assert!(
        wrong.has("you typed 2, and the check finds 3 contacts now"),
        "{}",
        wrong.html
    );
    assert!(wrong.has("id=\"confirm-fault\"") && wrong.has("aria-describedby=\"confirm-fault\""));

    // Between the check and the send a contact opts out.
    form.press("check").await;
    form.set("confirm", "3");
    let opted_out = json!({"contacts": [{"contact_id": "6002", "page_id": "page-1", "opted_out": true}]});
    up.call("PUT", "/v1/contacts", &opted_out).await;
    loop {
        let fewer = form.press("send").await;
        if fewer.has("you typed 3, and the check finds 2 contacts now") {
            assert_eq!(fewer.status, 422);
            break;
        }
        assert_eq!(fewer.status, 422, "{}", fewer.html);
    }

    form.press("check").await;
    form.set("confirm", "2");
    form.set("text", "Another text");
    let changed = form.press("send").await;
    assert_eq!(changed.status, 422);
    assert!(changed.has("the form is not as it was checked"), "{}", changed.html);

    assert_eq!(form.press("send").await.status, 303);
    accepted_only(&up, 1).await;
    assert_eq!(messages(&up, 2).await.len(), 2);
}

#[tokio::test]
async fn refused_form_keeps_what_was_typed() {
    let up = stack_with_contacts().await;
    let text = "\r\nHi {{ firstname }} {name} </textarea><script>alert(1)</script> مرحبا";
    let mut form = Form::open(up.url())
        .await
        .with("to", "ids")
        .with("ids", "6001\r\n='6002\r\n<b>")
        .with("text", text)
        .with("name", "\"><script>")
        .with("at", "2026-12-01T09:00")
        .with("zone", "Asia/Manilla")
        .with("quiet_from", "21:00")
        .with("active_within", "soon")
        .with("page", "page-2")
        .with("messaging_type", "RESPONSE")
        .with("urgent", "on");

    let refused = form.press("check").await;

    assert_eq!(refused.status, 422, "{}", refused.html);
    assert!(!refused.has("<script>"), "{}", refused.html);
    for kept in [
        // The first line end after the tag is no part of the text.
        "\n\r\nHi {{ firstname }} {name} &#60;/textarea&#62;&#60;script&#62;alert(1)&#60;/script&#62; مرحبا</textarea>",
        "6001\r\n=&#39;6002\r\n&#60;b&#62;</textarea>",
        "value=\"&#34;&#62;&#60;script&#62;\"",
        "value=\"2026-12-01T09:00\"",
        "value=\"Asia/Manilla\"",
        "value=\"21:00\"",
        "value=\"soon\"",
        "name=\"page\" value=\"page-2\" checked",
        "name=\"messaging_type\" value=\"RESPONSE\" checked",
        "name=\"urgent\" value=\"on\" checked",
        "name=\"to\" value=\"ids\" checked",
    ] {
        assert!(refused.has(kept), "{kept}: {}", refused.html);
    }
    for field in ["text", "zone", "quiet_to"] {
        assert!(refused.has(&format!("href=\"#{field}\"")), "{field}");
        assert!(refused.has(&format!("aria-describedby=\"{field}-fault\"")), "{field}");
        assert!(refused.has(&format!("id=\"{field}-fault\"")), "{field}");
    }
    // A fault that only the API finds.
    form.set("ids", "6001");
    form.set("text", "Hi");
    form.set("zone", "UTC");
    form.set("quiet_to", "22:00");
    form.set("name", "");
    form.set("at", "2020-01-01T09:00");
    let refused = form.press("check").await;
    assert_eq!(refused.status, 422, "{}", refused.html);
    assert!(
        refused.has("id=\"at-fault\"") && refused.has("value=\"2020-01-01T09:00\""),
        "{}",
        refused.html
    );
}

#[tokio::test]
async fn form_of_another_session_sends_nothing() {
    let up = stack_with_contacts().await;
    let mut form = Form::to_three(up.url()).await;
    form.press("check").await;
    form.set("confirm", "3");

    for token in ["", Visitor::open(up.url()).await.csrf()] {
        let form = [&form.pairs()[..], &[("do", "send"), ("csrf", token)]].concat();
        let sent = Visitor::open(up.url()).await.post("/new", &form).send().await.unwrap();
        assert_eq!(sent.status(), 403);
    }
    let pairs = [&form.pairs()[..], &[("csrf", form.visitor.csrf())]].concat();
    let preview = form
        .visitor
        .post("/new/preview", &pairs[..pairs.len() - 1])
        .send()
        .await
        .unwrap();

    assert_eq!(preview.status(), 403);
    assert_eq!(form.press("send").await.status, 303, "the form itself is right");
    accepted_only(&up, 1).await;
}

#[tokio::test]
async fn hundred_thousand_ids_are_pasted() {
    let up = stack_with_contacts().await;
    let ids: Vec<_> = (0..99_998).map(|n| format!("9{n:015}")).collect();
    let ids = format!("6001\r\n{}\r\n6002", ids.join("\r\n"));
    let mut form = Form::open(up.url())
        .await
        .with("to", "ids")
        .with("ids", &ids)
        .with("text", "Hi");

    let preview = form.post("/new/preview", &[]).await;
    assert!(preview.has("Of the first 1,000 ids, 1 contact"), "{}", preview.html);
    let checked = form.press("check").await;
    assert_eq!(checked.status, 200);
    assert!(
        checked.has("99,998") && checked.has("Send to 2 contacts"),
        "unknown ids are counted"
    );
    form.set("confirm", "2");
    let sent = form.press("send").await;
    assert_eq!(sent.status, 303);
    assert_eq!(messages(&up, 2).await.len(), 2);

    let one_more = format!("{ids}\r\n6003");
    form.set("ids", &one_more);
    let refused = form.press("check").await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.has("there are 100,001, and a broadcast takes 100,000 at most"),
        "the limit is named"
    );
    assert!(refused.has(&one_more), "what was pasted is kept");
}

/// Starts a console over the API of a stack, of whose answers to requests for broadcasts none arrives while `is_lossy`.
async fn console_with_lost_answers(up: &UpProcess, is_lossy: Arc<AtomicBool>) -> String {
    let api = up.url().to_owned();
    let forward = move |request: Request| {
        let (api, is_lossy) = (api.clone(), Arc::clone(&is_lossy));
        async move {
            let (head, body) = request.into_parts();
            let url = format!("{api}{}", head.uri.path_and_query().unwrap());
            let mut call = reqwest::Client::new().request(head.method.clone(), url);
            for name in [CONTENT_TYPE.as_str(), "idempotency-key"] {
                if let Some(value) = head.headers.get(name) {
                    call = call.header(name, value);
                }
            }
            let body = to_bytes(body, usize::MAX).await.unwrap();
            let answer = call.body(body).send().await.unwrap();
            let is_send = head.uri.path() == "/v1/broadcasts" && head.uri.query().is_none();
            if is_send && head.method == "POST" && is_lossy.load(Ordering::Relaxed) {
                return axum::http::StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
            let status = answer.status();
            let content_type = answer.headers()[CONTENT_TYPE].clone();
            let body = Body::from(answer.bytes().await.unwrap());
            let mut response = Response::new(body);
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            response
        }
    };
    let router = console::router(Settings {
        client: Client::new(reqwest::Client::new(), &serve(Router::new().fallback(forward)).await).unwrap(),
        entry: Entry::Open,
        sandbox: None,
    });
    serve(router).await
}

#[tokio::test]
async fn send_without_an_answer_is_repeated_and_sends_once() {
    let up = stack_with_contacts().await;
    let is_lossy = Arc::new(AtomicBool::new(true));
    let mut form = Form::to_three(&console_with_lost_answers(&up, Arc::clone(&is_lossy)).await).await;

    let unanswered = form.send("3").await;

    assert_eq!(unanswered.status, 502, "{}", unanswered.html);
    assert!(
        unanswered.has("the broadcast may have been accepted, or not"),
        "{}",
        unanswered.html
    );
    assert!(unanswered.has("Hi {{ first_name"), "the text is kept");
    is_lossy.store(false, Ordering::Relaxed);
    // What was sent is found by the key of the draft, even if the number of contacts is another one meanwhile.
    let opted_out = json!({"contacts": [{"contact_id": "6002", "page_id": "page-1", "opted_out": true}]});
    up.call("PUT", "/v1/contacts", &opted_out).await;
    let repeated = form.press("repeat").await;
    assert_eq!(repeated.status, 303, "{}", repeated.html);
    accepted_only(&up, 1).await;
    assert_eq!(messages(&up, 3).await.len(), 3);

    form.set("text", "Another text");
    form.set("ids", "6001");
    let changed = form.press("repeat").await;
    assert_eq!(changed.status, 200, "a changed form is not repeated, but checked");
    form.set("confirm", "1");
    let refused = form.press("send").await;
    assert_eq!(refused.status, 422);
    assert!(refused.has("This draft was sent already"), "{}", refused.html);
    accepted_only(&up, 1).await;

    assert_eq!(form.press("anew").await.status, 200);
    assert_eq!(form.press("send").await.status, 303);
    accepted_only(&up, 2).await;
    assert_eq!(messages(&up, 4).await.len(), 4);
}

#[tokio::test]
async fn text_is_shown_as_contacts_get_it_while_it_is_written() {
    let up = stack_with_contacts().await;
    let mut form = Form::to_three(up.url())
        .await
        .with("text", "Hi {{ first_name }} 🎉")
        .with("replies", "Yes\r\n\r\n <No> ");

    let preview = form.post("/new/preview", &[]).await;
    assert_eq!(preview.status, 200);
    assert!(!preview.has("<html") && !preview.has("<script>"), "{}", preview.html);
    // The party popper counts as two.
    for shown in [
        "3 contacts",
        "1 unknown",
        "Hi Ana 🎉",
        "9 of 1,999",
        "The longest has 31 of 1,999 characters.",
        "<bdi>Yes</bdi><bdi>&#60;No&#62;</bdi>",
    ] {
        assert!(preview.has(shown), "{shown}: {}", preview.html);
    }

    for (text, fault) in [
        ("Hi {{ nickname }}", "has a placeholder of another system"),
        ("Hi {{ first_name", "Text: "),
        ("Hi {name}", "tick the box below the text"),
    ] {
        form.set("text", text);
        let preview = form.post("/new/preview", &[]).await;
        assert_eq!(preview.status, 200, "{text}");
        assert!(preview.has(fault), "{text}: {}", preview.html);
    }
    form.set("text", "Hi {name}");
    form.set("literal", "on");
    assert!(form.post("/new/preview", &[]).await.has("Hi {name}"));
    form.set("text", "");
    let empty = form.post("/new/preview", &[]).await;
    assert!(empty.has("3 contacts") && empty.has("Write a text"), "{}", empty.html);
    form.set("ids", "");
    assert!(form.post("/new/preview", &[]).await.has("Ids: <bdi>there is none yet"));

    // The API is away: the form stays, and says so.
    let console = console::router(Settings {
        client: Client::new(reqwest::Client::new(), "http://127.0.0.1:1").unwrap(),
        entry: Entry::Open,
        sandbox: None,
    });
    let url = serve(console).await;
    let page = reqwest::get(format!("{url}/new")).await.unwrap();
    let cookie = page.headers()["set-cookie"].to_str().unwrap().split(';').next();
    let cookie = cookie.unwrap().to_owned();
    let page = Page::read(page).await;
    assert_eq!(page.status, 200, "{}", page.html);
    let csrf = hidden(&page, "csrf").unwrap();
    let preview = reqwest::Client::new().post(format!("{url}/new/preview"));
    let preview = preview.header("cookie", cookie).header("origin", &url);
    let preview = preview.body(format!("csrf={csrf}&to=ids&ids=6001&text=Hi"));
    let preview = Page::read(preview.send().await.unwrap()).await;
    assert_eq!(preview.status, 200);
    assert!(preview.has("The API does not answer"), "{}", preview.html);
}

#[tokio::test]
async fn large_audience_is_not_counted_for_every_change_of_the_text() {
    let up = stack_with_contacts().await;
    let contact = |n: usize| json!({"contact_id": format!("7{n:05}"), "page_id": "page-1", "tags": ["many"], "first_name": "Eva"});
    for part in [0..1_000, 1_000..1_001] {
        let contacts: Vec<_> = part.map(contact).collect();
        up.call("PUT", "/v1/contacts", &json!({ "contacts": contacts })).await;
    }
    let mut form = Form::open(up.url())
        .await
        .with("tags_any", "many")
        .with("text", "Hi {{ first_name }}");
    let sample = loop {
        let preview = form.post("/new/preview", &[]).await;
        if preview.has("1,001 contacts on 1 Page") {
            break ["sample_of", "sample", "sample_words"].map(|name| (name, hidden(&preview, name).unwrap()));
        }
    };
    for (name, value) in &sample {
        form.set(name, value);
    }
    form.set("text", "Bye {{ first_name }}");

    let again = form.post("/new/preview", &[]).await;

    assert!(
        again.has("1,001 contacts on 1 Page") && again.has("Bye Eva"),
        "{}",
        again.html
    );
    assert_eq!(again.html.matches("<figure").count(), 3, "{}", again.html);
    form.set("tags_any", "vip");
    let other = form.post("/new/preview", &[]).await;
    assert!(
        other.has("3 contacts on 2 Pages") && other.has("Bye Ana"),
        "{}",
        other.html
    );
    assert_eq!(hidden(&other, "sample"), None);
}

#[tokio::test]
async fn filters_are_sent_to_and_saved_as_an_audience() {
    let up = stack_with_contacts().await;
    let mut form = Form::open(up.url())
        .await
        .with("tags_any", "vip, new")
        .with("page", "page-1")
        .with("text", "Hi")
        .with("save_as", "first-page");

    let nobody = Form::open(up.url()).await.with("text", "Hi").press("check").await;
    assert_eq!(nobody.status, 422);
    assert!(
        nobody.has("id=\"everybody-fault\""),
        "an audience without a filter has to be asked for"
    );

    let saved = form.press("save").await;
    assert_eq!(saved.status, 200, "{}", saved.html);
    let stored = up.call("GET", "/v1/audiences/first-page", &Value::Null).await;
    assert_eq!(
        stored["audience"],
        json!({"page_ids": ["page-1"], "tags_any": ["vip", "new"]})
    );
    form.set("tags_any", "new");
    let other = form.press("save").await;
    assert_eq!(other.status, 422);
    assert!(other.has("is the name of another audience"), "{}", other.html);

    let offered = form.visitor.page("/new").await;
    assert!(offered.has("<option>first-page</option>"), "{}", offered.html);
    form.set("to", "saved");
    form.set("audience", "first-page");
    // The index of the contacts lags.
    loop {
        let checked = form.press("check").await;
        if checked.has("Send to 2 contacts") {
            break;
        }
    }
    form.set("confirm", "2");
    let sent = form.press("send").await;
    assert_eq!(sent.status, 303, "{}", sent.html);
    let id = sent.location.unwrap();
    let report = up.call("GET", &format!("/v1{id}"), &Value::Null).await;
    assert_eq!(report["audience"]["name"], "first-page");

    // Who got it is left out of the next one.
    messages(&up, 2).await;
    let id = id.trim_start_matches("/broadcasts/");
    let offered = next_page_with(&form.visitor, id).await;
    assert!(offered.has("name=\"page\" value=\"page-2\""), "{}", offered.html);
    let mut next = Form::open(up.url())
        .await
        .with("tags_any", "vip")
        .with("text", "Hi")
        .with("not_sent_in", id);
    loop {
        let checked = next.press("check").await;
        if checked.has("Send to 1 contact<") {
            break;
        }
        assert!(checked.status == 200 || checked.status == 422, "{}", checked.html);
    }
}

/// Opens the form as soon as the list, which lags, has a broadcast that can be left out.
async fn next_page_with(visitor: &Visitor, id: &str) -> Page {
    loop {
        let page = visitor.page("/new").await;
        if page.has(&format!("name=\"not_sent_in\" value=\"{id}\">")) {
            return page;
        }
        assert_eq!(page.status, 200, "{}", page.html);
    }
}

#[tokio::test]
async fn broadcast_is_scheduled_by_the_clock_of_its_zone() {
    let up = stack_with_contacts().await;
    let in_a_month = Timestamp::now() + SignedDuration::from_hours(30 * 24);
    let day = in_a_month.strftime("%Y-%m-%d").to_string();
    let mut form = Form::to_three(up.url())
        .await
        .with("zone", "Asia/Manila")
        .with("at", &format!("{day}T09:00"))
        .with("expires", &format!("{day}T18:00"))
        .with("quiet_from", "21:00")
        .with("quiet_to", "10:00")
        .with("name", "New year")
        .with("urgent", "on")
        .with("notification_type", "NO_PUSH")
        .with("replies", "Yes\r\nAn answer that is longer than twenty");

    let refused = form.press("check").await;
    assert!(refused.has("Replies to tap on</a>: <bdi>entry 2 "), "{}", refused.html);
    form.set("replies", "Yes\r\nNo");
    let checked = form.press("check").await;
    assert!(checked.has("Schedule for 3 contacts"), "{}", checked.html);
    assert!(
        checked.has("It would begin in its quiet hours") && checked.has("10:00 in Asia/Manila"),
        "{}",
        checked.html
    );
    form.set("requires_approval", "on");
    let sent = form.send("3").await;

    assert_eq!(sent.status, 303, "{}", sent.html);
    let report = up
        .call("GET", &format!("/v1{}", sent.location.unwrap()), &Value::Null)
        .await;
    assert_eq!(report["status"], "awaiting_approval", "{report}");
    assert_eq!(report["scheduled_at"], format!("{day}T01:00:00Z"));
    assert_eq!(report["expires_at"], format!("{day}T10:00:00Z"));
    let quiet = json!({"from": "21:00", "to": "10:00", "time_zone": "Asia/Manila"});
    assert_eq!((&report["quiet_hours"], &report["name"]), (&quiet, &json!("New year")));
}

#[tokio::test]
async fn testers_get_the_message_first() {
    let up = stack_with_contacts().await;
    let mut form = Form::to_three(up.url()).await.with("testers", "6002");

    let refused = form.press("test").await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.has("id=\"testers-fault\"") && refused.has("is not a tester"),
        "{}",
        refused.html
    );

    form.set("testers", "6001");
    let as_sent = form
        .pairs()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let as_sent: Vec<_> = as_sent.chain([("do".to_owned(), "test".to_owned())]).collect();
    let tested = form.press("test").await;
    let again: Vec<_> = as_sent
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let again = form.visitor.submit("/new", &again).await;

    for page in [tested, again] {
        assert_eq!(page.status, 200, "{}", page.html);
        assert!(page.has("Test to 6001: sent"), "{}", page.html);
    }
    assert_eq!(messages(&up, 1).await, [("6001".to_owned(), "Hi Ana".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn draft_survives_a_reload_and_is_gone_once_it_was_sent() {
    let up = stack_with_contacts().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("ids.csv");
    std::fs::write(&file, "name;contact_id\r\n\"Sá; Ana\";6001\r\nRui;6003\r\n").unwrap();
    let browser = Browser::start().await;
    browser.time_zone("Asia/Manila").await;
    browser.open(&format!("{}/new", up.url())).await;
    let zone = "document.getElementById('zone').value";
    assert_eq!(browser.evaluate(zone).await, "Asia/Manila");
    assert_eq!(browser.evaluate("localStorage.length").await, 0);

    browser.tick("A list of ids").await;
    browser.attach("Or take them from a file", &file).await;
    browser.sees("ids.csv was read").await;
    browser.press("What can be filled in for each contact").await;
    browser.press("Insert {{ first_name | default('there') }}").await;
    browser.sees("2 contacts on 2 Pages").await;
    browser.sees("6001 · page-1 · 3 of 1,999").await;
    browser.sees("Draft kept in this browser").await;
    browser.reload().await;

    browser.sees("Draft of this browser").await;
    browser.sees("2 contacts on 2 Pages").await;
    let text = "document.getElementById('text').value";
    assert_eq!(browser.evaluate(text).await, "{{ first_name | default('there') }}");
    browser.press("Check").await;
    browser.sees("Send to 2 contacts").await;
    browser.fill("Text", "Bye {{ first_name | default('there') }}").await;
    browser.sees("The form was changed: check it again").await;
    browser.press("Check again").await;
    browser.sees("Bye Ana").await;
    browser.fill("Type the number of contacts", "2").await;
    browser.press("Send to 2 contacts").await;
    let expected = [("6001", "Bye Ana".to_owned()), ("6003", format!("Bye {ARABIC}"))];
    let expected = expected.map(|(id, text)| (id.to_owned(), text));
    assert_eq!(messages(&up, 2).await, expected);
    browser.sees("completed").await;

    browser.open(&format!("{}/new", up.url())).await;
    assert_eq!(browser.evaluate(text).await, "");
    assert_eq!(browser.evaluate("localStorage.length").await, 0);
    browser.fill("Text", "Another one").await;
    browser.sees("Draft kept in this browser").await;
    browser.press("Discard the draft").await;
    browser.sees_no_more("Draft kept in this browser").await;
    assert_eq!(browser.evaluate("localStorage.length").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn draft_that_was_sent_without_an_answer_is_repeated_after_a_reload() {
    let up = stack_with_contacts().await;
    let is_lossy = Arc::new(AtomicBool::new(true));
    let url = console_with_lost_answers(&up, Arc::clone(&is_lossy)).await;
    let mut browser = Browser::start().await;
    browser.expect_error("502");
    browser.open(&format!("{url}/new?to=ids&ids=6001&text=Hi")).await;
    browser.press("Check").await;
    browser.fill("Type the number of contacts", "1").await;
    browser.press("Send to 1 contact").await;
    browser.sees("the broadcast may have been accepted, or not").await;
    is_lossy.store(false, Ordering::Relaxed);
    browser.open(&format!("{url}/new")).await;

    browser.sees("This draft was sent, and there was no answer").await;
    browser.press("Repeat the send").await;

    browser.sees("completed").await;
    accepted_only(&up, 1).await;
    assert_eq!(messages(&up, 1).await, [("6001".to_owned(), "Hi".to_owned())]);
}
