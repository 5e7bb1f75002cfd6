//! Page access tokens for a run: read from the operator's file, or made up for the sandbox.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use uuid::Uuid;

/// Page access tokens by Page id.
pub type PageTokens = BTreeMap<String, String>;

/// The Pages that exist in the sandbox when nobody names others.
pub const SANDBOX_PAGES: [&str; 4] = ["page-1", "page-2", "page-3", "page-4"];

/// Why there are no tokens. No message shows a token.
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
}

/// Reads an operator's file.
pub fn read(path: &Path) -> Result<PageTokens, Error> {
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
pub fn for_sandbox() -> PageTokens {
    SANDBOX_PAGES
        .iter()
        .map(|page| ((*page).to_owned(), Uuid::new_v4().simple().to_string()))
        .collect()
}

/// Writes tokens to a file that only we may read, and that is removed when dropped.
pub fn write_temporary(tokens: &PageTokens) -> Result<NamedTempFile, Error> {
    let write = || {
        let mut file = tempfile::Builder::new()
            .prefix("oncecast-tokens-")
            .suffix(".json")
            .tempfile()?;
        serde_json::to_writer(&mut file, tokens)?;
        file.flush()?;
        Ok(file)
    };
    write().map_err(Error::Unwritable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_file_reads_back_and_is_private() {
        use std::os::unix::fs::PermissionsExt;

        let tokens = for_sandbox();
        let file = write_temporary(&tokens).unwrap();

        assert_eq!(read(file.path()).unwrap(), tokens);
        let mode = file.as_file().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_error_never_shows_the_text_of_the_file() {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(br#"{"page": ["EAABsecret"]}"#).unwrap();

        let error = read(file.path()).unwrap_err();

        assert!(matches!(error, Error::Malformed { .. }));
        assert!(!format!("{error:?} {error}").contains("secret"));
    }
}
