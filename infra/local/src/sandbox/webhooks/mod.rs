//! Webhooks: the sandbox sends an event of each message to a subscriber, as Messenger does. On request the events come
//! late, repeated or not at all.

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

use super::conversations::message::ConversationMessage;
use super::faults::{Faults, Operation};
use super::received::Received;
use super::signature::hmac;

/// The time for which a Page's events are gathered into one request.
const BATCH_EVERY: Duration = Duration::from_millis(100);
/// The time-out of a request, as Messenger's.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The number of attempts of a request that is not answered with 200.
const ATTEMPTS: u32 = 4;
/// The pause between two attempts.
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// The time between an echo and its repetition. It exceeds [`BATCH_EVERY`], so that they come in different requests.
const REPEAT_AFTER: Duration = Duration::from_millis(250);
/// The maximal delay of a shuffled echo in milliseconds.
const SHUFFLE_WITHIN_MS: u64 = 500;

/// The way in which echoes are sent. Injected faults on echoes apply in addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Echoes {
    /// The number of times that each echo is sent.
    pub repeat: u32,
    /// True if echoes are sent in random order.
    pub shuffle: bool,
    /// True if echoes are sent as standby events, as if another app owned the conversation.
    pub standby: bool,
}

impl Default for Echoes {
    /// Sends each echo once, in order, to the owner of the conversation.
    fn default() -> Echoes {
        Echoes {
            repeat: 1,
            shuffle: false,
            standby: false,
        }
    }
}

/// Failure to subscribe a URL.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
    #[error("the callback URL cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the callback URL did not answer with the challenge")]
    NotVerified,
}

/// A subscriber: the URL to which events are posted.
#[derive(Debug)]
pub struct Subscription {
    url: String,
    app_secret: SecretString,
    http: reqwest::Client,
}

impl Subscription {
    /// Returns a subscription that has not been verified.
    ///
    /// # Errors
    ///
    /// Fails if the HTTP client cannot be set up.
    pub fn new(url: String, app_secret: SecretString) -> Result<Subscription, SubscribeError> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWER_WITHIN)
            .build()
            .map_err(SubscribeError::Client)?;
        Ok(Subscription { url, app_secret, http })
    }

    /// Verifies that the server at the URL knows this token, as Meta does before it subscribes a URL.
    ///
    /// # Errors
    ///
    /// Fails if the URL cannot be reached or does not answer with the challenge. No error contains the token.
    pub async fn verify(&self, verify_token: &SecretString) -> Result<(), SubscribeError> {
        let challenge = Uuid::new_v4().simple().to_string();
        // The URL contains the token, so it is removed from the error.
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

    /// Posts the events of a Page in one request, with a few attempts. If all of them fail, the events are lost, as
    /// with Messenger.
    async fn post(&self, page_id: &str, events: Vec<QueuedEvent>) {
        let count = events.len();
        let entry = |event: QueuedEvent| {
            let list = if event.standby { "standby" } else { "messaging" };
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
            "webhook events were lost because the subscriber did not answer with 200"
        );
    }
}

/// An event that waits for its time.
#[derive(Debug)]
struct QueuedEvent {
    subscription: Arc<Subscription>,
    page_id: String,
    event: Value,
    standby: bool,
    due: Instant,
}

/// The webhooks of the sandbox: the subscriber, and the way in which echoes are sent.
#[derive(Debug)]
pub struct Webhooks {
    pub subscription: Option<Arc<Subscription>>,
    pub echoes: Echoes,
    events: UnboundedSender<QueuedEvent>,
}

impl Webhooks {
    /// Returns webhooks without a subscriber, and the task that sends the queued events. The task is to end with the
    /// sandbox.
    pub fn new() -> (Webhooks, impl Future<Output = ()> + Send) {
        let (sender, events) = mpsc::unbounded_channel();
        let webhooks = Webhooks {
            subscription: None,
            echoes: Echoes::default(),
            events: sender,
        };
        (webhooks, send_when_due(events))
    }

    /// Sends the echo of a message that Oncecast sent, unless an injected fault says otherwise.
    pub fn notify_received(&self, message: &Received, faults: &mut Faults) {
        let event = event::echo(message);
        self.echo(&message.page_id, &message.contact_id, event, faults);
    }

    /// Sends the event of a message that Oncecast did not send.
    pub fn notify_foreign(&self, page_id: &str, contact_id: &str, message: &ConversationMessage, faults: &mut Faults) {
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
            // This fails only when the sandbox ends.
            let _ = self.events.send(QueuedEvent {
                subscription: Arc::clone(subscription),
                page_id: page_id.to_owned(),
                event,
                standby,
                due: Instant::now() + after,
            });
        }
    }
}

/// Sends events when they are due, those of a Page together in one request.
async fn send_when_due(mut events: UnboundedReceiver<QueuedEvent>) {
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
        let mut pages: BTreeMap<String, Vec<QueuedEvent>> = BTreeMap::new();
        waiting.sort_by_key(|event| event.due);
        for event in waiting.extract_if(.., |event| event.due <= now) {
            let of_page = pages.entry(event.page_id.clone()).or_default();
            of_page.push(event);
        }
        for (page_id, events) in pages {
            let Some(subscription) = events.last().map(|event| Arc::clone(&event.subscription)) else {
                continue;
            };
            requests.spawn(async move { subscription.post(&page_id, events).await });
        }
    }
}
