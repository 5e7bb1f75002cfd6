//! The price of a million messages: the figures that `cargo bench -p tests -- cost` has measured, times AWS's list prices.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The measured figures for each contact of a broadcast at 30 messages a second; committed as `cost.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    /// The units of the request and of the worker.
    pub write_units: f64,
    pub read_units: f64,
    /// The units of the contact's echo.
    pub echo_write_units: f64,
    pub echo_read_units: f64,
    /// The echoes in one call of the webhook, as the sandbox sends them.
    pub echoes_a_call: f64,
    /// The units of the import of a contact.
    pub import_write_units: f64,
    pub import_read_units: f64,
}

/// A list price in dollars, of what, and the page that has it.
struct Price {
    dollars: f64,
    of: &'static str,
    page: &'static str,
}

// us-east-1, the first tier, without the free tier, as of 2026.
const WRITES: Price = Price {
    dollars: 0.625,
    of: "a million write request units",
    page: "https://aws.amazon.com/dynamodb/pricing/on-demand/",
};
const READS: Price = Price {
    dollars: 0.125,
    of: "a million read request units",
    page: "https://aws.amazon.com/dynamodb/pricing/on-demand/",
};
const INVOCATIONS: Price = Price {
    dollars: 0.20,
    of: "a million invocations",
    page: "https://aws.amazon.com/lambda/pricing/",
};
const GB_SECONDS: Price = Price {
    dollars: 0.000_013_333_4,
    of: "a GB-second of arm64",
    page: "https://aws.amazon.com/lambda/pricing/",
};
const CALLS: Price = Price {
    dollars: 1.00,
    of: "a million requests to an HTTP API",
    page: "https://aws.amazon.com/api-gateway/pricing/",
};
const QUEUE: Price = Price {
    dollars: 0.50,
    of: "a million requests to a FIFO queue",
    page: "https://aws.amazon.com/sqs/pricing/",
};
const LOGS: Price = Price {
    dollars: 0.50,
    of: "a GB of logs",
    page: "https://aws.amazon.com/cloudwatch/pricing/",
};
const PRICES: [Price; 7] = [WRITES, READS, INVOCATIONS, GB_SECONDS, CALLS, QUEUE, LOGS];

// The assumptions: the default rate of a Page, one Page at a time; the memory of the functions; the sends of one run, of two minutes
// less the time in which its last send ends; and of a call of the webhook its time and its logs (a line of the API's, `START`, `END`
// and `REPORT`).
pub const RATE: f64 = 30.0;
pub const PROCESS_JOB_MB: f64 = 512.0;
pub const SEND_MB: f64 = 1024.0;
pub const RUN_SECONDS: f64 = 95.0;
const CALL_SECONDS: f64 = 0.05;
const CALL_LOG_BYTES: f64 = 700.0;

/// The send, the receipt and the deletion of a wake-up.
const REQUESTS_OF_A_WAKE_UP: f64 = 3.0;
const MESSAGES: f64 = 1e6;
const GB: f64 = 1e9;

/// A line of the table: the thing that is paid for, its computation, and the dollars.
pub type Line = (String, String, f64);

/// Returns the lines of a million messages: those without echoes, those of echoes that come alone, and those of an import.
pub fn lines(figures: &Figures) -> [Vec<Line>; 3] {
    let seconds = MESSAGES / RATE;
    let memory = PROCESS_JOB_MB / 1024.0;
    let runs = seconds / RUN_SECONDS;
    let sent = vec![
        units("DynamoDB: request and worker", figures.write_units, figures.read_units),
        (
            "Lambda: `process-job`".to_owned(),
            format!("{} s × {memory} GB", whole(seconds)),
            seconds * memory * GB_SECONDS.dollars,
        ),
        (
            "wake-ups: SQS and invocations".to_owned(),
            format!("{} runs of {RUN_SECONDS} s, 3 requests each", whole(runs)),
            runs / MESSAGES * (REQUESTS_OF_A_WAKE_UP * QUEUE.dollars + INVOCATIONS.dollars),
        ),
    ];
    let memory = SEND_MB / 1024.0;
    let echoes = vec![
        (
            "echoes: the API".to_owned(),
            "a million requests".to_owned(),
            CALLS.dollars,
        ),
        (
            "echoes: `send`".to_owned(),
            format!("a million invocations, {} ms × {memory} GB each", CALL_SECONDS * 1e3),
            INVOCATIONS.dollars + MESSAGES * CALL_SECONDS * memory * GB_SECONDS.dollars,
        ),
        (
            "echoes: logs of both".to_owned(),
            format!("{CALL_LOG_BYTES} bytes each"),
            MESSAGES * CALL_LOG_BYTES / GB * LOGS.dollars,
        ),
        units("echoes: DynamoDB", figures.echo_write_units, figures.echo_read_units),
    ];
    let import = units(
        "an import of a million contacts: DynamoDB",
        figures.import_write_units,
        figures.import_read_units,
    );
    [sent, echoes, vec![import]]
}

/// Returns the dollars of a million messages: without echoes, and with so many echoes in a call.
pub fn together(figures: &Figures, echoes_a_call: f64) -> (f64, f64) {
    let sum = |lines: &[Line]| lines.iter().map(|(_, _, dollars)| dollars).sum::<f64>();
    let [sent, echoes, _] = lines(figures);
    // The last line is of rows, which cost the same in whatever call they come.
    let (calls, rows) = echoes.split_at(echoes.len() - 1);
    (sum(&sent), sum(&sent) + sum(calls) / echoes_a_call + sum(rows))
}

/// Returns the part of `infra/README.md` that is made of the figures.
pub fn markdown(figures: &Figures) -> String {
    let [sent, echoes, import] = lines(figures);
    let (without, alone) = together(figures, 1.0);
    let (_, batched) = together(figures, figures.echoes_a_call);
    let total = |name: String, dollars| (name, String::new(), dollars);
    let batched = total(
        format!("together, with {:.1} echoes in a call", figures.echoes_a_call),
        batched,
    );
    let all = [
        sent,
        vec![total("together, without echoes".to_owned(), without)],
        echoes,
        vec![
            total("together, each echo in a call of its own".to_owned(), alone),
            batched,
        ],
        import,
    ];
    let mut text = "| a million messages | computed from | price |\n|---|---|---|\n".to_owned();
    for (what, from, dollars) in all.concat() {
        let price = match dollars {
            0.005.. => format!("${dollars:.2}"),
            _ => "under $0.01".to_owned(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {what} | {from} | {price} |");
    }
    text.push_str("\n| list price | |\n|---|---|\n");
    for Price { dollars, of, page } in PRICES {
        let dollars = match dollars {
            0.1.. => format!("{dollars:.3}"),
            _ => dollars.to_string(),
        };
        let _ = writeln!(text, "| [{of}]({page}) | ${dollars} |");
    }
    text
}

fn units(what: &str, write_units: f64, read_units: f64) -> Line {
    let from = format!("{write_units:.2} write units, {read_units:.2} read units each");
    let dollars = write_units * WRITES.dollars + read_units * READS.dollars;
    (what.to_owned(), from, dollars)
}

/// Shows a number without its fraction, with commas.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<_> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(String::from_utf8_lossy)
        .collect();
    groups.join(",")
}
