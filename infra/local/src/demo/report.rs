//! What the demo found. Success is counted in the sandbox's ledger, not in Oncecast's own tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::api::Broadcast;
use crate::sandbox::Received;

/// What contacts got, against what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Contacts with more than one message.
    pub twice: Vec<String>,
    /// Contacts without a message that are not listed as in doubt either.
    pub missed: Vec<String>,
    /// Contacts with a message that nobody asked for.
    pub strangers: Vec<String>,
}

impl Tally {
    pub fn count(
        asked_for: &BTreeSet<&str>,
        received: &[Received],
        in_doubt: &BTreeSet<String>,
    ) -> Tally {
        let mut messages: BTreeMap<&str, usize> = BTreeMap::new();
        for message in received {
            *messages.entry(&message.contact_id).or_default() += 1;
        }
        let owned = |contact_id: &str| contact_id.to_owned();
        Tally {
            twice: messages
                .iter()
                .filter(|(_, count)| **count > 1)
                .map(|(contact_id, _)| owned(contact_id))
                .collect(),
            missed: asked_for
                .iter()
                .filter(|contact_id| {
                    !messages.contains_key(*contact_id) && !in_doubt.contains(**contact_id)
                })
                .map(|contact_id| owned(contact_id))
                .collect(),
            strangers: messages
                .keys()
                .filter(|contact_id| !asked_for.contains(*contact_id))
                .map(|contact_id| owned(contact_id))
                .collect(),
        }
    }
}

/// Everything that the demo shows at its end.
#[derive(Debug)]
pub struct Report {
    pub tally: Tally,
    pub received: Vec<Received>,
    pub broadcast: Broadcast,
    /// The processes killed.
    pub killed: Vec<u32>,
    /// From the first request to the end.
    pub duration: Duration,
}

impl Report {
    pub fn is_success(&self) -> bool {
        let Tally {
            twice,
            missed,
            strangers,
        } = &self.tally;
        twice.is_empty() && missed.is_empty() && strangers.is_empty()
    }

    /// Messages a second, from the first arrival to the last.
    fn rate(&self) -> f64 {
        let arrivals = || self.received.iter().map(|message| message.at);
        let (Some(first), Some(last)) = (arrivals().min(), arrivals().max()) else {
            return 0.0;
        };
        let seconds = (last - first).max(1) as f64 / 1_000.0;
        self.received.len() as f64 / seconds
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broadcast {
            status,
            contacts,
            counters,
            duplicates_prevented: prevented,
            ..
        } = &self.broadcast;
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<42}{value:>10}");
        row("Broadcast", status)?;
        row("Contact ids requested", &contacts.requested)?;
        row("  repeats removed", &contacts.duplicates_removed)?;
        row("  contacts accepted", &contacts.accepted)?;
        row("Duplicates prevented", &"")?;
        row("  in the request", &prevented.request)?;
        row("  repeated requests", &prevented.replay)?;
        row("  by the claim of a job", &prevented.claim)?;
        row("  by the reservation of a contact", &prevented.reservation)?;
        row("Oncecast's own count", &"")?;
        row("  sent", &counters.sent)?;
        row("  failed", &counters.failed)?;
        row("  skipped", &counters.skipped)?;
        row("  in doubt (in flight at a kill)", &counters.in_doubt)?;
        row("The sandbox's count", &"")?;
        row("  messages received", &self.received.len())?;
        row("  contacts that got two", &self.tally.twice.len())?;
        row("  contacts missed", &self.tally.missed.len())?;
        row(
            "  contacts that nobody asked for",
            &self.tally.strangers.len(),
        )?;
        row("Processes killed", &self.killed.len())?;
        row("Messages a second", &format!("{:.1}", self.rate()))?;
        row("Seconds", &format!("{:.1}", self.duration.as_secs_f64()))?;
        let verdict = if self.is_success() {
            "Every contact got the message once, or is listed as in doubt."
        } else {
            "FAILED: see the sandbox's count."
        };
        write!(f, "\n{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_in_doubt_is_not_missed_but_may_not_get_two() {
        let asked_for = BTreeSet::from(["ana", "ben", "carla"]);
        let in_doubt = BTreeSet::from(["ana".to_owned(), "ben".to_owned()]);
        let ledger = ["ana", "ana", "zoe"].map(Received::to);

        let tally = Tally::count(&asked_for, &ledger, &in_doubt);

        assert_eq!(tally.twice, ["ana"]);
        assert_eq!(tally.missed, ["carla"]);
        assert_eq!(tally.strangers, ["zoe"]);
    }
}
