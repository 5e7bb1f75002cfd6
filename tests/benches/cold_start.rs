//! The start of each function beside that of a function which does nothing.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

use crate::Measured;
use crate::process::{executables, usage};
use crate::report::{Section, Target, median};

/// The function that does nothing, and those of the system.
const HELLO: &str = "hello";
const FUNCTIONS: [&str; 3] = ["send", "process-job", "scheduled"];
/// The starts of each, in turns, after one that finds the executable on the disk.
const ROUNDS: usize = 30;
/// Lambda's own limit.
const PATIENCE: Duration = Duration::from_secs(10);
/// The certificates of Debian in one file; it has each of them in a file of its own as well.
const ONE_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The bytes of a megabyte.
const MEGABYTE: f64 = 1e6;

/// A start, until the function asked for its first invocation.
#[derive(Clone, Copy)]
struct Start {
    ms: f64,
    peak_mib: f64,
}

pub async fn measure() -> Measured {
    let mut section = Section::new(
        "cold_start",
        "from exec to the first request for work, beside a function that does nothing",
    );
    let (mut starts, mut with_one_file) = (BTreeMap::<_, Vec<Start>>::new(), BTreeMap::<_, Vec<Start>>::new());
    for round in 0..=ROUNDS {
        for name in [HELLO].into_iter().chain(FUNCTIONS) {
            let pair = (start(name, None).await?, start(name, Some(ONE_FILE)).await?);
            if round > 0 {
                starts.entry(name).or_default().push(pair.0);
                with_one_file.entry(name).or_default().push(pair.1);
            }
        }
    }
    let median_of =
        |starts: &BTreeMap<_, Vec<Start>>, name: &str, of: fn(&Start) -> f64| median(starts[name].iter().map(of));
    let ms = |name| median_of(&starts, name, |start| start.ms);
    let peak = |name| median_of(&starts, name, |start| start.peak_mib);
    let has_one_file = Path::new(ONE_FILE).exists();
    section.add("first request, hello", ms(HELLO), "ms");
    section.add("peak memory, hello", peak(HELLO), "MiB");
    for name in FUNCTIONS {
        section.add(format!("first request, {name}"), ms(name), "ms");
        let times = ms(name) / ms(HELLO);
        section.compare(
            format!("first request, {name} to hello"),
            times,
            "×",
            Target::AtMost(2.0),
        );
        if has_one_file {
            let times = median_of(&with_one_file, name, |start| start.ms) / ms(HELLO);
            let label = format!("first request, {name} to hello, certificates in one file");
            section.compare(label, times, "×", Target::AtMost(2.0));
        }
        section.add(format!("peak memory, {name}"), peak(name), "MiB");
        let times = peak(name) / peak(HELLO);
        section.compare(format!("peak memory, {name} to hello"), times, "×", Target::AtMost(2.0));
        let bytes = fs::metadata(executables().join(name))?.len();
        section.compare(
            format!("size, {name}"),
            bytes as f64 / MEGABYTE,
            "MB",
            Target::AtMost(8.0),
        );
    }
    Ok(section)
}

/// Starts a function with an environment as on AWS, and ends it when it asks for work. It reads the certificates of the system,
/// or those of a file.
async fn start(name: &str, certificates: Option<&str>) -> Result<Start, Box<dyn Error>> {
    let runtime_api = TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut command = Command::new(executables().join(name));
    command
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", runtime_api.local_addr()?.to_string())
        .envs([
            ("AWS_LAMBDA_FUNCTION_NAME", name),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "bench"),
            ("AWS_SECRET_ACCESS_KEY", "bench"),
            ("BROADCASTS_TABLE", "broadcasts"),
            ("DELIVERIES_TABLE", "deliveries"),
            ("CONTACTS_TABLE", "contacts"),
            (
                "JOBS_QUEUE_URL",
                "https://sqs.us-east-1.amazonaws.com/000000000000/jobs.fifo",
            ),
            ("PAGE_TOKENS", "ssm:/oncecast/pages/"),
            ("APP_SECRET", "ssm:/oncecast/app-secret"),
            ("WEBHOOK_VERIFY_TOKEN", "ssm:/oncecast/verify-token"),
            ("METRICS_NAMESPACE", "Oncecast"),
        ])
        .envs(certificates.map(|file| ("SSL_CERT_FILE", file)))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let begun = Instant::now();
    let mut function = command.spawn()?;
    let request = timeout(PATIENCE, first_request(&runtime_api)).await;
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    // It would end if the connection were closed.
    let (request, _connection) = request.map_err(|_| format!("{name} did not ask for work"))??;
    if !request.contains("/invocation/next ") {
        return Err(format!("{name} did not start: {request}").into());
    }
    let usage = usage(function.id().ok_or("it has ended")?)?;
    function.kill().await?;
    Ok(Start {
        ms,
        peak_mib: usage.peak_mib,
    })
}

/// Reads the head of the first request to the Runtime API, which is never answered.
async fn first_request(runtime_api: &TcpListener) -> Result<(String, TcpStream), Box<dyn Error>> {
    let (mut connection, _) = runtime_api.accept().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && connection.read_buf(&mut head).await? > 0 {}
    Ok((String::from_utf8_lossy(&head).into_owned(), connection))
}
