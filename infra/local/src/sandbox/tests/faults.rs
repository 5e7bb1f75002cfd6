//! Tests of injected faults: the ledger tells the truth in spite of the answer.

use super::*;

/// Sets a fault through the control API, and sends.
async fn send_with(sandbox: &Sandbox, fault: Value) -> reqwest::Result<reqwest::Response> {
    let faults = http()
        .put(format!("{}/faults", sandbox.control_url()))
        .json(&json!({ "faults": [fault] }));
    assert_eq!(faults.send().await.unwrap().status(), 200, "{fault}");
    http()
        .post(format!("{}/page/messages", sandbox.url()))
        .bearer_auth("token")
        .timeout(Duration::from_secs(1))
        .json(&message())
        .send()
        .await
}

#[tokio::test]
async fn delivered_message_can_get_any_answer_or_none() {
    let html = "<html>Bad Gateway</html>";
    let misleading = [
        (json!({ "status": 500, "body": html }), 500, html),
        (json!({ "status": 200, "body": "{\"mess" }), 200, "{\"mess"),
        (json!({ "error": { "code": 1 } }), 400, "\"code\":1,"),
        (json!({ "error": { "code": 2 } }), 400, "\"code\":2,"),
        (json!({ "error": { "code": 2, "status": 500 } }), 500, "\"code\":2,"),
    ];
    for (answer, status, body) in misleading {
        let sandbox = sandbox().await;
        let fault = json!({ "accept": true, "answer": answer });

        let response = send_with(&sandbox, fault).await.unwrap();

        assert_eq!(response.status(), status, "{answer}");
        let text = response.text().await.unwrap();
        assert!(text.contains(body), "{answer}: {text}");
        assert_eq!(sandbox.received_count(), 1, "{answer}");
    }
    for answer in ["reset", "hang"] {
        let sandbox = sandbox().await;
        let fault = json!({ "accept": true, "answer": answer });

        let error = send_with(&sandbox, fault).await.unwrap_err();

        assert_eq!(error.is_timeout(), answer == "hang", "{error:?}");
        assert_eq!(sandbox.received_count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn message_can_be_lost_in_spite_of_a_success() {
    let sandbox = sandbox().await;
    let fault = json!({ "accept": false, "answer": "ok" });

    let answer = send_with(&sandbox, fault).await.unwrap();

    assert_eq!(answer.status(), 200);
    assert_eq!(sandbox.received(), []);
}

#[tokio::test]
async fn refused_message_does_not_arrive() {
    let sandbox = sandbox().await;
    let error = json!({ "code": 10, "subcode": 2_018_278, "message": "outside of allowed window" });

    let answer = send_with(&sandbox, json!({ "answer": { "error": error } }));

    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 400);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["error"]["code"], 10);
    assert_eq!(answer["error"]["error_subcode"], 2_018_278);
    assert_eq!(answer["error"]["message"], "outside of allowed window");
    assert_eq!(sandbox.received(), []);
}

#[tokio::test]
async fn rate_limit_has_metas_headers() {
    let sandbox = sandbox().await;
    let usage = json!({ "page": [{
        "type": "messenger", "call_count": 100, "total_cputime": 23, "total_time": 23,
        "estimated_time_to_regain_access": 19,
    }] });
    let app_usage = json!({ "call_count": 100, "total_time": 25, "total_cputime": 25 });
    let headers = json!({
        "X-Business-Use-Case-Usage": usage.to_string(),
        "X-App-Usage": app_usage.to_string(),
    });
    let answer = json!({ "error": { "code": 80006 }, "headers": headers });

    let answer = send_with(&sandbox, json!({ "answer": answer })).await.unwrap();

    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-business-use-case-usage"), usage.to_string());
    assert_eq!(header("x-app-usage"), app_usage.to_string());
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["error"]["code"], 80006);
    assert_eq!(sandbox.received(), []);
}
