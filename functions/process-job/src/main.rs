//! The executable of the Lambda function process-job.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    process_job::run().await
}
