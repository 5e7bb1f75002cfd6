//! The orders that the console gives for a broadcast: what each form shows before, and what it does.

use std::time::Duration;

use axum::http::StatusCode;
use local::sandbox::{Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;

use crate::fixture::console::{Page, Visitor};
use crate::fixture::{PAGES, TestStack, request};

/// Returns the value of a hidden field of a form.
fn field(page: &Page, name: &str) -> String {
    let rest = page.html.split(&format!("name=\"{name}\" value=\"")).nth(1);
    let value = rest.and_then(|rest| rest.split('"').next());
    value.unwrap_or_else(|| panic!("no {name}: {}", page.html)).to_owned()
}

fn path(id: &BroadcastId, order: &str) -> String {
    format!("/broadcasts/{id}/{order}")
}

impl Visitor {
    /// Opens the form of an order and gives it; returns both pages.
    async fn give(&self, id: &BroadcastId, order: &str) -> (Page, Page) {
        let form = self.page(&path(id, order)).await;
        let mark = field(&form, "mark");
        let answer = self.submit(&path(id, order), &[("mark", mark.as_str())]).await;
        (form, answer)
    }
}

#[tokio::test]
async fn each_control_shows_its_counts_and_then_obeys() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(30).await;
    let id = stack.broadcast(&ids).await;
    let visitor = Visitor::of(&stack).await;
    let there = format!("/broadcasts/{id}");

    for (order, words, before, after) in [
        ("pause", "contacts on 1 Page wait.", "queued", "paused"),
        (
            "resume",
            "contacts on 1 Page are still to be sent to.",
            "paused",
            "queued",
        ),
        (
            "cancel",
            "contacts on 1 Page do not get the message.",
            "queued",
            "queued",
        ),
    ] {
        let form = visitor.page(&path(&id, order)).await;
        assert!(form.has(&format!("<b>30</b> {words}")), "{order}: {}", form.html);
        assert_eq!(stack.status(&id).await, before, "{order}");
        let (_, given) = visitor.give(&id, order).await;
        assert_eq!(
            (given.status, given.location.as_deref()),
            (303, Some(there.as_str())),
            "{order}"
        );
        assert_eq!(stack.status(&id).await, after, "{order}");
    }
    stack.drain_queue().await;
    assert_eq!(stack.report(&id).await["counters"]["skipped"], 30);
    assert_eq!(stack.sandbox.received_count(), 0);

    // What is refused says why, and has no button.
    let form = visitor.page(&path(&id, "resume")).await;
    assert!(
        form.has("Nothing is left to resume") && !form.has("method=\"post\""),
        "{}",
        form.html
    );
    let refused = visitor.submit(&path(&id, "pause"), &[]).await;
    assert_eq!(refused.status, 422);
    assert!(refused.has("Nothing is left to pause"), "{}", refused.html);
    let page = visitor.page(&there).await;
    for told in ["Paused: 30 contacts", "Resumed: 30 contacts", "Cancelled: 30 contacts"] {
        assert!(page.has(told), "{told}: {}", page.html);
    }
    for order in ["Pause…", "Resume…", "Cancel…", "Change…"] {
        assert!(!page.has(order), "{order}: {}", page.html);
    }
}

#[tokio::test]
async fn control_can_be_limited_to_one_page() {
    let stack = TestStack::start().await;
    let (first, second) = (["a".to_owned(), "b".to_owned()], ["c".to_owned()]);
    stack.import(PAGES[0], &first).await;
    stack.import(PAGES[1], &second).await;
    let id = stack.broadcast(&[&first[..], &second[..]].concat()).await;
    stack.let_reads_catch_up();
    let visitor = Visitor::of(&stack).await;
    let page = visitor.page(&format!("/broadcasts/{id}")).await;
    assert!(page.has(&format!("/pause?page_id={}\"", PAGES[0])), "{}", page.html);

    let form = visitor
        .page(&format!("{}?page_id={}", path(&id, "pause"), PAGES[0]))
        .await;
    assert!(form.has("<b>2</b> contacts on 1 Page (page-1) wait."), "{}", form.html);
    let page_id = field(&form, "page_id");
    let given = visitor
        .submit(&path(&id, "pause"), &[("page_id", page_id.as_str())])
        .await;

    assert_eq!(given.status, 303);
    let report = stack.report(&id).await;
    assert_eq!(
        (&report["jobs"][0]["status"], &report["jobs"][1]["status"]),
        (&json!("paused"), &json!("queued"))
    );
    let wrong = visitor.submit(&path(&id, "pause"), &[("page_id", "page-9")]).await;
    assert_eq!(wrong.status, 422);
    assert!(wrong.has("must be a Page of the broadcast"), "{}", wrong.html);
    stack.skip_promise_check();
}

#[tokio::test]
async fn form_without_its_token_or_of_another_site_changes_nothing() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast(&ids).await;
    let visitor = Visitor::of(&stack).await;
    let before = stack.report_of_facts(&id).await;

    for order in ["pause", "resume", "cancel", "approve", "retry", "change"] {
        let path = path(&id, order);
        let with_token = [
            ("csrf", visitor.csrf()),
            ("mark", ""),
            ("name", "another"),
            ("time_zone", "UTC"),
        ];
        let without = visitor.post(&path, &with_token[1..]).send().await.unwrap();
        assert_eq!(without.status(), 403, "{order} without a token");
        let mut foreign = visitor.post(&path, &with_token).build().unwrap();
        foreign
            .headers_mut()
            .insert("origin", "https://evil.example".parse().unwrap());
        let foreign = reqwest::Client::new().execute(foreign).await.unwrap();
        assert_eq!(foreign.status(), 403, "{order} of another site");
    }

    assert_eq!(stack.report_of_facts(&id).await, before);
    stack.skip_promise_check();
}

#[tokio::test]
async fn form_of_an_earlier_state_does_not_let_messages_be_sent() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast(&ids).await;
    let visitor = Visitor::of(&stack).await;
    stack.control("pause", &id).await;
    let form = visitor.page(&path(&id, "resume")).await;
    let mark = field(&form, "mark");
    let resume = [("mark", mark.as_str())];

    assert_eq!(visitor.submit(&path(&id, "resume"), &resume).await.status, 303);
    // A second press of the button finds the order given.
    assert_eq!(visitor.submit(&path(&id, "resume"), &resume).await.status, 303);
    stack.advance(Duration::from_secs(1));
    stack.control("pause", &id).await;
    let refused = visitor.submit(&path(&id, "resume"), &resume).await;

    assert_eq!(refused.status, 422);
    assert!(
        refused.has("Another order was given since this form was opened. Paused: 2 contacts."),
        "{}",
        refused.html
    );
    assert_eq!(stack.status(&id).await, "paused");
    stack.skip_promise_check();
}

#[tokio::test]
async fn broadcast_is_approved_as_it_was_shown() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let mut body = request(&ids);
    body["requires_approval"] = json!(true);
    let ana = json!({"jwt": {"claims": {"iss": "https://issuer", "sub": "ana"}, "scopes": []}});
    let by_ana =
        async |method: &str, path: &str, body: &Value| stack.call_as(&ana, (method, path), None, Some(body)).await;
    let id = by_ana("POST", "/v1/broadcasts", &body).await.broadcast_id();
    let visitor = Visitor::of(&stack).await;
    let form = visitor.page(&path(&id, "approve")).await;
    assert!(
        form.has("<b>3</b> contacts on 1 Page get the message at once."),
        "{}",
        form.html
    );

    let other = json!({"message": {"text": "Another text."}});
    let changed = by_ana("PATCH", &format!("/v1/broadcasts/{id}"), &other).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    let mark = field(&form, "mark");
    let refused = visitor.submit(&path(&id, "approve"), &[("mark", mark.as_str())]).await;
    assert_eq!(
        (refused.status, stack.status(&id).await),
        (422, "awaiting_approval".to_owned())
    );
    assert!(refused.has("Changed by"), "{}", refused.html);
    assert!(
        !form.has("Another text.") && refused.has("Another text."),
        "{}",
        refused.html
    );
    let (_, approved) = visitor.give(&id, "approve").await;

    assert_eq!((approved.status, stack.status(&id).await), (303, "queued".to_owned()));
    stack.drain_queue().await;
    assert_eq!(stack.report(&id).await["counters"]["sent"], 3);
    let own = request(&ids[..1]);
    let own = stack
        .post(&json!({"contact_ids": own["contact_ids"], "message": own["message"], "requires_approval": true}))
        .await;
    let (_, own) = visitor.give(&own.broadcast_id(), "approve").await;
    assert_eq!(own.status, 403, "{}", own.html);
}

#[tokio::test]
async fn failed_contacts_are_sent_to_again_after_they_are_counted() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(5).await;
    let gone = Fault::answering(GraphError::new(551, "This person isn't available right now."));
    stack.sandbox.add_fault(gone.to_contacts([&ids[0], &ids[1]]));
    let unknown = Fault::answering(GraphError {
        subcode: Some(2_018_001),
        ..GraphError::new(100, "No matching user found")
    });
    stack.sandbox.add_fault(unknown.to_contacts([&ids[2]]));
    let id = stack.broadcast(&ids).await;
    stack.finish(&id).await;
    stack.sandbox.clear_faults();
    let visitor = Visitor::of(&stack).await;

    let all = visitor.page(&path(&id, "retry")).await;
    assert!(all.has("<b>3</b> contacts are sent to again."), "{}", all.html);
    let form = visitor
        .page(&format!("{}?chosen=1&status=failed&reason=551", path(&id, "retry")))
        .await;
    assert!(
        form.has("<b>2</b> contacts are sent to again.") && form.has("Send again to 2 contacts"),
        "{}",
        form.html
    );
    assert_eq!(stack.status(&id).await, "completed");
    let none = visitor.page(&format!("{}?chosen=1", path(&id, "retry"))).await;
    assert!(none.has("Choose the contacts"), "{}", none.html);

    let (mark, counted) = (field(&form, "mark"), field(&form, "counted"));
    let choice = [("mark", mark.as_str()), ("status", "failed"), ("reason", "551")];
    let other = visitor
        .submit(&path(&id, "retry"), &[&choice[..], &[("counted", "3/0")]].concat())
        .await;
    assert_eq!((other.status, stack.status(&id).await), (422, "completed".to_owned()));
    assert!(
        other.has("The numbers are not those that the form showed"),
        "{}",
        other.html
    );
    let choice = [&choice[..], &[("counted", counted.as_str())]].concat();
    let given = visitor.submit(&path(&id, "retry"), &choice).await;
    assert_eq!((given.status, stack.status(&id).await), (303, "queued".to_owned()));
    stack.finish(&id).await;
    let again = visitor.submit(&path(&id, "retry"), &choice).await;

    assert_eq!(again.status, 422);
    assert!(
        again.has("Another order was given since this form was opened. Sent again: 2 contacts."),
        "{}",
        again.html
    );
    let counters = stack.report(&id).await["counters"].clone();
    assert_eq!((&counters["sent"], &counters["failed"]), (&json!(4), &json!(1)));
}

#[tokio::test]
async fn contacts_in_doubt_are_sent_to_again_only_when_their_number_is_typed() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(4).await;
    let id = stack.broadcast_with_doubts(&ids, &[], &[1, 2]).await;
    let visitor = Visitor::of(&stack).await;
    let form = visitor
        .page(&format!("{}?chosen=1&status=in_doubt", path(&id, "retry")))
        .await;
    assert!(form.has("2 of them may get the message twice:"), "{}", form.html);
    let (mark, counted) = (field(&form, "mark"), field(&form, "counted"));
    let choice = [
        ("mark", mark.as_str()),
        ("counted", counted.as_str()),
        ("status", "in_doubt"),
    ];

    for typed in ["", "3", "two"] {
        let refused = visitor
            .submit(&path(&id, "retry"), &[&choice[..], &[("twice", typed)]].concat())
            .await;
        assert_eq!(
            (refused.status, stack.status(&id).await),
            (422, "completed".to_owned()),
            "{typed}"
        );
        assert!(refused.has("Type 2 to confirm"), "{}", refused.html);
    }
    let given = visitor
        .submit(&path(&id, "retry"), &[&choice[..], &[("twice", "2")]].concat())
        .await;

    assert_eq!(given.status, 303);
    stack.finish(&id).await;
    assert_eq!(stack.report(&id).await["counters"]["sent"], 4);
}

#[tokio::test]
async fn change_moves_the_start_and_a_refused_one_keeps_what_was_typed() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let mut body = request(&ids);
    let start = stack.app.clock.now() + Duration::from_secs(86_400);
    body["scheduled_at"] = json!(start.strftime("%Y-%m-%dT09:00").to_string());
    body["time_zone"] = json!("Asia/Manila");
    body["name"] = json!("Hours");
    let id = stack.post(&body).await.broadcast_id();
    let visitor = Visitor::of(&stack).await;
    let form = visitor.page(&path(&id, "change")).await;
    assert!(form.has("we open at nine."), "{}", form.html);
    let (mark, local) = (field(&form, "mark"), start.strftime("%Y-%m-%dT09:00").to_string());
    assert_eq!(
        (field(&form, "scheduled_at"), field(&form, "time_zone")),
        (local, "Asia/Manila".to_owned())
    );

    let later = start.strftime("%Y-%m-%dT10:30").to_string();
    let typed = |zone| {
        let values = [
            ("mark", &*mark),
            ("name", "Opening <hours>"),
            ("scheduled_at", &*later),
            ("text", "We open\r\nat ten."),
        ];
        [&values[..], &[("time_zone", zone)]].concat()
    };
    let refused = visitor.submit(&path(&id, "change"), &typed("Asia/Manilla")).await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.has("The time zone &#34;Asia/Manilla&#34; is not known"),
        "{}",
        refused.html
    );
    for kept in ["Opening &#60;hours&#62;", &later, "Asia/Manilla", "We open\nat ten."] {
        assert!(refused.has(kept), "{kept}: {}", refused.html);
    }
    let before = stack.report(&id).await;
    assert_eq!((&before["name"], &before["history"]), (&json!("Hours"), &json!([])));
    let changed = visitor.submit(&path(&id, "change"), &typed("Asia/Manila")).await;

    assert_eq!(
        (changed.status, changed.location),
        (303, Some(format!("/broadcasts/{id}"))),
        "{}",
        changed.html
    );
    let report = stack.report(&id).await;
    assert_eq!(report["name"], "Opening <hours>");
    let local = report["scheduled_local"].as_str().unwrap();
    assert!(local.starts_with(&later) && local.ends_with("[Asia/Manila]"), "{local}");
    let again = visitor.submit(&path(&id, "change"), &typed("Asia/Manila")).await;
    assert!(
        again.status == 422 && again.has("Another order was given"),
        "{}",
        again.html
    );
    stack.skip_promise_check();
}
