//! `process-job` beside a bare loop with the same clients, over the same services: what the promise costs.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use local::sandbox::Sandbox;
use serde::Deserialize;
use tempfile::TempDir;

use crate::bare_loop::{COUNT, IN_FLIGHT, PAGE as LOOP_PAGE, RATE, TOKEN};
use crate::process::{COUNT_TO, command, instructions, usage};
use crate::report::{Section, Target, median};
use crate::stack::{Bench, PAGE, UNPACED, contact};
use crate::{Measured, process};

/// The contacts of one run.
const CONTACTS: usize = 5_000;
/// The runs of each, in turns.
const ROUNDS: usize = 3;
/// The sends in flight of both: those of `process-job` at a rate that is no limit.
const SENDS_IN_FLIGHT: usize = 256;
/// The sizes whose difference has the instructions of one message. Callgrind is fifty times slower, so the rate is low.
const COUNTED: [usize; 2] = [300, 900];
const COUNTED_RATE: u32 = 60;
/// The contacts of the paced run, at the rate that users have.
const PACED: (usize, u32) = (600, 30);
const BARE_PAGE: &str = "bare-page";
const BARE_TOKEN: &str = "EAAB-bare";

/// The use of a run of messages.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Took {
    /// From the first message to the last, as Messenger got them.
    #[serde(default)]
    seconds: f64,
    cpu_seconds: f64,
    peak_mib: f64,
}

pub async fn measure() -> Measured {
    let mut section = Section::new("floor", "process-job beside a bare loop over the same services");
    let directory = TempDir::new_in(process::executables())?;

    let bench = Bench::start(UNPACED, Some(directory.path().join("data")), &[]).await?;
    let contacts: Vec<_> = (0..CONTACTS).map(contact).collect();
    bench.import(PAGE, 0, CONTACTS).await?;
    broadcast(&bench, &contacts[..500]).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(bare_loop(&bench, CONTACTS, SENDS_IN_FLIGHT, None, None)?);
        ours.push(broadcast(&bench, &contacts).await?);
    }
    bench.stack.stop().await;
    let per_message = |runs: &[Took]| median(runs.iter().map(|took| took.cpu_seconds * 1e3 / CONTACTS as f64));
    let per_second = |runs: &[Took]| median(runs.iter().map(|took| CONTACTS as f64 / took.seconds));
    let (cpu, bare_cpu) = (per_message(&ours), per_message(&bare));
    section.add("CPU a message, bare loop", bare_cpu, "ms");
    section.add("CPU a message, process-job", cpu, "ms");
    section.compare(
        "CPU, process-job to bare loop",
        cpu / bare_cpu,
        "×",
        Target::AtMost(1.15),
    );
    let (speed, bare_speed) = (per_second(&ours), per_second(&bare));
    section.add("messages a second, bare loop", bare_speed, "1/s");
    section.add("messages a second, process-job", speed, "1/s");
    section.compare(
        "messages a second, process-job to bare loop",
        speed / bare_speed,
        "×",
        Target::AtLeast(0.85),
    );
    let peak = |runs: &[Took]| runs.iter().map(|took| took.peak_mib).fold(0.0, f64::max);
    section.add("peak memory, bare loop", peak(&bare), "MiB");
    section.compare("peak memory, process-job", peak(&ours), "MiB", Target::AtMost(24.0));

    let (count, rate) = PACED;
    let bench = Bench::start(rate, Some(directory.path().join("paced")), &[]).await?;
    bench.import(PAGE, 0, count).await?;
    broadcast(&bench, &contacts[..30]).await?;
    let bare = bare_loop(&bench, count, SENDS_IN_FLIGHT, Some(rate), None)?;
    let paced = broadcast(&bench, &contacts[..count]).await?;
    bench.stack.stop().await;
    section.add(
        "CPU a message, bare loop at 30/s",
        bare.cpu_seconds * 1e3 / count as f64,
        "ms",
    );
    section.compare(
        "CPU a message, process-job at 30/s",
        paced.cpu_seconds * 1e3 / count as f64,
        "ms",
        Target::AtMost(0.6),
    );
    section.compare(
        "peak memory, process-job at 30/s",
        paced.peak_mib,
        "MiB",
        Target::AtMost(16.0),
    );

    let [few, many] = COUNTED;
    let of_one = |counts: [f64; 2]| (counts[1] - counts[0]) / (many - few) as f64;
    let (mut bare, mut ours) = ([0.0; 2], [0.0; 2]);
    for (index, count) in COUNTED.into_iter().enumerate() {
        (ours[index], bare[index]) = count_instructions(directory.path(), count).await?;
    }
    let (bare, ours) = (of_one(bare), of_one(ours));
    section.add("instructions a message, bare loop", bare, "");
    section.add("instructions a message, process-job", ours, "");
    section.compare(
        "instructions, process-job to bare loop",
        ours / bare,
        "×",
        Target::AtMost(1.1),
    );
    Ok(section)
}

/// Returns the instructions of `process-job` and of the bare loop for so many messages, from their start to their end.
async fn count_instructions(directory: &Path, count: usize) -> Result<(f64, f64), Box<dyn Error>> {
    let counts: [PathBuf; 2] = ["ours", "bare"].map(|name| directory.join(format!("{name}-{count}")));
    let file = counts[0].display().to_string();
    // Calls take long; a call that is repeated would be counted twice.
    let patience = ("MESSENGER_TIMEOUT_SECONDS", "60");
    let bench = Bench::start(COUNTED_RATE, None, &[(COUNT_TO, &file), patience]).await?;
    let contacts: Vec<_> = (0..count).map(contact).collect();
    bench.import(PAGE, 0, count).await?;
    let id = bench.accept(&contacts).await?;
    bench.complete(&id, count).await?;
    bare_loop(&bench, count, 2 * COUNTED_RATE as usize, None, Some(&counts[1]))?;
    bench.stack.stop().await;
    Ok((instructions(&counts[0])?, instructions(&counts[1])?))
}

/// Sends a broadcast, and returns what it took the worker.
async fn broadcast(bench: &Bench, contacts: &[String]) -> Result<Took, Box<dyn Error>> {
    let sandbox = bench.stack.sandbox().ok_or("no sandbox")?;
    sandbox.forget_messages();
    let before = bench.worker().ok().map(usage).transpose()?;
    let id = bench.accept(contacts).await?;
    bench.complete(&id, contacts.len()).await?;
    let after = usage(bench.worker()?)?;
    Ok(Took {
        seconds: seconds(sandbox),
        cpu_seconds: (after.cpu - before.map_or(Duration::ZERO, |before| before.cpu)).as_secs_f64(),
        peak_mib: after.peak_mib,
    })
}

/// Runs the bare loop over the services of a stack, at a rate if one is given.
fn bare_loop(
    bench: &Bench,
    count: usize,
    in_flight: usize,
    rate: Option<u32>,
    count_to: Option<&Path>,
) -> Result<Took, Box<dyn Error>> {
    let sandbox = bench.stack.sandbox().ok_or("no sandbox")?;
    sandbox.forget_messages();
    sandbox.set_token(BARE_PAGE, BARE_TOKEN);
    let mut command = command(&std::env::current_exe()?, count_to);
    command
        .arg("bare-loop")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "bare")
        .env("AWS_SECRET_ACCESS_KEY", "bare")
        .env("AWS_ENDPOINT_URL_DYNAMODB", bench.stack.database_endpoint())
        .env("DELIVERIES_TABLE", &bench.stack.names().deliveries)
        .env("GRAPH_API_URL", sandbox.url())
        .env("NO_PROXY", "127.0.0.1")
        .envs([(COUNT, count.to_string()), (IN_FLIGHT, in_flight.to_string())])
        .envs([(LOOP_PAGE, BARE_PAGE), (TOKEN, BARE_TOKEN)])
        .envs(rate.map(|rate| (RATE, rate.to_string())));
    let output = command.output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let took: Took = serde_json::from_str(printed.trim()).map_err(|_| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("the bare loop failed: {printed} {errors}")
    })?;
    Ok(Took {
        seconds: seconds(sandbox),
        ..took
    })
}

/// Returns the time from the first message that Messenger got to the last.
fn seconds(sandbox: &Sandbox) -> f64 {
    let times: Vec<_> = sandbox.received().iter().map(|message| message.at).collect();
    let span = times.iter().max().zip(times.iter().min());
    span.map_or(f64::NAN, |(last, first)| (last - first) as f64 / 1e3)
}
