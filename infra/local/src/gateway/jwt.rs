//! API Gateway's JWT authorizer on this machine: the tokens of an identity provider, checked by the keys that it publishes.
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html>

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::time::Duration;

use axum::http::{HeaderMap, Method, StatusCode};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, get_current_timestamp};
use serde_json::{Map, Value, json};
use shared::domain::access::Access;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::tokens::{bearer, unauthorized};
use crate::server::Problem;

/// The time for which keys are kept, as API Gateway keeps them.
const KEEP_KEYS: Duration = Duration::from_secs(2 * 3_600);
/// The time between two attempts to find a key that is not known: each unknown token asks for one.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// The time-out of a request to the issuer.
const ISSUER_TIMEOUT: Duration = Duration::from_secs(5);

/// The tokens that are accepted.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    /// The issuer, as the claim `iss` writes it.
    pub issuer: String,
    /// The values of the claim `aud` or, in a token without it, `client_id`, one of which a token must have.
    pub audiences: Vec<String>,
    /// The text that the issuer writes before the name of a scope.
    pub scope_prefix: String,
    /// The claim that lists the Pages of a token.
    pub pages_claim: Option<String>,
    /// The claim that lists scopes as roles or groups. With it, `send` checks it, and no scope is required here.
    pub roles_claim: Option<String>,
}

/// The check of callers by their JWT.
#[derive(Debug)]
pub struct JwtAuthorizer {
    settings: JwtSettings,
    validation: Validation,
    http: reqwest::Client,
    keys: Mutex<Keys>,
}

/// The keys of the issuer by their ids, and the time at which it was last asked for them.
#[derive(Debug, Default)]
struct Keys {
    by_id: HashMap<String, DecodingKey>,
    asked: Option<Instant>,
}

/// Failure to get the keys of the issuer.
type KeysError = Box<dyn Error + Send + Sync>;

impl JwtAuthorizer {
    /// Returns the check of tokens by these settings.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(settings: JwtSettings) -> Result<JwtAuthorizer, reqwest::Error> {
        // Only RSA: with a key of the issuer's as a shared secret, anybody could sign.
        let mut validation = Validation::new(Algorithm::RS256);
        validation.algorithms = vec![Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];
        validation.set_issuer(&[&settings.issuer]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        validation.leeway = 0;
        validation.validate_nbf = true;
        // Checked below: a token without `aud` may have a `client_id`.
        validation.validate_aud = false;
        Ok(JwtAuthorizer {
            settings,
            validation,
            http: reqwest::Client::builder().timeout(ISSUER_TIMEOUT).build()?,
            keys: Mutex::default(),
        })
    }

    /// Checks that the caller of a request may make it. Returns what API Gateway adds to the event, or `None` for a route that
    /// is open to everybody.
    ///
    /// # Errors
    /// Fails with status 401 without a valid token, with 403 if the token lacks the scope of the route, and with 503 if the keys
    /// of the issuer are not to be had.
    pub async fn authorize(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Option<Value>, Problem> {
        let Access::Scope(scope) = Access::of(method.as_str(), path) else {
            return Ok(None);
        };
        let token = bearer(headers).ok_or_else(unauthorized)?;
        let claims = self.claims(token).await?.ok_or_else(unauthorized)?;
        let scopes: BTreeSet<_> = ["scope", "scp"]
            .into_iter()
            .flat_map(|name| words(&claims, name))
            .collect();
        let required = format!("{}{scope}", self.settings.scope_prefix);
        if self.settings.roles_claim.is_none() && !scopes.contains(required.as_str()) {
            let detail = format!("The token lacks the scope {required}.");
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        let shown = claims.iter().map(|(name, value)| (name.clone(), json!(shown(value))));
        let shown: Map<_, _> = shown.collect();
        Ok(Some(json!({"jwt": {"claims": shown, "scopes": scopes}})))
    }

    /// Returns the claims of a token, if it is valid now.
    async fn claims(&self, token: &str) -> Result<Option<Map<String, Value>>, Problem> {
        let Some(key_id) = decode_header(token).ok().and_then(|header| header.kid) else {
            return Ok(None);
        };
        let key = self.key(&key_id).await.map_err(|error| {
            tracing::warn!(
                error = &*error as &dyn Error,
                "the keys of the issuer of JWTs cannot be read; callers are refused"
            );
            let detail = "The token cannot be checked: its issuer does not show its keys.";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        })?;
        let Some(key) = key else { return Ok(None) };
        let decoded = decode::<Map<String, Value>>(token, &key, &self.validation);
        let claims = decoded.ok().map(|decoded| decoded.claims);
        Ok(claims.filter(|claims| self.is_for_us(claims) && !is_of_the_future(claims)))
    }

    fn is_for_us(&self, claims: &Map<String, Value>) -> bool {
        let named = if claims.contains_key("aud") { "aud" } else { "client_id" };
        let accepted = &self.settings.audiences;
        texts(claims, named).any(|audience| accepted.iter().any(|accepted| accepted == audience))
    }

    /// Returns the key with this id; asks the issuer if it is not known, or has been for long.
    async fn key(&self, id: &str) -> Result<Option<DecodingKey>, KeysError> {
        let mut keys = self.keys.lock().await;
        let age = keys.asked.map(|asked| asked.elapsed());
        let keep = if keys.by_id.contains_key(id) {
            KEEP_KEYS
        } else {
            ASK_AGAIN_AFTER
        };
        if age.is_none_or(|age| age >= keep) {
            keys.by_id = self.fetch_keys().await?;
            keys.asked = Some(Instant::now());
        }
        Ok(keys.by_id.get(id).cloned())
    }

    async fn fetch_keys(&self) -> Result<HashMap<String, DecodingKey>, KeysError> {
        let issuer = &self.settings.issuer;
        let configuration = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let configuration = self.get(&configuration).await?;
        if configuration["issuer"] != **issuer {
            return Err(format!("it calls itself {}, and not {issuer}", configuration["issuer"]).into());
        }
        let keys = configuration["jwks_uri"].as_str().ok_or("it names no jwks_uri")?;
        let keys = self.get(keys).await?;
        let keys = keys["keys"].as_array().ok_or("its key set has no keys")?;
        // Keys of other kinds, for other uses, are none of ours.
        let rsa = keys.iter().filter(|key| key["kty"] == "RSA" && key["use"] != "enc");
        let key = |key: &Value| {
            let (id, n, e) = (key["kid"].as_str()?, key["n"].as_str()?, key["e"].as_str()?);
            Some((id.to_owned(), DecodingKey::from_rsa_components(n, e).ok()?))
        };
        Ok(rsa.filter_map(key).collect())
    }

    async fn get(&self, url: &str) -> Result<Value, KeysError> {
        let answer = self.http.get(url).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }
}

/// Returns `true` if a token was issued later than now.
fn is_of_the_future(claims: &Map<String, Value>) -> bool {
    let issued_at = claims.get("iat").and_then(Value::as_f64);
    issued_at.is_some_and(|at| at > get_current_timestamp() as f64)
}

/// Returns the texts of a claim, which is a text or a list.
fn texts<'c>(claims: &'c Map<String, Value>, name: &str) -> impl Iterator<Item = &'c str> {
    let claim = claims.get(name);
    let list = claim.and_then(Value::as_array).into_iter().flatten();
    list.chain(claim).filter_map(Value::as_str)
}

/// Returns the words of a claim's texts.
fn words<'c>(claims: &'c Map<String, Value>, name: &str) -> impl Iterator<Item = &'c str> {
    texts(claims, name).flat_map(str::split_whitespace)
}

/// Writes the value of a claim as API Gateway hands it on.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{name}:{}", shown(value)))
                .collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_texts_in_the_event() {
        let cases = [
            (json!("a b"), "a b"),
            (json!(["a", "b"]), "[a b]"),
            (json!([]), "[]"),
            (json!(1_700_000_000), "1700000000"),
            (json!(true), "true"),
            (json!({"roles": ["a", "b"]}), "map[roles:[a b]]"),
        ];
        for (claim, expected) in cases {
            assert_eq!(shown(&claim), expected);
        }
    }
}
