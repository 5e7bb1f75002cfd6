//! Whom the functions send to: the sandbox, or the real Messenger with the operator's tokens.

use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::page_tokens::{self, PageTokens};
use crate::sandbox::Sandbox;

use super::{Error, Settings};

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
    /// The one that the settings name, or else a sandbox.
    pub async fn choose(settings: &Settings) -> Result<Messenger, Error> {
        match (&settings.graph_url, &settings.page_tokens) {
            (Some(_), None) => Err(Error::NoPageTokens),
            (Some(url), Some(path)) => {
                page_tokens::read(path)?;
                Ok(Messenger {
                    url: url.clone(),
                    sandbox: None,
                    page_tokens: variable(path),
                    made_up_tokens: None,
                })
            }
            (None, Some(path)) => {
                let tokens = page_tokens::read(path)?;
                Messenger::in_sandbox(tokens, path.clone(), None).await
            }
            (None, None) => {
                let tokens = page_tokens::for_sandbox();
                let file = page_tokens::write_temporary(&tokens)?;
                Messenger::in_sandbox(tokens, file.path().to_owned(), Some(file)).await
            }
        }
    }

    async fn in_sandbox(
        tokens: PageTokens,
        tokens_file: PathBuf,
        made_up_tokens: Option<NamedTempFile>,
    ) -> Result<Messenger, Error> {
        let sandbox = Sandbox::start(tokens).await?;
        Ok(Messenger {
            url: sandbox.url(),
            sandbox: Some(sandbox),
            page_tokens: variable(&tokens_file),
            made_up_tokens,
        })
    }
}

fn variable(tokens_file: &Path) -> String {
    format!("file:{}", tokens_file.display())
}
