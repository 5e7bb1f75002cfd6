//! Page access tokens, the app's secret and the webhooks' verify token, from files or from SecureString parameters of AWS
//! Systems Manager. None of them is logged.
//!
//! *No answer is not "no token"*: errors tell a missing secret from a refused and from an unanswered reading.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use tracing::warn;

use crate::domain::ids::PageId;
use crate::runtime::clock::Clock;
use crate::runtime::config::{Config, Source};
use crate::runtime::parameters::{ParameterClient, ParameterError};

/// The age up to which a cached parameter is used: each reading costs time, and Systems Manager limits their rate.
const CACHED_FOR: SignedDuration = SignedDuration::from_mins(5);

/// The secrets of a function.
#[derive(Clone)]
pub struct Secrets {
    page_tokens: PageTokens,
    app_secret: Option<SingleSecret>,
    verify_token: Option<SingleSecret>,
    parameters: CachedParameters,
}

#[derive(Clone)]
enum PageTokens {
    /// A file that is read for each use, since the operator may have added a token; `at_start` serves while it cannot be
    /// read.
    File { path: PathBuf, at_start: Tokens },
    /// A parameter for each Page, named by this prefix and the Page's id.
    Parameters { prefix: String },
}

/// The place of one secret.
#[derive(Clone)]
enum SingleSecret {
    /// The content of a file, read at start.
    InMemory(SecretString),
    /// The name of a parameter.
    InParameter(String),
}

/// The credentials of a Page's calls to Messenger.
#[derive(Clone)]
pub struct Access {
    /// The Page's access token.
    pub token: SecretString,
    /// Proof for Meta that the holder of the token also knows the app's secret; `None` if no secret is configured.
    pub appsecret_proof: Option<String>,
}

/// The reason why a token or a secret is not available. No variant holds one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// The error of the file system.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a JSON object of Page ids and tokens.
    #[error("the file of Page tokens, {path}, must hold a JSON object of Page ids and their access tokens: {problem}")]
    Malformed {
        /// Its path.
        path: PathBuf,
        /// The position and kind of the mistake, without the text of the file.
        problem: String,
    },
    /// A file or a parameter holds no secret.
    #[error("{place} must hold one line of visible ASCII characters")]
    NoSecret {
        /// The name of the file or parameter.
        place: String,
    },
    /// The Page has no token.
    #[error("no access token for this Page: {remedy}, and resume")]
    NoToken {
        /// The step by which an operator gives it one.
        remedy: String,
    },
    /// A configured parameter does not exist.
    #[error("the parameter {name} does not exist: create it, and resume")]
    Missing {
        /// Its name.
        name: String,
    },
    /// Systems Manager refuses to return the parameter.
    #[error("the parameter {name} cannot be read: {code}")]
    Refused {
        /// Its name.
        name: String,
        /// The error code of AWS.
        code: String,
    },
    /// Systems Manager gave no answer or was throttled: the parameter may exist, and a later reading may succeed.
    #[error("the parameter {name} could not be asked for")]
    Unsettled {
        /// Its name.
        name: String,
        /// The cause, without the text of an answer, which might hold the secret.
        #[source]
        source: ParameterError,
    },
}

impl Error {
    /// Returns true if a later attempt may succeed without an operator's action.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unsettled { .. })
    }
}

impl Secrets {
    /// Reads the secrets that the configuration keeps in files. Those in parameters are read when they are first needed.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`], [`Error::Malformed`] or [`Error::NoSecret`] if a file cannot be used.
    pub fn new(config: &Config, client: ParameterClient, clock: Clock) -> Result<Self, Error> {
        let single = |source: &Option<Source>| source.as_ref().map(SingleSecret::new).transpose();
        Ok(Self {
            page_tokens: match &config.page_tokens {
                Source::File(path) => PageTokens::File {
                    path: path.clone(),
                    at_start: Tokens::read(path)?,
                },
                Source::Parameter(prefix) => PageTokens::Parameters { prefix: prefix.clone() },
            },
            app_secret: single(&config.app_secret)?,
            verify_token: single(&config.webhook_verify_token)?,
            parameters: CachedParameters {
                client,
                clock,
                cached: Arc::default(),
            },
        })
    }

    /// Returns the credentials of the Page's calls: the current ones from files, those of up to five minutes ago from
    /// parameters. With a configured app secret they always include the proof.
    ///
    /// # Errors
    ///
    /// Any [`Error`] of the token or of the app's secret; [`Error::may_pass`] tells whether a later call may succeed.
    pub async fn access(&self, page_id: &PageId) -> Result<Access, Error> {
        let token = self.page_token(page_id).await?;
        let appsecret_proof = match self.app_secret().await? {
            None => None,
            Some(secret) => {
                let proof = signature(&secret, token.expose_secret().as_bytes());
                let place = || "APP_SECRET".to_owned();
                Some(proof.ok_or_else(|| Error::NoSecret { place: place() })?)
            }
        };
        Ok(Access { token, appsecret_proof })
    }

    /// Reads the Page's token anew, past the cache, and returns true if it differs from the one that Messenger refused.
    ///
    /// # Errors
    ///
    /// Any [`Error`] of the token.
    pub async fn is_renewed(&self, page_id: &PageId, refused: &SecretString) -> Result<bool, Error> {
        self.forget_token(page_id);
        let token = self.page_token(page_id).await?;
        Ok(token.expose_secret() != refused.expose_secret())
    }

    /// Removes the Page's token from the cache, after Messenger has refused it.
    pub fn forget_token(&self, page_id: &PageId) {
        if let PageTokens::Parameters { prefix } = &self.page_tokens {
            self.parameters.forget(&format!("{prefix}{page_id}"));
        }
    }

    async fn page_token(&self, page_id: &PageId) -> Result<SecretString, Error> {
        let (token, remedy) = match &self.page_tokens {
            PageTokens::File { path, at_start } => {
                let token = match Tokens::read(path) {
                    Ok(tokens) => tokens.of(page_id).cloned(),
                    Err(error) => {
                        let error: &dyn std::error::Error = &error;
                        warn!(
                            error,
                            "file of Page tokens unreadable: using the tokens read at start, repair the file"
                        );
                        at_start.of(page_id).cloned()
                    }
                };
                (token, "add it to PAGE_TOKENS".to_owned())
            }
            PageTokens::Parameters { prefix } => {
                let name = format!("{prefix}{page_id}");
                let token = self.parameters.value(&name).await?;
                (token, format!("put it into the parameter {name}"))
            }
        };
        token.ok_or(Error::NoToken { remedy })
    }

    /// Returns the app's secret, or `None` if the configuration names none.
    ///
    /// # Errors
    ///
    /// Any [`Error`] of reading a parameter; [`Error::Missing`] if it does not exist.
    pub async fn app_secret(&self) -> Result<Option<SecretString>, Error> {
        self.single(self.app_secret.as_ref()).await
    }

    /// Returns the token by which Meta proves itself when it subscribes to webhooks, or `None` if the configuration names
    /// none.
    ///
    /// # Errors
    ///
    /// Those of [`Self::app_secret`].
    pub async fn verify_token(&self) -> Result<Option<SecretString>, Error> {
        self.single(self.verify_token.as_ref()).await
    }

    async fn single(&self, secret: Option<&SingleSecret>) -> Result<Option<SecretString>, Error> {
        match secret {
            None => Ok(None),
            Some(SingleSecret::InMemory(secret)) => Ok(Some(secret.clone())),
            Some(SingleSecret::InParameter(name)) => {
                let missing = || Error::Missing { name: name.clone() };
                let value = self.parameters.value(name).await?;
                value.ok_or_else(missing).map(Some)
            }
        }
    }
}

impl SingleSecret {
    fn new(source: &Source) -> Result<Self, Error> {
        Ok(match source {
            Source::File(path) => Self::InMemory(read_file(path)?),
            Source::Parameter(name) => Self::InParameter(name.clone()),
        })
    }
}

/// Parameters of Systems Manager, read when they are needed and cached for [`CACHED_FOR`].
#[derive(Clone)]
struct CachedParameters {
    client: ParameterClient,
    clock: Clock,
    /// Values by name, with the time of their reading. Absence is not cached, as an operator may be about to create the
    /// parameter.
    cached: Arc<Mutex<HashMap<String, (SecretString, Timestamp)>>>,
}

impl CachedParameters {
    /// Returns the value of a parameter, or `None` if it does not exist.
    async fn value(&self, name: &str) -> Result<Option<SecretString>, Error> {
        let now = self.clock.now();
        if let Some((value, read_at)) = self.cached(|cached| cached.get(name).cloned())
            // A time of reading that is ahead is that of a clock that has gone back since.
            && (read_at..read_at + CACHED_FOR).contains(&now)
        {
            return Ok(Some(value));
        }
        let found = self.client.get(name).await.map_err(|error| match error {
            ParameterError::Refused { code } => Error::Refused {
                name: name.to_owned(),
                code,
            },
            source => Error::Unsettled {
                name: name.to_owned(),
                source,
            },
        })?;
        let Some(value) = found else {
            return Ok(None);
        };
        let value = one_line(&value).ok_or_else(|| Error::NoSecret {
            place: format!("the parameter {name}"),
        })?;
        self.cached(|cached| cached.insert(name.to_owned(), (value.clone(), now)));
        Ok(Some(value))
    }

    fn forget(&self, name: &str) {
        self.cached(|cached| cached.remove(name));
    }

    fn cached<T>(&self, with: impl FnOnce(&mut HashMap<String, (SecretString, Timestamp)>) -> T) -> T {
        // A poisoned map is whole: each change is a single call.
        with(&mut self.cached.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Page access tokens by Page.
#[derive(Clone)]
struct Tokens(HashMap<PageId, SecretString>);

impl Tokens {
    /// Reads a JSON object of Page ids and tokens.
    fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&read(path)?).map_err(|problem| Error::Malformed {
            path: path.to_owned(),
            problem,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let tokens: HashMap<String, String> = serde_json::from_str(text)
            .map_err(|error| format!("wrong at line {}, column {}", error.line(), error.column()))?;
        let tokens = tokens.into_iter().map(|(page, token)| {
            let page_id = PageId::parse(&page).map_err(|problem| format!("Page id {page:?} {problem}"))?;
            if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
                return Err(format!("the token of Page {page_id} must be visible ASCII characters"));
            }
            Ok((page_id, SecretString::from(token)))
        });
        tokens.collect::<Result<_, String>>().map(Self)
    }

    /// Returns the token of a Page.
    fn of(&self, page_id: &PageId) -> Option<&SecretString> {
        self.0.get(page_id)
    }
}

/// Reads a file that holds one secret.
///
/// # Errors
///
/// [`Error::Unreadable`] if the file cannot be read, [`Error::NoSecret`] if it is not one line of visible ASCII characters.
pub fn read_file(path: &Path) -> Result<SecretString, Error> {
    let place = || format!("the file of a secret, {},", path.display());
    let secret = SecretString::from(read(path)?);
    one_line(&secret).ok_or_else(|| Error::NoSecret { place: place() })
}

/// Returns the text without trailing white space if it is one line of visible ASCII characters.
fn one_line(secret: &SecretString) -> Option<SecretString> {
    let line = secret.expose_secret().trim_end();
    let is_one = !line.is_empty() && line.chars().all(|c| c.is_ascii_graphic());
    is_one.then(|| line.into())
}

/// Returns the HMAC-SHA256 of these bytes under the secret, in hexadecimal; `None` if the secret cannot be a key.
pub fn signature(secret: &SecretString, bytes: &[u8]) -> Option<String> {
    let key = secret.expose_secret().as_bytes();
    let mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    let signature = mac.chain_update(bytes).finalize().into_bytes();
    let digits = signature.iter().map(|byte| format!("{byte:02x}"));
    Some(digits.collect())
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Unreadable {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second test case of RFC 4231.
    #[test]
    fn signature_is_an_hmac() {
        let signature = signature(&"Jefe".into(), b"what do ya want for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature.as_deref(), Some(expected));
    }

    #[test]
    fn error_of_a_malformed_file_does_not_quote_it() {
        for text in [
            "",
            "[]",
            r#"{"1": 5}"#,
            r#"{"1": ""}"#,
            r#"{"a b": "SECRET"}"#,
            "{\"1\": \"SECRET\\n\"}",
            r#"{"1": "SECRET"#,
        ] {
            let problem = Tokens::parse(text).err().unwrap();
            assert!(!problem.contains("SECRET"), "{problem}");
        }
        assert!(Tokens::parse(r#"{"1": "EAAB"}"#).is_ok());
    }
}
