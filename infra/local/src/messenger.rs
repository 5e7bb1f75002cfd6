//! Whom the functions send to: the sandbox, or the real Messenger; and the Page access tokens for it, read from the
//! operator's file or made up for the sandbox.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use uuid::Uuid;

use crate::sandbox::Sandbox;
use crate::secrets;

/// Page access tokens by Page id.
type PageTokens = BTreeMap<String, String>;

/// The Pages that exist in the sandbox when nobody names others.
pub const SANDBOX_PAGES: [&str; 4] = ["page-1", "page-2", "page-3", "page-4"];

/// Why there is nobody to send to. No message shows a token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    #[error("the sandbox's page tokens cannot be written")]
    Unwritable(#[source] std::io::Error),
    #[error("--graph-url needs --page-tokens FILE, a JSON object of page id to token")]
    NoPageTokens,
    #[error("the sandbox cannot listen on 127.0.0.1")]
    Sandbox(#[source] std::io::Error),
}

/// Who gets the messages.
#[derive(Debug)]
pub struct Messenger {
    /// Base of all calls, version included.
    pub url: String,
    /// None: the real one.
    pub sandbox: Option<Sandbox>,
    /// Where functions find the Page access tokens, as `file:PATH`.
    pub page_tokens: String,
    /// The tokens file, if it is ours to remove.
    pub made_up_tokens: Option<NamedTempFile>,
}

impl Messenger {
    /// The one at `graph_url`, or else a sandbox, with the tokens of the file or else, for the sandbox only, made-up ones.
    pub async fn choose(
        graph_url: Option<String>,
        tokens_file: Option<PathBuf>,
    ) -> Result<Messenger, Error> {
        let (tokens, path, made_up_tokens) = match tokens_file {
            Some(path) => (read(&path)?, path, None),
            None if graph_url.is_some() => return Err(Error::NoPageTokens),
            None => {
                let tokens = for_sandbox();
                let json = serde_json::json!(tokens).to_string();
                let file = secrets::write_temporary(json.as_bytes()).map_err(Error::Unwritable)?;
                (tokens, file.path().to_owned(), Some(file))
            }
        };
        let (url, sandbox) = match graph_url {
            Some(url) => (url, None),
            None => {
                let sandbox = Sandbox::start(tokens).await.map_err(Error::Sandbox)?;
                (sandbox.url(), Some(sandbox))
            }
        };
        Ok(Messenger {
            url,
            sandbox,
            page_tokens: format!("file:{}", path.display()),
            made_up_tokens,
        })
    }
}

/// Reads an operator's tokens file.
fn read(path: &Path) -> Result<PageTokens, Error> {
    let text = std::fs::read(path).map_err(|source| Error::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    // The parser's own message is left out: it may quote the text, and that is a token.
    serde_json::from_slice(&text).map_err(|_| Error::Malformed {
        path: path.to_owned(),
    })
}

/// Makes up a token for each of the sandbox's Pages.
fn for_sandbox() -> PageTokens {
    SANDBOX_PAGES
        .iter()
        .map(|page| ((*page).to_owned(), Uuid::new_v4().simple().to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_never_shows_the_text_of_the_file() {
        let file = secrets::write_temporary(br#"{"page": ["EAABsecret"]}"#).unwrap();

        let error = read(file.path()).unwrap_err();

        assert!(matches!(error, Error::Malformed { .. }));
        assert!(!format!("{error:?} {error}").contains("secret"));
    }
}
