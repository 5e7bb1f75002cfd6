//! Tests of webhooks and of their verification.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::body::Bytes;
use axum::extract::Query;
use axum::http::{HeaderMap, StatusCode};
use tokio::time::{Instant, sleep};

use super::*;
use crate::sandbox::signature::hmac;

const SECRET: &str = "the-apps-secret";
const VERIFY_TOKEN: &str = "the-verify-token";

/// A server that records the webhooks that it receives.
struct Subscriber {
    server: Server,
    requests: Arc<Mutex<Requests>>,
}

#[derive(Default)]
struct Requests {
    /// The signature and body of each request.
    posts: Vec<(String, Bytes)>,
    /// The number of further requests that are answered with 500.
    failures: usize,
}

type RequestsState = State<Arc<Mutex<Requests>>>;

impl Subscriber {
    async fn start() -> Subscriber {
        let requests = Arc::new(Mutex::new(Requests::default()));
        let router = Router::new()
            .route("/", post(Subscriber::record).get(Subscriber::verify))
            .with_state(Arc::clone(&requests));
        let server = Server::route(server::bind(0).await.unwrap(), router).unwrap();
        Subscriber { server, requests }
    }

    async fn record(state: RequestsState, headers: HeaderMap, body: Bytes) -> StatusCode {
        let signature = headers["x-hub-signature-256"].to_str().unwrap().to_owned();
        let mut requests = state.lock().unwrap();
        requests.posts.push((signature, body));
        if requests.failures == 0 {
            return StatusCode::OK;
        }
        requests.failures -= 1;
        StatusCode::INTERNAL_SERVER_ERROR
    }

    async fn verify(Query(query): Query<BTreeMap<String, String>>) -> Result<String, StatusCode> {
        let right = query["hub.mode"] == "subscribe" && query["hub.verify_token"] == VERIFY_TOKEN;
        right
            .then(|| query["hub.challenge"].clone())
            .ok_or(StatusCode::FORBIDDEN)
    }

    fn url(&self) -> String {
        format!("http://{}/", self.server.address())
    }

    fn posts(&self) -> Vec<(String, Bytes)> {
        self.requests.lock().unwrap().posts.clone()
    }

    fn entries(&self) -> Vec<Value> {
        let entries = |(_, body): &(String, Bytes)| {
            let body: Value = serde_json::from_slice(body).unwrap();
            assert_eq!(body["object"], "page");
            body["entry"].as_array().unwrap().clone()
        };
        self.posts().iter().flat_map(entries).collect()
    }

    /// Waits for this number of entries, and returns them.
    async fn wait_for(&self, count: usize) -> Vec<Value> {
        let give_up = Instant::now() + Duration::from_secs(20);
        while self.entries().len() < count {
            assert!(Instant::now() < give_up, "{:?}", self.entries());
            sleep(Duration::from_millis(10)).await;
        }
        self.entries()
    }
}

/// Starts a sandbox and a subscriber of its webhooks.
async fn subscribed() -> (Sandbox, Subscriber) {
    let (sandbox, subscriber) = (sandbox().await, Subscriber::start().await);
    sandbox.subscribe(&subscriber.url(), SECRET).unwrap();
    (sandbox, subscriber)
}

/// Returns a message that a person writes in the Page's inbox.
fn foreign() -> ForeignMessage {
    ForeignMessage {
        page_id: "page".to_owned(),
        contact_id: "ana".to_owned(),
        text: "Grüße 😀".to_owned(),
        from_contact: false,
        at: None,
    }
}

fn mids(entries: &[Value]) -> Vec<&str> {
    let messages = entries.iter().map(|entry| &entry["messaging"][0]["message"]);
    messages.map(|message| message["mid"].as_str().unwrap()).collect()
}

fn received_ids(sandbox: &Sandbox) -> Vec<String> {
    let received = sandbox.received().into_iter();
    received.map(|message| message.message_id).collect()
}

#[tokio::test]
async fn delivered_message_has_an_echo_in_metas_form() {
    let (sandbox, subscriber) = subscribed().await;
    sandbox.add_fault(Fault::answering(GraphError::new(551, "gone")).times(1));
    send(&sandbox).await.unwrap();
    sandbox.add_fault(Fault::answering(Answer::Reset).but_arriving());
    send(&sandbox).await.unwrap_err();

    let entries = subscriber.wait_for(1).await;

    let received = sandbox.received().remove(0);
    assert_eq!(entries[0]["id"], "page");
    assert!(entries[0]["time"].as_i64().unwrap() >= received.at);
    assert_eq!(
        entries[0]["messaging"],
        json!([{
            "sender": { "id": "page" },
            "recipient": { "id": "ana" },
            "timestamp": received.at,
            "message": {
                "is_echo": true,
                "app_id": 1_517_776_481_860_111_u64,
                "metadata": "key#1",
                "mid": received.message_id,
                "text": "We open at nine.",
            },
        }])
    );
    assert_eq!(entries.len(), 1);
}

#[tokio::test]
async fn body_is_escaped_and_signed_as_it_is_sent() {
    let (sandbox, subscriber) = subscribed().await;
    sandbox.add_message(foreign());

    let entries = subscriber.wait_for(1).await;

    let message = &entries[0]["messaging"][0]["message"];
    assert_eq!(message["text"], "Grüße 😀");
    assert_eq!(message["app_id"], 26_390_203_743_090_u64);
    assert!(message.get("metadata").is_none());
    let (signature, body) = subscriber.posts().remove(0);
    assert_eq!(signature, format!("sha256={}", hmac(&SECRET.into(), &body)));
    let body = std::str::from_utf8(&body).unwrap();
    assert!(body.contains(r"Gr\u00fc\u00dfe \ud83d\ude00"), "{body}");
}

#[tokio::test]
async fn only_the_current_subscriber_gets_events() {
    let (sandbox, subscriber) = subscribed().await;
    let other = Subscriber::start().await;
    let url = format!("{}/subscription", sandbox.control_url());
    assert_eq!(http().delete(&url).send().await.unwrap().status(), 204);
    send(&sandbox).await.unwrap();

    let callback = json!({ "url": other.url(), "app_secret": SECRET });
    let answer = http().put(&url).json(&callback).send().await.unwrap();
    assert_eq!(answer.status(), 204);
    send(&sandbox).await.unwrap();

    let entries = other.wait_for(1).await;
    assert_eq!(mids(&entries), received_ids(&sandbox)[1..]);
    assert_eq!(subscriber.posts(), []);
}

#[tokio::test]
async fn subscription_requires_the_verify_token() {
    let (sandbox, subscriber) = (sandbox().await, Subscriber::start().await);
    let url = format!("{}/subscription", sandbox.control_url());
    let subscribe = async |verify_token: &str| {
        let callback = json!({
            "url": subscriber.url(), "app_secret": SECRET, "verify_token": verify_token,
        });
        http().put(&url).json(&callback).send().await.unwrap()
    };

    assert_eq!(subscribe("another").await.status(), 400);
    send(&sandbox).await.unwrap();
    assert_eq!(subscribe(VERIFY_TOKEN).await.status(), 204);
    send(&sandbox).await.unwrap();

    let entries = subscriber.wait_for(1).await;
    assert_eq!(mids(&entries), received_ids(&sandbox)[1..]);
    let unreachable = sandbox.verify_and_subscribe("http://127.0.0.1:1/", SECRET, VERIFY_TOKEN);
    let error = unreachable.await.unwrap_err();
    assert!(matches!(error, SubscribeError::Unreachable(_)));
    assert!(!format!("{error:?}").contains(VERIFY_TOKEN), "{error:?}");
}

#[tokio::test]
async fn events_of_a_page_come_in_one_request() {
    let (sandbox, subscriber) = subscribed().await;

    for _ in 0..20 {
        sandbox.add_message(foreign());
    }

    assert_eq!(subscriber.wait_for(20).await.len(), 20);
    assert_eq!(subscriber.posts().len(), 1);
}

#[tokio::test]
async fn request_is_repeated_until_answered_with_200() {
    let (sandbox, subscriber) = subscribed().await;
    subscriber.requests.lock().unwrap().failures = 2;
    send(&sandbox).await.unwrap();

    let entries = subscriber.wait_for(3).await;

    let [id] = &received_ids(&sandbox)[..] else {
        panic!("{entries:?}")
    };
    assert_eq!(mids(&entries), [id, id, id]);
    let posts = subscriber.posts();
    assert_eq!(posts[0], posts[1]);
    // The next event is that of the next message, so the third request was the last one for the first message.
    send(&sandbox).await.unwrap();
    let entries = subscriber.wait_for(4).await;
    assert_eq!(mids(&entries)[3], received_ids(&sandbox)[1]);
}

#[tokio::test]
async fn echo_can_be_lost_or_late() {
    let (sandbox, subscriber) = subscribed().await;
    sandbox.add_fault(Fault::answering(Answer::Reset).on(Operation::Echo).times(1));
    let late = Fault::answering(Answer::Ok).on(Operation::Echo);
    sandbox.add_fault(late.times(1).after_ms(600));
    for _ in 0..3 {
        assert_eq!(send(&sandbox).await.unwrap().0, 200);
    }

    let entries = subscriber.wait_for(2).await;

    let received = sandbox.received();
    let echoed = mids(&entries);
    assert!(!echoed.contains(&&*received[0].message_id), "{entries:?}");
    assert!(echoed.contains(&&*received[2].message_id), "{entries:?}");
    let late = echoed.iter().position(|id| **id == received[1].message_id);
    let time = entries[late.unwrap()]["time"].as_i64().unwrap();
    assert!(time >= received[1].at + 600, "{entries:?}");
}

#[tokio::test]
async fn echoes_can_be_repeated_shuffled_and_on_standby() {
    let (sandbox, subscriber) = subscribed().await;
    let url = format!("{}/echoes", sandbox.control_url());
    let echoes = json!({ "repeat": 2, "shuffle": true, "standby": true });
    let answer = http().put(url).json(&echoes).send().await.unwrap();
    assert_eq!(answer.status(), 204);
    let ids: Vec<String> = (0..20).map(|_| sandbox.add_message(foreign())).collect();

    let entries = subscriber.wait_for(40).await;

    let mut echoed: Vec<&str> = Vec::new();
    for entry in &entries {
        assert!(entry.get("messaging").is_none());
        echoed.push(entry["standby"][0]["message"]["mid"].as_str().unwrap());
    }
    let mut first = echoed.clone();
    let mut seen = std::collections::BTreeSet::new();
    first.retain(|id| seen.insert(*id));
    assert_ne!(first, ids);
    for id in &ids {
        assert_eq!(echoed.iter().filter(|echoed| *echoed == id).count(), 2, "{id}");
    }
}

#[tokio::test]
async fn contact_can_write() {
    let (sandbox, subscriber) = subscribed().await;
    let url = format!("{}/inbound", sandbox.control_url());
    let inbound = json!({ "page_id": "page", "contact_id": "ana", "text": "When?" });
    let answer = http().post(url).json(&inbound).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();

    let entries = subscriber.wait_for(1).await;

    let event = &entries[0]["messaging"][0];
    assert_eq!(event["sender"]["id"], "ana");
    assert_eq!(event["recipient"]["id"], "page");
    assert_eq!(
        event["message"],
        json!({ "mid": answer["message_id"], "text": "When?" })
    );
    assert_eq!(sandbox.received(), []);
}
