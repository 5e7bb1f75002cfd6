//! The change of a broadcast that is not due yet: when it is sent, its name, and its text.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect};
use client::api::broadcasts::{BroadcastReport, BroadcastSummary};
use client::api::changes::BroadcastChange;
use jiff::Timestamp;
use shared::domain::ids::BroadcastId;
use shared::domain::message::Message;
use shared::domain::schedule::{QuietHours, TimeOfDay, Zone};

use super::orders;
use super::{missing, parse_id};
use crate::Console;
use crate::failure::Failure;
use crate::fields::Fields;
use crate::frame::{Chrome, Section};
use crate::page::{Answer, html, refused};
use crate::session::{Form, Visitor};

/// The characters of a time as a browser's field for it has them: to the minute, without a zone.
const LOCAL_TIME: usize = "2026-12-01T09:00".len();
/// The zone of a broadcast that names none.
const ZONE: &str = "UTC";

/// The values of the form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Values {
    name: String,
    time_zone: String,
    scheduled_at: String,
    expires_at: String,
    quiet_from: String,
    quiet_to: String,
    /// The new text; empty to keep the message.
    text: String,
}

impl Values {
    /// Returns the values that a broadcast has, its times by the clock of its zone.
    fn of(summary: &BroadcastSummary) -> Self {
        let zone = summary.scheduled_local.as_ref().and_then(|local| local.split_once('['));
        let zone = zone.map(|(_, zone)| zone.trim_end_matches(']'));
        let quiet = summary.quiet_hours.as_ref();
        let zone = zone.or(quiet.map(|quiet| quiet.time_zone.name())).unwrap_or(ZONE);
        let local = |time: Option<Timestamp>| {
            let local = time.and_then(|time| Zone::parse(zone).ok().map(|zone| zone.write(time)));
            local.unwrap_or_default().chars().take(LOCAL_TIME).collect()
        };
        Self {
            name: summary.name.clone().unwrap_or_default(),
            time_zone: zone.to_owned(),
            scheduled_at: local(summary.scheduled_at),
            expires_at: local(summary.expires_at),
            quiet_from: quiet.map(|quiet| quiet.from.to_string()).unwrap_or_default(),
            quiet_to: quiet.map(|quiet| quiet.to.to_string()).unwrap_or_default(),
            text: String::new(),
        }
    }

    fn read(fields: &Fields) -> Self {
        let value = |name| fields.get(name).unwrap_or_default().to_owned();
        Self {
            name: value("name"),
            time_zone: value("time_zone"),
            scheduled_at: value("scheduled_at"),
            expires_at: value("expires_at"),
            quiet_from: value("quiet_from"),
            quiet_to: value("quiet_to"),
            // A browser sends the line breaks of a text as two characters.
            text: fields.raw("text").replace("\r\n", "\n"),
        }
    }

    /// Returns the changes against the values that the broadcast has.
    ///
    /// # Errors
    ///
    /// Fails with the faults if a value cannot be read, or nothing is changed.
    fn changes(&self, before: &Self) -> Result<BroadcastChange, Failure> {
        let mut faults = Vec::new();
        let zone = Zone::parse(&self.time_zone);
        if zone.is_err() {
            faults.push(format!(
                "The time zone {:?} is not known: write one such as Asia/Manila.",
                self.time_zone
            ));
        }
        let other_zone = self.time_zone != before.time_zone;
        let time = |text: &str, what: &str, faults: &mut Vec<String>| {
            let read = zone.as_ref().ok().map(|zone| zone.read(text));
            if read == Some(None) {
                faults.push(format!("{what} must be a time such as 2026-12-01T09:00."));
            }
            read.flatten()
        };
        let mut change = BroadcastChange::default();
        if self.name != before.name {
            change.name = Some((!self.name.is_empty()).then(|| self.name.clone()));
        }
        let has_start = !self.scheduled_at.is_empty();
        if (self.scheduled_at != before.scheduled_at || other_zone) && has_start {
            change.scheduled_at = time(&self.scheduled_at, "The start", &mut faults);
        } else if !has_start && !before.scheduled_at.is_empty() {
            faults.push(
                "A broadcast keeps a time to start at: choose another one, or resume it to send it now.".to_owned(),
            );
        }
        if self.expires_at != before.expires_at || other_zone && !self.expires_at.is_empty() {
            change.expires_at = Some(match self.expires_at.is_empty() {
                true => None,
                false => time(&self.expires_at, "The end", &mut faults),
            });
        }
        let has_time = change.scheduled_at.is_some() || change.expires_at.flatten().is_some();
        if other_zone && has_time {
            change.time_zone = Some(zone.clone().ok());
        }
        let quiet = (self.quiet_from.as_str(), self.quiet_to.as_str());
        if quiet != (&before.quiet_from, &before.quiet_to) || other_zone && quiet != ("", "") {
            change.quiet_hours = Some(
                match (quiet, TimeOfDay::parse(quiet.0), TimeOfDay::parse(quiet.1), &zone) {
                    (("", ""), ..) => None,
                    (_, Ok(from), Ok(to), Ok(zone)) => Some(QuietHours {
                        from,
                        to,
                        time_zone: zone.clone(),
                    }),
                    _ => {
                        faults.push("Quiet hours need both a beginning and an end.".to_owned());
                        None
                    }
                },
            );
        }
        if !self.text.trim().is_empty() {
            change.message = Some(Message {
                text: Some(self.text.clone()),
                attachment: None,
                template: None,
                quick_replies: Vec::new(),
            });
        }
        if faults.is_empty() && change == BroadcastChange::default() {
            faults.push("Nothing is changed: the values are those that the broadcast has.".to_owned());
        }
        let failure = |title: &str| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, title);
        let mut faults = faults.into_iter();
        match faults.next() {
            None => Ok(change),
            Some(first) => Err(faults.fold(failure(&first), Failure::and)),
        }
    }
}

#[derive(Template)]
#[template(path = "change.html")]
struct ChangeView {
    chrome: Chrome,
    csrf: String,
    report: BroadcastReport,
    mark: String,
    values: Values,
    fault: Option<Failure>,
}

impl ChangeView {
    fn name(&self) -> String {
        super::name(&self.report.summary)
    }
}

/// Shows the form with the values that the broadcast has.
pub async fn ask(State(console): State<Arc<Console>>, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let id = parse_id(&id)?;
    let (chrome, report) = tokio::join!(
        console.chrome(&visitor, Section::Broadcasts),
        visitor.client.broadcast(&id)
    );
    let report = report.map_err(missing)?;
    html(&ChangeView {
        chrome,
        csrf: visitor.csrf,
        mark: orders::mark(&report),
        values: Values::of(&report.summary),
        report,
        fault: None,
    })
}

/// Changes the broadcast. A repetition is refused, since the first change is in the history by then.
pub async fn order(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(id): Path<String>,
    Form(fields): Form,
) -> Answer {
    let id = parse_id(&id)?;
    let (values, mark) = (Values::read(&fields), fields.raw("mark"));
    let report = visitor.client.broadcast(&id).await.map_err(missing)?;
    let failure = match changed(&visitor, &id, &report, (&values, mark)).await {
        Ok(()) => return Ok(Redirect::to(&format!("/broadcasts/{id}")).into_response()),
        Err(failure) => failure,
    };
    if !failure.is_about_the_form() {
        return Err(failure);
    }
    refused(&ChangeView {
        chrome: console.chrome(&visitor, Section::Broadcasts).await,
        csrf: visitor.csrf,
        // Those who look at the fault have seen the last order.
        mark: orders::mark(&report),
        report,
        values,
        fault: Some(failure),
    })
}

async fn changed(
    visitor: &Visitor,
    id: &BroadcastId,
    report: &BroadcastReport,
    (values, mark): (&Values, &str),
) -> Result<(), Failure> {
    if let Some(given) = orders::given_since(report, mark) {
        return Err(orders::outdated(given));
    }
    let change = values.changes(&Values::of(&report.summary))?;
    visitor.client.change_broadcast(id, &change).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> Values {
        Values {
            name: "Opening hours".to_owned(),
            time_zone: "Asia/Manila".to_owned(),
            scheduled_at: "2026-12-01T09:00".to_owned(),
            ..Values::default()
        }
    }

    #[test]
    fn only_what_is_changed_is_sent() {
        let later = Values {
            scheduled_at: "2026-12-01T10:30".to_owned(),
            ..before()
        };

        let change = later.changes(&before()).unwrap();

        let expected = BroadcastChange {
            scheduled_at: Some("2026-12-01T02:30:00Z".parse().unwrap()),
            ..BroadcastChange::default()
        };
        assert_eq!(change, expected);
    }

    #[test]
    fn other_zone_moves_the_start() {
        let elsewhere = Values {
            time_zone: "Europe/Lisbon".to_owned(),
            ..before()
        };

        let change = elsewhere.changes(&before()).unwrap();

        assert_eq!(change.scheduled_at, Some("2026-12-01T09:00:00Z".parse().unwrap()));
        assert_eq!(change.time_zone, Some(Some(Zone::parse("Europe/Lisbon").unwrap())));
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let wrong = Values {
            scheduled_at: "tomorrow".to_owned(),
            quiet_from: "21:00".to_owned(),
            ..before()
        };
        let failure = wrong.changes(&before()).unwrap_err();
        assert!(failure.title.contains("The start"), "{failure:?}");
        assert!(failure.lines[0].contains("Quiet hours"), "{failure:?}");

        let failure = before().changes(&before()).unwrap_err();
        assert!(failure.title.contains("Nothing is changed"), "{failure:?}");
    }
}
