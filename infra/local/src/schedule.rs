//! EventBridge's schedule: invokes a function at a fixed interval, never twice at the same time.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{self, MissedTickBehavior};
use uuid::Uuid;

use crate::clients::REGION;
use crate::lambda::Function;

/// Invokes the function now and then at each interval; never returns.
pub async fn run(function: Function, every: Duration) {
    let mut ticks = time::interval(every);
    // A tick during a running invocation is skipped rather than made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let event = scheduled_event(Timestamp::now());
        if let Err(error) = function.invoke(event.to_string()).await {
            tracing::warn!(
                function.name = function.name(),
                error = %error,
                "scheduled invocation failed; the next one follows at its regular time"
            );
        }
    }
}

/// Returns the event that EventBridge sends at a tick of a schedule.
fn scheduled_event(now: Timestamp) -> Value {
    json!({
        "version": "0",
        "id": Uuid::new_v4().to_string(),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "000000000000",
        "time": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "region": REGION,
        "resources": [format!("arn:aws:events:{REGION}:000000000000:rule/schedule")],
        "detail": {},
    })
}

#[cfg(test)]
mod tests {
    use aws_lambda_events::eventbridge::EventBridgeEvent;

    use super::*;

    #[test]
    fn event_deserializes_as_an_eventbridge_event() {
        let event = scheduled_event("2026-12-01T09:00:00.5Z".parse().unwrap());

        let event: EventBridgeEvent = serde_json::from_value(event).unwrap();

        assert_eq!(event.detail_type, "Scheduled Event");
        assert_eq!(event.time.unwrap().timestamp(), 1_796_115_600);
    }
}
