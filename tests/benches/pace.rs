//! The pace of Pages: as fast as their rate, never above Messenger's limit, however long Messenger takes to answer.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;

use futures_util::future::try_join_all;
use local::sandbox::Received;
use local::stack::Settings;
use tempfile::TempDir;

use crate::Measured;
use crate::process::{executables, usage};
use crate::report::{Section, Target};
use crate::stack::{Bench, PAGE, contact};

/// The default rate of a Page, in messages a second.
const RATE: u32 = 30;
/// Messenger's limit, in messages a second.
const LIMIT: f64 = 40.0;
/// The most by which the mean may differ from the rate, in percent.
const DEVIATION: f64 = 2.0;
/// Messenger's answers take so long, in milliseconds.
const LATENCIES: [u64; 3] = [50, 200, 800];
/// The contacts of one Page.
const CONTACTS: usize = 1_200;
/// The Pages that are sent for at once, and the contacts of each.
const PAGES: (usize, usize) = (20, 900);
/// The latency of Messenger for these, in milliseconds.
const LATENCY_OF_MANY: u64 = 200;

/// The times of the messages of one Page, as Messenger received them.
struct Pace {
    per_second: f64,
    /// The most messages within any second.
    most: f64,
}

impl Pace {
    /// Returns the pace of these messages.
    fn of(times: &mut [i64]) -> Self {
        times.sort_unstable();
        let within_a_second = |first: usize| times[first..].partition_point(|at| at - times[first] < 1_000);
        let seconds = (times[times.len() - 1] - times[0]) as f64 / 1e3;
        Self {
            per_second: (times.len() - 1) as f64 / seconds,
            most: (0..times.len()).map(within_a_second).max().unwrap_or_default() as f64,
        }
    }

    /// Returns the difference of the mean from the rate, in percent.
    fn deviation(&self) -> f64 {
        (self.per_second / f64::from(RATE) - 1.0).abs() * 100.0
    }
}

pub async fn measure() -> Measured {
    let mut section = Section::new(
        "pace",
        "30 messages a second for each Page, whatever Messenger's latency",
    );
    // At the same time, since each mostly waits.
    let paces = try_join_all(LATENCIES.map(one_page)).await?;
    for (latency, pace) in LATENCIES.into_iter().zip(paces) {
        section.add(
            format!("messages a second, {latency} ms latency"),
            pace.per_second,
            "1/s",
        );
        let name = format!("difference from the rate, {latency} ms");
        section.compare(name, pace.deviation(), "%", Target::AtMost(DEVIATION));
        let name = format!("most in a second, {latency} ms");
        section.compare(name, pace.most, "", Target::AtMost(LIMIT));
    }
    many_pages(&mut section).await?;
    section.note("Each of the first runs had one worker; an error would have ended them otherwise.");
    Ok(section)
}

/// Sends for one Page, by one worker.
async fn one_page(latency: u64) -> Result<Pace, Box<dyn Error>> {
    let bench = Bench::start(RATE, None, &[]).await?;
    bench.stack.sandbox().ok_or("no sandbox")?.set_latency_ms(latency);
    bench.store(PAGE, 0, CONTACTS).await?;
    let contacts: Vec<_> = (0..CONTACTS).map(contact).collect();
    let broadcast = bench.accept(&contacts).await?;
    bench.complete(&broadcast, CONTACTS).await?;
    bench.worker()?;
    let paces = paces(&bench)?;
    bench.stack.stop().await;
    paces.into_values().next().ok_or_else(|| "nothing was sent".into())
}

/// Sends one broadcast for many Pages at once.
async fn many_pages(section: &mut Section) -> Result<(), Box<dyn Error>> {
    let (pages, each) = PAGES;
    let names: Vec<_> = (1..=pages).map(|n| format!("page-{n}")).collect();
    let tokens: BTreeMap<_, _> = names.iter().map(|page| (page, format!("EAAB-{page}"))).collect();
    let directory = TempDir::new_in(executables())?;
    let file = directory.path().join("tokens.json");
    fs::write(&file, serde_json::to_vec(&tokens)?)?;
    let bench = Bench::start_with(Settings {
        page_tokens: Some(file),
        max_children: u32::try_from(pages)?,
        env: [("PAGE_RATE_PER_SECOND".to_owned(), RATE.to_string())].into(),
        ..Settings::default()
    });
    let bench = bench.await?;
    bench
        .stack
        .sandbox()
        .ok_or("no sandbox")?
        .set_latency_ms(LATENCY_OF_MANY);
    for (n, page) in names.iter().enumerate() {
        bench.store(page, n * each, each).await?;
    }
    let contacts: Vec<_> = (0..pages * each).map(contact).collect();
    let broadcast = bench.accept(&contacts).await?;
    bench.complete(&broadcast, contacts.len()).await?;
    let workers = bench.stack.process_job().processes_running();
    let used: Result<Vec<_>, _> = workers.iter().map(|worker| usage(worker.pid)).collect();
    let used: f64 = used?.iter().map(|usage| usage.cpu.as_secs_f64()).sum();
    let paces: Vec<_> = paces(&bench)?.into_values().collect();
    bench.stack.stop().await;
    let largest = |of: fn(&Pace) -> f64| paces.iter().map(of).fold(0.0, f64::max);
    let all: f64 = paces.iter().map(|pace| pace.per_second).sum();
    section.add(format!("messages a second, {pages} Pages"), all, "1/s");
    section.compare(
        format!("difference from the rate, worst of {pages} Pages"),
        largest(Pace::deviation),
        "%",
        Target::AtMost(DEVIATION),
    );
    section.compare(
        format!("most in a second, worst of {pages} Pages"),
        largest(|pace| pace.most),
        "",
        Target::AtMost(LIMIT),
    );
    section.add(
        format!("CPU a message, {pages} Pages"),
        used * 1e3 / contacts.len() as f64,
        "ms",
    );
    Ok(())
}

/// Returns the pace of each Page.
fn paces(bench: &Bench) -> Result<BTreeMap<String, Pace>, Box<dyn Error>> {
    let sandbox = bench.stack.sandbox().ok_or("no sandbox")?;
    let mut times = BTreeMap::<_, Vec<i64>>::new();
    for Received { page_id, at, .. } in sandbox.received() {
        times.entry(page_id).or_default().push(at);
    }
    Ok(times
        .into_iter()
        .map(|(page, mut times)| (page, Pace::of(&mut times)))
        .collect())
}
