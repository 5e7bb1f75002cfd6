//! A client of Oncecast's HTTP API, with the API's own types.
//!
//! A request is repeated, after a delay, if the API could not be reached or asks for it, and if a second one has no further effect:
//! [`create_broadcast`](Client::create_broadcast) with a key only, [`resume`](Client::resume) and the other controls never.

mod call;
pub mod contact_file;
mod contacts;
mod lists;
mod sign;
pub mod words;

use std::time::Duration;

use reqwest::header::{ACCEPT, ETAG, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use send::api::audiences::{AudienceChoice, AudienceCount, SavedAudience};
use send::api::broadcasts::{BroadcastReport, BroadcastSummary, NewBroadcast};
use send::api::changes::BroadcastChange;
use send::api::checks::Checks;
use send::api::controls::{ControlReport, ControlRequest, RetryReport, RetryRequest};
use send::api::conversations::PageImport;
use send::api::deliveries::{DeliveryEvidence, DeliveryReport};
use send::api::lists::ListPart;
use send::api::pages::PageReport;
use send::api::previews::BroadcastPreview;
use send::api::sending::{Health, SendingChange, SendingReport};
use send::api::test_sends::{TestReport, TestSend};
use serde_json::Value;
use shared::domain::audience::{Audience, AudienceName};
use shared::domain::ids::{BroadcastId, ContactId, PageId};

pub use call::{Error, Patience};
pub use lists::{BroadcastQuery, ContactQuery, CountQuery, DeliveryQuery, ErasureQuery, PartQuery};
pub use send::api;
pub use sign::{SignError, Signer, region_of};

use call::{Answer, IDEMPOTENCY_KEY, Sender};

/// The time-out of one request. API Gateway answers within 30 s.
const TIMEOUT: Duration = Duration::from_secs(35);

/// A client of the API at one base URL.
#[derive(Clone, Debug)]
pub struct Client {
    sender: Sender,
    url: Url,
    token: Option<SecretString>,
}

/// The answer to a request for a broadcast.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The broadcast.
    pub report: BroadcastReport,
    /// True if the API recognised the request as a repeated one.
    pub replayed: bool,
}

/// A report with its entity tag, by which the next request for it is answered if it is still the same.
#[derive(Clone, Debug)]
pub struct TaggedReport {
    /// The broadcast.
    pub report: BroadcastReport,
    /// The value of the header `ETag`.
    pub tag: Option<String>,
}

/// A part of a list as CSV.
#[derive(Clone, Debug)]
pub struct CsvPart {
    /// The file, with a header.
    pub csv: Vec<u8>,
    /// The cursor of the next part; `None` if this is the last.
    pub next_cursor: Option<String>,
}

/// The extent of a control: all jobs of the broadcast, unless it is limited.
#[derive(Clone, Debug, Default)]
pub struct ControlOptions {
    /// The Page of the only job that is meant.
    pub page_id: Option<PageId>,
    /// True if the API is to tell what would be affected, and to change nothing.
    pub dry_run: bool,
}

/// The calls of the API. Each fails as [`Error`] says.
impl Client {
    /// Returns a client without a token.
    ///
    /// # Errors
    ///
    /// Fails if the base URL is not one of HTTP.
    pub fn new(http: reqwest::Client, base_url: &str) -> Result<Self, Error> {
        // A request checks its URL, and says what is wrong with it.
        let checked = http.get(base_url).build().map_err(Error::Request)?;
        let url = checked.url().clone();
        let sender = Sender {
            http,
            ..Sender::default()
        };
        Ok(Self {
            sender,
            url,
            token: None,
        })
    }

    /// Returns a client that authenticates itself with this bearer token.
    pub fn with_token(self, token: SecretString) -> Self {
        let token = Some(token);
        Self { token, ..self }
    }

    /// Returns a client that signs its requests with AWS credentials.
    pub fn with_signer(mut self, signer: Signer) -> Self {
        self.sender.signer = Some(signer);
        self
    }

    /// Returns a client that repeats a request for a time in place of four times.
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.sender.patience = Some(patience);
        self
    }

    /// Checks that the API works.
    pub async fn health(&self) -> Result<Health, Error> {
        self.call(self.request(Method::GET, &["health"])).await?.json()
    }

    /// Checks the installation, or a Page.
    pub async fn checks(&self, page_id: Option<&PageId>) -> Result<Checks, Error> {
        let request = self.request(Method::GET, &["checks"]).query(&[("page_id", page_id)]);
        self.call(request).await?.json()
    }

    /// Returns the OpenAPI document.
    pub async fn document(&self) -> Result<Value, Error> {
        self.call(self.request(Method::GET, &["openapi.json"])).await?.json()
    }

    /// Returns the switch for sending, for all Pages or for one.
    pub async fn sending(&self, page_id: Option<&PageId>) -> Result<SendingReport, Error> {
        let request = self.request(Method::GET, &["sending"]).query(&[("page_id", page_id)]);
        self.call(request).await?.json()
    }

    /// Sets the switch for sending.
    pub async fn change_sending(&self, change: &SendingChange) -> Result<SendingReport, Error> {
        let request = self.request(Method::PUT, &["sending"]).json(change);
        self.call(request).await?.json()
    }

    /// Returns a part of the Pages.
    pub async fn pages(&self, query: &PartQuery) -> Result<ListPart<PageReport>, Error> {
        let request = self.request(Method::GET, &["pages"]).query(query);
        self.call(request).await?.json()
    }

    /// Saves an audience.
    pub async fn save_audience(&self, name: &AudienceName, audience: &Audience) -> Result<SavedAudience, Error> {
        let request = self.request(Method::PUT, &["audiences", name.as_str()]).json(audience);
        self.call(request).await?.json()
    }

    /// Returns a saved audience.
    pub async fn audience(&self, name: &AudienceName) -> Result<SavedAudience, Error> {
        let request = self.request(Method::GET, &["audiences", name.as_str()]);
        self.call(request).await?.json()
    }

    /// Deletes a saved audience. Returns false if there was none, as [`Client::delete_contact`] does.
    pub async fn delete_audience(&self, name: &AudienceName) -> Result<bool, Error> {
        let request = self.request(Method::DELETE, &["audiences", name.as_str()]);
        match self.call(request).await {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lists saved audiences by name.
    pub async fn audiences(&self, query: &PartQuery) -> Result<ListPart<SavedAudience>, Error> {
        let request = self.request(Method::GET, &["audiences"]).query(query);
        self.call(request).await?.json()
    }

    /// Counts the contacts of a saved audience, or a part of them.
    pub async fn count_audience(&self, name: &AudienceName, query: &CountQuery) -> Result<AudienceCount, Error> {
        let request = self.request(Method::GET, &["audiences", name.as_str(), "count"]);
        self.call(request.query(query)).await?.json()
    }

    /// Counts the contacts of an audience, or a part of them.
    pub async fn count_contacts(&self, audience: &AudienceChoice, query: &CountQuery) -> Result<AudienceCount, Error> {
        let request = self.request(Method::POST, &["audiences", "count"]).query(query);
        self.call(request.json(audience)).await?.json()
    }

    /// Begins an import of a Page's contacts from its conversations, unless one is under way.
    pub async fn start_page_import(&self, page_id: &PageId) -> Result<PageImport, Error> {
        self.call(self.of_page_import(Method::POST, page_id, &[])).await?.json()
    }

    /// Returns the last import of a Page's contacts.
    pub async fn page_import(&self, page_id: &PageId) -> Result<PageImport, Error> {
        self.call(self.of_page_import(Method::GET, page_id, &[])).await?.json()
    }

    /// Ends the import of a Page's contacts.
    pub async fn cancel_page_import(&self, page_id: &PageId) -> Result<PageImport, Error> {
        self.call(self.of_page_import(Method::POST, page_id, &["cancel"]))
            .await?
            .json()
    }

    fn of_page_import(&self, method: Method, page_id: &PageId, below: &[&str]) -> RequestBuilder {
        self.request(method, &[&["pages", page_id.as_str(), "import"], below].concat())
    }

    /// Requests a broadcast. The key identifies the request; without one the request is sent once.
    pub async fn create_broadcast(&self, new: &NewBroadcast, key: Option<&str>) -> Result<Accepted, Error> {
        let mut request = self.request(Method::POST, &["broadcasts"]).json(new);
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        let answer = self.call(request).await?;
        Ok(Accepted {
            replayed: answer.header("idempotent-replayed") == Some("true"),
            report: answer.json()?,
        })
    }

    /// Returns what a broadcast would do; nothing is stored or sent.
    pub async fn preview_broadcast(&self, new: &NewBroadcast) -> Result<BroadcastPreview, Error> {
        let request = self.request(Method::POST, &["broadcasts"]).query(&[("dry_run", true)]);
        self.call(request.json(new)).await?.json()
    }

    /// Returns a part of the list of broadcasts.
    pub async fn broadcasts(&self, query: &BroadcastQuery) -> Result<ListPart<BroadcastSummary>, Error> {
        let request = self.request(Method::GET, &["broadcasts"]).query(query);
        self.call(request).await?.json()
    }

    /// Returns the report of a broadcast.
    pub async fn broadcast(&self, id: &BroadcastId) -> Result<BroadcastReport, Error> {
        self.call(self.of_broadcast(Method::GET, id, &[])).await?.json()
    }

    /// Returns the report of a broadcast, or `None` if the caller has the one with this tag and it is still the same. That costs
    /// less than a report, so it is for callers that poll.
    pub async fn broadcast_if_changed(
        &self,
        id: &BroadcastId,
        tag: Option<&str>,
    ) -> Result<Option<TaggedReport>, Error> {
        let mut request = self.of_broadcast(Method::GET, id, &[]);
        if let Some(tag) = tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let answer = self.call(request).await?;
        if answer.status == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let tag = answer.header(ETAG.as_str()).map(str::to_owned);
        let report = answer.json()?;
        Ok(Some(TaggedReport { report, tag }))
    }

    /// Changes a broadcast that is not due yet.
    pub async fn change_broadcast(&self, id: &BroadcastId, change: &BroadcastChange) -> Result<BroadcastReport, Error> {
        let request = self.of_broadcast(Method::PATCH, id, &[]).json(change);
        self.call(request).await?.json()
    }

    /// Approves a broadcast that another caller made.
    pub async fn approve(&self, id: &BroadcastId) -> Result<BroadcastReport, Error> {
        self.call(self.of_broadcast(Method::POST, id, &["approve"]))
            .await?
            .json()
    }

    /// Sends a message to testers. The key identifies the request; without one the request is sent once.
    pub async fn send_to_testers(&self, test: &TestSend, key: Option<&str>) -> Result<TestReport, Error> {
        let mut request = self.request(Method::POST, &["broadcasts", "test"]).json(test);
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        self.call(request).await?.json()
    }

    /// Has nothing more sent until the broadcast is resumed.
    pub async fn pause(&self, id: &BroadcastId, options: &ControlOptions) -> Result<ControlReport, Error> {
        self.control(id, "pause", options).await
    }

    /// Lets the paused and halted jobs of a broadcast go on.
    pub async fn resume(&self, id: &BroadcastId, options: &ControlOptions) -> Result<ControlReport, Error> {
        self.control(id, "resume", options).await
    }

    /// Has nothing more sent, for good.
    pub async fn cancel(&self, id: &BroadcastId, options: &ControlOptions) -> Result<ControlReport, Error> {
        self.control(id, "cancel", options).await
    }

    /// Sends again to contacts of completed jobs that are not known to have got the message.
    pub async fn retry(&self, id: &BroadcastId, retry: &RetryRequest, dry_run: bool) -> Result<RetryReport, Error> {
        let request = self
            .of_broadcast(Method::POST, id, &["retry"])
            .query(&[("dry_run", dry_run)]);
        self.call(request.json(retry)).await?.json()
    }

    async fn control(&self, id: &BroadcastId, verb: &str, options: &ControlOptions) -> Result<ControlReport, Error> {
        let ControlOptions { page_id, dry_run } = options.clone();
        let request = self
            .of_broadcast(Method::POST, id, &[verb])
            .query(&[("dry_run", dry_run)]);
        self.call(request.json(&ControlRequest { page_id })).await?.json()
    }

    /// Returns a part of the deliveries of a broadcast, one for each contact that was reached so far.
    pub async fn deliveries(&self, id: &BroadcastId, query: &DeliveryQuery) -> Result<ListPart<DeliveryReport>, Error> {
        let request = self.of_broadcast(Method::GET, id, &["deliveries"]).query(query);
        self.call(request).await?.json()
    }

    /// Returns a part of the deliveries of a broadcast as CSV.
    pub async fn deliveries_csv(&self, id: &BroadcastId, query: &DeliveryQuery) -> Result<CsvPart, Error> {
        let request = self.of_broadcast(Method::GET, id, &["deliveries"]).query(query);
        let answer = self.call(request.header(ACCEPT, "text/csv")).await?;
        let next_cursor = answer.header("x-next-cursor").map(str::to_owned);
        let csv = answer.body;
        Ok(CsvPart { csv, next_cursor })
    }

    /// Returns the delivery of a broadcast to a contact, with what is kept of its attempts.
    pub async fn delivery(&self, id: &BroadcastId, contact_id: &ContactId) -> Result<DeliveryEvidence, Error> {
        let request = self.of_broadcast(Method::GET, id, &["deliveries", contact_id.as_str()]);
        self.call(request).await?.json()
    }

    /// Returns the description of a type of problem, as Markdown. The name is the last part of the type.
    pub async fn problem_type(&self, name: &str) -> Result<String, Error> {
        let answer = self.call(self.request(Method::GET, &["problems", name])).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    fn of_broadcast(&self, method: Method, id: &BroadcastId, below: &[&str]) -> RequestBuilder {
        self.request(method, &[&["broadcasts", &id.to_string()], below].concat())
    }

    /// Returns a request of the path with these segments below `/v1`.
    fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut url = self.url.clone();
        // Fails for no URL of HTTP.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v1").extend(segments);
        }
        let request = self.sender.http.request(method, url).timeout(TIMEOUT);
        match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    async fn call(&self, request: RequestBuilder) -> Result<Answer, Error> {
        self.sender.answer(request.build().map_err(Error::Request)?).await
    }
}
