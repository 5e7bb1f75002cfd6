//! Page access tokens, the app's secret and the webhooks' verify token: from files, or from SecureString parameters of the
//! Systems Manager; kept as secrets, never logged.
//!
//! *No answer is not "no token"*: what is not there, what may not be read and what could not be asked are told apart.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::ProvideErrorMetadata;
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use tracing::warn;

use crate::clock::Clock;
use crate::config::{Config, Source};
use crate::ids::PageId;

/// How long a parameter is taken for unchanged: each reading costs time, and the Systems Manager limits how many there are.
const CACHED_FOR: SignedDuration = SignedDuration::from_mins(5);

/// The secrets of a function.
#[derive(Clone)]
pub struct Secrets {
    page_tokens: PageTokens,
    app_secret: Option<Kept>,
    verify_token: Option<Kept>,
    parameters: Parameters,
}

#[derive(Clone)]
enum PageTokens {
    /// Read whenever one is asked for, since the operator may have given a new one; `at_start` while it cannot be read.
    File { path: PathBuf, at_start: Tokens },
    /// One parameter for each Page: its name begins so, and ends with the Page's id.
    Parameters { prefix: String },
}

#[derive(Clone)]
enum Kept {
    /// Read at start.
    InMemory(SecretString),
    /// The parameter of this name.
    InParameter(String),
}

/// What a Page's calls to Messenger carry.
#[derive(Clone)]
pub struct Access {
    /// The Page's access token.
    pub token: SecretString,
    /// Proves to Meta that whoever holds the token knows the app's secret, too; none if no secret is configured.
    pub appsecret_proof: Option<String>,
}

/// Why there are no tokens or no secret. Never holds one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error(
        "the file of Page tokens, {path}, must hold a JSON object of Page ids and their access tokens: {problem}"
    )]
    Malformed {
        /// Its path.
        path: PathBuf,
        /// What is wrong, without what stands there.
        problem: String,
    },
    /// A file or a parameter holds no secret.
    #[error("{place} must hold one line of visible ASCII characters")]
    NoSecret {
        /// Which.
        place: String,
    },
    /// Nobody gave the Page a token.
    #[error("no access token for this Page: {remedy}, and resume")]
    NoToken {
        /// How to give it one.
        remedy: String,
    },
    /// What is configured to be there is not.
    #[error("the parameter {name} does not exist: create it, and resume")]
    Missing {
        /// Its name.
        name: String,
    },
    /// The Systems Manager refuses to show it.
    #[error("the parameter {name} cannot be read: {code}")]
    Refused {
        /// Its name.
        name: String,
        /// Why, in AWS's word.
        code: String,
    },
    /// The Systems Manager gave no answer, or had too much to do: it may be there, and may be asked for again.
    #[error("the parameter {name} could not be asked for")]
    Unsettled {
        /// Its name.
        name: String,
        /// What came instead. Not the whole answer, which might hold the secret.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Whether it may be otherwise in a moment, with nobody doing anything about it.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unsettled { .. })
    }
}

impl Secrets {
    /// Finds them where the configuration says; reads now what is in files.
    pub fn new(config: &Config, client: Client, clock: Clock) -> Result<Self, Error> {
        let kept = |source: &Option<Source>| source.as_ref().map(Kept::new).transpose();
        Ok(Self {
            page_tokens: match &config.page_tokens {
                Source::File(path) => PageTokens::File {
                    path: path.clone(),
                    at_start: Tokens::read(path)?,
                },
                Source::Parameter(prefix) => PageTokens::Parameters {
                    prefix: prefix.clone(),
                },
            },
            app_secret: kept(&config.app_secret)?,
            verify_token: kept(&config.webhook_verify_token)?,
            parameters: Parameters {
                client,
                clock,
                cached: Arc::default(),
            },
        })
    }

    /// What the Page's calls carry, as of now or, if it is in parameters, as of a few minutes ago. Never without the proof
    /// that the configuration asks for.
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
        Ok(Access {
            token,
            appsecret_proof,
        })
    }

    /// Looks again, past what is cached, after Messenger has refused this token: whether the Page has another one by now.
    pub async fn is_renewed(
        &self,
        page_id: &PageId,
        refused: &SecretString,
    ) -> Result<bool, Error> {
        self.forget_token(page_id);
        let token = self.page_token(page_id).await?;
        Ok(token.expose_secret() != refused.expose_secret())
    }

    /// Has the Page's token read anew when it is needed next: Messenger has refused it.
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
                        warn!(error, "Page tokens as they were at start");
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

    /// The app's secret, if one is configured.
    pub async fn app_secret(&self) -> Result<Option<SecretString>, Error> {
        self.kept(self.app_secret.as_ref()).await
    }

    /// What Meta must know to subscribe to webhooks for us, if it is configured.
    pub async fn verify_token(&self) -> Result<Option<SecretString>, Error> {
        self.kept(self.verify_token.as_ref()).await
    }

    async fn kept(&self, kept: Option<&Kept>) -> Result<Option<SecretString>, Error> {
        match kept {
            None => Ok(None),
            Some(Kept::InMemory(secret)) => Ok(Some(secret.clone())),
            Some(Kept::InParameter(name)) => {
                let missing = || Error::Missing { name: name.clone() };
                let value = self.parameters.value(name).await?;
                value.ok_or_else(missing).map(Some)
            }
        }
    }
}

impl Kept {
    fn new(source: &Source) -> Result<Self, Error> {
        Ok(match source {
            Source::File(path) => Self::InMemory(read_file(path)?),
            Source::Parameter(name) => Self::InParameter(name.clone()),
        })
    }
}

/// Parameters of the Systems Manager, read when they are needed.
#[derive(Clone)]
struct Parameters {
    client: Client,
    clock: Clock,
    /// Values by name, and when they were read. That there is none is not remembered: somebody may be about to mend it.
    cached: Arc<Mutex<HashMap<String, (SecretString, Timestamp)>>>,
}

impl Parameters {
    /// What a parameter holds, if it exists.
    async fn value(&self, name: &str) -> Result<Option<SecretString>, Error> {
        let now = self.clock.now();
        if let Some((value, read_at)) = self.cached(|cached| cached.get(name).cloned())
            && now < read_at + CACHED_FOR
        {
            return Ok(Some(value));
        }
        let call = self.client.get_parameter().name(name).with_decryption(true);
        let found = match call.send().await {
            Ok(found) => found.parameter.and_then(|parameter| parameter.value),
            Err(error) => match error.code() {
                Some("ParameterNotFound") => None,
                Some(code @ ("AccessDeniedException" | "InvalidKeyId" | "ValidationException")) => {
                    let (name, code) = (name.to_owned(), code.to_owned());
                    return Err(Error::Refused { name, code });
                }
                _ => {
                    let name = name.to_owned();
                    let source = error.into_source().unwrap_or_else(Into::into);
                    return Err(Error::Unsettled { name, source });
                }
            },
        };
        let Some(value) = found.map(SecretString::from) else {
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

    fn cached<T>(
        &self,
        with: impl FnOnce(&mut HashMap<String, (SecretString, Timestamp)>) -> T,
    ) -> T {
        // Changed by single calls, so a panic elsewhere leaves nothing half done.
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
        let tokens: HashMap<String, String> = serde_json::from_str(text).map_err(|error| {
            format!("wrong at line {}, column {}", error.line(), error.column())
        })?;
        let tokens = tokens.into_iter().map(|(page, token)| {
            let page_id =
                PageId::parse(&page).map_err(|problem| format!("Page id {page:?} {problem}"))?;
            if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
                return Err(format!(
                    "the token of Page {page_id} must be visible ASCII characters"
                ));
            }
            Ok((page_id, SecretString::from(token)))
        });
        tokens.collect::<Result<_, String>>().map(Self)
    }

    /// The token of a Page.
    fn of(&self, page_id: &PageId) -> Option<&SecretString> {
        self.0.get(page_id)
    }
}

/// Reads a file that holds one secret.
pub fn read_file(path: &Path) -> Result<SecretString, Error> {
    let place = || format!("the file of a secret, {},", path.display());
    let secret = SecretString::from(read(path)?);
    one_line(&secret).ok_or_else(|| Error::NoSecret { place: place() })
}

/// A line of visible ASCII characters, without its end.
fn one_line(secret: &SecretString) -> Option<SecretString> {
    let line = secret.expose_secret().trim_end();
    let is_one = !line.is_empty() && line.chars().all(|c| c.is_ascii_graphic());
    is_one.then(|| line.into())
}

/// What only who knows the secret can make of these bytes: HMAC-SHA256 in hexadecimal.
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
    fn a_signature_is_an_hmac() {
        let signature = signature(&"Jefe".into(), b"what do ya want for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature.as_deref(), Some(expected));
    }

    #[test]
    fn a_wrong_file_is_described_without_what_it_holds() {
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
