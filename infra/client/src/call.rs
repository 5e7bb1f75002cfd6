//! One call of the API: its signature, its repetition, and its answer or the error.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::SignedDuration;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Method, Request, StatusCode};
use send::api::problems::{GatewayMessage, ProblemDetails};
use serde::de::DeserializeOwned;
use tokio::time;

use crate::sign::{self, SignError, Signer};

/// The header by which the API recognises a repeated request.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header with the id by which the API's log names a request.
const REQUEST_ID: &str = "x-request-id";

/// The number of repetitions of a request.
const REPETITIONS: usize = 4;
/// The delay before the first repetition. It doubles with each one, and has jitter.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// The longest delay before a repetition, but for a longer `Retry-After`.
const MAX_DELAY: Duration = Duration::from_secs(10);
/// The longest `Retry-After` that is waited for. An error that asks for more is returned at once.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// The part of an answer in another form that an error shows, in characters.
const MAX_DETAIL: usize = 300;

/// The listener that is told of the error and the delay before a request is repeated.
type OnWait = dyn Fn(&Error, Duration) + Send + Sync;

/// The time for which requests are repeated in place of the usual number, and the listener that is told of each wait.
#[derive(Clone)]
pub struct Patience {
    within: Duration,
    on_wait: Arc<OnWait>,
    /// True once the API has answered a request of this client.
    answered: Arc<AtomicBool>,
}

impl Patience {
    /// Returns the patience for one request, and calls `on_wait` with the error and the delay before each repetition.
    pub fn new(within: Duration, on_wait: impl Fn(&Error, Duration) + Send + Sync + 'static) -> Self {
        Self {
            within,
            on_wait: Arc::new(on_wait),
            answered: Arc::default(),
        }
    }

    /// Returns true if the request is repeated after this error and this delay.
    fn lasts(&self, error: &Error, repetitions: usize, elapsed: Duration) -> bool {
        let is_unreachable = matches!(error, Error::Unanswered { source, .. } if source.is_connect());
        // A URL that has never answered is more likely wrong than out of order.
        let may_be_wrong = is_unreachable && !self.answered.load(Ordering::Relaxed);
        elapsed <= self.within && (repetitions < REPETITIONS || !may_be_wrong)
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience")
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}

/// Failure of a call. Each names the call by method and path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The base URL cannot be one, or a value cannot be written into the request.
    #[error("the request cannot be built")]
    Request(#[source] reqwest::Error),
    /// The API could not be reached, or its answer broke off. The request may have taken effect.
    #[error("{call} was not answered")]
    Unanswered {
        /// The call.
        call: String,
        /// The failure of HTTP.
        #[source]
        source: reqwest::Error,
    },
    /// The API refused the request.
    #[error("{call} was answered with {status}: {}", problem.detail)]
    Refused {
        /// The call.
        call: String,
        /// The status of the answer.
        status: StatusCode,
        /// The problem that the answer describes.
        problem: Box<ProblemDetails>,
        /// The id by which the API's log names the request.
        request_id: Option<String>,
        /// The time after which the request may be repeated, if the answer has one.
        retry_after: Option<Duration>,
    },
    /// The answer is not one of this API: a page for people, a redirect, or a path that the server does not know.
    #[error("{call} was answered with {status} by something else than the API: {found}")]
    NotTheApi {
        /// The call.
        call: String,
        /// The status of the answer.
        status: StatusCode,
        /// The form of the answer, in words.
        found: String,
    },
    /// The request cannot be signed, or its credentials have expired.
    #[error(transparent)]
    NotSigned(#[from] SignError),
    /// AWS refused the signature, and the clock of this machine is wrong.
    #[error("AWS refused the signature of {call}: the clock of this machine is {}", sign::off(*ahead))]
    Clock {
        /// The call.
        call: String,
        /// The time by which this machine is ahead of the server; negative if it is behind.
        ahead: SignedDuration,
    },
    /// The answer is a success, but not in the form that the API documents.
    #[error("the answer to {call} cannot be read")]
    Unreadable {
        /// The call.
        call: String,
        /// The failure of the parser.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// Returns the status of the answer if the API refused the request.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Request(_)
            | Self::Unanswered { .. }
            | Self::NotTheApi { .. }
            | Self::NotSigned(_)
            | Self::Clock { .. }
            | Self::Unreadable { .. } => None,
        }
    }

    /// Returns the time to wait before the request is repeated, which is at least `delay`; `None` if that is of no use.
    fn delay(&self, delay: Duration) -> Option<Duration> {
        match self {
            Self::Unanswered { .. } => Some(delay),
            Self::Refused {
                status, retry_after, ..
            } if is_temporary(*status) => {
                let retry_after = retry_after.unwrap_or_default();
                (retry_after <= MAX_RETRY_AFTER).then(|| delay.max(retry_after))
            }
            Self::Refused { .. }
            | Self::Request(_)
            | Self::NotTheApi { .. }
            | Self::NotSigned(_)
            | Self::Clock { .. }
            | Self::Unreadable { .. } => None,
        }
    }
}

fn is_temporary(status: StatusCode) -> bool {
    let temporary = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    temporary.contains(&status)
}

/// An answer with a status of success, or 304.
#[derive(Debug)]
pub struct Answer {
    call: String,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Parses the body.
    ///
    /// # Errors
    ///
    /// Fails if the body has another form.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|source| {
            let call = self.call.clone();
            Error::Unreadable { call, source }
        })
    }

    /// Returns a header that is visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The way in which requests are sent.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    /// The client of HTTP.
    pub http: reqwest::Client,
    /// The signer; requests are not signed without one.
    pub signer: Option<Signer>,
    /// The patience; without it a request has four repetitions.
    pub patience: Option<Patience>,
}

impl Sender {
    /// Sends a request, and repeats it where that is safe and of use.
    ///
    /// # Errors
    ///
    /// Fails if the API cannot be reached or refuses the request, after the last repetition.
    pub async fn answer(&self, mut request: Request) -> Result<Answer, Error> {
        let may_repeat = may_repeat(&request);
        let delays = ExponentialBuilder::default()
            .with_min_delay(FIRST_DELAY)
            .with_max_delay(MAX_DELAY)
            .without_max_times()
            .with_jitter();
        let (mut delays, begun, mut repetitions) = (delays.build(), Instant::now(), 0);
        loop {
            // Every body is in memory, so it can be cloned.
            let again = request.try_clone().filter(|_| may_repeat);
            let result = self.once(request).await;
            if let Some(patience) = &self.patience {
                let is_answer = matches!(result, Ok(_) | Err(Error::Refused { .. }));
                patience.answered.fetch_or(is_answer, Ordering::Relaxed);
            }
            let error = match result {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let delay = delays.next().and_then(|delay| error.delay(delay));
            let lasts = |delay: &Duration| match &self.patience {
                Some(patience) => patience.lasts(&error, repetitions, begun.elapsed() + *delay),
                None => repetitions < REPETITIONS,
            };
            let (Some(again), Some(delay)) = (again, delay.filter(lasts)) else {
                return Err(error);
            };
            if let Some(patience) = &self.patience {
                (patience.on_wait)(&error, delay);
            }
            time::sleep(delay).await;
            (request, repetitions) = (again, repetitions + 1);
        }
    }

    /// Sends a request once. Each repetition is signed anew, as a signature is valid for some minutes.
    async fn once(&self, mut request: Request) -> Result<Answer, Error> {
        let call = format!("{} {}", request.method(), request.url().path());
        if let Some(signer) = &self.signer {
            signer.sign(&mut request).await?;
        }
        let received = async {
            let answer = self.http.execute(request).await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            Ok((status, headers, answer.bytes().await?.to_vec()))
        };
        let (status, headers, body) = match received.await {
            Ok(received) => received,
            Err(source) => return Err(Error::Unanswered { call, source }),
        };
        let answer = Answer {
            call,
            status,
            headers,
            body,
        };
        if let Some(found) = answer.other_form() {
            let call = answer.call;
            return Err(Error::NotTheApi { call, status, found });
        }
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        let is_signed = self.signer.is_some();
        Err(match is_signed.then(|| signature_fault(&answer)).flatten() {
            Some(error) => error,
            None => refusal(answer),
        })
    }
}

/// Returns true if a request has no further effect when it is repeated. Of the posts, those with a key have none.
fn may_repeat(request: &Request) -> bool {
    request.method() != Method::POST || request.headers().contains_key(IDEMPOTENCY_KEY)
}

impl Answer {
    /// Returns the form of an answer that the API does not give, in words. A proxy's page that says "busy" is left alone.
    fn other_form(&self) -> Option<String> {
        let content_type = self.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        if self.status.is_redirection() && self.status != StatusCode::NOT_MODIFIED {
            let place = self.header(LOCATION.as_str()).unwrap_or("another place");
            return Some(format!("a redirect to {place}"));
        }
        let is_page = content_type.starts_with("text/html") && !is_temporary(self.status);
        let is_problem = || serde_json::from_slice::<ProblemDetails>(&self.body).is_ok();
        let is_unknown_path = self.status == StatusCode::NOT_FOUND && !is_problem();
        match (is_page, is_unknown_path) {
            (true, _) => Some("a page of HTML".to_owned()),
            (_, true) => Some("there is no such path".to_owned()),
            _ => None,
        }
    }
}

/// Returns the error of an answer by which AWS refuses the signature for the time or the age of the credentials.
fn signature_fault(answer: &Answer) -> Option<Error> {
    let is_refusal = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answer.status);
    let text = String::from_utf8_lossy(&answer.body);
    if !is_refusal {
        return None;
    }
    if text.contains("security token included in the request is expired") {
        return Some(SignError::Expired.into());
    }
    let ahead = sign::ahead_of(answer.header("date")?)?;
    let call = answer.call.clone();
    sign::refuses_time(&text, ahead).then_some(Error::Clock { call, ahead })
}

fn refusal(answer: Answer) -> Error {
    let status = answer.status;
    let seconds = answer.header(RETRY_AFTER.as_str());
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    let problem = serde_json::from_slice(&answer.body);
    Error::Refused {
        status,
        problem: Box::new(problem.unwrap_or_else(|_| plain_problem(status, &answer.body))),
        request_id: answer.header(REQUEST_ID).map(str::to_owned),
        retry_after: seconds.map(Duration::from_secs),
        call: answer.call,
    }
}

/// Returns the problem of an answer in another form, which API Gateway or a proxy wrote.
fn plain_problem(status: StatusCode, body: &[u8]) -> ProblemDetails {
    let message = serde_json::from_slice::<GatewayMessage>(body);
    let detail = match message {
        Ok(GatewayMessage { message }) => message,
        Err(_) => String::from_utf8_lossy(body).chars().take(MAX_DETAIL).collect(),
    };
    ProblemDetails {
        kind: "about:blank".to_owned(),
        title: status.canonical_reason().unwrap_or_default().to_owned(),
        status: status.as_u16(),
        detail,
        errors: Vec::new(),
    }
}
