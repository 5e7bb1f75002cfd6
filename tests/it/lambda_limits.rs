//! Lambda's small print: a process that is frozen between two invocations, that is told to end, and that may write no file.

use std::time::Duration;

use local::stack::{Settings, Stack};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::fixture::parameter_store::ParameterStore;
use crate::fixture::process_stack::{self, ApiClient, signal};
use crate::fixture::tcp_proxy::{Break, TcpProxy};

/// Runs the command line where every write to a file fails, and no temporary directory exists.
const WITHOUT_FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/it/fixture/without-files");

async fn completed(api: &ApiClient, id: &str, within: Duration) -> Value {
    let begun = Instant::now();
    loop {
        let report = api.report(id).await;
        if report["status"] == "completed" {
            return report;
        }
        assert!(begun.elapsed() < within, "{report:#}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Sends a signal to every process of the functions; returns their number.
fn signal_all(stack: &Stack, name: &str) -> usize {
    let functions = [stack.send(), stack.process_job(), stack.scheduled()];
    let processes = functions.into_iter().flat_map(|function| function.processes_running());
    processes.map(|process| signal(name, process.pid)).count()
}

/// The time for which a process is frozen; longer than it uses idle connections again.
const FROZEN_FOR: Duration = Duration::from_secs(21);

/// A frozen process learns of a broken connection only with its next invocation, or never.
#[tokio::test(flavor = "multi_thread")]
async fn process_frozen_between_invocations_survives_the_end_of_its_connections() {
    for way in [Break::Close, Break::Silence] {
        let (store, ssm) = ParameterStore::start().await;
        let proxies = [
            TcpProxy::start().await,
            TcpProxy::start().await,
            TcpProxy::start().await,
        ];
        let variables = [
            ("AWS_ENDPOINT_URL_DYNAMODB", &*proxies[0].url),
            ("AWS_ENDPOINT_URL_SQS", &*proxies[1].url),
            ("AWS_ENDPOINT_URL_SSM", &*proxies[2].url),
            ("PAGE_TOKENS", "ssm:/oncecast/page-tokens/"),
        ];
        let change = |settings: &mut Settings| settings.schedule_every = Duration::from_secs(3_600);
        let (stack, api) = process_stack::start_with(Duration::from_secs(60), &variables, change).await;
        let services = [stack.database_endpoint(), stack.queue_endpoint(), &*ssm];
        for (proxy, service) in proxies.iter().zip(services) {
            proxy.forward_to(service);
        }
        for page in ["page-1", "page-2"] {
            let token = format!("EAAB-{page}");
            stack.sandbox().unwrap().set_token(page, &token);
            store.set(&format!("/oncecast/page-tokens/{page}"), &token);
        }
        stack.ready().await.unwrap();
        let ids = |page: &str| (0..100).map(|n| format!("{page}-{n}")).collect::<Vec<_>>();
        let (first, second) = (ids("page-1"), ids("page-2"));
        api.import("page-1", &first).await;
        api.import("page-2", &second).await;
        let id = api.broadcast(&first).await;
        completed(&api, &id, Duration::from_secs(30)).await;
        while stack
            .process_job()
            .processes_running()
            .iter()
            .any(|process| process.busy)
        {
            sleep(Duration::from_millis(20)).await;
        }

        assert!(signal_all(&stack, "STOP") >= 2);
        let broken = proxies.iter().map(|proxy| proxy.break_all(way));
        assert!(broken.sum::<usize>() > 2, "no connection was open");
        sleep(FROZEN_FOR).await;
        let (id, ()) = tokio::join!(api.broadcast(&second), async {
            sleep(Duration::from_millis(100)).await;
            signal_all(&stack, "CONT");
        });
        let report = completed(&api, &id, Duration::from_secs(30)).await;

        assert_eq!(report["counters"]["sent"], 100, "{way:?}");
        assert_eq!(stack.sandbox().unwrap().received_count(), 200);
        stack.stop().await;
    }
}

/// SIGTERM comes two seconds before SIGKILL, in the middle of a run.
#[tokio::test(flavor = "multi_thread")]
async fn terminated_worker_costs_no_more_than_a_killed_one() {
    let (stack, api) = process_stack::start(Duration::from_secs(8), &[("PAGE_RATE_PER_SECOND", "40")]).await;
    let sandbox = stack.sandbox().unwrap();
    sandbox.set_latency_ms(200);
    let ids: Vec<_> = (0..120).map(|n| format!("c{n:03}")).collect();
    api.import("page-1", &ids).await;
    let id = api.broadcast(&ids).await;
    while sandbox.received_count() < 20 {
        sleep(Duration::from_millis(10)).await;
    }

    let running = stack.process_job().processes_running();
    let busy = running.iter().find(|process| process.busy).unwrap();
    signal("TERM", busy.pid);
    let report = completed(&api, &id, Duration::from_secs(60)).await;

    assert!(!stack.process_job().processes_running().contains(busy));
    let counters = &report["counters"];
    let in_doubt = counters["in_doubt"].as_u64().unwrap();
    assert_eq!(counters["sent"].as_u64().unwrap() + in_doubt, 120);
    assert!(in_doubt > 0, "no send was in flight");
    let mut received: Vec<_> = sandbox
        .received()
        .into_iter()
        .map(|message| message.contact_id)
        .collect();
    received.sort();
    received.dedup();
    assert_eq!(received.len(), sandbox.received_count(), "a contact got two messages");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_write_no_file() {
    let change = |settings: &mut Settings| settings.executable = WITHOUT_FILES.into();
    let executable = ("EXECUTABLE", crate::fixture::up::EXECUTABLE);
    let (stack, api) = process_stack::start_with(Duration::from_secs(60), &[executable], change).await;
    stack.ready().await.unwrap();
    let ids: Vec<_> = (0..20).map(|n| format!("c{n:03}")).collect();
    api.import("page-1", &ids).await;

    let id = api.broadcast(&ids).await;
    let report = completed(&api, &id, Duration::from_secs(30)).await;

    assert_eq!(report["counters"]["sent"], 20);
    stack.stop().await;
}

/// API Gateway encodes a body that is not UTF-8 in base64, which makes it longer by a third.
#[tokio::test(flavor = "multi_thread")]
async fn request_of_four_megabytes_in_base64_stays_below_lambdas_limit() {
    const LARGEST: usize = 4 * 1024 * 1024;
    let (stack, api) = process_stack::start(Duration::from_secs(60), &[]).await;
    let import = async |contacts: usize| {
        let row = |n| {
            format!(
                "c{n:04},page-1,{},{},{}\n",
                "a".repeat(1_000),
                "b".repeat(1_000),
                "c".repeat(70)
            )
        };
        let rows: String = (0..contacts).map(row).collect();
        let text = format!("contact_id,page_id,attributes.one,attributes.two,attributes.three\n{rows}");
        let units = [0xFEFF].into_iter().chain(text.encode_utf16());
        let body: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
        let bytes = body.len();
        (bytes, api.put_csv("/v1/contacts", body).await)
    };

    let (bytes, status) = import(1_000).await;
    assert!(bytes < LARGEST && bytes > LARGEST - 50_000, "{bytes} bytes");
    assert_eq!(status, 200);
    // More than the function takes, and more than Lambda takes.
    for contacts in [1_050, 1_500] {
        assert_eq!(import(contacts).await.1, 413);
    }
    stack.stop().await;
}
