//! The delivery of events to a URL, as Standard Webhooks prescribes: signed, and tried again with back-off until the receiver takes
//! them. The outbox is in the database, so a kill loses none: an event is out of it when the receiver has answered.

use std::io::{self, Write};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};
use reqwest::redirect::Policy;
use reqwest::{StatusCode, Url};
use secrecy::ExposeSecret;
use shared::runtime::secrets::{self, read_file};
use shared::store::events::Undelivered;
use shared::store::{self, Store};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};
use tempfile::NamedTempFile;
use tokio::time::{self, MissedTickBehavior};

/// The time between two looks at the outbox.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The events that are delivered at the same time.
const CONCURRENT: usize = 8;
/// The time within which a receiver has to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// The waits after the first, second … failed attempt, as the specification suggests. After the last attempt, three days later, an
/// event is given up.
const WAITS: [SignedDuration; 9] = [
    SignedDuration::from_secs(5),
    SignedDuration::from_mins(5),
    SignedDuration::from_mins(30),
    SignedDuration::from_hours(2),
    SignedDuration::from_hours(5),
    SignedDuration::from_hours(10),
    SignedDuration::from_hours(14),
    SignedDuration::from_hours(20),
    SignedDuration::from_hours(24),
];
/// The age from which on an event is not delivered any more: a receiver that is named for the first time gets no old news.
const OLDEST: SignedDuration = SignedDuration::from_hours(96);
/// The bytes of a secret that is made here; the specification asks for 24 to 64.
const SECRET_BYTES: usize = 32;
const SECRET_PREFIX: &str = "whsec_";

/// The receiver of events.
#[derive(Debug, Clone)]
pub struct NotifySettings {
    /// The URL that each event is posted to.
    pub url: Url,
    /// The file of the secret that signs them. It is made if there is none.
    pub secret_file: PathBuf,
}

/// Failure to set up the delivery. No message contains the secret.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    #[error("the secret that signs events cannot be read")]
    Unreadable(#[from] secrets::Error),
    #[error("a secret that signs events cannot be written to {}", path.display())]
    Unwritable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{} has no secret of Standard Webhooks: whsec_ and 24 to 64 bytes in base64; name another file, which is made then",
        path.display()
    )]
    NotASecret { path: PathBuf },
    #[error("--notify-url needs --data DIR, or --notify-secret-file FILE, for the secret that signs events")]
    NoSecretFile,
    #[error("the HTTP client for events cannot be made")]
    Client(#[source] reqwest::Error),
}

/// Delivers events to one receiver.
pub struct Notifier {
    http: reqwest::Client,
    url: Url,
    webhook: Webhook,
}

/// A failed attempt. Its message names no URL, which may hold a secret.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the receiver answered {0}")]
    Refused(StatusCode),
    #[error("the receiver answered 410: it wants no more events")]
    Gone,
    #[error("the receiver did not answer")]
    NoAnswer(#[source] reqwest::Error),
    #[error("the event cannot be written")]
    Unwritable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Notifier {
    /// Returns the deliverer to the receiver of these settings, and makes its secret if there is none.
    ///
    /// # Errors
    ///
    /// Fails if the secret cannot be read or made, or is none.
    pub fn new(settings: &NotifySettings) -> Result<Notifier, NotifyError> {
        let webhook = secret(&settings.secret_file)?;
        let http = reqwest::Client::builder()
            .timeout(ANSWER_WITHIN)
            .user_agent(concat!("Oncecast/", env!("CARGO_PKG_VERSION")))
            // A redirect is no answer to a webhook.
            .redirect(Policy::none());
        let http = match is_this_machine(&settings.url) {
            true => http.no_proxy(),
            false => http,
        };
        Ok(Notifier {
            http: http.build().map_err(NotifyError::Client)?,
            url: settings.url.clone(),
            webhook,
        })
    }

    /// Delivers the events of the outbox as they come due, until the receiver answers 410. At its begin it tries all of them: the
    /// receiver may have been down together with the stack.
    pub async fn run(self, store: Store) {
        let mut ticks = time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_first = true;
        loop {
            ticks.tick().await;
            let until = match is_first {
                true => Timestamp::MAX,
                false => Timestamp::now(),
            };
            match self.deliver_due(&store, until).await {
                Ok(ControlFlow::Continue(())) => is_first = false,
                Ok(ControlFlow::Break(())) => {
                    tracing::error!("the receiver of events answered 410: nothing is delivered until the next start");
                    return;
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "outbox not read; it is read again in a second");
                }
            }
        }
    }

    /// Delivers the events of which the next attempt is due by a time.
    async fn deliver_due(&self, store: &Store, until: Timestamp) -> Result<ControlFlow<()>, store::Error> {
        let due = store.events().due(until).await?;
        let deliveries: Vec<_> = due.iter().map(|id| self.deliver(store, id, until)).collect();
        let mut deliveries = stream::iter(deliveries).buffer_unordered(CONCURRENT);
        while let Some(delivered) = deliveries.next().await {
            if delivered?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Delivers one event, if it is due by a time. Breaks if the receiver wants no more.
    async fn deliver(&self, store: &Store, id: &str, until: Timestamp) -> Result<ControlFlow<()>, store::Error> {
        let events = store.events();
        // The index lags.
        let undelivered = events.undelivered(id).await?;
        let Some(undelivered) = undelivered.filter(|event| event.next_at <= until) else {
            return Ok(ControlFlow::Continue(()));
        };
        let now = Timestamp::now();
        if now.duration_since(undelivered.event.timestamp) > OLDEST {
            tracing::warn!(event.id = id, "event not delivered: it is more than four days old");
            events.finish(&undelivered).await?;
            return Ok(ControlFlow::Continue(()));
        }
        let Err(failure) = self.post(&undelivered, now).await else {
            events.finish(&undelivered).await?;
            return Ok(ControlFlow::Continue(()));
        };
        if matches!(failure, Failure::Gone) {
            return Ok(ControlFlow::Break(()));
        }
        let attempts = undelivered.attempts + 1;
        match WAITS.get(undelivered.attempts as usize) {
            Some(wait) => {
                tracing::warn!(event.id = id, attempts, %wait, error = &failure as &dyn std::error::Error, "event not delivered; it is tried again");
                events.try_again_at(&undelivered, Timestamp::now() + *wait).await?;
            }
            None => {
                tracing::error!(
                    event.id = id,
                    attempts,
                    error = &failure as &dyn std::error::Error,
                    "event not delivered, and given up"
                );
                events.finish(&undelivered).await?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Posts an event, signed as of now.
    async fn post(&self, undelivered: &Undelivered, now: Timestamp) -> Result<(), Failure> {
        let event = &undelivered.event;
        let body = serde_json::to_string(event).map_err(|error| Failure::Unwritable(error.into()))?;
        let signature = self.webhook.sign(&event.id, now.as_second(), body.as_bytes());
        let signature = signature.map_err(|error| Failure::Unwritable(error.into()))?;
        let call = self
            .http
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header(HEADER_WEBHOOK_ID, &event.id)
            .header(HEADER_WEBHOOK_TIMESTAMP, now.as_second())
            .header(HEADER_WEBHOOK_SIGNATURE, signature)
            .body(body);
        let answer = call
            .send()
            .await
            .map_err(|error| Failure::NoAnswer(error.without_url()))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            StatusCode::GONE => Err(Failure::Gone),
            status => Err(Failure::Refused(status)),
        }
    }
}

/// Returns true if a URL is one of this machine, for which no proxy is asked.
fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Reads the secret of a file, and makes one if there is no such file.
fn secret(path: &Path) -> Result<Webhook, NotifyError> {
    if !path.exists() {
        make_secret(path).map_err(|source| NotifyError::Unwritable {
            path: path.to_owned(),
            source,
        })?;
    }
    let secret = read_file(path)?;
    let not_a_secret = || NotifyError::NotASecret { path: path.to_owned() };
    let key = secret
        .expose_secret()
        .strip_prefix(SECRET_PREFIX)
        .ok_or_else(not_a_secret)?;
    let key = STANDARD.decode(key).map_err(|_| not_a_secret())?;
    if !(24..=64).contains(&key.len()) {
        return Err(not_a_secret());
    }
    Webhook::from_bytes(key).map_err(|_| not_a_secret())
}

/// Makes a secret, in a file that only its owner can read and that is there whole or not at all.
fn make_secret(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut file = NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
    let mut secret = vec![0; SECRET_BYTES];
    rand::fill(&mut secret[..]);
    writeln!(file, "{SECRET_PREFIX}{}", STANDARD.encode(secret))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn secret_is_made_once_and_private() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("secret");
        let signed = || secret(&path).unwrap().sign("id", 0, b"{}").unwrap();

        let first = signed();

        assert_eq!(signed(), first);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn file_without_a_secret_is_refused() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("secret");
        for text in [
            "",
            "whsec_",
            "whsec_c2hvcnQ=",
            "c2VjcmV0IG9mIGVub3VnaCBieXRlcyBmb3IgYSBrZXk=",
            "whsec_?",
        ] {
            std::fs::write(&path, text).unwrap();
            let refused = secret(&path);
            assert!(
                matches!(
                    refused,
                    Err(NotifyError::NotASecret { .. } | NotifyError::Unreadable(_))
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn proxy_is_not_asked_for_this_machine() {
        for (url, expected) in [
            ("http://127.0.0.1:4000", true),
            ("http://localhost/hook", true),
            ("http://[::1]:4000", true),
            ("https://example.com", false),
        ] {
            assert_eq!(is_this_machine(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
