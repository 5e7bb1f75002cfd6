//! The faults that are switched on: what Messenger does at times, on request.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect};
use serde::Deserialize;
use serde_json::{Value, json};

use super::control::Fault;
use crate::Console;
use crate::failure::Failure;
use crate::fields::Fields;
use crate::frame::{Chrome, Section};
use crate::page::{Answer, html, refused};
use crate::session::{Form, Visitor};
use crate::show;

/// The delay of slow answers in milliseconds.
const SLOW_MS: u64 = 1_000;

/// A kind of fault that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    LostAnswers,
    TimeOuts,
    Outage,
    RateLimit,
    Blocked,
    Slow,
    NoEchoes,
}

impl Kind {
    const ALL: [Kind; 7] = [
        Kind::LostAnswers,
        Kind::TimeOuts,
        Kind::Outage,
        Kind::RateLimit,
        Kind::Blocked,
        Kind::Slow,
        Kind::NoEchoes,
    ];

    /// Returns the word of the form.
    fn word(self) -> &'static str {
        match self {
            Kind::LostAnswers => "lost_answers",
            Kind::TimeOuts => "time_outs",
            Kind::Outage => "outage",
            Kind::RateLimit => "rate_limit",
            Kind::Blocked => "blocked",
            Kind::Slow => "slow",
            Kind::NoEchoes => "no_echoes",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Kind::LostAnswers => "Answers are lost",
            Kind::TimeOuts => "Calls time out",
            Kind::Outage => "Messenger is out of order",
            Kind::RateLimit => "The Page has reached its rate limit",
            Kind::Blocked => "Contacts have blocked the Page",
            Kind::Slow => "Every answer takes a second",
            Kind::NoEchoes => "Echoes do not come",
        }
    }

    /// Returns what an operator then sees.
    fn effect(self) -> &'static str {
        match self {
            Kind::LostAnswers => {
                "The message arrives, and the connection breaks before its answer. The delivery is in doubt until an echo or a \
                 look-up proves that it arrived. It is never sent again."
            }
            Kind::TimeOuts => {
                "No answer comes, and the message does not arrive. The delivery is in doubt; look-ups find nothing, and it is \
                 not sent again unless the installation says so."
            }
            Kind::Outage => {
                "Every call is answered with 503. After five in a row the Page pauses, and begins again with a single message."
            }
            Kind::RateLimit => {
                "Calls are refused with 613. The Page pauses and slows down; no contact loses an attempt."
            }
            Kind::Blocked => "The delivery fails with 551, and the others go on.",
            Kind::Slow => "The broadcast goes on slowly enough to be watched, paused and resumed.",
            Kind::NoEchoes => "Messenger does not tell of messages that arrived, so that only a look-up ends a doubt.",
        }
    }

    /// Returns the fault for everyone, for ever, in the form in which the sandbox shows it.
    fn fault(self) -> Fault {
        let error = |code: i64, message: &str| json!({"error": {"status": 400, "code": code, "subcode": null, "message": message}});
        let (on, latency_ms, accept, answer) = match self {
            Kind::LostAnswers => ("send", 0, Some(true), json!("reset")),
            Kind::TimeOuts => ("send", 0, None, json!("hang")),
            Kind::Outage => ("send", 0, None, json!({"status": 503, "body": "Service Unavailable"})),
            Kind::RateLimit => (
                "send",
                0,
                None,
                error(613, "Calls to this api have exceeded the rate limit."),
            ),
            Kind::Blocked => (
                "send",
                0,
                None,
                error(551, "This person isn't receiving messages from you right now"),
            ),
            Kind::Slow => ("send", SLOW_MS, None, json!("ok")),
            Kind::NoEchoes => ("echo", 0, None, json!("reset")),
        };
        Fault {
            on: on.to_owned(),
            contacts: None,
            pages: None,
            times: None,
            latency_ms,
            accept,
            answer,
        }
    }
}

/// A fault that is switched on.
struct Active {
    /// Its place in the sandbox's list.
    index: usize,
    title: String,
    scope: String,
}

impl Active {
    fn new(index: usize, fault: &Fault) -> Self {
        let general = Fault {
            contacts: None,
            pages: None,
            times: None,
            ..fault.clone()
        };
        let kind = Kind::ALL.into_iter().find(|kind| kind.fault() == general);
        let other = || format!("{}: {}", fault.on, described(&fault.answer));
        let pages = match &fault.pages {
            Some(pages) => pages.join(", "),
            None => "all Pages".to_owned(),
        };
        let contacts = fault.contacts.as_ref().map(|contacts| match contacts.as_slice() {
            [contact] => format!("contact {contact}"),
            contacts => show::counted(&(contacts.len() as u64), "contact"),
        });
        let times = fault
            .times
            .map(|times| format!("{} more", show::counted(&times.into(), "message")));
        let scope = [Some(pages), contacts, times].into_iter().flatten();
        Self {
            index,
            title: kind.map_or_else(other, |kind| kind.title().to_owned()),
            scope: scope.collect::<Vec<_>>().join(" · "),
        }
    }
}

/// Returns an answer that is none of a known kind in a few words.
fn described(answer: &Value) -> String {
    match (&answer["error"]["code"], &answer["status"], answer) {
        (Value::Number(code), ..) => format!("error {code}"),
        (_, Value::Number(status), _) => format!("status {status}"),
        (_, _, Value::String(word)) => word.clone(),
        _ => "another answer".to_owned(),
    }
}

#[derive(Template)]
#[template(path = "sandbox-faults.html")]
struct FaultsView {
    chrome: Chrome,
    csrf: String,
    active: Vec<Active>,
    /// The Pages, and true for those whose token is revoked.
    pages: Vec<(String, bool)>,
    typed: Fields,
    fault: Option<Failure>,
}

impl FaultsView {
    fn kinds(&self) -> Vec<(Kind, bool)> {
        let chosen = self.typed.word("kind").unwrap_or(Kind::LostAnswers);
        Kind::ALL.iter().map(|kind| (*kind, *kind == chosen)).collect()
    }
}

/// Shows the faults that are switched on, and those that can be.
pub async fn show(State(console): State<Arc<Console>>, visitor: Visitor) -> Answer {
    html(&view(&console, &visitor, Fields::default()).await?)
}

async fn view(console: &Console, visitor: &Visitor, typed: Fields) -> Result<FaultsView, Failure> {
    let sandbox = console.sandbox()?;
    let chrome = console.chrome(visitor, Section::Sandbox);
    let (chrome, faults, tokens) = tokio::join!(chrome, sandbox.faults(), sandbox.tokens());
    let active = faults?;
    let active = active.iter().enumerate().filter(|(_, fault)| fault.times != Some(0));
    Ok(FaultsView {
        chrome,
        csrf: visitor.csrf.clone(),
        active: active.map(|(index, fault)| Active::new(index, fault)).collect(),
        pages: tokens?.into_iter().map(|(id, token)| (id, token.revoked)).collect(),
        typed,
        fault: None,
    })
}

/// Switches a fault on.
pub async fn add(State(console): State<Arc<Console>>, visitor: Visitor, Form(fields): Form) -> Answer {
    let fault = match new_fault(&fields) {
        Ok(fault) => fault,
        Err(failure) => {
            return refused(&FaultsView {
                fault: Some(failure),
                ..view(&console, &visitor, fields).await?
            });
        }
    };
    console.sandbox()?.add_fault(&fault).await?;
    Ok(Redirect::to("/sandbox/faults").into_response())
}

fn new_fault(fields: &Fields) -> Result<Fault, Failure> {
    let invalid = |title: &str| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, title);
    let kind: Kind = fields.word("kind").ok_or_else(|| invalid("Choose a fault"))?;
    let times = fields.get("times").map(str::parse).transpose();
    let times = times.ok().filter(|times| *times != Some(0));
    Ok(Fault {
        contacts: fields.get("contact_id").map(|id| vec![id.to_owned()]),
        pages: fields.get("page_id").map(|id| vec![id.to_owned()]),
        times: times.ok_or_else(|| invalid("The number of messages must be a whole number above 0"))?,
        ..kind.fault()
    })
}

/// Switches one fault off, or all of them.
pub async fn remove(State(console): State<Arc<Console>>, Form(fields): Form) -> Answer {
    let index = fields.get("index").and_then(|index| index.parse().ok());
    console.sandbox()?.remove_faults(index).await?;
    Ok(Redirect::to("/sandbox/faults").into_response())
}

/// Revokes the token of a Page, or makes it valid again.
pub async fn change_token(State(console): State<Arc<Console>>, Form(fields): Form) -> Answer {
    let page_id = fields.get("page_id");
    let page_id = page_id.ok_or_else(|| Failure::new(StatusCode::BAD_REQUEST, "Choose a Page"))?;
    let is_revoked = fields.get("token") == Some("revoked");
    console.sandbox()?.set_revoked(page_id, is_revoked).await?;
    Ok(Redirect::to("/sandbox/faults").into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_is_told_in_words_with_its_scope() {
        let fields = Fields::parse(b"kind=blocked&page_id=page-1&contact_id=6001&times=3");

        let active = Active::new(0, &new_fault(&fields).unwrap());

        assert_eq!(active.title, "Contacts have blocked the Page");
        assert_eq!(active.scope, "page-1 · contact 6001 · 3 messages more");
    }

    #[test]
    fn words_of_the_form_are_those_that_are_read() {
        for kind in Kind::ALL {
            let fields = Fields::parse(format!("kind={}", kind.word()).as_bytes());
            assert_eq!(fields.word::<Kind>("kind"), Some(kind));
        }
    }
}
