//! Page access tokens and the app's secret: from files, kept as secrets, never logged.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::ids::PageId;

/// Page access tokens by Page.
#[derive(Clone)]
pub struct Tokens(HashMap<PageId, SecretString>);

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
    /// The file holds no secret.
    #[error("the file of a secret, {path}, must hold one line of visible ASCII characters")]
    MalformedSecret {
        /// Its path.
        path: PathBuf,
    },
}

impl Tokens {
    /// Reads a JSON object of Page ids and tokens.
    pub fn read(path: &Path) -> Result<Self, Error> {
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
    pub fn of(&self, page_id: &PageId) -> Option<&SecretString> {
        self.0.get(page_id)
    }
}

/// Reads a secret: a line of visible ASCII characters.
pub fn read_secret(path: &Path) -> Result<SecretString, Error> {
    let secret = read(path)?;
    let secret = secret.trim_end();
    if secret.is_empty() || !secret.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Error::MalformedSecret {
            path: path.to_owned(),
        });
    }
    Ok(SecretString::from(secret))
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
