//! SDK clients for our own endpoints. Local services check no signatures, so the credentials are placeholders.

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};

/// The region that every local resource lives in.
pub const REGION: &str = "us-east-1";

/// Stands for an access key and for its secret.
pub const PLACEHOLDER_KEY: &str = "local";

/// A DynamoDB client for an endpoint of this machine.
pub fn dynamodb(endpoint: &str) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(placeholder())
        .endpoint_url(endpoint)
        .build();
    aws_sdk_dynamodb::Client::from_conf(config)
}

/// An SQS client for an endpoint of this machine.
pub fn sqs(endpoint: &str) -> aws_sdk_sqs::Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(placeholder())
        .endpoint_url(endpoint)
        .build();
    aws_sdk_sqs::Client::from_conf(config)
}

fn placeholder() -> Credentials {
    Credentials::new(PLACEHOLDER_KEY, PLACEHOLDER_KEY, None, None, "local")
}
