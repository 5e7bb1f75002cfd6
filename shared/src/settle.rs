//! Settling: what is in doubt becomes `sent` by Messenger's own word, or stays in doubt. Nothing is guessed.
//!
//! Two kinds of evidence: the echo of a message, which carries the delivery's key and attempt, and the Conversations API,
//! which shows what a contact got.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::SignedDuration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use crate::app::App;
use crate::config::InDoubtPolicy;
use crate::conversations::{Content, Sight, Wanted};
use crate::delivery::{Delivery, State};
use crate::ids::{BroadcastId, ContactId, JobId, PageId};
use crate::job::Broadcast;
use crate::messenger::Messenger;
use crate::store::deliveries::Metadata;
use crate::store::doubts::{Ordered, Settled};
use crate::store::{self, Store};
use crate::verdict::{SendError, Verdict};

/// A look is two calls, and Messenger takes two a second for one Page; a little less, since the network may push them
/// together.
const LOOK_EVERY: Duration = Duration::from_millis(1_200);
/// Pages that are looked up at once.
const PAGES_AT_ONCE: usize = 16;
/// Deliveries that one invocation takes from one partition of the index.
const DOUBTS_AT_ONCE: usize = 2_000;
/// When a look that failed, or a wish that could not be made, is tried again.
const TRY_AGAIN: SignedDuration = SignedDuration::from_secs(60);
/// So many failed looks in a row concern the Page rather than the contacts.
const FAILURES_IN_A_ROW: u32 = 3;
/// A message that is younger may be of a broadcast that the index of jobs does not show yet.
const INDEX_LAG: SignedDuration = SignedDuration::from_secs(10);
/// The sender of a message and its echo may move a row as often between a look at it and a write.
const TRIES: usize = 5;

/// What an echo was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It settled the delivery.
    Settled,
    /// The delivery was known to be sent.
    Known,
    /// There is no such delivery, or it says otherwise for good.
    Nothing,
}

/// Takes an echo for what it is: proof that this attempt, whatever was heard of it, did arrive under this message id.
/// Repeating it, and in any order, changes nothing.
pub async fn settle_by_echo(
    app: &App,
    metadata: &Metadata,
    message_id: &str,
) -> Result<Heard, store::Error> {
    let Metadata {
        job, contact_id, ..
    } = metadata;
    let sent = State::Sent {
        message_id: message_id.to_owned(),
    };
    let Some(mut row) = app.store.delivery(job, contact_id).await? else {
        return Ok(Heard::Nothing);
    };
    for _ in 0..TRIES {
        let now = app.clock.now();
        let settled = match &row.state {
            State::Sent { .. } => return Ok(Heard::Known),
            State::Failed { reason } | State::Skipped { reason } => {
                warn!(job.id = %job, contact.id = %contact_id, reason, "an echo says that a message arrived that was refused");
                return Ok(Heard::Nothing);
            }
            State::InDoubt { .. } => app.store.settle(job, &row, &sent, None, now).await?,
            State::Reserved | State::Waiting { .. } => {
                app.store.prove(job, &row, &sent, now).await?
            }
        };
        match settled {
            Settled::Now => {
                debug!(job.id = %job, contact.id = %contact_id, was = %row.state.status(), "delivery settled by its echo");
                return Ok(Heard::Settled);
            }
            Settled::Otherwise(found) => row = *found,
            Settled::MessageTaken | Settled::JobGone => return Ok(Heard::Nothing),
        }
    }
    Ok(Heard::Nothing)
}

/// Looks up every delivery in doubt whose time for it has come, until `ends` at the latest; how many were settled. An error
/// is the last of those that kept some from it.
pub async fn settle_doubts(app: &App, ends: Instant) -> Result<u64, store::Error> {
    let mut by_page = BTreeMap::<PageId, Vec<_>>::new();
    for shard in Store::doubt_shards() {
        let doubts = app
            .store
            .doubts_to_look_up(shard, DOUBTS_AT_ONCE, app.clock.now());
        for (job, contact_id) in doubts.await? {
            let page_id = job.page_id.clone();
            by_page.entry(page_id).or_default().push((job, contact_id));
        }
    }
    let pages: Vec<_> = by_page
        .into_iter()
        .map(|(page_id, doubts)| look_up_for_page(app, page_id, doubts, ends))
        .collect();
    let mut pages = stream::iter(pages).buffer_unordered(PAGES_AT_ONCE);
    let (mut settled, mut failure) = (0, None);
    while let Some(page) = pages.next().await {
        match page {
            Ok(more) => settled += more,
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(settled), Err)
}

/// One invocation at a time looks things up for a Page, lest two of them exceed Messenger's limit.
async fn look_up_for_page(
    app: &App,
    page_id: PageId,
    doubts: Vec<(JobId, ContactId)>,
    ends: Instant,
) -> Result<u64, store::Error> {
    let lease = ends.saturating_duration_since(Instant::now());
    let now = app.clock.now();
    let Some(lease) = app.store.acquire_look_ups(&page_id, lease, now).await? else {
        return Ok(0);
    };
    let looked = match Looker::new(app, &page_id).await {
        Some(mut looker) => looker.look_up(doubts, ends).await,
        None => Ok(0),
    };
    app.store.release_page(&lease).await?;
    looked
}

/// Whoever looks things up for one Page.
struct Looker<'a> {
    app: &'a App,
    page_id: &'a PageId,
    messenger: Messenger,
    pace: Interval,
    broadcasts: HashMap<BroadcastId, Option<Arc<Broadcast>>>,
}

/// What a look came to.
enum Look {
    /// It is settled now.
    Settled,
    /// There is nothing to settle, or not yet.
    Done,
    /// It was none: Messenger did not answer.
    Failed,
    /// It was none, and would be none for any contact of this Page.
    PageFailed(SendError),
}

impl<'a> Looker<'a> {
    async fn new(app: &'a App, page_id: &'a PageId) -> Option<Self> {
        let access = app.secrets.access(page_id).await;
        let access = access.inspect_err(|error| {
            let error: &dyn std::error::Error = error;
            warn!(page.id = %page_id, error, "no access: the Page's deliveries in doubt cannot be looked up");
        });
        let messenger = Messenger::new(&app.config, page_id, access.ok()?);
        let messenger = messenger
            .inspect_err(|error| {
                let error: &dyn std::error::Error = error;
                warn!(error, "the Messenger client could not be made");
            })
            .ok()?;
        let mut pace = interval(LOOK_EVERY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(Self {
            app,
            page_id,
            messenger,
            pace,
            broadcasts: HashMap::new(),
        })
    }

    async fn look_up(
        &mut self,
        doubts: Vec<(JobId, ContactId)>,
        ends: Instant,
    ) -> Result<u64, store::Error> {
        let (mut settled, mut failures) = (0, 0);
        for (job, contact_id) in doubts {
            if Instant::now() >= ends {
                break;
            }
            match self.look(&job, &contact_id).await? {
                Look::Settled => (settled, failures) = (settled + 1, 0),
                Look::Done => failures = 0,
                Look::Failed => failures += 1,
                Look::PageFailed(error) => {
                    warn!(page.id = %self.page_id, %error, "look-ups refused; tried again later");
                    break;
                }
            }
            if failures == FAILURES_IN_A_ROW {
                warn!(page.id = %self.page_id, "look-ups not answered; tried again later");
                break;
            }
        }
        Ok(settled)
    }

    /// Looks one delivery up, and settles it if the message is found.
    async fn look(&mut self, job: &JobId, contact_id: &ContactId) -> Result<Look, store::Error> {
        let store = &self.app.store;
        let Some(row) = store.delivery(job, contact_id).await? else {
            return Ok(Look::Done);
        };
        // The index lags.
        let is_due = row.look_at.is_some_and(|at| at <= self.app.clock.now());
        if !is_due || !matches!(row.state, State::InDoubt { .. }) {
            return Ok(Look::Done);
        }
        let Some(broadcast) = self.broadcast(&job.broadcast_id).await? else {
            let gone = Err("its broadcast is gone; it is not looked up any more");
            store.look_again(job, &row, gone).await?;
            return Ok(Look::Done);
        };
        let sight = match self.sight(&row, &broadcast).await {
            Ok(sight) => sight,
            Err(error) => match error.verdict() {
                Verdict::RateLimited(_) | Verdict::Stop => {
                    if error.is_of_token() {
                        self.app.secrets.forget_token(self.page_id);
                    }
                    return Ok(Look::PageFailed(error));
                }
                Verdict::Never => Sight::Unclear("Messenger does not show the conversation"),
                Verdict::Later | Verdict::InDoubt => {
                    let later = Ok(self.app.clock.now() + TRY_AGAIN);
                    store.look_again(job, &row, later).await?;
                    return Ok(Look::Failed);
                }
            },
        };
        let sight = match sight {
            Sight::Like(like) => match self.settle_by_one_of(job, &row, like).await? {
                Ok(look) => return Ok(look),
                Err(sight) => sight,
            },
            other => other,
        };
        self.not_found(job, &row, &sight).await?;
        Ok(Look::Done)
    }

    async fn broadcast(
        &mut self,
        id: &BroadcastId,
    ) -> Result<Option<Arc<Broadcast>>, store::Error> {
        if let Some(known) = self.broadcasts.get(id) {
            return Ok(known.clone());
        }
        let found = self.app.store.broadcast(id).await?.map(Arc::new);
        self.broadcasts.insert(id.clone(), found.clone());
        Ok(found)
    }

    /// What Messenger shows of the message.
    async fn sight(&mut self, row: &Delivery, broadcast: &Broadcast) -> Result<Sight, SendError> {
        let content = match (&broadcast.message.text, &row.text_digest) {
            (Some(_), Some(digest)) => Content::Text(digest),
            (Some(_), None) => return Ok(Sight::Unclear("what was to be sent is not known")),
            (None, _) if broadcast.message.template.is_some() => Content::Template,
            (None, _) => Content::Attachment,
        };
        self.pace.tick().await;
        let Some(id) = self.messenger.conversation_id(&row.contact_id).await? else {
            return Ok(Sight::Absent);
        };
        let conversation = self.messenger.conversation(&id).await?;
        Ok(conversation.look_for(&Wanted {
            page_id: self.page_id,
            contact_id: &row.contact_id,
            content,
            reserved_at: row.earlier_doubt.unwrap_or(row.reserved_at),
        }))
    }

    /// Settles the delivery by the first of these messages that can be nobody else's, or says what they are good for.
    async fn settle_by_one_of(
        &self,
        job: &JobId,
        row: &Delivery,
        like: Vec<(String, jiff::Timestamp)>,
    ) -> Result<Result<Look, Sight>, store::Error> {
        let store = &self.app.store;
        let mut jobs = store.jobs_of_page(self.page_id).await?;
        jobs.retain(|other| other != job);
        let others = store.deliveries_to(&row.contact_id, &jobs).await?;
        for (message_id, at) in like {
            let is_known = |other: &Delivery| other.state.message_id() == Some(&message_id);
            if others.iter().any(is_known) {
                continue;
            }
            let now = self.app.clock.now();
            if at > now - INDEX_LAG {
                return Ok(Err(Sight::Unclear(
                    "a message like it is too new to tell whose it is",
                )));
            }
            if others.iter().any(|other| is_rival(other, row)) {
                return Ok(Err(Sight::Unclear(
                    "a message like it may be another broadcast's",
                )));
            }
            let sent = State::Sent {
                message_id: message_id.clone(),
            };
            let settled = store.settle(job, row, &sent, Some(&message_id), now);
            match settled.await? {
                Settled::Now => {
                    info!(job.id = %job, contact.id = %row.contact_id, "delivery settled: its message was found");
                    return Ok(Ok(Look::Settled));
                }
                Settled::Otherwise(_) | Settled::JobGone => return Ok(Ok(Look::Done)),
                Settled::MessageTaken => {}
            }
        }
        Ok(Err(Sight::Absent))
    }

    /// Has the delivery looked up at its next age; after the last, leaves it to the policy.
    async fn not_found(
        &self,
        job: &JobId,
        row: &Delivery,
        sight: &Sight,
    ) -> Result<(), store::Error> {
        let (store, config, now) = (&self.app.store, &self.app.config, self.app.clock.now());
        let ages = config.doubt_checks.iter();
        let next = ages
            .map(|age| row.reserved_at + *age)
            .find(|at| row.look_at.is_some_and(|looked| *at > looked));
        if let Some(next) = next {
            return store.look_again(job, row, Ok(next)).await;
        }
        let may_resend = config.in_doubt_policy == InDoubtPolicy::Resend
            && *sight == Sight::Absent
            && row.attempts < config.retry_attempts;
        if may_resend {
            match store.order_resend(job, row, now).await? {
                Ordered::Yes => {
                    info!(job.id = %job, contact.id = %row.contact_id, "delivery not found: to be sent again");
                }
                Ordered::NotNow => store.look_again(job, row, Ok(now + TRY_AGAIN)).await?,
                Ordered::Otherwise => {}
            }
            return Ok(());
        }
        let seen = match sight {
            Sight::Unclear(what) => what,
            Sight::Absent | Sight::Like(_) => "not found in Messenger",
        };
        let reason = row.state.reason().unwrap_or_default();
        let reason = format!("{reason}; {seen}");
        info!(job.id = %job, contact.id = %row.contact_id, reason, "delivery stays in doubt");
        store.look_again(job, row, Err(&reason)).await
    }
}

/// Whether a message like ours may as well be this other delivery's: nobody knows what became of it, or of an attempt at it
/// before the one that is known.
fn is_rival(other: &Delivery, ours: &Delivery) -> bool {
    let is_open = matches!(other.state, State::Reserved | State::InDoubt { .. });
    (is_open || other.earlier_doubt.is_some()) && other.text_digest == ours.text_digest
}
