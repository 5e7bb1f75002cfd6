//! The switch for sending, which the operator sets, and the state of a Page: every run reads both.

use std::num::NonZeroU32;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::ids::PageId;

/// The position of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SendingState {
    /// Due jobs are worked on.
    On,
    /// Nothing new is sent. Requests are accepted, and due jobs wait.
    Off,
    /// Every due job is halted instead of sent.
    Halt,
}

/// The state of a Page that its senders share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PageState {
    /// The end of the Page's last pause, which may be over.
    #[serde(default, with = "millisecond::optional")]
    pub not_before: Option<Timestamp>,
    /// Pauses since the Page's last success.
    #[serde(default)]
    pub backoffs: u32,
    /// The first slot that no run has taken.
    #[serde(default, with = "millisecond::optional")]
    pub next_slot_at: Option<Timestamp>,
    /// The switch for sending of this Page alone, if it was ever set.
    #[serde(default)]
    pub switch: Option<SendingSwitch>,
}

impl PageState {
    /// Returns the end of the Page's pause, if it pauses now.
    pub fn paused_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.not_before.filter(|not_before| *not_before > now)
    }

    /// Returns the rate of the Page's runs: after a pause half of the whole, since a limit that was reached is approached more
    /// slowly.
    pub fn rate(&self, whole: NonZeroU32) -> NonZeroU32 {
        match self.backoffs {
            0 => whole,
            _ => NonZeroU32::new(whole.get() / 2).unwrap_or(NonZeroU32::MIN),
        }
    }
}

/// The switch as it was set last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "state": "off", "reason": "wrong text", "changed_by": null, "changed_at": "2026-12-01T01:00:00Z"
})))]
pub struct SendingSwitch {
    /// The position.
    pub state: SendingState,
    /// The reason that the operator gave, if it gave one.
    #[schema(required)]
    pub reason: Option<String>,
    /// The caller that set it, as a request key names it, if it was authenticated.
    #[schema(required)]
    pub changed_by: Option<String>,
    /// The time at which it was set, if that is recorded.
    #[schema(required)]
    pub changed_at: Option<Timestamp>,
}

/// A change of the switch for sending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "state": "off", "reason": "wrong text", "changed_by": null, "changed_at": "2026-12-01T01:00:00Z", "page_id": null
})))]
pub struct SendingChanged {
    /// The switch as it was set.
    #[serde(flatten)]
    pub switch: SendingSwitch,
    /// The Page for which it was set; `null` for all.
    #[schema(required)]
    pub page_id: Option<PageId>,
}

impl Default for SendingSwitch {
    /// Returns a switch that was never set.
    fn default() -> Self {
        Self {
            state: SendingState::On,
            reason: None,
            changed_by: None,
            changed_at: None,
        }
    }
}

impl SendingSwitch {
    /// Returns the switch that decides for a Page: the one for all Pages, or that of the Page if sending is on for all.
    pub fn for_page(&self, page: &PageState) -> Self {
        let of_page = page.switch.as_ref().filter(|_| self.state == SendingState::On);
        of_page.unwrap_or(self).clone()
    }

    /// Returns the reason of a job that is halted because of this switch.
    pub fn halt_reason(&self) -> String {
        match &self.reason {
            Some(reason) => format!("sending is halted: {reason}"),
            None => "sending is halted".to_owned(),
        }
    }
}
