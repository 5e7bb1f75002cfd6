//! The sandbox's control API, which `local::sandbox` describes.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::failure::Failure;

/// The time-out of a call: the sandbox is on this machine.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The control API of a sandbox.
#[derive(Clone, Debug)]
pub struct Sandbox {
    http: reqwest::Client,
    url: Url,
}

/// A message that arrived.
#[derive(Debug, Deserialize)]
pub struct Arrived {
    /// The Page that sent it.
    pub page_id: String,
    /// The contact that received it.
    pub contact_id: String,
    /// The text, if the message has one.
    pub text: Option<String>,
    /// The attachment, if the message has one.
    pub attachment: Option<Value>,
    /// The approved template, if the message is made of one.
    pub template: Option<Value>,
    /// The id that the sandbox gave it.
    pub message_id: String,
    /// The time of its arrival.
    #[serde(with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub at: Timestamp,
}

/// A message of a conversation.
#[derive(Debug, Deserialize)]
pub struct Written {
    /// True if the contact wrote it.
    pub from_contact: bool,
    /// The text, if the message has one.
    pub text: Option<String>,
    /// The attachment, if the message has one.
    pub attachment: Option<Value>,
    /// The approved template, if the message is made of one.
    pub template: Option<Value>,
    /// The answers that the contact can tap on.
    pub quick_replies: Option<Value>,
    /// The time of the message.
    #[serde(with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub at: Timestamp,
}

/// The messages of one broadcast in numbers.
#[derive(Debug, Deserialize)]
pub struct Counted {
    /// The broadcast.
    pub broadcast_id: String,
    /// The number of messages.
    pub messages: u64,
    /// The number of contacts with at least one of them.
    pub contacts: u64,
    /// The number of contacts with more than one of them.
    pub contacts_twice: u64,
}

/// A fault that is switched on.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Fault {
    /// The operation that fails.
    pub on: String,
    /// The contacts that it concerns; without them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contacts: Option<Vec<String>>,
    /// The Pages that it concerns; without them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<Vec<String>>,
    /// The number of operations that are still to fail; without it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// The delay of the answer in milliseconds.
    #[serde(default)]
    pub latency_ms: u64,
    /// True if the message arrives in spite of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<bool>,
    /// The answer.
    pub answer: Value,
}

#[derive(Debug, Deserialize)]
struct Faults {
    faults: Vec<Fault>,
}

/// The access token of a Page.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Token {
    /// True if it was revoked.
    pub revoked: bool,
}

/// The messages that are asked for: the last to arrive.
#[derive(Debug, Default, Serialize)]
pub struct MessageQuery<'a> {
    /// Only those of this Page.
    pub page_id: Option<&'a str>,
    /// Only those to this contact.
    pub contact_id: Option<&'a str>,
    /// Only those of this broadcast.
    pub broadcast_id: Option<&'a str>,
    /// Only those that arrived before this message.
    pub before: Option<&'a str>,
    /// The number of messages.
    pub limit: usize,
}

impl Sandbox {
    /// Returns the control API at a URL; `None` if that is not one of HTTP.
    pub fn new(url: &str) -> Option<Sandbox> {
        let url = url.parse::<Url>().ok().filter(|url| !url.cannot_be_a_base())?;
        // A proxy leads to other machines, not to this one.
        let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().ok()?;
        Some(Sandbox { http, url })
    }

    /// Returns messages in order of arrival.
    ///
    /// # Errors
    ///
    /// Fails if the sandbox does not answer, as every call does.
    pub async fn messages(&self, query: &MessageQuery<'_>) -> Result<Vec<Arrived>, Failure> {
        self.read(self.request(Method::GET, &["messages"]).query(query)).await
    }

    /// Returns the broadcasts that have messages, the one with the newest first.
    pub async fn broadcasts(&self) -> Result<Vec<Counted>, Failure> {
        self.read(self.request(Method::GET, &["broadcasts"])).await
    }

    /// Forgets all messages.
    pub async fn forget_messages(&self) -> Result<(), Failure> {
        self.change(self.request(Method::DELETE, &["messages"])).await
    }

    /// Returns a conversation, oldest message first.
    pub async fn conversation(&self, page_id: &str, contact_id: &str) -> Result<Vec<Written>, Failure> {
        let segments = ["conversations", page_id, contact_id];
        self.read(self.request(Method::GET, &segments)).await
    }

    /// Writes to the Page as the contact.
    pub async fn write(&self, page_id: &str, contact_id: &str, text: &str) -> Result<(), Failure> {
        let inbound = json!({"page_id": page_id, "contact_id": contact_id, "text": text});
        self.change(self.request(Method::POST, &["inbound"]).json(&inbound))
            .await
    }

    /// Returns the faults in their order.
    pub async fn faults(&self) -> Result<Vec<Fault>, Failure> {
        let faults: Faults = self.read(self.request(Method::GET, &["faults"])).await?;
        Ok(faults.faults)
    }

    /// Adds a fault.
    pub async fn add_fault(&self, fault: &Fault) -> Result<(), Failure> {
        self.change(self.request(Method::POST, &["faults"]).json(fault)).await
    }

    /// Removes the fault at this place, if it is still there; without a place all of them.
    pub async fn remove_faults(&self, index: Option<usize>) -> Result<(), Failure> {
        let index = index.map(|index| index.to_string());
        let segments: Vec<_> = ["faults"].into_iter().chain(index.as_deref()).collect();
        self.change(self.request(Method::DELETE, &segments)).await
    }

    /// Returns the Pages with their tokens.
    pub async fn tokens(&self) -> Result<BTreeMap<String, Token>, Failure> {
        self.read(self.request(Method::GET, &["tokens"])).await
    }

    /// Revokes the token of a Page, or makes it valid again.
    pub async fn set_revoked(&self, page_id: &str, revoked: bool) -> Result<(), Failure> {
        let segments = ["tokens", page_id];
        self.change(match revoked {
            true => self.request(Method::DELETE, &segments),
            false => self.request(Method::PUT, &segments).json(&json!({})),
        })
        .await
    }

    fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut url = self.url.clone();
        // Fails for no URL of HTTP.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        self.http.request(method, url)
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let answer = answer(request).await?;
        answer.json().await.map_err(|error| silent(&error))
    }

    /// Changes something; what is not there any more needs no change.
    async fn change(&self, request: RequestBuilder) -> Result<(), Failure> {
        match answer(request).await {
            Err(failure) if failure.status == StatusCode::NOT_FOUND => Ok(()),
            answer => answer.map(|_| ()),
        }
    }
}

async fn answer(request: RequestBuilder) -> Result<Response, Failure> {
    let answer = request.send().await.map_err(|error| silent(&error))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = answer.text().await.unwrap_or_default();
    Err(Failure::new(status, "The sandbox does not take this").and(text))
}

fn silent(error: &reqwest::Error) -> Failure {
    tracing::warn!(error = %error, "the sandbox did not answer");
    Failure::new(StatusCode::BAD_GATEWAY, "The sandbox does not answer")
        .and("It ends with the stack. Look whether Oncecast runs, and reload the page.")
}
