//! The few calls of Oncecast's HTTP API that the demo makes.

use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use serde_json::json;

use super::audience::DemoContact;

/// The API's limit for the contacts of one request.
const CONTACTS_PER_REQUEST: usize = 1_000;
const TEXT: &str = "Hi {{ first_name | default('there') }}, we open at nine.";

/// Failure of a call.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("the API could not be reached")]
    Http(#[from] reqwest::Error),
    #[error("{request} was answered with {status}: {body}")]
    Refused { request: String, status: u16, body: String },
}

/// A client of the API.
#[derive(Debug)]
pub struct Api {
    http: reqwest::Client,
    url: String,
}

/// The answer to a new broadcast.
#[derive(Debug)]
pub struct AcceptedBroadcast {
    pub broadcast_id: String,
    /// True if the API recognised the request as a repeated one.
    pub replayed: bool,
}

/// A broadcast as the API reports it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BroadcastReport {
    pub broadcast_id: String,
    pub status: String,
    pub contacts: ContactCounts,
    pub counters: Counters,
    pub duplicates_prevented: DuplicatesPrevented,
    pub jobs: Vec<JobReport>,
}

/// The delivery to one contact as the API reports it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DeliveryReport {
    pub contact_id: String,
    pub status: String,
    pub message_id: Option<String>,
}

/// A job as the API reports it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct JobReport {
    pub status: String,
}

impl BroadcastReport {
    /// Returns true if a job waits for the operator.
    pub fn has_halted_job(&self) -> bool {
        self.jobs.iter().any(|job| job.status == "halted")
    }

    /// Returns true if no job has work left.
    pub fn is_completed(&self) -> bool {
        self.status == "completed"
    }
}

/// Contacts at the broadcast's acceptance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ContactCounts {
    pub requested: u64,
    pub duplicates_removed: u64,
    pub accepted: u64,
}

/// Contacts by the outcome of their delivery.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Counters {
    pub sent: u64,
    pub failed: u64,
    pub skipped: u64,
    pub in_doubt: u64,
}

/// Duplicates by the layer that stopped them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DuplicatesPrevented {
    pub request: u64,
    pub replay: u64,
    pub claim: u64,
    pub reservation: u64,
}

/// The calls of the API. Each fails if the API cannot be reached, refuses the request, or sends an answer that cannot
/// be read.
impl Api {
    /// Returns a client of the API at this base URL.
    pub fn new(url: String) -> Result<Api, ApiError> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Api { http, url })
    }

    /// Imports contacts.
    pub async fn put_contacts(&self, contacts: &[DemoContact]) -> Result<(), ApiError> {
        for contacts in contacts.chunks(CONTACTS_PER_REQUEST) {
            let request = self.http.put(format!("{}/v1/contacts", self.url));
            accepted(request.json(&json!({ "contacts": contacts }))).await?;
        }
        Ok(())
    }

    /// Requests the demo's message for these contacts.
    pub async fn post_broadcast(&self, contact_ids: &[String]) -> Result<AcceptedBroadcast, ApiError> {
        let request = self.http.post(format!("{}/v1/broadcasts", self.url));
        let body = json!({
            "contact_ids": contact_ids,
            "message": { "text": TEXT },
            "messaging_type": "UPDATE",
        });
        let answer = accepted(request.json(&body)).await?;
        let replayed = answer
            .headers()
            .get("idempotent-replayed")
            .is_some_and(|value| value == "true");
        let broadcast: BroadcastReport = answer.json().await?;
        Ok(AcceptedBroadcast {
            broadcast_id: broadcast.broadcast_id,
            replayed,
        })
    }

    /// Returns the report of a broadcast.
    pub async fn broadcast(&self, broadcast_id: &str) -> Result<BroadcastReport, ApiError> {
        let request = self.http.get(format!("{}/v1/broadcasts/{broadcast_id}", self.url));
        Ok(accepted(request).await?.json().await?)
    }

    /// Resumes the halted jobs of a broadcast.
    pub async fn resume(&self, broadcast_id: &str) -> Result<(), ApiError> {
        let url = format!("{}/v1/broadcasts/{broadcast_id}/resume", self.url);
        accepted(self.http.post(url)).await?;
        Ok(())
    }

    /// Returns the deliveries of a broadcast, one for each contact.
    pub async fn deliveries(&self, broadcast_id: &str) -> Result<Vec<DeliveryReport>, ApiError> {
        #[derive(Deserialize)]
        struct DeliveryList {
            items: Vec<DeliveryReport>,
            next_cursor: Option<String>,
        }

        let url = format!("{}/v1/broadcasts/{broadcast_id}/deliveries", self.url);
        let mut deliveries = Vec::new();
        let mut cursor = None;
        loop {
            let mut query = vec![("limit", "1000".to_owned())];
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let list: DeliveryList = accepted(self.http.get(&url).query(&query)).await?.json().await?;
            deliveries.extend(list.items);
            match list.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(deliveries),
            }
        }
    }
}

/// Sends a request and returns its answer, which must be a success.
async fn accepted(request: RequestBuilder) -> Result<Response, ApiError> {
    let (http, request) = request.build_split();
    let request = request?;
    let sent = format!("{} {}", request.method(), request.url().path());
    let answer = http.execute(request).await?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    Err(ApiError::Refused {
        request: sent,
        status: answer.status().as_u16(),
        body: answer.text().await?,
    })
}
