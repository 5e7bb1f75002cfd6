//! Job commands: what an operator or a policy wants of a job. Each is stored in the job, and carried out by the worker that holds
//! the claim, or by the next claim.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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

/// A command for a job that is not carried out yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobCommand {
    /// The worker that has the job is to stop, until the job is resumed.
    Pause,
    /// Every contact that is left is to be settled without sending.
    Cancel,
    /// Messages are to be sent again to contacts in doubt, by the policy for deliveries in doubt.
    Resend,
}
