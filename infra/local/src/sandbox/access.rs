//! The right to call the sandbox: the Pages' access tokens, and the proofs that a caller knows the app secret.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, Uri, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::faults::GraphError;
use super::signature::hmac;

/// The credentials of a call. They must never be logged, so this type has no `Debug`.
pub struct Credentials {
    pub token: Option<String>,
    pub appsecret_proof: Option<String>,
}

impl Credentials {
    /// Reads the credentials from the places where Messenger accepts them: header, query and body.
    pub fn read(headers: &HeaderMap, uri: &Uri, body: Option<&Map<String, Value>>) -> Credentials {
        let in_header = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .map(str::to_owned);
        let parameter = |wanted: &str| {
            let in_query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.into_owned());
            in_query.or_else(|| body?.get(wanted)?.as_str().map(str::to_owned))
        };
        Credentials {
            token: in_header.or_else(|| parameter("access_token")),
            appsecret_proof: parameter("appsecret_proof"),
        }
    }
}

/// The tokens and proofs that calls are checked against.
#[derive(Debug)]
pub struct Access {
    pages: BTreeMap<String, PageToken>,
    app: Option<AppSecret>,
}

#[derive(Debug)]
struct PageToken {
    // This may be a real token from the operator's file, so it must not be logged.
    token: SecretString,
    revoked: bool,
}

/// The secret that proofs are checked with.
#[derive(Debug)]
struct AppSecret {
    secret: SecretString,
    required: bool,
}

impl Access {
    /// Returns the access rights of these Pages. `tokens` are the Page access tokens by Page id; other Pages do not
    /// exist.
    pub fn new(tokens: BTreeMap<String, String>) -> Access {
        let mut access = Access {
            pages: BTreeMap::new(),
            app: None,
        };
        for (page_id, token) in tokens {
            access.set_token(page_id, token.into());
        }
        access
    }

    /// Sets the Page's token, in place of any other.
    pub fn set_token(&mut self, page_id: String, token: SecretString) {
        let revoked = false;
        self.pages.insert(page_id, PageToken { token, revoked });
    }

    /// Makes the Page's token invalid, or valid again. Returns false if there is no such Page.
    pub fn set_revoked(&mut self, page_id: &str, revoked: bool) -> bool {
        let page = self.pages.get_mut(page_id);
        page.map(|page| page.revoked = revoked).is_some()
    }

    /// Returns the ids of the Pages, each with whether its token is revoked.
    pub fn pages(&self) -> BTreeMap<String, bool> {
        let pages = self.pages.iter();
        pages.map(|(page_id, page)| (page_id.clone(), page.revoked)).collect()
    }

    /// Sets the secret that proofs are checked with; `None` stops the check. With `required`, calls without a proof are
    /// refused.
    pub fn set_app_secret(&mut self, secret: Option<SecretString>, required: bool) {
        self.app = secret.map(|secret| AppSecret { secret, required });
    }

    /// Returns the Page whose token a call has, if the call may be made: a path that names no Page is of the token's Page.
    ///
    /// # Errors
    ///
    /// Fails as [`Access::check`] does.
    pub fn page_of(&self, caller: &Credentials) -> Result<String, GraphError> {
        let mut pages = self.pages.iter();
        let page = pages.find(|(_, page)| caller.token.as_deref() == Some(page.token.expose_secret()));
        let page_id = page.map(|(page_id, _)| page_id.clone()).unwrap_or_default();
        self.check(&page_id, caller)?;
        Ok(page_id)
    }

    /// Checks that the call has the Page's token and, if it has a proof, the right one.
    ///
    /// # Errors
    ///
    /// Fails with Messenger's error for a wrong or revoked token, and for a wrong or missing proof.
    pub fn check(&self, page_id: &str, caller: &Credentials) -> Result<(), GraphError> {
        let page = self
            .pages
            .get(page_id)
            .filter(|page| caller.token.as_deref() == Some(page.token.expose_secret()))
            .ok_or_else(|| GraphError::new(190, "Invalid OAuth access token."))?;
        if page.revoked {
            let message = "Error validating access token: The session has been invalidated because the user changed \
                           their password or Facebook has changed the session for security reasons.";
            return Err(GraphError {
                subcode: Some(460),
                ..GraphError::new(190, message)
            });
        }
        let Some(app) = &self.app else { return Ok(()) };
        match &caller.appsecret_proof {
            None if app.required => {
                let message = "API calls from the server require an appsecret_proof argument";
                Err(GraphError::new(100, message))
            }
            Some(proof) if *proof != hmac(&app.secret, page.token.expose_secret().as_bytes()) => {
                let message = "Invalid appsecret_proof provided in the API argument";
                Err(GraphError::new(100, message))
            }
            None | Some(_) => Ok(()),
        }
    }
}
