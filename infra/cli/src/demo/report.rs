//! The result of the demo. The sandbox's ledger decides about success, not Oncecast's own tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use client::api::broadcasts::{BroadcastReport, BroadcastSummary};
use client::api::deliveries::DeliveryReport;
use local::sandbox::Received;
use shared::domain::delivery::Status;
use shared::domain::job::Counters;

/// The received messages compared with the requested ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Contacts with more than one message.
    pub twice: Vec<String>,
    /// Contacts without a message that Oncecast does not report as failed, skipped or in doubt.
    pub missed: Vec<String>,
    /// Contacts with a message that was not requested.
    pub strangers: Vec<String>,
    /// Contacts with a report that the sandbox contradicts.
    pub wrong: Vec<String>,
}

impl Tally {
    /// Compares the requested contacts and Oncecast's report of them with the messages that the sandbox delivered.
    pub fn count(requested: &BTreeSet<&str>, received: &[Received], deliveries: &[DeliveryReport]) -> Tally {
        let mut messages: BTreeMap<&str, usize> = BTreeMap::new();
        for message in received {
            *messages.entry(&message.contact_id).or_default() += 1;
        }
        let message_ids: BTreeMap<&str, &str> = received
            .iter()
            .map(|message| (message.contact_id.as_str(), message.message_id.as_str()))
            .collect();
        let owned = |contact_id: &str| contact_id.to_owned();
        let without_message = [Status::InDoubt, Status::Failed, Status::Skipped];
        let known: BTreeSet<_> = deliveries
            .iter()
            .filter(|delivery| without_message.contains(&delivery.status))
            .map(|delivery| delivery.contact_id.as_str())
            .collect();
        let is_wrong = |delivery: &&DeliveryReport| {
            let got = message_ids.get(delivery.contact_id.as_str()).copied();
            match delivery.status {
                Status::Sent => got.is_none() || got != delivery.message_id.as_deref(),
                Status::InDoubt => false,
                _ => got.is_some(),
            }
        };
        Tally {
            twice: messages
                .iter()
                .filter(|(_, count)| **count > 1)
                .map(|(contact_id, _)| owned(contact_id))
                .collect(),
            missed: requested
                .iter()
                .filter(|contact_id| !messages.contains_key(*contact_id) && !known.contains(*contact_id))
                .map(|contact_id| owned(contact_id))
                .collect(),
            strangers: messages
                .keys()
                .filter(|contact_id| !requested.contains(*contact_id))
                .map(|contact_id| owned(contact_id))
                .collect(),
            wrong: deliveries
                .iter()
                .filter(is_wrong)
                .map(|delivery| delivery.contact_id.as_str().to_owned())
                .collect(),
        }
    }
}

/// The summary that the demo prints at its end.
#[derive(Debug)]
pub struct Report {
    pub tally: Tally,
    pub received: Vec<Received>,
    pub broadcast: BroadcastReport,
    /// The ids of the killed processes.
    pub killed: Vec<u32>,
    /// The time from the first request to the last settled delivery.
    pub duration: Duration,
}

impl Report {
    /// Returns true if each contact received the message once, or is reported as not having received it or as in doubt.
    pub fn is_success(&self) -> bool {
        let Tally {
            twice,
            missed,
            strangers,
            wrong,
        } = &self.tally;
        [twice, missed, strangers, wrong]
            .iter()
            .all(|contacts| contacts.is_empty())
    }

    /// Returns the messages per second, from the first arrival to the last.
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
        let BroadcastSummary {
            status,
            contacts,
            counters: Counters { outcomes, .. },
            duplicates_prevented: prevented,
            ..
        } = &self.broadcast.summary;
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
        row("  sent", &outcomes.sent)?;
        row("  failed", &outcomes.failed)?;
        row("  skipped", &outcomes.skipped)?;
        row("  in doubt", &outcomes.in_doubt)?;
        row("The sandbox's count", &"")?;
        row("  messages received", &self.received.len())?;
        row("  contacts that got two", &self.tally.twice.len())?;
        row("  contacts missed", &self.tally.missed.len())?;
        row("  contacts not requested", &self.tally.strangers.len())?;
        row("  contacts reported wrongly", &self.tally.wrong.len())?;
        row("Processes killed", &self.killed.len())?;
        row("Messages per second", &format!("{:.1}", self.rate()))?;
        row("Seconds", &format!("{:.1}", self.duration.as_secs_f64()))?;
        let verdict = if self.is_success() {
            "Every contact got the message once, or is listed as failed or in doubt."
        } else {
            "FAILED: see the sandbox's count."
        };
        write!(f, "\n{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use local::sandbox::MessagingType;
    use shared::domain::ids::{ContactId, PageId};

    use super::*;

    /// Returns a message as the sandbox's ledger holds it.
    fn received(contact_id: &str) -> Received {
        Received {
            page_id: "page".to_owned(),
            contact_id: contact_id.to_owned(),
            messaging_type: MessagingType::Update,
            tag: None,
            notification_type: None,
            text: None,
            attachment: None,
            template: None,
            quick_replies: None,
            metadata: None,
            appsecret_proof: None,
            message_id: "m".to_owned(),
            at: 0,
        }
    }

    fn delivery(contact_id: &str, status: Status) -> DeliveryReport {
        DeliveryReport {
            contact_id: ContactId::parse(contact_id).unwrap(),
            page_id: PageId::parse("page").unwrap(),
            status,
            message_id: (status == Status::Sent).then(|| "m".to_owned()),
            reason: None,
            code: None,
            attempts: 1,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn report_that_the_sandbox_contradicts_is_wrong() {
        let requested = BTreeSet::from(["ana", "ben", "carla"]);
        let ledger = ["ana", "ben"].map(received);
        let deliveries = [
            delivery("ana", Status::Sent),
            delivery("ben", Status::Failed),
            delivery("carla", Status::Sent),
        ];

        let tally = Tally::count(&requested, &ledger, &deliveries);

        assert_eq!(tally.wrong, ["ben", "carla"]);
        assert_eq!(tally.missed, ["carla"]);
    }

    #[test]
    fn contact_in_doubt_is_not_missed_but_must_not_get_two_messages() {
        let requested = BTreeSet::from(["ana", "ben", "carla"]);
        let deliveries = ["ana", "ben"].map(|contact_id| delivery(contact_id, Status::InDoubt));
        let ledger = ["ana", "ana", "zoe"].map(received);

        let tally = Tally::count(&requested, &ledger, &deliveries);

        assert_eq!(tally.twice, ["ana"]);
        assert_eq!(tally.missed, ["carla"]);
        assert_eq!(tally.strangers, ["zoe"]);
    }
}
