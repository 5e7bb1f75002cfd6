//! Metrics: what an invocation has come to in numbers, printed as CloudWatch's embedded metric format has it.
//!
//! An event is counted where the conditional write that made it was answered, so what is tried twice is counted once. A
//! process that is killed takes its counts with it: they are for looking and for alarms, and the tables hold the truth.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tracing::warn;

use crate::delivery::State;

/// An event that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A delivery became `sent`.
    Sent,
    /// … `failed`.
    Failed,
    /// … `skipped`.
    Skipped,
    /// … `in_doubt`.
    InDoubt,
    /// A live lease refused a worker.
    ClaimsRefused,
    /// A Page pauses, because Messenger limits it.
    RateLimitWaits,
    /// A job was halted.
    JobsHalted,
    /// A job was completed.
    JobsCompleted,
    /// A delivery in doubt was settled, by whatever evidence.
    DoubtsSettled,
    /// The last look-up found nothing: a delivery stays in doubt.
    DoubtsLeft,
    /// SQS did not take a hint.
    HintsLost,
}

impl Event {
    const ALL: [Self; 11] = [
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
        Self::HintsLost,
    ];

    /// That a delivery came to this state; nothing for states that it passes through.
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

/// Where a duplicate was prevented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// An id was repeated in a request.
    Request,
    /// A request was repeated.
    Replay,
    /// Another works on the job.
    Claim,
    /// The contact was settled before.
    Reservation,
}

impl Layer {
    const ALL: [Self; 4] = [Self::Request, Self::Replay, Self::Claim, Self::Reservation];
}

/// What has been counted since it was printed last. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Nobody is told without one.
    namespace: Option<String>,
    events: [AtomicU64; Event::ALL.len()],
    prevented: [AtomicU64; Layer::ALL.len()],
}

impl Metrics {
    /// Counts for this CloudWatch namespace, or for nobody.
    pub fn new(namespace: Option<String>) -> Self {
        Self(Arc::new(Counts {
            namespace,
            ..Counts::default()
        }))
    }

    /// Whether anybody is told.
    pub fn are_wanted(&self) -> bool {
        self.0.namespace.is_some()
    }

    /// Counts something that happened.
    pub fn count(&self, event: Event, times: u64) {
        self.0.events[event as usize].fetch_add(times, Ordering::Relaxed);
    }

    /// Counts duplicates that were prevented.
    pub fn prevented(&self, layer: Layer, duplicates: u64) {
        self.0.prevented[layer as usize].fetch_add(duplicates, Ordering::Relaxed);
    }

    /// Prints what has been counted to standard output, at the end of an invocation; nothing if nothing was.
    /// `oldest_doubt` is how long the oldest delivery has been in doubt that still waits to be looked up, if that was asked.
    pub fn print(&self, oldest_doubt: Option<Duration>, now: Timestamp) {
        if !self.are_wanted() {
            return;
        }
        let lines = self.take(oldest_doubt, now).into_iter();
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        // In one piece: the processes of a local stack share their output.
        if let Err(error) = std::io::stdout().lock().write_all(text.as_bytes()) {
            let error: &dyn std::error::Error = &error;
            warn!(error, "metrics not printed");
        }
    }

    /// What has been counted, as it is printed: one line for what has no dimension, and one for each layer that prevented something: a line has one value for each
    /// dimension.
    pub fn take(&self, oldest_doubt: Option<Duration>, now: Timestamp) -> Vec<Value> {
        let namespace = self.0.namespace.as_deref().unwrap_or_default();
        let take =
            |counter: &AtomicU64| Some(counter.swap(0, Ordering::Relaxed)).filter(|n| *n > 0);
        let mut lines = Vec::new();
        let events = Event::ALL.iter().zip(&self.0.events);
        let mut values: Vec<_> = events
            .filter_map(|(event, counter)| Some((format!("{event:?}"), "Count", take(counter)?)))
            .collect();
        if let Some(age) = oldest_doubt {
            values.push(("OldestDoubtSeconds".to_owned(), "Seconds", age.as_secs()));
        }
        if !values.is_empty() {
            lines.push(line(namespace, None, &values, now));
        }
        for (layer, counter) in Layer::ALL.iter().zip(&self.0.prevented) {
            if let Some(prevented) = take(counter) {
                let values = [("DuplicatesPrevented".to_owned(), "Count", prevented)];
                lines.push(line(namespace, Some(*layer), &values, now));
            }
        }
        lines
    }
}

fn line(
    namespace: &str,
    layer: Option<Layer>,
    values: &[(String, &str, u64)],
    now: Timestamp,
) -> Value {
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
        let layer = format!("{layer:?}").to_ascii_lowercase();
        line.insert("Layer".to_owned(), layer.into());
    }
    for (name, _, value) in values {
        line.insert(name.clone(), (*value).into());
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

    /// As CloudWatch's specification of the format has it; another member or form would lose the metric without a word.
    #[test]
    fn a_line_is_in_the_embedded_metric_format() {
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
    fn what_was_printed_is_not_printed_again_and_nothing_prints_nothing() {
        let metrics = Metrics::default();
        metrics.clone().count(Event::HintsLost, 1);

        assert_eq!(lines(&metrics, None).len(), 1);
        assert_eq!(lines(&metrics, None), [] as [Value; 0]);
    }

    #[test]
    fn every_event_and_layer_has_a_counter_of_its_own() {
        for (n, event) in Event::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, n, "{event:?}");
        }
        for (n, layer) in Layer::ALL.into_iter().enumerate() {
            assert_eq!(layer as usize, n, "{layer:?}");
        }
    }
}
