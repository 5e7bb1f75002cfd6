//! scheduled: fired every minute, has every job looked at whose time has come.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use shared::app::App;
use shared::wake::wake_jobs;
use tracing::info;

/// Runs as a Lambda function until the process is told to end.
pub async fn run() -> Result<(), Error> {
    shared::telemetry::init();
    let app = &App::from_env().await.map_err(|error| error.to_string())?;
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| async move {
        let time_left = App::time_left(event.context.deadline);
        handle(app, tokio::time::Instant::now() + time_left / 2).await
    }))
    .await
}

/// Hints what is due, until `ends` at the latest; what is left then is seen at the next firing. An error ends this firing
/// only.
pub async fn handle(app: &App, ends: tokio::time::Instant) -> Result<(), Error> {
    let hinted = wake_jobs(app, ends).await?;
    if hinted > 0 {
        info!(jobs.hinted = hinted, "jobs woken");
    }
    Ok(())
}
