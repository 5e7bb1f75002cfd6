//! The progress of a broadcast, made from what its workers keep of each minute and from the state of its Pages.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use futures_util::future::join_all;
use jiff::Timestamp;
use shared::app::App;
use shared::domain::job::JobStatus;
use shared::domain::reasons::code_of;
use shared::messenger::meanings::concerns_token;
use shared::store;
use shared::store::progress::{Minute, PageProgress};

use crate::api::broadcasts::{BroadcastReport, JobReport};
use crate::api::progress::{MinuteReport, PageProgressReport, ProgressReport, TokenState};
use crate::pages::token_state;

/// The minutes that a report shows.
const SHOWN_MINUTES: i64 = 60;
/// The minutes whose speed counts for the expected end.
const RECENT_MINUTES: i64 = 5;

impl ProgressReport {
    /// Reads the progress of the jobs of a report: two items and a token for each Page.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an item is unreadable.
    pub async fn read(app: &App, report: &BroadcastReport) -> Result<Self, store::Error> {
        let pages: Vec<_> = report.jobs.iter().map(|job| job.page_id.clone()).collect();
        let progress = app.store.progress();
        let mut progress = progress.lately(&report.summary.broadcast_id, &pages).await?;
        let tokens = report.jobs.iter().map(|job| token(app, job));
        let tokens = join_all(tokens).await;
        let (now, rate) = (app.clock.now(), report.rate.unwrap_or(app.config.page_rate));
        let rate = rate.min(app.config.page_rate);
        let (mut pages, mut minutes) = (Vec::new(), BTreeMap::new());
        for (job, token) in report.jobs.iter().zip(tokens) {
            let PageProgress { minutes: of_page, page } = progress.remove(&job.page_id).unwrap_or_default();
            for (minute, sent) in shown(&of_page, now) {
                *minutes.entry(minute).or_default() += sent;
            }
            let (paused_until, rate) = (page.paused_until(now), page.rate(rate));
            pages.push(PageProgressReport {
                page_id: job.page_id.clone(),
                rate,
                paused_until,
                backoffs: page.backoffs,
                token,
                expected_end: expected_end(job, &of_page, paused_until, rate, now),
                sent_per_minute: shown(&of_page, now).filter_map(minute_report).collect(),
            });
        }
        Ok(Self {
            sent_per_minute: minutes.into_iter().filter_map(minute_report).collect(),
            expected_end: pages.iter().filter_map(|page| page.expected_end).max(),
            pages,
        })
    }
}

/// Returns the state of a Page's token. A refused one is the reason why the job is halted.
async fn token(app: &App, job: &JobReport) -> TokenState {
    let reason = job.reason.as_deref().map(code_of).unwrap_or_default();
    if job.status == JobStatus::Halted && concerns_token(&reason) {
        return TokenState::Refused;
    }
    token_state(app, &job.page_id).await
}

/// Returns the time at which a job is expected to be finished; `None` if it does not go on by itself.
fn expected_end(
    job: &JobReport,
    minutes: &[Minute],
    paused_until: Option<Timestamp>,
    rate: NonZeroU32,
    now: Timestamp,
) -> Option<Timestamp> {
    let goes_on = [
        JobStatus::Processing,
        JobStatus::Queued,
        JobStatus::Waiting,
        JobStatus::Scheduled,
    ];
    // Nobody knows how many contacts are still to join.
    if !goes_on.contains(&job.status) || job.resolving {
        return None;
    }
    let left = job.counters.pending + job.counters.outcomes.waiting;
    let begins = [Some(now), job.due_at, paused_until].into_iter().flatten().max()?;
    let per_minute = recent_speed(minutes, now).unwrap_or_else(|| u64::from(rate.get()) * 60);
    let seconds = (left * 60).div_ceil(per_minute.max(1));
    Timestamp::from_second(begins.as_second() + i64::try_from(seconds).ok()?).ok()
}

/// Returns the messages per minute of the last minutes that are over; `None` if there were none.
fn recent_speed(minutes: &[Minute], now: Timestamp) -> Option<u64> {
    let current = number(now);
    let recent = minutes
        .iter()
        .filter(|(minute, _)| (current - RECENT_MINUTES..current).contains(minute));
    let recent: Vec<_> = recent.map(|(_, sent)| *sent).collect();
    let speed = recent.iter().sum::<u64>().checked_div(recent.len() as u64)?;
    Some(speed).filter(|speed| *speed > 0)
}

fn shown(minutes: &[Minute], now: Timestamp) -> impl Iterator<Item = Minute> {
    let oldest = number(now) - SHOWN_MINUTES;
    minutes.iter().copied().filter(move |(minute, _)| *minute > oldest)
}

fn number(time: Timestamp) -> i64 {
    time.as_second().div_euclid(60)
}

fn minute_report((minute, sent): Minute) -> Option<MinuteReport> {
    let minute = Timestamp::from_second(minute.checked_mul(60)?).ok()?;
    Some(MinuteReport { minute, sent })
}
