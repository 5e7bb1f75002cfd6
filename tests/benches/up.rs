//! `up` below many small broadcasts: its memory and its descriptors.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future;
use futures_util::stream::{self, StreamExt};
use local::sandbox::Sandbox;
use reqwest::Client;
use serde_json::json;
use tokio::time;
use uuid::Uuid;

use crate::process;
use crate::report::{Section, Target};
use crate::stack::contact;

/// Small broadcasts a second, which is below the rates of so many Pages together.
const BROADCASTS_A_SECOND: u32 = 100;
const PAGES: usize = 4;
/// The contacts that get them in turns.
const CONTACTS: usize = 1_000;
/// The callers, each of which waits for its answer.
const CALLERS: usize = 64;
/// The time between two looks at the process.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The messages by which the memory of the sandbox is measured.
const SANDBOX_MESSAGES: usize = 20_000;

/// Runs `up` with its data on disk, and compares its memory and its descriptors after a third of the time with those at the end.
/// The sandbox, which keeps each message, is in this process.
pub async fn measure(section: &mut Section, directory: &Path, time: Duration) -> Result<(), Box<dyn Error>> {
    let tokens = write_tokens(directory)?;
    let sandbox = Sandbox::start(tokens).await?;
    let data = directory.join("up").display().to_string();
    let up = Up::start(directory, &["--graph-url", &sandbox.url(), "--data", &data])?;
    let (samples, sent) = future::join(samples(up.child.id(), time), broadcasts(&up.api, time)).await;
    let (samples, sent) = (samples?, sent?);
    drop(up);

    let (third, ninth) = (samples.len() / 3, samples.len() / 9);
    let early = average(&samples[third..third + ninth]);
    let late = average(&samples[samples.len() - ninth..]);
    let a_second = sent as f64 / time.as_secs_f64();
    section.add("`up`: small broadcasts a second, of 100 offered", a_second, "1/s");
    section.add("`up`: memory after a third of the time", early.mib, "MiB");
    section.add("`up`: memory at the end", late.mib, "MiB");
    let growth = late.mib / early.mib;
    section.compare("`up`: memory, end to third", growth, "×", Target::AtMost(1.1));
    section.add("`up`: descriptors after a third of the time", early.descriptors, "");
    section.add("`up`: descriptors at the end", late.descriptors, "");
    let growth = late.descriptors / early.descriptors;
    section.compare("`up`: descriptors, end to third", growth, "×", Target::AtMost(1.1));

    let of_one = sandbox_memory(directory).await?;
    section.add("sandbox: memory a message, which it keeps", of_one, "KiB");
    Ok(())
}

/// Writes the file of Page access tokens, and returns the tokens.
fn write_tokens(directory: &Path) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let token = |n| (format!("page-{n}"), format!("token-{n}"));
    let tokens: BTreeMap<_, _> = (1..=PAGES).map(token).collect();
    fs::write(directory.join("tokens.json"), json!(tokens).to_string())?;
    Ok(tokens)
}

/// A running `up`, which ends with this value.
struct Up {
    child: Child,
    /// The base URLs of the API and of the sandbox.
    api: String,
    sandbox: Option<String>,
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Up {
    fn start(directory: &Path, arguments: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_oncecast-local"))
            .args(["up", "--port", "0", "--page-tokens"])
            .arg(directory.join("tokens.json"))
            .args(arguments)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let (mut api, mut sandbox) = (None, None);
        for line in lines.by_ref() {
            let line = line?;
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["API", url] => api = Some(url.to_owned()),
                ["Sandbox", url] => sandbox = Some(url.to_owned()),
                ["Try:"] => break,
                _ => {}
            }
        }
        // The pipe is read to its end, or `up` would block when it is full.
        thread::spawn(move || lines.for_each(drop));
        Ok(Self {
            child,
            api: api.ok_or("`up` did not start")?,
            sandbox,
        })
    }
}

/// The memory and the descriptors of a process at one moment.
struct Sample {
    mib: f64,
    descriptors: f64,
}

impl Sample {
    fn of(pid: u32) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            // Without the pages of the executable and of the database's index of its log, which the kernel can take back.
            mib: process::status(pid, "RssAnon:")? / 1_024.0,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64,
        })
    }
}

async fn samples(pid: u32, time: Duration) -> Result<Vec<Sample>, Box<dyn Error>> {
    let (begun, mut samples) = (Instant::now(), Vec::new());
    let mut tick = time::interval(LOOK_EVERY);
    while begun.elapsed() < time {
        tick.tick().await;
        samples.push(Sample::of(pid)?);
    }
    Ok(samples)
}

fn average(samples: &[Sample]) -> Sample {
    let average = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / samples.len() as f64;
    Sample {
        mib: average(|sample| sample.mib),
        descriptors: average(|sample| sample.descriptors),
    }
}

/// Sends broadcasts to one contact each for this time, and returns their number.
async fn broadcasts(api: &str, time: Duration) -> Result<usize, Box<dyn Error>> {
    let http = Client::builder().no_proxy().build()?;
    let row = |n: usize| format!("{},page-{},Ana {n}\n", contact(n), n % PAGES + 1);
    let file = format!(
        "contact_id,page_id,first_name\n{}",
        (0..CONTACTS).map(row).collect::<String>()
    );
    let import = http
        .put(format!("{api}/v1/contacts"))
        .header("content-type", "text/csv");
    import.body(file).send().await?.error_for_status()?;
    let begun = Instant::now();
    let broadcast = |n: usize| {
        let call = http.post(format!("{api}/v1/broadcasts")).json(&json!({
            "contact_ids": [contact(n % CONTACTS)],
            "message": {"text": "Hello {{ first_name }}, the shop opens at nine."},
        }));
        let call = call.header("idempotency-key", Uuid::new_v4().to_string());
        let at = begun + Duration::from_secs(n as u64) / BROADCASTS_A_SECOND;
        async move {
            time::sleep_until(at.into()).await;
            call.send().await.and_then(reqwest::Response::error_for_status)
        }
    };
    let mut answers = stream::iter((0..).map(broadcast)).buffer_unordered(CALLERS);
    let mut sent = 0;
    while begun.elapsed() < time
        && let Some(answer) = answers.next().await
    {
        answer?;
        sent += 1;
    }
    Ok(sent)
}

/// Returns the KiB that the sandbox of an `up` keeps for a message, by its own half of many.
async fn sandbox_memory(directory: &Path) -> Result<f64, Box<dyn Error>> {
    let up = Up::start(directory, &[])?;
    let sandbox = up.sandbox.as_ref().ok_or("`up` has no sandbox")?;
    let http = Client::builder().no_proxy().build()?;
    let send = |n: usize| {
        let job = format!("{:032x}", n + 1);
        let call = http.post(format!("{sandbox}/page-1/messages")).bearer_auth("token-1");
        let call = call.json(&json!({
            "recipient": {"id": contact(n)},
            "messaging_type": "RESPONSE",
            "message": {
                "text": format!("Hello Ana {n}, the shop opens at nine."),
                "metadata": format!("oncecast/1 {job} page-1 1 {}", contact(n)),
            },
        }));
        async move { call.send().await.and_then(reqwest::Response::error_for_status) }
    };
    let mut mib = Vec::new();
    for half in [0..SANDBOX_MESSAGES / 2, SANDBOX_MESSAGES / 2..SANDBOX_MESSAGES] {
        let mut sent = stream::iter(half.map(send)).buffer_unordered(CALLERS);
        while let Some(answer) = sent.next().await {
            answer?;
        }
        mib.push(Sample::of(up.child.id())?.mib);
    }
    Ok((mib[1] - mib[0]) * 1_024.0 / (SANDBOX_MESSAGES / 2) as f64)
}
