//! Messenger's Send API: one request per contact, never repeated by itself.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::HeaderMap;
use reqwest::{Client, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;

use crate::app::App;
use crate::ids::{ContactId, PageId};
use crate::job::Broadcast;
use crate::message::Envelope;
use crate::store::deliveries::Reservation;
use crate::verdict::{Refusal, SendError};

/// One Page's way to Messenger, for one invocation: a connection that outlived one would be found dead after a freeze, and
/// cost a false doubt.
pub struct Messenger {
    client: Client,
    url: String,
    token: SecretString,
    appsecret_proof: Option<String>,
    page_id: PageId,
}

impl Messenger {
    /// A client without connections.
    pub fn new(app: &App, page_id: &PageId, token: SecretString) -> Result<Self, reqwest::Error> {
        let config = &app.config;
        let client = Client::builder()
            .timeout(config.messenger_timeout)
            // A connection that is not made in time must fail as such: it proves that nothing was sent.
            .connect_timeout(config.messenger_timeout / 2)
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            client,
            url: format!("{}/{page_id}/messages", config.graph_api_url),
            appsecret_proof: app
                .app_secret
                .as_ref()
                .and_then(|secret| proof(secret, &token)),
            token,
            page_id: page_id.clone(),
        })
    }

    /// Sends the message, with the contact's text, to the contact whom the reservation is for; Messenger's id of the message
    /// is the proof.
    pub async fn send(
        &self,
        reservation: &Reservation,
        text: Option<&str>,
        broadcast: &Broadcast,
    ) -> Result<String, SendError> {
        let message = &broadcast.message;
        let call = Call {
            recipient: Recipient {
                id: &reservation.contact_id,
            },
            message: Content {
                text,
                attachment: message.attachment.as_ref(),
                template: message.template.as_ref(),
                quick_replies: &message.quick_replies,
                metadata: reservation.metadata(&self.page_id),
            },
            envelope: &broadcast.envelope,
        };
        let answer = self
            .client
            .post(&self.url)
            .bearer_auth(self.token.expose_secret())
            .query(
                &self
                    .appsecret_proof
                    .as_ref()
                    .map(|proof| [("appsecret_proof", proof)]),
            )
            .json(&call)
            .send()
            .await
            .map_err(|error| without_answer(&error))?;
        read(answer).await
    }
}

/// Proves to Meta that whoever holds the token knows the app's secret, too: hexadecimal HMAC-SHA256 of the token.
fn proof(app_secret: &SecretString, token: &SecretString) -> Option<String> {
    let key = app_secret.expose_secret().as_bytes();
    let mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    let proof = mac.chain_update(token.expose_secret()).finalize();
    let proof = proof.into_bytes();
    Some(proof.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[derive(Serialize)]
struct Call<'a> {
    recipient: Recipient<'a>,
    message: Content<'a>,
    #[serde(flatten)]
    envelope: &'a Envelope,
}

#[derive(Serialize)]
struct Recipient<'a> {
    id: &'a ContactId,
}

#[derive(Serialize)]
struct Content<'a> {
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
struct Accepted {
    message_id: String,
}

#[derive(Deserialize)]
struct Failed {
    error: GraphError,
}

#[derive(Deserialize)]
struct GraphError {
    code: i64,
    error_subcode: Option<i64>,
    #[serde(default)]
    message: String,
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

async fn read(answer: Response) -> Result<String, SendError> {
    let status = answer.status();
    let regain_after = regain_after(answer.headers());
    let body = answer
        .bytes()
        .await
        .map_err(|error| without_answer(&error))?;
    if status.is_success() {
        return match serde_json::from_slice::<Accepted>(&body) {
            Ok(accepted) if !accepted.message_id.is_empty() => Ok(accepted.message_id),
            _ => Err(SendError::NoAnswer("answer not readable")),
        };
    }
    if !status.is_client_error() {
        return Err(SendError::NoAnswer("answered with a server error"));
    }
    let Ok(Failed { error }) = serde_json::from_slice(&body) else {
        return Err(SendError::NoAnswer("answer not readable"));
    };
    Err(SendError::Refused(Refusal {
        code: error.code,
        subcode: error.error_subcode,
        no_matching_user: error
            .message
            .to_ascii_lowercase()
            .contains("no matching user"),
        regain_after,
    }))
}

/// `X-Business-Use-Case-Usage: {"<id>": [{"type": "messenger", "estimated_time_to_regain_access": <minutes>, …}]}`
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

    /// The second test case of RFC 4231.
    #[test]
    fn the_proof_is_the_hmac_of_the_token() {
        let proof = proof(&"Jefe".into(), &"what do ya want for nothing?".into());
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(proof.as_deref(), Some(expected));
    }

    #[test]
    fn the_time_to_regain_access_is_in_minutes() {
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
            assert_eq!(
                regain_after(&headers).map(|wait| wait.as_secs()),
                expected,
                "{usage}"
            );
        }
    }
}
