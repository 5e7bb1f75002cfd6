//! The few calls of Oncecast's HTTP API that the demo makes.

use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use serde_json::json;

use super::Error;
use super::audience::Contact;

/// The API takes no more contacts at once.
const CONTACTS_A_REQUEST: usize = 1_000;
const TEXT: &str = "Hi {{ first_name | default('there') }}, we open at nine.";

/// A client of the API.
#[derive(Debug)]
pub struct Api {
    http: reqwest::Client,
    url: String,
}

/// The answer to a new broadcast.
#[derive(Debug)]
pub struct Accepted {
    pub broadcast_id: String,
    /// Whether the API says that it has seen this request before.
    pub replayed: bool,
}

/// A broadcast as the API reports it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Broadcast {
    pub broadcast_id: String,
    pub status: String,
    pub contacts: Contacts,
    pub counters: Counters,
    pub duplicates_prevented: DuplicatesPrevented,
    pub jobs: Vec<Job>,
}

/// What Oncecast says of one contact.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Delivery {
    pub contact_id: String,
    pub status: String,
    pub message_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Job {
    pub status: String,
}

impl Broadcast {
    pub fn has_halted_job(&self) -> bool {
        self.jobs.iter().any(|job| job.status == "halted")
    }

    pub fn is_completed(&self) -> bool {
        self.status == "completed"
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Contacts {
    pub requested: u64,
    pub duplicates_removed: u64,
    pub accepted: u64,
}

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

impl Api {
    pub fn new(url: String) -> Result<Api, Error> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Api { http, url })
    }

    pub async fn put_contacts(&self, contacts: &[Contact]) -> Result<(), Error> {
        for contacts in contacts.chunks(CONTACTS_A_REQUEST) {
            let request = self.http.put(format!("{}/v1/contacts", self.url));
            accepted(request.json(&json!({ "contacts": contacts }))).await?;
        }
        Ok(())
    }

    pub async fn post_broadcast(&self, contact_ids: &[String]) -> Result<Accepted, Error> {
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
        let broadcast: Broadcast = answer.json().await?;
        Ok(Accepted {
            broadcast_id: broadcast.broadcast_id,
            replayed,
        })
    }

    pub async fn broadcast(&self, broadcast_id: &str) -> Result<Broadcast, Error> {
        let request = self
            .http
            .get(format!("{}/v1/broadcasts/{broadcast_id}", self.url));
        Ok(accepted(request).await?.json().await?)
    }

    /// Has halted jobs go on.
    pub async fn resume(&self, broadcast_id: &str) -> Result<(), Error> {
        let url = format!("{}/v1/broadcasts/{broadcast_id}/resume", self.url);
        accepted(self.http.post(url)).await?;
        Ok(())
    }

    /// What Oncecast says of every contact.
    pub async fn deliveries(&self, broadcast_id: &str) -> Result<Vec<Delivery>, Error> {
        #[derive(Deserialize)]
        struct Page {
            items: Vec<Delivery>,
            next_cursor: Option<String>,
        }

        let url = format!("{}/v1/broadcasts/{broadcast_id}/deliveries", self.url);
        let mut deliveries = Vec::new();
        let mut cursor = None;
        loop {
            let mut query = vec![("limit", "1000".to_owned())];
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let page: Page = accepted(self.http.get(&url).query(&query))
                .await?
                .json()
                .await?;
            deliveries.extend(page.items);
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(deliveries),
            }
        }
    }
}

/// Sends a request that the API has to accept.
async fn accepted(request: RequestBuilder) -> Result<Response, Error> {
    let (http, request) = request.build_split();
    let request = request?;
    let sent = format!("{} {}", request.method(), request.url().path());
    let answer = http.execute(request).await?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    Err(Error::Refused {
        request: sent,
        status: answer.status().as_u16(),
        body: answer.text().await?,
    })
}
