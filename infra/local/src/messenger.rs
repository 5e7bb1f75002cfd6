//! The Messenger to which the functions send, which is the sandbox or the real one, and the Page access tokens for it,
//! which are read from the operator's file or generated for the sandbox.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use uuid::Uuid;

use crate::sandbox::Sandbox;
use crate::secrets;

/// Page access tokens by Page id.
type PageTokens = BTreeMap<String, String>;

/// The Pages of the sandbox unless a tokens file names others.
pub const SANDBOX_PAGES: [&str; 4] = ["page-1", "page-2", "page-3", "page-4"];

/// Failure to set up the Messenger. No message contains a token.
#[derive(Debug, thiserror::Error)]
pub enum MessengerError {
    #[error("the page tokens file {} cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the page tokens file {} must be a JSON object of page id to token, such as {{\"1234\": \"EAAB…\"}}",
        path.display()
    )]
    Malformed { path: PathBuf },
    #[error("the sandbox's page tokens cannot be written to a temporary file")]
    Unwritable(#[source] std::io::Error),
    #[error("--graph-url needs --page-tokens FILE, a JSON object of page id to token")]
    NoPageTokens,
    #[error("the sandbox cannot listen on 127.0.0.1")]
    Sandbox(#[source] std::io::Error),
}

/// The Messenger to which the functions send.
#[derive(Debug)]
pub struct MessengerEndpoint {
    /// The base URL of all calls, including the version.
    pub url: String,
    /// `None` if messages go to the real Messenger.
    pub sandbox: Option<Sandbox>,
    /// The place of the Page access tokens, as `file:PATH`.
    pub page_tokens: String,
    /// The file of generated tokens, which is removed with this value.
    _generated_tokens: Option<NamedTempFile>,
}

impl MessengerEndpoint {
    /// Takes the Messenger at `graph_url`, or else starts a sandbox. The tokens are those of the file, or else, for the
    /// sandbox only, generated ones.
    ///
    /// # Errors
    ///
    /// Fails if a `graph_url` comes without a tokens file, if the tokens file cannot be read, and if the sandbox does
    /// not start.
    pub async fn choose(
        graph_url: Option<String>,
        tokens_file: Option<PathBuf>,
    ) -> Result<MessengerEndpoint, MessengerError> {
        let (tokens, path, generated_tokens) = match tokens_file {
            Some(path) => (read(&path)?, path, None),
            None if graph_url.is_some() => return Err(MessengerError::NoPageTokens),
            None => {
                let tokens = generate_tokens();
                let json = serde_json::json!(tokens).to_string();
                let file = secrets::write_temporary(json.as_bytes()).map_err(MessengerError::Unwritable)?;
                (tokens, file.path().to_owned(), Some(file))
            }
        };
        let (url, sandbox) = match graph_url {
            Some(url) => (url, None),
            None => {
                let sandbox = Sandbox::start(tokens).await.map_err(MessengerError::Sandbox)?;
                (sandbox.url(), Some(sandbox))
            }
        };
        Ok(MessengerEndpoint {
            url,
            sandbox,
            page_tokens: format!("file:{}", path.display()),
            _generated_tokens: generated_tokens,
        })
    }
}

/// Reads an operator's tokens file.
fn read(path: &Path) -> Result<PageTokens, MessengerError> {
    let text = std::fs::read(path).map_err(|source| MessengerError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    // The parser's own message is left out, because it may quote the text, which contains tokens.
    serde_json::from_slice(&text).map_err(|_| MessengerError::Malformed { path: path.to_owned() })
}

/// Generates a token for each of the sandbox's Pages.
fn generate_tokens() -> PageTokens {
    SANDBOX_PAGES
        .iter()
        .map(|page| ((*page).to_owned(), Uuid::new_v4().simple().to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_never_shows_the_text_of_the_file() {
        let file = secrets::write_temporary(br#"{"page": ["EAABsecret"]}"#).unwrap();

        let error = read(file.path()).unwrap_err();

        assert!(matches!(error, MessengerError::Malformed { .. }));
        assert!(!format!("{error:?} {error}").contains("secret"));
    }
}
