//! Words of the API as operators say them, for programs that show them to people.

use send::api::broadcasts::{BroadcastReport, JobReport};
use send::api::progress::TokenState;
use shared::domain::ids::PageId;
use shared::domain::job::JobStatus;

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

/// Returns the code of a reason in an operator's words; `None` if it has none.
pub fn reason_words(code: &str) -> Option<&'static str> {
    let (number, _) = code.split_once('/').unwrap_or((code, ""));
    let find = |wanted: &str| {
        let found = REASONS.iter().find(|(known, _)| *known == wanted);
        found.map(|(_, words)| *words)
    };
    let is_number = number.chars().all(|c| c.is_ascii_digit());
    let unknown = is_number.then_some("refused by Messenger");
    find(code).or_else(|| find(number)).or(unknown)
}

/// Returns the state of the token of a Page, as a report tells it.
pub fn token(report: &BroadcastReport, page_id: &PageId) -> Option<TokenState> {
    let mut pages = report.progress.iter().flat_map(|progress| &progress.pages);
    pages.find(|page| page.page_id == *page_id).map(|page| page.token)
}

/// Returns the reason why a job is halted; of a token that is refused, with the cause if that is known.
pub fn halted(job: &JobReport, token: Option<TokenState>) -> String {
    let reason = job.reason.as_deref().unwrap_or("no reason is known");
    let code = reason.strip_prefix("Messenger error ").unwrap_or(reason);
    match token {
        Some(TokenState::Refused) => {
            let cause = TOKEN_SUBCODES.iter().find(|(subcode, _)| code.ends_with(subcode));
            let cause = cause.map(|(_, cause)| format!(", {cause}")).unwrap_or_default();
            format!("its token is refused by Messenger ({code}{cause})")
        }
        _ => reason.to_owned(),
    }
}
