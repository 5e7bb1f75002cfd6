//! Messenger's HTTP client and Send API: one request per contact, never repeated by the client.
//!
//! Imports [`domain`](crate::domain) and [`runtime`](crate::runtime) only.

mod codes;
pub mod conversations;
pub mod errors;

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use secrecy::ExposeSecret;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::domain::delivery::Reservation;
use crate::domain::ids::{ContactId, PageId};
use crate::domain::job::Broadcast;
use crate::domain::message::Envelope;
use crate::messenger::errors::{Refusal, SendError};
use crate::runtime::config::Config;
use crate::runtime::secrets::Access;

/// The Messenger client of one Page, for one invocation: a connection that outlived an invocation would be found dead after
/// a freeze, and cost a false doubt.
pub struct MessengerClient {
    client: Client,
    /// The base of all URLs.
    url: String,
    pub(crate) access: Access,
    pub(crate) page_id: PageId,
}

impl MessengerClient {
    /// Returns a client without connections.
    ///
    /// # Errors
    /// If the TLS backend cannot be initialized.
    pub fn new(config: &Config, page_id: &PageId, access: Access) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .timeout(config.messenger_timeout)
            // A connection that is not made in time must fail as such, since that proves that nothing was sent.
            .connect_timeout(config.messenger_timeout / 2)
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            client,
            url: config.graph_api_url.clone(),
            access,
            page_id: page_id.clone(),
        })
    }

    /// Sends the message, with the contact's text, to the contact of the reservation. Returns Messenger's id of the message,
    /// which proves that Messenger accepted it.
    ///
    /// # Errors
    /// If Messenger did not accept the message, or may have accepted it without a readable answer:
    /// [`SendError::verdict`] tells them apart.
    pub async fn send(
        &self,
        reservation: &Reservation,
        text: Option<&str>,
        broadcast: &Broadcast,
    ) -> Result<String, SendError> {
        let message = &broadcast.message;
        let request = SendRequest {
            recipient: Recipient {
                id: &reservation.contact_id,
            },
            message: MessageBody {
                text,
                attachment: message.attachment.as_ref(),
                template: message.template.as_ref(),
                quick_replies: &message.quick_replies,
                metadata: reservation.metadata().to_string(),
            },
            envelope: &broadcast.envelope,
        };
        let answer = self
            .call(Method::POST, &[self.page_id.as_str(), "messages"])?
            .json(&request)
            .send()
            .await
            .map_err(|error| without_answer(&error))?;
        let accepted: SendAnswer = read(answer).await?;
        Ok(accepted.message_id)
    }

    /// Reads an object of the Graph API, by the segments of its path.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Result<T, SendError> {
        let call = self.call(Method::GET, path)?.query(query);
        let answer = call.send().await;
        read(answer.map_err(|error| without_answer(&error))?).await
    }

    fn call(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, SendError> {
        let mut url = Url::parse(&self.url).map_err(|_| SendError::NotConnected)?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let proof = self.access.appsecret_proof.as_ref();
        Ok(self
            .client
            .request(method, url)
            .bearer_auth(self.access.token.expose_secret())
            .query(&proof.map(|proof| [("appsecret_proof", proof)])))
    }
}

#[derive(Serialize)]
struct SendRequest<'a> {
    recipient: Recipient<'a>,
    message: MessageBody<'a>,
    #[serde(flatten)]
    envelope: &'a Envelope,
}

#[derive(Serialize)]
struct Recipient<'a> {
    id: &'a ContactId,
}

#[derive(Serialize)]
struct MessageBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachment: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<&'a Value>,
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    quick_replies: &'a [Value],
    metadata: String,
}

#[derive(Deserialize)]
struct SendAnswer {
    #[serde(deserialize_with = "not_empty")]
    message_id: String,
}

fn not_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Err(D::Error::custom("is empty"));
    }
    Ok(text)
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: GraphError,
}

#[derive(Deserialize)]
struct GraphError {
    code: i64,
    error_subcode: Option<i64>,
    #[serde(default)]
    message: String,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

fn without_answer(error: &reqwest::Error) -> SendError {
    if error.is_connect() {
        SendError::NotConnected
    } else if error.is_timeout() {
        SendError::NoAnswer("no answer in time")
    } else {
        SendError::NoAnswer("connection lost")
    }
}

async fn read<T: DeserializeOwned>(answer: Response) -> Result<T, SendError> {
    let status = answer.status();
    let regain_after = regain_after(answer.headers());
    let body = answer.bytes().await.map_err(|error| without_answer(&error))?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|_| SendError::NoAnswer("answer not readable"));
    }
    if !status.is_client_error() {
        return Err(SendError::NoAnswer("answered with a server error"));
    }
    let Ok(ErrorAnswer { error }) = serde_json::from_slice(&body) else {
        return Err(SendError::NoAnswer("answer not readable"));
    };
    let message = error.message.to_ascii_lowercase();
    Err(SendError::Refused(Refusal {
        code: error.code,
        subcode: error.error_subcode,
        no_matching_user: message.contains("no matching user"),
        refuses_call: error.kind.as_deref() == Some("GraphMethodException") || message.contains("appsecret_proof"),
        regain_after,
    }))
}

/// Returns the longest time to regain access from the usage header, a day at most; `None` if no limit is reached.
///
/// `X-Business-Use-Case-Usage: {"<id>": [{"type": "messenger", "estimated_time_to_regain_access": <minutes>, …}]}`, see
/// <https://developers.facebook.com/docs/graph-api/overview/rate-limiting>.
fn regain_after(headers: &HeaderMap) -> Option<Duration> {
    let usage = headers.get("x-business-use-case-usage")?.to_str().ok()?;
    let usage: Value = serde_json::from_str(usage).ok()?;
    let minutes = usage
        .as_object()?
        .values()
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(|one| one.get("estimated_time_to_regain_access")?.as_u64())
        .max()?;
    (minutes > 0).then(|| Duration::from_secs(minutes.saturating_mul(60).min(86_400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_to_regain_access_is_in_minutes() {
        let mut headers = HeaderMap::new();
        assert_eq!(regain_after(&headers), None);
        for (usage, expected) in [
            (
                r#"{"1":[{"type":"messenger","call_count":97,"estimated_time_to_regain_access":19}]}"#,
                Some(1_140),
            ),
            (
                r#"{"1":[{"type":"messenger","call_count":97,"estimated_time_to_regain_access":0}]}"#,
                None,
            ),
            ("{}", None),
            ("nonsense", None),
        ] {
            headers.insert("X-Business-Use-Case-Usage", usage.parse().unwrap());
            assert_eq!(regain_after(&headers).map(|wait| wait.as_secs()), expected, "{usage}");
        }
    }
}
