//! Tests of tokens and proofs.

use super::*;
use crate::sandbox::signature::hmac;

const SECRET: &str = "the-apps-secret";

/// Sends, and returns code and subcode of the error with which the send is answered.
async fn refusal(sandbox: &Sandbox) -> (Value, Value) {
    let (_, mut answer) = send(sandbox).await.unwrap();
    let error = &mut answer["error"];
    (error["code"].take(), error["error_subcode"].take())
}

async fn put(sandbox: &Sandbox, path: &str, body: Value) -> u16 {
    let url = format!("{}/{path}", sandbox.control_url());
    let answer = http().put(url).json(&body).send().await.unwrap();
    answer.status().as_u16()
}

#[tokio::test]
async fn revoked_token_is_refused_until_restored() {
    let sandbox = sandbox().await;
    let url = format!("{}/tokens/page", sandbox.control_url());

    assert_eq!(http().delete(url).send().await.unwrap().status(), 204);
    assert_eq!(refusal(&sandbox).await, (json!(190), json!(460)));
    let url = format!("{}/page/conversations?user_id=ana", sandbox.url());
    let lookup = http().get(url).bearer_auth("token").send().await.unwrap();
    let lookup: Value = lookup.json().await.unwrap();
    assert_eq!(lookup["error"]["error_subcode"], 460);
    assert_eq!(sandbox.received(), []);

    assert_eq!(put(&sandbox, "tokens/page", json!({})).await, 204);
    assert_eq!(send(&sandbox).await.unwrap().0, 200);
    assert!(sandbox.revoke_token("page"));
    assert_eq!(refusal(&sandbox).await, (json!(190), json!(460)));
    assert!(sandbox.restore_token("page"));
    assert_eq!(send(&sandbox).await.unwrap().0, 200);
}

#[tokio::test]
async fn page_can_get_another_token() {
    let sandbox = sandbox().await;
    sandbox.revoke_token("page");

    let token = json!({ "token": "another" });
    assert_eq!(put(&sandbox, "tokens/page", token).await, 204);

    assert_eq!(refusal(&sandbox).await, (json!(190), Value::Null));
    sandbox.set_token("page", "token");
    assert_eq!(send(&sandbox).await.unwrap().0, 200);
    assert_eq!(put(&sandbox, "tokens/unknown", json!({})).await, 404);
    assert!(!sandbox.revoke_token("unknown"));
}

#[tokio::test]
async fn wrong_proof_is_refused_and_missing_proof_only_if_required() {
    let sandbox = sandbox().await;
    let send_with = async |proof: Option<String>| {
        let url = format!("{}/page/messages", sandbox.url());
        let request = http().post(url).bearer_auth("token").json(&message());
        let request = request.query(&proof.map(|proof| [("appsecret_proof", proof)]));
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        (
            answer["error"]["code"].as_i64(),
            answer["error"]["message"].as_str().map(str::to_owned),
        )
    };
    let right = Some(hmac(&SECRET.into(), b"token"));
    let wrong = Some(hmac(&SECRET.into(), b"another"));
    let refused = |message: &str| (Some(100), Some(message.to_owned()));
    let invalid = refused("Invalid appsecret_proof provided in the API argument");
    let missing = refused("API calls from the server require an appsecret_proof argument");

    assert_eq!(send_with(wrong.clone()).await, (None, None));

    sandbox.check_proofs(SECRET, false);
    assert_eq!(send_with(right.clone()).await, (None, None));
    assert_eq!(send_with(None).await, (None, None));
    assert_eq!(send_with(wrong.clone()).await, invalid);

    let app = json!({ "app_secret": SECRET, "required": true });
    assert_eq!(put(&sandbox, "app-secret", app).await, 204);
    assert_eq!(send_with(right).await, (None, None));
    assert_eq!(send_with(None).await, missing);
    assert_eq!(send_with(wrong).await, invalid);
    assert_eq!(sandbox.received_count(), 4);
    let debug = format!("{sandbox:?}");
    assert!(!debug.contains(SECRET), "{debug}");
}

#[tokio::test]
async fn lookup_requires_a_right_proof_too() {
    let sandbox = sandbox().await;
    sandbox.check_proofs(SECRET, true);
    let lookup = async |proof: &str| {
        let url = format!("{}/page/conversations", sandbox.url());
        let query = [("user_id", "ana"), ("appsecret_proof", proof)];
        let request = http().get(url).bearer_auth("token").query(&query);
        request.send().await.unwrap().status().as_u16()
    };

    assert_eq!(lookup("wrong").await, 400);
    assert_eq!(lookup(&hmac(&SECRET.into(), b"token")).await, 200);
}
