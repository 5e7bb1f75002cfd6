//! scheduled: fired every minute, has every job looked at whose time has come, and settles what is in doubt.

use std::time::Duration;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use shared::app::App;
use shared::settle::settle_doubts;
use shared::wake::wake_jobs;
use tokio::time::Instant;
use tracing::{info, warn};

/// What an invocation needs besides its last look-up.
const WIND_UP: Duration = Duration::from_secs(5);

/// Runs as a Lambda function until the process is told to end.
pub async fn run() -> Result<(), Error> {
    shared::telemetry::init();
    let app = &App::from_env().await.map_err(|error| error.to_string())?;
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| async move {
        let time_left = App::time_left(event.context.deadline);
        // A look-up is two calls.
        let last_look = 2 * app.config.messenger_timeout + WIND_UP;
        let time = time_left.saturating_sub(last_look).max(time_left / 2);
        handle(app, Instant::now() + time).await
    }))
    .await
}

/// How long the oldest delivery has been in doubt that is still to be looked up: nothing is zero. Asked only if somebody is
/// told.
async fn oldest_doubt(app: &App) -> Option<Duration> {
    if !app.metrics.are_wanted() {
        return None;
    }
    let oldest = app.store.oldest_doubt().await;
    let oldest = oldest.inspect_err(|error| {
        let error: &dyn std::error::Error = error;
        warn!(error, "the age of the oldest doubt is not known");
    });
    let age = |reserved_at| app.clock.now().duration_since(reserved_at).unsigned_abs();
    Some(oldest.ok()?.map(age).unwrap_or_default())
}

/// Hints what is due, and looks up what is in doubt, until `ends` at the latest; what is left then is seen at the next
/// firing. An error ends this firing only, and not before both were tried.
pub async fn handle(app: &App, ends: Instant) -> Result<(), Error> {
    let half = ends.saturating_duration_since(Instant::now()) / 2;
    let woken = wake_jobs(app, ends - half).await;
    let settled = settle_doubts(app, ends).await;
    app.metrics.print(oldest_doubt(app).await, app.clock.now());
    let (woken, settled) = (woken?, settled?);
    if woken > 0 || settled > 0 {
        info!(
            jobs.hinted = woken,
            deliveries.settled = settled,
            "jobs woken, deliveries settled"
        );
    }
    Ok(())
}
