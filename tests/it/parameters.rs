//! Secrets in parameters of the Systems Manager: read when needed, remembered for minutes, never taken for absent because
//! nobody answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};

use crate::stack::{APP_SECRET, Endpoints, PAGES, Services, Stack, VERIFY_TOKEN, request};

pub const TOKEN: &str = "/oncecast/page-tokens/page-1";
const SECRET: &str = "/oncecast/app-secret";
const VERIFY: &str = "/oncecast/webhook-verify-token";
const VARIABLES: [(&str, &str); 3] = [
    ("PAGE_TOKENS", "ssm:/oncecast/page-tokens/"),
    ("APP_SECRET", "ssm:/oncecast/app-secret"),
    ("WEBHOOK_VERIFY_TOKEN", "ssm:/oncecast/webhook-verify-token"),
];

/// The Systems Manager, as far as it is asked for parameters.
#[derive(Clone)]
pub struct Manager(Arc<Mutex<Contents>>);

struct Contents {
    values: BTreeMap<String, String>,
    /// What it answers to everything, in place of a value.
    refusal: Option<(StatusCode, &'static str)>,
    asked: Vec<String>,
}

impl Manager {
    /// With everything that a function needs for the first Page; and where it listens.
    async fn start() -> (Self, String) {
        let token = format!("EAAB-{}", PAGES[0]);
        let values = [
            (TOKEN, &*token),
            (SECRET, APP_SECRET),
            (VERIFY, VERIFY_TOKEN),
        ];
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let manager = Self(Arc::new(Mutex::new(Contents {
            values: values.into(),
            refusal: None,
            asked: Vec::new(),
        })));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(manager.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (manager, url)
    }

    pub fn set(&self, name: &str, value: &str) {
        let mut contents = self.0.lock().unwrap();
        contents.values.insert(name.to_owned(), value.to_owned());
    }

    fn remove(&self, name: &str) {
        self.0.lock().unwrap().values.remove(name);
    }

    fn refuse(&self, refusal: Option<(StatusCode, &'static str)>) {
        self.0.lock().unwrap().refusal = refusal;
    }

    /// How often it was asked for a parameter since this was asked last.
    fn asked(&self, name: &str) -> usize {
        let asked = &mut self.0.lock().unwrap().asked;
        let before = asked.len();
        asked.retain(|asked| asked != name);
        before - asked.len()
    }
}

async fn answer(
    State(manager): State<Manager>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    assert_eq!(headers["x-amz-target"], "AmazonSSM.GetParameter");
    let call: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(call["WithDecryption"], true);
    let name = call["Name"].as_str().unwrap();
    let mut contents = manager.0.lock().unwrap();
    contents.asked.push(name.to_owned());
    let error = |(status, code)| (status, json!({"__type": code, "message": "no"}).to_string());
    if let Some(refusal) = contents.refusal {
        return error(refusal);
    }
    match contents.values.get(name) {
        None => error((StatusCode::BAD_REQUEST, "ParameterNotFound")),
        Some(value) => {
            let parameter = json!({"Name": name, "Type": "SecureString", "Value": value});
            (StatusCode::OK, json!({"Parameter": parameter}).to_string())
        }
    }
}

/// A stack whose secrets are parameters, and whose Messenger wants proofs.
async fn start() -> (Stack, Manager) {
    start_with(&[]).await
}

/// … and with variables of its own.
pub async fn start_with(variables: &[(&str, &str)]) -> (Stack, Manager) {
    let (manager, ssm) = Manager::start().await;
    let services = Services::start().await;
    let endpoints = Endpoints {
        ssm,
        ..services.endpoints.clone()
    };
    let variables = [&VARIABLES, variables].concat();
    let stack = Stack::over(services, &endpoints, &variables).await;
    stack.sandbox.check_proofs(APP_SECRET, true);
    (stack, manager)
}

#[tokio::test]
async fn a_parameter_is_read_once_in_five_minutes() {
    let (stack, manager) = start().await;
    let ids = stack.contacts(3).await;

    for (n, minutes, readings) in [(0, 0, 1), (1, 4, 0), (2, 2, 1)] {
        stack.advance(Duration::from_secs(minutes * 60));
        let id = stack.broadcast(&ids[n..=n]).await;
        assert_eq!(stack.finish(&id).await["counters"]["sent"], 1);
        for name in [TOKEN, SECRET] {
            assert_eq!(manager.asked(name), readings, "{name} for broadcast {n}");
        }
    }
}

/// What the operator must mend halts the job and says so; what mends itself does not; and nothing is sent meanwhile.
#[tokio::test]
async fn what_is_not_there_and_what_is_not_answered_are_told_apart() {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    type Spoil = fn(&Manager);
    let cases: [(&str, Spoil, &str, &str); 7] = [
        (
            "no token",
            |manager| manager.remove(TOKEN),
            "halted",
            "no access token for this Page: put it into the parameter /oncecast/page-tokens/page-1, and resume",
        ),
        (
            "no token, but a text",
            |manager| manager.set(TOKEN, "two words"),
            "halted",
            "the parameter /oncecast/page-tokens/page-1 must hold one line of visible ASCII characters",
        ),
        (
            "no secret, though there should be one",
            |manager| manager.remove(SECRET),
            "halted",
            "the parameter /oncecast/app-secret does not exist: create it, and resume",
        ),
        (
            "not allowed",
            |manager| manager.refuse(Some((BAD, "AccessDeniedException"))),
            "halted",
            "the parameter /oncecast/page-tokens/page-1 cannot be read: AccessDeniedException",
        ),
        (
            "throttled",
            |manager| manager.refuse(Some((BAD, "ThrottlingException"))),
            "waiting",
            "",
        ),
        (
            "broken",
            |manager| {
                manager.refuse(Some((
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "InternalServerError",
                )))
            },
            "waiting",
            "",
        ),
        (
            "unheard of",
            |manager| manager.refuse(Some((BAD, "AnErrorOfTomorrow"))),
            "waiting",
            "",
        ),
    ];
    for (case, spoil, status, reason) in cases {
        let (stack, manager) = start().await;
        let ids = stack.contacts(2).await;
        spoil(&manager);
        let id = stack.broadcast(&ids).await;

        stack.work_off().await;

        let report = stack.report(&id).await;
        assert_eq!(report["status"], status, "{case}");
        assert_eq!(
            report["jobs"][0]["reason"].as_str().unwrap_or_default(),
            reason,
            "{case}"
        );
        assert_eq!(stack.sandbox.received_count(), 0, "{case}");
        assert_eq!(report["counters"]["pending"], 2, "{case}");

        manager.refuse(None);
        manager.set(TOKEN, &format!("EAAB-{}", PAGES[0]));
        manager.set(SECRET, APP_SECRET);
        if status == "halted" {
            let path = format!("/v1/broadcasts/{id}/resume");
            stack.call("POST", &path, None, None).await;
        }
        assert_eq!(stack.finish(&id).await["counters"]["sent"], 2, "{case}");
    }
}

#[tokio::test]
async fn a_token_that_was_renewed_meanwhile_is_found_without_anybody_resuming() {
    let (stack, manager) = start().await;
    let ids = stack.contacts(30).await;
    let before = stack.broadcast(&ids).await;
    stack.finish(&before).await;
    manager.asked(TOKEN);

    stack.sandbox.set_token(PAGES[0], "EAAB-renewed");
    manager.set(TOKEN, "EAAB-renewed");
    let mut body = request(&ids);
    body["message"]["text"] = json!("Again");
    let id = stack.post(&body).await.broadcast_id();
    stack.work_off().await;

    let report = stack.report(&id).await;
    assert_eq!(report["counters"]["sent"], 30, "{report:#}");
    assert_eq!(manager.asked(TOKEN), 1);
    let attempts = stack.deliveries(&id, "").await.into_iter();
    let attempts = attempts.map(|row| row["attempts"].as_u64().unwrap());
    assert_eq!(attempts.max(), Some(1), "it was not about them");
}

#[tokio::test]
async fn a_token_that_is_refused_and_not_renewed_halts_the_job_after_one_look() {
    let (stack, manager) = start().await;
    let ids = stack.contacts(30).await;
    stack.sandbox.revoke_token(PAGES[0]);
    let id = stack.broadcast(&ids).await;

    stack.work_off().await;

    let report = stack.report(&id).await;
    assert_eq!(report["status"], "halted");
    assert_eq!(report["jobs"][0]["reason"], "Messenger error 190/460");
    assert_eq!(manager.asked(TOKEN), 2);
}

/// The token is refused, and whether there is another cannot be known: the job comes back by itself.
#[tokio::test]
async fn no_look_is_no_reason_to_halt() {
    let (stack, manager) = start().await;
    let ids = stack.contacts(3).await;
    stack.broadcast(&ids[..1]).await;
    stack.work_off().await;
    stack.sandbox.set_token(PAGES[0], "EAAB-renewed");
    manager.refuse(Some((StatusCode::BAD_REQUEST, "ThrottlingException")));
    let id = stack.broadcast(&ids[1..]).await;

    stack.work_off().await;

    assert_eq!(stack.report(&id).await["status"], "waiting");
    manager.refuse(None);
    manager.set(TOKEN, "EAAB-renewed");
    assert_eq!(stack.finish(&id).await["counters"]["sent"], 2);
}

#[tokio::test]
async fn webhooks_that_cannot_be_checked_are_asked_for_again() {
    let (stack, manager) = start().await;
    let verify = async || {
        let query = format!("hub.mode=subscribe&hub.challenge=7&hub.verify_token={VERIFY_TOKEN}");
        let request = Request::get(format!("/v1/webhooks/messenger?{query}"));
        stack
            .raw(request.body(Body::empty()).unwrap())
            .await
            .status()
    };
    let tell = async || stack.webhook(PAGES[0], &[]).await;
    let throttled = Some((StatusCode::BAD_REQUEST, "ThrottlingException"));

    manager.refuse(throttled);
    assert_eq!(verify().await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(tell().await, StatusCode::SERVICE_UNAVAILABLE);
    manager.refuse(None);
    manager.remove(SECRET);
    assert_eq!(tell().await, StatusCode::SERVICE_UNAVAILABLE);
    manager.set(SECRET, APP_SECRET);

    assert_eq!(verify().await, StatusCode::OK);
    assert_eq!(tell().await, StatusCode::OK);
}
