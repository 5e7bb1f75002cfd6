//! AWS SDK clients for the services of this machine. These check no signatures, so the credentials are placeholders.

use aws_config::SdkConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider, SharedHttpClient};
use aws_smithy_http_client::Builder;
use shared::runtime::parameters::ParameterClient;

/// The AWS Region of all local resources.
pub const REGION: &str = "us-east-1";

/// The placeholder for an access key and for its secret.
pub const PLACEHOLDER_KEY: &str = "local";

/// Returns a DynamoDB client for an endpoint of this machine.
pub fn dynamodb(endpoint: &str) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::from_conf(dynamodb_config(PLACEHOLDER_KEY, endpoint).build())
}

/// Returns the configuration of such a client that signs with the access key of this function.
pub fn dynamodb_config(function: &str, endpoint: &str) -> aws_sdk_dynamodb::config::Builder {
    aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(credentials(function))
        .http_client(plain_http())
        .endpoint_url(endpoint)
}

/// Returns an SQS client for an endpoint of this machine.
pub fn sqs(endpoint: &str) -> aws_sdk_sqs::Client {
    aws_sdk_sqs::Client::from_conf(sqs_config(PLACEHOLDER_KEY, endpoint).build())
}

/// Returns the configuration of such a client that signs with the access key of this function.
pub fn sqs_config(function: &str, endpoint: &str) -> aws_sdk_sqs::config::Builder {
    aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(credentials(function))
        .http_client(plain_http())
        .endpoint_url(endpoint)
}

/// Returns the parameters at an endpoint of this machine, for a function of this name.
pub fn parameters(function: &str, endpoint: &str) -> ParameterClient {
    let config = SdkConfig::builder()
        .region(Region::from_static(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials(function)))
        .endpoint_url(endpoint);
    ParameterClient::new(&config.build())
}

/// Returns the access key of a function. It consists of letters and digits only, as AWS's keys do and DynamoDB Local
/// requires.
pub fn access_key(function: &str) -> String {
    function.replace('-', "0")
}

/// Returns the name of the function that has this access key.
pub fn function_of(access_key: &str) -> String {
    access_key.replace('0', "-")
}

fn credentials(function: &str) -> Credentials {
    Credentials::new(access_key(function), PLACEHOLDER_KEY, None, None, "local")
}

/// Returns a client without TLS and without a proxy. The SDK's default client would read the machine's certificates
/// each time, and would send even calls to this machine to the operator's `HTTP_PROXY`.
fn plain_http() -> SharedHttpClient {
    Builder::new().build_http()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// The environment belongs to a whole process, so this runs other tests in a process with a proxy that refuses
    /// every connection.
    #[test]
    fn calls_to_this_machine_bypass_the_proxy() {
        for test in [
            "resources::tables::tests::tables_have_their_keys_indexes_and_ttl",
            "event_source::tests::processed_message_is_deleted",
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
