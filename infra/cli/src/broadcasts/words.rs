//! Words and numbers of the API, as the command line reads and writes them.

use client::api::broadcasts::JobReport;
use client::api::progress::TokenState;
use client::api::reasons::ReasonReport;
use indicatif::HumanCount;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error;
use shared::domain::delivery::Status;
use shared::domain::job::{Counters, JobStatus, Priority};
use shared::domain::reasons::NotSent;
use shared::domain::sending::SendingState;

use crate::text::plain;

/// The codes of reasons, each in an operator's words; of the others, Messenger's meaning is too long for a line.
const REASONS: [(&str, &str); 16] = [
    ("opted_out", "opted out"),
    ("contact_deleted", "deleted"),
    ("other_page", "moved to another Page"),
    ("outside_window", "outside 24 h"),
    ("too_soon", "too soon after another"),
    ("cancelled", "cancelled"),
    ("expired", "expired"),
    ("10/2018278", "outside 24 h"),
    ("10/2534022", "outside 24 h"),
    ("100/2018001", "unknown to Messenger"),
    ("200", "not allowed"),
    ("551", "cannot be reached"),
    ("no answer in time", "no answer in time"),
    ("connection lost", "connection lost"),
    ("its sender was lost", "sender lost"),
    ("other", "other reasons"),
];

/// The causes for which Messenger refuses a token (<https://developers.facebook.com/docs/graph-api/guides/error-handling>).
const TOKEN_SUBCODES: [(&str, &str); 5] = [
    ("/458", "app removed"),
    ("/460", "password changed"),
    ("/463", "expired"),
    ("/464", "user not confirmed"),
    ("/467", "no longer valid"),
];

/// Parses a word of the API.
fn word<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, String> {
    let word = text.replace('-', "_");
    T::deserialize(word.into_deserializer()).map_err(|error: Error| error.to_string())
}

/// Parses a status of a broadcast.
pub fn job_status(text: &str) -> Result<JobStatus, String> {
    word(text)
}

/// Parses a status of a delivery.
pub fn delivery_status(text: &str) -> Result<Status, String> {
    word(text)
}

/// Parses a status of contacts that are sent to again.
pub fn not_sent(text: &str) -> Result<NotSent, String> {
    word(text)
}

/// Parses an urgency.
pub fn priority(text: &str) -> Result<Priority, String> {
    word(text)
}

/// Parses a position of the switch for sending.
pub fn sending_state(text: &str) -> Result<SendingState, String> {
    word(text)
}

/// Returns a status in an operator's word.
pub fn status(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Processing => "sending",
        JobStatus::Queued => "queued",
        JobStatus::Waiting => "waiting",
        JobStatus::Paused => "paused",
        JobStatus::Scheduled => "scheduled",
        JobStatus::AwaitingApproval => "awaiting approval",
        JobStatus::Halted => "halted",
        JobStatus::Cancelled => "cancelled",
        JobStatus::Completed => "completed",
    }
}

/// Returns the numbers of contacts by state; of the states, those without any are left out.
pub fn outcomes(counters: &Counters) -> Vec<String> {
    let outcomes = &counters.outcomes;
    let states = [
        ("sent", outcomes.sent),
        ("skipped", outcomes.skipped),
        ("failed", outcomes.failed),
        ("in doubt", outcomes.in_doubt),
        ("waiting", outcomes.waiting),
        ("pending", counters.pending),
    ];
    let shown = states
        .into_iter()
        .filter(|(name, contacts)| *name == "sent" || *contacts > 0);
    shown
        .map(|(name, contacts)| format!("{name} {}", HumanCount(contacts)))
        .collect()
}

/// Returns a reason and its number of contacts.
pub fn reason(reason: &ReasonReport) -> String {
    let contacts = HumanCount(reason.contacts);
    let (code, subcode) = reason.code.split_once('/').unwrap_or((&reason.code, ""));
    let find = |wanted: &str| {
        REASONS
            .iter()
            .find(|(code, _)| *code == wanted)
            .map(|(_, words)| *words)
    };
    let is_number = code.chars().all(|c| c.is_ascii_digit());
    let words = match find(&reason.code).or_else(|| find(code)) {
        Some(words) if is_number => format!("{words} ({})", reason.code),
        Some(words) => words.to_owned(),
        None if is_number => format!(
            "refused by Messenger ({code}{}{subcode})",
            if subcode.is_empty() { "" } else { "/" }
        ),
        None => plain(&reason.code).into_owned(),
    };
    match reason.status {
        NotSent::InDoubt => format!("{contacts} in doubt: {words}"),
        NotSent::Failed | NotSent::Skipped => format!("{contacts} {words}"),
    }
}

/// Returns the reason why a job is halted; of a token that is refused, with the cause if that is known.
pub fn halted(job: &JobReport, token: Option<TokenState>) -> String {
    let reason = plain(job.reason.as_deref().unwrap_or("no reason is known"));
    let code = reason.strip_prefix("Messenger error ").unwrap_or(&reason);
    match token {
        Some(TokenState::Refused) => {
            let cause = TOKEN_SUBCODES.iter().find(|(subcode, _)| code.ends_with(subcode));
            let cause = cause.map(|(_, cause)| format!(", {cause}")).unwrap_or_default();
            format!("its token is refused by Messenger ({code}{cause})")
        }
        _ => reason.into_owned(),
    }
}

/// Returns a duration to the minute, or to the second if it is short.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..=1 => "a second".to_owned(),
        2..=90 => format!("{seconds} seconds"),
        91..=5_400 => format!("{} minutes", seconds.div_ceil(60)),
        _ => {
            let minutes = seconds.div_ceil(60);
            format!("{} h {} min", minutes / 60, minutes % 60)
        }
    }
}

/// Returns a time by the clock of this machine: of today as a time of day, of another day with the date.
pub fn time(time: Timestamp) -> String {
    let zone = TimeZone::system();
    let (local, today) = (
        time.to_zoned_datetime(zone.clone()),
        Timestamp::now().to_zoned_datetime(zone),
    );
    match local.date() == today.date() {
        true => local.strftime("%H:%M").to_string(),
        false => local.strftime("%Y-%m-%d %H:%M").to_string(),
    }
}

/// Returns a time by the clock of this machine, with its date.
pub fn date_and_time(time: Timestamp) -> String {
    time.to_zoned_datetime(TimeZone::system())
        .strftime("%Y-%m-%d %H:%M")
        .to_string()
}

/// Returns the time of day now, to the second.
pub fn clock() -> String {
    Timestamp::now()
        .to_zoned_datetime(TimeZone::system())
        .strftime("%H:%M:%S")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(code: &str) -> ReasonReport {
        ReasonReport {
            status: NotSent::Failed,
            code: code.to_owned(),
            meaning: String::new(),
            contacts: 1_200,
        }
    }

    #[test]
    fn reasons_are_told_in_words() {
        for (code, expected) in [
            ("opted_out", "1,200 opted out"),
            ("551", "1,200 cannot be reached (551)"),
            ("551/1545041", "1,200 cannot be reached (551/1545041)"),
            ("368", "1,200 refused by Messenger (368)"),
            ("missing \u{1b}x", "1,200 missing \\u{1b}x"),
        ] {
            assert_eq!(reason(&report(code)), expected);
        }
    }

    #[test]
    fn durations_are_told_to_the_minute() {
        for (seconds, expected) in [
            (1, "a second"),
            (61, "61 seconds"),
            (334, "6 minutes"),
            (7_500, "2 h 5 min"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }
}
