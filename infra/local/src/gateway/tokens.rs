//! The bearer tokens of callers, in place of API Gateway's JWT authorizer: the file of `--api-token`, and the check of a
//! request.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::domain::access::{Access, SCOPES};
use shared::domain::ids::PageId;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::server::Problem;

/// The claim that lists the Pages of a token. A token without Pages has no such claim.
const PAGES_CLAIM: &str = "pages";
/// The value of `PAGES_CLAIM` for the functions: a token without the claim may use every Page.
pub const OPTIONAL_PAGES_CLAIM: &str = "pages?";
/// The issuer of all tokens. The issuer of a JWT is a URL.
const ISSUER: &str = "oncecast-local";
/// The minimal length of a token in characters.
const MIN_CHARS: usize = 32;

/// Failure to use the file of tokens. No message contains a token.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    #[error("the API tokens file {} cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the API tokens file {0} is open to other users of this machine; run `chmod 600 {0}`", path.display())]
    NotPrivate { path: PathBuf },
    #[error("the API tokens file {} is not valid: {problem}", path.display())]
    NotValid { path: PathBuf, problem: String },
}

/// The tokens of the callers.
#[derive(Debug)]
pub struct ApiTokens(Vec<Token>);

/// A caller's token.
#[derive(Debug)]
struct Token {
    name: String,
    secret: SecretString,
    scopes: BTreeSet<String>,
    /// The only Pages that the caller may use; `None` if it may use all.
    pages: Option<Vec<PageId>>,
}

/// A token as the file has it. An unknown field is refused, because a misspelt `pages` would allow every Page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    name: String,
    token: String,
    scopes: BTreeSet<String>,
    pages: Option<Vec<String>>,
}

impl ApiTokens {
    /// Reads the tokens of a file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, if other users of the machine may read or write it, or if an entry is not valid.
    pub fn read(path: &Path) -> Result<ApiTokens, TokensError> {
        let path = path.to_owned();
        let mut text = String::new();
        // Permissions are those of the file that is read, even if the path is given to another file meanwhile.
        let read = File::open(&path).and_then(|mut file| {
            let metadata = file.metadata()?;
            file.read_to_string(&mut text)?;
            Ok(metadata)
        });
        match read {
            Err(source) => Err(TokensError::Unreadable { path, source }),
            Ok(metadata) if !is_private(&metadata) => Err(TokensError::NotPrivate { path }),
            Ok(_) => ApiTokens::parse(&text).map_err(|problem| TokensError::NotValid { path, problem }),
        }
    }

    fn parse(text: &str) -> Result<ApiTokens, String> {
        // The parser's own message is left out, because it may quote the text, which contains tokens.
        let entries: Vec<TokenEntry> = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!(
                "line {line}, column {column}: write a JSON list of tokens, such as \
                 [{{\"name\": \"shop\", \"token\": \"…\", \"scopes\": [\"broadcasts:write\"], \"pages\": [\"1234\"]}}]; \
                 pages may be absent"
            )
        })?;
        if entries.is_empty() {
            return Err("it has no token".to_owned());
        }
        let mut tokens: Vec<Token> = Vec::new();
        for entry in entries {
            let token = Token::new(entry)?;
            for other in &tokens {
                if other.name == token.name {
                    return Err(format!("two tokens have the name {:?}", token.name));
                }
                if other.secret.expose_secret() == token.secret.expose_secret() {
                    return Err(format!("{:?} and {:?} have the same token", other.name, token.name));
                }
            }
            tokens.push(token);
        }
        Ok(ApiTokens(tokens))
    }

    /// Checks that the caller of a request may make it. Returns what API Gateway's JWT authorizer adds to the event, or
    /// `None` for a route that is open to everybody.
    ///
    /// # Errors
    ///
    /// Fails with status 401 without a valid token, and with 403 if the token lacks the scope of the route.
    pub fn authorize(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Option<Value>, Problem> {
        let Access::Scope(scope) = Access::of(method.as_str(), path) else {
            return Ok(None);
        };
        let token = bearer(headers).and_then(|presented| self.find(presented));
        let token = token.ok_or_else(unauthorized)?;
        if !token.scopes.contains(scope) {
            let detail = format!("The token lacks the scope {scope}.");
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        Ok(Some(token.authorizer()))
    }

    /// Returns the token with this text. The time that it takes does not depend on the text: digests are compared, whose
    /// lengths are equal, bit by bit and to the last token.
    fn find(&self, presented: &str) -> Option<&Token> {
        let presented = Sha256::digest(presented);
        let mut found = u64::MAX;
        for (index, token) in (0..).zip(&self.0) {
            let is_this: Choice = Sha256::digest(token.secret.expose_secret()).ct_eq(&presented);
            found.conditional_assign(&index, is_this);
        }
        self.0.get(usize::try_from(found).ok()?)
    }
}

impl Token {
    fn new(entry: TokenEntry) -> Result<Token, String> {
        let TokenEntry {
            name,
            token,
            scopes,
            pages,
        } = entry;
        let secret = SecretString::from(token);
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err("each token must have a name".to_owned());
        }
        let token = secret.expose_secret();
        if token.len() < MIN_CHARS || !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(format!(
                "the token of {name:?} must be at least {MIN_CHARS} visible ASCII characters; \
                 generate one with `openssl rand -hex 32`"
            ));
        }
        if let Some(unknown) = scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
            let known = SCOPES.join(", ");
            return Err(format!("{name:?} has the scope {unknown:?}, which is none of {known}"));
        }
        if scopes.is_empty() {
            return Err(format!("{name:?} has no scope"));
        }
        let parse = |page: String| {
            PageId::parse(&page).map_err(|problem| format!("{name:?} names the Page {page:?}, which {problem}"))
        };
        let pages = pages.map(|pages| pages.into_iter().map(parse).collect::<Result<Vec<_>, _>>());
        let pages = pages.transpose()?;
        if pages.as_ref().is_some_and(Vec::is_empty) {
            return Err(format!(
                "{name:?} may use no Page; name its pages, or leave them out to allow all"
            ));
        }
        Ok(Token {
            name,
            secret,
            scopes,
            pages,
        })
    }

    /// Returns the caller in the form of API Gateway's JWT authorizer, which writes a list as `[a b]`.
    fn authorizer(&self) -> Value {
        let scopes: Vec<_> = self.scopes.iter().map(String::as_str).collect();
        let mut claims = json!({"iss": ISSUER, "sub": self.name, "scope": scopes.join(" ")});
        if let Some(pages) = &self.pages {
            let pages: Vec<_> = pages.iter().map(ToString::to_string).collect();
            claims[PAGES_CLAIM] = json!(format!("[{}]", pages.join(" ")));
        }
        json!({"jwt": {"claims": claims, "scopes": scopes}})
    }
}

/// Returns the answer to a request without a valid token.
pub fn unauthorized() -> Problem {
    let detail = "Send a valid token: `Authorization: Bearer TOKEN`.";
    let challenge = HeaderValue::from_static("Bearer");
    let problem = Problem::new(StatusCode::UNAUTHORIZED, detail);
    problem.with_header(header::WWW_AUTHENTICATE, challenge)
}

/// Returns the token of the only `Authorization` header, if it has the form of a bearer token.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// Returns true if only the file's owner has access. The group may read a file of root, because systemd gives a service its
/// credentials that way: their access list shows as permissions of the group.
fn is_private(metadata: &Metadata) -> bool {
    let for_others = metadata.mode() & 0o077;
    for_others == 0 || (metadata.uid() == 0 && for_others == 0o040)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::secrets;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn entries(entries: Value) -> Result<ApiTokens, String> {
        ApiTokens::parse(&entries.to_string())
    }

    fn entry(name: &str, token: &str) -> Value {
        json!({"name": name, "token": token, "scopes": ["broadcasts:read"]})
    }

    #[test]
    fn file_that_is_not_valid_is_refused_without_showing_a_token() {
        let with = |field: &str, value: Value| {
            let mut entry = entry("shop", TOKEN);
            entry[field] = value;
            json!([entry])
        };
        for (text, expected) in [
            (json!({"shop": TOKEN}), "JSON list"),
            (json!([]), "no token"),
            (with("page", json!(["1"])), "JSON list"),
            (with("token", json!([TOKEN])), "JSON list"),
            (with("token", json!(&TOKEN[1..])), "at least 32"),
            (with("token", json!(format!("{TOKEN} "))), "visible ASCII"),
            (with("name", json!("")), "a name"),
            (with("scopes", json!([])), "no scope"),
            (with("scopes", json!(["broadcasts:*"])), "none of"),
            (with("pages", json!([])), "no Page"),
            (with("pages", json!(["1 2"])), "names the Page"),
            (
                json!([entry("a", TOKEN), entry("a", &TOKEN.replace('0', "1"))]),
                "the name",
            ),
            (json!([entry("a", TOKEN), entry("b", TOKEN)]), "the same token"),
        ] {
            let problem = entries(text).unwrap_err();
            assert!(problem.contains(expected), "{expected}: {problem}");
            assert!(!problem.contains(&TOKEN[1..]), "{problem}");
        }
        let tokens = entries(json!([entry("a", TOKEN)])).unwrap();
        assert!(!format!("{tokens:?}").contains(TOKEN));
    }

    #[test]
    fn file_open_to_others_is_refused() {
        let file = secrets::write_temporary(json!([entry("shop", TOKEN)]).to_string().as_bytes()).unwrap();
        let read_with = |mode| {
            file.as_file().set_permissions(PermissionsExt::from_mode(mode)).unwrap();
            ApiTokens::read(file.path())
        };

        for mode in [0o600, 0o400] {
            assert!(read_with(mode).is_ok(), "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o602, 0o660, 0o620] {
            let error = read_with(mode).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{mode:o}: {error}");
        }
    }

    #[test]
    fn only_a_whole_token_is_found() {
        let other = TOKEN.replace('0', "x");
        let tokens = entries(json!([entry("shop", TOKEN), entry("office", &other)])).unwrap();
        let name = |header: &str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(header).unwrap())]);
            let token = bearer(&headers).and_then(|token| tokens.find(token));
            token.map(|token| token.name.as_str())
        };

        assert_eq!(name(&format!("Bearer {TOKEN}")), Some("shop"));
        assert_eq!(name(&format!("bearer {other}")), Some("office"));
        for header in [
            TOKEN,
            "Bearer",
            "Bearer ",
            "Basic 0123",
            &format!("Bearer {TOKEN}0"),
            &format!("Bearer {}", &TOKEN[1..]),
        ] {
            assert_eq!(name(header), None, "{header}");
        }
    }
}
