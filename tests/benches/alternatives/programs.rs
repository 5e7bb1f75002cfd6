//! The other programs: their installation, their processes, and the delivery of their messages.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TimeToLiveSpecification,
};
use local::clients;
use local::lambda::{Definition, Function, InvokeError, RecursiveLoop};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::process::{Usage, executables, usage};
use crate::stack::Bench;

/// The processes of a function, as Lambda would start them for a queue.
pub const ENVIRONMENTS: usize = 4;
/// The records of a batch, which is the default of an event source.
const BATCH: usize = 10;
/// The time-out of an invocation, and the time after which the queue delivers a record again that has not been deleted.
const TIMEOUT: Duration = Duration::from_secs(6);
const VISIBILITY: Duration = Duration::from_secs(8);
/// The time-out of a request to the route: it has all contacts.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(300);
/// The table of the idempotency utilities.
const TABLE: &str = "idempotency";
/// The Page of these programs.
const PAGE: &str = "other-page";
const TOKEN: &str = "EAAB-other";
/// The limits of the heap that Lambda sets for a function with 256 MB.
const NODE_OPTIONS: [&str; 3] = ["--expose-gc", "--max-semi-space-size=12", "--max-old-space-size=230"];

/// The files of this directory that the programs are built from.
const SOURCES: [(&str, &str); 10] = [
    ("messenger.ts", include_str!("messenger.ts")),
    ("loop.ts", include_str!("loop.ts")),
    ("package-lock.json", include_str!("package-lock.json")),
    ("package.json", include_str!("package.json")),
    ("powertools.py", include_str!("powertools.py")),
    ("powertools.ts", include_str!("powertools.ts")),
    ("requirements.txt", include_str!("requirements.txt")),
    ("runtime.py", include_str!("runtime.py")),
    ("runtime.ts", include_str!("runtime.ts")),
    ("tsconfig.json", include_str!("tsconfig.json")),
];

/// A program that sends a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    TypeScript,
    Python,
    /// A loop over the contacts of a request.
    Loop,
}

/// Installs the programs below the target directory, unless exactly these are installed; returns their directory.
pub fn install() -> Result<PathBuf, Box<dyn Error>> {
    let directory = executables().join("alternatives");
    let wanted = SOURCES.map(|(_, text)| text).concat();
    let done = directory.join("installed");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(directory);
    }
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    for (name, text) in SOURCES {
        fs::write(directory.join(name), text)?;
    }
    let python = directory.join("venv/bin/python");
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
    ];
    run(
        &directory,
        "npm",
        &["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"],
    )?;
    run(&directory, "npm", &["run", "--silent", "build"])?;
    run(&directory, "python3", &["-m", "venv", "venv"])?;
    run(
        &directory,
        &python.to_string_lossy(),
        &[&pip[..], &["-r", "requirements.txt"]].concat(),
    )?;
    fs::write(done, wanted)?;
    Ok(directory)
}

fn run(directory: &Path, program: &str, arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    let output = output.map_err(|error| format!("{program} cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    Err(format!("{program} {} failed: {}", arguments.join(" "), texts.concat().trim()).into())
}

/// Returns the versions of the programs.
pub fn versions(installed: &Path) -> Result<String, Box<dyn Error>> {
    let package: Value = serde_json::from_str(include_str!("package.json"))?;
    let typescript = package["dependencies"]["@aws-lambda-powertools/idempotency"].as_str();
    let mut python = include_str!("requirements.txt").lines();
    let python = python.find_map(|line| line.strip_prefix("aws-lambda-powertools==")?.split(' ').next());
    let [node, interpreter] = ["node".into(), installed.join("venv/bin/python")].map(|program| {
        let output = Command::new(program).arg("--version").output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    });
    Ok(format!(
        "Powertools {} for TypeScript on Node.js {}, {} for Python on {}",
        typescript.unwrap_or_default(),
        node?,
        python.unwrap_or_default(),
        interpreter?
    ))
}

/// A running program, as a function of Lambda over the services of a stack.
pub struct Running {
    program: Program,
    function: Function,
}

impl Running {
    /// Prepares the table and the Page of a program; its processes start with its first messages. `dynamodb` is the endpoint of the
    /// database.
    pub async fn new(
        program: Program,
        installed: &Path,
        bench: &Bench,
        dynamodb: &str,
    ) -> Result<Self, Box<dyn Error>> {
        create_table(bench.stack.database_endpoint()).await?;
        let sandbox = bench.stack.sandbox().ok_or("no sandbox")?;
        sandbox.set_token(PAGE, TOKEN);
        let file = |name: &str| installed.join(name).display().to_string();
        let node = |name: &str| {
            let options = NODE_OPTIONS.map(str::to_owned).into_iter();
            ("node".into(), options.chain([file(name)]).collect())
        };
        let (executable, args): (PathBuf, Vec<String>) = match program {
            Program::TypeScript => node("built/powertools.cjs"),
            Program::Loop => node("built/loop.cjs"),
            Program::Python => (installed.join("venv/bin/python"), vec![file("powertools.py")]),
        };
        let env = [
            ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb),
            ("GRAPH_API_URL", &sandbox.url()),
            // The SDK warns of its end for the oldest Node.js that it works with.
            ("NODE_NO_WARNINGS", "1"),
            ("IDEMPOTENCY_TABLE", TABLE),
            ("PAGE_TOKEN", TOKEN),
        ];
        let is_loop = program == Program::Loop;
        let function = Function::new(Definition {
            name: "alternative".to_owned(),
            executable,
            args,
            env: BTreeMap::from(env.map(|(name, value)| (name.to_owned(), value.to_owned()))),
            timeout: if is_loop { ROUTE_TIMEOUT } else { TIMEOUT },
            max_children: if is_loop { 1 } else { u32::try_from(ENVIRONMENTS)? },
            recursive_loop: RecursiveLoop::Allow,
        });
        Ok(Self { program, function })
    }

    /// Sends a broadcast, to its end: what fails is tried again as its platform, or for the route its operator, does.
    pub async fn broadcast(&self, contacts: &[String]) -> Result<(), Box<dyn Error>> {
        let broadcast_id = Uuid::now_v7().to_string();
        let text = "Hello Ana, the shop opens at nine.";
        if self.program == Program::Loop {
            let request = json!({
                "broadcast_id": broadcast_id, "page_id": PAGE, "contact_ids": contacts, "text": text,
            });
            while self.request(&request).await? {}
            return Ok(());
        }
        let message = |contact_id: &String| {
            let message = json!({
                "broadcast_id": broadcast_id, "contact_id": contact_id, "page_id": PAGE, "text": text,
            });
            record(&message)
        };
        self.deliver(contacts.iter().map(message)).await
    }

    /// Makes the request to the route; returns true if the operator has to repeat it, because it failed or some of its sends did.
    async fn request(&self, request: &Value) -> Result<bool, Box<dyn Error>> {
        match self.function.invoke(request.to_string()).await {
            Ok(answer) => Ok(serde_json::from_slice::<Value>(&answer)?["failed"] != 0),
            Err(InvokeError::Crashed) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Delivers records in batches as a queue does: those that the function does not succeed with come again.
    async fn deliver(&self, records: impl Iterator<Item = Value>) -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        let mut queue: VecDeque<_> = records.map(|record| (begun, record)).collect();
        let mut invocations = JoinSet::new();
        while !(queue.is_empty() && invocations.is_empty()) {
            let now = Instant::now();
            let visible = queue.iter().take(BATCH).take_while(|(from, _)| *from <= now).count();
            if visible > 0 && invocations.len() < ENVIRONMENTS {
                let batch: Vec<_> = queue.drain(..visible).map(|(_, record)| record).collect();
                let function = self.function.clone();
                invocations.spawn(async move {
                    let answer = function.invoke(json!({ "Records": batch }).to_string()).await;
                    failed(answer, batch).map(|failed| (now + VISIBILITY, failed))
                });
                continue;
            }
            let next = queue.front().map_or(now + VISIBILITY, |(from, _)| *from);
            tokio::select! {
                Some(ended) = invocations.join_next() => {
                    let (from, failed) = ended?.map_err(|error| format!("a function failed: {error}"))?;
                    queue.extend(failed.into_iter().map(|record| (from, record)));
                }
                () = sleep_until(next), if visible == 0 => {}
            }
        }
        Ok(())
    }

    /// Returns the use of its running processes: the CPU of all, and the memory of the largest.
    pub fn usage(&self) -> Result<Usage, Box<dyn Error>> {
        let mut sum = Usage {
            cpu: Duration::ZERO,
            peak_mib: 0.0,
        };
        for process in self.function.processes_running() {
            let usage = usage(process.pid)?;
            sum.cpu += usage.cpu;
            sum.peak_mib = sum.peak_mib.max(usage.peak_mib);
        }
        Ok(sum)
    }

    /// Ends its processes.
    pub async fn stop(&self) {
        self.function.stop(TIMEOUT).await;
    }

    /// Returns the function.
    pub fn function(&self) -> &Function {
        &self.function
    }
}

/// Returns the records of a batch that are to be delivered again.
fn failed(answer: Result<impl AsRef<[u8]>, InvokeError>, batch: Vec<Value>) -> Result<Vec<Value>, InvokeError> {
    let answer = match answer {
        Ok(answer) => answer,
        // The utility fails if no record of a batch succeeds; a killed process takes its batch with it.
        Err(InvokeError::Failed(_) | InvokeError::Crashed | InvokeError::TimedOut) => return Ok(batch),
        Err(error) => return Err(error),
    };
    let answer: Value = serde_json::from_slice(answer.as_ref()).unwrap_or_default();
    let failures = answer["batchItemFailures"].as_array().cloned().unwrap_or_default();
    let has_failed = |record: &Value| {
        failures
            .iter()
            .any(|failure| failure["itemIdentifier"] == record["messageId"])
    };
    Ok(batch.into_iter().filter(has_failed).collect())
}

/// Returns a record as SQS delivers it.
fn record(message: &Value) -> Value {
    let id = Uuid::new_v4().to_string();
    json!({
        "messageId": id,
        "receiptHandle": id,
        "body": message.to_string(),
        "attributes": {"ApproximateReceiveCount": "1"},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:messages",
        "awsRegion": clients::REGION,
    })
}

/// Creates the table of the idempotency utilities as they document it, unless another program has.
async fn create_table(endpoint: &str) -> Result<(), Box<dyn Error>> {
    let dynamodb = clients::dynamodb(endpoint);
    if dynamodb
        .list_tables()
        .send()
        .await?
        .table_names()
        .contains(&TABLE.to_owned())
    {
        return Ok(());
    }
    let id = AttributeDefinition::builder().attribute_name("id");
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash);
    dynamodb
        .create_table()
        .table_name(TABLE)
        .attribute_definitions(id.attribute_type(ScalarAttributeType::S).build()?)
        .key_schema(key.build()?)
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await?;
    let expiry = TimeToLiveSpecification::builder()
        .attribute_name("expiration")
        .enabled(true);
    let expires = dynamodb.update_time_to_live().table_name(TABLE);
    expires.time_to_live_specification(expiry.build()?).send().await?;
    Ok(())
}
