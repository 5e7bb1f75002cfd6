//! A file of 200 MB and 2,000,000 contacts, imported by a process that is killed twice. `CONTACTS` sets another number.
//!
//! ```sh
//! cargo test -p tests --test it -- --ignored --nocapture two_million_contacts
//! ```

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::cli::{oncecast, run};
use crate::fixture::up::EXECUTABLE;

/// Returns the greatest memory that a process has had, in MB.
fn peak(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

fn stored(journal: &Path) -> u64 {
    let text = fs::read(journal).unwrap_or_default();
    let journal: Value = serde_json::from_slice(&text).unwrap_or_default();
    journal["stored"].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour: a named longer run, which prints the memory of an import"]
async fn two_million_contacts_of_a_file_are_imported_with_flat_memory() {
    let contacts: u64 = std::env::var("CONTACTS").map_or(2_000_000, |number| number.parse().unwrap());
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    let settings = local::stack::Settings {
        executable: EXECUTABLE.into(),
        data: Some(data),
        ..local::stack::Settings::default()
    };
    let up = local::stack::Stack::start(settings).await.unwrap();
    up.ready().await.unwrap();
    let api = up.api_url();
    let path = directory.path().join("people.csv");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    writeln!(
        file,
        "contact_id,page_id,first_name,last_name,tags,attributes.city,attributes.note"
    )
    .unwrap();
    for n in 0..contacts {
        let note = "a note of some words";
        writeln!(
            file,
            "{n:017},page-{},Ana María,\"Sá, {n:08}\",vip;new,Vila Nova de Gaia,{note}",
            n % 4 + 1
        )
        .unwrap();
    }
    drop(file.into_inner().unwrap());
    let megabytes = fs::metadata(&path).unwrap().len() / 1_000_000;
    println!("{contacts} contacts in {megabytes} MB");

    let journal = directory.path().join("people.csv.oncecast-import");
    let begun = Instant::now();
    for (round, share) in [Some(1), Some(2), None].into_iter().enumerate() {
        let mut command = oncecast(&api, &["contacts", "import", path.to_str().unwrap()]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut memory = 0;
        let ended = loop {
            memory = memory.max(peak(&child).unwrap_or_default());
            if let Some(ended) = child.try_wait().unwrap() {
                break Some(ended);
            }
            if share.is_some_and(|share| stored(&journal) > contacts * share / 3) {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            sleep(Duration::from_millis(100));
        };
        println!(
            "run {}: {memory} MB at most, {} s since the beginning, {} contacts in the journal",
            round + 1,
            begun.elapsed().as_secs(),
            stored(&journal)
        );
        assert!(memory < 100, "the memory of an import is not flat: {memory} MB");
        match share {
            Some(_) => assert!(ended.is_none(), "the import was over before it was killed"),
            None => assert!(ended.unwrap().success()),
        }
    }
    assert!(!journal.exists() && !directory.path().join("people.csv.refused.csv").exists());
    let export = directory.path().join("all.ndjson");
    let arguments = [
        "contacts",
        "export",
        "--format",
        "ndjson",
        "--output",
        export.to_str().unwrap(),
    ];
    let exported = run(&api, &arguments);
    assert_eq!(exported.status, 0, "{}", exported.stderr);
    let lines = BufReader::new(File::open(&export).unwrap()).lines().count() as u64;
    assert_eq!(lines, contacts);
    println!("{lines} contacts exported");
    up.stop().await;
}
