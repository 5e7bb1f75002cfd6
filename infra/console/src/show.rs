//! Values as a page shows them.

use std::fmt;

use askama::filters::HtmlSafe;
use client::api::broadcasts::{BroadcastReport, JobReport};
use client::api::progress::MinuteReport;
use jiff::Timestamp;
use shared::domain::audience::Audience;
use shared::domain::delivery::Status;
use shared::domain::job::{Counters, JobStatus};
use shared::domain::reasons::NotSent;

/// The seconds of a minute.
const MINUTE: i64 = 60;
/// The seconds whose minutes a report tells of.
const HOUR: i64 = 3_600;
/// The width of a bar, in units of its drawing.
const BAR: u64 = 1_000;

/// Returns a number with a comma after every third digit.
pub fn number(number: &u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Returns the number and the noun, with an `s` unless it is one.
pub fn counted(count: &u64, noun: &str) -> String {
    let plural = if *count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", number(count))
}

/// Returns a size in megabytes, or in kilobytes if it is small.
pub fn size(bytes: &u64) -> String {
    match *bytes / (1024 * 1024) {
        0 => format!("{} kB", bytes.div_ceil(1024)),
        megabytes => format!("{} MB", number(&megabytes)),
    }
}

/// Returns a digest in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A time. The page's script puts it into the zone of the viewer; without a script it is shown in UTC.
pub struct When<'a>(pub &'a Timestamp);

impl fmt::Display for When<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.0.strftime("%Y-%m-%d %H:%M");
        write!(f, "<time datetime=\"{}\" title=\"{}\">{at} UTC</time>", self.0, self.0)
    }
}

impl HtmlSafe for When<'_> {}

/// The state of a broadcast or of a job, with the mark of its colour.
pub struct State<'a>(pub &'a JobStatus);

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = client::words::status(*self.0);
        write!(f, "<span class=\"chip {}\">{words}</span>", self.0)
    }
}

impl HtmlSafe for State<'_> {}

/// The status of a delivery, with the mark of its colour.
pub struct Delivered<'a>(pub &'a Status);

impl fmt::Display for Delivered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (class, words) = match self.0 {
            Status::Reserved => ("pending", "being sent"),
            Status::Sent => ("sent", "sent"),
            Status::Failed => ("failed", "failed"),
            Status::Skipped => ("skipped", "skipped"),
            Status::Waiting => ("waiting", "waiting"),
            Status::InDoubt => ("doubt", "in doubt"),
        };
        write!(f, "<span class=\"chip {class}\">{words}</span>")
    }
}

impl HtmlSafe for Delivered<'_> {}

/// Returns a status of contacts that are not known to have got the message in an operator's words.
pub fn not_sent(status: &NotSent) -> &'static str {
    match status {
        NotSent::Failed => "failed",
        NotSent::Skipped => "skipped",
        NotSent::InDoubt => "in doubt",
    }
}

/// Returns the code of a reason in words: an operator's if there are any, else its meaning as the API tells it.
pub fn reason(code: &str, meaning: Option<&str>) -> String {
    const GENERAL: &str = "refused by Messenger";
    let words = client::words::reason_words(code).filter(|words| *words != GENERAL);
    let words = words.or(meaning.filter(|meaning| !meaning.is_empty())).unwrap_or(code);
    let mut rest = words.chars();
    let first = rest
        .next()
        .map(|first| first.to_uppercase().to_string())
        .unwrap_or_default();
    format!("{first}{}", rest.as_str())
}

/// Returns the filters of an audience in words.
pub fn audience(audience: &Audience) -> String {
    let mut filters = Vec::new();
    let mut filter = |words: &str, values: Vec<String>| {
        if !values.is_empty() {
            filters.push(format!("{words} {}", values.join(", ")));
        }
    };
    let pages = audience.page_id.iter().chain(&audience.page_ids);
    filter("of", pages.map(|page| page.as_str().to_owned()).collect());
    filter("tagged with any of", audience.tags_any.clone());
    filter("tagged with all of", audience.tags_all.clone());
    filter("tagged with none of", audience.tags_none.clone());
    let attributes = audience.attributes.iter().map(|(name, values)| {
        let values: Vec<_> = values
            .iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect();
        format!("{name} = {}", values.join(" or "))
    });
    filter("with", attributes.collect());
    let hours = |hours: Option<u32>| hours.map(|hours| format!("{hours} h")).into_iter().collect();
    filter("active in the last", hours(audience.active_within_hours));
    filter("not active for", hours(audience.inactive_for_hours));
    filter("that got", audience.sent_in.iter().map(ToString::to_string).collect());
    filter(
        "that did not get",
        audience.not_sent_in.iter().map(ToString::to_string).collect(),
    );
    match filters.is_empty() {
        true => "everybody".to_owned(),
        false => format!("contacts {}", filters.join("; ")),
    }
}

/// A bar with the part of each outcome, and the numbers as its text.
pub struct Bar<'a>(pub &'a Counters);

impl fmt::Display for Bar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcomes = outcomes(self.0);
        let all = self.0.total().max(1);
        let words: Vec<_> = outcomes
            .iter()
            .filter(|outcome| outcome.contacts > 0)
            .map(|outcome| format!("{} {}", number(&outcome.contacts), outcome.words))
            .collect();
        let words = if words.is_empty() {
            "nothing yet".to_owned()
        } else {
            words.join(", ")
        };
        write!(
            f,
            "<svg class=\"bar\" viewBox=\"0 0 {BAR} 8\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{words}\">"
        )?;
        let mut before = 0;
        for outcome in &outcomes {
            let at = |contacts: u64| u128::from(contacts) * u128::from(BAR) / u128::from(all);
            let (begin, end) = (at(before), at(before + outcome.contacts));
            before += outcome.contacts;
            // A single contact of many is seen, too.
            let width = if outcome.contacts == 0 { 0 } else { (end - begin).max(2) };
            if width > 0 {
                let class = outcome.class;
                write!(
                    f,
                    "<rect class=\"{class}\" x=\"{begin}\" width=\"{width}\" height=\"8\"/>"
                )?;
            }
        }
        f.write_str("</svg>")
    }
}

impl HtmlSafe for Bar<'_> {}

/// The contacts with one outcome.
pub struct Outcome {
    /// The class of its colour.
    pub class: &'static str,
    /// The outcome in words.
    pub words: &'static str,
    /// The status by which deliveries are listed; `None` if they have no row.
    pub status: Option<&'static str>,
    /// The number of contacts.
    pub contacts: u64,
}

/// Returns the six outcomes, which add up to the contacts that were accepted.
pub fn outcomes(counters: &Counters) -> [Outcome; 6] {
    let of = |class, words, status, contacts| Outcome {
        class,
        words,
        status,
        contacts,
    };
    let outcomes = &counters.outcomes;
    [
        of("sent", "sent", Some("sent"), outcomes.sent),
        of("skipped", "skipped", Some("skipped"), outcomes.skipped),
        of("failed", "failed", Some("failed"), outcomes.failed),
        of("doubt", "in doubt", Some("in_doubt"), outcomes.in_doubt),
        of("waiting", "waiting", Some("waiting"), outcomes.waiting),
        of("pending", "pending", None, counters.pending),
    ]
}

/// Returns the messages a second of a broadcast, all Pages together; `None` if it is not sending, or too slowly to tell.
pub fn rate(report: &BroadcastReport) -> Option<u64> {
    let rate = report.jobs.iter().filter_map(|job| rate_of(report, job)).sum();
    (rate > 0).then_some(rate)
}

/// Returns the messages a second of a job; `None` if it is not sending, or too slowly to tell.
pub fn rate_of(report: &BroadcastReport, job: &JobReport) -> Option<u64> {
    let sending = Sending::of(report, job, Timestamp::now())?;
    let rate = sending.per_second();
    (rate > 0).then_some(rate)
}

/// Returns the messages of the present minute, all Pages together. The API counts a minute when it is over.
pub fn not_counted_yet(report: &BroadcastReport) -> u64 {
    let sending = report
        .jobs
        .iter()
        .filter_map(|job| Sending::of(report, job, Timestamp::now()));
    sending.map(|sending| sending.not_counted()).sum()
}

/// A job at work.
struct Sending<'a> {
    minutes: &'a [MinuteReport],
    /// The messages a second that its Page may send.
    limit: u64,
    /// All messages that the job has sent.
    sent: u64,
    /// The seconds of the epoch at the beginning of the broadcast.
    begun: i64,
    /// The seconds of the epoch now.
    now: i64,
}

impl<'a> Sending<'a> {
    fn of(report: &'a BroadcastReport, job: &JobReport, now: Timestamp) -> Option<Self> {
        let pages = &report.progress.as_ref()?.pages;
        let page = pages.iter().find(|page| page.page_id == job.page_id)?;
        let begun = report.summary.scheduled_at.unwrap_or(report.summary.created_at);
        (job.status == JobStatus::Processing).then(|| Self {
            minutes: &page.sent_per_minute,
            limit: u64::from(page.rate.get()),
            sent: job.counters.outcomes.sent,
            begun: begun.as_second(),
            now: now.as_second(),
        })
    }

    /// Returns what the counted minutes leave of all messages, and no more than the limit allows since then: what short runs sent may
    /// never be counted. A broadcast that is older than the minutes that are kept does not tell.
    fn not_counted(&self) -> u64 {
        if self.now - self.begun >= HOUR {
            return 0;
        }
        let counted: u64 = self.minutes.iter().map(|minute| minute.sent).sum();
        let end = self
            .minutes
            .last()
            .map_or(self.begun, |last| last.minute.as_second() + MINUTE);
        let seconds = (self.now - end.max(self.begun)).clamp(0, 2 * MINUTE).unsigned_abs();
        self.sent.saturating_sub(counted).min(self.limit * seconds)
    }

    /// Returns the messages a second since the beginning of the last whole minute, or since the broadcast began.
    fn per_second(&self) -> u64 {
        let (present, not_counted) = (self.now - self.now % MINUTE, self.not_counted());
        let since = present - MINUTE;
        let recent = self.minutes.iter().filter(|minute| minute.minute.as_second() >= since);
        let sent = not_counted + recent.map(|minute| minute.sent).sum::<u64>();
        let until = if not_counted > 0 { self.now } else { present };
        let seconds = (until - since.max(self.begun)).max(1).unsigned_abs();
        (sent + seconds / 2) / seconds
    }
}

/// Returns the time until `end`, as a person says it.
pub fn until(end: &Timestamp) -> String {
    let seconds = end.as_second() - Timestamp::now().as_second();
    match seconds {
        ..=0 => "now".to_owned(),
        1..=90 => format!("in {seconds} s"),
        91..=5_400 => format!("in {} min", (seconds + MINUTE - 1) / MINUTE),
        _ => format!("in {} h {} min", seconds / 3_600, seconds % 3_600 / MINUTE),
    }
}

/// Returns a duration to the minute, or to the second if it is short.
pub fn duration(seconds: &u64) -> String {
    match *seconds {
        0..=1 => "a second".to_owned(),
        seconds @ 2..=90 => format!("{seconds} s"),
        seconds @ 91..=5_400 => format!("{} min", seconds.div_ceil(60)),
        seconds => {
            let minutes = seconds.div_ceil(60);
            format!("{} h {} min", minutes / 60, minutes % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::domain::job::OutcomeCounts;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (plain, shown) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (31_240, "31,240"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(number(&plain), shown);
        }
    }

    #[test]
    fn speed_counts_the_minute_that_has_begun() {
        let minute = |minute: i64, sent| MinuteReport {
            minute: Timestamp::from_second(6_000 + 60 * minute).unwrap(),
            sent,
        };
        let speed = |minutes: &[MinuteReport], sent, now: i64| {
            let sending = Sending {
                minutes,
                limit: 30,
                sent,
                begun: 6_030,
                now: 6_000 + now,
            };
            (sending.not_counted(), sending.per_second())
        };

        assert_eq!(speed(&[], 200, 50), (200, 10), "before the first minute is over");
        assert_eq!(speed(&[minute(0, 300)], 600, 75), (300, 13), "in the second minute");
        assert_eq!(
            speed(&[minute(0, 300)], 9_000, 75),
            (450, 17),
            "no faster than the limit"
        );
        assert_eq!(
            speed(&[minute(58, 900), minute(59, 900)], 90_000, 3_640),
            (0, 15),
            "after an hour"
        );
    }

    #[test]
    fn bar_shows_a_single_contact_of_many() {
        let counters = Counters {
            pending: 0,
            outcomes: OutcomeCounts {
                sent: 99_999,
                failed: 1,
                ..OutcomeCounts::default()
            },
        };

        let bar = Bar(&counters).to_string();

        assert!(bar.contains("aria-label=\"99,999 sent, 1 failed\""), "{bar}");
        assert!(bar.contains("<rect class=\"failed\" x=\"999\" width=\"2\""), "{bar}");
    }
}
