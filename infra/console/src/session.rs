//! The visitors: who is let in, how a browser is recognised, and the forms that are taken.
//!
//! A page of another site may make a browser send a form here, with its cookies. So a form is taken only with an `Origin` that is this
//! server's, and with a token that only a page of the same session has. Cookies do not tell ports apart: those of another server on the
//! same host, whose pages count as the same site, are kept out by the comparison of the whole origin.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use askama::Template;
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use client::{Client, PartQuery};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::Console;
use crate::failure::Failure;
use crate::fields::Fields;
use crate::frame::{Chrome, Section};
use crate::page::{Answer, html, refused};
use crate::show::hex;

/// The sessions that are kept. Beyond them the oldest ends.
const MAX_SESSIONS: usize = 1_000;
/// The most bytes of a form: 100,000 ids and a message.
const MAX_FORM: usize = 16 * 1024 * 1024;
/// The name of the value that a form proves its origin with.
pub const CSRF: &str = "csrf";

/// The visitors that are let in.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Everyone, as the API lets everyone in.
    Open,
    /// Those who sign in with a token of the API. Each sees and does what the token may.
    Token,
    /// Those who open the address with this key. They use the client's own credentials.
    Key(SecretString),
}

/// The sessions of the visitors that were let in.
pub struct Sessions {
    entry: Entry,
    /// The sessions that a key or a token opened, from the oldest, with the token.
    admitted: Mutex<VecDeque<(String, Option<SecretString>)>>,
}

impl Sessions {
    /// Returns no sessions.
    pub fn new(entry: Entry) -> Self {
        Self {
            entry,
            admitted: Mutex::default(),
        }
    }

    /// Returns a new session of a visitor that was let in.
    fn admit(&self, token: Option<SecretString>) -> String {
        let id = new_id();
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        if admitted.len() == MAX_SESSIONS {
            admitted.pop_front();
        }
        admitted.push_back((id.clone(), token));
        id
    }

    fn forget(&self, id: &str) {
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        admitted.retain(|(known, _)| known != id);
    }

    /// Returns the token of a session, if the session is known.
    fn find(&self, id: &str) -> Option<Option<SecretString>> {
        let admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        let found = admitted.iter().find(|(known, _)| known == id);
        found.map(|(_, token)| token.clone())
    }
}

/// A visitor that was let in.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// The API, with the visitor's credentials.
    pub client: Client,
    /// The token that every form has.
    pub csrf: String,
    /// True if the visitor signed in.
    pub signed_in: bool,
}

impl Visitor {
    fn new(client: Client, session: &str, signed_in: bool) -> Self {
        // Who knows the token does not know the session, and a page that was open before this process started keeps its token.
        let csrf = hex(&Sha256::digest(format!("{CSRF}:{session}")));
        Self {
            client,
            csrf,
            signed_in,
        }
    }

    /// Checks the token of a form.
    ///
    /// # Errors
    ///
    /// Fails with status 403 if the form is not one of this session.
    pub fn check(&self, token: &str) -> Result<(), Failure> {
        match token == self.csrf {
            true => Ok(()),
            false => Err(
                Failure::new(StatusCode::FORBIDDEN, "The form is not one of this session")
                    .and("Nothing was changed. Go back, reload the page and send it again."),
            ),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get::<Self>().cloned().ok_or_else(not_admitted)
    }
}

/// The form of a visitor, which a page of the same session sent.
#[derive(Clone, Debug)]
pub struct Form(pub Fields);

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, state).await?;
        let body = to_bytes(body, MAX_FORM)
            .await
            .map_err(|_| Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "The form is larger than 16 MB"))?;
        let fields = Fields::parse(&body);
        visitor.check(fields.raw(CSRF))?;
        Ok(Self(fields))
    }
}

/// Lets a request pass that a visitor made who may see the pages. Others get a page that says how to get in.
pub async fn let_in(State(console): State<Arc<Console>>, mut request: Request, next: Next) -> Response {
    if let Err(failure) = check_origin(request.method(), request.headers()) {
        return failure.into_response();
    }
    let sessions = &console.sessions;
    let cookie = cookie(request.headers());
    if cookie.is_none() && is_from_another_site(&request) {
        return html(&AgainView {}).unwrap_or_else(Failure::into_response);
    }
    let admitted = cookie.as_deref().and_then(|id| sessions.find(id));
    let visitor = match (&sessions.entry, cookie, admitted) {
        (Entry::Open, cookie, _) => {
            let is_new = cookie.is_none();
            let id = cookie.unwrap_or_else(new_id);
            let set = is_new.then(|| set_cookie(request.headers(), &id));
            let visitor = Visitor::new(console.client.clone(), &id, false);
            request.extensions_mut().insert(visitor);
            let mut answer = next.run(request).await;
            if let Some(Ok(set)) = set {
                answer.headers_mut().append(header::SET_COOKIE, set);
            }
            return answer;
        }
        (Entry::Token, Some(id), Some(Some(token))) => {
            Visitor::new(console.client.clone().with_token(token), &id, true)
        }
        (Entry::Key(_), Some(id), Some(_)) => Visitor::new(console.client.clone(), &id, false),
        (Entry::Token, ..) if request.method() == Method::GET => {
            let there = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let link = Fields::default().link("/sign-in", &[("next", there)]);
            return Redirect::to(&link).into_response();
        }
        (Entry::Token | Entry::Key(_), ..) => return not_admitted().into_response(),
    };
    request.extensions_mut().insert(visitor);
    next.run(request).await
}

/// A page that loads itself again.
#[derive(Template)]
#[template(path = "again.html")]
struct AgainView {}

/// Returns true for a visitor who follows a link of another site. The browser then keeps the cookie back, so that the visitor seems
/// to have no session, and a new one would end the one of the pages that are open; it sends the cookie with what this site's own page
/// loads.
fn is_from_another_site(request: &Request) -> bool {
    let is = |name: &str, value: &str| request.headers().get(name).is_some_and(|header| header == value);
    request.method() == Method::GET && is("sec-fetch-site", "cross-site") && is("sec-fetch-mode", "navigate")
}

fn not_admitted() -> Failure {
    Failure::new(StatusCode::FORBIDDEN, "This browser is not signed in")
        .and("Open the address that the terminal shows: it has a key. After a restart there is a new one.")
}

/// Refuses a request that changes something, unless a page of this server made it.
fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), Failure> {
    if [Method::GET, Method::HEAD].contains(method) {
        return Ok(());
    }
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let origin = text(header::ORIGIN).unwrap_or_default();
    let authority = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    match authority.is_some() && authority == text(header::HOST) {
        true => Ok(()),
        false => Err(
            Failure::new(StatusCode::FORBIDDEN, "The form was sent by a page of another site")
                .and("Nothing was changed. Send it from a page of this console."),
        ),
    }
}

/// Returns the id of a new session: 244 random bits.
fn new_id() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Returns the name of the cookie. Browsers send the cookies of all ports of a host to each of them.
fn cookie_name(headers: &HeaderMap) -> String {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let port = host.rsplit_once(':').map_or("80", |(_, port)| port);
    format!("oncecast-{}", port.trim_end_matches(']'))
}

/// Returns the session that a browser says it has.
fn cookie(headers: &HeaderMap) -> Option<String> {
    let name = cookie_name(headers);
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = cookies
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, id) = pairs.find(|(known, _)| *known == name)?;
    let is_id = id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

fn set_cookie(headers: &HeaderMap, id: &str) -> Result<HeaderValue, header::InvalidHeaderValue> {
    let name = cookie_name(headers);
    // A reverse proxy with TLS says so.
    let is_secure = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let secure = if is_secure { "; Secure" } else { "" };
    HeaderValue::try_from(format!("{name}={id}; Path=/; HttpOnly; SameSite=Strict{secure}"))
}

/// The pages by which a visitor gets in and out.
pub fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/enter", get(enter))
        .route("/sign-in", get(ask).post(sign_in))
        .route("/sign-out", get(ask_sign_out).post(sign_out))
}

/// Lets a visitor in who has the key.
async fn enter(State(console): State<Arc<Console>>, fields: Fields, headers: HeaderMap) -> Answer {
    let Entry::Key(key) = &console.sessions.entry else {
        return Ok(Redirect::to("/").into_response());
    };
    if !is_key(key, fields.raw("key")) {
        return Err(not_admitted());
    }
    let id = console.sessions.admit(None);
    Ok(with_cookie(&headers, &id, "/"))
}

/// Compares digests, so that the time of the comparison tells nothing of the key.
fn is_key(key: &SecretString, given: &str) -> bool {
    Sha256::digest(key.expose_secret()) == Sha256::digest(given)
}

/// Answers with a session, and sends the browser on.
fn with_cookie(headers: &HeaderMap, id: &str, next: &str) -> Response {
    let mut answer = Redirect::to(next).into_response();
    if let Ok(cookie) = set_cookie(headers, id) {
        answer.headers_mut().append(header::SET_COOKIE, cookie);
    }
    answer
}

#[derive(Template)]
#[template(path = "sign-in.html")]
struct SignInView<'a> {
    chrome: Chrome,
    next: &'a str,
    fault: Option<String>,
}

async fn ask(State(console): State<Arc<Console>>, fields: Fields) -> Answer {
    if !matches!(console.sessions.entry, Entry::Token) {
        return Ok(Redirect::to("/").into_response());
    }
    html(&SignInView {
        chrome: Chrome::bare(Section::None),
        next: next(&fields),
        fault: None,
    })
}

/// Lets a visitor in whose token the API takes.
async fn sign_in(State(console): State<Arc<Console>>, request: Request) -> Answer {
    check_origin(request.method(), request.headers())?;
    let headers = request.headers().clone();
    let body = to_bytes(request.into_body(), MAX_FORM).await.unwrap_or_default();
    let fields = Fields::parse(&body);
    let again = |fault: &str| {
        refused(&SignInView {
            chrome: Chrome::bare(Section::None),
            next: next(&fields),
            fault: Some(fault.to_owned()),
        })
    };
    let token = fields.get("token").unwrap_or_default();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        return again("A token is one word of visible ASCII characters.");
    }
    let token = SecretString::from(token.to_owned());
    let query = PartQuery {
        limit: Some(1),
        cursor: None,
    };
    match console.client.clone().with_token(token.clone()).pages(&query).await {
        Err(error) if error.status() == Some(StatusCode::UNAUTHORIZED) => again("The API does not know this token."),
        // A token without the right to read Pages is one, too.
        Err(error) if error.status() != Some(StatusCode::FORBIDDEN) => Err(error.into()),
        _ => {
            let id = console.sessions.admit(Some(token));
            Ok(with_cookie(&headers, &id, next(&fields)))
        }
    }
}

/// Returns the path that a visitor wanted to see. Another site's is not one.
fn next(fields: &Fields) -> &str {
    fields.get("next").filter(|next| is_own_path(next)).unwrap_or("/")
}

fn is_own_path(next: &str) -> bool {
    next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\r', '\n', '\t'])
}

#[derive(Template)]
#[template(path = "sign-out.html")]
struct SignOutView {
    chrome: Chrome,
}

async fn ask_sign_out() -> Answer {
    html(&SignOutView {
        chrome: Chrome::bare(Section::None),
    })
}

async fn sign_out(State(console): State<Arc<Console>>, request: Request) -> Answer {
    check_origin(request.method(), request.headers())?;
    if let Some(id) = cookie(request.headers()) {
        console.sessions.forget(&id);
    }
    Ok(Redirect::to("/").into_response())
}
