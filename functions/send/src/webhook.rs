//! `/v1/webhooks/messenger`: what Messenger tells of its own accord. Echoes are proof of what was sent; what contacts write
//! tells when they were last heard of. Repeated, reordered and unknown events are harmless.

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
use shared::ids::ContactId;
use shared::secrets::signature;
use shared::settle::{Heard, settle_by_echo};
use shared::store;
use shared::store::deliveries::Metadata;
use subtle::ConstantTimeEq;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::problem::Problem;
use crate::request::whole;

/// Meta wants its answer within 5 s; what is not done by then is told again.
const TIME: Duration = Duration::from_secs(4);
/// Events worked on at once.
const AT_ONCE: usize = 32;

/// `GET /v1/webhooks/messenger`: Meta asks whether it may subscribe.
pub async fn verify(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
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
        _ => Err(forbidden("The verify token is not the one that is set.")),
    }
}

/// `POST /v1/webhooks/messenger`: events. 200 says that all of them were taken in; anything else has Meta send them again.
pub async fn receive(State(app): State<Arc<App>>, request: Request) -> Result<StatusCode, Problem> {
    let headers = request.headers().clone();
    let body = whole(request).await?;
    let secret = app.secrets.app_secret().await?;
    if !is_signed(secret.as_ref(), &headers, &body) {
        return Err(forbidden("The signature is not the app's."));
    }
    let Ok(notification) = serde_json::from_slice::<Notification>(&body) else {
        warn!("webhook: a notification that cannot be read");
        return Ok(StatusCode::OK);
    };
    let events = notification.entry.into_iter().flat_map(Entry::events);
    let events: Vec<_> = events.map(|event| take_in(&app, event)).collect();
    let all = stream::iter(events)
        .buffer_unordered(AT_ONCE)
        .fold(Taken::default(), |taken, one| async move { taken.and(one) });
    match timeout(TIME, all).await {
        Ok(Taken { failed: 0, settled }) => {
            if settled > 0 {
                info!(deliveries.settled = settled, "deliveries settled by echoes");
            }
            Ok(StatusCode::OK)
        }
        Ok(_) | Err(_) => {
            error!("webhook: not all events could be taken in; they will be sent again");
            let detail = "Not all events could be taken in. Send them again.";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    }
}

fn forbidden(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, detail)
}

/// Compares in a time that does not tell how much of it is right.
fn is_same(known: &SecretString, given: &str) -> bool {
    let known = known.expose_secret().as_bytes();
    known.ct_eq(given.as_bytes()).into()
}

/// `X-Hub-Signature-256: sha256=<hexadecimal HMAC of the bytes as they were received>`. Without a secret nothing is taken
/// for Meta's.
fn is_signed(secret: Option<&SecretString>, headers: &HeaderMap, body: &Bytes) -> bool {
    let given = headers.get("x-hub-signature-256");
    let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("sha256="));
    let right = secret.and_then(|secret| signature(secret, body));
    given
        .zip(right)
        .is_some_and(|(given, right)| right.as_bytes().ct_eq(given.as_bytes()).into())
}

#[derive(Deserialize)]
struct Notification {
    #[serde(default)]
    entry: Vec<Entry>,
}

/// What concerns one Page.
#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    messaging: Vec<Value>,
    /// The same, for a Page whose conversations another app has in hand.
    #[serde(default)]
    standby: Vec<Value>,
}

/// An event of a kind that matters here; others do not read as one.
#[derive(Deserialize)]
struct Event {
    #[serde(skip)]
    page_id: String,
    sender: Party,
    recipient: Party,
    /// Milliseconds since 1970.
    timestamp: i64,
    message: Option<Message>,
    postback: Option<IgnoredAny>,
    reaction: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Party {
    id: String,
}

#[derive(Deserialize)]
struct Message {
    mid: String,
    #[serde(default)]
    is_echo: bool,
    metadata: Option<String>,
}

impl Entry {
    fn events(self) -> impl Iterator<Item = Event> {
        let Self {
            id,
            messaging,
            standby,
        } = self;
        let events = messaging.into_iter().chain(standby);
        events.filter_map(move |event| {
            let event: Event = serde_json::from_value(event).ok()?;
            Some(Event {
                page_id: id.clone(),
                ..event
            })
        })
    }
}

/// What came of events.
#[derive(Default)]
struct Taken {
    settled: u64,
    failed: u64,
}

impl Taken {
    fn and(self, one: Result<Heard, store::Error>) -> Self {
        match one {
            Ok(Heard::Settled) => Self {
                settled: self.settled + 1,
                ..self
            },
            Ok(Heard::Known | Heard::Nothing) => self,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, "webhook: an event could not be taken in");
                Self {
                    failed: self.failed + 1,
                    ..self
                }
            }
        }
    }
}

async fn take_in(app: &App, event: Event) -> Result<Heard, store::Error> {
    match &event.message {
        Some(message) if message.is_echo => {
            let Some(metadata) = message.metadata.as_deref().and_then(Metadata::parse) else {
                return Ok(Heard::Nothing);
            };
            let page_id = metadata.job.page_id.as_str();
            let is_ours = [&event.page_id, &event.sender.id]
                .iter()
                .all(|id| *id == page_id)
                && event.recipient.id == metadata.contact_id.as_str()
                && !message.mid.is_empty();
            if !is_ours {
                return Ok(Heard::Nothing);
            }
            settle_by_echo(app, &metadata, &message.mid).await
        }
        None if event.postback.is_none() && event.reaction.is_none() => Ok(Heard::Nothing),
        Some(_) | None => {
            let contact_id = ContactId::parse(&event.sender.id);
            let at = Timestamp::from_millisecond(event.timestamp);
            if let (Ok(contact_id), Ok(at)) = (contact_id, at) {
                app.store.note_interaction(&contact_id, at).await?;
            }
            Ok(Heard::Nothing)
        }
    }
}
