//! The function scheduled: fired every minute, wakes jobs whose time has come, and settles deliveries in doubt.

use std::time::Duration;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use shared::app::App;
use shared::domain::sending::SendingState;
use shared::reconcile::older_contacts::index_older_contacts;
use shared::reconcile::settle::settle_doubts;
use shared::reconcile::wake::{wake_imports, wake_jobs};
use shared::runtime::metrics::Event;
use shared::runtime::spans;
use tokio::time::Instant;
use tracing::{Instrument as _, error_span, info, warn};

/// The time-out of an invocation on AWS.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// The time that an invocation needs after its last lookup.
pub const WIND_UP: Duration = Duration::from_secs(5);

/// Runs as a Lambda function until the process is told to end.
///
/// # Errors
/// If the configuration is missing or wrong, or the Lambda Runtime API fails.
pub async fn run() -> Result<(), Error> {
    shared::runtime::telemetry::init();
    let app = &App::from_env().await.map_err(|error| error.to_string())?;
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| async move {
        // The level is `error`, so that no filter that shows a line leaves its span out.
        let span = error_span!("invocation", requestId = event.context.request_id);
        let time_left = App::time_left(event.context.deadline, TIMEOUT);
        // A lookup is two calls.
        let last_lookup = 2 * app.config.messenger_timeout + WIND_UP;
        let time = time_left.saturating_sub(last_lookup).max(time_left / 2);
        // Boxed: nested once more, its layout exceeds the compiler's recursion limit.
        let handled = Box::pin(handle(app, Instant::now() + time));
        let handled = handled.instrument(span).await;
        spans::export().await;
        handled
    }))
    .await
}

/// Wakes the jobs that are due, indexes contacts of an earlier version and looks up the deliveries in doubt, until `ends` at the
/// latest. The next firing goes on with what is left then.
///
/// # Errors
/// If a table did not answer; all parts were tried by then. The next firing tries again.
pub async fn handle(app: &App, ends: Instant) -> Result<(), Error> {
    let half = ends.saturating_duration_since(Instant::now()) / 2;
    let woken = wake_unless_off(app, ends - half).await;
    let imports = wake_imports(app, ends - half).await;
    // There are some after an update only, and then they must not hold up the rest.
    let quarter = ends.saturating_duration_since(Instant::now()) / 4;
    let indexed = index_older_contacts(app, Instant::now() + quarter).await;
    let settled = settle_doubts(app, ends).await;
    app.metrics.print(oldest_doubt(app).await, app.clock.now());
    let (woken, settled, _) = (woken? + imports?, settled?, indexed?);
    if woken > 0 || settled > 0 {
        info!(
            jobs.hinted = woken,
            deliveries.settled = settled,
            "jobs woken, deliveries settled"
        );
    }
    Ok(())
}

/// Wakes the jobs that are due, unless sending is switched off: they stay due, and are woken once it is on.
async fn wake_unless_off(app: &App, ends: Instant) -> Result<u64, shared::store::Error> {
    let switch = app.store.sending().read(app.clock.now()).await?;
    if switch.state != SendingState::On {
        app.metrics.count(Event::SendingOff, 1);
        let reason = switch.reason.as_deref().unwrap_or_default();
        warn!(sending.state = ?switch.state, sending.reason = reason, "sending is not switched on");
    }
    match switch.state {
        SendingState::On | SendingState::Halt => wake_jobs(app, ends).await,
        SendingState::Off => Ok(0),
    }
}

/// Returns the age of the oldest delivery in doubt that is still to be looked up (zero if there is none); `None` when metrics
/// are off or the query fails.
async fn oldest_doubt(app: &App) -> Option<Duration> {
    if !app.metrics.are_wanted() {
        return None;
    }
    let oldest = app.store.doubts().oldest().await;
    let oldest = oldest.inspect_err(|error| {
        let error: &dyn std::error::Error = error;
        warn!(
            error,
            "age of the oldest delivery in doubt unknown: this metric is left out"
        );
    });
    // A sender's clock may be ahead.
    let age = |reserved_at| Duration::try_from(app.clock.now().duration_since(reserved_at)).unwrap_or_default();
    Some(oldest.ok()?.map(age).unwrap_or_default())
}
