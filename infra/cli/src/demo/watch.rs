//! The observation of the demo's running broadcast, during which processes are killed and a token is revoked.

use std::time::{Duration, Instant};

use client::api::broadcasts::BroadcastReport;
use client::{Client, ControlOptions};
use local::sandbox::Sandbox;
use local::stack::Stack;
use shared::domain::ids::BroadcastId;
use shared::domain::job::JobStatus;
use tokio::time;

use super::faults::REVOKED_PAGE;
use super::progress::Progress;

/// The limit for the broadcast; after it the demo reports the broadcast as it is.
const COMPLETED_WITHIN: Duration = Duration::from_secs(120);
/// The limit for settling what is in doubt, counted from the broadcast's completion.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// The shares of the contacts, in percent, at which a process is killed: as soon as that share has received the
/// message.
const KILLS_AT_PERCENT: [usize; 2] = [20, 60];
/// The shares at which a process is killed in a demo with faults.
const KILLS_WITH_FAULTS_AT_PERCENT: [usize; 4] = [15, 30, 50, 65];
/// The share of the contacts, in percent, at which one Page's access token is revoked.
const REVOCATION_AT_PERCENT: usize = 20;

/// A running broadcast.
pub struct Watch<'a> {
    stack: &'a Stack,
    api: &'a Client,
    sandbox: &'a Sandbox,
    broadcast_id: &'a BroadcastId,
    contacts: usize,
    progress: Progress,
    /// The ids of the killed processes.
    pub killed: Vec<u32>,
}

impl<'a> Watch<'a> {
    /// Returns a watch of a broadcast that has just been accepted.
    pub fn new(
        stack: &'a Stack,
        api: &'a Client,
        sandbox: &'a Sandbox,
        broadcast_id: &'a BroadcastId,
        contacts: usize,
    ) -> Watch<'a> {
        Watch {
            stack,
            api,
            sandbox,
            broadcast_id,
            contacts,
            progress: Progress::new(contacts),
            killed: Vec::new(),
        }
    }

    /// Shows the progress until the broadcast is completed or takes too long. Kills processes meanwhile, and with
    /// `faults` revokes a token and resumes the job that this halts.
    ///
    /// # Errors
    ///
    /// Fails if a call of the API fails.
    pub async fn until_completed(&mut self, faults: bool) -> Result<(), client::Error> {
        let kills_at: &[usize] = match faults {
            true => &KILLS_WITH_FAULTS_AT_PERCENT,
            false => &KILLS_AT_PERCENT,
        };
        let mut to_revoke = faults;
        let give_up = Instant::now() + COMPLETED_WITHIN;
        while Instant::now() < give_up {
            let received = self.sandbox.received_count();
            self.progress.show(received);
            let next_kill = kills_at.get(self.killed.len());
            if next_kill.is_some_and(|percent| received * 100 >= self.contacts * percent)
                && let Some(pid) = self.stack.process_job().kill_one_busy().await
            {
                let killed = format!("Killed process {pid} in the middle of a job (kill -9)");
                self.progress.print(&killed);
                self.killed.push(pid);
            }
            if to_revoke && received * 100 >= self.contacts * REVOCATION_AT_PERCENT {
                to_revoke = !self.sandbox.revoke_token(REVOKED_PAGE);
                self.progress.print("Revoked the access token of one Page");
            }
            let broadcast = self.api.broadcast(self.broadcast_id).await?;
            let is_revoked = faults && !to_revoke;
            if is_revoked && (has_halted_job(&broadcast) || broadcast.summary.status == JobStatus::Completed) {
                self.sandbox.restore_token(REVOKED_PAGE);
            }
            if has_halted_job(&broadcast) {
                let all = ControlOptions::default();
                self.api.resume(self.broadcast_id, &all).await?;
                self.progress
                    .print("The Page's job was halted: restored the token and resumed the job");
            }
            if broadcast.summary.status == JobStatus::Completed {
                self.progress.show(self.sandbox.received_count());
                break;
            }
            time::sleep(WATCH_EVERY).await;
        }
        self.progress.finish();
        Ok(())
    }

    /// Waits until each message that a contact received is reported as sent, or until lookups can no longer change
    /// that.
    ///
    /// # Errors
    ///
    /// Fails if a call of the API fails.
    pub async fn until_settled(&self) -> Result<(), client::Error> {
        println!("Settling deliveries in doubt, by echoes and lookups");
        let give_up = Instant::now() + SETTLED_WITHIN;
        while Instant::now() < give_up {
            let sent = self
                .api
                .broadcast(self.broadcast_id)
                .await?
                .summary
                .counters
                .outcomes
                .sent;
            if sent == self.sandbox.received_count() as u64 {
                break;
            }
            time::sleep(WATCH_EVERY).await;
        }
        Ok(())
    }
}

/// Returns true if a job waits for the operator.
fn has_halted_job(broadcast: &BroadcastReport) -> bool {
    broadcast.jobs.iter().any(|job| job.status == JobStatus::Halted)
}
