//! `/v1/webhooks/messenger`: events that Messenger reports. An echo proves that a message was sent; a message of a contact
//! is its last interaction. Repeated, reordered and unknown events are harmless.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use shared::app::App;
use shared::domain::delivery::Metadata;
use shared::domain::ids::{ContactId, PageId};
use shared::reconcile::settle::{EchoResult, settle_by_echo};
use shared::runtime::secrets::signature;
use shared::store;
use subtle::ConstantTimeEq;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::problem::Problem;
use crate::request::whole_body;

/// The time for the events of one call. Meta waits 5 s for the answer, and repeats the call after an error.
const MAX_TIME: Duration = Duration::from_secs(4);
/// The number of events that are processed concurrently.
const EVENTS_AT_ONCE: usize = 32;

/// `GET /v1/webhooks/messenger`: confirms the subscription that Meta verifies, by repeating its challenge
/// (<https://developers.facebook.com/docs/graph-api/webhooks/getting-started>).
///
/// # Errors
/// If the verify token is wrong or not configured (403), or cannot be read (503).
pub async fn verify(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let query = query.unwrap_or_default();
    let parameter = |wanted| {
        let mut parameters = form_urlencoded::parse(query.as_bytes());
        parameters.find_map(|(name, value)| (name == wanted).then_some(value))
    };
    let known = app.secrets.verify_token().await?;
    let is_known = known
        .as_ref()
        .zip(parameter("hub.verify_token"))
        .is_some_and(|(known, given)| is_same(known, &given));
    match parameter("hub.challenge") {
        Some(challenge) if is_known && parameter("hub.mode").as_deref() == Some("subscribe") => {
            let headers = [
                (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            Ok((headers, challenge.into_owned()).into_response())
        }
        _ => Err(forbidden("The verify token is not the configured one.")),
    }
}

/// `POST /v1/webhooks/messenger`: processes events. Status 200 confirms all of them; after any other, Meta sends them again.
///
/// # Errors
/// If the body is too large (413), the signature is not the app's (403), the app secret cannot be read (503), or not all
/// events could be processed in time (503).
pub async fn receive(State(app): State<Arc<App>>, request: Request) -> Result<StatusCode, Problem> {
    let headers = request.headers().clone();
    let body = whole_body(request).await?;
    let secret = app.secrets.app_secret().await?;
    if !is_signed(secret.as_ref(), &headers, &body) {
        return Err(forbidden("The signature is not the app's."));
    }
    let Ok(notification) = serde_json::from_slice::<Notification>(&body) else {
        warn!("webhook call ignored: its body is not a notification of Messenger");
        return Ok(StatusCode::OK);
    };
    let events = notification.entry.into_iter().flat_map(PageEvents::events);
    let events: Vec<_> = events.map(|event| process(&app, event)).collect();
    let all = stream::iter(events)
        .buffer_unordered(EVENTS_AT_ONCE)
        .fold(Processed::default(), |processed, one| async move { processed.and(one) });
    match timeout(MAX_TIME, all).await {
        Ok(Processed { failed: 0, settled }) => {
            if settled > 0 {
                info!(deliveries.settled = settled, "deliveries settled by echoes");
            }
            Ok(StatusCode::OK)
        }
        Ok(_) | Err(_) => {
            error!("not all events of a webhook call could be processed; Meta sends them again");
            let detail = "Not all events could be processed. Send them again.";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    }
}

fn forbidden(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, detail)
}

/// Compares in constant time, so that the duration does not reveal how many characters are right.
fn is_same(known: &SecretString, given: &str) -> bool {
    let known = known.expose_secret().as_bytes();
    known.ct_eq(given.as_bytes()).into()
}

/// Checks the header `X-Hub-Signature-256: sha256=<hexadecimal HMAC of the body as it was received>`. Without a secret
/// nothing counts as signed.
fn is_signed(secret: Option<&SecretString>, headers: &HeaderMap, body: &Bytes) -> bool {
    let given = headers.get("x-hub-signature-256");
    let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("sha256="));
    let expected = secret.and_then(|secret| signature(secret, body));
    given
        .zip(expected)
        .is_some_and(|(given, expected)| expected.as_bytes().ct_eq(given.as_bytes()).into())
}

/// The body of a call.
#[derive(Deserialize)]
struct Notification {
    #[serde(default)]
    entry: Vec<PageEvents>,
}

/// The events of one Page.
#[derive(Deserialize)]
struct PageEvents {
    id: String,
    #[serde(default)]
    messaging: Vec<Value>,
    /// The same kind of events, for a Page whose conversations another app controls.
    #[serde(default)]
    standby: Vec<Value>,
}

/// An event of a conversation. Events of other kinds fail to parse, and are ignored.
#[derive(Deserialize)]
struct ConversationEvent {
    #[serde(skip)]
    page_id: String,
    sender: Party,
    recipient: Party,
    /// Milliseconds of the epoch.
    timestamp: i64,
    message: Option<EventMessage>,
    postback: Option<IgnoredAny>,
    reaction: Option<IgnoredAny>,
}

impl ConversationEvent {
    /// Returns true if the event is reported for this Page, and the Page is the sender.
    fn is_from(&self, page_id: &PageId) -> bool {
        [&self.page_id, &self.sender.id]
            .iter()
            .all(|id| *id == page_id.as_str())
    }

    /// Returns true if this contact is the recipient.
    fn is_to(&self, contact_id: &ContactId) -> bool {
        self.recipient.id == contact_id.as_str()
    }
}

#[derive(Deserialize)]
struct Party {
    id: String,
}

#[derive(Deserialize)]
struct EventMessage {
    mid: String,
    #[serde(default)]
    is_echo: bool,
    metadata: Option<String>,
}

impl PageEvents {
    fn events(self) -> impl Iterator<Item = ConversationEvent> {
        let Self { id, messaging, standby } = self;
        let events = messaging.into_iter().chain(standby);
        events.filter_map(move |event| {
            let event: ConversationEvent = serde_json::from_value(event).ok()?;
            Some(ConversationEvent {
                page_id: id.clone(),
                ..event
            })
        })
    }
}

/// The number of events by result.
#[derive(Default)]
struct Processed {
    settled: u64,
    failed: u64,
}

impl Processed {
    fn and(self, one: Result<EchoResult, store::Error>) -> Self {
        match one {
            Ok(EchoResult::Settled) => Self {
                settled: self.settled + 1,
                ..self
            },
            Ok(EchoResult::Known | EchoResult::Nothing) => self,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, "webhook event not processed");
                Self {
                    failed: self.failed + 1,
                    ..self
                }
            }
        }
    }
}

async fn process(app: &App, event: ConversationEvent) -> Result<EchoResult, store::Error> {
    match &event.message {
        Some(message) if message.is_echo => settle(app, &event, message).await,
        None if event.postback.is_none() && event.reaction.is_none() => Ok(EchoResult::Nothing),
        Some(_) | None => {
            record_interaction(app, &event).await?;
            Ok(EchoResult::Nothing)
        }
    }
}

/// Settles the delivery that an echo names in its metadata, if the event agrees with it on the Page and the contact.
async fn settle(app: &App, event: &ConversationEvent, message: &EventMessage) -> Result<EchoResult, store::Error> {
    let Some(metadata) = message.metadata.as_deref().and_then(Metadata::parse) else {
        return Ok(EchoResult::Nothing);
    };
    let is_ours = event.is_from(&metadata.job.page_id) && event.is_to(&metadata.contact_id) && !message.mid.is_empty();
    if !is_ours {
        return Ok(EchoResult::Nothing);
    }
    settle_by_echo(app, &metadata, &message.mid).await
}

async fn record_interaction(app: &App, event: &ConversationEvent) -> Result<(), store::Error> {
    let contact_id = ContactId::parse(&event.sender.id);
    let at = Timestamp::from_millisecond(event.timestamp);
    if let (Ok(contact_id), Ok(at)) = (contact_id, at) {
        let contacts = app.store.contacts();
        contacts.record_interaction_if_later(&contact_id, at).await?;
    }
    Ok(())
}
