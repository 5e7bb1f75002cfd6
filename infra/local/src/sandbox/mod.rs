//! The sandbox, a stand-in for Messenger with the Send API, the Conversations API, profiles and webhooks. It keeps the messages
//! that contacts receive, and fails on request.
//!
//! Below `/sandbox/…` other processes read the ledger and set the faults: see `control`.

mod access;
mod answers;
mod control;
mod conversations;
mod faults;
mod inbox;
mod ledger;
mod peak;
mod profiles;
mod received;
mod request;
mod send_api;
mod signature;
mod state;
mod webhooks;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::Request;
use hyper::service::{Service as _, service_fn};
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde_json::{Map, Value, json};
use shared::runtime::clock::Clock;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use self::access::Credentials;
use self::conversations::calls::LookupCalls;
use self::conversations::routes::{self, ReadQuery};
use self::state::SandboxState;
use self::webhooks::{Subscription, Webhooks};
use crate::server::{self, Rules, Server};

pub use self::conversations::message::ForeignMessage;
pub use self::conversations::people::People;
pub use self::faults::{Answer, Fault, Faults, GraphError, Operation};
pub use self::ledger::Summary;
pub use self::received::{MessagingType, NotificationType, Received};
pub use self::webhooks::{Echoes, SubscribeError};

/// The number of connections that may wait to be accepted.
const PENDING_CONNECTIONS: u32 = 1_024;

/// A running sandbox.
#[derive(Debug)]
pub struct Sandbox {
    state: Arc<SandboxState>,
    /// The task that sends the webhooks, which ends with the sandbox.
    _webhooks: JoinSet<()>,
    port: u16,
    server: tokio::sync::Mutex<Reachability>,
}

/// The sandbox's server, or its port while the sandbox is unreachable.
#[derive(Debug)]
enum Reachability {
    Reachable(Server),
    /// The port is occupied where that is possible. Otherwise another program that binds any free port could receive
    /// the messages that are sent to Messenger.
    Unreachable(Option<TcpSocket>),
}

impl Sandbox {
    /// Starts a sandbox on a free port. `tokens` are the Page access tokens by Page id; other Pages do not exist.
    ///
    /// # Errors
    ///
    /// Fails if no port is available.
    pub async fn start(tokens: BTreeMap<String, String>) -> io::Result<Sandbox> {
        Sandbox::start_by(tokens, Clock::default()).await
    }

    /// Starts a sandbox with a clock that the caller may set ahead.
    ///
    /// # Errors
    ///
    /// Fails if no port is available.
    pub async fn start_by(tokens: BTreeMap<String, String>, clock: Clock) -> io::Result<Sandbox> {
        let (webhooks, sending) = Webhooks::new();
        let state = Arc::new(SandboxState::new(tokens, webhooks, clock));
        let server = serve(server::bind(0).await?, &state)?;
        Ok(Sandbox {
            state,
            _webhooks: JoinSet::from_iter([sending]),
            port: server.address().port(),
            server: tokio::sync::Mutex::new(Reachability::Reachable(server)),
        })
    }

    /// Returns the base URL of all Messenger calls, the value of `GRAPH_API_URL`.
    pub fn url(&self) -> String {
        format!("{}/v25.0", self.root_url())
    }

    /// Returns the base URL of the control API.
    pub fn control_url(&self) -> String {
        format!("{}/sandbox", self.root_url())
    }

    fn root_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the messages that contacts received, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.state.contents().received.clone()
    }

    /// Returns the number of messages that contacts received.
    pub fn received_count(&self) -> usize {
        self.state.contents().received.len()
    }

    /// Returns the ledger in numbers.
    pub fn summary(&self) -> Summary {
        self.state.contents().summary()
    }

    /// Empties the ledger and all conversations.
    pub fn forget_messages(&self) {
        self.state.contents().forget_messages();
    }

    /// Sets a Page's access token, in place of any other. A Page that is new exists from now on.
    pub fn set_token(&self, page_id: &str, token: &str) {
        let access = &mut self.state.contents().access;
        access.set_token(page_id.to_owned(), token.into());
    }

    /// Makes a Page's token invalid, as Meta does when a password changes. Returns false if there is no such Page.
    pub fn revoke_token(&self, page_id: &str) -> bool {
        let access = &mut self.state.contents().access;
        access.set_revoked(page_id, true)
    }

    /// Makes a revoked token valid again. Returns false if there is no such Page.
    pub fn restore_token(&self, page_id: &str) -> bool {
        let access = &mut self.state.contents().access;
        access.set_revoked(page_id, false)
    }

    /// Checks the `appsecret_proof` of calls from now on. With `required`, calls without one are refused.
    pub fn check_proofs(&self, app_secret: &str, required: bool) {
        let access = &mut self.state.contents().access;
        access.set_app_secret(Some(app_secret.into()), required);
    }

    /// Sends events of all messages to this URL from now on, signed with the app secret. Without a subscriber no events
    /// are sent.
    ///
    /// # Errors
    ///
    /// Fails if the HTTP client cannot be set up.
    pub fn subscribe(&self, url: &str, app_secret: &str) -> Result<(), SubscribeError> {
        let subscription = Subscription::new(url.to_owned(), app_secret.into())?;
        self.state.subscribe(subscription);
        Ok(())
    }

    /// Subscribes the URL as [`Sandbox::subscribe`] does, after it has proved that it knows the verify token, as Meta
    /// requires.
    ///
    /// # Errors
    ///
    /// Fails if the URL cannot be reached or does not answer with the challenge.
    pub async fn verify_and_subscribe(
        &self,
        url: &str,
        app_secret: &str,
        verify_token: &str,
    ) -> Result<(), SubscribeError> {
        let subscription = Subscription::new(url.to_owned(), app_secret.into())?;
        subscription.verify(&verify_token.into()).await?;
        self.state.subscribe(subscription);
        Ok(())
    }

    /// Removes the subscriber.
    pub fn unsubscribe(&self) {
        self.state.contents().webhooks.subscription = None;
    }

    /// Sets the way in which echoes are sent: repeated, in random order or on standby. Faults on [`Operation::Echo`]
    /// delay them or lose them.
    pub fn set_echoes(&self, echoes: Echoes) {
        self.state.contents().webhooks.echoes = echoes;
    }

    /// Adds a message that Oncecast did not send to a conversation, and returns its id. [`Sandbox::received`] does not
    /// contain it.
    pub fn add_message(&self, message: ForeignMessage) -> String {
        self.state.contents().add_foreign(message)
    }

    /// Gives the Page these people, in place of those that it had. The cursors of its list are forgotten.
    pub fn set_people(&self, page_id: &str, people: People) {
        self.state.contents().set_people(page_id, people);
    }

    /// Forgets the cursors of the list of the Page's conversations, as Messenger does after some time.
    pub fn expire_cursors(&self, page_id: &str) {
        self.state.contents().expire_cursors(page_id);
    }

    /// Hides every message from lookups until it has this age, because Messenger's own view lags too.
    pub fn set_visible_after_ms(&self, visible_after_ms: u64) {
        self.state.contents().visible_after_ms = visible_after_ms;
    }

    /// Returns the number of calls of the Conversations API, including those above the rate limit.
    pub fn conversation_calls(&self) -> usize {
        self.state.contents().calls.count()
    }

    /// Returns the times of the calls of the Conversations API for a Page, in milliseconds since 1970.
    pub fn conversation_call_times(&self, page_id: &str) -> Vec<i64> {
        self.state.contents().calls.times(page_id)
    }

    /// Forgets the calls of the Conversations API, so that the next ones are within the rate limit.
    pub fn forget_conversation_calls(&self) {
        self.state.contents().calls = LookupCalls::default();
    }

    /// Returns the largest number of calls of the Conversations API by one Page within a second, as the limit counts them.
    pub fn peak_conversation_calls_per_second(&self) -> usize {
        self.state.contents().calls.peak_per_second()
    }

    /// Sets the profile of a contact, of which only these fields are known.
    pub fn set_profile(&self, contact_id: &str, profile: Map<String, Value>) {
        let profiles = &mut self.state.contents().profiles;
        profiles.by_contact.insert(contact_id.to_owned(), profile);
    }

    /// Refuses calls for profiles that ask for one of these fields, since the app lacks the permission.
    pub fn refuse_profile_fields(&self, fields: &[&str]) {
        let profiles = &mut self.state.contents().profiles;
        profiles.refused_fields = fields.iter().map(|field| (*field).to_owned()).collect();
    }

    /// Returns the contact and the fields of each call for a profile.
    pub fn profile_calls(&self) -> Vec<(String, String)> {
        self.state.contents().profiles.calls.clone()
    }

    /// Adds a fault after the active ones.
    pub fn add_fault(&self, fault: Fault) {
        self.state.contents().faults.faults.push(fault);
    }

    /// Replaces all faults and the latency of every answer.
    pub fn set_faults(&self, faults: Faults) {
        self.state.contents().faults = faults;
    }

    /// Removes all faults and the latency of every answer.
    pub fn clear_faults(&self) {
        self.set_faults(Faults::default());
    }

    /// Sets the latency of every answer.
    pub fn set_latency_ms(&self, latency_ms: u64) {
        self.state.contents().faults.latency_ms = latency_ms;
    }

    /// Returns the largest number of sends that were in flight at the same time since the start.
    pub fn peak_in_flight(&self) -> usize {
        self.state.peak_in_flight()
    }

    /// Stops listening: closes all connections and refuses new ones.
    pub async fn unreachable(&self) {
        let mut server = self.server.lock().await;
        if let Reachability::Reachable(server) = std::mem::replace(&mut *server, Reachability::Unreachable(None)) {
            server.stop().await;
        }
        if let Reachability::Unreachable(kept @ None) = &mut *server {
            *kept = server::keep(self.port).ok();
        }
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    ///
    /// Fails if the port could not be kept and another program has it.
    pub async fn reachable(&self) -> io::Result<()> {
        let mut server = self.server.lock().await;
        let listener = match &mut *server {
            Reachability::Reachable(_) => return Ok(()),
            Reachability::Unreachable(kept) => match kept.take() {
                Some(kept) => kept.listen(PENDING_CONNECTIONS)?,
                None => server::bind(self.port).await?,
            },
        };
        *server = Reachability::Reachable(serve(listener, &self.state)?);
        Ok(())
    }
}

fn serve(listener: TcpListener, state: &Arc<SandboxState>) -> io::Result<Server> {
    let router = Router::new()
        // The Graph API calls a Page, a contact and a conversation a node, and axum wants one name for the parameter.
        .route("/v25.0/{node}", get(read_node))
        .route("/v25.0/{node}/conversations", get(routes::find))
        .route("/v25.0/{node}/subscribed_apps", get(subscribed_apps))
        .route(
            "/v25.0/{node}/messages",
            post(send_api::send_message).get(routes::messages),
        )
        .nest("/sandbox", control::routes())
        .with_state(Arc::clone(state));
    let router = TowerToHyperService::new(router);
    let state = Arc::clone(state);
    let service = service_fn(move |request: Request<Body>| {
        let (answer, state) = (router.call(request), Arc::clone(&state));
        async move { answer_or_close(dated(answer.await?, &state)) }
    });
    Server::serve(listener, service, Rules::default())
}

/// Lists the app as subscribed to the events that the sandbox sends, if it has a subscriber.
async fn subscribed_apps(
    State(state): State<Arc<SandboxState>>,
    Path(page_id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<Value>, GraphError> {
    let contents = state.contents();
    contents
        .access
        .check(&page_id, &Credentials::read(&headers, &uri, None))?;
    let fields = ["messages", "messaging_postbacks", "message_echoes"];
    let app = json!({"id": "1", "subscribed_fields": fields});
    let apps: Vec<_> = contents.webhooks.subscription.iter().map(|_| app.clone()).collect();
    Ok(Json(json!({ "data": apps })))
}

/// Reads a conversation, or the profile of a contact: that has other fields than messages.
async fn read_node(
    state: State<Arc<SandboxState>>,
    node: Path<String>,
    headers: HeaderMap,
    uri: Uri,
    query: Query<ReadQuery>,
) -> Result<Response, GraphError> {
    match &query.fields {
        Some(fields) if !fields.starts_with("messages") => {
            show_profile(&state, &node, fields, &Credentials::read(&headers, &uri, None)).await
        }
        _ => routes::read(state, node, headers, uri, query).await,
    }
}

async fn show_profile(
    state: &SandboxState,
    contact_id: &str,
    fields: &str,
    caller: &Credentials,
) -> Result<Response, GraphError> {
    let (treatment, profile) = {
        let mut contents = state.contents();
        let page_id = contents.access.page_of(caller)?;
        let treatment = contents.faults.take(Operation::Profile, &page_id, contact_id);
        let profiles = &mut contents.profiles;
        profiles.calls.push((contact_id.to_owned(), fields.to_owned()));
        (treatment, profiles.shown(contact_id, fields)?)
    };
    Ok(treatment.answer(Json(profile).into_response()).await)
}

/// Returns the answer with its time by the sandbox's clock, which callers compare with their own.
fn dated(mut answer: Response, state: &SandboxState) -> Response {
    let now = Timestamp::from_millisecond(state.contents().now_ms()).unwrap_or_default();
    let now = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now);
    if let Some(now) = now.ok().and_then(|now| now.parse().ok()) {
        answer.headers_mut().insert(header::DATE, now);
    }
    answer
}

/// Returns the answer, or an error if it must not be sent. The error makes the server close the connection.
fn answer_or_close(response: Response) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
    match response.extensions().get::<answers::Unanswered>() {
        Some(_) => Err("the connection is closed without an answer because of an injected fault".into()),
        None => Ok(response),
    }
}

#[cfg(test)]
mod tests;
