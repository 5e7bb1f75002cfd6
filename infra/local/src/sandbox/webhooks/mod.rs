//! Webhooks: the sandbox tells a subscriber of every message, as Messenger does, and on request late, twice or never.

mod event;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use uuid::Uuid;

use super::conversations::Message;
use super::faults::{Faults, Operation};
use super::ledger::Received;

pub use self::event::hmac;

/// For so long a Page's events are gathered into one request.
const BATCH_EVERY: Duration = Duration::from_millis(100);
/// Messenger waits so long for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often a request is made until it is answered with 200.
const ATTEMPTS: u32 = 4;
/// How long after a failed one.
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// How far apart an echo and its repetition are, so that they come in different requests.
const REPEAT_AFTER: Duration = Duration::from_millis(250);
/// By how much a shuffled echo may be late.
const SHUFFLE_WITHIN_MS: u64 = 500;

/// How echoes come, besides the faults that strike them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Echoes {
    /// How many times each one comes.
    pub repeat: u32,
    /// Whether they come in any order.
    pub shuffle: bool,
    /// Whether they come as if another app owned the conversation.
    pub standby: bool,
}

impl Default for Echoes {
    /// Each once, in order, for the owner of the conversation.
    fn default() -> Echoes {
        Echoes {
            repeat: 1,
            shuffle: false,
            standby: false,
        }
    }
}

/// Why nobody was subscribed.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
    #[error("the callback URL cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the callback URL did not answer with the challenge")]
    NotVerified,
}

/// Who is told.
#[derive(Debug)]
pub struct Subscription {
    url: String,
    app_secret: SecretString,
    http: reqwest::Client,
}

impl Subscription {
    /// Somebody who is told without being asked first.
    pub fn new(url: String, app_secret: SecretString) -> Result<Subscription, SubscribeError> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWER_WITHIN)
            .build()
            .map_err(SubscribeError::Client)?;
        Ok(Subscription {
            url,
            app_secret,
            http,
        })
    }

    /// Asks whether the URL is somebody's who knows this token, as Meta does before it subscribes it.
    pub async fn verify(&self, verify_token: &SecretString) -> Result<(), SubscribeError> {
        let challenge = Uuid::new_v4().simple().to_string();
        // The URL holds the token, so no error may show it.
        let unreachable = |error: reqwest::Error| SubscribeError::Unreachable(error.without_url());
        let query = [
            ("hub.mode", "subscribe"),
            ("hub.verify_token", verify_token.expose_secret()),
            ("hub.challenge", &challenge),
        ];
        let request = self.http.get(&self.url).query(&query);
        let answer = request.send().await.map_err(unreachable)?;
        let ok = answer.status() == StatusCode::OK;
        let body = answer.text().await.map_err(unreachable)?;
        if ok && body == challenge {
            Ok(())
        } else {
            Err(SubscribeError::NotVerified)
        }
    }

    /// Tells it, a few times if need be. What is not taken then is lost, as with Messenger.
    async fn tell(&self, page_id: &str, events: Vec<Event>) {
        let count = events.len();
        let entry = |event: Event| {
            let list = if event.standby {
                "standby"
            } else {
                "messaging"
            };
            json!({ "id": page_id, "time": jiff::Timestamp::now().as_millisecond(), list: [event.event] })
        };
        let entries: Vec<Value> = events.into_iter().map(entry).collect();
        let Ok(body) = event::escaped(&json!({ "object": "page", "entry": entries })) else {
            return;
        };
        let signature = format!("sha256={}", hmac(&self.app_secret, &body));
        for _ in 0..ATTEMPTS {
            let request = self
                .http
                .post(&self.url)
                .header(header::CONTENT_TYPE, "application/json")
                .header("x-hub-signature-256", &signature)
                .body(body.clone());
            let answer = request.send().await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return;
            }
            time::sleep(RETRY_AFTER).await;
        }
        tracing::warn!(
            page.id = page_id,
            events = count,
            "nobody took these webhook events"
        );
    }
}

/// What is to be told, and when.
#[derive(Debug)]
struct Event {
    subscription: Arc<Subscription>,
    page_id: String,
    event: Value,
    standby: bool,
    due: Instant,
}

/// Who is told of messages, and how.
#[derive(Debug)]
pub struct Webhooks {
    pub subscription: Option<Arc<Subscription>>,
    pub echoes: Echoes,
    events: UnboundedSender<Event>,
}

impl Webhooks {
    /// Nobody is told. The events of later are delivered by the task, which is to end with the sandbox.
    pub fn new() -> (Webhooks, impl Future<Output = ()> + Send) {
        let (sender, events) = mpsc::unbounded_channel();
        let webhooks = Webhooks {
            subscription: None,
            echoes: Echoes::default(),
            events: sender,
        };
        (webhooks, deliver(events))
    }

    /// Tells of a message that Oncecast sent.
    pub fn tell(&self, message: &Received, faults: &mut Faults) {
        let event = event::echo(message);
        self.echo(&message.page_id, &message.contact_id, event, faults);
    }

    /// Tells of one that it did not send.
    pub fn tell_foreign(
        &self,
        page_id: &str,
        contact_id: &str,
        message: &Message,
        faults: &mut Faults,
    ) {
        let event = event::foreign(page_id, contact_id, message);
        if message.from_contact {
            self.queue(page_id, event, false, Duration::ZERO);
        } else {
            self.echo(page_id, contact_id, event, faults);
        }
    }

    fn echo(&self, page_id: &str, contact_id: &str, event: Value, faults: &mut Faults) {
        if self.subscription.is_none() {
            return;
        }
        let treatment = faults.take(Operation::Echo, page_id, contact_id);
        if !treatment.accept {
            return;
        }
        for repetition in 0..self.echoes.repeat {
            let mut after = treatment.latency + REPEAT_AFTER * repetition;
            if self.echoes.shuffle {
                after += Duration::from_millis(rand::random_range(0..SHUFFLE_WITHIN_MS));
            }
            self.queue(page_id, event.clone(), self.echoes.standby, after);
        }
    }

    fn queue(&self, page_id: &str, event: Value, standby: bool, after: Duration) {
        if let Some(subscription) = &self.subscription {
            // Fails only when the sandbox ends.
            let _ = self.events.send(Event {
                subscription: Arc::clone(subscription),
                page_id: page_id.to_owned(),
                event,
                standby,
                due: Instant::now() + after,
            });
        }
    }
}

/// Delivers events when they are due, those of a Page together.
async fn deliver(mut events: UnboundedReceiver<Event>) {
    let mut waiting = Vec::new();
    let mut requests = JoinSet::new();
    loop {
        if waiting.is_empty() {
            match events.recv().await {
                Some(event) => waiting.push(event),
                None => return,
            }
        }
        time::sleep(BATCH_EVERY).await;
        while let Ok(event) = events.try_recv() {
            waiting.push(event);
        }
        while requests.try_join_next().is_some() {}
        let now = Instant::now();
        let mut pages: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        waiting.sort_by_key(|event| event.due);
        for event in waiting.extract_if(.., |event| event.due <= now) {
            let of_page = pages.entry(event.page_id.clone()).or_default();
            of_page.push(event);
        }
        for (page_id, events) in pages {
            let Some(subscription) = events.last().map(|event| Arc::clone(&event.subscription))
            else {
                continue;
            };
            requests.spawn(async move { subscription.tell(&page_id, events).await });
        }
    }
}
