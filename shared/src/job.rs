//! A broadcast and its jobs, as they are stored and as the API shows them.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use crate::breakers::Breakers;
use crate::ids::{BroadcastId, JobId, PageId};
use crate::message::{Envelope, Message};

/// How often a job may be claimed without its cursor moving before it is halted.
pub const MAX_STALLS: u32 = 5;

/// One accepted request: a message for a set of contacts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Broadcast {
    /// Its identity.
    pub broadcast_id: BroadcastId,
    /// What is sent.
    pub message: Message,
    /// How Messenger is to treat it.
    pub envelope: Envelope,
    /// When the request was received.
    #[serde(with = "millisecond::required")]
    pub created_at: Timestamp,
    /// When it is to be sent, if not at once.
    #[serde(
        default,
        with = "millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub scheduled_at: Option<Timestamp>,
    /// What became of the ids in the request.
    pub contacts: ContactCounts,
    /// Requests that were answered with this broadcast instead of making another.
    #[serde(default)]
    pub replays: u64,
    /// The request itself worked it off, and was answered with 200.
    #[serde(default)]
    pub done_inline: bool,
}

/// What became of the ids in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactCounts {
    /// Ids in the request.
    pub requested: u64,
    /// Ids that stood in the request before.
    pub duplicates_removed: u64,
    /// Ids that are no contact of ours.
    pub unknown: u64,
    /// The first hundred of those.
    pub unknown_ids: Vec<String>,
    /// Contacts that do not want messages.
    pub opted_out: u64,
    /// Contacts that get the message.
    pub accepted: u64,
}

/// Where a job stands, and who moves it on.
///
/// The order is that of importance: a broadcast shows the first that one of its jobs has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// A worker has it; when its lease expires, any other may take it.
    Processing,
    /// Ready to be worked on; the next hint's worker takes it.
    Queued,
    /// All that is left is not due, or the Page pauses; taken up again when due.
    Waiting,
    /// Stopped by the operator, who alone resumes it.
    Paused,
    /// Not due yet; `scheduled` hints it when it is.
    Scheduled,
    /// Stopped by what would fail for everybody; the operator resumes it.
    Halted,
    /// Stopped by the operator for good.
    Cancelled,
    /// Every contact is settled or listed as in doubt.
    Completed,
}

/// As the API and the log name it.
impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One job: the part of a broadcast for one Page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The broadcast that it is a part of.
    pub broadcast_id: BroadcastId,
    /// The Page that sends.
    pub page_id: PageId,
    /// Where it stands.
    pub status: JobStatus,
    /// Why it is halted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Contacts accepted for this Page.
    pub contacts: u64,
    /// The name under which its segments were written.
    pub snapshot: String,
    /// Segments in its line.
    pub segments: u32,
    /// How many of those it was accepted with; the others hold contacts that stand in line again.
    pub first_segments: u32,
    /// How far along its line it is: segment × 1,000 + place in the segment.
    pub cursor: u64,
    /// +1 with each claim.
    pub epoch: u64,
    /// Claims since the cursor last moved.
    pub stalls: u32,
    /// The claim that made it `processing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_id: Option<String>,
    /// Until when that claim may be taken for alive.
    #[serde(
        default,
        with = "millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub lease_until: Option<Timestamp>,
    /// Before when a `scheduled` or `waiting` job is not claimed.
    #[serde(
        default,
        with = "millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub due_at: Option<Timestamp>,
    /// When somebody must look at it again if nothing has happened; every unfinished job has one.
    #[serde(
        default,
        with = "millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub wake_at: Option<Timestamp>,
    /// When it was accepted.
    #[serde(with = "millisecond::required")]
    pub created_at: Timestamp,
    /// After this its segments may be gone, and it cannot be claimed.
    #[serde(with = "millisecond::required")]
    pub retained_until: Timestamp,
    /// The outcomes before the cursor, and of the rows marked `counted`.
    #[serde(flatten)]
    pub outcomes: Outcomes,
    /// Contacts found settled when a worker came to send to them.
    #[serde(default)]
    pub prevented_reservation: u64,
    /// Workers refused because another was at work.
    #[serde(default)]
    pub prevented_claim: u64,
    /// What has gone wrong in a row.
    #[serde(default)]
    pub breakers: Breakers,
    /// Somebody wished that rows in doubt, which bear the wish themselves, be sent again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resend_wish: bool,
}

impl Job {
    /// Its identity.
    pub fn id(&self) -> JobId {
        JobId {
            broadcast_id: self.broadcast_id.clone(),
            page_id: self.page_id.clone(),
        }
    }

    /// What the API shows as its counters.
    pub fn counters(&self) -> Counters {
        let known = &self.outcomes;
        let settled = [
            known.waiting,
            known.sent,
            known.failed,
            known.skipped,
            known.in_doubt,
        ];
        Counters {
            pending: settled
                .iter()
                .fold(self.contacts, |left, n| left.saturating_sub(*n)),
            outcomes: known.clone(),
        }
    }
}

/// Contacts of a job by outcome; who is in none of these is pending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcomes {
    /// Stand in line again, for a later time.
    pub waiting: u64,
    /// Messenger accepted the message.
    pub sent: u64,
    /// Messenger refused the message for good.
    pub failed: u64,
    /// Not sent, because it should not be.
    pub skipped: u64,
    /// Messenger may or may not have accepted it.
    pub in_doubt: u64,
}

/// Every accepted contact in exactly one of six.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Not reached yet, or in flight.
    pub pending: u64,
    /// The other five.
    #[serde(flatten)]
    pub outcomes: Outcomes,
}

impl Counters {
    /// All contacts that are counted here.
    pub fn total(&self) -> u64 {
        let o = &self.outcomes;
        self.pending + o.waiting + o.sent + o.failed + o.skipped + o.in_doubt
    }
}

impl std::iter::Sum for Counters {
    fn sum<I: Iterator<Item = Self>>(counters: I) -> Self {
        counters.fold(Self::default(), |sum, one| Self {
            pending: sum.pending + one.pending,
            outcomes: Outcomes {
                waiting: sum.outcomes.waiting + one.outcomes.waiting,
                sent: sum.outcomes.sent + one.outcomes.sent,
                failed: sum.outcomes.failed + one.outcomes.failed,
                skipped: sum.outcomes.skipped + one.outcomes.skipped,
                in_doubt: sum.outcomes.in_doubt + one.outcomes.in_doubt,
            },
        })
    }
}

/// Duplicates that did not happen, by the layer that removed or prevented them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuplicatesPrevented {
    /// Ids repeated in the request.
    pub request: u64,
    /// Requests repeated.
    pub replay: u64,
    /// Workers refused by a live lease.
    pub claim: u64,
    /// Contacts found settled when a worker came to send to them.
    pub reservation: u64,
}

/// A broadcast as `POST /v1/broadcasts` and `GET /v1/broadcasts/{id}` answer it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The whole of it.
    #[serde(flatten)]
    pub summary: Summary,
    /// Its jobs by Page.
    pub jobs: Vec<JobReport>,
    /// The request itself worked it off, and was answered with 200.
    #[serde(skip)]
    pub done_inline: bool,
}

/// A broadcast as `GET /v1/broadcasts` lists it.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Its identity.
    pub broadcast_id: BroadcastId,
    /// The first of [`JobStatus`] that one of its jobs has.
    pub status: JobStatus,
    /// When the request was received.
    pub created_at: Timestamp,
    /// When it is to be sent, if not at once.
    pub scheduled_at: Option<Timestamp>,
    /// What became of the ids in the request.
    pub contacts: ContactCounts,
    /// The sum over its jobs.
    pub counters: Counters,
    /// The sum over its layers and jobs.
    pub duplicates_prevented: DuplicatesPrevented,
}

/// A job as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct JobReport {
    /// The Page that sends.
    pub page_id: PageId,
    /// Where it stands.
    pub status: JobStatus,
    /// Why it is halted.
    pub reason: Option<String>,
    /// Contacts accepted for this Page.
    pub contacts: u64,
    /// Where they stand.
    pub counters: Counters,
}

impl Report {
    /// The report on a broadcast and all of its jobs.
    pub fn new(broadcast: Broadcast, jobs: &[Job]) -> Self {
        let by_page: BTreeMap<_, _> = jobs.iter().map(|job| (&job.page_id, job)).collect();
        let done_inline = broadcast.done_inline;
        let summary = Summary {
            status: jobs
                .iter()
                .map(|job| job.status)
                .min()
                .unwrap_or(JobStatus::Completed),
            counters: jobs.iter().map(Job::counters).sum(),
            duplicates_prevented: DuplicatesPrevented {
                request: broadcast.contacts.duplicates_removed,
                replay: broadcast.replays,
                claim: jobs.iter().map(|job| job.prevented_claim).sum(),
                reservation: jobs.iter().map(|job| job.prevented_reservation).sum(),
            },
            broadcast_id: broadcast.broadcast_id,
            created_at: broadcast.created_at,
            scheduled_at: broadcast.scheduled_at,
            contacts: broadcast.contacts,
        };
        let jobs = by_page.into_values().map(|job| JobReport {
            page_id: job.page_id.clone(),
            status: job.status,
            reason: job.reason.clone(),
            contacts: job.contacts,
            counters: job.counters(),
        });
        Self {
            summary,
            jobs: jobs.collect(),
            done_inline,
        }
    }
}
