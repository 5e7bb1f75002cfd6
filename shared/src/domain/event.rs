//! Events: what other programs are told about a broadcast. They are thin: the report has the numbers.
//!
//! The id of an event is a digest of what happened, so that whoever announces it again announces the same one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::digest::digest;
use crate::domain::ids::{BroadcastId, JobId, PageId};
use crate::domain::job::{Job, JobStatus};

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum EventType {
    /// Every job of the broadcast is completed.
    #[serde(rename = "broadcast.completed")]
    Completed,
    /// Every job of the broadcast has ended, and one or more were cancelled.
    #[serde(rename = "broadcast.cancelled")]
    Cancelled,
    /// A job was halted: it goes on when it is resumed.
    #[serde(rename = "broadcast.halted")]
    Halted,
    /// The last lookup has left a delivery of a job in doubt. Told once for each run of the job that sent such deliveries.
    #[serde(rename = "broadcast.in_doubt")]
    InDoubt,
}

/// The subject of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventData {
    /// The broadcast: `GET /v1/broadcasts/{id}` reports on it.
    pub broadcast_id: BroadcastId,
    /// The Page of the job; empty if the event is about the whole broadcast.
    #[schema(example = "page-1")]
    pub page_id: String,
}

/// Something that happened to a broadcast. Every value is a string, so that a template without code makes the same JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BroadcastEvent {
    /// The identity of the event. One that comes again has the same.
    #[schema(example = "5f0c1d9e0b7a4c6f8d2e3a4b5c6d7e8f")]
    pub id: String,
    /// The kind of event.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// The time at which it was announced: a moment after it happened, or some minutes if a process died in between.
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
    /// The subject.
    pub data: EventData,
}

impl BroadcastEvent {
    /// Returns the event of a job that has ended, as the jobs of its broadcast are now; `None` if there is nothing to tell, since
    /// other jobs go on or are halted. Of two jobs that end at once both see the end of the broadcast, and make the same event.
    pub fn of_end(ended: &Job, jobs: &[Job], now: Timestamp) -> Option<Self> {
        let has_ended = |job: &Job| matches!(job.status, JobStatus::Completed | JobStatus::Cancelled);
        if ended.status == JobStatus::Halted {
            let run = [format!("{}/{}", ended.page_id, ended.epoch)];
            return Some(Self::new(
                EventType::Halted,
                &ended.broadcast_id,
                Some(&ended.page_id),
                &run,
                now,
            ));
        }
        if !jobs.iter().all(has_ended) {
            return None;
        }
        let kind = match jobs.iter().any(|job| job.status == JobStatus::Cancelled) {
            true => EventType::Cancelled,
            false => EventType::Completed,
        };
        // In the order of the jobs' keys.
        let runs: Vec<_> = jobs
            .iter()
            .map(|job| format!("{}/{}", job.page_id, job.epoch))
            .collect();
        Some(Self::new(kind, &ended.broadcast_id, None, &runs, now))
    }

    /// Returns the event of a delivery that the last lookup leaves in doubt, of the run with this epoch.
    pub fn of_doubt(job: &JobId, epoch: u64, now: Timestamp) -> Self {
        let run = [format!("{}/{epoch}", job.page_id)];
        Self::new(EventType::InDoubt, &job.broadcast_id, Some(&job.page_id), &run, now)
    }

    fn new(
        kind: EventType,
        broadcast_id: &BroadcastId,
        page_id: Option<&PageId>,
        runs: &[String],
        now: Timestamp,
    ) -> Self {
        Self {
            id: digest(&format!("{kind:?} {broadcast_id} {}", runs.join(" "))),
            kind,
            timestamp: now,
            data: EventData {
                broadcast_id: broadcast_id.clone(),
                page_id: page_id.map(PageId::to_string).unwrap_or_default(),
            },
        }
    }
}

impl Job {
    /// Returns true if the job has ended, or is halted, and this is still to be announced: it keeps its wake-up until then.
    pub fn is_unannounced(&self) -> bool {
        let is_over = matches!(
            self.status,
            JobStatus::Halted | JobStatus::Cancelled | JobStatus::Completed
        );
        is_over && self.wake_at.is_some()
    }
}
