//! Tests of the sandbox over HTTP.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;

mod access;
mod conversations;
mod faults;
mod profiles;
mod webhooks;

async fn sandbox() -> Sandbox {
    let tokens = BTreeMap::from([("page".to_owned(), "token".to_owned())]);
    Sandbox::start(tokens).await.unwrap()
}

fn message() -> Value {
    json!({
        "recipient": { "id": "ana" },
        "messaging_type": "UPDATE",
        "message": { "text": "We open at nine.", "metadata": "key#1" },
    })
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn send(sandbox: &Sandbox) -> Result<(u16, Value), reqwest::Error> {
    let response = http()
        .post(format!("{}/page/messages", sandbox.url()))
        .bearer_auth("token")
        .timeout(Duration::from_secs(1))
        .json(&message())
        .send()
        .await?;
    Ok((response.status().as_u16(), response.json().await?))
}

#[tokio::test]
async fn accepted_message_is_in_the_ledger() {
    let sandbox = sandbox().await;

    let (status, answer) = send(&sandbox).await.unwrap();

    assert_eq!(status, 200);
    assert_eq!(answer["recipient_id"], "ana");
    let received = sandbox.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].message_id, answer["message_id"]);
    assert_eq!(received[0].metadata.as_deref(), Some("key#1"));
}

#[tokio::test]
async fn debug_output_shows_no_token() {
    let tokens = BTreeMap::from([("page".to_owned(), "EAABsecret".to_owned())]);

    let sandbox = Sandbox::start(tokens).await.unwrap();

    assert!(!format!("{sandbox:?}").contains("secret"));
}

#[tokio::test]
async fn unknown_token_is_refused() {
    let sandbox = sandbox().await;

    let url = format!("{}/page/messages?access_token=other", sandbox.url());
    let response = http().post(url).json(&message()).send().await.unwrap();

    assert_eq!(response.status(), 400);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], 190);
    assert_eq!(sandbox.received(), []);
}

#[tokio::test]
async fn reset_sends_no_answer_though_the_message_may_arrive() {
    let sandbox = sandbox().await;
    sandbox.add_fault(Fault::answering(Answer::Reset).but_arriving().times(1));

    let error = send(&sandbox).await.unwrap_err();

    assert!(!error.is_timeout() && !error.is_connect(), "{error:?}");
    assert_eq!(sandbox.received_count(), 1);
    assert_eq!(send(&sandbox).await.unwrap().0, 200);
}

#[tokio::test]
async fn hanging_send_times_out_and_its_message_does_not_arrive() {
    let sandbox = sandbox().await;
    sandbox.add_fault(Fault::answering(Answer::Hang).to_contacts(["ana"]));

    assert!(send(&sandbox).await.unwrap_err().is_timeout());
    assert_eq!(sandbox.received_count(), 0);
    assert_eq!(sandbox.peak_in_flight(), 1);
}

/// Otherwise another program could receive the messages for Messenger, and its answers would be taken for Messenger's.
#[tokio::test]
async fn unreachable_sandbox_keeps_its_port() {
    let sandbox = Sandbox::start(BTreeMap::new()).await.unwrap();
    sandbox.unreachable().await;

    let another = server::bind(sandbox.port).await;

    assert_eq!(another.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    sandbox.reachable().await.unwrap();
}

#[tokio::test]
async fn unreachable_sandbox_refuses_connections_until_reachable() {
    let sandbox = sandbox().await;
    send(&sandbox).await.unwrap();

    sandbox.unreachable().await;
    assert!(send(&sandbox).await.unwrap_err().is_connect());

    sandbox.reachable().await.unwrap();
    assert_eq!(send(&sandbox).await.unwrap().0, 200);
}

#[tokio::test]
async fn control_api_sets_faults_and_returns_the_ledger() {
    let sandbox = sandbox().await;
    let http = http();
    let faults = json!({ "faults": [{ "times": 1, "answer": { "error": { "code": 613 } } }] });

    let url = format!("{}/faults", sandbox.control_url());
    assert!(http.put(url).json(&faults).send().await.unwrap().status().is_success());
    assert_eq!(send(&sandbox).await.unwrap().1["error"]["code"], 613);
    send(&sandbox).await.unwrap();

    let url = format!("{}/summary", sandbox.control_url());
    let summary: Value = http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(summary["received"], 1);
    assert_eq!(summary["peak_per_second"], 1);
    assert_eq!(summary["conversation_calls"], 0);
}

#[tokio::test]
async fn control_api_shows_a_conversation_as_the_contact_sees_it() {
    let sandbox = sandbox().await;
    send(&sandbox).await.unwrap();
    let inbound = json!({"page_id": "page", "contact_id": "ana", "text": "Thank you!"});
    let control = |path: &str| format!("{}{path}", sandbox.control_url());
    let added = http().post(control("/inbound")).json(&inbound).send().await;
    assert!(added.unwrap().status().is_success());

    let shown = http().get(control("/conversations/page/ana")).send().await.unwrap();

    let shown: Vec<Value> = shown.json().await.unwrap();
    let lines = shown.iter().map(|message| (&message["from_contact"], &message["text"]));
    let expected = [
        (json!(false), json!("We open at nine.")),
        (json!(true), json!("Thank you!")),
    ];
    assert!(lines.eq(expected.iter().map(|(from, text)| (from, text))), "{shown:#?}");
}

#[tokio::test]
async fn control_api_adds_and_removes_one_fault() {
    let sandbox = sandbox().await;
    let faults = format!("{}/faults", sandbox.control_url());
    for code in [613, 551] {
        let fault = json!({"answer": {"error": {"code": code}}});
        let added = http().post(&faults).json(&fault).send().await.unwrap();
        assert!(added.status().is_success());
    }
    assert_eq!(send(&sandbox).await.unwrap().1["error"]["code"], 613);

    let remove = async |index| {
        http()
            .delete(format!("{faults}/{index}"))
            .send()
            .await
            .unwrap()
            .status()
    };
    assert_eq!(remove(0).await, 204);

    assert_eq!(send(&sandbox).await.unwrap().1["error"]["code"], 551);
    assert_eq!(remove(1).await, 404);
}

#[tokio::test]
async fn control_api_tells_which_tokens_are_revoked() {
    let sandbox = sandbox().await;
    let tokens = async || {
        let url = format!("{}/tokens", sandbox.control_url());
        http().get(url).send().await.unwrap().json::<Value>().await.unwrap()
    };
    assert_eq!(tokens().await, json!({"page": {"revoked": false}}));

    sandbox.revoke_token("page");

    assert_eq!(tokens().await, json!({"page": {"revoked": true}}));
}
