//! Who may call: the Pages' access tokens, and proofs that the caller knows the app's secret.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, Uri, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::faults::GraphError;
use super::webhooks::hmac;

/// What a caller says of itself; never to be logged.
pub struct Credentials {
    pub token: Option<String>,
    pub appsecret_proof: Option<String>,
}

impl Credentials {
    /// Reads them from wherever Messenger takes them: header, query or body.
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

/// Who may call.
#[derive(Debug)]
pub struct Access {
    pages: BTreeMap<String, PageToken>,
    app: Option<AppSecret>,
}

#[derive(Debug)]
struct PageToken {
    // The operator's own, if they gave us a file, so not for anybody's log.
    token: SecretString,
    revoked: bool,
}

/// What proofs are made with.
#[derive(Debug)]
struct AppSecret {
    secret: SecretString,
    required: bool,
}

impl Access {
    /// Page access tokens by Page id; other Pages do not exist.
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

    /// Gives a Page this token, in place of any other.
    pub fn set_token(&mut self, page_id: String, token: SecretString) {
        let revoked = false;
        self.pages.insert(page_id, PageToken { token, revoked });
    }

    /// Makes the Page's token invalid, or valid again; whether there is such a Page.
    pub fn set_revoked(&mut self, page_id: &str, revoked: bool) -> bool {
        let page = self.pages.get_mut(page_id);
        page.map(|page| page.revoked = revoked).is_some()
    }

    /// Checks proofs with this secret from now on, or none; `required` refuses calls without a proof.
    pub fn set_app_secret(&mut self, secret: Option<SecretString>, required: bool) {
        self.app = secret.map(|secret| AppSecret { secret, required });
    }

    /// Lets in who has the Page's token, and a right proof if it has one.
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
