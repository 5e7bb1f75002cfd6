//! The import of a Page's contacts from its conversations: whole in spite of anything, never over what is known, within Messenger's
//! limit of calls.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use local::sandbox::{Answer, Fault, GraphError, Operation, People};
use serde_json::{Value, json};
use shared::domain::ids::{JobId, PageId};
use shared::domain::import::ImportProgress;
use shared::reconcile::settle::settle_doubts;
use shared::store::hand_over::HandOver;
use shared::worker::claim::{Worked, work_on};
use tokio::time::Instant;

use crate::fixture::by_hand::LEASE;
use crate::fixture::doubts::FIRST_LOOKUP;
use crate::fixture::{ApiResponse, PAGE_WITHOUT_TOKEN, PAGES, TestStack, WakeUpMessage};

/// A time in which a worker makes one or two calls.
const SHORT: Duration = Duration::from_millis(800);

/// Returns the path of the import of a Page.
fn path(page: &str) -> String {
    format!("/v1/pages/{page}/import")
}

/// Returns a contact's own fields of the stored item, as texts.
type Contacts = BTreeMap<String, BTreeMap<String, String>>;

impl TestStack {
    /// Gives a Page so many people, shown so many at once.
    pub fn give_people(&self, page: &str, count: usize, at_once: usize) -> People {
        let people = People {
            at_once: Some(at_once),
            ..People::new(count)
        };
        self.sandbox.set_people(page, people.clone());
        people
    }

    async fn request_import(&self, page: &str) -> ApiResponse {
        self.call("POST", &path(page), None, None).await
    }

    /// Begins an import, which must be accepted.
    pub async fn start_import(&self, page: &str) -> Value {
        let answer = self.request_import(page).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        answer.body
    }

    /// Returns the last import of a Page.
    pub async fn page_import(&self, page: &str) -> Value {
        let answer = self.call("GET", &path(page), None, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.body
    }

    /// Drains the queue, advances the clock and ticks until the import is over; returns its report.
    async fn finish_import(&self, page: &str) -> Value {
        for _ in 0..50 {
            self.drain_queue().await;
            let import = self.page_import(page).await;
            if ["completed", "halted", "cancelled"].contains(&import["status"].as_str().unwrap()) {
                return import;
            }
            self.advance(Duration::from_secs(200));
            self.tick().await;
        }
        panic!("the import does not end: {:#}", self.page_import(page).await)
    }

    async fn import_whole(&self, page: &str) -> Value {
        self.start_import(page).await;
        self.finish_import(page).await
    }

    /// Returns the stored contacts.
    async fn contacts(&self) -> Contacts {
        let items = self.stored_items().await.into_iter();
        let contacts = items.filter(|item| item.contains_key("contact_id") && !item.contains_key("job"));
        let texts = contacts.map(|item| {
            let texts = item
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.as_s().ok()?.clone())));
            texts.collect::<BTreeMap<_, _>>()
        });
        texts.map(|contact| (contact["contact_id"].clone(), contact)).collect()
    }
}

/// Checks that the contacts of a Page are these people, under the names that Messenger shows.
fn check_contacts(contacts: &Contacts, page: &str, people: &People) {
    assert_eq!(contacts.len(), people.count);
    for n in 0..people.count {
        let (id, name) = people.person(n);
        let contact = &contacts[&id];
        assert_eq!(
            (&contact["page_id"], &contact["name"], &contact["source"]),
            (&page.to_owned(), &name, &"conversations".to_owned())
        );
    }
}

/// Returns the counts of an import.
fn counts(import: &Value) -> [u64; 5] {
    ["conversations", "created", "known", "on_another_page", "unreadable"].map(|name| import[name].as_u64().unwrap())
}

fn job_of(page: &str) -> JobId {
    JobId::of_import(&PageId::parse(page).unwrap())
}

fn wake_up() -> WakeUpMessage {
    WakeUpMessage::new(&serde_json::to_string(&job_of(PAGES[0])).unwrap())
}

fn on_list(answer: impl Into<Answer>) -> Fault {
    Fault::answering(answer).on(Operation::List)
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
async fn import_begins_again_when_messenger_forgets_its_place() {
    let stack = TestStack::start().await;
    let people = stack.give_people(PAGES[0], 5, 1);
    stack.start_import(PAGES[0]).await;
    let message = stack.receive().await.unwrap();
    stack.process_job_for(&message, SHORT).await;
    stack.delete(&message).await;
    let before = stack.page_import(PAGES[0]).await;
    let created = before["created"].as_u64().unwrap();
    assert!((1..5).contains(&created), "{before:#}");

    stack.sandbox.expire_cursors(PAGES[0]);
    let import = stack.finish_import(PAGES[0]).await;

    assert_eq!(import["started_over"], true);
    assert_eq!(
        (&import["status"], counts(&import)),
        (&json!("completed"), [5, 5, created, 0, 0])
    );
    check_contacts(&stack.contacts().await, PAGES[0], &people);
}

/// A place that Messenger forgets each time would be read for ever.
#[tokio::test]
async fn import_whose_place_is_forgotten_twice_is_halted() {
    let stack = TestStack::start().await;
    stack.give_people(PAGES[0], 9, 1);
    stack.start_import(PAGES[0]).await;
    for _ in 0..2 {
        let message = stack.receive().await.unwrap();
        stack.process_job_for(&message, SHORT).await;
        stack.delete(&message).await;
        stack.sandbox.expire_cursors(PAGES[0]);
    }

    let import = stack.finish_import(PAGES[0]).await;

    assert_eq!(
        (&import["status"], &import["reason"]),
        (&json!("halted"), &json!("Messenger error 100"))
    );
    assert!(import["remedy"].as_str().unwrap().contains("start the import again"));
    assert_eq!(stack.import_whole(PAGES[0]).await["status"], "completed");
}

/// The pause holds for the lookups of the Page, too, and no other Page.
#[tokio::test]
async fn rate_limit_pauses_the_calls_of_the_page_until_messengers_own_time() {
    let stack = TestStack::start().await;
    let people = stack.give_people(PAGES[0], 3, 1);
    stack.start_import(PAGES[0]).await;
    let limit = Answer::Error {
        error: GraphError::new(613, "too fast"),
        headers: BTreeMap::from([(
            "x-business-use-case-usage".to_owned(),
            json!({PAGES[0]: [{"type": "messenger", "call_count": 100, "estimated_time_to_regain_access": 10}]})
                .to_string(),
        )]),
    };
    stack.sandbox.add_fault(on_list(limit).times(1));
    stack.drain_queue().await;

    let import = stack.page_import(PAGES[0]).await;
    assert_eq!(import["status"], "waiting");
    assert_eq!(import["reason"], "Messenger limits the calls for the Page");
    let calls = stack.sandbox.conversation_call_times(PAGES[0]).len();
    stack.advance(Duration::from_secs(9 * 60));
    stack.tick().await;
    stack.drain_queue().await;
    let waits = stack.request_import(PAGES[0]).await;
    assert_eq!(
        (waits.status, &waits.body["status"]),
        (StatusCode::ACCEPTED, &json!("waiting"))
    );
    assert_eq!(stack.import_whole(PAGES[1]).await["status"], "completed");
    // Another import does not call, either, and a shorter pause changes nothing.
    stack.cancel_import(PAGES[0]).await;
    stack.drain_queue().await;
    assert_eq!(stack.page_import(PAGES[0]).await["status"], "cancelled");
    let (pages, page) = (stack.app.store.page_leases(), PageId::parse(PAGES[0]).unwrap());
    let sooner = stack.app.clock.now() + Duration::from_secs(1);
    pages.pause_calls_if_longer(&page, sooner).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    stack.start_import(PAGES[0]).await;
    stack.drain_queue().await;
    let import = stack.page_import(PAGES[0]).await;
    assert_eq!(
        (&import["status"], &import["reason"]),
        (&json!("waiting"), &json!("the calls for the Page pause"))
    );
    let calls_of_first = stack.sandbox.conversation_call_times(PAGES[0]).len();
    assert_eq!(calls_of_first, calls, "called during the pause");

    stack.advance(Duration::from_secs(2 * 60));
    stack.tick().await;
    stack.drain_queue().await;

    let import = stack.page_import(PAGES[0]).await;
    assert_eq!(
        (&import["status"], counts(&import)),
        (&json!("completed"), [3, 3, 0, 0, 0])
    );
    check_contacts(&stack.contacts().await, PAGES[0], &people);
}

/// A rate limit never halts an import, however often it comes.
#[tokio::test]
async fn repeated_rate_limits_only_delay_an_import() {
    let stack = TestStack::start_with(&[("RETRY_ATTEMPTS", "2")]).await;
    stack.give_people(PAGES[0], 3, 100);
    stack.start_import(PAGES[0]).await;
    stack
        .sandbox
        .add_fault(on_list(GraphError::new(4, "too many")).times(6));

    assert_eq!(counts(&stack.finish_import_slowly().await), [3, 3, 0, 0, 0]);
}

/// An answer may have been too much for Messenger, so that the next call is for less.
#[tokio::test]
async fn failed_call_is_repeated_later_for_less_and_halts_the_import_in_the_end() {
    let stack = TestStack::start_with(&[("RETRY_ATTEMPTS", "3")]).await;
    stack.give_people(PAGES[0], 60, 100);
    stack.start_import(PAGES[0]).await;
    let too_much = GraphError {
        status: 500,
        ..GraphError::new(1, "Please reduce the amount of data you're asking for")
    };
    stack.sandbox.add_fault(on_list(too_much.clone()).times(2));
    stack.drain_queue().await;
    let import = stack.page_import(PAGES[0]).await;
    assert_eq!(
        (&import["status"], &import["reason"]),
        (&json!("waiting"), &json!("Messenger did not answer"))
    );

    let import = stack.finish_import_slowly().await;
    assert_eq!(
        (&import["status"], counts(&import)),
        (&json!("completed"), [60, 60, 0, 0, 0])
    );
    // The check, two that failed, 25 people, and the others.
    assert_eq!(stack.sandbox.conversation_calls(), 5);

    stack.start_import(PAGES[0]).await;
    stack.sandbox.add_fault(on_list(too_much));
    let import = stack.finish_import_slowly().await;
    assert_eq!(
        (&import["status"], &import["reason"]),
        (&json!("halted"), &json!("Messenger error 1"))
    );
    // The check, four that failed.
    assert_eq!(stack.sandbox.conversation_calls(), 5 + 1 + 4);
}

impl TestStack {
    /// As [`TestStack::finish_import`], with hours in between: longer than any back-off.
    async fn finish_import_slowly(&self) -> Value {
        for _ in 0..12 {
            self.advance(Duration::from_secs(2 * 3_600));
            self.tick().await;
            self.drain_queue().await;
            let import = self.page_import(PAGES[0]).await;
            if import["status"] != "waiting" {
                return import;
            }
        }
        panic!("the import does not end: {:#}", self.page_import(PAGES[0]).await)
    }

    async fn refused_import(&self, page: &str) -> String {
        let answer = self.request_import(page).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{answer:?}");
        assert_eq!(answer.body["type"], "/v1/problems/page-not-readable");
        answer.body["detail"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn page_that_messenger_does_not_show_is_refused_with_the_code_and_the_remedy() {
    let stack = TestStack::start().await;
    stack.give_people(PAGES[0], 3, 100);

    let detail = stack.refused_import(PAGE_WITHOUT_TOKEN).await;
    assert!(detail.contains("no access token"), "{detail}");
    stack.sandbox.revoke_token(PAGES[0]);
    let detail = stack.refused_import(PAGES[0]).await;
    assert!(
        detail.contains("190/460") && detail.contains("new access token"),
        "{detail}"
    );
    stack.sandbox.restore_token(PAGES[0]);
    for (code, word) in [
        (200, "pages_messaging"),
        (10, "pages_messaging"),
        (368, "support inbox"),
        (803, "reference"),
    ] {
        let refusal = GraphError::new(code, "no");
        stack.sandbox.add_fault(on_list(refusal).times(1));
        let detail = stack.refused_import(PAGES[0]).await;
        assert!(
            detail.contains(&format!("the code {code}.")) && detail.contains(word),
            "{detail}"
        );
    }

    let answer = stack.call("GET", &path(PAGES[0]), None, None).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "nothing has begun");
    assert!(stack.receive().await.is_none());
    // Disturbances that pass refuse nothing.
    for passing in [GraphError::new(613, "too fast").into(), Answer::Reset] {
        stack.sandbox.add_fault(on_list(passing).times(1));
        assert_eq!(stack.import_whole(PAGES[0]).await["status"], "completed");
    }
}

#[tokio::test]
async fn permission_lost_on_the_way_halts_the_import_which_begins_anew_afterwards() {
    let stack = TestStack::start().await;
    let people = stack.give_people(PAGES[0], 4, 1);
    stack.start_import(PAGES[0]).await;
    let message = stack.receive().await.unwrap();
    stack.process_job_for(&message, SHORT).await;
    stack.delete(&message).await;
    stack
        .sandbox
        .add_fault(on_list(GraphError::new(200, "no permission")).times(1));

    let halted = stack.finish_import(PAGES[0]).await;

    assert_eq!(
        (&halted["status"], &halted["reason"]),
        (&json!("halted"), &json!("Messenger error 200"))
    );
    assert!(halted["remedy"].as_str().unwrap().contains("pages_messaging"));
    let import = stack.import_whole(PAGES[0]).await;
    assert_eq!(
        (&import["status"], &import["conversations"]),
        (&json!("completed"), &json!(4))
    );
    assert_ne!(import["started_at"], halted["started_at"]);
    check_contacts(&stack.contacts().await, PAGES[0], &people);
}

/// Another token may have come meanwhile: then the import goes on.
#[tokio::test]
async fn refused_token_halts_the_import_unless_there_is_another() {
    let stack = TestStack::start().await;
    stack.give_people(PAGES[0], 3, 100);
    stack.start_import(PAGES[0]).await;
    stack.sandbox.revoke_token(PAGES[0]);
    let halted = stack.finish_import(PAGES[0]).await;
    assert_eq!(
        (&halted["status"], &halted["reason"]),
        (&json!("halted"), &json!("Messenger error 190/460"))
    );
    assert!(halted["remedy"].as_str().unwrap().contains("new access token"));
    stack.sandbox.restore_token(PAGES[0]);
    assert_eq!(stack.import_whole(PAGES[0]).await["status"], "completed");
}

impl TestStack {
    async fn cancel_import(&self, page: &str) -> ApiResponse {
        self.call("POST", &format!("{}/cancel", path(page)), None, None).await
    }
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

/// Each of the two gets at least every second call, and their sum keeps Messenger's limit.
#[tokio::test]
async fn lookups_and_an_import_share_the_two_calls_a_second() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(4).await;
    let id = stack.broadcast_with_doubts(&ids, &[0, 1, 2, 3], &[]).await;
    stack.advance(FIRST_LOOKUP);
    stack.give_people(PAGES[0], 60, 1);
    stack.start_import(PAGES[0]).await;
    stack.sandbox.forget_conversation_calls();
    let job = job_of(PAGES[0]);
    let begun = Instant::now();

    let lookups = async {
        settle_doubts(&stack.app, begun + Duration::from_secs(60))
            .await
            .unwrap();
        (begun.elapsed(), stack.page_import(PAGES[0]).await)
    };
    let import = work_on(&stack.app, &job, begun + Duration::from_secs(36));
    let ((looked_up_within, meanwhile), worked) = tokio::join!(lookups, import);

    assert_eq!(stack.sent_failed_in_doubt(&id).await, [4, 0, 0]);
    // Eight calls, each of which waits for one of the import.
    assert!(looked_up_within < Duration::from_secs(12), "{looked_up_within:?}");
    let of_import = meanwhile["conversations"].as_u64().unwrap();
    assert!(
        of_import >= 4,
        "the import had {of_import} calls beside eight of lookups"
    );
    assert_eq!(worked.unwrap(), Worked::HandedOver(HandOver::Queued));
    let calls = stack.sandbox.conversation_calls();
    assert!(
        calls as u64 <= 2 * begun.elapsed().as_secs() + 2,
        "{calls} calls in {:?}",
        begun.elapsed()
    );
    assert!(
        calls as u64 * 3 / 4 >= begun.elapsed().as_secs(),
        "{calls} calls in {:?}",
        begun.elapsed()
    );
    assert!(stack.sandbox.peak_conversation_calls_per_second() <= 2);
    assert_eq!(
        stack.page_import(PAGES[0]).await["reason"],
        Value::Null,
        "Messenger's limit was reached"
    );
}

/// It would be read for ever.
#[tokio::test]
async fn list_that_does_not_go_on_is_asked_for_again_later() {
    let stack = TestStack::start().await;
    stack.start_import(PAGES[0]).await;
    let message = stack.receive().await.unwrap();
    let body = json!({"data": [], "paging": {"cursors": {"after": "x"}, "next": "https://…"}}).to_string();
    stack.sandbox.add_fault(on_list(Answer::Raw { status: 200, body }));

    stack.process_job_for(&message, Duration::from_secs(4)).await;

    let import = stack.page_import(PAGES[0]).await;
    assert_eq!(
        (&import["status"], &import["reason"]),
        (&json!("waiting"), &json!("Messenger did not answer"))
    );
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
