//! Words and numbers of the API, as the command line reads and writes them.

use client::api::reasons::ReasonReport;
use client::words::reason_words;
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
    let (words, code) = (reason_words(&reason.code), plain(&reason.code));
    let is_number = code.starts_with(|c: char| c.is_ascii_digit());
    let words = match words {
        Some(words) if is_number => format!("{words} ({code})"),
        Some(words) => words.to_owned(),
        None => code.into_owned(),
    };
    match reason.status {
        NotSent::InDoubt => format!("{contacts} in doubt: {words}"),
        NotSent::Failed | NotSent::Skipped => format!("{contacts} {words}"),
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
