//! Profiles of contacts, which are read before the first send whose text needs them. A profile that is not shown, or not in time,
//! stops no send.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::timeout;
use tracing::warn;

use crate::app::App;
use crate::domain::contact::{Contact, FIELDS, Field, PROFILE_FIELDS, Profile};
use crate::domain::ids::ContactId;
use crate::domain::template::Template;
use crate::domain::visible::is_blank;
use crate::messenger::MessengerClient;
use crate::messenger::errors::SendError;
use crate::messenger::profiles::{ProfileAnswer, ProfileFields};

/// The longest time for a contact's profile: sends of other contacts wait for it.
const MAX_TIME: Duration = Duration::from_secs(3);
/// The profiles in a row without an answer after which a run asks for no more.
const MAX_LOST: u32 = 3;
/// The time after which a contact's profile is asked for again, if a text still needs more of it.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The profiles that one run asks for.
pub struct Profiles {
    /// The fields that the text uses and a profile may fill in; none where profiles are switched off.
    wanted: Vec<&'static Field>,
    /// True once only the fields without a permission of their own are shown.
    names_only: AtomicBool,
    /// The profiles in a row without an answer.
    lost: AtomicU32,
    /// True once the run asks for no more.
    given_up: AtomicBool,
}

impl Profiles {
    /// Returns the profiles for a run with this text.
    pub fn new(app: &App, template: Option<&Template<'_>>) -> Self {
        let uses = |field: &&Field| {
            PROFILE_FIELDS.contains(&field.name) && template.is_some_and(|template| template.uses(field.name))
        };
        let wanted = FIELDS.iter().filter(uses).filter(|_| app.config.profiles);
        Self {
            wanted: wanted.collect(),
            names_only: AtomicBool::new(false),
            lost: AtomicU32::new(0),
            given_up: AtomicBool::new(false),
        }
    }

    /// Returns `true` if the text needs a field that the contact lacks, and Messenger was not asked for it lately.
    pub fn are_wanted_for(&self, contact: &Contact, now: Timestamp) -> bool {
        let lacks = |field: &&Field| match (field.value)(contact) {
            Value::Null => true,
            Value::String(text) => is_blank(&text),
            _ => false,
        };
        let was_asked = || contact.profile_at.is_some_and(|at| now.duration_since(at) < KEPT_FOR);
        !self.given_up.load(Ordering::Relaxed) && self.wanted.iter().any(lacks) && !was_asked()
    }

    /// Asks for a contact's profile, and stores what the contact lacks.
    pub async fn fill_in(&self, app: &App, messenger: &MessengerClient, contact_id: &ContactId) {
        let no_answer = ProfileAnswer::NoAnswer(SendError::NoAnswer("no answer in time"));
        let answer = timeout(MAX_TIME, self.ask(messenger, contact_id)).await;
        let profile = match answer.unwrap_or(no_answer) {
            ProfileAnswer::Shown(profile) => profile,
            ProfileAnswer::None => Profile::default(),
            ProfileAnswer::PageRefused(error) | ProfileAnswer::FieldsRefused(error) => return self.give_up(&error),
            ProfileAnswer::NoAnswer(error) => {
                if self.lost.fetch_add(1, Ordering::Relaxed) + 1 == MAX_LOST {
                    self.give_up(&error);
                }
                return;
            }
        };
        self.lost.store(0, Ordering::Relaxed);
        let contacts = app.store.contacts();
        if let Err(error) = contacts.fill_in_profile(contact_id, &profile, app.clock.now()).await {
            let error: &dyn std::error::Error = &error;
            warn!(
                error,
                "profile not stored; it is asked for again before the contact's next message"
            );
        }
    }

    async fn ask(&self, messenger: &MessengerClient, contact_id: &ContactId) -> ProfileAnswer {
        let fields = match self.names_only.load(Ordering::Relaxed) {
            true => ProfileFields::Names,
            false => ProfileFields::All,
        };
        let answer = messenger.profile(contact_id, fields).await;
        let ProfileAnswer::FieldsRefused(_) = answer else {
            return answer;
        };
        let answer = messenger.profile(contact_id, ProfileFields::Names).await;
        if let ProfileAnswer::Shown(_) = answer {
            self.names_only.store(true, Ordering::Relaxed);
        }
        answer
    }

    fn give_up(&self, error: &SendError) {
        if !self.given_up.swap(true, Ordering::Relaxed) {
            warn!(
                %error,
                "no profiles shown, so this run sends without; check the app's access to profiles, or set PROFILES=off"
            );
        }
    }
}
