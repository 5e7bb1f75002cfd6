//! The times of a request: those between which messages are sent, and the hours of the day in which none is.

use jiff::{SignedDuration, Timestamp};
use shared::domain::schedule::{QuietHours, TimeOfDay, Zone};

use crate::fields::{Faults, Fields, nearest, time};

/// The maximum time from the request to the sending that it schedules.
const FARTHEST: SignedDuration = SignedDuration::from_hours(366 * 24);

/// The times of a broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// The time at which sending begins.
    pub scheduled_at: Option<Timestamp>,
    /// The time zone by whose clock the request gave its times.
    pub time_zone: Option<Zone>,
    /// The hours of each day in which nothing is sent.
    pub quiet_hours: Option<QuietHours>,
    /// The time after which nothing is sent any more.
    pub expires_at: Option<Timestamp>,
}

impl Times {
    /// Reads the times of a body.
    pub fn read(fields: &Fields<'_>, faults: &Faults) -> Self {
        let given = fields.optional("time_zone");
        let time_zone = fields.parsed("time_zone", given, zone);
        let time_of = |name| match (given, &time_zone) {
            (None, _) => fields.parsed(name, fields.optional(name), time_with_offset),
            (Some(_), Some(zone)) => fields.parsed(name, fields.optional(name), |text| time_in(zone, text)),
            // The fault of the zone is told.
            (Some(_), None) => None,
        };
        let times = Self {
            scheduled_at: time_of("scheduled_at"),
            expires_at: time_of("expires_at"),
            quiet_hours: quiet_hours(fields, faults),
            time_zone: time_zone.clone(),
        };
        let has_time = ["scheduled_at", "expires_at"]
            .iter()
            .any(|name| fields.optional(name).is_some());
        if time_zone.is_some() && !has_time {
            fields.fault("time_zone", "is allowed only with scheduled_at or expires_at");
        }
        times
    }

    /// Checks the time at which sending begins against the time at which the request was received.
    pub fn check_start(&self, received: Timestamp, faults: &Faults) {
        match self.scheduled_at {
            Some(at) if at <= received => faults.add("/scheduled_at", "is in the past"),
            Some(at) if at > received + FARTHEST => faults.add("/scheduled_at", "is over a year ahead"),
            _ => {}
        }
    }

    /// Checks that something can be sent between the time at which sending begins and the time at which it ends.
    pub fn check_end(&self, received: Timestamp, faults: &Faults) {
        let begins = self.scheduled_at.map_or(received, |at| at.max(received));
        let Some(expires_at) = self.expires_at else {
            return;
        };
        let quiet_until = self.quiet_hours.as_ref().and_then(|quiet| quiet.end(begins));
        if expires_at <= begins {
            let begins = match self.scheduled_at {
                Some(at) if at >= received => "scheduled_at",
                _ => "now",
            };
            faults.add("/expires_at", format!("must be later than {begins}"));
        } else if quiet_until.is_some_and(|until| expires_at <= until) {
            let message = "leave no time for sending: they last from its begin until expires_at";
            faults.add("/quiet_hours", message);
        }
    }
}

fn time_with_offset(text: &str) -> Result<Timestamp, String> {
    time(text).map_err(|message| format!("{message}; or a local time with a time_zone"))
}

fn time_in(zone: &Zone, text: &str) -> Result<Timestamp, String> {
    zone.read(text).ok_or_else(|| match time(text) {
        Ok(_) => format!("has another offset than {} has then; leave the offset out", zone.name()),
        Err(_) => "must be a local time, such as 2026-12-01T09:00".to_owned(),
    })
}

fn zone(name: &str) -> Result<Zone, String> {
    Zone::parse(name).map_err(|unknown| {
        let near = nearest(name, Zone::names());
        format!(
            "{unknown}{}",
            near.map_or_else(String::new, |near| format!("; {near} is one"))
        )
    })
}

fn quiet_hours(fields: &Fields<'_>, faults: &Faults) -> Option<QuietHours> {
    const NAME: &str = "quiet_hours";
    let value = fields.optional(NAME)?;
    let fields = Fields::of(value, "/quiet_hours", &["from", "to", "time_zone"], faults)?;
    let time_of_day = |text: &str| TimeOfDay::parse(text).map_err(str::to_owned);
    let from = fields.parsed("from", fields.required("from"), time_of_day);
    let to = fields.parsed("to", fields.required("to"), time_of_day);
    let time_zone = fields.parsed("time_zone", fields.required("time_zone"), zone);
    if from.is_some() && from == to {
        fields.fault("to", "must not equal from: nothing would ever be sent");
    }
    Some(QuietHours {
        from: from?,
        to: to?,
        time_zone: time_zone?,
    })
}
