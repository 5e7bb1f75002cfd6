//! `/v1/webhooks/messenger`: events that Messenger reports. An echo proves that a message was sent; a message of a contact
//! is its last interaction, and makes a contact of an unknown person. Repeated, reordered and unknown events are harmless.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use jiff::SignedDuration;
use secrecy::{ExposeSecret, SecretString};
use shared::app::App;
use shared::domain::consent::Consent;
use shared::domain::contact::Source;
use shared::reconcile::settle::{EchoResult, settle_by_echo};
use shared::runtime::metrics;
use shared::runtime::secrets::signature;
use shared::store;
use shared::store::found_contacts::{Added, NewContact};
use subtle::ConstantTimeEq;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::api::problems::{Forbidden, Kind, TooLarge, Unavailable};
use crate::problem::Problem;
use crate::request::whole_body;
use crate::webhook_events::{self, ConsentWords, Echo, Event, Interaction, Unreadable};

/// The time for the events of one call. Meta waits 5 s for the answer, and repeats the call after an error.
const MAX_TIME: Duration = Duration::from_secs(4);
/// The time for keeping that a Page's webhook was heard, which the answer waits for.
const NOTE_TIME: Duration = Duration::from_millis(500);
/// The number of events that are processed concurrently.
const EVENTS_AT_ONCE: usize = 32;
/// The age up to which an unreadable event that may be our echo is refused. Meta then repeats it, a few times at once: another
/// version of this function may read it. Later it is confirmed, so that the repetitions end: Meta warns after 15 minutes of
/// refused calls, and after an hour it sends the Page's events no more
/// (<https://developers.facebook.com/documentation/business-messaging/messenger-platform/webhooks>).
const MAX_REFUSED_AGE: SignedDuration = SignedDuration::from_mins(5);

/// `GET /v1/webhooks/messenger`: confirms the subscription that Meta verifies, by repeating its challenge
/// (<https://developers.facebook.com/docs/graph-api/webhooks/getting-started>).
///
/// # Errors
/// If the verify token is wrong or not configured (403), or cannot be read (503).
#[utoipa::path(
    get, path = "/v1/webhooks/messenger", operation_id = "verifyWebhook", tag = "webhooks",
    summary = "Confirm the subscription that Meta verifies",
    description = "Meta calls it once, when the webhook is set up.",
    params(
        ("hub.mode" = String, Query, description = "Always `subscribe`.", example = "subscribe"),
        ("hub.verify_token" = String, Query, description = "The verify token that is configured.", example = "a-long-random-word"),
        ("hub.challenge" = String, Query, description = "The text to answer with.", example = "1158201444"),
    ),
    responses(
        (status = 200, description = "The challenge.", body = String, content_type = "text/plain", example = "1158201444"),
        (status = 403, response = Forbidden),
        (status = 503, response = Unavailable),
    ),
    security(()),
)]
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
/// If the body is too large (413), the signature is not the app's (403), the app secret cannot be read (503), not all events
/// could be processed in time (503), or a new event that may be our echo cannot be read (503).
#[utoipa::path(
    post, path = "/v1/webhooks/messenger", operation_id = "receiveWebhook", tag = "webhooks",
    summary = "Process events of Messenger",
    description = "200 confirms all events of the call; after any other answer, Meta sends them again.",
    params((
        "X-Hub-Signature-256" = String, Header, description = "`sha256=` and the HMAC of the body with the app secret.",
        example = "sha256=0f0c8a2f4a51a3bd1c1c32a1c9bb6d3f6f8f6e0e6d0d4d9a3b3e5c7a1b2c3d4e",
    )),
    request_body(content = Object, description = "The events, as Messenger writes them.", example = json!({
        "object": "page",
        "entry": [{"id": "page-1", "time": 1_764_550_802_125_u64, "messaging": [{
            "sender": {"id": "6001"}, "recipient": {"id": "page-1"}, "timestamp": 1_764_550_802_125_u64,
            "message": {"mid": "m_AbC", "text": "Thank you"}
        }]}]
    })),
    responses(
        (status = 200, description = "All events are processed."),
        (status = 403, response = Forbidden),
        (status = 413, response = TooLarge),
        (status = 503, response = Unavailable),
    ),
    security(()),
)]
pub async fn receive(State(app): State<Arc<App>>, request: Request) -> Result<StatusCode, Problem> {
    let headers = request.headers().clone();
    let body = whole_body(request).await?;
    let secret = app.secrets.app_secret().await?;
    if !is_signed(secret.as_ref(), &headers, &body) {
        return Err(forbidden("The signature is not the app's."));
    }
    let words = ConsentWords {
        opt_out: &app.config.opt_out_words,
        opt_in: &app.config.opt_in_words,
    };
    let events = webhook_events::read(&body, words);
    let is_confirmed = confirm_unreadable(&app, &events);
    let processed = timeout(MAX_TIME, process_all(&app, events)).await;
    if processed.is_ok() {
        // After the events: one of them may have made the first contact of its Page.
        note_pages(&app, &body).await;
    }
    match processed {
        Ok(Processed { failed: 0, settled }) if is_confirmed => {
            if settled > 0 {
                info!(deliveries.settled = settled, "deliveries settled by echoes");
            }
            Ok(StatusCode::OK)
        }
        Ok(_) | Err(_) => {
            error!("not all events of a webhook call could be processed; Meta sends them again");
            let detail = "Not all events could be processed. Send them again.";
            Err(Problem::new(Kind::Unavailable, detail))
        }
    }
}

/// Keeps the time of the call, for each Page that it names, where an operator sees it. Nothing depends on it, so a failure is only
/// logged.
async fn note_pages(app: &App, body: &Bytes) {
    let (pages, now) = (app.store.pages(), app.clock.now());
    let ids: Vec<_> = webhook_events::pages(body).into_iter().collect();
    let notes = stream::iter(&ids).for_each_concurrent(EVENTS_AT_ONCE, async |page_id| {
        if let Err(error) = pages.note_webhook(page_id, now).await {
            let error: &dyn std::error::Error = &error;
            warn!(error, page.id = %page_id, "time of a webhook call not kept; the next call keeps its own");
        }
    });
    // The next call of a Page does what was not done in time.
    drop(timeout(NOTE_TIME, notes).await);
}

/// Counts and logs the events that cannot be read. Returns `false` if one of them may be our echo and is new, so that Meta
/// should send it again; without a time, nothing would end the repetitions.
fn confirm_unreadable(app: &App, events: &[Event]) -> bool {
    let unreadable = events.iter().filter_map(|event| match event {
        Event::Unreadable(unreadable) => Some(unreadable),
        Event::Echo(_) | Event::Interaction(_) => None,
    });
    let unreadable: Vec<&Unreadable> = unreadable.collect();
    if unreadable.is_empty() {
        return true;
    }
    let count = unreadable.len() as u64;
    app.metrics.count(metrics::Event::WebhookEventsUnreadable, count);
    let now = app.clock.now();
    let echoes = || unreadable.iter().filter(|event| event.may_be_our_echo);
    let may_be_echoes = echoes().count();
    warn!(
        events.unreadable = count,
        events.may_be_echoes = may_be_echoes,
        "webhook events not readable: a delivery whose echo is among them is settled by a lookup only; report their form"
    );
    let is_new = |event: &&Unreadable| {
        let age = event.sent_at.map(|at| now.duration_since(at).abs());
        age.is_some_and(|age| age <= MAX_REFUSED_AGE)
    };
    !echoes().any(is_new)
}

fn forbidden(detail: &str) -> Problem {
    Problem::new(Kind::Forbidden, detail)
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
            Ok(EchoResult::Known | EchoResult::Contradicted | EchoResult::Nothing) => self,
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

async fn process_all(app: &App, events: Vec<Event>) -> Processed {
    let events = without_old_news(app, events).await.into_iter();
    let events: Vec<_> = events.map(|event| process(app, event)).collect();
    stream::iter(events)
        .buffer_unordered(EVENTS_AT_ONCE)
        .fold(Processed::default(), |processed, one| async move { processed.and(one) })
        .await
}

/// Leaves out the echoes of deliveries that are known to have arrived, which are nearly all echoes: the worker has recorded the
/// answer by then. One request reads a hundred of their rows. It may be behind, so of all others the row is read again.
async fn without_old_news(app: &App, mut events: Vec<Event>) -> Vec<Event> {
    let echoes = events.iter().filter_map(|event| match event {
        Event::Echo(echo) => Some(&echo.metadata),
        Event::Interaction(_) | Event::Unreadable(_) => None,
    });
    match app.store.deliveries().arrived_among(&echoes.collect::<Vec<_>>()).await {
        Ok(arrived) => events.retain(|event| match event {
            Event::Echo(echo) => !arrived.contains(&echo.metadata.key()),
            Event::Interaction(_) | Event::Unreadable(_) => true,
        }),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            warn!(error, "rows of echoes not read together; each is read by itself");
        }
    }
    events
}

async fn process(app: &App, event: Event) -> Result<EchoResult, store::Error> {
    match event {
        Event::Echo(echo) => settle(app, &echo).await,
        Event::Interaction(interaction) => {
            record(app, &interaction).await?;
            Ok(EchoResult::Nothing)
        }
        Event::Unreadable(_) => Ok(EchoResult::Nothing),
    }
}

/// Records an interaction and the change of consent that the contact asks for by it. An unknown person becomes a contact, if that
/// is configured and the event tells its Page.
async fn record(app: &App, interaction: &Interaction) -> Result<(), store::Error> {
    let Interaction {
        contact_id,
        page_id,
        at,
        consent,
    } = interaction;
    let contacts = app.store.contacts();
    let page_id = page_id.as_ref().filter(|_| app.config.contacts_from_webhooks);
    if let Some(page_id) = page_id {
        let new = NewContact {
            contact_id: contact_id.clone(),
            page_id: page_id.clone(),
            name: None,
            last_interaction_at: Some(*at),
            opted_out: *consent == Some(Consent::OptOut),
            source: Source::Webhook,
        };
        if contacts.add(&new).await? == Added::OnAnotherPage {
            warn!(
                contact.id = %contact_id, page.id = %page_id,
                "interaction not recorded, since the contact is stored on another Page: delete it, and it comes back on this one"
            );
        }
    }
    if let Some(consent) = *consent {
        let is_changed = contacts.change_consent_if_later(contact_id, consent, *at).await?;
        info!(contact.id = %contact_id, ?consent, is_changed, "contact asked to opt out or in");
    }
    if page_id.is_none() {
        contacts.record_interaction_if_later(contact_id, *at).await?;
    }
    Ok(())
}

/// Settles the delivery that an echo names in its metadata, if the event agrees with it on the Page and the contact.
async fn settle(app: &App, echo: &Echo) -> Result<EchoResult, store::Error> {
    let metadata = &echo.metadata;
    if !echo.is_from(&metadata.job.page_id) || !echo.is_to(&metadata.contact_id) {
        return Ok(EchoResult::Nothing);
    }
    settle_by_echo(app, metadata, &echo.message_id).await
}
