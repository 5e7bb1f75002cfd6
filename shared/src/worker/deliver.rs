//! The delivery to one contact: reserve, send, record. The result goes back to the run, which alone moves the job on.

use std::time::Duration;

use jiff::Timestamp;
use tracing::{Instrument, debug, warn};

use crate::app::App;
use crate::domain::backlog::{Entry, Finish};
use crate::domain::breakers::Signal;
use crate::domain::contact::{Contact, LastBroadcast};
use crate::domain::delivery::{Delivery, Doubt, Reservation, State, Status};
use crate::domain::digest::{digest, with_line_feeds};
use crate::domain::job::{Broadcast, Job};
use crate::domain::reasons::code_of;
use crate::domain::retry;
use crate::domain::schedule::EXPIRED;
use crate::domain::template::Template;
use crate::domain::window::{self, OutsideWindow};
use crate::messenger::MessengerClient;
use crate::messenger::errors::{SendError, Verdict};
use crate::runtime::telemetry::delivery_span;
use crate::store;
use crate::store::contacts::Marked;
use crate::store::deliveries::{Reserve, RowChange};
use crate::store::transactions::Record;
use crate::worker::profiles::Profiles;
use crate::worker::read_ahead::ReadContact;
use crate::worker::spacing::Spacing;

/// The reason of a contact that another broadcast was sent to a short while before.
const TOO_SOON: &str = "too_soon";

/// The sender of one run: everything that its deliveries share.
pub struct Sender<'a> {
    /// The configuration and the clients.
    pub app: &'a App,
    /// The job as it was claimed.
    pub job: &'a Job,
    /// The broadcast: the message and its envelope.
    pub broadcast: &'a Broadcast,
    /// The compiled text of the message, if it has a text.
    pub template: Option<Template<'a>>,
    /// The Page's Messenger client.
    pub messenger: MessengerClient,
    /// The profiles that the text needs.
    pub profiles: Profiles,
    /// The distance between the sends.
    pub spacing: Spacing,
}

/// The result of the delivery to the contact of an entry.
#[derive(Debug)]
pub struct Delivered {
    /// The entry.
    pub entry: Entry,
    /// The attempt that was made for it.
    pub attempt: Attempt,
}

/// The result of an attempt, for its contact and for the other contacts.
#[derive(Debug)]
pub struct Attempt {
    /// The result for the contact.
    pub end: AttemptEnd,
    /// The signal about the sends to come.
    pub signal: Option<Signal>,
    /// The consequence for Page and job.
    pub consequence: Option<Consequence>,
}

/// Makes an attempt without an effect on the Page or the job.
impl From<AttemptEnd> for Attempt {
    fn from(end: AttemptEnd) -> Self {
        Self {
            end,
            signal: None,
            consequence: None,
        }
    }
}

/// The result of an attempt for its contact.
#[derive(Debug)]
pub enum AttemptEnd {
    /// The row holds the outcome, and the cursor may pass.
    Finished(Finish),
    /// The row was settled before, so that a duplicate was prevented; the cursor may pass.
    Prevented(Finish),
    /// A checkpoint must put the row in doubt; then the cursor may pass.
    Doubt(Doubt),
    /// A newer worker has claimed the job.
    Stale,
    /// The table did not answer, so that the right to write is not known; the next claim finds the truth in the row.
    Unsettled(store::Error),
}

/// The consequence of an attempt for Page and job.
#[derive(Debug)]
pub enum Consequence {
    /// The Page has reached its limit, for this time if Messenger gave one.
    RateLimited(Option<Duration>),
    /// The message would fail for every contact, for this reason.
    Stop(String),
    /// The token is refused: every message would fail, unless the Page has another token by now.
    TokenRefused(String),
}

/// The message for one contact.
enum Composed {
    /// The message is sent, with this text if it has a text.
    Message { text: Option<String> },
    /// The contact gets no message; this outcome is recorded instead.
    NoMessage(State),
}

impl Composed {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Message { text } => text.as_deref(),
            Self::NoMessage(_) => None,
        }
    }
}

impl Sender<'_> {
    /// Delivers the message to the contact of an entry, as `read` returns it, if that is due and not done yet. `alone` is `true` if
    /// Messenger refused the contact in this run with an error that concerns no other contact: then the contact fails if it is
    /// refused again.
    pub async fn deliver(
        &self,
        entry: Entry,
        read: impl Future<Output = Result<ReadContact, store::Error>>,
        alone: bool,
    ) -> Delivered {
        let span = delivery_span(&entry.contact_id);
        // Boxed, or each of the futures around it would have room for it twice.
        let attempt = Box::pin(self.attempt(&entry, read, alone));
        let attempt = attempt.instrument(span.clone()).await;
        let attempt = attempt.unwrap_or_else(|error| AttemptEnd::Unsettled(error).into());
        span.in_scope(|| debug!(end = ?attempt.end, "contact worked on"));
        Delivered { entry, attempt }
    }

    async fn attempt(
        &self,
        entry: &Entry,
        read: impl Future<Output = Result<ReadContact, store::Error>>,
        alone: bool,
    ) -> Result<Attempt, store::Error> {
        let clock = &self.app.clock;
        // The contact is read before the reservation, so that a failed read leaves no doubt. The reservation counts as being as
        // old as the read: an erasure deletes the contact and then the row that would refuse the reservation, so a worker that
        // was frozen in between must not send.
        let (mut read, mut may_ask) = (read.await?, true);
        let composed = loop {
            match self.compose(read.contact.as_deref(), may_ask) {
                // The contact is passed over only by what it is now: it may have been imported, or have written, a moment ago.
                Some(Composed::NoMessage(_)) if !read.is_current => {}
                Some(composed) => break composed,
                None => {
                    let ask = self.profiles.fill_in(self.app, &self.messenger, &entry.contact_id);
                    ask.await;
                    // The contact is read anew: it may have changed while Messenger was asked.
                    may_ask = false;
                }
            }
            read = ReadContact::as_of_now(self.app, &entry.contact_id).await?;
        };
        let digest = composed.text().map(digest);
        let deliveries = self.app.store.deliveries();
        let reserve = deliveries.reserve(self.job, &entry.contact_id, digest.as_deref(), read.at);
        let reservation = match reserve.await? {
            Reserve::Granted(reservation) => reservation.counted_from(read.since),
            Reserve::Refused(row) => return Ok(Self::end_for_row(self.app, self.job, row, false).await?.into()),
        };
        let text = match composed {
            Composed::Message { text } => text,
            Composed::NoMessage(outcome) => return Ok(self.record(reservation, outcome).await?.into()),
        };
        if let Some(instead) = self.mark_contact(&reservation).await {
            let (reservation, outcome) = match &instead {
                State::Waiting { .. } => (reservation.uncharged(), instead),
                _ => (reservation, instead),
            };
            return Ok(self.record(reservation, outcome).await?.into());
        }
        let may_start = self.spacing.turn().await;
        if !may_start || !reservation.is_younger_than(self.app.config.messenger_timeout, clock.now()) {
            let state = waiting(clock.now(), "was reserved for too long");
            return Ok(self.record(reservation.uncharged(), state).await?.into());
        }
        let send = self.messenger.send(&reservation, text.as_deref(), self.broadcast);
        match send.await {
            Ok(message_id) => Ok(Attempt {
                end: self.record(reservation, State::Sent { message_id }).await?,
                signal: Some(Signal::Accepted),
                consequence: None,
            }),
            Err(error) => self.not_sent(reservation, &error, alone).await,
        }
    }

    /// Returns the gap between broadcasts to a contact, if one is configured. A send to testers does not count as a broadcast.
    fn gap(&self) -> Option<Duration> {
        self.app.config.min_gap.filter(|_| !self.broadcast.test)
    }

    /// Marks the contact as sent this broadcast, where a gap between broadcasts is configured. Returns what becomes of the
    /// delivery if another broadcast was faster, the contact is gone, or the table did not answer: nothing is sent then.
    ///
    /// The mark is made under the reservation, so that a contact is marked only by a job that may send to it. A mark of the same
    /// job is no hindrance, so a retry, and a worker that takes over, may send.
    async fn mark_contact(&self, reservation: &Reservation) -> Option<State> {
        let (config, now) = (&self.app.config, self.app.clock.now());
        let gap = self.gap()?;
        let skipped = |reason: &str| {
            Some(State::Skipped {
                reason: reason.to_owned(),
            })
        };
        let (contacts, job) = (self.app.store.contacts(), self.job.id());
        let marked = contacts.mark_if_gap_is_over(&reservation.contact_id, &job, gap, now);
        match marked.await {
            Ok(Marked::Now) => None,
            Ok(Marked::TooSoon) => skipped(TOO_SOON),
            Ok(Marked::Unknown) => skipped("contact_deleted"),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, "contact not marked, so nothing is sent to it now");
                Some(waiting(now + config.retry_base, "the contact could not be marked"))
            }
        }
    }

    /// Renders the text for the contact, unless the contact gets no message. `None` if the text needs a part of the contact's
    /// profile that is not stored, and Messenger may be asked for it.
    fn compose(&self, contact: Option<&Contact>, may_ask: bool) -> Option<Composed> {
        let skipped = |reason: &str| {
            Some(Composed::NoMessage(State::Skipped {
                reason: reason.to_owned(),
            }))
        };
        if self.job.is_expired(self.app.clock.now()) {
            return skipped(EXPIRED);
        }
        let Some(contact) = contact else {
            return skipped("contact_deleted");
        };
        // It was deleted and created anew since it joined the backlog, and may have joined that of the other Page's job, too.
        if self.broadcast.audience.is_some() && contact.page_id != self.job.page_id {
            return skipped("other_page");
        }
        if contact.opted_out {
            return skipped("opted_out");
        }
        let Broadcast {
            envelope,
            outside_window,
            ..
        } = self.broadcast;
        let now = self.app.clock.now();
        if *outside_window == OutsideWindow::Skip
            && window::is_over(envelope.messaging_type, contact.last_interaction_at, now)
        {
            return skipped("outside_window");
        }
        let blocks = |last: &LastBroadcast, gap| last.blocks(&self.job.id(), gap, now);
        if contact
            .last_broadcast
            .as_ref()
            .zip(self.gap())
            .is_some_and(|(last, gap)| blocks(last, gap))
        {
            return skipped(TOO_SOON);
        }
        if may_ask && contact.page_id == self.job.page_id && self.profiles.are_wanted_for(contact, now) {
            return None;
        }
        let text = self.template.as_ref().map(|template| template.render(contact));
        Some(match text.transpose() {
            Ok(text) => Composed::Message {
                text: text.map(|text| with_line_feeds(&text).into_owned()),
            },
            Err(error) => Composed::NoMessage(State::Failed {
                reason: error.to_string(),
            }),
        })
    }

    /// Records a send that Messenger did not accept, by the verdict on its error.
    async fn not_sent(
        &self,
        reservation: Reservation,
        error: &SendError,
        alone: bool,
    ) -> Result<Attempt, store::Error> {
        let (config, now) = (&self.app.config, self.app.clock.now());
        let reason = error.to_string();
        let mut signal = error.signal();
        let mut consequence = None;
        let (reservation, state) = match error.verdict() {
            Verdict::Later if reservation.attempt >= config.retry_attempts => {
                let reason = format!("{reason}, {} times", reservation.attempt);
                (reservation, State::Failed { reason })
            }
            Verdict::Later => {
                let wait = retry::backoff(config.retry_base, reservation.attempt, rand::random());
                let due = retry::due_after(now, wait, config.retry_base);
                (reservation, waiting(due, &reason))
            }
            Verdict::RateLimited(regain_after) => {
                consequence = Some(Consequence::RateLimited(regain_after));
                (reservation.uncharged(), waiting(now, &reason))
            }
            Verdict::Never => (reservation, State::Failed { reason }),
            Verdict::StopIfConfirmed if alone || reservation.refused_before_resume => {
                // Ten such contacts in a row are no accident.
                if let Signal::Suspected(error) = signal {
                    signal = Signal::RefusedSuspiciously(error.code);
                }
                (reservation, State::Failed { reason })
            }
            Verdict::StopIfConfirmed => (reservation.uncharged().refused(now), waiting(now, &reason)),
            Verdict::Stop => {
                let state = waiting(now, &reason);
                consequence = Some(match error.refuses_token() {
                    true => Consequence::TokenRefused(reason),
                    false => Consequence::Stop(reason),
                });
                (reservation.uncharged(), state)
            }
            Verdict::InDoubt => {
                return Ok(Attempt {
                    end: AttemptEnd::Doubt(reservation.into_doubt(reason)),
                    signal: Some(signal),
                    consequence,
                });
            }
        };
        Ok(Attempt {
            end: self.record(reservation, state).await?,
            signal: Some(signal),
            consequence,
        })
    }

    /// Records the outcome of a reservation.
    async fn record(&self, reservation: Reservation, state: State) -> Result<AttemptEnd, store::Error> {
        // An earlier attempt may have arrived, whatever the outcome of this one.
        if let (true, State::Failed { reason } | State::Skipped { reason }) = (reservation.earlier_doubt, &state) {
            let reason = format!("{reason}; an earlier attempt may have arrived");
            return Ok(AttemptEnd::Doubt(reservation.into_doubt(reason)));
        }
        let transactions = self.app.store.transactions();
        match transactions.record(&reservation, &state, self.app.clock.now()).await? {
            Record::Written => Ok(finish_for(&state).map_or(AttemptEnd::Stale, AttemptEnd::Finished)),
            Record::WrittenLate => Ok(AttemptEnd::Finished(Finish::Counted)),
            Record::Refused(row) => {
                let ours = reservation.is_of(&row);
                Self::end_for_row(self.app, self.job, *row, ours).await
            }
        }
    }

    /// Returns the end that a row demands which refused a write of the claim of this job.
    ///
    /// `ours` is `true` if this run made the row's last reservation: then a settled row is the result of this run's own send,
    /// and no duplicate was prevented.
    ///
    /// # Errors
    /// If the table does not answer.
    pub async fn end_for_row(app: &App, job: &Job, row: Delivery, ours: bool) -> Result<AttemptEnd, store::Error> {
        if row.epoch > job.epoch && matches!(row.state, State::Reserved | State::Waiting { .. }) {
            return Ok(AttemptEnd::Stale);
        }
        let settled = |finish| match ours {
            true => AttemptEnd::Finished(finish),
            false => AttemptEnd::Prevented(finish),
        };
        match &row.state {
            // The sender is gone. It may have sent, and no process knows; so the row is never free again by time.
            State::Reserved => Ok(AttemptEnd::Doubt(Doubt {
                token: row.token,
                reserved_at: row.reserved_at,
                reason: "its sender was lost".to_owned(),
                ours,
                was: Status::Reserved,
            })),
            State::Waiting { not_before, .. } if row.epoch < job.epoch => {
                match app.store.deliveries().stamp_if_waiting(job, &row).await? {
                    RowChange::Written => Ok(AttemptEnd::Finished(Finish::Requeued(*not_before))),
                    RowChange::Refused(changed) => Box::pin(Self::end_for_row(app, job, *changed, ours)).await,
                }
            }
            State::Waiting { not_before, .. } => Ok(AttemptEnd::Finished(Finish::Requeued(*not_before))),
            State::InDoubt { .. } => Ok(AttemptEnd::Finished(Finish::Counted)),
            State::Sent { .. } | State::Failed { .. } | State::Skipped { .. } if row.counted => {
                Ok(settled(Finish::Counted))
            }
            state => Ok(finish_for(state).map_or(AttemptEnd::Stale, settled)),
        }
    }
}

/// Returns the state of a contact that is requeued, due at this time.
fn waiting(not_before: Timestamp, reason: &str) -> State {
    State::Waiting {
        not_before,
        reason: reason.to_owned(),
    }
}

/// Returns the finish of an entry whose row has this state; `None` for states that no record leads to.
pub fn finish_for(state: &State) -> Option<Finish> {
    match state {
        State::Sent { .. } => Some(Finish::Sent),
        State::Failed { reason } => Some(Finish::Failed(code_of(reason))),
        State::Skipped { reason } => Some(Finish::Skipped(code_of(reason))),
        State::Waiting { not_before, .. } => Some(Finish::Requeued(*not_before)),
        State::Reserved | State::InDoubt { .. } => None,
    }
}
