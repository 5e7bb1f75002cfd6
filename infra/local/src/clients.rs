//! SDK clients for our own endpoints. Local services check no signatures, so the credentials are placeholders.

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use aws_smithy_http_client::Builder;

/// The region that every local resource lives in.
pub const REGION: &str = "us-east-1";

/// Stands for an access key and for its secret.
pub const PLACEHOLDER_KEY: &str = "local";

/// A DynamoDB client for an endpoint of this machine.
pub fn dynamodb(endpoint: &str) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::from_conf(dynamodb_config(PLACEHOLDER_KEY, endpoint).build())
}

/// What such a client is made of, for a function of this name.
pub fn dynamodb_config(function: &str, endpoint: &str) -> aws_sdk_dynamodb::config::Builder {
    aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(credentials(function))
        .http_client(plain())
        .endpoint_url(endpoint)
}

/// An SQS client for an endpoint of this machine.
pub fn sqs(endpoint: &str) -> aws_sdk_sqs::Client {
    aws_sdk_sqs::Client::from_conf(sqs_config(PLACEHOLDER_KEY, endpoint).build())
}

/// What such a client is made of, for a function of this name.
pub fn sqs_config(function: &str, endpoint: &str) -> aws_sdk_sqs::config::Builder {
    aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(credentials(function))
        .http_client(plain())
        .endpoint_url(endpoint)
}

/// A client of the Systems Manager's parameters for an endpoint of this machine.
pub fn ssm(endpoint: &str) -> aws_sdk_ssm::Client {
    aws_sdk_ssm::Client::from_conf(ssm_config(PLACEHOLDER_KEY, endpoint).build())
}

/// What such a client is made of, for a function of this name.
pub fn ssm_config(function: &str, endpoint: &str) -> aws_sdk_ssm::config::Builder {
    aws_sdk_ssm::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(credentials(function))
        .http_client(plain())
        .endpoint_url(endpoint)
}

/// The access key of a function: of letters and digits alone, as AWS's are and as DynamoDB Local wants them.
pub fn access_key(function: &str) -> String {
    function.replace('-', "0")
}

/// The function that has this access key.
pub fn function_of(access_key: &str) -> String {
    access_key.replace('0', "-")
}

fn credentials(function: &str) -> Credentials {
    Credentials::new(access_key(function), PLACEHOLDER_KEY, None, None, "local")
}

/// Our endpoints speak plain HTTP. The SDK's default client would read the machine's certificates each time, and send even
/// calls to this machine to the operator's `HTTP_PROXY`.
fn plain() -> SharedHttpClient {
    Builder::new().build_http()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// The environment belongs to a whole process, so other tests are run in one whose proxy refuses everybody.
    #[test]
    fn a_proxy_is_not_asked_for_what_is_on_this_machine() {
        for test in [
            "resources::tables::tests::tables_have_their_keys_indexes_and_ttl",
            "event_source::tests::a_processed_message_is_deleted",
        ] {
            let ended = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test])
                .env("HTTP_PROXY", "http://127.0.0.1:9")
                .output()
                .unwrap();
            let report = String::from_utf8_lossy(&ended.stdout);
            assert!(report.contains("1 passed"), "{report}");
        }
    }
}
