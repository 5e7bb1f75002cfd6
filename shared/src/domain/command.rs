//! Job commands: what an operator or a policy wants of a job. Each is stored in the job, and carried out by the worker that holds
//! the claim, or by the next claim.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::reasons::{NotSent, is_of};

/// A command to stop sending. It is stored beside the status while a worker may have the job; of the two, cancel prevails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCommand {
    /// The worker starts nothing more, and hands the job over as `paused`. A resume takes the command back.
    Pause,
    /// A drain settles every contact that is left without sending. The command is never taken back.
    Cancel,
}

/// Writes the name that the table and the log use.
impl fmt::Display for StopCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A command to send again to contacts that are not known to have got the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryCommand {
    /// The statuses of the contacts.
    pub statuses: Vec<NotSent>,
    /// The codes of their reasons; any if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

impl RetryCommand {
    /// Returns `true` if the command is for contacts with this status and this code of the reason.
    pub fn is_for(&self, status: NotSent, code: &str) -> bool {
        let is_named = self.reasons.is_empty() || self.reasons.iter().any(|wanted| is_of(code, wanted));
        is_named && self.statuses.contains(&status)
    }
}

/// Writes the statuses and the codes in words.
impl fmt::Display for RetryCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<_> = self.statuses.iter().map(NotSent::to_string).collect();
        f.write_str(&statuses.join(", "))?;
        match self.reasons.is_empty() {
            true => Ok(()),
            false => write!(f, "; reasons: {}", self.reasons.join(", ")),
        }
    }
}

/// A command for a job that is not carried out yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobCommand {
    /// The worker that has the job is to stop, until the job is resumed.
    Pause,
    /// Every contact that is left is to be settled without sending.
    Cancel,
    /// Messages are to be sent again to contacts that the operator has named by status and reason.
    Retry,
    /// Messages are to be sent again to contacts in doubt, by the policy for deliveries in doubt.
    Resend,
}
