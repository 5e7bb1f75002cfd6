//! A run of an import: reads the list of the Page's conversations part by part, and stores the people in them.
//!
//! The people of a part are stored before the checkpoint passes it, and storing them again changes nothing. So a part is read
//! twice if a worker dies, and none is left out. The next part is read while the people of the last one are stored.

use std::ops::ControlFlow;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::app::App;
use crate::domain::command::StopCommand;
use crate::domain::contact::Source;
use crate::domain::ids::PageId;
use crate::domain::import::ImportProgress;
use crate::domain::retry;
use crate::messenger::MessengerClient;
use crate::messenger::errors::{SendError, Verdict};
use crate::messenger::people::{PeoplePart, Person};
use crate::runtime::metrics::Event;
use crate::store;
use crate::store::found_contacts::{Added, NewContact};
use crate::store::hand_over::HandOver;
use crate::store::jobs::Claim;
use crate::worker::calls::{Calls, Turn};
use crate::worker::hand_over::end_for_refused_token;
use crate::worker::run::{RunEnd, WIND_UP};

/// The conversations of one call, the most that Messenger shows. After a call that failed it is half as many, as the answer may
/// have been too much for Messenger.
const CONVERSATIONS_AT_ONCE: usize = 100;
/// The number of times that the size of a part is halved at most.
const HALVINGS: u32 = 3;
/// Contacts written at once.
const WRITES_AT_ONCE: usize = 16;

/// A run of an import.
pub struct Import<'a> {
    app: &'a App,
    messenger: &'a MessengerClient,
    claim: Claim,
    progress: ImportProgress,
    calls: Calls<'a>,
    last_call: Instant,
}

/// The end of a call for a part of the list.
enum Fetched {
    Part(PeoplePart),
    Refused(SendError),
    /// The call was not made: the Page's calls pause until this time.
    NotBefore(Timestamp),
}

impl<'a> Import<'a> {
    /// Returns a run that makes its last call early enough to be handed over at `ends`.
    pub fn new(app: &'a App, messenger: &'a MessengerClient, claim: Claim, ends: Instant) -> Self {
        let whole = ends.saturating_duration_since(Instant::now());
        Self {
            app,
            messenger,
            progress: claim.job.import.clone().unwrap_or_default(),
            claim,
            calls: Calls::new(app, &messenger.page_id),
            // As the last send of a run.
            last_call: ends - (app.config.messenger_timeout + WIND_UP).min(whole * 3 / 4),
        }
    }

    /// Reads the list to its end, or until there is a reason to stop.
    ///
    /// # Errors
    /// If a table does not answer; the claim then ends with its lease.
    pub async fn work(mut self) -> Result<RunEnd, store::Error> {
        let to = match (self.claim.job.stop, self.progress.is_whole) {
            (Some(stop), _) => Some(stopped(stop)),
            (None, true) => Some(HandOver::Completed),
            (None, false) => self.work_to_end().await?,
        };
        let ImportProgress {
            conversations, created, ..
        } = self.progress;
        info!(
            import.conversations = conversations,
            import.created = created,
            "run of an import ends"
        );
        Ok(match to {
            Some(to) => RunEnd::HandOver(Box::new(self.claim), to),
            None => RunEnd::Overtaken,
        })
    }

    /// Returns the hand-over at the end of the work, or `None` if another worker has claimed the import.
    async fn work_to_end(&mut self) -> Result<Option<HandOver>, store::Error> {
        let mut fetched = self.fetch().await?;
        loop {
            let part = match fetched {
                Fetched::Part(part) => part,
                Fetched::NotBefore(until) => return Ok(Some(HandOver::Waiting(until))),
                Fetched::Refused(error) => match self.judge(&error).await? {
                    ControlFlow::Break(end) => return Ok(end),
                    ControlFlow::Continue(()) => {
                        fetched = self.fetch().await?;
                        continue;
                    }
                },
            };
            let next = part.next.as_deref().filter(|_| Instant::now() < self.last_call);
            let (calls, messenger) = (&mut self.calls, self.messenger);
            let next = async {
                match next {
                    Some(after) => Some(ask(calls, messenger, Some(after), CONVERSATIONS_AT_ONCE).await),
                    None => None,
                }
            };
            let (added, next) = tokio::join!(add_all(self.app, &messenger.page_id, &part.people), next);
            self.pass(&part, &added?);
            if !self.checkpoint().await? {
                return Ok(None);
            }
            fetched = match (self.claim.job.stop, next) {
                (Some(stop), _) => return Ok(Some(stopped(stop))),
                (None, Some(next)) => next?,
                (None, None) if self.progress.is_whole => return Ok(Some(HandOver::Completed)),
                (None, None) => return Ok(Some(HandOver::Queued)),
            };
        }
    }

    /// Reads the part after the cursor.
    async fn fetch(&mut self) -> Result<Fetched, store::Error> {
        let most = CONVERSATIONS_AT_ONCE >> self.progress.failed.min(HALVINGS);
        let after = self.progress.after.as_deref();
        ask(&mut self.calls, self.messenger, after, most).await
    }

    /// Moves the progress over a part whose people are stored.
    fn pass(&mut self, part: &PeoplePart, added: &[Added]) {
        let count = |end: Added| added.iter().filter(|added| **added == end).count() as u64;
        let progress = &mut self.progress;
        progress.conversations += part.conversations;
        progress.unreadable += part.unreadable;
        progress.created += count(Added::Created);
        progress.known += count(Added::Known);
        progress.on_another_page += count(Added::OnAnotherPage);
        (progress.limited, progress.failed) = (0, 0);
        match &part.next {
            Some(next) => progress.after = Some(next.clone()),
            None => progress.is_whole = true,
        }
    }

    /// Writes the progress; `false` if another worker has claimed the import.
    async fn checkpoint(&mut self) -> Result<bool, store::Error> {
        let now = self.app.clock.now();
        self.progress.updated_at = Some(now);
        let imports = self.app.store.imports();
        imports
            .checkpoint_if_claimed(&mut self.claim, &self.progress, now)
            .await
    }

    /// Decides on a call that got no part of the list. Breaks with the end of the work, unless the list is to be read from its
    /// beginning again.
    async fn judge(&mut self, error: &SendError) -> Result<ControlFlow<Option<HandOver>>, store::Error> {
        let (config, now) = (&self.app.config, self.app.clock.now());
        let backoff = |attempt| retry::backoff(config.retry_base, attempt, rand::random());
        let to = match error.verdict() {
            Verdict::RateLimited(regain_after) => {
                self.progress.limited += 1;
                let until = now + regain_after.unwrap_or_else(|| backoff(self.progress.limited));
                self.app.metrics.count(Event::RateLimitWaits, 1);
                self.calls.pause(until).await?;
                HandOver::Waiting(until)
            }
            Verdict::Later | Verdict::InDoubt if self.progress.failed < config.retry_attempts => {
                self.progress.failed += 1;
                HandOver::Waiting(now + backoff(self.progress.failed))
            }
            Verdict::Later | Verdict::InDoubt => HandOver::Halted(error.to_string()),
            Verdict::Never | Verdict::Stop | Verdict::StopIfConfirmed => {
                if error.refuses_value() && self.progress.after.is_some() && !self.progress.started_over {
                    warn!(%error, "Messenger does not know the place in the list any more: it is read from its beginning");
                    self.progress = self.progress.at_the_beginning_again();
                    return Ok(match self.checkpoint().await? {
                        true => ControlFlow::Continue(()),
                        false => ControlFlow::Break(None),
                    });
                }
                match error.refuses_token() {
                    true => end_for_refused_token(self.app, self.messenger, error.to_string()).await,
                    false => HandOver::Halted(error.to_string()),
                }
            }
        };
        Ok(ControlFlow::Break(self.checkpoint().await?.then_some(to)))
    }
}

/// Returns the hand-over of an import that is to stop. Nothing is left to drain.
fn stopped(stop: StopCommand) -> HandOver {
    match stop {
        StopCommand::Cancel => HandOver::Cancelled(None),
        // The hand-over obeys the pause.
        StopCommand::Pause => HandOver::Queued,
    }
}

/// Reads a part of the list, when it is time for the next call.
async fn ask(
    calls: &mut Calls<'_>,
    messenger: &MessengerClient,
    after: Option<&str>,
    most: usize,
) -> Result<Fetched, store::Error> {
    Ok(match calls.wait().await? {
        Turn::NotBefore(until) => Fetched::NotBefore(until),
        Turn::Now => match messenger.people(after, most).await {
            Ok(part) => Fetched::Part(part),
            Err(error) => Fetched::Refused(error),
        },
    })
}

/// Stores people as contacts of the Page. What is known of a contact stays.
async fn add_all(app: &App, page_id: &PageId, people: &[Person]) -> Result<Vec<Added>, store::Error> {
    let add = |person: &Person| {
        let new = NewContact {
            contact_id: person.contact_id.clone(),
            page_id: page_id.clone(),
            name: person.name.clone(),
            last_interaction_at: None,
            opted_out: false,
            source: Source::Conversations,
        };
        async move { app.store.contacts().add(&new).await }
    };
    let writes: Vec<_> = people.iter().map(add).collect();
    stream::iter(writes)
        .buffer_unordered(WRITES_AT_ONCE)
        .try_collect()
        .await
}
