//! Whatever happens in whatever order: workers and firings of the schedule, one after the other or at once, on hints that
//! come once, twice or not at all, while calls fail, lose their answers, freeze or kill. The seed of a failure is printed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::SignedDuration;
use local::sandbox::{Answer, Fault, GraphError};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use shared::app::App;
use shared::ids::BroadcastId;
use shared::settle::settle_by_echo;
use shared::store::deliveries::Metadata;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::every_step::{A_WHILE, check};
use crate::stack::{Hint, Stack};
use crate::strikes::{Plan, STRIKES, Strike};

/// Schedules that are tried, and how many of them at once.
const SCHEDULES: usize = 40;
const AT_ONCE: usize = 8;
/// Contacts of a broadcast.
const CONTACTS: usize = 6;
/// A process that is neither done nor struck by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a process is started for.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// To work on the job, by a hint.
    Hint,
    /// The same, and the hint comes again.
    DoubledHint,
    /// The schedule fires.
    Schedule,
    /// What Messenger tells of its own accord, if it has anything to tell.
    Echoes,
}

/// One process: what it does, what happens to it, and when the next one starts.
#[derive(Clone, Debug)]
struct Step {
    work: Work,
    strikes: Vec<(usize, Strike)>,
    /// The next one does not wait for the end of this one.
    alongside: bool,
    /// How much time goes by first.
    after: Duration,
}

/// What happens to one broadcast.
#[derive(Clone, Debug)]
struct Schedule {
    steps: Vec<Step>,
    luck: Vec<Luck>,
    /// What is frozen thaws while there is still work to do; else when all of it is done.
    thaw_first: bool,
}

/// What goes wrong with one contact at Messenger's.
#[derive(Clone, Copy, Debug)]
enum Luck {
    Good,
    Limited,
    Blocked,
    Unanswered,
    Lost,
}

fn any_step() -> impl Strategy<Value = Step> {
    let work = prop_oneof![
        4 => Just(Work::Hint),
        2 => Just(Work::DoubledHint),
        3 => Just(Work::Schedule),
        1 => Just(Work::Echoes),
    ];
    let strike = (0_usize..40, select(STRIKES.to_vec()));
    let strikes = prop::collection::vec(strike, 0..3);
    let after = select(vec![0, 0, 5, 40, 100, 200, 700]).prop_map(Duration::from_secs);
    (work, strikes, any::<bool>(), after).prop_map(|(work, strikes, alongside, after)| Step {
        work,
        strikes,
        alongside,
        after,
    })
}

fn any_luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        3 => Just(Luck::Good),
        1 => Just(Luck::Limited),
        1 => Just(Luck::Blocked),
        1 => Just(Luck::Unanswered),
        1 => Just(Luck::Lost),
    ]
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let steps = prop::collection::vec(any_step(), 2..9);
    let luck = prop::collection::vec(any_luck(), CONTACTS);
    (steps, luck, any::<bool>()).prop_map(|(steps, luck, thaw_first)| Schedule {
        steps,
        luck,
        thaw_first,
    })
}

/// A process under way, dead, frozen or at its end.
struct Process {
    plan: Arc<Plan>,
    task: JoinHandle<()>,
    at_rest: Arc<Notify>,
}

impl Process {
    /// Does this work until it is struck.
    fn start(plan: Arc<Plan>, work: impl Future<Output = ()> + Send + 'static) -> Self {
        let at_rest = Arc::new(Notify::new());
        let (strikes, rests) = (Arc::clone(&plan), Arc::clone(&at_rest));
        let task = tokio::spawn(async move {
            let mut work = pin!(work);
            loop {
                tokio::select! {
                    biased;
                    () = strikes.struck() => {
                        rests.notify_one();
                        if !strikes.is_frozen() {
                            return;
                        }
                        strikes.until_thawed().await;
                    }
                    () = &mut work => {
                        rests.notify_one();
                        return;
                    }
                }
            }
        });
        Self {
            plan,
            task,
            at_rest,
        }
    }

    /// Waits until it has ended, is dead or is frozen.
    async fn rests(&self) {
        let rests = tokio::time::timeout(PATIENCE, self.at_rest.notified());
        assert!(rests.await.is_ok(), "neither done nor struck");
    }

    /// Has it go on to its end.
    async fn end(self) {
        self.plan.thaw();
        let ended = tokio::time::timeout(PATIENCE, self.task);
        ended.await.unwrap().unwrap();
    }
}

/// Starts the process of one step, on a way to its services of its own.
async fn start(stack: &Stack, id: &BroadcastId, step: &Step, again: &mut Vec<Hint>) -> Process {
    let plan = Plan::new(step.strikes.clone());
    let app = stack.another_app(&plan.on_the_way_to(stack.services()).await);
    plan.count(true);
    match step.work {
        Work::Hint | Work::DoubledHint => {
            let hint = match again.pop() {
                Some(hint) => hint,
                None => next_hint(stack, id).await,
            };
            if let Work::DoubledHint = step.work {
                again.push(hint.clone());
            }
            Process::start(plan, work(app, hint))
        }
        Work::Schedule => Process::start(plan, async move {
            let ends = Instant::now() + Duration::from_secs(30);
            // What fails is tried again at the next firing.
            let _ = scheduled::handle(&app, ends).await;
        }),
        Work::Echoes => Process::start(plan, echoes(app, stack.echoes(id))),
    }
}

/// From the queue, or one that comes out of nowhere.
async fn next_hint(stack: &Stack, id: &BroadcastId) -> Hint {
    match stack.receive().await {
        Some(hint) => {
            stack.delete(&hint).await;
            hint
        }
        None => stack.hint_for(id).await,
    }
}

async fn work(app: App, hint: Hint) {
    let mut context = lambda_runtime::Context::default();
    let ends = jiff::Timestamp::now() + SignedDuration::from_secs(120);
    context.deadline = ends.as_millisecond().try_into().unwrap();
    process_job::handle(&app, hint.event(), &context).await;
}

/// Each of these is told twice, and what fails is told again another time.
async fn echoes(app: App, echoes: Vec<(Metadata, String)>) {
    for (metadata, message_id) in echoes.iter().chain(&echoes) {
        let _ = settle_by_echo(&app, metadata, message_id).await;
    }
}

/// Goes on as time does until the broadcast is completed, and everything in doubt has been looked up twice.
async fn finish(stack: &Stack, id: &BroadcastId) {
    for _ in 0..2 {
        stack.finish(id).await;
        stack.advance(A_WHILE);
        stack.scheduled().await;
    }
}

/// A broadcast to contacts of such luck, with these processes; then everything that was frozen thaws, and it is finished.
async fn run(
    Schedule {
        steps,
        luck,
        thaw_first,
    }: Schedule,
) {
    let stack = Stack::start().await;
    let ids = stack.contacts(luck.len()).await;
    for (luck, id) in luck.iter().zip(&ids) {
        let fault = match luck {
            Luck::Good => continue,
            Luck::Limited => Fault::answering(GraphError::new(613, "too fast")).times(1),
            Luck::Blocked => Fault::answering(GraphError::new(551, "blocked")),
            Luck::Unanswered => Fault::answering(Answer::Reset).but_arriving(),
            Luck::Lost => Fault::answering(Answer::Reset),
        };
        stack.sandbox.add_fault(fault.to_contacts([id]));
    }
    let id = stack.broadcast(&ids).await;

    let (mut processes, mut again) = (Vec::new(), Vec::new());
    for step in &steps {
        stack.advance(step.after);
        let process = start(&stack, &id, step, &mut again).await;
        if !step.alongside {
            process.rests().await;
        }
        processes.push(process);
    }
    if !thaw_first {
        finish(&stack, &id).await;
    }
    for process in processes {
        process.end().await;
    }
    finish(&stack, &id).await;
    // What was sent after the last look-up only an echo can tell of.
    echoes(stack.app.clone(), stack.echoes(&id)).await;

    let blocked: Vec<_> = luck
        .iter()
        .zip(&ids)
        .filter(|(luck, _)| matches!(luck, Luck::Blocked))
        .map(|(_, id)| id.as_str())
        .collect();
    check(&stack, &id, &ids, &blocked, "by chance").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_order_of_events_makes_a_duplicate_or_loses_anybody() {
    let mut config = Config::default();
    if let RngSeed::Random = config.rng_seed {
        let now = jiff::Timestamp::now().subsec_nanosecond();
        config.rng_seed = RngSeed::Fixed(now.unsigned_abs().into());
    }
    println!("PROPTEST_RNG_SEED={}", config.rng_seed);
    let mut runner = TestRunner::new(config);
    let schedules = (0..SCHEDULES).map(|_| any_schedule().new_tree(&mut runner).unwrap().current());
    let schedules: Vec<_> = schedules.collect();

    let struck = stream::iter(schedules.into_iter().enumerate())
        .map(|(n, schedule)| async move {
            let told = format!("schedule {n}: {schedule:#?}");
            tokio::spawn(run(schedule)).await.map_err(|_| told)
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let failed: Vec<_> = struck.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
