//! Profiles: what a text needs of a contact and the contact lacks is asked of Messenger before the contact's first such message. No
//! answer stops a message, or doubles it.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::StatusCode;
use local::sandbox::{Answer, Fault, GraphError, Operation};
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;

use crate::fixture::controls::OBEYED_WITHIN;
use crate::fixture::{PAGES, TestStack};

const PROFILES: (&str, &str) = ("PROFILES", "on");
const ALL: &str = "name,first_name,last_name,locale,timezone";
const NAMES: &str = "name,first_name,last_name";
const DAY: Duration = Duration::from_secs(86_400);

async fn put(stack: &TestStack, contacts: Value) {
    let body = json!({"contacts": contacts});
    let answer = stack.call("PUT", "/v1/contacts", None, Some(&body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

/// Imports contacts without names.
async fn import(stack: &TestStack, ids: &[String]) {
    let contacts = ids.iter().map(|id| json!({"contact_id": id, "page_id": PAGES[0]}));
    put(stack, contacts.collect()).await;
}

fn ids(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("p{n:03}")).collect()
}

async fn contact(stack: &TestStack, id: &str) -> Value {
    stack.call("GET", &format!("/v1/contacts/{id}"), None, None).await.body
}

fn set_profile(stack: &TestStack, id: &str, profile: Value) {
    stack.sandbox.set_profile(id, profile.as_object().unwrap().clone());
}

/// Requests a broadcast of this text; each is another request.
async fn broadcast(stack: &TestStack, ids: &[String], text: &str) -> BroadcastId {
    let key = shared::domain::ids::token();
    let body = json!({"contact_ids": ids, "message": {"text": text}});
    let answer = stack.post_with_key(&key, &body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    answer.broadcast_id()
}

async fn send(stack: &TestStack, ids: &[String], text: &str) -> Value {
    let id = broadcast(stack, ids, text).await;
    stack.finish(&id).await
}

/// Returns the texts that a contact received, in order.
fn texts(stack: &TestStack, id: &str) -> Vec<String> {
    let received = stack.sandbox.received().into_iter();
    let of_contact = received.filter(|message| message.contact_id == id);
    of_contact.filter_map(|message| message.text).collect()
}

#[tokio::test]
async fn text_gets_the_name_that_the_contact_lacks() {
    let stack = TestStack::start_with(&[PROFILES]).await;
    let ids = ids(2);
    import(&stack, &ids[..1]).await;
    put(
        &stack,
        json!([{"contact_id": ids[1], "page_id": PAGES[0], "first_name": "Benjamin", "timezone": 5}]),
    )
    .await;
    for id in &ids {
        let profile = json!({
            "name": "Zoë 🙂 Sá", "first_name": "Zoë 🙂", "last_name": "Sá", "locale": "pt_PT", "timezone": -3.5,
            "gender": "female",
        });
        set_profile(&stack, id, profile);
    }

    send(&stack, &ids, "Hi {{ first_name }} {{ last_name }}, we open at nine.").await;

    assert_eq!(texts(&stack, &ids[0]), ["Hi Zoë 🙂 Sá, we open at nine."]);
    // What was imported stays.
    assert_eq!(texts(&stack, &ids[1]), ["Hi Benjamin Sá, we open at nine."]);
    for (id, first_name, timezone) in [(&ids[0], "Zoë 🙂", json!(-3.5)), (&ids[1], "Benjamin", json!(5))] {
        let expected = json!({
            "contact_id": id, "page_id": PAGES[0], "first_name": first_name, "last_name": "Sá", "name": "Zoë 🙂 Sá",
            "locale": "pt_PT", "timezone": timezone, "tags": [], "opted_out": false, "tester": false,
            "last_interaction_at": null, "source": "api", "attributes": {},
        });
        assert_eq!(contact(&stack, id).await, expected);
    }
    let asked: BTreeSet<_> = stack.sandbox.profile_calls().into_iter().collect();
    assert_eq!(asked, ids.iter().map(|id| (id.clone(), ALL.to_owned())).collect());

    // Neither stored values nor Messenger's word are asked for again.
    send(&stack, &ids, "Bye {{ first_name }} {{ name }}").await;
    assert_eq!(stack.sandbox.profile_calls().len(), 2);
    assert_eq!(texts(&stack, &ids[0])[1], "Bye Zoë 🙂 Zoë 🙂 Sá");
}

#[tokio::test]
async fn profile_is_asked_for_only_where_a_text_needs_it() {
    for (variables, text) in [
        (&[][..], "Hi {{ first_name | default('there') }}"),
        (&[PROFILES], "We open at nine, {{ contact_id }} {{ tags | length }}"),
    ] {
        let stack = TestStack::start_with(variables).await;
        let ids = ids(1);
        import(&stack, &ids).await;
        set_profile(&stack, &ids[0], json!({"first_name": "Ana"}));

        let report = send(&stack, &ids, text).await;

        assert_eq!(report["counters"]["sent"], 1);
        assert_eq!(stack.sandbox.profile_calls(), []);
    }
    // Nor for a contact that gets no message.
    let stack = TestStack::start_with(&[PROFILES]).await;
    let ids = ids(2);
    import(&stack, &ids).await;
    let id = broadcast(&stack, &ids, "Hi {{ first_name | default('there') }}").await;
    put(
        &stack,
        json!([{"contact_id": ids[0], "page_id": PAGES[0], "opted_out": true}]),
    )
    .await;
    stack
        .call("DELETE", &format!("/v1/contacts/{}", ids[1]), None, None)
        .await;
    stack.let_reads_catch_up();
    assert_eq!(stack.finish(&id).await["counters"]["skipped"], 2);
    assert_eq!(stack.sandbox.profile_calls(), []);
}

#[tokio::test]
async fn contact_without_a_profile_is_asked_for_again_after_a_month() {
    let stack = TestStack::start_with(&[PROFILES, ("RETENTION_DAYS", "365")]).await;
    let ids = ids(2);
    import(&stack, &ids).await;
    let none = GraphError {
        subcode: Some(2_018_218),
        ..GraphError::new(100, "No profile available for this user.")
    };
    let none = Fault::answering(none).on(Operation::Profile).to_contacts([&ids[0]]);
    stack.sandbox.add_fault(none.times(1));
    let text = "Hi {{ first_name | default('there') }}";

    for asked in [2, 2] {
        assert_eq!(send(&stack, &ids, text).await["counters"]["sent"], 2);
        assert_eq!(stack.sandbox.profile_calls().len(), asked);
    }
    stack.advance(29 * DAY);
    send(&stack, &ids, text).await;
    assert_eq!(stack.sandbox.profile_calls().len(), 2);
    stack.advance(DAY);
    set_profile(&stack, &ids[0], json!({"first_name": "Ana"}));
    send(&stack, &ids, text).await;

    assert_eq!(stack.sandbox.profile_calls().len(), 4);
    assert_eq!(texts(&stack, &ids[0])[3], "Hi Ana");
    assert_eq!(texts(&stack, &ids[1])[3], "Hi there");
}

#[tokio::test]
async fn refused_fields_are_left_out() {
    let stack = TestStack::start_with(&[PROFILES, ("PAGE_RATE_PER_SECOND", "10")]).await;
    let ids = ids(3);
    import(&stack, &ids).await;
    stack.sandbox.refuse_profile_fields(&["locale", "timezone"]);
    for id in &ids {
        set_profile(&stack, id, json!({"first_name": "Ana", "locale": "pt_PT"}));
    }

    for some in ids.chunks(1) {
        send(&stack, some, "Hi {{ first_name }}").await;
        assert_eq!(texts(&stack, &some[0]), ["Hi Ana"]);
        assert_eq!(contact(&stack, &some[0]).await["locale"], Value::Null);
    }
    let fields: Vec<_> = stack
        .sandbox
        .profile_calls()
        .into_iter()
        .map(|(_, fields)| fields)
        .collect();
    assert_eq!(fields, [ALL, NAMES].repeat(3));
    // A run learns it once, but for those that it had asked for already.
    let more: Vec<_> = (0..30).map(|n| format!("q{n:03}")).collect();
    import(&stack, &more).await;
    send(&stack, &more, "Hi {{ first_name | default('there') }}").await;
    let calls = stack.sandbox.profile_calls().len() - fields.len();
    assert!((31..50).contains(&calls), "{calls} calls");
}

#[tokio::test]
async fn no_failure_of_a_profile_stops_or_doubles_a_send() {
    let refused = |code| Answer::from(GraphError::new(code, "refused"));
    for answer in [
        refused(10),
        refused(190),
        refused(613),
        refused(100),
        refused(368),
        refused(1),
        Answer::Reset,
        Answer::Raw {
            status: 502,
            body: "<html>".to_owned(),
        },
        Answer::Raw {
            status: 200,
            body: r#"{"id": "another", "first_name": "Eve"}"#.to_owned(),
        },
    ] {
        let stack = TestStack::start_with(&[PROFILES]).await;
        let ids = ids(40);
        import(&stack, &ids).await;
        stack
            .sandbox
            .add_fault(Fault::answering(answer.clone()).on(Operation::Profile));

        let report = send(&stack, &ids, "Hi {{ first_name | default('there') }}").await;

        let counters = &report["counters"];
        assert_eq!(
            (&counters["sent"], &counters["failed"]),
            (&json!(40), &json!(0)),
            "{answer:?}: {report:#}"
        );
        for id in &ids {
            assert_eq!(texts(&stack, id), ["Hi there"], "{answer:?}");
            assert_eq!(contact(&stack, id).await["first_name"], Value::Null);
        }
    }
}

/// Neither does it wait for each contact: a run gives up after some profiles without an answer. The time of a send is no bound for
/// that of a profile, which is shorter.
#[tokio::test]
async fn profiles_that_hang_delay_a_run_once() {
    let patient = ("MESSENGER_TIMEOUT_SECONDS", "30");
    let stack = TestStack::start_with(&[PROFILES, ("PAGE_RATE_PER_SECOND", "4"), patient]).await;
    let ids = ids(20);
    import(&stack, &ids).await;
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Hang).on(Operation::Profile));
    let begun = stack.app.clock.now().as_millisecond();

    let report = send(&stack, &ids, "Hi {{ first_name | default('there') }}").await;

    assert_eq!(report["counters"]["sent"], 20, "{report:#}");
    let asked = stack.sandbox.profile_calls().len();
    assert!((3..20).contains(&asked), "{asked} profiles");
    let first = stack.sandbox.received()[0].at - begun;
    assert!(
        (3_000..20_000).contains(&first),
        "the first message is sent after {first} ms"
    );
    // A new run asks again, and contacts without an answer are asked for again.
    stack.sandbox.clear_faults();
    for id in &ids {
        set_profile(&stack, id, json!({"first_name": "Ana"}));
    }
    send(&stack, &ids, "Bye {{ first_name | default('there') }}").await;
    for id in &ids {
        assert_eq!(texts(&stack, id)[1], "Bye Ana");
    }
}

#[tokio::test]
async fn page_that_is_refused_profiles_is_asked_once_in_a_run() {
    let stack = TestStack::start_with(&[PROFILES, ("PAGE_RATE_PER_SECOND", "4")]).await;
    let ids = ids(30);
    import(&stack, &ids).await;
    let limited = GraphError::new(80_006, "There have been too many calls.");
    stack
        .sandbox
        .add_fault(Fault::answering(limited).on(Operation::Profile));

    send(&stack, &ids, "Hi {{ first_name | default('there') }}").await;

    // Those that were in flight when the first answer came.
    let asked = stack.sandbox.profile_calls().len();
    assert!(asked < 10, "{asked} profiles");
}

/// The contact changes while Messenger is asked for its profile: the message is composed of what is stored then.
#[tokio::test]
async fn contact_that_changes_while_it_is_asked_for_is_read_anew() {
    let stack = TestStack::start_with(&[PROFILES]).await;
    let ids = ids(3);
    import(&stack, &ids).await;
    for id in &ids {
        set_profile(&stack, id, json!({"first_name": "Zoë"}));
    }
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Ok).on(Operation::Profile).after_ms(1_500));
    let id = broadcast(&stack, &ids, "Hi {{ first_name }}").await;
    let wake_up = stack.wake_up_for(&id).await;
    let change = async {
        let all_asked = async {
            while stack.sandbox.profile_calls().len() < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(10), all_asked).await;
        put(
            &stack,
            json!([{"contact_id": ids[0], "page_id": PAGES[0], "opted_out": true}]),
        )
        .await;
        stack
            .call("DELETE", &format!("/v1/contacts/{}", ids[1]), None, None)
            .await;
        put(
            &stack,
            json!([{"contact_id": ids[2], "page_id": PAGES[0], "first_name": "Ana"}]),
        )
        .await;
    };

    tokio::join!(change, stack.process_job(&wake_up));

    let received: Vec<_> = stack
        .sandbox
        .received()
        .into_iter()
        .map(|message| message.text.unwrap())
        .collect();
    assert_eq!(received, ["Hi Ana"]);
    assert_eq!(stack.delivery(&id, &ids[0]).await["reason"], "opted_out");
    assert_eq!(stack.delivery(&id, &ids[1]).await["reason"], "contact_deleted");
    // What Messenger told does not bring a deleted contact back.
    let deleted = stack.call("GET", &format!("/v1/contacts/{}", ids[1]), None, None).await;
    assert_eq!(deleted.status, StatusCode::NOT_FOUND);
}

/// A send does not begin later after an order to stop because Messenger takes its time for a profile.
#[tokio::test]
async fn slow_profile_delays_no_order_to_stop() {
    let stack = TestStack::start_with(&[PROFILES, ("PAGE_RATE_PER_SECOND", "10")]).await;
    let ids = ids(60);
    import(&stack, &ids).await;
    for id in &ids {
        set_profile(&stack, id, json!({"first_name": "Zoë"}));
    }
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Ok).on(Operation::Profile).after_ms(1_500));
    let id = broadcast(&stack, &ids, "Hi {{ first_name }}").await;
    let wake_up = stack.wake_up_for(&id).await;
    let pause = async {
        while stack.sandbox.received_count() < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stack.control("pause", &id).await;
        stack.app.clock.now().as_millisecond()
    };

    let (paused, _) = tokio::join!(pause, stack.process_job(&wake_up));

    let latest = stack
        .sandbox
        .received()
        .iter()
        .map(|message| message.at - paused)
        .max()
        .unwrap();
    assert!(
        latest < i64::try_from(OBEYED_WITHIN.as_millis()).unwrap(),
        "{latest} ms after the pause"
    );
    let report = stack.report(&id).await;
    assert_eq!(report["status"], "paused");
    stack.control("resume", &id).await;
    stack.sandbox.clear_faults();
    let report = stack.finish(&id).await;
    assert_eq!(report["counters"]["sent"], 60, "{report:#}");
    for id in &ids {
        assert_eq!(texts(&stack, id), ["Hi Zoë"]);
    }
}
