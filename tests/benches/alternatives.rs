//! Oncecast beside the programs that one would write without it: the idempotency utilities of Powertools for AWS Lambda, and a loop.

mod programs;

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use jiff::Timestamp;
use local::SANDBOX_PAGES;
use local::lambda::Function;
use local::sandbox::{Answer, Fault, Sandbox};
use local::stack::Settings;
use tokio::time::sleep;

use self::programs::{ENVIRONMENTS, Program, Running, install, versions};
use crate::Measured;
use crate::counter::{Count, Counter};
use crate::process::usage;
use crate::report::{Section, median};
use crate::stack::{Bench, PAGE, UNPACED, contact};

/// The contacts of each run that measures, and of those before it.
const CONTACTS: usize = 2_000;
const WARM_UP: usize = 200;
/// The runs of each, in turns.
const ROUNDS: usize = 3;
/// The contacts of the runs that count units, and of those with faults.
const COUNTED: usize = 1_000;
const FAULTY: usize = 1_000;
/// One contact in so many has a fault: 5 %.
const ONE_IN: usize = 20;
/// The rate of a Page under faults, which is that of users.
const RATE: u32 = 30;
/// The latency of Messenger where processes are killed, so that sends are in flight.
const LATENCY_MS: u64 = 20;
/// The end of the reason of a delivery that the last lookup left in doubt.
const NOT_FOUND: &str = "not found in Messenger";
/// The longest time for a run with faults.
const PATIENCE: Duration = Duration::from_secs(120);

/// The systems that are compared, in the order of the columns.
const SYSTEMS: [System; 4] = [
    System::Oncecast,
    System::Other(Program::TypeScript),
    System::Other(Program::Python),
    System::Other(Program::Loop),
];
const NAMES: [&str; 4] = ["Oncecast", "Powertools, TypeScript", "Powertools, Python", "loop"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    Oncecast,
    Other(Program),
}

/// A disturbance of a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disturbance {
    /// Sends that Messenger accepts, and then closes the connection.
    AcceptedAndReset,
    /// Sends that Messenger does not accept, with the same error for the sender.
    Reset,
    /// The death of every process that sends, half-way.
    Kill,
}

const DISTURBANCES: [(Disturbance, &str); 3] = [
    (Disturbance::AcceptedAndReset, "5 % accepted and reset"),
    (Disturbance::Reset, "5 % reset, not accepted"),
    (Disturbance::Kill, "killed half-way"),
];

/// A run that was measured.
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    seconds: f64,
    cpu_seconds: f64,
    peak_mib: f64,
}

/// The contacts that a disturbance harmed.
#[derive(Clone, Copy, Debug)]
struct Harm {
    twice: usize,
    /// The contacts without a message, and those of them that the operator is told of.
    none: usize,
    listed: usize,
    /// The contacts without a message after the operator has had those listed sent again.
    none_at_last: usize,
}

pub async fn measure() -> Measured {
    let mut section = Section::new("alternatives", "Oncecast beside what one would use instead");
    section.columns(&NAMES);
    let installed = match install() {
        Ok(installed) => installed,
        Err(error) => {
            section.note(format!(
                "Not measured, since the other programs cannot be installed: {error}"
            ));
            return Ok(section);
        }
    };
    let runs = costs(&installed).await?;
    let mut across = |name: &str, unit, of: &dyn Fn(&[Took]) -> f64| {
        section.add_across(name, runs.iter().map(|runs| of(runs)).collect(), unit);
    };
    let per_message = |took: &Took| took.cpu_seconds * 1e3 / CONTACTS as f64;
    let per_second = |took: &Took| CONTACTS as f64 / took.seconds;
    across("CPU a message", "ms", &|runs| median(runs.iter().map(per_message)));
    across("messages a second", "1/s", &|runs| median(runs.iter().map(per_second)));
    let peak = |runs: &[Took]| runs.iter().map(|took| took.peak_mib).fold(0.0, f64::max);
    across("peak memory of a process", "MiB", &peak);
    let processes = SYSTEMS.map(|system| match system {
        System::Oncecast | System::Other(Program::Loop) => 1.0,
        System::Other(_) => ENVIRONMENTS as f64,
    });
    section.add_across("processes", processes.to_vec(), "");

    let units = try_join_all(SYSTEMS.map(|system| units(system, &installed))).await?;
    let of = |kind: fn(&Count) -> f64| units.iter().map(|count| kind(count) / COUNTED as f64).collect();
    section.add_across("write units a message", of(|count| count.write_units), "");
    section.add_across("read units a message", of(|count| count.read_units), "");

    for (disturbance, name) in DISTURBANCES {
        let harms = try_join_all(SYSTEMS.map(|system| disturbed(disturbance, system, &installed))).await?;
        let mut across = |what: &str, of: fn(&Harm) -> usize| {
            let values = harms.iter().map(|harm| of(harm) as f64).collect();
            section.add_across(&format!("{name}: {what}"), values, "contacts");
        };
        across("two messages", |harm| harm.twice);
        across("no message", |harm| harm.none);
        across("of these listed for the operator", |harm| harm.listed);
        across("no message after a retry of those listed", |harm| harm.none_at_last);
    }
    section.note(format!(
        "{CONTACTS} contacts a run, the median of {ROUNDS} runs in turns; {FAULTY} contacts under each disturbance. {}.",
        versions(&installed)?
    ));
    Ok(section)
}

/// Returns the measured runs of each system.
async fn costs(installed: &Path) -> Result<[Vec<Took>; SYSTEMS.len()], Box<dyn Error>> {
    let bench = Bench::start(UNPACED, None, &[]).await?;
    bench.import(PAGE, 0, CONTACTS).await?;
    let contacts: Vec<_> = (0..CONTACTS).map(contact).collect();
    let endpoint = bench.stack.database_endpoint().to_owned();
    let mut others = Vec::new();
    for system in SYSTEMS {
        others.push(match system {
            System::Other(program) => Some(Running::new(program, installed, &bench, &endpoint).await?),
            System::Oncecast => None,
        });
    }
    let mut runs: [Vec<Took>; SYSTEMS.len()] = Default::default();
    for round in 0..=ROUNDS {
        let contacts = match round {
            0 => &contacts[..WARM_UP],
            _ => &contacts[..],
        };
        for (other, runs) in others.iter().zip(&mut runs) {
            let took = cost(&bench, other.as_ref(), contacts).await?;
            if round > 0 {
                runs.push(took);
            }
        }
    }
    join_all(others.iter().flatten().map(Running::stop)).await;
    bench.stack.stop().await;
    Ok(runs)
}

/// Sends a broadcast by Oncecast or another program, and returns what it took until the last message.
async fn cost(bench: &Bench, other: Option<&Running>, contacts: &[String]) -> Result<Took, Box<dyn Error>> {
    let sandbox = bench.stack.sandbox().ok_or("no sandbox")?;
    sandbox.forget_messages();
    let usage = || match other {
        Some(other) => other.usage(),
        None => usage(bench.worker()?),
    };
    // There is no worker before the first broadcast.
    let (begun, before) = (Timestamp::now(), usage().map_or(Duration::ZERO, |usage| usage.cpu));
    match other {
        Some(other) => other.broadcast(contacts).await?,
        None => {
            let id = bench.accept(contacts).await?;
            bench.complete(&id, contacts.len()).await?;
        }
    }
    let (after, received) = (usage()?, sandbox.received());
    let last = received.last().ok_or("no message")?;
    Ok(Took {
        seconds: (last.at - begun.as_millisecond()) as f64 / 1e3,
        cpu_seconds: (after.cpu - before).as_secs_f64(),
        peak_mib: after.peak_mib,
    })
}

/// Returns the requests to the database for a broadcast, and their units.
async fn units(system: System, installed: &Path) -> Result<Count, Box<dyn Error>> {
    let contacts: Vec<_> = (0..COUNTED).map(contact).collect();
    let (bench, counters) = Bench::start_counted(UNPACED, &[]).await?;
    let count = match system {
        System::Oncecast => {
            bench.import(PAGE, 0, COUNTED).await?;
            counters.dynamodb.take();
            let id = bench.accept(&contacts).await?;
            bench.complete(&id, COUNTED).await?;
            counters.dynamodb.take().total()
        }
        System::Other(program) => {
            let counter = Counter::start().await?;
            counter.forward_to(bench.stack.database_endpoint());
            let other = Running::new(program, installed, &bench, counter.url()).await?;
            other.broadcast(&contacts).await?;
            other.stop().await;
            counter.take().total()
        }
    };
    bench.stack.stop().await;
    Ok(count)
}

/// Returns the harm that a disturbance does to the contacts of a broadcast.
async fn disturbed(disturbance: Disturbance, system: System, installed: &Path) -> Result<Harm, Box<dyn Error>> {
    let bench = faulty_stack().await?;
    let sandbox = bench.stack.sandbox().ok_or("no sandbox")?;
    let contacts: Vec<_> = (0..FAULTY).map(contact).collect();
    let faulty = contacts.iter().step_by(ONE_IN);
    let reset = faulty.map(|contact| Fault::answering(Answer::Reset).to_contacts([contact]).times(1));
    match disturbance {
        Disturbance::AcceptedAndReset => reset.for_each(|fault| sandbox.add_fault(fault.but_arriving())),
        Disturbance::Reset => reset.for_each(|fault| sandbox.add_fault(fault)),
        Disturbance::Kill => sandbox.set_latency_ms(LATENCY_MS),
    }
    let kills = disturbance == Disturbance::Kill;
    let without_message = || FAULTY - sandbox.summary().contacts;
    let (none, listed) = match system {
        System::Oncecast => {
            for (n, page) in SANDBOX_PAGES.into_iter().enumerate() {
                let count = FAULTY / SANDBOX_PAGES.len();
                bench.import(page, n * count, count).await?;
            }
            let id = bench.accept(&contacts).await?;
            if kills {
                kill_half_way(sandbox, bench.stack.process_job()).await?;
            }
            let listed = settle(&bench, &id).await?;
            let none = without_message();
            if listed > 0 {
                bench.retry(&id, "in_doubt").await?;
                settle(&bench, &id).await?;
            }
            (none, listed)
        }
        System::Other(program) => {
            let other = Running::new(program, installed, &bench, bench.stack.database_endpoint()).await?;
            let killing = async {
                match kills {
                    true => kill_half_way(sandbox, other.function()).await,
                    false => Ok(()),
                }
            };
            tokio::try_join!(other.broadcast(&contacts), killing)?;
            other.stop().await;
            (without_message(), 0)
        }
    };
    let mut messages = HashMap::<_, usize>::new();
    for message in sandbox.received() {
        *messages.entry(message.contact_id).or_default() += 1;
    }
    let none_at_last = without_message();
    bench.stack.stop().await;
    Ok(Harm {
        twice: messages.values().filter(|count| **count > 1).count(),
        none,
        listed,
        none_at_last,
    })
}

/// Starts a stack whose time-outs are short, and which learns of sends in doubt by lookups only.
async fn faulty_stack() -> Result<Bench, Box<dyn Error>> {
    let rate = RATE.to_string();
    let env = [
        ("DOUBT_CHECK_SECONDS", "3,6"),
        ("JOB_LEASE_SECONDS", "5"),
        ("PAGE_RATE_PER_SECOND", &rate),
        ("RUST_LOG", "error"),
    ];
    Bench::start_with(Settings {
        schedule_every: Duration::from_secs(1),
        process_timeout: Duration::from_secs(10),
        visibility_margin: Duration::from_secs(1),
        env: BTreeMap::from(env.map(|(name, value)| (name.to_owned(), value.to_owned()))),
        ..Settings::default()
    })
    .await
}

/// Kills every process of a function when half of the contacts have their message.
async fn kill_half_way(sandbox: &Sandbox, function: &Function) -> Result<(), Box<dyn Error>> {
    while sandbox.received_count() < FAULTY / 2 {
        sleep(Duration::from_millis(1)).await;
    }
    let running = function.processes_running();
    if !running.iter().any(|process| process.busy) {
        return Err("no process was at work half-way".into());
    }
    join_all(running.iter().map(|process| function.kill(process.pid))).await;
    Ok(())
}

/// Waits until a broadcast has completed, and the last lookup has left in doubt what it did not find. Returns the number of these.
async fn settle(bench: &Bench, broadcast: &str) -> Result<usize, Box<dyn Error>> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if bench.report(broadcast).await?["status"] == "completed" {
            let in_doubt = bench.deliveries(broadcast, "in_doubt").await?;
            let mut reasons = in_doubt.iter().map(|row| row["reason"].as_str().unwrap_or_default());
            if reasons.all(|reason| reason.ends_with(NOT_FOUND)) {
                return Ok(in_doubt.len());
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
    Err("a broadcast was not settled".into())
}
