//! The cost of a delivered contact: the units that DynamoDB charges, the requests to each service, and the invocations.

use std::error::Error;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::sleep;

use crate::counter::{Count, Counter, Counts};
use crate::dollars::{self, Figures};
use crate::report::{Section, Target};
use crate::stack::{Bench, Counters, PAGE, UNPACED, contact};
use crate::{Measured, process};

/// The contacts of the broadcast whose units have a target.
const CONTACTS: usize = 10_000;
/// The contacts of the broadcast at the rate that users have, with echoes.
const PACED: (usize, u32) = (1_800, 30);
/// The most that a contact may cost.
const WRITES: Target = Target::AtMost(2.1);
const READS: Target = Target::AtMost(1.1);
/// The variable that has the figures written to the file from which `infra/README.md` is made.
const WRITE: &str = "WRITE_COST";
const APP_SECRET: &str = "the-app-secret-of-the-benchmark";

/// The requests and units of one broadcast.
struct Cost {
    contacts: f64,
    /// From the request to its answer.
    accepted: Counts,
    /// Afterwards, until the last echo.
    sent: Counts,
    wake_ups: f64,
    messages: f64,
    /// The calls of the webhook.
    webhooks: f64,
}

impl Cost {
    /// Returns the sum of both, for one contact.
    fn of_a_contact(&self) -> Count {
        let mut sum = self.accepted.total();
        sum += self.sent.total();
        self.per_contact(sum)
    }

    fn per_contact(&self, count: Count) -> Count {
        Count {
            requests: count.requests / self.contacts,
            write_units: count.write_units / self.contacts,
            read_units: count.read_units / self.contacts,
        }
    }

    /// Returns what a function consumed of a table after the request, for one contact.
    fn of(&self, function: &str, table: &str) -> Count {
        let sum = self
            .sent
            .sum(|origin| origin.function == function && origin.table.ends_with(table));
        self.per_contact(sum)
    }
}

pub async fn measure() -> Measured {
    let mut section = Section::new("cost", "units, requests and invocations for each delivered contact");
    let contacts: Vec<_> = (0..CONTACTS).map(contact).collect();

    let (bench, counters) = Bench::start_counted(UNPACED, &[]).await?;
    counters.dynamodb.take();
    bench.import(PAGE, 0, CONTACTS).await?;
    let import = counters.dynamodb.take().total();
    let cost = broadcast(&bench, &counters, &contacts, None).await?;
    bench.stack.stop().await;
    let each = cost.of_a_contact();
    section.compare("write units a contact", each.write_units, "", WRITES);
    section.compare("read units a contact", each.read_units, "", READS);
    section.add("requests to DynamoDB a contact", each.requests, "");
    section.add("requests to Messenger a contact", cost.messages / cost.contacts, "");
    section.add("wake-ups of the broadcast", cost.wake_ups, "");
    section.add(
        "write units an imported contact",
        import.write_units / cost.contacts,
        "",
    );
    section.add("read units an imported contact", import.read_units / cost.contacts, "");

    let (count, rate) = PACED;
    let directory = TempDir::new_in(process::executables())?;
    let secret = directory.path().join("app-secret");
    std::fs::write(&secret, APP_SECRET)?;
    let secret = format!("file:{}", secret.display());
    let (bench, counters) = Bench::start_counted(rate, &[("APP_SECRET", &secret)]).await?;
    bench.import(PAGE, 0, count).await?;
    let api = Counter::start().await?;
    api.forward_to(&bench.stack.api_url());
    let webhook = format!("{}/v1/webhooks/messenger", api.url());
    bench
        .stack
        .sandbox()
        .ok_or("no sandbox")?
        .subscribe(&webhook, APP_SECRET)?;
    let paced = broadcast(&bench, &counters, &contacts[..count], Some(&api)).await?;
    bench.stack.stop().await;
    let (each, echo) = (paced.of_a_contact(), paced.of("send", "deliveries"));
    // Further digits would differ with each run.
    let rounded = |figure: f64| (figure * 1e3).round() / 1e3;
    let figures = Figures {
        write_units: rounded(each.write_units - echo.write_units),
        read_units: rounded(each.read_units - echo.read_units),
        echo_write_units: rounded(echo.write_units),
        echo_read_units: rounded(echo.read_units),
        echoes_a_call: rounded(paced.contacts / paced.webhooks),
        import_write_units: rounded(import.write_units / cost.contacts),
        import_read_units: rounded(import.read_units / cost.contacts),
    };
    section.compare(
        "write units a contact, at 30/s with its echo",
        each.write_units,
        "",
        WRITES,
    );
    section.add("read units a contact, at 30/s with its echo", each.read_units, "");
    section.add("read units an echo", echo.read_units, "");
    section.add("write units an echo", echo.write_units, "");
    section.add("requests to DynamoDB an echo", echo.requests, "");
    section.compare(
        "invocations an echo",
        paced.webhooks / paced.contacts,
        "",
        Target::AtMost(1.0),
    );
    section.add("wake-ups at 30/s", paced.wake_ups, "");
    section.note(dollars::markdown(&figures));
    if std::env::var_os(WRITE).is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/cost.json");
        std::fs::write(path, serde_json::to_string_pretty(&figures)? + "\n")?;
    }
    Ok(section)
}

/// Sends a broadcast, and returns what it cost. With a counter before the API, it waits for the last echo.
async fn broadcast(
    bench: &Bench,
    counters: &Counters,
    contacts: &[String],
    api: Option<&Counter>,
) -> Result<Cost, Box<dyn Error>> {
    counters.dynamodb.take();
    counters.sqs.take();
    counters.messenger.take();
    let id = bench.accept(contacts).await?;
    let accepted = counters.dynamodb.take();
    // The report would be read all the time otherwise.
    let sandbox = bench.stack.sandbox().ok_or("no sandbox")?;
    while sandbox.received_count() < contacts.len() {
        sleep(Duration::from_millis(200)).await;
    }
    bench.complete(&id, contacts.len()).await?;
    let mut webhooks = 0.0;
    while let Some(more) = api.map(|api| api.take().total().requests).filter(|more| *more > 0.0) {
        webhooks += more;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(Cost {
        contacts: contacts.len() as f64,
        accepted,
        sent: counters.dynamodb.take(),
        wake_ups: counters.sqs.take().total().requests,
        messages: counters.messenger.take().total().requests,
        webhooks,
    })
}
