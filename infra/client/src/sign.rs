//! Signatures of AWS, by which API Gateway knows callers with an IAM role.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Request, Url};
use tokio::sync::Mutex;

/// The service that signatures are for.
const SERVICE: &str = "execute-api";
/// The time before their end at which credentials are read anew.
const RENEWED_BEFORE: Duration = Duration::from_secs(60);
/// The difference between two clocks from which AWS refuses a signature.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html>
const MAX_CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_mins(5);

/// Failure to sign a request.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// No Region is given, and none is configured.
    #[error("no AWS Region is configured")]
    NoRegion,
    /// The chain of credentials has none.
    #[error("there are no AWS credentials")]
    NoCredentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The credentials have expired.
    #[error("the AWS credentials have expired")]
    Expired,
    /// The request cannot be signed.
    #[error("the request cannot be signed")]
    Signing(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A signer of requests to API Gateway in one Region.
#[derive(Clone, Debug)]
pub struct Signer {
    region: Region,
    provider: SharedCredentialsProvider,
    /// The last credentials. A provider may ask another machine for them.
    credentials: Arc<Mutex<Option<Credentials>>>,
}

impl Signer {
    /// Takes credentials from the usual chain of AWS: environment, profile, single sign-on, role of the machine. The Region is
    /// the one that is given, or else the configured one.
    ///
    /// # Errors
    ///
    /// Fails if there is no Region, or nowhere to take credentials from.
    pub async fn from_environment(region: Option<String>) -> Result<Self, SignError> {
        let aws = aws_config::defaults(BehaviorVersion::latest());
        let aws = match region {
            Some(region) => aws.region(Region::new(region)),
            None => aws,
        };
        let aws = aws.load().await;
        let provider = aws.credentials_provider();
        Ok(Self {
            region: aws.region().cloned().ok_or(SignError::NoRegion)?,
            provider: provider.ok_or_else(|| SignError::NoCredentials("no source of them is configured".into()))?,
            credentials: Arc::default(),
        })
    }

    /// Adds the headers of the signature.
    ///
    /// # Errors
    ///
    /// Fails if there are no credentials, or they have expired.
    pub async fn sign(&self, request: &mut Request) -> Result<(), SignError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| SignError::Signing(error);
        let identity = self.credentials().await?.into();
        if let Some(query) = request.url().query().map(strictly_encoded) {
            request.url_mut().set_query(Some(&query));
        }
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region.as_ref())
            .name(SERVICE)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| failed(error.into()))?
            .into();
        let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
        let (method, url) = (request.method().as_str(), request.url().as_str());
        // Proxies change other headers than those that the signature itself needs.
        let signable = SignableRequest::new(method, url, [].into_iter(), SignableBody::Bytes(body));
        let signed = signable.and_then(|request| sign(request, &params));
        let (signature, _) = signed.map_err(|error| failed(error.into()))?.into_parts();
        for (name, value) in signature.headers() {
            let name = HeaderName::try_from(name).map_err(|error| failed(error.into()))?;
            let mut value = HeaderValue::try_from(value).map_err(|error| failed(error.into()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        Ok(())
    }

    async fn credentials(&self) -> Result<Credentials, SignError> {
        let mut last = self.credentials.lock().await;
        let is_valid_in = |credentials: &Credentials, time: Duration| {
            credentials
                .expiry()
                .is_none_or(|expiry| expiry > SystemTime::now() + time)
        };
        if let Some(credentials) = last.as_ref().filter(|last| is_valid_in(last, RENEWED_BEFORE)) {
            return Ok(credentials.clone());
        }
        let credentials = self.provider.provide_credentials().await;
        let credentials = credentials.map_err(|error| SignError::NoCredentials(error.into()))?;
        if !is_valid_in(&credentials, Duration::ZERO) {
            return Err(SignError::Expired);
        }
        *last = Some(credentials.clone());
        Ok(credentials)
    }
}

/// Returns the query of a form, encoded as AWS does it: then it is the same to those who encode it once more and to those who take
/// it as it is. A plus, too, could be a space or itself.
fn strictly_encoded(query: &str) -> String {
    query.replace('+', "%20").replace('*', "%2A").replace("%7E", "~")
}

/// Returns the Region of a URL of API Gateway, such as `https://abc.execute-api.eu-west-1.amazonaws.com`.
pub fn region_of(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let mut labels = url.host_str()?.split('.').skip(1);
    let (service, region, domain) = (labels.next()?, labels.next()?, labels.next()?);
    (service == SERVICE && domain == "amazonaws").then(|| region.to_owned())
}

/// Returns the time by which this machine is ahead of the `Date` of an answer.
pub fn ahead_of(date: &str) -> Option<SignedDuration> {
    let date = rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(Timestamp::now().duration_since(date))
}

/// Returns true if a refusal is due to the time of the signature: it says so, or the clocks differ by too much. API Gateway
/// gives the reason only where its API is one of REST.
pub fn refuses_time(text: &str, ahead: SignedDuration) -> bool {
    let says_so = ["Signature expired", "Signature not yet current"];
    says_so.iter().any(|words| text.contains(words)) || ahead.abs() > MAX_CLOCK_DIFFERENCE
}

/// Writes how far a clock is off, in words.
pub fn off(ahead: SignedDuration) -> String {
    let seconds = ahead.abs().as_secs();
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    let by = match minutes {
        0 => format!("{seconds} s"),
        _ => format!("{minutes} min {seconds} s"),
    };
    match ahead.is_negative() {
        true => format!("{by} behind"),
        false => format!("{by} ahead"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_is_read_from_urls_of_api_gateway_only() {
        let region = |url| region_of(url);
        assert_eq!(
            region("https://abc123.execute-api.eu-west-1.amazonaws.com").as_deref(),
            Some("eu-west-1")
        );
        assert_eq!(
            region("https://abc123.execute-api.cn-north-1.amazonaws.com.cn/prod").as_deref(),
            Some("cn-north-1")
        );
        for url in [
            "http://localhost:3000",
            "https://send.example.com",
            "https://abc.execute-api.eu-west-1.example.com",
            "https://s3.eu-west-1.amazonaws.com",
            "no url",
        ] {
            assert_eq!(region(url), None, "{url}");
        }
    }

    #[test]
    fn difference_of_clocks_is_told_in_words() {
        assert_eq!(off(SignedDuration::from_secs(725)), "12 min 5 s ahead");
        assert_eq!(off(SignedDuration::from_secs(-40)), "40 s behind");
        assert!(refuses_time(
            "{\"message\":\"Forbidden\"}",
            SignedDuration::from_secs(-301)
        ));
        assert!(refuses_time("Signature expired: 2026", SignedDuration::from_secs(299)));
        assert!(!refuses_time(
            "{\"message\":\"Forbidden\"}",
            SignedDuration::from_secs(299)
        ));
        assert!(ahead_of("Thu, 26 Nov 2020 13:00:00 GMT").is_some_and(|ahead| ahead.as_hours() > 24));
    }
}
