//! process-job: fed by the queue of hints, works one slice of the job that a hint names.

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use lambda_runtime::{Context, LambdaEvent, service_fn};
use shared::app::App;
use shared::ids::JobId;
use shared::work::work_on;
use tokio::time::Instant;
use tracing::{error, warn};

/// Runs as a Lambda function until the process is told to end.
pub async fn run() -> Result<(), lambda_runtime::Error> {
    shared::telemetry::init();
    let app = &App::from_env().await.map_err(|error| error.to_string())?;
    lambda_runtime::run(service_fn(|event: LambdaEvent<SqsEvent>| async move {
        Ok::<_, lambda_runtime::Error>(handle(app, event.payload, &event.context).await)
    }))
    .await
}

/// Works off hints in their order, and gives back to the queue the first that fails and all behind it.
///
/// A hint fails if its job could not be looked at: a table gave no answer. It comes again, and so does the job by itself. A
/// message that is no hint of ours fails at once; after its receives it ends in the dead-letter queue.
pub async fn handle(app: &App, event: SqsEvent, context: &Context) -> SqsBatchResponse {
    let ends = Instant::now() + App::time_left(context.deadline);
    let mut answer = SqsBatchResponse::default();
    for message in event.records {
        let failed = !answer.batch_item_failures.is_empty();
        if failed || !look_at(app, &message, ends).await {
            answer.add_failure(message.message_id.unwrap_or_default());
        }
    }
    app.metrics.print(None, app.clock.now());
    answer
}

async fn look_at(app: &App, message: &SqsMessage, ends: Instant) -> bool {
    let id = message.message_id.as_deref().unwrap_or_default();
    let Some(job) = job_in(message) else {
        warn!(
            message.id = id,
            "message is no hint; it will end in the dead-letter queue"
        );
        return false;
    };
    match Box::pin(work_on(app, &job, ends)).await {
        Ok(_) => true,
        Err(error) => {
            error!(job.id = %job, error = &error as &dyn std::error::Error, "job not worked off");
            false
        }
    }
}

fn job_in(message: &SqsMessage) -> Option<JobId> {
    serde_json::from_str(message.body.as_deref()?).ok()
}
