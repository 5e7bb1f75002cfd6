//! The executable of the Lambda function scheduled.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    scheduled::run().await
}
