//! A broadcast and its jobs, as they are stored.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::audience::{Audience, AudienceName};
use crate::domain::breakers::Breakers;
use crate::domain::command::{JobCommand, RetryCommand, StopCommand};
use crate::domain::ids::{BroadcastId, ContactId, JobId, PageId};
use crate::domain::import::ImportProgress;
use crate::domain::message::{Envelope, Message};
use crate::domain::reasons::{NotSent, OTHER, Reasons};
use crate::domain::schedule::{QuietHours, Zone};
use crate::domain::window::OutsideWindow;

/// The number of claims in a row that may leave the cursor of a job where it is; one more halts the job.
pub const MAX_STALLS: u32 = 5;

/// The most contacts of a small job.
pub const SMALL_JOB: u64 = 25;

/// An accepted request: one message for a set of contacts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Broadcast {
    /// The identity of the broadcast.
    pub broadcast_id: BroadcastId,
    /// The name that the request gave it; Messenger never sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The notes that the request gave it; Messenger never sees them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The Pages of the jobs, by which all of them are read; none if an earlier version accepted the broadcast.
    #[serde(default)]
    pub page_ids: Vec<PageId>,
    /// The message, rendered for each contact.
    pub message: Message,
    /// The parameters that accompany the message in each call of the Send API.
    pub envelope: Envelope,
    /// The treatment of contacts that Messenger's window is over for.
    #[serde(default)]
    pub outside_window: OutsideWindow,
    /// The time at which API Gateway received the request.
    #[serde(with = "millisecond::required")]
    pub created_at: Timestamp,
    /// The time at which sending begins; `None` if it begins at once.
    #[serde(default, with = "millisecond::optional", skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Timestamp>,
    /// The ids of the request by what acceptance found; none for an audience, whose contacts the jobs count.
    pub contacts: ContactCounts,
    /// The audience that the jobs find their contacts by, as it was when the request was received; `None` if the request named
    /// the contacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Audience>,
    /// The name under which that audience was saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience_name: Option<AudienceName>,
    /// Repetitions of the request that were answered with this broadcast instead of creating another.
    #[serde(default)]
    pub replays: u64,
    /// The urgency that the request gave it.
    #[serde(default)]
    pub priority: Priority,
    /// True if the request itself worked the broadcast off and was answered with 200; its repetitions are, too.
    #[serde(default)]
    pub done_inline: bool,
    /// The time zone by whose clock the request gave its times; reports show them in it, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<Zone>,
    /// The hours of each day in which nothing is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
    /// The time after which nothing is sent any more. The item's `expires_at` is DynamoDB's.
    #[serde(
        rename = "not_after",
        default,
        with = "millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires_at: Option<Timestamp>,
    /// True if another caller than the one who made the broadcast must approve it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requires_approval: bool,
    /// The time of that approval; `None` since the last change.
    #[serde(default, with = "millisecond::optional", skip_serializing_if = "Option::is_none")]
    pub approved_at: Option<Timestamp>,
    /// The caller that made the broadcast; `None` if it was not authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// The caller that changed the broadcast last; `None` if none has, or it was not authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// The random id of the last change or approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change_id: Option<String>,
    /// True if the broadcast is a send to testers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
}

impl Broadcast {
    /// Returns the end of the quiet hours if they are on.
    pub fn quiet_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.quiet_hours.as_ref()?.end(now)
    }
}

/// The ids of a request, counted by what acceptance found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContactCounts {
    /// All ids of the request.
    pub requested: u64,
    /// Repetitions of an id that the request holds already.
    pub duplicates_removed: u64,
    /// Ids of no stored contact, or of a contact of a Page that the caller may not use.
    pub unknown: u64,
    /// The first hundred of the unknown ids.
    pub unknown_ids: Vec<String>,
    /// Contacts that have opted out.
    pub opted_out: u64,
    /// Contacts that the jobs of the broadcast send to.
    pub accepted: u64,
}

/// The urgency of a broadcast beside others of the same Page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// A small job is sent at once, large ones one after the other.
    #[default]
    Normal,
    /// Every job is sent at once, beside the others.
    High,
}

/// The status of a job, each with the event that changes it.
///
/// The order is that of importance: the status of a broadcast is the first in this list that one of its jobs has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[schema(description = "The status of a job. A broadcast has the first in this list that one of its jobs has.")]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// A worker holds the job; when its lease expires, any other worker may claim the job.
    Processing,
    /// Ready to be worked on; the worker that the next wake-up starts claims the job.
    Queued,
    /// Nothing that is left is due, or the Page pauses; the job is claimed again when it is due.
    Waiting,
    /// Stopped by the operator; only the operator resumes it.
    Paused,
    /// Not due yet; `scheduled` wakes the job when it is.
    Scheduled,
    /// Not to be sent before another caller approves it.
    AwaitingApproval,
    /// Stopped by an error that every contact would meet; the operator resumes it.
    Halted,
    /// Stopped by the operator for good.
    Cancelled,
    /// Every contact is settled or listed as in doubt.
    Completed,
}

/// Writes the name that the API and the log use.
impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The part of a broadcast for one Page; the unit that a worker claims.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The broadcast that the job is a part of.
    pub broadcast_id: BroadcastId,
    /// The Page that sends. An import is stored with another attribute, which keeps it out of the indexes of a Page's jobs.
    #[serde(alias = "import_page_id")]
    pub page_id: PageId,
    /// The status as of the last write.
    pub status: JobStatus,
    /// The reason why the job is halted, waits for the end of its quiet hours, or has contacts that its drain could not count;
    /// `None` otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Contacts accepted for this Page; those found so far while an audience is resolved.
    pub contacts: u64,
    /// The resolution of the audience, as far as it has come; `None` once every contact of the job is in the backlog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolving: Option<Resolving>,
    /// Contacts of the Page that the resolution has looked at.
    #[serde(default)]
    pub considered: u64,
    /// Those of them that the audience has, and that have opted out.
    #[serde(default)]
    pub opted_out: u64,
    /// The name under which the segments of the job were written.
    pub snapshot: String,
    /// The number of segments in the backlog. While an audience is resolved it is one more than there are: a worker of a version
    /// that knows no audiences halts the job at the segment that is missing, instead of completing it without its contacts.
    pub segments: u32,
    /// The number of segments that the job was accepted with; later segments hold requeued contacts.
    pub first_segments: u32,
    /// The progress in the backlog: segment × 1,000 + index in the segment.
    pub cursor: u64,
    /// The fencing number of the claim; grows by 1 with each claim.
    pub epoch: u64,
    /// Claims since the cursor last moved or the job was handed over.
    pub stalls: u32,
    /// The id of the claim that set the job to `processing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_id: Option<String>,
    /// The end of the lease of that claim; after it, another worker may claim the job.
    #[serde(default, with = "millisecond::optional", skip_serializing_if = "Option::is_none")]
    pub lease_until: Option<Timestamp>,
    /// The time before which a `scheduled` or `waiting` job is not claimed.
    #[serde(default, with = "millisecond::optional", skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// The time at which `scheduled` wakes the job if nothing has happened by then: until it has ended, and that is announced.
    #[serde(default, with = "millisecond::optional", skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<Timestamp>,
    /// The wake-ups that `scheduled` has sent while the job was `queued`, since its last claim.
    #[serde(default)]
    pub wake_ups: u32,
    /// The time at which API Gateway received the request.
    #[serde(with = "millisecond::required")]
    pub created_at: Timestamp,
    /// The end of retention. After it the segments may be deleted, so the job cannot be claimed.
    #[serde(with = "millisecond::required")]
    pub retained_until: Timestamp,
    /// The time until which a worker may have sent, in milliseconds since the epoch: that of completion, or a time later than any
    /// [`Timestamp`] if the job has been claimed and is not completed; `None` if it has never been claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_send_until: Option<i64>,
    /// Outcomes of the contacts before the cursor, and of the rows marked `counted`.
    #[serde(flatten)]
    pub outcomes: OutcomeCounts,
    /// The same outcomes by reason.
    #[serde(flatten)]
    pub reasons: Reasons,
    /// Contacts that were settled already when a worker tried to reserve them.
    #[serde(default)]
    pub prevented_reservation: u64,
    /// Claims that a live lease refused.
    #[serde(default)]
    pub prevented_claim: u64,
    /// Consecutive failures by kind.
    #[serde(default)]
    pub breakers: Breakers,
    /// The urgency of the broadcast.
    #[serde(default)]
    pub priority: Priority,
    /// True while [`JobCommand::Resend`] waits to be carried out, for the contacts in doubt whose delivery rows are marked for
    /// it. They are marked one by one: a command for all rows in doubt would also resend those whose last lookup is still to
    /// come, and which Messenger may have accepted.
    #[serde(rename = "resend_wish", default, skip_serializing_if = "std::ops::Not::not")]
    pub resend_command: bool,
    /// The command to stop that waits to be carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopCommand>,
    /// The command to send again that waits to be carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryCommand>,
    /// True if a message may have arrived that is recorded as `failed` or `skipped`: such contacts are not sent to again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_late_echoes: bool,
    /// The time after which nothing is sent any more; the same as that of the broadcast.
    #[serde(
        rename = "not_after",
        default,
        with = "millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires_at: Option<Timestamp>,
    /// The progress, if the job is an import of the Page's contacts and no part of a broadcast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<ImportProgress>,
}

/// The resolution of a job's audience, as of its last write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolving {
    /// The contact up to which the Page's contacts have been looked at, in the order of their ids; `None` if none has been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ContactId>,
    /// The time at which the resolution began. Hours of activity are counted back from it, whichever worker goes on.
    #[serde(default, with = "millisecond::optional", skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// True if the job was cancelled or has expired before the end: nobody joins any more, and not all contacts are known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
}

impl Job {
    /// Returns true if contacts of an audience are still to join the backlog. None does if a worker of an earlier version has
    /// requeued contacts behind the segment that is missing.
    pub fn is_resolving(&self) -> bool {
        let goes_on = self.resolving.as_ref().is_some_and(|resolving| !resolving.given_up);
        goes_on && self.segments == self.first_segments + 1
    }

    /// Returns true if nothing is sent any more.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    /// Returns a time at which the job goes on, or that of its end if it is earlier.
    pub fn not_after_its_end(&self, time: Timestamp) -> Timestamp {
        self.expires_at.map_or(time, |expires_at| time.min(expires_at))
    }

    /// Returns the identity of the job.
    pub fn id(&self) -> JobId {
        JobId {
            broadcast_id: self.broadcast_id.clone(),
            page_id: self.page_id.clone(),
        }
    }

    /// Returns whether the job has few contacts. It may take slots of its Page further ahead than others, so that it does not
    /// wait for them.
    pub fn is_small(&self) -> bool {
        self.contacts <= SMALL_JOB
    }

    /// Returns whether the job is sent beside the others of its Page, instead of one after the other.
    pub fn is_express(&self) -> bool {
        self.is_small() || self.priority == Priority::High
    }

    /// Returns the group of the job's wake-ups. The queue delivers those of one group one after the other: of large jobs those
    /// of one Page, of any other job its own. A drain and a resolution send nothing, so they do not wait for a run of the Page.
    pub fn wake_up_group(&self) -> String {
        match self.is_express() || self.is_resolving() || self.stop == Some(StopCommand::Cancel) {
            true => self.id().to_string(),
            false => self.page_id.to_string(),
        }
    }

    /// Returns the command that waits to be carried out, if there is one.
    pub fn command(&self) -> Option<JobCommand> {
        match self.stop {
            Some(StopCommand::Pause) => Some(JobCommand::Pause),
            Some(StopCommand::Cancel) => Some(JobCommand::Cancel),
            None if self.retry.is_some() => Some(JobCommand::Retry),
            None => self.resend_command.then_some(JobCommand::Resend),
        }
    }

    /// Returns the number of contacts that a retry is for, or `None` if the totals of the job do not tell: an earlier version
    /// counted by no reason, there are too many reasons, or a message that was refused may have arrived.
    pub fn count_for(&self, retry: &RetryCommand) -> Option<u64> {
        let known = &self.outcomes;
        let mut count = 0;
        for (status, contacts) in [
            (NotSent::Failed, known.failed),
            (NotSent::Skipped, known.skipped),
            (NotSent::InDoubt, known.in_doubt),
        ] {
            if contacts == 0 || !retry.statuses.contains(&status) {
                continue;
            }
            if self.has_late_echoes && status != NotSent::InDoubt {
                return None;
            }
            if retry.reasons.is_empty() {
                count += contacts;
                continue;
            }
            let totals = self.reasons.totals().filter(|(of, _, _)| *of == status);
            let mut known_by_reason = 0;
            for (_, code, contacts) in totals.filter(|(_, code, _)| *code != OTHER) {
                known_by_reason += contacts;
                count += if retry.is_for(status, code) { contacts } else { 0 };
            }
            if known_by_reason != contacts {
                return None;
            }
        }
        Some(count)
    }

    /// Returns the counters of the job as of its last checkpoint.
    pub fn counters(&self) -> Counters {
        let known = &self.outcomes;
        let settled = [known.waiting, known.sent, known.failed, known.skipped, known.in_doubt];
        Counters {
            pending: settled.iter().fold(self.contacts, |left, n| left.saturating_sub(*n)),
            outcomes: known.clone(),
        }
    }
}

/// Contacts of a job by outcome; a contact that is counted in none of these is pending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct OutcomeCounts {
    /// Contacts requeued in the backlog for a later time.
    #[schema(required)]
    pub waiting: u64,
    /// Contacts for which Messenger accepted the message.
    #[schema(required)]
    pub sent: u64,
    /// Contacts for which the message cannot be sent: Messenger refused it for good, or it could not be rendered.
    #[schema(required)]
    pub failed: u64,
    /// Contacts that were deleted or opted out after acceptance.
    #[schema(required)]
    pub skipped: u64,
    /// Contacts for which Messenger may or may not have accepted the message.
    #[schema(required)]
    pub in_doubt: u64,
}

/// Accepted contacts by state; each contact is counted in exactly one of six.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// Contacts not reached yet, or in flight.
    pub pending: u64,
    /// The other five states.
    #[serde(flatten)]
    pub outcomes: OutcomeCounts,
}

impl Counters {
    /// Returns the sum of all six counters.
    pub fn total(&self) -> u64 {
        let o = &self.outcomes;
        self.pending + o.waiting + o.sent + o.failed + o.skipped + o.in_doubt
    }
}

impl std::iter::Sum for Counters {
    fn sum<I: Iterator<Item = Self>>(counters: I) -> Self {
        counters.fold(Self::default(), |sum, one| Self {
            pending: sum.pending + one.pending,
            outcomes: OutcomeCounts {
                waiting: sum.outcomes.waiting + one.outcomes.waiting,
                sent: sum.outcomes.sent + one.outcomes.sent,
                failed: sum.outcomes.failed + one.outcomes.failed,
                skipped: sum.outcomes.skipped + one.outcomes.skipped,
                in_doubt: sum.outcomes.in_doubt + one.outcomes.in_doubt,
            },
        })
    }
}
