//! The floor: the least that sending each contact one message takes, with the same clients as they come. One conditional put, one
//! request to Messenger and one update a message; no pace, no stop, no recovery.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::interval;
use uuid::Uuid;

use crate::process::usage;
use crate::stack::contact;

/// The messages that the loop sends, and the number of them in flight.
pub const COUNT: &str = "BENCH_COUNT";
pub const IN_FLIGHT: &str = "BENCH_IN_FLIGHT";
/// The messages of a second; without it there is no pace.
pub const RATE: &str = "BENCH_RATE";
pub const PAGE: &str = "BENCH_PAGE";
pub const TOKEN: &str = "BENCH_TOKEN";

struct Loop {
    dynamodb: aws_sdk_dynamodb::Client,
    http: reqwest::Client,
    table: String,
    url: String,
    token: String,
    /// A job of its own for each run.
    job: String,
}

/// Sends the messages that the environment asks for, and prints what they took.
#[tokio::main(flavor = "current_thread")]
pub async fn run() -> Result<(), Box<dyn Error>> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let (count, in_flight): (usize, usize) = (variable(COUNT)?.parse()?, variable(IN_FLIGHT)?.parse()?);
    let page = variable(PAGE)?;
    let aws = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let sender = Loop {
        dynamodb: aws_sdk_dynamodb::Client::new(&aws),
        http: reqwest::Client::new(),
        table: variable("DELIVERIES_TABLE")?,
        url: format!("{}/{page}/messages", variable("GRAPH_API_URL")?),
        token: variable(TOKEN)?,
        job: format!("{}/{page}", Uuid::now_v7()),
    };
    let before = usage(std::process::id())?;
    let rate = std::env::var(RATE).ok().and_then(|rate| rate.parse().ok());
    let pace = rate.map(|rate: f64| interval(Duration::from_secs_f64(1.0 / rate)));
    let numbers = stream::unfold((0, pace), |(n, mut pace)| async move {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        Some((n, (n + 1, pace)))
    });
    numbers
        .take(count)
        .map(|n| sender.send(n))
        .buffer_unordered(in_flight)
        .try_collect::<Vec<()>>()
        .await?;
    let after = usage(std::process::id())?;
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    println!("{}", json!({"cpu_seconds": cpu, "peak_mib": after.peak_mib}));
    Ok(())
}

impl Loop {
    async fn send(&self, n: usize) -> Result<(), Box<dyn Error>> {
        let (contact_id, token) = (contact(n), Uuid::new_v4().simple().to_string());
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let now = || AttributeValue::N(Timestamp::now().as_millisecond().to_string());
        self.dynamodb
            .put_item()
            .table_name(&self.table)
            .item("job", text(&self.job))
            .item("contact_id", text(&contact_id))
            .item("status", text("reserved"))
            .item("token", text(&token))
            .item("reserved_at", now())
            .condition_expression("attribute_not_exists(contact_id)")
            .send()
            .await?;
        let answer = self.http.post(&self.url).bearer_auth(&self.token).json(&json!({
            "recipient": {"id": contact_id},
            "messaging_type": "RESPONSE",
            "message": {"text": format!("Hello Ana {n}, the shop opens at nine."), "metadata": token},
        }));
        let answer: Value = answer.send().await?.error_for_status()?.json().await?;
        let message_id = answer["message_id"].as_str().ok_or("no message id")?;
        let key = HashMap::from([
            ("job".to_owned(), text(&self.job)),
            ("contact_id".to_owned(), text(&contact_id)),
        ]);
        self.dynamodb
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key))
            .update_expression("SET #status = :sent, message_id = :message_id, updated_at = :now")
            .condition_expression("#status = :reserved AND #token = :token")
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#token", "token")
            .expression_attribute_values(":sent", text("sent"))
            .expression_attribute_values(":reserved", text("reserved"))
            .expression_attribute_values(":token", text(&token))
            .expression_attribute_values(":message_id", text(message_id))
            .expression_attribute_values(":now", now())
            .send()
            .await?;
        Ok(())
    }
}
