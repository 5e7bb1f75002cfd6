//! Tests of lookups in conversations.

use super::*;

/// The fields for which Oncecast asks.
const FIELDS: &str = "messages{id,created_time,from,to,message,attachments}";

async fn get(sandbox: &Sandbox, path: &str, query: &[(&str, &str)]) -> (u16, Value) {
    let response = http()
        .get(format!("{}/{path}", sandbox.url()))
        .bearer_auth("token")
        .query(query)
        .timeout(Duration::from_secs(5))
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn find(sandbox: &Sandbox, contact_id: &str) -> (u16, Value) {
    let query = [("platform", "messenger"), ("user_id", contact_id)];
    get(sandbox, "page/conversations", &query).await
}

/// Looks up the conversation with ana, with the calls that Oncecast makes.
async fn look_up(sandbox: &Sandbox) -> Value {
    let (status, found) = find(sandbox, "ana").await;
    assert_eq!(status, 200, "{found}");
    let id = found["data"][0]["id"].as_str().unwrap();
    let (status, conversation) = get(sandbox, id, &[("fields", FIELDS)]).await;
    assert_eq!(status, 200, "{conversation}");
    assert_eq!(conversation["id"], id);
    conversation
}

fn foreign(text: &str) -> ForeignMessage {
    ForeignMessage {
        page_id: "page".to_owned(),
        contact_id: "ana".to_owned(),
        text: text.to_owned(),
        from_contact: false,
        at: None,
    }
}

#[tokio::test]
async fn accepted_message_is_found_in_its_conversation() {
    let sandbox = sandbox().await;
    send(&sandbox).await.unwrap();
    let received = sandbox.received().remove(0);

    let conversation = look_up(&sandbox).await;

    let seconds = Timestamp::from_millisecond(received.at).unwrap();
    let created_time = seconds.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string();
    assert_eq!(
        conversation["messages"]["data"],
        json!([{
            "id": received.message_id,
            "created_time": created_time,
            "from": { "id": "page", "name": "Name of page" },
            "to": { "data": [{ "id": "ana", "name": "Name of ana" }] },
            "message": "We open at nine.",
        }])
    );
    assert!(conversation["messages"]["paging"].is_object());
}

#[tokio::test]
async fn contact_without_messages_has_no_conversation() {
    let sandbox = sandbox().await;
    sandbox.add_fault(Fault::answering(GraphError::new(551, "gone")));
    send(&sandbox).await.unwrap();

    assert_eq!(find(&sandbox, "ana").await, (200, json!({ "data": [] })));
    let (_, answer) = get(&sandbox, "t_unknown", &[("fields", FIELDS)]).await;
    assert_eq!(answer["error"]["code"], 100);
    assert_eq!(answer["error"]["error_subcode"], 33);
}

#[tokio::test]
async fn message_is_found_though_its_answer_was_lost() {
    let sandbox = sandbox().await;
    sandbox.add_fault(Fault::answering(Answer::Reset).but_arriving());
    send(&sandbox).await.unwrap_err();

    let conversation = look_up(&sandbox).await;

    let found = &conversation["messages"]["data"][0];
    assert_eq!(found["id"], sandbox.received()[0].message_id.as_str());
}

#[tokio::test]
async fn attachment_has_an_empty_text() {
    let sandbox = sandbox().await;
    let mut message = message();
    message["message"] = json!({
        "attachment": { "type": "image", "payload": { "url": "https://example.com/a.png" } }
    });
    let url = format!("{}/page/messages", sandbox.url());
    let send = http().post(url).bearer_auth("token").json(&message).send();
    assert_eq!(send.await.unwrap().status(), 200);

    let conversation = look_up(&sandbox).await;

    let found = &conversation["messages"]["data"][0];
    assert_eq!(found["message"], "");
    let image = &found["attachments"]["data"][0]["image_data"];
    assert_eq!(image["url"], "https://example.com/a.png");
}

#[tokio::test]
async fn foreign_messages_are_found_but_not_in_the_ledger() {
    let sandbox = sandbox().await;
    send(&sandbox).await.unwrap();
    let now = sandbox.received()[0].at;
    let by_hand = sandbox.add_message(ForeignMessage {
        at: Some(now - 10_000),
        ..foreign("We open at nine.")
    });
    let url = format!("{}/messages", sandbox.control_url());
    let question = json!({
        "page_id": "page", "contact_id": "ana", "text": "When?",
        "from_contact": true, "at": now - 20_000,
    });
    let answer = http().post(url).json(&question).send().await.unwrap();
    let question: Value = answer.json().await.unwrap();

    let conversation = look_up(&sandbox).await;

    let messages = conversation["messages"]["data"].as_array().unwrap();
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[0]["id"], sandbox.received()[0].message_id.as_str());
    assert_eq!(messages[1]["id"], by_hand.as_str());
    assert_eq!(messages[1]["from"]["id"], "page");
    assert_eq!(messages[2]["id"], question["message_id"]);
    assert_eq!(messages[2]["from"]["id"], "ana");
    assert_eq!(messages[2]["to"]["data"][0]["id"], "page");
    assert_eq!(sandbox.received_count(), 1);
}

#[tokio::test]
async fn lookup_returns_25_messages_and_only_ids_of_old_ones() {
    let sandbox = sandbox().await;
    let ids: Vec<String> = (0..30)
        .map(|second| {
            sandbox.add_message(ForeignMessage {
                at: Some(second * 1_000),
                ..foreign("Hi")
            })
        })
        .collect();
    let newest_first: Vec<&String> = ids.iter().rev().collect();

    let conversation = look_up(&sandbox).await;

    let messages = conversation["messages"]["data"].as_array().unwrap();
    assert_eq!(messages.len(), 25);
    for (position, message) in messages.iter().enumerate() {
        assert_eq!(message["id"], newest_first[position].as_str());
        assert_eq!(message.get("created_time").is_some(), position < 20, "{position}");
        assert_eq!(message.get("message").is_some(), position < 20, "{position}");
    }
    sandbox.forget_conversation_calls();
    let next = conversation["messages"]["paging"]["next"].as_str().unwrap();
    let next = http().get(next).bearer_auth("token").send().await.unwrap();
    let next: Value = next.json().await.unwrap();
    let rest = next["data"].as_array().unwrap();
    let rest: Vec<&str> = rest.iter().filter_map(|message| message["id"].as_str()).collect();
    assert_eq!(rest, newest_first[25..]);
    assert!(next["paging"].get("next").is_none());
}

#[tokio::test]
async fn lookup_returns_requested_fields_only() {
    let sandbox = sandbox().await;
    sandbox.add_message(foreign("Hi"));
    let (_, found) = find(&sandbox, "ana").await;
    let id = found["data"][0]["id"].as_str().unwrap();

    let (_, conversation) = get(&sandbox, id, &[("fields", "messages{message}")]).await;

    let message = conversation["messages"]["data"][0].as_object().unwrap();
    assert_eq!(Vec::from_iter(message.keys()), ["id", "message"]);
    sandbox.forget_conversation_calls();
    let (status, answer) = get(&sandbox, id, &[("fields", "messages{metadata}")]).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!(100)));
}

#[tokio::test]
async fn message_is_hidden_until_it_has_the_set_age() {
    let sandbox = sandbox().await;
    send(&sandbox).await.unwrap();
    let url = format!("{}/conversations", sandbox.control_url());
    let hidden = json!({ "visible_after_ms": 60_000 });
    assert_eq!(http().put(url).json(&hidden).send().await.unwrap().status(), 204);

    assert_eq!(find(&sandbox, "ana").await, (200, json!({ "data": [] })));

    sandbox.forget_conversation_calls();
    sandbox.set_visible_after_ms(0);
    look_up(&sandbox).await;
}

#[tokio::test]
async fn lookup_requires_the_pages_token() {
    let sandbox = sandbox().await;
    send(&sandbox).await.unwrap();
    let conversation = look_up(&sandbox).await;

    for path in [
        "page/conversations?user_id=ana",
        "other/conversations?user_id=ana",
        conversation["id"].as_str().unwrap(),
    ] {
        let url = format!("{}/{path}", sandbox.url());
        let query = [("access_token", "wrong")];
        let answer = http().get(url).query(&query).send().await.unwrap();
        assert_eq!(answer.status(), 400);
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["error"]["code"], 190, "{path}");
    }
    assert_eq!(sandbox.conversation_calls(), 2);
}

#[tokio::test]
async fn third_call_within_a_second_is_refused_with_error_613() {
    let sandbox = sandbox().await;

    // The calls share one client, so that they are close to each other even on a slow machine.
    let http = http();
    let call = async || {
        let url = format!("{}/page/conversations?user_id=ana", sandbox.url());
        let answer = http.get(url).bearer_auth("token").send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        answer["error"]["code"].as_i64()
    };
    let (first, second, third) = tokio::join!(call(), call(), call());

    let mut codes = [first, second, third];
    codes.sort_unstable();
    assert_eq!(codes, [None, None, Some(613)]);
    assert_eq!(sandbox.conversation_calls(), 3);
    assert_eq!(sandbox.peak_conversation_calls_per_second(), 3);
    let summary = serde_json::to_value(sandbox.summary()).unwrap();
    assert_eq!(summary["conversation_calls"], 3);
    assert_eq!(summary["peak_conversation_calls_per_second"], 3);
}

#[tokio::test]
async fn lookup_can_fail_while_sends_succeed() {
    let sandbox = sandbox().await;
    let limit = GraphError::new(80006, "too much");
    sandbox.add_fault(Fault::answering(limit).on(Operation::Lookup).times(1));

    assert_eq!(send(&sandbox).await.unwrap().0, 200);

    let (status, answer) = find(&sandbox, "ana").await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!(80006)));
    assert_eq!(find(&sandbox, "ana").await.0, 200);
}
