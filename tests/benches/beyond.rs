//! A simulation of ten million contacts on AWS, by the rules of `process-job` and the limits of its services: the time that they
//! take, and the limit that decides. See infra/beyond-one-machine.md.
//!
//! A Page is a fluid that flows at its rate while a worker has its job. Everything else is counted by the second.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::Measured;
use crate::report::{Section, Target};

const CONTACTS: f64 = 10e6;
/// Messages a second of a Page.
const RATE: f64 = 30.0;
/// Seconds of a run in which sends start: the time-out of `process-job` without that of Messenger and the wind-up; and seconds from
/// then to the start of the next run of the job, as far as the queue lets it.
const RUN: u32 = 95;
const HAND_OVER: u32 = 3;
/// The seconds from the due time to the firing of `scheduled`, at most, and the jobs that it wakes in a second: eight at once, each
/// by three requests to DynamoDB and one to SQS.
const SCHEDULE: u32 = 60;
const WAKE_UPS: usize = 300;
/// Write units a second of a new on-demand table, and of the account's quota; and the seconds in which a table that is asked for
/// more doubles.
const NEW_TABLE: f64 = 4_000.0;
const QUOTA: f64 = 40_000.0;
const DOUBLES_IN: f64 = 1_800.0;

/// An installation, and the contacts of its Pages.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    pages: usize,
    /// The parameter `PagesAtOnce`, at most the 1,000 of an event source.
    at_once: usize,
    /// Write units a second of the warmed table.
    writes: f64,
    /// Contacts of the nth Page are as many as 1/n of the first's, not the same everywhere.
    is_skewed: bool,
}

/// The course of a scenario.
#[derive(Default)]
struct Course {
    hours: f64,
    messages_a_second: f64,
    writes_wanted: f64,
    /// The seconds in which Pages waited for a worker, and in which the table took less than was wanted.
    for_workers: f64,
    for_writes: f64,
}

/// The units of a contact that the section `cost` has measured.
#[derive(Deserialize)]
struct Units {
    write_units: f64,
    read_units: f64,
}

#[derive(Clone, Copy)]
enum State {
    /// The job is not woken before this second.
    Asleep(u32),
    /// The wake-up is in the queue.
    Queued,
    /// A worker has the job until this second.
    Running(u32),
}

pub async fn measure() -> Measured {
    let mut section = Section::new("beyond", "10,000,000 contacts on AWS, simulated");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cost.json");
    let units: Units = serde_json::from_str(&fs::read_to_string(file)?)?;
    let even = Scenario {
        name: "as deployed: 500 Pages, 10 at once, new tables",
        pages: 500,
        at_once: 10,
        writes: NEW_TABLE,
        is_skewed: false,
    };
    let scenarios = [
        even,
        Scenario {
            name: "500 at once, new tables",
            at_once: 500,
            ..even
        },
        Scenario {
            name: "500 at once, warm tables",
            at_once: 500,
            writes: QUOTA,
            ..even
        },
        Scenario {
            name: "500 at once, warm tables, the nth Page has 1/n",
            at_once: 500,
            writes: QUOTA,
            is_skewed: true,
            ..even
        },
        Scenario {
            name: "5,000 Pages, 1,000 at once, warm tables",
            pages: 5_000,
            at_once: 1_000,
            writes: QUOTA,
            ..even
        },
    ];
    for scenario in scenarios {
        let (name, course) = (scenario.name, scenario.run(units.write_units));
        section.add(format!("{name}: time"), course.hours, "h");
        section.add(
            format!("{name}: messages a second at most"),
            course.messages_a_second,
            "1/s",
        );
        section.add(
            format!("{name}: write units wanted a second at most"),
            course.writes_wanted,
            "",
        );
        section.note(format!("{name}: {}.", course.bound()));
    }
    section.add("read units a second of 500 Pages", 500.0 * RATE * units.read_units, "");
    section.compare(
        "write units a second of one job",
        RATE * units.write_units,
        "",
        Target::AtMost(1_000.0),
    );
    Ok(section)
}

impl Scenario {
    /// Returns the contacts of each Page.
    fn contacts(&self) -> Vec<f64> {
        let share = |n: usize| if self.is_skewed { 1.0 / (n + 1) as f64 } else { 1.0 };
        let all: f64 = (0..self.pages).map(share).sum();
        (0..self.pages).map(|n| CONTACTS * share(n) / all).collect()
    }

    fn run(&self, write_units: f64) -> Course {
        let (mut left, mut capacity, mut course) = (self.contacts(), self.writes, Course::default());
        let woken = |n: usize| State::Asleep(SCHEDULE + (n / WAKE_UPS) as u32);
        let mut states: Vec<_> = (0..self.pages).map(woken).collect();
        let (mut queue, mut workers) = (VecDeque::new(), 0);
        for second in 0.. {
            for (page, state) in states.iter_mut().enumerate() {
                match *state {
                    State::Asleep(until) if until <= second && left[page] > 0.0 => {
                        queue.push_back(page);
                        *state = State::Queued;
                    }
                    State::Running(until) if until <= second || left[page] <= 0.0 => {
                        workers -= 1;
                        *state = State::Asleep(second + HAND_OVER);
                    }
                    _ => {}
                }
            }
            while workers < self.at_once
                && let Some(page) = queue.pop_front()
            {
                workers += 1;
                states[page] = State::Running(second + RUN);
            }
            let running = |page: &usize| matches!(states[*page], State::Running(_)) && left[*page] > 0.0;
            let sending: Vec<_> = (0..self.pages).filter(running).collect();
            let wanted = sending.iter().map(|page| RATE.min(left[*page])).sum::<f64>();
            let share = (capacity / (wanted * write_units)).min(1.0);
            for page in sending {
                left[page] -= RATE.min(left[page]) * share;
            }
            if share < 1.0 {
                capacity = (capacity * 2.0_f64.powf(1.0 / DOUBLES_IN)).min(QUOTA);
                course.for_writes += 1.0;
            }
            course.for_workers += f64::from(u8::from(!queue.is_empty()));
            course.messages_a_second = course.messages_a_second.max(wanted * share);
            course.writes_wanted = course.writes_wanted.max(wanted * write_units);
            if left.iter().all(|left| *left < 1e-6) {
                course.hours = f64::from(second) / 3_600.0;
                break;
            }
        }
        course
    }
}

impl Course {
    /// Names the limit that decides.
    fn bound(&self) -> &'static str {
        let seconds = self.hours * 3_600.0;
        match (self.for_workers / seconds, self.for_writes / seconds) {
            (workers, writes) if workers >= 0.5 && workers >= writes => {
                "Pages wait for one of the `PagesAtOnce` workers"
            }
            (_, writes) if writes >= 0.5 => "the table `deliveries` takes less than is wanted",
            _ => "the pace of the largest Page decides",
        }
    }
}
