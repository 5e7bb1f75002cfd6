//! Lookups: the reconciler of one Page asks Messenger's Conversations API for messages whose deliveries are in doubt.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, debug, info, warn};

use crate::app::App;
use crate::domain::delivery::{Delivery, State};
use crate::domain::event::BroadcastEvent;
use crate::domain::ids::{BroadcastId, ContactId, JobId, PageId};
use crate::domain::job::Broadcast;
use crate::messenger::MessengerClient;
use crate::messenger::conversations::{
    CLOCK_TOLERANCE, Content, FoundConversation, LookupQuery, LookupResult, MAX_CLOCK_DIFFERENCE,
};
use crate::messenger::errors::{SendError, Verdict};
use crate::runtime::config::InDoubtPolicy;
use crate::runtime::telemetry::{delivery_span, job_span};
use crate::store;
use crate::store::doubts::NextLookup;
use crate::store::transactions::{CommandOutcome, Settled};
use crate::worker::calls::{Calls, Turn};

/// The time after which a failed lookup, or a command that the job could not take, is retried.
const RETRY_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// The number of failed lookups in a row from which on the Page, rather than the contacts, counts as the cause.
const MAX_CONSECUTIVE_FAILURES: u32 = 3;
/// The age below which a message is no evidence: it may be of a broadcast that the index of jobs does not show yet.
const INDEX_LAG: SignedDuration = SignedDuration::from_secs(10);

/// The reconciler of one Page.
pub struct Reconciler<'a> {
    app: &'a App,
    page_id: &'a PageId,
    messenger: MessengerClient,
    calls: Calls<'a>,
    broadcasts: HashMap<BroadcastId, Option<Arc<Broadcast>>>,
}

/// The outcome of the lookup of one delivery.
enum LookupOutcome {
    /// The delivery is settled.
    Settled,
    /// There was nothing to settle, or there is no evidence yet.
    Done,
    /// Messenger did not answer, so that nothing is known.
    Failed,
    /// Messenger refused the lookup, and would refuse one for any contact of this Page.
    PageFailed(SendError),
    /// The calls for the Page pause until this time.
    Paused(Timestamp),
}

/// The reason why Messenger was not asked, or gave no answer.
enum NotAnswered {
    /// Messenger refused a call, or did not answer it.
    Refused(SendError),
    /// The calls for the Page pause until this time.
    Paused(Timestamp),
    /// A table did not answer.
    Store(store::Error),
}

impl From<SendError> for NotAnswered {
    fn from(error: SendError) -> Self {
        Self::Refused(error)
    }
}

impl From<store::Error> for NotAnswered {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

/// The evidence in the messages that match a delivery.
enum Evidence {
    /// One of the messages settled the delivery.
    Settled,
    /// There is nothing to settle any more: the row has been moved on, or its job is gone.
    NotNeeded,
    /// A message may be evidence when it is older: the delivery is looked up again at this time.
    TooNew(Timestamp),
    /// No message is evidence, so that the lookup has this result.
    None(LookupResult),
}

impl<'a> Reconciler<'a> {
    /// Returns the reconciler of a Page, or `None` if the Page has no access to Messenger; the reason is logged.
    pub async fn new(app: &'a App, page_id: &'a PageId) -> Option<Self> {
        let access = app.secrets.access(page_id).await;
        let access = access.inspect_err(|error| {
            let error: &dyn std::error::Error = error;
            warn!(page.id = %page_id, error, "no access: the Page's deliveries in doubt cannot be looked up");
        });
        let messenger = MessengerClient::new(&app.config, page_id, access.ok()?);
        let messenger = messenger
            .inspect_err(|error| {
                let error: &dyn std::error::Error = error;
                warn!(error, "the Messenger client could not be made");
            })
            .ok()?;
        Some(Self {
            app,
            page_id,
            messenger,
            calls: Calls::new(app, page_id),
            broadcasts: HashMap::new(),
        })
    }

    /// Looks up these deliveries, until Messenger fails for the whole Page. No lookup begins after `ends`, and none goes on
    /// after `deadline`: one that is broken off is made again. Returns the number of deliveries that were settled.
    ///
    /// # Errors
    /// If a table does not answer.
    pub async fn look_up_all(
        &mut self,
        doubts: Vec<(JobId, ContactId)>,
        ends: Instant,
        deadline: Instant,
    ) -> Result<u64, store::Error> {
        let (mut settled, mut failures) = (0, 0);
        for (job, contact_id) in doubts {
            if Instant::now() >= ends {
                break;
            }
            let lookup = self.look_up(&job, &contact_id).instrument(delivery_span(&contact_id));
            let Ok(outcome) = timeout_at(deadline, lookup.instrument(job_span(&job))).await else {
                warn!(page.id = %self.page_id, "lookup not finished in time; retried at a later firing of the schedule");
                break;
            };
            match outcome? {
                LookupOutcome::Settled => (settled, failures) = (settled + 1, 0),
                LookupOutcome::Done => failures = 0,
                LookupOutcome::Failed => failures += 1,
                LookupOutcome::Paused(until) => {
                    debug!(page.id = %self.page_id, %until, "calls for the Page pause; retried at a later firing of the schedule");
                    break;
                }
                LookupOutcome::PageFailed(error) => {
                    warn!(page.id = %self.page_id, %error, "lookups refused; retried at a later firing of the schedule");
                    break;
                }
            }
            if failures == MAX_CONSECUTIVE_FAILURES {
                warn!(page.id = %self.page_id, "lookups not answered; retried at a later firing of the schedule");
                break;
            }
        }
        Ok(settled)
    }

    /// Looks up one delivery, and settles it if its message is found.
    async fn look_up(&mut self, job: &JobId, contact_id: &ContactId) -> Result<LookupOutcome, store::Error> {
        let doubts = self.app.store.doubts();
        let Some(row) = self.app.store.deliveries().get(job, contact_id).await? else {
            return Ok(LookupOutcome::Done);
        };
        // The index lags.
        let is_due = row.lookup_at.is_some_and(|at| at <= self.app.clock.now());
        if !is_due || !matches!(row.state, State::InDoubt { .. }) {
            return Ok(LookupOutcome::Done);
        }
        let Some(broadcast) = self.broadcast(&job.broadcast_id).await? else {
            let reason = "its broadcast is gone; it is not looked up any more";
            let next = NextLookup::Never { reason };
            doubts.schedule_lookup_if_in_doubt(job, &row, next).await?;
            return Ok(LookupOutcome::Done);
        };
        let result = match self.ask_messenger(&row, &broadcast).await {
            Ok(result) => result,
            Err(NotAnswered::Store(error)) => return Err(error),
            Err(NotAnswered::Paused(until)) => return Ok(LookupOutcome::Paused(until)),
            Err(NotAnswered::Refused(error)) => match error.verdict() {
                Verdict::RateLimited(regain_after) => {
                    let pause = regain_after.unwrap_or(self.app.config.retry_base);
                    self.calls.pause(self.app.clock.now() + pause).await?;
                    return Ok(LookupOutcome::PageFailed(error));
                }
                Verdict::Stop => {
                    if error.refuses_token() {
                        self.app.secrets.forget_token(self.page_id);
                    }
                    return Ok(LookupOutcome::PageFailed(error));
                }
                Verdict::Never => LookupResult::Unclear("Messenger does not show the conversation"),
                // A permission that is missing shows at the next lookups, too; a contact that alone is refused must not keep
                // the others from being looked up.
                Verdict::Later | Verdict::InDoubt | Verdict::StopIfConfirmed => {
                    let next = NextLookup::At(self.app.clock.now() + RETRY_AFTER);
                    doubts.schedule_lookup_if_in_doubt(job, &row, next).await?;
                    return Ok(LookupOutcome::Failed);
                }
            },
        };
        let result = match result {
            LookupResult::Found { matches, unclear } => match self.settle_by_one_of(job, &row, matches, unclear).await?
            {
                Evidence::Settled => return Ok(LookupOutcome::Settled),
                Evidence::NotNeeded => return Ok(LookupOutcome::Done),
                Evidence::TooNew(next) => {
                    doubts
                        .schedule_lookup_if_in_doubt(job, &row, NextLookup::At(next))
                        .await?;
                    return Ok(LookupOutcome::Done);
                }
                Evidence::None(result) => result,
            },
            other => other,
        };
        self.schedule_next(job, &row, &broadcast, &result).await?;
        Ok(LookupOutcome::Done)
    }

    async fn broadcast(&mut self, id: &BroadcastId) -> Result<Option<Arc<Broadcast>>, store::Error> {
        if let Some(known) = self.broadcasts.get(id) {
            return Ok(known.clone());
        }
        let found = self.app.store.broadcasts().get(id).await?.map(Arc::new);
        self.broadcasts.insert(id.clone(), found.clone());
        Ok(found)
    }

    /// Looks for the message in the conversation as Messenger shows it.
    async fn ask_messenger(&mut self, row: &Delivery, broadcast: &Broadcast) -> Result<LookupResult, NotAnswered> {
        let content = match (&broadcast.message.text, &row.text_digest) {
            (Some(_), Some(digest)) => Content::Text(digest),
            (Some(_), None) => return Ok(LookupResult::Unclear("the text that was to be sent is not known")),
            (None, _) if broadcast.message.template.is_some() => Content::Template,
            (None, _) => Content::Attachment,
        };
        let asked_at = self.app.clock.now();
        self.wait_for_call().await?;
        let conversation = match self.messenger.find_conversation(&row.contact_id).await? {
            FoundConversation::Read(conversation) => conversation,
            FoundConversation::Unread(id) => {
                self.wait_for_call().await?;
                self.messenger.conversation(&id).await?
            }
        };
        Ok(conversation.find(&LookupQuery {
            page_id: self.page_id,
            contact_id: &row.contact_id,
            content,
            reserved_at: first_reserved_at(row),
            asked_at,
            now: self.app.clock.now(),
        }))
    }

    /// Waits until the next call may be made.
    async fn wait_for_call(&mut self) -> Result<(), NotAnswered> {
        match self.calls.wait().await? {
            Turn::Now => Ok(()),
            Turn::NotBefore(until) => Err(NotAnswered::Paused(until)),
        }
    }

    /// Settles the delivery by the first of these messages that can be no other delivery's. If none is evidence, the result
    /// is `Absent` only if no further message may match, for the reason `others_may_match`.
    async fn settle_by_one_of(
        &self,
        job: &JobId,
        row: &Delivery,
        matches: Vec<(String, Timestamp)>,
        mut others_may_match: Option<&'static str>,
    ) -> Result<Evidence, store::Error> {
        let store = &self.app.store;
        let since = first_reserved_at(row) - MAX_CLOCK_DIFFERENCE - self.app.config.longest_send();
        let mut jobs = store.jobs().that_may_have_sent(self.page_id, since).await?;
        jobs.retain(|other| other != job);
        let others = store.deliveries().of_contact(&row.contact_id, &jobs).await?;
        let unclear = |reason| Ok(Evidence::None(LookupResult::Unclear(reason)));
        for (message_id, at) in matches {
            let is_known = |other: &Delivery| other.message_id() == Some(&message_id);
            if others.iter().any(is_known) {
                continue;
            }
            if at < first_reserved_at(row) - CLOCK_TOLERANCE {
                others_may_match =
                    others_may_match.or(Some("a message like it is a little older than the reservation"));
                continue;
            }
            let now = self.app.clock.now();
            if at > now - INDEX_LAG {
                return Ok(Evidence::TooNew(at + INDEX_LAG));
            }
            if others.iter().any(|other| is_rival(other, row, at)) {
                return unclear("a message like it may be another broadcast's");
            }
            let sent = State::Sent {
                message_id: message_id.clone(),
            };
            let transactions = store.transactions();
            match transactions.settle(job, row, &sent, Some(&message_id), now).await? {
                Settled::Now => {
                    info!("delivery settled: its message was found");
                    return Ok(Evidence::Settled);
                }
                Settled::Otherwise(_) | Settled::JobGone => return Ok(Evidence::NotNeeded),
                Settled::MessageTaken => {}
            }
        }
        let result = others_may_match.map_or(LookupResult::Absent, LookupResult::Unclear);
        Ok(Evidence::None(result))
    }

    /// Schedules the lookup at the delivery's next age. After the last age, the policy decides: the message is sent again, or
    /// the delivery stays in doubt.
    async fn schedule_next(
        &self,
        job: &JobId,
        row: &Delivery,
        broadcast: &Broadcast,
        result: &LookupResult,
    ) -> Result<(), store::Error> {
        let (store, config, now) = (&self.app.store, &self.app.config, self.app.clock.now());
        let doubts = store.doubts();
        let ages = config.doubt_checks.iter();
        let next = ages
            .map(|age| row.reserved_at + *age)
            .find(|at| row.lookup_at.is_some_and(|last| *at > last));
        if let Some(next) = next {
            return doubts.schedule_lookup_if_in_doubt(job, row, NextLookup::At(next)).await;
        }
        let may_resend = config.in_doubt_policy == InDoubtPolicy::Resend
            && *result == LookupResult::Absent
            && row.attempts < config.retry_attempts;
        if may_resend {
            match store.transactions().command_resend_if_completed(job, row, now).await? {
                CommandOutcome::Accepted => {
                    info!("delivery not found: to be sent again");
                    return Ok(());
                }
                CommandOutcome::NotNow => {
                    let next = NextLookup::At(now + RETRY_AFTER);
                    return doubts.schedule_lookup_if_in_doubt(job, row, next).await;
                }
                CommandOutcome::RowChanged => return Ok(()),
                CommandOutcome::Never => {}
            }
        }
        let finding = match result {
            LookupResult::Unclear(finding) => finding,
            LookupResult::Absent | LookupResult::Found { .. } => "not found in Messenger",
        };
        let reason = row.state.reason().unwrap_or_default();
        let reason = format!("{reason}; {finding}");
        info!(reason, "delivery stays in doubt");
        if broadcast.test {
            let next = NextLookup::Never { reason: &reason };
            return doubts.schedule_lookup_if_in_doubt(job, row, next).await;
        }
        let event = BroadcastEvent::of_doubt(job, row.epoch, now);
        let transactions = store.transactions();
        transactions.leave_in_doubt(job, row, &reason, broadcast, &event).await
    }
}

/// Returns the time of the first reservation under which the message may have been sent.
fn first_reserved_at(row: &Delivery) -> Timestamp {
    row.earlier_doubt.unwrap_or(row.reserved_at)
}

/// Returns `true` if a message of this time, which matches our delivery, may as well be the other delivery's: the outcome of
/// the other delivery, or that of an earlier attempt of it, is not known, and it was reserved by then.
fn is_rival(other: &Delivery, ours: &Delivery, at: Timestamp) -> bool {
    let is_open = matches!(other.state, State::Reserved | State::InDoubt { .. });
    let was_reserved = first_reserved_at(other) - MAX_CLOCK_DIFFERENCE <= at;
    (is_open || other.earlier_doubt.is_some()) && was_reserved && other.text_digest == ours.text_digest
}
