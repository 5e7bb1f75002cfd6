//! Tests of profiles.

use super::*;

async fn profile(sandbox: &Sandbox, token: &str, contact_id: &str, fields: &str) -> (u16, Value) {
    let call = http().get(format!("{}/{contact_id}", sandbox.url())).bearer_auth(token);
    let response = call.query(&[("fields", fields)]).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn profiles_are_set_and_refused_by_the_control_api() {
    let sandbox = sandbox().await;
    let url = format!("{}/profiles", sandbox.control_url());
    let profiles = json!({"profiles": {"ana": {"first_name": "Ana", "timezone": -3.5}}, "refused_fields": ["locale"]});
    let answer = http().put(url).json(&profiles).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 204);

    let shown = profile(&sandbox, "token", "ana", "first_name,last_name,timezone").await;
    assert_eq!(
        shown,
        (200, json!({"id": "ana", "first_name": "Ana", "timezone": -3.5}))
    );
    assert_eq!(profile(&sandbox, "token", "ben", "first_name").await, (200, json!({})));
    let (status, refused) = profile(&sandbox, "token", "ana", "first_name,locale").await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!(10)));
    let (status, refused) = profile(&sandbox, "guess", "ana", "first_name").await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!(190)));
    assert_eq!(sandbox.profile_calls().len(), 3);
}

#[tokio::test]
async fn fault_on_profiles_affects_no_send() {
    let sandbox = sandbox().await;
    let unknown = GraphError::new(2_018_218, "No profile available for this user.");
    sandbox.add_fault(Fault::answering(unknown).on(Operation::Profile));

    let (status, refused) = profile(&sandbox, "token", "ana", "first_name").await;

    assert_eq!((status, &refused["error"]["code"]), (400, &json!(2_018_218)));
    assert_eq!(send(&sandbox).await.unwrap().0, 200);
}
