//! One contact: reserve, send, record. What came of it goes back to the slice, which alone moves the job on.

use std::time::Duration;

use tracing::debug;

use crate::app::App;
use crate::breakers::Sign;
use crate::delivery::{Delivery, State};
use crate::job::{Broadcast, Job};
use crate::line::{Entry, Finish};
use crate::message::Template;
use crate::messenger::Messenger;
use crate::retry;
use crate::store;
use crate::store::deliveries::{Record, Reservation, Reserve};
use crate::verdict::{SendError, Verdict};

/// What all deliveries of a slice share.
pub struct Courier<'a> {
    /// Configuration and clients.
    pub app: &'a App,
    /// The job as it was claimed.
    pub job: &'a Job,
    /// What is sent, and how.
    pub broadcast: &'a Broadcast,
    /// Its text.
    pub template: Template<'a>,
    /// The Page's way to Messenger.
    pub messenger: Messenger,
}

/// What came of one contact.
#[derive(Debug)]
pub struct Delivered {
    /// Where the contact stands in line, and who it is.
    pub entry: Entry,
    /// What became of the contact.
    pub end: End,
    /// What it tells about the sends to come.
    pub sign: Option<Sign>,
    /// What it means for Page and job.
    pub consequence: Option<Consequence>,
}

/// What became of a contact.
#[derive(Debug)]
pub enum End {
    /// The cursor may pass.
    Finished(Finish),
    /// It was settled when we came: a duplicate was prevented. The cursor may pass.
    Prevented(Finish),
    /// A checkpoint must put the row in doubt while it is reserved under this token, then the cursor may pass.
    Doubt {
        /// The reservation's.
        token: String,
        /// How the answer was lost.
        reason: String,
    },
    /// A newer worker has the job.
    Stale,
    /// Whether we had, or have, the right to write cannot be known; the next claim finds the truth in the row.
    Unsettled(store::Error),
}

/// What one contact means for all others.
#[derive(Debug)]
pub enum Consequence {
    /// The Page has reached its limit, for so long if Messenger said so.
    RateLimited(Option<Duration>),
    /// The message would fail for everybody.
    Stop(String),
}

impl Courier<'_> {
    /// Takes one contact from its place in line to its outcome.
    pub async fn deliver(&self, entry: Entry) -> Delivered {
        let (end, sign, consequence) = match self.attempt(&entry).await {
            Ok(outcome) => outcome,
            Err(error) => (End::Unsettled(error), None, None),
        };
        debug!(job.id = %self.job.id(), contact.id = %entry.contact_id, ?end, "contact worked on");
        Delivered {
            entry,
            end,
            sign,
            consequence,
        }
    }

    async fn attempt(
        &self,
        entry: &Entry,
    ) -> Result<(End, Option<Sign>, Option<Consequence>), store::Error> {
        let app = self.app;
        // Before the reservation: a contact who cannot be read is not in doubt.
        let text = self.text(entry).await?;
        let reserved = app
            .store
            .reserve(self.job, &entry.contact_id, app.clock.now());
        let reservation = match reserved.await? {
            Reserve::Granted(reservation) => reservation,
            Reserve::Refused(row) => return Ok((self.found(row).await?, None, None)),
        };
        let text = match text {
            Ok(text) => text,
            Err(state) => return Ok((self.record(reservation, state).await?, None, None)),
        };
        if !reservation.is_younger_than(app.config.messenger_timeout, app.clock.now()) {
            let state = State::Waiting {
                not_before: app.clock.now(),
                reason: "was reserved for too long".to_owned(),
            };
            return Ok((
                self.record(reservation.uncharged(), state).await?,
                None,
                None,
            ));
        }
        match self
            .messenger
            .send(&reservation, &text, &self.broadcast.envelope)
            .await
        {
            Ok(message_id) => {
                let end = self.record(reservation, State::Sent { message_id }).await?;
                Ok((end, Some(Sign::Accepted), None))
            }
            Err(error) => {
                let sign = error.sign();
                let (end, consequence) = self.not_sent(reservation, error).await?;
                Ok((end, Some(sign), consequence))
            }
        }
    }

    /// The contact's text, or the state of a contact who gets none.
    async fn text(&self, entry: &Entry) -> Result<Result<String, State>, store::Error> {
        let skipped = |reason: &str| State::Skipped {
            reason: reason.to_owned(),
        };
        let Some(contact) = self.app.store.contact_to_send_to(&entry.contact_id).await? else {
            return Ok(Err(skipped("contact_deleted")));
        };
        if contact.opted_out {
            return Ok(Err(skipped("opted_out")));
        }
        let text = self.template.render(&contact);
        Ok(text.map_err(|error| State::Failed {
            reason: error.to_string(),
        }))
    }

    async fn not_sent(
        &self,
        reservation: Reservation,
        error: SendError,
    ) -> Result<(End, Option<Consequence>), store::Error> {
        let config = &self.app.config;
        let now = self.app.clock.now();
        let reason = error.to_string();
        match error.verdict() {
            Verdict::Later if reservation.attempt >= config.retry_attempts => {
                let attempts = reservation.attempt;
                let state = State::Failed {
                    reason: format!("{reason}, {attempts} times"),
                };
                Ok((self.record(reservation, state).await?, None))
            }
            Verdict::Later => {
                let wait = retry::backoff(config.retry_base, reservation.attempt, rand::random());
                let not_before = retry::due_after(now, wait, config.retry_base);
                Ok((
                    self.record(reservation, State::Waiting { not_before, reason })
                        .await?,
                    None,
                ))
            }
            Verdict::RateLimited(regain_after) => {
                let state = State::Waiting {
                    not_before: now,
                    reason,
                };
                let end = self.record(reservation.uncharged(), state).await?;
                Ok((end, Some(Consequence::RateLimited(regain_after))))
            }
            Verdict::Never => Ok((
                self.record(reservation, State::Failed { reason }).await?,
                None,
            )),
            Verdict::Stop => {
                let state = State::Waiting {
                    not_before: now,
                    reason: reason.clone(),
                };
                let end = self.record(reservation.uncharged(), state).await?;
                Ok((end, Some(Consequence::Stop(reason))))
            }
            Verdict::InDoubt => {
                let token = reservation.into_token();
                Ok((End::Doubt { token, reason }, None))
            }
        }
    }

    async fn record(&self, reservation: Reservation, state: State) -> Result<End, store::Error> {
        match self
            .app
            .store
            .record(reservation, &state, self.app.clock.now())
            .await?
        {
            Record::Written => Ok(finish(&state).map_or(End::Stale, End::Finished)),
            Record::WrittenLate => Ok(End::Finished(Finish::Counted)),
            Record::Refused(row) => self.found(row).await,
        }
    }

    /// What a row that refused us says to do.
    pub async fn found(&self, row: Delivery) -> Result<End, store::Error> {
        if row.epoch > self.job.epoch
            && matches!(row.state, State::Reserved | State::Waiting { .. })
        {
            return Ok(End::Stale);
        }
        match &row.state {
            // Its sender is gone: it may have sent, and nobody will tell. It is never free again by time.
            State::Reserved => Ok(End::Doubt {
                token: row.token,
                reason: "its sender was lost".to_owned(),
            }),
            State::Waiting { not_before, .. } if row.epoch < self.job.epoch => {
                match self.app.store.stamp(self.job, &row).await? {
                    None => Ok(End::Finished(Finish::Again(*not_before))),
                    Some(changed) => Box::pin(self.found(changed)).await,
                }
            }
            State::Waiting { not_before, .. } => Ok(End::Finished(Finish::Again(*not_before))),
            State::InDoubt { .. } => Ok(End::Finished(Finish::Counted)),
            State::Sent { .. } | State::Failed { .. } | State::Skipped { .. } if row.counted => {
                Ok(End::Prevented(Finish::Counted))
            }
            settled => Ok(finish(settled).map_or(End::Stale, End::Prevented)),
        }
    }
}

/// What a recorded state means for the cursor; nothing for states that no record leads to.
fn finish(state: &State) -> Option<Finish> {
    match state {
        State::Sent { .. } => Some(Finish::Sent),
        State::Failed { .. } => Some(Finish::Failed),
        State::Skipped { .. } => Some(Finish::Skipped),
        State::Waiting { not_before, .. } => Some(Finish::Again(*not_before)),
        State::Reserved | State::InDoubt { .. } => None,
    }
}
