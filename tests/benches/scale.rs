//! Broadcasts from a thousand to a million contacts: what each contact takes must not grow with their number.

use std::error::Error;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use tempfile::TempDir;

use crate::Measured;
use crate::chart::{Chart, Line};
use crate::process::{Usage, executables, forget_peak, usage};
use crate::report::{Section, Target, median, number};
use crate::stack::{Bench, PAGE, UNPACED, contact};

/// The variable that has the chart drawn into the source tree.
const WRITE_SVG: &str = "WRITE_SVG";
const SVG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/scale.svg");
/// A request names at most 100,000 ids, so a million contacts are an audience.
const SIZES: &[Size] = match cfg!(debug_assertions) {
    false => &[
        Size(PAGE, 1_000, Named, 7),
        Size(PAGE, 10_000, Named, 3),
        Size(PAGE, 100_000, Named, 1),
        Size("page-2", 10_000, Audience, 1),
        Size("page-3", 1_000_000, Audience, 1),
    ],
    // For the work on the benchmark itself.
    true => &[
        Size(PAGE, 100, Named, 2),
        Size(PAGE, 1_000, Named, 1),
        Size("page-2", 100, Audience, 1),
        Size("page-3", 3_000, Audience, 1),
    ],
};
/// The contacts of the broadcast that starts the processes.
const FIRST: usize = 50;

use Recipients::{Audience, Named};

/// The contacts of a broadcast: named by their ids, or all contacts of their Page.
#[derive(Clone, Copy, PartialEq)]
enum Recipients {
    Named,
    Audience,
}

/// A Page, the number of contacts, and the number of broadcasts to them.
#[derive(Clone, Copy)]
struct Size(&'static str, usize, Recipients, usize);

/// A part of what one contact took.
type Value = fn(&Took) -> f64;

/// The use of one contact.
#[derive(Clone, Copy)]
struct Took {
    ms: f64,
    cpu_ms: f64,
    /// The peak memory of the worker, in MiB.
    peak_mib: f64,
}

pub async fn measure() -> Measured {
    let mut section = Section::new("scale", "from a thousand to a million contacts");
    let directory = TempDir::new_in(executables())?;
    let bench = Bench::start(UNPACED, Some(directory.path().join("data")), &[]).await?;
    let mut stored = 0;
    for page in [PAGE, "page-2", "page-3"] {
        let sizes = SIZES.iter().filter(|size| size.0 == page).map(|size| size.1);
        let count = sizes.max().unwrap_or_default();
        bench.store(page, stored, count).await?;
        stored += count;
    }
    let first: Vec<_> = (0..FIRST).map(contact).collect();
    let broadcast = bench.accept(&first).await?;
    bench.complete(&broadcast, FIRST).await?;
    let mut all = Vec::new();
    for size in SIZES {
        let took = measure_size(&bench, *size).await?;
        let Size(_, contacts, recipients, _) = *size;
        let name = match recipients {
            Named => format!("{} ids", number(contacts as f64)),
            Audience => format!("an audience of {}", number(contacts as f64)),
        };
        section.add(format!("{name}: time a contact"), took.ms, "ms");
        section.add(format!("{name}: CPU a contact, process-job"), took.cpu_ms, "ms");
        section.add(format!("{name}: peak memory, process-job"), took.peak_mib, "MiB");
        all.push((contacts as f64, took));
    }
    bench.stack.stop().await;
    let units = units(&mut section).await?;
    let mut lines = relative(&all);
    lines.push(Line {
        name: "write and read units".to_owned(),
        points: units,
    });
    let least = all[0].0;
    for line in &lines {
        if let Some((most, times)) = line.points.last() {
            let name = format!("{}, {} contacts to {}", line.name, number(*most), number(least));
            section.compare(name, *times, "×", Target::AtMost(TARGET));
        }
    }
    if std::env::var_os(WRITE_SVG).is_some() {
        fs::write(Path::new(SVG), chart(lines, &all).to_svg())?;
        section.note(format!("The chart is in {SVG}."));
    }
    Ok(section)
}

/// Counts the units of broadcasts to named contacts, over a stack of its own: the counters take time.
async fn units(section: &mut Section) -> Result<Vec<(f64, f64)>, Box<dyn Error>> {
    let (bench, counters) = Bench::start_counted(UNPACED, &[]).await?;
    let named: Vec<_> = SIZES.iter().filter(|size| size.2 == Named).collect();
    let most = named.iter().map(|size| size.1).max().unwrap_or_default();
    bench.store(PAGE, 0, most).await?;
    let mut all = Vec::<(f64, f64)>::new();
    for Size(_, count, ..) in named {
        let contacts: Vec<_> = (0..*count).map(contact).collect();
        bench.idle().await;
        counters.dynamodb.take();
        let broadcast = bench.accept(&contacts).await?;
        bench.complete(&broadcast, *count).await?;
        bench.idle().await;
        let used = counters.dynamodb.take().total();
        let count = *count as f64;
        let (writes, reads) = (used.write_units / count, used.read_units / count);
        let name = number(count);
        section.add(format!("{name} ids: write units a contact"), writes, "");
        section.add(format!("{name} ids: read units a contact"), reads, "");
        all.push((count, writes + reads));
    }
    bench.stack.stop().await;
    let first = all[0].1;
    Ok(all.into_iter().map(|(count, units)| (count, units / first)).collect())
}

/// The most by which a contact of the largest broadcast may take more than one of the smallest.
const TARGET: f64 = 1.1;

/// Sends broadcasts of one size, and returns the medians.
async fn measure_size(bench: &Bench, size: Size) -> Result<Took, Box<dyn Error>> {
    let Size(page, count, recipients, rounds) = size;
    let contacts: Vec<_> = match recipients {
        Named => (0..count).map(contact).collect(),
        Audience => Vec::new(),
    };
    let sandbox = bench.stack.sandbox().ok_or("no sandbox")?;
    let mut all = Vec::new();
    for _ in 0..rounds {
        bench.idle().await;
        sandbox.forget_messages();
        for worker in bench.stack.process_job().processes_running() {
            forget_peak(worker.pid)?;
        }
        let (begun, before) = (Timestamp::now().as_millisecond(), workers(bench)?);
        let broadcast = match recipients {
            Named => bench.accept(&contacts).await?,
            Audience => bench.accept_audience(page).await?,
        };
        bench.complete(&broadcast, count).await?;
        // A report is read at intervals.
        let last = sandbox.received().iter().map(|message| message.at).max();
        let after = workers(bench)?;
        all.push(Took {
            ms: (last.unwrap_or_default() - begun) as f64 / count as f64,
            cpu_ms: (after.cpu - before.cpu).as_secs_f64() * 1e3 / count as f64,
            peak_mib: after.peak_mib,
        });
    }
    let of = |value: Value| median(all.iter().map(value));
    Ok(Took {
        ms: of(|took| took.ms),
        cpu_ms: of(|took| took.cpu_ms),
        peak_mib: of(|took| took.peak_mib),
    })
}

/// Returns the use of all workers: their time of the CPU, and the peak memory of the largest. An audience that is resolved may get
/// a second one.
fn workers(bench: &Bench) -> Result<Usage, Box<dyn Error>> {
    let mut all = Usage::default();
    for worker in bench.stack.process_job().processes_running() {
        let one = usage(worker.pid)?;
        all.cpu += one.cpu;
        all.peak_mib = all.peak_mib.max(one.peak_mib);
    }
    Ok(all)
}

/// Returns what a contact took relative to the smallest broadcast; of two broadcasts of one size, to that of named contacts.
fn relative(all: &[(f64, Took)]) -> Vec<Line> {
    let values: [(&str, Value); 3] = [
        ("time", |took| took.ms),
        ("CPU of process-job", |took| took.cpu_ms),
        ("memory of process-job", |took| took.peak_mib),
    ];
    let lines = values.into_iter().map(|(name, value)| {
        let mut points: Vec<_> = all
            .iter()
            .map(|(x, took)| (*x, value(took) / value(&all[0].1)))
            .collect();
        // Stable: the named ones come first.
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup_by(|a, b| a.0 == b.0);
        Line {
            name: name.to_owned(),
            points,
        }
    });
    lines.collect()
}

fn chart(lines: Vec<Line>, all: &[(f64, Took)]) -> Chart {
    let mut marks: Vec<_> = all.iter().map(|(contacts, _)| *contacts).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    Chart {
        title: "What a contact takes, relative to the smallest broadcast",
        horizontal: "contacts of the broadcast",
        marks,
        target: TARGET,
        lines,
    }
}
