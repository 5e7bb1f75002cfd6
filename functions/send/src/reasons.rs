//! Codes of reasons: their meaning, in words for an operator, and their reading from a request.

use std::collections::BTreeMap;

use shared::domain::job::Job;
use shared::domain::reasons::{NotSent, OTHER};
use shared::messenger::meanings::meaning_of_error;

use crate::api::reasons::ReasonReport;
use crate::fields::nearest;

/// The beginning of the code of contacts without a value that a text needs; the name of the value follows.
const MISSING: &str = "missing ";

/// The codes that are words, each with its meaning.
const WORDS: [(&str, &str); 22] = [
    ("opted_out", "The contact has opted out."),
    (
        "contact_deleted",
        "The contact was deleted after the broadcast had been accepted.",
    ),
    (
        "other_page",
        "The contact was deleted, and created anew on another Page, after it had been found for this one.",
    ),
    (
        "outside_window",
        "The contact has not written to the Page for 24 hours, so that Messenger would refuse the message.",
    ),
    (
        "too_soon",
        "The contact was sent another broadcast a short while before.",
    ),
    (
        "cancelled",
        "The broadcast was cancelled before it came to the contact.",
    ),
    (
        "expired",
        "The time of the broadcast was over before it came to the contact.",
    ),
    (
        "text is empty",
        "A reader would see nothing of the text that is rendered for the contact.",
    ),
    (
        "text is too long",
        "The text that is rendered for the contact is longer than Messenger takes.",
    ),
    ("template", "The text cannot be rendered for the contact."),
    (
        "no connection",
        "No connection to Messenger could be made, at any of the attempts.",
    ),
    ("no answer in time", "Messenger did not answer in time."),
    (
        "connection lost",
        "The connection to Messenger was lost before its answer.",
    ),
    (
        "answered with a redirect",
        "Messenger, or what answered in its place, redirected the call.",
    ),
    (
        "answered with a server error",
        "Messenger answered that it failed, without a code.",
    ),
    (
        "answered with an unreadable error",
        "Messenger answered with an error that cannot be read.",
    ),
    (
        "answered with a message id and an error",
        "Messenger answered with both a message id and an error.",
    ),
    ("answer not readable", "Messenger's answer cannot be read."),
    (
        "its sender was lost",
        "The worker that was sending the message ended before it recorded the answer.",
    ),
    (
        "was reserved for too long",
        "The worker was held up before it sent the message.",
    ),
    (
        "the contact could not be marked",
        "The database did not answer before the send, so nothing was sent then.",
    ),
    (OTHER, "Other reasons: each delivery shows its own."),
];

/// Returns the totals of jobs by reason, the largest of each status first. Contacts that an earlier version counted without a
/// reason count as [`OTHER`].
pub fn report<'j>(jobs: impl IntoIterator<Item = &'j Job>) -> Vec<ReasonReport> {
    let mut totals = BTreeMap::<_, u64>::new();
    for job in jobs {
        let outcomes = &job.outcomes;
        for (status, counter) in [
            (NotSent::Failed, outcomes.failed),
            (NotSent::Skipped, outcomes.skipped),
            (NotSent::InDoubt, outcomes.in_doubt),
        ] {
            let of_status = job.reasons.totals().filter(|(of, _, _)| *of == status);
            let mut rest = counter;
            for (_, code, contacts) in of_status {
                *totals.entry((status, code)).or_default() += contacts;
                rest = rest.saturating_sub(contacts);
            }
            if rest > 0 {
                *totals.entry((status, OTHER)).or_default() += rest;
            }
        }
    }
    let reasons = totals.into_iter().map(|((status, code), contacts)| ReasonReport {
        status,
        code: code.to_owned(),
        meaning: meaning(status, code),
        contacts,
    });
    let mut reasons: Vec<_> = reasons.collect();
    reasons.sort_by_key(|reason| (reason.status, std::cmp::Reverse(reason.contacts)));
    reasons
}

/// Returns the meaning of a code. A contact in doubt may have got the message, whatever the reason of the last attempt.
fn meaning(status: NotSent, code: &str) -> String {
    let word = WORDS.iter().find(|(word, _)| *word == code);
    let meaning = match (word, code.strip_prefix(MISSING), error_code(code)) {
        (Some((_, meaning)), _, _) => (*meaning).to_owned(),
        (None, Some(name), _) => format!("The contact has no {name}, and the text has no default for it."),
        (None, None, Some((code, subcode))) => meaning_of_error(code, subcode).to_owned(),
        (None, None, None) => "Each delivery shows the reason in full.".to_owned(),
    };
    match status {
        NotSent::Failed | NotSent::Skipped => meaning,
        NotSent::InDoubt => format!("{meaning} The contact may have got the message all the same."),
    }
}

/// Parses Messenger's code, and its subcode if there is one.
fn error_code(code: &str) -> Option<(i64, Option<i64>)> {
    match code.split_once('/') {
        None => Some((code.parse().ok()?, None)),
        Some((code, subcode)) => Some((code.parse().ok()?, Some(subcode.parse().ok()?))),
    }
}

/// Parses a code as the report of a broadcast shows it. Messenger's code without a subcode stands for all of its subcodes.
///
/// # Errors
/// If it is no such code: the fault, with the code that may be meant.
pub fn code(text: &str) -> Result<String, String> {
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
    let is_missing = text.strip_prefix(MISSING).is_some_and(is_name);
    if is_missing || error_code(text).is_some() || WORDS.iter().any(|(word, _)| *word == text) {
        return Ok(text.to_owned());
    }
    let near = nearest(text, WORDS.iter().map(|(word, _)| *word));
    let near = near.map_or_else(String::new, |near| format!("; {near:?} is one"));
    Err(format!(
        "must be a code of Messenger, such as 551 or 551/1545041, or a word that the report of a broadcast shows{near}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_words_of_its_own() {
        for (code, words) in [
            ("551/1545041", "blocked the Page"),
            ("10/2018278", "24 hours"),
            ("missing first_name", "no first_name"),
            ("opted_out", "opted out"),
        ] {
            assert!(meaning(NotSent::Failed, code).contains(words), "{code}");
        }
        let in_doubt = meaning(NotSent::InDoubt, "connection lost");
        assert!(
            in_doubt.ends_with("may have got the message all the same."),
            "{in_doubt}"
        );
    }

    #[test]
    fn wrong_code_is_refused_with_the_nearest_right_one() {
        for code in ["551", "551/1545041", "missing attributes.city", "opted_out", "other"] {
            assert_eq!(super::code(code), Ok(code.to_owned()));
        }
        assert!(code("opted-out").unwrap_err().ends_with("\"opted_out\" is one"));
        for code in ["", "xyz", "551/", "/551", "missing ", "Messenger error 551"] {
            assert!(super::code(code).is_err(), "{code:?}");
        }
    }
}
