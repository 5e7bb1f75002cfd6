//! The executable of the Lambda function send.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    send::run().await
}
