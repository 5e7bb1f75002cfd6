//! Metrics: the counts of an invocation, printed in CloudWatch's embedded metric format, see
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.
//!
//! An event is counted where its conditional write was answered, so that a repeated write is counted once. A process that is
//! killed loses its counts: they serve dashboards and alarms, and the tables hold the truth.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tracing::warn;

use crate::domain::delivery::State;

/// An event that is counted. Its metric has the name that [`Event::name`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A delivery became `sent`.
    Sent,
    /// A delivery became `failed`.
    Failed,
    /// A delivery became `skipped`.
    Skipped,
    /// A delivery became `in_doubt`.
    InDoubt,
    /// A live lease refused a claim.
    ClaimsRefused,
    /// A Page pauses, because Messenger limits its rate.
    RateLimitWaits,
    /// A job was halted.
    JobsHalted,
    /// A job was completed.
    JobsCompleted,
    /// A delivery in doubt was settled, by any evidence.
    DoubtsSettled,
    /// The last lookup found nothing, and a delivery stays in doubt.
    DoubtsLeft,
    /// SQS did not confirm a wake-up.
    WakeUpsLost,
    /// The echo of a message came after its delivery was recorded as `failed` or `skipped`.
    ArrivedAfterRefusal,
    /// An event of a webhook call could not be read.
    WebhookEventsUnreadable,
    /// A firing of the schedule found sending switched off or halted.
    SendingOff,
    /// A contact opted out by its own message.
    OptedOut,
    /// A contact opted in again by its own message.
    OptedIn,
}

impl Event {
    const ALL: [Self; 16] = [
        Self::Sent,
        Self::Failed,
        Self::Skipped,
        Self::InDoubt,
        Self::ClaimsRefused,
        Self::RateLimitWaits,
        Self::JobsHalted,
        Self::JobsCompleted,
        Self::DoubtsSettled,
        Self::DoubtsLeft,
        Self::WakeUpsLost,
        Self::ArrivedAfterRefusal,
        Self::WebhookEventsUnreadable,
        Self::SendingOff,
        Self::OptedOut,
        Self::OptedIn,
    ];

    /// Returns the name of the event's metric. Dashboards and alarms refer to it, so it never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sent => "Sent",
            Self::Failed => "Failed",
            Self::Skipped => "Skipped",
            Self::InDoubt => "InDoubt",
            Self::ClaimsRefused => "ClaimsRefused",
            Self::RateLimitWaits => "RateLimitWaits",
            Self::JobsHalted => "JobsHalted",
            Self::JobsCompleted => "JobsCompleted",
            Self::DoubtsSettled => "DoubtsSettled",
            Self::DoubtsLeft => "DoubtsLeft",
            // The word from before wake-ups had their name.
            Self::WakeUpsLost => "HintsLost",
            Self::ArrivedAfterRefusal => "ArrivedAfterRefusal",
            Self::WebhookEventsUnreadable => "WebhookEventsUnreadable",
            Self::SendingOff => "SendingOff",
            Self::OptedOut => "OptedOut",
            Self::OptedIn => "OptedIn",
        }
    }

    /// Returns the event that a delivery came to this state; `None` for a state that it passes through.
    pub fn of(state: &State) -> Option<Self> {
        match state {
            State::Sent { .. } => Some(Self::Sent),
            State::Failed { .. } => Some(Self::Failed),
            State::Skipped { .. } => Some(Self::Skipped),
            State::InDoubt { .. } => Some(Self::InDoubt),
            State::Reserved | State::Waiting { .. } => None,
        }
    }
}

/// The layer of the protocol that prevented a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Acceptance: an id was repeated in a request.
    Request,
    /// The request key: a request was repeated.
    Replay,
    /// The claim: another worker has the job.
    Claim,
    /// The reservation: the contact was settled before.
    Reservation,
}

impl Layer {
    const ALL: [Self; 4] = [Self::Request, Self::Replay, Self::Claim, Self::Reservation];

    /// Returns the value of the metric's dimension.
    fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Replay => "replay",
            Self::Claim => "claim",
            Self::Reservation => "reservation",
        }
    }
}

/// The counts since they were printed last. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// The CloudWatch namespace; without one, nothing is printed.
    namespace: Option<String>,
    events: [AtomicU64; Event::ALL.len()],
    prevented: [AtomicU64; Layer::ALL.len()],
}

impl Metrics {
    /// Returns zero counts for this CloudWatch namespace; without one, they are never printed.
    pub fn new(namespace: Option<String>) -> Self {
        Self(Arc::new(Counts {
            namespace,
            ..Counts::default()
        }))
    }

    /// Returns `true` if the counts are printed at all.
    pub fn are_wanted(&self) -> bool {
        self.0.namespace.is_some()
    }

    /// Counts an event that happened so many times.
    pub fn count(&self, event: Event, times: u64) {
        self.0.events[event as usize].fetch_add(times, Ordering::Relaxed);
    }

    /// Counts duplicates that a layer prevented.
    pub fn prevented(&self, layer: Layer, duplicates: u64) {
        self.0.prevented[layer as usize].fetch_add(duplicates, Ordering::Relaxed);
    }

    /// Prints the counts to standard output, at the end of an invocation, and resets them; prints nothing for zero counts.
    /// `oldest_doubt` is the age of the oldest delivery that still waits for a lookup, if it was asked for.
    pub fn print(&self, oldest_doubt: Option<Duration>, now: Timestamp) {
        if !self.are_wanted() {
            return;
        }
        let lines = self.take(oldest_doubt, now).into_iter();
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        // In one write, since the processes of a local stack share their output.
        if let Err(error) = std::io::stdout().lock().write_all(text.as_bytes()) {
            let error: &dyn std::error::Error = &error;
            warn!(error, "metrics not printed");
        }
    }

    /// Drains the counters as EMF records: one without dimensions, plus one per [`Layer`] with a count, since a record has one
    /// value per dimension.
    pub fn take(&self, oldest_doubt: Option<Duration>, now: Timestamp) -> Vec<Value> {
        let namespace = self.0.namespace.as_deref().unwrap_or_default();
        let take = |counter: &AtomicU64| Some(counter.swap(0, Ordering::Relaxed)).filter(|n| *n > 0);
        let mut lines = Vec::new();
        let events = Event::ALL.iter().zip(&self.0.events);
        let mut values: Vec<_> = events
            .filter_map(|(event, counter)| Some((event.name(), "Count", take(counter)?)))
            .collect();
        if let Some(age) = oldest_doubt {
            values.push(("OldestDoubtSeconds", "Seconds", age.as_secs()));
        }
        if !values.is_empty() {
            lines.push(line(namespace, None, &values, now));
        }
        for (layer, counter) in Layer::ALL.iter().zip(&self.0.prevented) {
            if let Some(prevented) = take(counter) {
                let values = [("DuplicatesPrevented", "Count", prevented)];
                lines.push(line(namespace, Some(*layer), &values, now));
            }
        }
        lines
    }
}

fn line(namespace: &str, layer: Option<Layer>, values: &[(&str, &str, u64)], now: Timestamp) -> Value {
    let metrics = values.iter();
    let metrics: Vec<_> = metrics
        .map(|(name, unit, _)| json!({"Name": name, "Unit": unit}))
        .collect();
    let dimensions: Vec<_> = layer.iter().map(|_| "Layer").collect();
    let mut line = Map::new();
    line.insert(
        "_aws".to_owned(),
        json!({
            "Timestamp": now.as_millisecond(),
            "CloudWatchMetrics": [{"Namespace": namespace, "Dimensions": [dimensions], "Metrics": metrics}],
        }),
    );
    if let Some(layer) = layer {
        line.insert("Layer".to_owned(), layer.name().into());
    }
    for (name, _, value) in values {
        line.insert((*name).to_owned(), (*value).into());
    }
    Value::Object(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(metrics: &Metrics, oldest_doubt: Option<u64>) -> Vec<Value> {
        let now = Timestamp::from_millisecond(1_764_000_000_123).unwrap();
        metrics.take(oldest_doubt.map(Duration::from_secs), now)
    }

    /// CloudWatch drops a metric without a message if a record deviates from the specification.
    #[test]
    fn record_is_in_the_embedded_metric_format() {
        let metrics = Metrics::new(Some("Oncecast/blue".to_owned()));
        metrics.count(Event::Sent, 3);
        metrics.count(Event::Sent, 2);
        metrics.count(Event::JobsCompleted, 1);
        metrics.prevented(Layer::Replay, 1);

        let aws = |dimensions, metrics| {
            json!({
                "Timestamp": 1_764_000_000_123_i64,
                "CloudWatchMetrics": [
                    {"Namespace": "Oncecast/blue", "Dimensions": [dimensions], "Metrics": metrics},
                ],
            })
        };
        let expected = [
            json!({
                "_aws": aws(json!([]), json!([
                    {"Name": "Sent", "Unit": "Count"},
                    {"Name": "JobsCompleted", "Unit": "Count"},
                    {"Name": "OldestDoubtSeconds", "Unit": "Seconds"},
                ])),
                "Sent": 5,
                "JobsCompleted": 1,
                "OldestDoubtSeconds": 0,
            }),
            json!({
                "_aws": aws(json!(["Layer"]), json!([{"Name": "DuplicatesPrevented", "Unit": "Count"}])),
                "Layer": "replay",
                "DuplicatesPrevented": 1,
            }),
        ];
        assert_eq!(lines(&metrics, Some(0)), expected);
    }

    #[test]
    fn counts_are_printed_once_and_zero_counts_never() {
        let metrics = Metrics::default();
        metrics.clone().count(Event::WakeUpsLost, 1);

        let lines_of_one = lines(&metrics, None);
        assert_eq!(lines_of_one.len(), 1);
        assert_eq!(lines_of_one[0]["HintsLost"], 1);
        assert_eq!(lines(&metrics, None), [] as [Value; 0]);
    }

    #[test]
    fn each_event_and_layer_has_its_own_counter() {
        for (n, event) in Event::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, n, "{event:?}");
        }
        for (n, layer) in Layer::ALL.into_iter().enumerate() {
            assert_eq!(layer as usize, n, "{layer:?}");
        }
    }
}
