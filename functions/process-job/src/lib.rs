//! The function process-job: fed by the queue of wake-ups, works one run of the job that a wake-up names.

use std::time::Duration;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use lambda_runtime::{Context, LambdaEvent, service_fn};
use shared::app::App;
use shared::domain::ids::JobId;
use shared::runtime::spans;
use shared::worker::claim::work_on;
use tokio::time::Instant;
use tracing::{Instrument as _, error, error_span, warn};

/// The time-out of an invocation on AWS.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// Runs as a Lambda function until the process is told to end.
///
/// # Errors
/// If the configuration is missing or wrong, or the Lambda Runtime API fails.
pub async fn run() -> Result<(), lambda_runtime::Error> {
    shared::runtime::telemetry::init();
    let app = &App::from_env().await.map_err(|error| error.to_string())?;
    lambda_runtime::run(service_fn(|event: LambdaEvent<SqsEvent>| async move {
        Ok::<_, lambda_runtime::Error>(handle(app, event.payload, &event.context).await)
    }))
    .await
}

/// Carries out wake-ups in their order. Gives back to the queue the first that fails and all behind it, as AWS asks for FIFO
/// queues (<https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>).
///
/// A wake-up fails if a table did not answer. The queue delivers it again; the job would also come back without it. A message
/// that is not a wake-up fails each time, and ends in the dead-letter queue.
pub async fn handle(app: &App, event: SqsEvent, context: &Context) -> SqsBatchResponse {
    // The level is `error`, so that no filter that shows a line leaves its span out.
    let span = error_span!("invocation", requestId = context.request_id);
    let ends = Instant::now() + App::time_left(context.deadline, TIMEOUT);
    let answer = carry_out_all(app, event, ends).instrument(span).await;
    app.metrics.print(None, app.clock.now());
    spans::export().await;
    answer
}

async fn carry_out_all(app: &App, event: SqsEvent, ends: Instant) -> SqsBatchResponse {
    let mut answer = SqsBatchResponse::default();
    for message in event.records {
        let has_failed = !answer.batch_item_failures.is_empty();
        if has_failed || !carry_out(app, &message, ends).await {
            answer.add_failure(message.message_id.unwrap_or_default());
        }
    }
    answer
}

/// Works on the job that a message names. Returns false if the queue is to deliver the message again.
async fn carry_out(app: &App, message: &SqsMessage, ends: Instant) -> bool {
    let id = message.message_id.as_deref().unwrap_or_default();
    let Some(job) = job_in(message) else {
        warn!(
            message.id = id,
            "message is not a wake-up; after its last receive it goes to the dead-letter queue"
        );
        return false;
    };
    match Box::pin(work_on(app, &job, ends)).await {
        Ok(_) => true,
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            error!(job.id = %job, error, "job not worked on; its wake-up is delivered again");
            false
        }
    }
}

fn job_in(message: &SqsMessage) -> Option<JobId> {
    serde_json::from_str(message.body.as_deref()?).ok()
}
