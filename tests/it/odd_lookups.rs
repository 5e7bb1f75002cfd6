//! Lookups whose answer cannot be read whole: what cannot be read is never taken for the absence of a message.

use local::sandbox::{Answer, Fault, Operation};
use serde_json::{Value, json};

use crate::fixture::doubts::RESEND;
use crate::fixture::{PAGES, TestStack, request};

/// The sandbox's id of the conversation between the first Page and the first contact.
const CONVERSATION: &str = "t_cGFnZS0xIGMwMDAwMA";

/// Answers both calls of each lookup with this object.
fn show(stack: &TestStack, body: String) {
    let answer = Answer::Raw { status: 200, body };
    stack.sandbox.add_fault(Fault::answering(answer).on(Operation::Lookup));
}

/// Returns a message from the first Page to a contact at this moment, in the Conversations API's form.
fn message(stack: &TestStack, id: &str, contact_id: &str) -> Value {
    json!({
        "id": id,
        "created_time": stack.app.clock.now().strftime("%Y-%m-%dT%H:%M:%S+0000").to_string(),
        "from": {"id": PAGES[0]},
        "to": {"data": [{"id": contact_id}]},
        "message": format!("Hi Nr {contact_id}, we open at nine."),
    })
}

#[tokio::test]
async fn unreadable_lookup_is_not_resent() {
    let message = |text: &str| format!(r#"{{"data": [{{"id": "{CONVERSATION}"}}], "messages": {{"data": [{text}]}}}}"#);
    for (shown, reason) in [
        ("{}".to_owned(), "the list of conversations cannot be read"),
        (
            json!({"data": [{"id": CONVERSATION}]}).to_string(),
            "the conversation's messages cannot be read",
        ),
        (message("5"), "a message is there that cannot be read"),
        (
            message(r#"{"id": "m_1", "message": "\ud83d"}"#),
            "a message is there that cannot be read",
        ),
    ] {
        let stack = TestStack::start_with(&[RESEND]).await;
        let ids = stack.import_contacts(1).await;
        let id = stack.broadcast_with_doubts(&ids, &[], &[0]).await;
        // The sandbox knows no conversation without a message.
        stack.add_foreign_message(&ids[0], Some(0));
        show(&stack, shown);

        stack.tick_at_both_lookups().await;
        stack.finish(&id).await;

        let row = stack.delivery(&id, &ids[0]).await;
        assert_eq!(row["reason"], format!("connection lost; {reason}"));
        assert_eq!(stack.received(&id).get(&ids[0]), None);
    }
}

/// The message that matches is known to be another broadcast's, and the other message may be ours.
#[tokio::test]
async fn unreadable_message_beside_a_known_one_is_not_taken_for_absent() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast_with_doubts(&ids, &[], &[0]).await;
    stack.post_with_key("other", &request(&ids)).await;
    stack.drain_queue().await;
    let known = message(&stack, &stack.newest_message_id(&ids[0]), &ids[0]);
    let mut odd = message(&stack, "m_odd", &ids[0]);
    odd["message"] = Value::Null;
    show(
        &stack,
        json!({"data": [{"id": CONVERSATION}], "messages": {"data": [odd, known]}}).to_string(),
    );

    stack.tick_at_both_lookups().await;
    stack.finish(&id).await;

    let row = stack.delivery(&id, &ids[0]).await;
    assert_eq!(row["reason"], "connection lost; a message is there that cannot be read");
    assert_eq!(stack.received(&id).get(&ids[0]), None);
}

/// A message is found beside others that cannot be read.
#[tokio::test]
async fn odd_neighbour_hides_no_message() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast_with_doubts(&ids, &[0], &[]).await;
    let ours = message(&stack, &stack.newest_message_id(&ids[0]), &ids[0]);
    let shown =
        json!({"data": [{"id": CONVERSATION}], "messages": {"data": [5, {"id": "m_odd", "message": "half"}, ours]}});
    show(
        &stack,
        format!("\u{FEFF}{}", shown.to_string().replace("half", r"\ud83d")),
    );

    stack.tick_at_both_lookups().await;

    assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 0]);
}
