//! The orders for a broadcast: what an operator can do with it in its present state. The API decides again when an order is given.

use axum::http::StatusCode;
use client::api::broadcasts::{BroadcastReport, JobReport};
use client::api::history::HistoryReport;
use shared::domain::command::JobCommand;
use shared::domain::history::Action;
use shared::domain::job::JobStatus;

use crate::failure::Failure;
use crate::show;

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing more is sent until the broadcast is resumed.
    Pause,
    /// Sending goes on.
    Resume,
    /// The broadcast may be sent.
    Approve,
    /// Messages are sent again to some contacts.
    Retry,
    /// The broadcast is sent at another time, or says something else.
    Change,
    /// Nothing more is sent for good.
    Cancel,
}

/// The orders, as a page shows them.
const ALL: [Order; 6] = [
    Order::Approve,
    Order::Resume,
    Order::Pause,
    Order::Retry,
    Order::Change,
    Order::Cancel,
];

impl Order {
    /// Parses the last part of a path.
    pub fn parse(path: &str) -> Option<Self> {
        ALL.into_iter().find(|order| order.path() == path)
    }

    /// Returns the last part of the path of its form.
    pub fn path(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
            Self::Retry => "retry",
            Self::Change => "change",
            Self::Cancel => "cancel",
        }
    }

    /// Returns the word on its button.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pause => "Pause",
            Self::Resume => "Resume",
            Self::Approve => "Approve",
            Self::Retry => "Send again",
            Self::Change => "Change",
            Self::Cancel => "Cancel",
        }
    }

    /// Returns the classes of its button.
    pub fn class(self) -> &'static str {
        match self {
            Self::Approve | Self::Resume => "button primary",
            Self::Cancel => "button danger",
            Self::Pause | Self::Retry | Self::Change => "button",
        }
    }

    /// Returns the action under which the history keeps it.
    pub fn action(self) -> Action {
        match self {
            Self::Pause => Action::Pause,
            Self::Resume => Action::Resume,
            Self::Approve => Action::Approve,
            Self::Retry => Action::Retry,
            Self::Change => Action::Change,
            Self::Cancel => Action::Cancel,
        }
    }

    /// Returns true if a job can obey.
    fn suits(self, job: &JobReport) -> bool {
        let is_stopping = matches!(job.command, Some(JobCommand::Pause | JobCommand::Cancel));
        match (self, job.status) {
            (Self::Resume, _) if job.command == Some(JobCommand::Pause) => true,
            (Self::Pause, JobStatus::Processing | JobStatus::Queued | JobStatus::Waiting | JobStatus::Scheduled) => {
                !is_stopping
            }
            (Self::Resume, JobStatus::Paused | JobStatus::Halted) | (Self::Approve, JobStatus::AwaitingApproval) => {
                true
            }
            (Self::Change, status) => matches!(
                status,
                JobStatus::Scheduled | JobStatus::AwaitingApproval | JobStatus::Paused
            ),
            (Self::Retry, JobStatus::Completed) => !job.reasons.is_empty(),
            (Self::Cancel, JobStatus::Cancelled | JobStatus::Completed) => false,
            (Self::Cancel, _) => job.command != Some(JobCommand::Cancel),
            (Self::Pause | Self::Resume | Self::Approve | Self::Retry, _) => false,
        }
    }
}

/// Returns the orders that suit a broadcast.
pub fn orders(report: &BroadcastReport) -> Vec<Order> {
    let jobs = &report.jobs;
    let counters = &report.summary.counters;
    let is_over = |job: &JobReport| matches!(job.status, JobStatus::Completed | JobStatus::Cancelled);
    let suits = |order: &Order| match order {
        // A retry is of all jobs that are not cancelled, and a change of all.
        Order::Retry => jobs.iter().all(is_over) && jobs.iter().any(|job| order.suits(job)),
        Order::Change => counters.pending == counters.total() && jobs.iter().all(|job| order.suits(job)),
        Order::Pause | Order::Resume | Order::Approve | Order::Cancel => jobs.iter().any(|job| order.suits(job)),
    };
    ALL.into_iter().filter(suits).collect()
}

/// Returns the orders that suit one of several jobs, and can be limited to it.
pub fn orders_of(job: &JobReport) -> Vec<Order> {
    let limited = [Order::Resume, Order::Pause, Order::Retry, Order::Cancel];
    limited.into_iter().filter(|order| order.suits(job)).collect()
}

/// Returns the mark of the state in which a form shows a broadcast: the time of its last order.
pub fn mark(report: &BroadcastReport) -> String {
    report
        .history
        .last()
        .map(|last| last.time.to_string())
        .unwrap_or_default()
}

/// Returns the order that was given after a form with this mark was shown.
pub fn given_since<'a>(report: &'a BroadcastReport, mark: &str) -> Option<&'a HistoryReport> {
    report.history.last().filter(|last| last.time.to_string() != mark)
}

/// An order of the history in words.
pub fn told(entry: &HistoryReport) -> String {
    let words = match entry.action {
        Action::Pause => "Paused",
        Action::Resume => "Resumed",
        Action::Cancel => "Cancelled",
        Action::Retry => "Sent again",
        Action::Change => "Changed",
        Action::Approve => "Approved",
    };
    let page = entry.page_id.as_ref().map(|page| format!(" on {}", page.as_str()));
    let by = entry.caller.as_ref().map(|caller| format!(" by {caller}"));
    let contacts = show::counted(&entry.contacts, "contact");
    format!(
        "{words}{}{}: {contacts}",
        page.unwrap_or_default(),
        by.unwrap_or_default()
    )
}

/// Returns the failure of a form for a broadcast that is not any more as the form showed it.
pub fn outdated(given: &HistoryReport) -> Failure {
    let words = format!("Another order was given since this form was opened. {}.", told(given));
    Failure::new(StatusCode::CONFLICT, words)
        .and("Nothing was changed by this form: look at the broadcast as it is now, and decide again.")
}
