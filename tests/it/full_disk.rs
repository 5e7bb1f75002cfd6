//! `up --data DIR` on a disk that takes no more data: nothing is lost, and the operator is told the cause.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::fixture::up::{EXECUTABLE, UpProcess};

/// Returns the arguments of `up` on this directory.
fn on(data: &TempDir) -> [&str; 2] {
    ["--data", data.path().to_str().unwrap()]
}

fn contacts(prefix: &str, count: usize) -> Value {
    let long = "x".repeat(1_000);
    let contact = |n| json!({"contact_id": format!("{prefix}{n}"), "page_id": "page-1", "attributes": {"note": long}});
    json!({"contacts": (0..count).map(contact).collect::<Vec<_>>()})
}

/// The limit for the size of files takes the part of a full disk: SQLite reports both, by different words.
#[tokio::test]
async fn failing_disk_is_named_in_the_log_and_by_the_health_check() {
    let data = TempDir::new().unwrap();
    UpProcess::start(&on(&data), &[]).terminate();
    let mut limited = Command::new("sh");
    // Without the trap the signal of the limit would end the process. The limit is in blocks of 512 bytes.
    let script = "trap '' XFSZ; ulimit -S -f 2048; exec \"$@\"";
    limited.args(["-c", script, "sh", EXECUTABLE]);
    let up = UpProcess::start_by(limited, &on(&data), &[]);
    assert_eq!(up.call("PUT", "/v1/contacts", &contacts("a", 1)).await["upserted"], 1);
    assert_eq!(up.call("GET", "/v1/health", &Value::Null).await["status"], "ok");

    let mut stored = 0;
    while up
        .send("PUT", "/v1/contacts", None, &contacts("b", stored + 100))
        .await
        .status()
        == 200
    {
        stored += 100;
        assert!(stored < 10_000, "the limit has no effect");
    }

    let health = up.send("GET", "/v1/health", None, &Value::Null).await;
    assert_eq!(health.status(), 503);
    let problem: Value = serde_json::from_slice(&health.bytes().await.unwrap()).unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("disk I/O error") && detail.contains("limits"),
        "{detail}"
    );
    let first = up.send("GET", "/v1/contacts/a0", None, &Value::Null).await;
    assert_eq!(first.status(), 200, "what was stored can be read");

    let pid = up.pid().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=unlimited"])
        .status();
    assert!(raised.unwrap().success());
    while up.send("PUT", "/v1/contacts", None, &contacts("c", 1)).await.status() != 200 {
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(up.call("GET", "/v1/health", &Value::Null).await["status"], "ok");
    let (_, log) = up.terminate();
    assert_eq!(log.matches("the database cannot write").count(), 1, "{log}");
    assert!(log.contains("the database can write again"), "{log}");
}
