//! The buttons of the form: the check, the send, and what can be done before.
//!
//! Nothing is sent that was not checked: the form carries a digest of what the check was about, and the number of recipients that is
//! typed must be the one that a new dry run finds. The key of the form belongs to the draft, so that whatever sends the form twice
//! has one broadcast.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use client::Error;
use client::api::broadcasts::NewBroadcast;
use client::api::problems::Kind;
use client::api::test_sends::TestSend;
use shared::domain::audience::AudienceName;

use super::faults::{Faults, Refusal};
use super::form;
use super::recipients::filters;
use super::view::{Check, Outcome, Page, is_key, new_key};
use crate::Console;
use crate::fields::Fields;
use crate::page::Answer;
use crate::session::{Form, Visitor};
use crate::show::{counted, number};

/// The cookie that tells the browser's script which draft has been sent.
const SENT: &str = "oncecast-sent";
/// The seconds for which it is kept, 30 days.
const SENT_VALID: u32 = 30 * 86_400;

/// Does what the pressed button says. The key Enter does the next step.
pub async fn submit(State(console): State<Arc<Console>>, visitor: Visitor, Form(fields): Form) -> Answer {
    let is_next_send = fields.get("confirm").is_some();
    let page = Page::of(console, visitor, fields);
    match page.fields.get("do") {
        Some("save") => save(page).await,
        Some("test") => test(page).await,
        Some("anew") => anew(page).await,
        Some("repeat") => repeat(page).await,
        Some("send") => send(page).await,
        None if is_next_send => send(page).await,
        _ => check(page).await,
    }
}

/// Shows what the broadcast would do.
async fn check(page: Page) -> Answer {
    let (new, check) = match looked_at(&page).await {
        Ok(found) => found,
        Err(refusal) => return page.refused(refusal).await,
    };
    drop(new);
    let outcome = Outcome {
        check: Some(check),
        ..Outcome::default()
    };
    page.answer(StatusCode::OK, outcome).await
}

/// Returns the request, and what it would do.
async fn looked_at(page: &Page) -> Result<(NewBroadcast, Check), Refusal> {
    let new = form::read(&page.fields)?;
    let preview = page.visitor.client.preview_broadcast(&new).await?;
    let check = Check {
        preview,
        digest: form::digest(&page.key, &new),
        needs_approval: new.requires_approval,
    };
    Ok((new, check))
}

/// Sends the broadcast, if it is the one that was checked, to as many contacts as the visitor has typed.
async fn send(page: Page) -> Answer {
    let (new, check) = match looked_at(&page).await {
        Ok(found) => found,
        Err(refusal) => return page.refused(refusal).await,
    };
    if let Err(refusal) = confirmed(&page.fields, &check) {
        let outcome = Outcome {
            refusal: Some(refusal),
            check: Some(check),
            ..Outcome::default()
        };
        return page.answer(StatusCode::UNPROCESSABLE_ENTITY, outcome).await;
    }
    create(page, &new, Some(check)).await
}

/// Checks that the visitor has seen what is to be sent.
fn confirmed(fields: &Fields, check: &Check) -> Result<(), Refusal> {
    if !is_checked(fields, check) {
        let title = match fields.get("checked") {
            Some(_) => "Nothing was sent: the form is not as it was checked",
            None => "Nothing was sent: the form was not checked",
        };
        return Err(
            Refusal::new(title).and("Look at the check below, which is of the form as it is now, and confirm it.")
        );
    }
    let typed = fields.raw("confirm").replace([',', '.', ' ', '\u{a0}'], "");
    let found = *check.accepted();
    // A count that ends before its end is another one each time: what counts is the one that was shown.
    let expected = match check.preview.complete {
        true => found,
        false => fields
            .get("found")
            .and_then(|shown| shown.parse().ok())
            .unwrap_or(found),
    };
    match typed.parse::<u64>() {
        Ok(typed) if is_confirmed(typed, expected) => Ok(()),
        Ok(typed) => {
            let (typed, found) = (number(&typed), counted(&expected, "contact"));
            let message = format!("you typed {typed}, and the check finds {found} now");
            Err(Refusal::of("confirm", message))
        }
        Err(_) => Err(Refusal::of("confirm", "type it in digits")),
    }
}

/// Returns true if the visitor has seen a check of the form as it is.
fn is_checked(fields: &Fields, check: &Check) -> bool {
    fields.raw("checked") == check.digest
}

fn is_confirmed(typed: u64, expected: u64) -> bool {
    typed == expected
}

/// Sends the request again that was not answered, with its key, and only that one.
async fn repeat(page: Page) -> Answer {
    let new = match form::read(&page.fields) {
        Ok(new) => new,
        Err(refusal) => return page.refused(refusal).await,
    };
    match is_attempted(&page, &new) {
        true => create(page, &new, None).await,
        false => check(page).await,
    }
}

/// Returns true if this very request was made before, with the same key, and not answered.
fn is_attempted(page: &Page, new: &NewBroadcast) -> bool {
    page.attempted == form::digest(&page.key, new)
}

/// Requests the broadcast.
async fn create(mut page: Page, new: &NewBroadcast, check: Option<Check>) -> Answer {
    let error = match page.visitor.client.create_broadcast(new, Some(&page.key)).await {
        Ok(accepted) => {
            let id = &accepted.report.summary.broadcast_id;
            return Ok(sent(&page.key, &format!("/broadcasts/{id}")));
        }
        Err(error) => error,
    };
    let may_be_sent = match &error {
        Error::Unanswered { .. } | Error::Unreadable { .. } | Error::NotTheApi { .. } => true,
        Error::Refused { status, .. } => status.is_server_error(),
        Error::Request(_) | Error::NotSigned(_) | Error::Clock { .. } => false,
    };
    if may_be_sent {
        page.attempted = form::digest(&page.key, new);
        let refusal = Refusal::new("The API did not answer: the broadcast may have been accepted, or not")
            .and("Repeat it as it is: the same request is made again, and nothing is sent twice.");
        let outcome = Outcome {
            refusal: Some(refusal),
            check,
            ..Outcome::default()
        };
        return page.answer(StatusCode::BAD_GATEWAY, outcome).await;
    }
    let is_used = matches!(&error, Error::Refused { problem, .. } if problem.kind == Kind::IdempotencyKeyReused.uri());
    let refusal = match is_used {
        true => Refusal::new("This draft was sent already, before it was changed. Nothing was sent now").and(
            "Look at the broadcasts. If this one is to be sent as well, make it a broadcast of its own, and check it.",
        ),
        false => error.into(),
    };
    let outcome = Outcome {
        refusal: Some(refusal),
        check: check.filter(|_| !is_used),
        is_used,
        ..Outcome::default()
    };
    page.answer(StatusCode::UNPROCESSABLE_ENTITY, outcome).await
}

/// Answers that the draft was sent.
fn sent(key: &str, path: &str) -> Response {
    let mut answer = Redirect::to(path).into_response();
    let cookie = format!("{SENT}={key}; Path=/new; Max-Age={SENT_VALID}; SameSite=Strict");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        answer.headers_mut().append(header::SET_COOKIE, cookie);
    }
    answer
}

/// Makes a draft, whose key was used, one of another broadcast.
async fn anew(mut page: Page) -> Answer {
    page.key = new_key();
    page.attempted = String::new();
    check(page).await
}

/// Saves the filters as an audience, unless there is one of that name.
async fn save(page: Page) -> Answer {
    let mut faults = Faults::default();
    let name = AudienceName::parse(page.fields.get("save_as").unwrap_or_default());
    let (name, filters) = (faults.check("save_as", name), filters(&page.fields, &mut faults));
    let (name, filters) = match faults.or(name.zip(filters)) {
        Ok(Some(read)) => read,
        Ok(None) => return page.refused(Refusal::default()).await,
        Err(refusal) => return page.refused(refusal).await,
    };
    let client = &page.visitor.client;
    let saved = match client.audience(&name).await {
        Ok(known) if known.audience == filters => Ok(known),
        Ok(_) => {
            return page
                .refused(Refusal::of("save_as", "is the name of another audience"))
                .await;
        }
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => client.save_audience(&name, &filters).await,
        Err(error) => Err(error),
    };
    if let Err(error) = saved {
        return page.refused(error.into()).await;
    }
    let outcome = Outcome {
        done: vec![format!(
            "The audience {} is saved: it can be chosen by its name.",
            name.as_str()
        )],
        ..Outcome::default()
    };
    page.answer(StatusCode::OK, outcome).await
}

/// Sends the message to testers.
async fn test(page: Page) -> Answer {
    let mut faults = Faults::default();
    let message = form::message(&page.fields, &mut faults);
    let testers = form::testers(&page.fields, &mut faults);
    let message = match faults.or(message) {
        Ok(Some(message)) => message,
        Ok(None) => return page.refused(Refusal::default()).await,
        Err(refusal) => return page.refused(refusal).await,
    };
    // Each page has a key for one test, so that a form that is sent twice does not send the message twice.
    let key = page.fields.get("test_key").filter(|key| is_key(key));
    let kind = form::messaging_type(&page.fields);
    let test = TestSend {
        allow_literal_braces: page.fields.is_ticked("literal").then_some(true),
        messaging_type: Some(kind),
        tag: form::tag(kind),
        notification_type: Some(form::notification_type(&page.fields)),
        ..TestSend::new(testers, message)
    };
    match page.visitor.client.send_to_testers(&test, key).await {
        Ok(report) => {
            let lines = report.deliveries.iter().map(|delivery| {
                let reason = delivery.reason.as_deref().map(|reason| format!(": {reason}"));
                let status = delivery.status.to_string().replace('_', " ");
                format!(
                    "Test to {}: {status}{}",
                    delivery.contact_id.as_str(),
                    reason.unwrap_or_default()
                )
            });
            let outcome = Outcome {
                done: lines.collect(),
                ..Outcome::default()
            };
            page.answer(StatusCode::OK, outcome).await
        }
        Err(error) => {
            let mut refusal = Refusal::from(error);
            // The contacts of this request are the testers.
            for fault in refusal.faults.iter_mut().filter(|fault| fault.field == "ids") {
                fault.field = "testers";
            }
            page.refused(refusal).await
        }
    }
}
