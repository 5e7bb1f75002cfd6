//! Messenger as a sandbox, the Send API, the Conversations API and webhooks: it keeps what contacts receive, and fails on
//! request.
//!
//! `/sandbox/…` shows the ledger and sets the faults, for whoever works with the sandbox from outside: see `control`.

mod access;
mod answers;
mod control;
mod conversations;
mod faults;
mod ledger;
mod request;
mod send_api;
mod webhooks;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::response::Response;
use axum::routing::{get, post};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::service::TowerToHyperService;
use shared::clock::Clock;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use self::access::Access;
use self::conversations::{Calls, Message};
use self::webhooks::{Subscription, Webhooks};
use crate::server::{self, Server};

pub use self::conversations::ForeignMessage;
pub use self::faults::{Answer, Fault, Faults, GraphError, Operation};
pub use self::ledger::{Received, Summary};
pub use self::request::{MessagingType, NotificationType};
pub use self::webhooks::{Echoes, SubscribeError};

/// A running sandbox.
#[derive(Debug)]
pub struct Sandbox {
    messenger: Arc<Messenger>,
    /// Ends with the sandbox.
    _webhooks: JoinSet<()>,
    port: u16,
    server: tokio::sync::Mutex<Listening>,
}

/// Whether the sandbox can be reached.
#[derive(Debug)]
enum Listening {
    Now(Server),
    /// The port is kept, where that is possible, lest another program that takes any free one gets what is sent to
    /// Messenger.
    NotNow(Option<TcpSocket>),
}

impl Sandbox {
    /// Starts on a free port. `tokens` are the Page access tokens by Page id; other Pages do not exist.
    pub async fn start(tokens: BTreeMap<String, String>) -> io::Result<Sandbox> {
        Sandbox::start_by(tokens, Clock::default()).await
    }

    /// The same, by a clock that somebody may set ahead.
    pub async fn start_by(tokens: BTreeMap<String, String>, clock: Clock) -> io::Result<Sandbox> {
        let (webhooks, deliver) = Webhooks::new();
        let mut delivering = JoinSet::new();
        delivering.spawn(deliver);
        let messenger = Arc::new(Messenger {
            contents: Mutex::new(Contents::new(tokens, webhooks, clock)),
            in_flight: AtomicUsize::new(0),
            peak_in_flight: AtomicUsize::new(0),
        });
        let server = serve(server::bind(0).await?, &messenger)?;
        Ok(Sandbox {
            messenger,
            _webhooks: delivering,
            port: server.address().port(),
            server: tokio::sync::Mutex::new(Listening::Now(server)),
        })
    }

    /// The base of all Messenger calls, for `GRAPH_API_URL`.
    pub fn url(&self) -> String {
        format!("{}/v25.0", self.root_url())
    }

    /// The base of the ledger and the faults.
    pub fn control_url(&self) -> String {
        format!("{}/sandbox", self.root_url())
    }

    fn root_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Every message that a contact received, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.messenger.contents().received.clone()
    }

    /// How many messages contacts received.
    pub fn received_count(&self) -> usize {
        self.messenger.contents().received.len()
    }

    /// The ledger in numbers.
    pub fn summary(&self) -> Summary {
        self.messenger.contents().summary()
    }

    /// Empties the ledger and all conversations.
    pub fn forget_messages(&self) {
        self.messenger.contents().forget_messages();
    }

    /// Gives a Page this access token in place of any other; a Page that is new exists from now on.
    pub fn set_token(&self, page_id: &str, token: &str) {
        let access = &mut self.messenger.contents().access;
        access.set_token(page_id.to_owned(), token.into());
    }

    /// Makes a Page's token invalid, as Meta does when a password changes; whether there is such a Page.
    pub fn revoke_token(&self, page_id: &str) -> bool {
        let access = &mut self.messenger.contents().access;
        access.set_revoked(page_id, true)
    }

    /// Makes the same token valid again; whether there is such a Page.
    pub fn restore_token(&self, page_id: &str) -> bool {
        let access = &mut self.messenger.contents().access;
        access.set_revoked(page_id, false)
    }

    /// Checks the proofs that come with calls; `required` refuses calls without one.
    pub fn check_proofs(&self, app_secret: &str, required: bool) {
        let access = &mut self.messenger.contents().access;
        access.set_app_secret(Some(app_secret.into()), required);
    }

    /// Tells this URL of every message from now on, signed with the app's secret. Without it nobody is told.
    pub fn subscribe(&self, url: &str, app_secret: &str) -> Result<(), SubscribeError> {
        let subscription = Subscription::new(url.to_owned(), app_secret.into())?;
        self.messenger.subscribe(subscription);
        Ok(())
    }

    /// The same, once the URL has shown that it knows the verify token, as Meta subscribes an app.
    pub async fn verify_and_subscribe(
        &self,
        url: &str,
        app_secret: &str,
        verify_token: &str,
    ) -> Result<(), SubscribeError> {
        let subscription = Subscription::new(url.to_owned(), app_secret.into())?;
        subscription.verify(&verify_token.into()).await?;
        self.messenger.subscribe(subscription);
        Ok(())
    }

    /// Tells nobody any more.
    pub fn unsubscribe(&self) {
        self.messenger.contents().webhooks.subscription = None;
    }

    /// Lets echoes come repeated, in any order or on standby. Faults on [`Operation::Echo`] make them late, or lose them.
    pub fn set_echoes(&self, echoes: Echoes) {
        self.messenger.contents().webhooks.echoes = echoes;
    }

    /// Puts a message that Oncecast did not send into a conversation; its id. [`Sandbox::received`] does not show it.
    pub fn add_message(&self, message: ForeignMessage) -> String {
        self.messenger.contents().add_foreign(message)
    }

    /// Hides every message from look-ups until it is so old: Messenger's own view lags, too.
    pub fn set_visible_after_ms(&self, visible_after_ms: u64) {
        self.messenger.contents().visible_after_ms = visible_after_ms;
    }

    /// How many calls of the Conversations API were made, those above the limit included.
    pub fn conversation_calls(&self) -> usize {
        self.messenger.contents().calls.count()
    }

    /// Forgets those calls, so that the next ones are within the limit.
    pub fn forget_conversation_calls(&self) {
        self.messenger.contents().calls = Calls::default();
    }

    /// The most of those calls by one Page within any one second.
    pub fn peak_conversation_calls_per_second(&self) -> usize {
        self.messenger.contents().calls.peak_per_second()
    }

    /// Adds a fault behind those in force.
    pub fn add_fault(&self, fault: Fault) {
        self.messenger.contents().faults.faults.push(fault);
    }

    /// Replaces all faults and the base latency.
    pub fn set_faults(&self, faults: Faults) {
        self.messenger.contents().faults = faults;
    }

    /// Ends all faults and the base latency.
    pub fn clear_faults(&self) {
        self.set_faults(Faults::default());
    }

    /// Lets every answer take this long.
    pub fn set_latency_ms(&self, latency_ms: u64) {
        self.messenger.contents().faults.latency_ms = latency_ms;
    }

    /// The most sends that were under way at once, since the start.
    pub fn peak_in_flight(&self) -> usize {
        self.messenger.peak_in_flight.load(Ordering::SeqCst)
    }

    /// Stops listening: connections are cut, and new ones refused.
    pub async fn unreachable(&self) {
        let mut listening = self.server.lock().await;
        if let Listening::Now(server) = std::mem::replace(&mut *listening, Listening::NotNow(None))
        {
            server.stop().await;
        }
        if let Listening::NotNow(kept @ None) = &mut *listening {
            *kept = server::keep(self.port).ok();
        }
    }

    /// Listens again on the same port.
    pub async fn reachable(&self) -> io::Result<()> {
        let mut listening = self.server.lock().await;
        let listener = match &mut *listening {
            Listening::Now(_) => return Ok(()),
            Listening::NotNow(kept) => match kept.take() {
                Some(kept) => kept.listen(BACKLOG)?,
                None => server::bind(self.port).await?,
            },
        };
        *listening = Listening::Now(serve(listener, &self.messenger)?);
        Ok(())
    }
}

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// What the routes share.
#[derive(Debug)]
struct Messenger {
    contents: Mutex<Contents>,
    in_flight: AtomicUsize,
    peak_in_flight: AtomicUsize,
}

#[derive(Debug)]
struct Contents {
    clock: Clock,
    access: Access,
    received: Vec<Received>,
    /// What Oncecast did not send, by Page and contact.
    foreign: BTreeMap<(String, String), Vec<Message>>,
    /// How long a message stays hidden from look-ups.
    visible_after_ms: u64,
    calls: Calls,
    faults: Faults,
    webhooks: Webhooks,
}

impl Contents {
    fn new(tokens: BTreeMap<String, String>, webhooks: Webhooks, clock: Clock) -> Contents {
        Contents {
            clock,
            access: Access::new(tokens),
            received: Vec::new(),
            foreign: BTreeMap::new(),
            visible_after_ms: 0,
            calls: Calls::default(),
            faults: Faults::default(),
            webhooks,
        }
    }

    /// The time in milliseconds since 1970.
    fn now_ms(&self) -> i64 {
        self.clock.now().as_millisecond()
    }

    /// Gives the contact a message, and tells the subscriber.
    fn accept(&mut self, message: Received) {
        self.webhooks.tell(&message, &mut self.faults);
        self.received.push(message);
    }

    fn summary(&self) -> Summary {
        ledger::summarize(&self.received, &self.calls)
    }

    fn forget_messages(&mut self) {
        self.received.clear();
        self.foreign.clear();
    }
}

impl Messenger {
    fn subscribe(&self, subscription: Subscription) {
        self.contents().webhooks.subscription = Some(Arc::new(subscription));
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // Every change is one statement, so a panic elsewhere leaves nothing half done.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a send as under way until the returned value is dropped, by an answer or by the caller's leaving.
    fn enter(&self) -> InFlight<'_> {
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak_in_flight.fetch_max(now, Ordering::SeqCst);
        InFlight(&self.in_flight)
    }
}

struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn serve(listener: TcpListener, messenger: &Arc<Messenger>) -> io::Result<Server> {
    let router = Router::new()
        // What the Graph API calls a node: a Page here, a conversation there.
        .route("/v25.0/{node}", get(conversations::read))
        .route("/v25.0/{node}/conversations", get(conversations::find))
        .route(
            "/v25.0/{node}/messages",
            post(send_api::send_message).get(conversations::messages),
        )
        .nest("/sandbox", control::routes())
        .with_state(Arc::clone(messenger));
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = router.call(request);
        async move { sendable(answer.await?) }
    });
    Server::serve(listener, service)
}

/// Turns an answer that must not be sent into the error that makes the server close the connection.
fn sendable(response: Response) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
    match response.extensions().get::<answers::Unanswered>() {
        Some(_) => Err("the connection is closed without an answer, as asked".into()),
        None => Ok(response),
    }
}

#[cfg(test)]
mod tests;
