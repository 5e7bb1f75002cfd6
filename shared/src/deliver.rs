//! One contact: reserve, send, record. What came of it goes back to the slice, which alone moves the job on.

use std::time::Duration;

use jiff::Timestamp;
use tracing::debug;

use crate::app::App;
use crate::breakers::Sign;
use crate::delivery::{Delivery, State};
use crate::job::{Broadcast, Job};
use crate::line::{Entry, Finish};
use crate::message::{Template, digest};
use crate::messenger::Messenger;
use crate::retry;
use crate::store;
use crate::store::deliveries::{Doubt, Record, Reservation, Reserve};
use crate::verdict::{SendError, Verdict};

/// What all deliveries of a slice share.
pub struct Courier<'a> {
    /// Configuration and clients.
    pub app: &'a App,
    /// The job as it was claimed.
    pub job: &'a Job,
    /// What is sent, and how.
    pub broadcast: &'a Broadcast,
    /// Its text, if it has one.
    pub template: Option<Template<'a>>,
    /// The Page's way to Messenger.
    pub messenger: Messenger,
}

/// What came of one contact.
#[derive(Debug)]
pub struct Delivered {
    /// Who it is, and where they stand in line.
    pub entry: Entry,
    /// What came of them.
    pub outcome: Outcome,
}

/// What came of one contact, for them and for all others.
#[derive(Debug)]
pub struct Outcome {
    /// What became of the contact.
    pub end: End,
    /// What it tells about the sends to come.
    pub sign: Option<Sign>,
    /// What it means for Page and job.
    pub consequence: Option<Consequence>,
}

/// Of one that concerns nobody else.
impl From<End> for Outcome {
    fn from(end: End) -> Self {
        Self {
            end,
            sign: None,
            consequence: None,
        }
    }
}

/// What became of a contact.
#[derive(Debug)]
pub enum End {
    /// The cursor may pass.
    Finished(Finish),
    /// It was settled when we came: a duplicate was prevented. The cursor may pass.
    Prevented(Finish),
    /// A checkpoint must put the row in doubt, then the cursor may pass.
    Doubt(Doubt),
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
    /// So would any, unless the Page has another token by now.
    TokenRefused(String),
}

impl Courier<'_> {
    /// Takes one contact from its place in line to its outcome.
    pub async fn deliver(&self, entry: Entry) -> Delivered {
        let outcome = self.attempt(&entry).await;
        let outcome = outcome.unwrap_or_else(|error| End::Unsettled(error).into());
        debug!(job.id = %self.job.id(), contact.id = %entry.contact_id, end = ?outcome.end, "contact worked on");
        Delivered { entry, outcome }
    }

    async fn attempt(&self, entry: &Entry) -> Result<Outcome, store::Error> {
        let (store, clock) = (&self.app.store, &self.app.clock);
        // Before the reservation: a contact who cannot be read is not in doubt.
        let text = self.text(entry).await?;
        let digest = text.as_ref().ok().and_then(Option::as_deref).map(digest);
        let reserve = store.reserve(self.job, &entry.contact_id, digest.as_deref(), clock.now());
        let reservation = match reserve.await? {
            Reserve::Granted(reservation) => reservation,
            Reserve::Refused(row) => return Ok(self.found(row, false).await?.into()),
        };
        let text = match text {
            Ok(text) => text,
            Err(state) => return Ok(self.record(reservation, state).await?.into()),
        };
        if !reservation.is_younger_than(self.app.config.messenger_timeout, clock.now()) {
            let state = again(clock.now(), "was reserved for too long");
            return Ok(self.record(reservation.uncharged(), state).await?.into());
        }
        let send = self
            .messenger
            .send(&reservation, text.as_deref(), self.broadcast);
        match send.await {
            Ok(message_id) => Ok(Outcome {
                end: self.record(reservation, State::Sent { message_id }).await?,
                sign: Some(Sign::Accepted),
                consequence: None,
            }),
            Err(error) => self.not_sent(reservation, &error).await,
        }
    }

    /// The contact's text, if the message has one, or the state of a contact who gets no message.
    async fn text(&self, entry: &Entry) -> Result<Result<Option<String>, State>, store::Error> {
        let skipped = |reason: &str| State::Skipped {
            reason: reason.to_owned(),
        };
        let Some(contact) = self.app.store.contact_to_send_to(&entry.contact_id).await? else {
            return Ok(Err(skipped("contact_deleted")));
        };
        if contact.opted_out {
            return Ok(Err(skipped("opted_out")));
        }
        let text = self
            .template
            .as_ref()
            .map(|template| template.render(&contact));
        Ok(text.transpose().map_err(|error| State::Failed {
            reason: error.to_string(),
        }))
    }

    async fn not_sent(
        &self,
        reservation: Reservation,
        error: &SendError,
    ) -> Result<Outcome, store::Error> {
        let (config, now) = (&self.app.config, self.app.clock.now());
        let reason = error.to_string();
        let (end, consequence) = match error.verdict() {
            Verdict::Later if reservation.attempt >= config.retry_attempts => {
                let reason = format!("{reason}, {} times", reservation.attempt);
                (
                    self.record(reservation, State::Failed { reason }).await?,
                    None,
                )
            }
            Verdict::Later => {
                let wait = retry::backoff(config.retry_base, reservation.attempt, rand::random());
                let due = retry::due_after(now, wait, config.retry_base);
                (self.record(reservation, again(due, &reason)).await?, None)
            }
            Verdict::RateLimited(regain_after) => (
                self.record(reservation.uncharged(), again(now, &reason))
                    .await?,
                Some(Consequence::RateLimited(regain_after)),
            ),
            Verdict::Never => (
                self.record(reservation, State::Failed { reason }).await?,
                None,
            ),
            Verdict::Stop => {
                let end = self.record(reservation.uncharged(), again(now, &reason));
                let consequence = match error.is_of_token() {
                    true => Consequence::TokenRefused(reason),
                    false => Consequence::Stop(reason),
                };
                (end.await?, Some(consequence))
            }
            Verdict::InDoubt => (End::Doubt(reservation.into_doubt(reason)), None),
        };
        Ok(Outcome {
            end,
            sign: Some(error.sign()),
            consequence,
        })
    }

    async fn record(&self, reservation: Reservation, state: State) -> Result<End, store::Error> {
        // The attempt before may have arrived, whatever became of this one.
        if let (true, State::Failed { reason } | State::Skipped { reason }) =
            (reservation.earlier_doubt, &state)
        {
            let reason = format!("{reason}; an earlier attempt may have arrived");
            return Ok(End::Doubt(reservation.into_doubt(reason)));
        }
        let record = self
            .app
            .store
            .record(&reservation, &state, self.app.clock.now());
        match record.await? {
            Record::Written => Ok(finish(&state).map_or(End::Stale, End::Finished)),
            Record::WrittenLate => Ok(End::Finished(Finish::Counted)),
            Record::Refused(row) => {
                let ours = reservation.is_of(&row);
                self.found(*row, ours).await
            }
        }
    }

    /// What a row that refused us says to do. `ours`: it stands under a reservation that we made in this slice, so whoever
    /// settled it knew of our send, and prevented no duplicate.
    pub async fn found(&self, row: Delivery, ours: bool) -> Result<End, store::Error> {
        if row.epoch > self.job.epoch
            && matches!(row.state, State::Reserved | State::Waiting { .. })
        {
            return Ok(End::Stale);
        }
        let settled = |finish| match ours {
            true => End::Finished(finish),
            false => End::Prevented(finish),
        };
        match &row.state {
            // Its sender is gone: it may have sent, and nobody will tell. It is never free again by time.
            State::Reserved => Ok(End::Doubt(Doubt {
                token: row.token,
                reserved_at: row.reserved_at,
                reason: "its sender was lost".to_owned(),
                ours,
            })),
            State::Waiting { not_before, .. } if row.epoch < self.job.epoch => {
                match self.app.store.stamp(self.job, &row).await? {
                    None => Ok(End::Finished(Finish::Again(*not_before))),
                    Some(changed) => Box::pin(self.found(changed, ours)).await,
                }
            }
            State::Waiting { not_before, .. } => Ok(End::Finished(Finish::Again(*not_before))),
            State::InDoubt { .. } => Ok(End::Finished(Finish::Counted)),
            State::Sent { .. } | State::Failed { .. } | State::Skipped { .. } if row.counted => {
                Ok(settled(Finish::Counted))
            }
            state => Ok(finish(state).map_or(End::Stale, settled)),
        }
    }
}

/// Back in line, due at this time.
fn again(not_before: Timestamp, reason: &str) -> State {
    State::Waiting {
        not_before,
        reason: reason.to_owned(),
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
