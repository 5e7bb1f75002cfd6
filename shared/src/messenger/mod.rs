//! Messenger's HTTP client and Send API: one request per contact, never repeated by the client.
//!
//! Imports [`domain`](crate::domain) and [`runtime`](crate::runtime) only.

mod answer;
mod codes;
pub mod conversations;
pub mod errors;
pub mod json;
pub mod meanings;
pub mod people;
pub mod profiles;
pub mod subscription;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::DATE;
use reqwest::{Client, Method, RequestBuilder, Url};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::Value;

use crate::domain::delivery::Reservation;
use crate::domain::ids::{ContactId, PageId};
use crate::domain::job::Broadcast;
use crate::domain::message::Envelope;
use crate::messenger::errors::SendError;
use crate::runtime::config::Config;
use crate::runtime::secrets::Access;
use crate::runtime::tls;

/// The Messenger client of one Page, for one invocation: a connection that outlived an invocation would be found dead after
/// a freeze, and cost a false doubt.
pub struct MessengerClient {
    client: Client,
    /// The base of all URLs, unless it cannot be read.
    url: Option<Url>,
    pub(crate) access: Access,
    pub(crate) page_id: PageId,
}

impl MessengerClient {
    /// Returns a client without connections.
    ///
    /// # Errors
    /// If the TLS backend cannot be initialized.
    pub fn new(config: &Config, page_id: &PageId, access: Access) -> Result<Self, reqwest::Error> {
        let client = tls::client()
            .timeout(config.messenger_timeout)
            // A connection that is not made in time must fail as such, since that proves that nothing was sent.
            .connect_timeout(config.messenger_timeout / 2)
            // Beneath this, hyper repeats a request only if it has written nothing of it.
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            client,
            url: Url::parse(&config.graph_api_url).ok(),
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
        let body = answer::read(answer, &self.page_id).await?;
        let message_id = answer::message_id(&body, &reservation.contact_id);
        message_id.ok_or(SendError::NoAnswer("answer not readable"))
    }

    /// Reads an object of the Graph API, by the segments of its path. Returns it as JSON, with the time of the answer by
    /// Messenger's clock if that is readable.
    pub(crate) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<(String, Option<Timestamp>), SendError> {
        let call = self.call(Method::GET, path)?.query(query);
        let answer = call.send().await.map_err(|error| without_answer(&error))?;
        let date = answer.headers().get(DATE);
        let answered_at = date.and_then(|date| rfc2822::DateTimeParser::new().parse_timestamp(date.as_bytes()).ok());
        Ok((answer::read(answer, &self.page_id).await?, answered_at))
    }

    fn call(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, SendError> {
        let mut url = self.url.clone().ok_or(SendError::NotConnected)?;
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

/// Returns the error of a call that got no answer. A request that could not be built, or found no connection, never left.
fn without_answer(error: &reqwest::Error) -> SendError {
    if error.is_connect() || error.is_builder() {
        SendError::NotConnected
    } else {
        answer::lost(error)
    }
}
