//! `oncecast contacts`: files of any form and size, interruptions, and what a user is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::cli::{Ended, Terminal, oncecast, run, run_with, signal};
use crate::fixture::other_api;
use crate::fixture::up::{EXECUTABLE, UpProcess};

/// The time within which something is expected.
const WITHIN: Duration = Duration::from_secs(60);

fn file(directory: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

fn import(api: &str, path: &Path, further: &[&str]) -> Ended {
    let arguments = [&["contacts", "import", path.to_str().unwrap()], further].concat();
    run(api, &arguments)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// Returns the exported contacts by id, as soon as there are so many: the list lags.
fn exported(api: &str, count: usize) -> BTreeMap<String, Value> {
    let begun = Instant::now();
    loop {
        let ended = run(api, &["contacts", "export", "--json"]);
        assert_eq!(ended.status, 0, "{}", ended.stderr);
        let contacts = ended.objects();
        if contacts.len() == count || begun.elapsed() > WITHIN {
            assert_eq!(contacts.len(), count);
            let by_id = |contact: Value| (contact["contact_id"].as_str().unwrap().to_owned(), contact);
            return contacts.into_iter().map(by_id).collect();
        }
        sleep(Duration::from_millis(200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_refused_with_their_lines_in_the_whole_file() {
    let (up, directory) = (UpProcess::start(&[], &[]), TempDir::new().unwrap());
    // A byte order mark, semicolons, CR LF, line ends in cells, blank rows: as a spreadsheet writes it.
    let mut csv = "\u{feff}Contact ID;page_id;First Name;tags;attributes.city\r\n".to_owned();
    let mut wrong = Vec::new();
    for n in 0..2_300 {
        csv.push_str(&format!(
            "7{n:05};page-{};\"Ana \"\"A\"\"\n{n}\";\"vip;new\";Porto\r\n",
            n % 3 + 1
        ));
        let line = csv.matches('\n').count() + 1;
        match n {
            1_200 => {
                csv.push_str("bad id;page-1;x;;\r\n;;;;\r\n\r\n");
                wrong.push(format!(
                    "{line},contact_id,\"must have visible characters only; character 4 is U+0020"
                ));
            }
            2_100 => {
                csv.push_str("702098;page-1;x;;\r\n");
                let first = line - 6;
                wrong.push(format!(
                    "{line},contact_id,\"is in the request already, at line {first}\""
                ));
            }
            _ => {}
        }
    }
    let path = file(&directory, "people.csv", csv);

    let ended = import(up.url(), &path, &[]);

    assert_eq!(ended.status, 6, "{}", ended.stderr);
    assert!(
        ended.stdout.starts_with("2,300 contacts stored in "),
        "{}",
        ended.stdout
    );
    assert!(ended.stderr.contains("error: 2 contacts refused\n"), "{}", ended.stderr);
    let refused = fs::read_to_string(beside(&path, ".refused.csv")).unwrap();
    let rows: Vec<_> = refused.lines().collect();
    assert_eq!(rows.len(), 3, "{refused}");
    assert_eq!(rows[0], "line,column,message");
    assert!(rows[1].starts_with(&wrong[0]), "{refused}");
    assert!(rows[2].starts_with(&wrong[1]), "{refused}");
    assert!(!beside(&path, ".oncecast-import").exists());
    let contacts = exported(up.url(), 2_300);
    let ana = &contacts["702098"];
    assert_eq!(ana["first_name"], "Ana \"A\"\n2098");
    assert_eq!(
        (&ana["tags"], &ana["attributes"]),
        (&json!(["vip", "new"]), &json!({"city": "Porto"}))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_json_and_utf_16_are_told_by_their_content() {
    let (up, directory) = (UpProcess::start(&[], &[]), TempDir::new().unwrap());
    let mut lines = String::new();
    for n in 0..1_500 {
        lines.push_str(&format!(
            "{{\"contact_id\":\"8{n:05}\",\"page_id\":\"page-1\",\"attributes\":{{\"n\":{n}}}}}\n"
        ));
        if n == 1_100 {
            lines.push_str(
                "{\"contact_id\":\"9\",\"page_id\"\n\n  {\"contact_id\":\"9\",\"page_id\":\"page-1\",\"tags\":[1]}\r\n",
            );
            lines.push_str("{\"contact_id\":\"801100\",\"page_id\":\"page-1\"}\n");
        }
    }
    // The content counts, not the name.
    let path = file(&directory, "people.txt", format!("\u{feff}{lines}"));

    let ended = import(up.url(), &path, &["--json"]);

    assert_eq!(ended.status, 6, "{}", ended.stderr);
    let refused_file = beside(&path, ".refused.csv");
    let summary = json!({"upserted": 1_500, "refused": 3, "refused_file": refused_file.to_str().unwrap()});
    assert_eq!(ended.objects(), [summary]);
    let refused = fs::read_to_string(refused_file).unwrap();
    let expected = "line,column,message\r\n1102,,must be JSON; the first error is at character 27\r\n\
        1104,tags,\"must be a list of at most 100 strings of at most 1000 characters, without U+0000\"\r\n1105,contact_id,\"is in the request already, at line 1101\"\r\n";
    assert_eq!(refused, expected);

    let rows: String = (0..1_200).map(|n| format!("6{n:05}\tpage-1\tÅsa 🙂 {n}\n")).collect();
    let text = format!("\u{feff}contact_id\tpage_id\tfirst_name\n{rows}");
    let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let ended = import(up.url(), &file(&directory, "utf-16.csv", utf_16), &[]);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    let contacts = exported(up.url(), 2_700);
    assert_eq!(contacts["801100"]["attributes"], json!({"n": 1_100}));
    assert_eq!(contacts["601199"]["first_name"], "Åsa 🙂 1199");

    let ended = run_with(
        up.url(),
        &["contacts", "import", "-"],
        "contact_id,page_id,first_name\n801100,page-1,Ben\n",
    );
    assert_eq!(
        (ended.status, ended.stdout.split(" in ").next()),
        (0, Some("1 contact stored"))
    );
    let shown = run(up.url(), &["contacts", "show", "801100"]);
    assert!(shown.stdout.contains("first_name    Ben\n"), "{}", shown.stdout);
}

#[test]
fn file_that_is_none_of_contacts_is_refused_in_a_line() {
    let directory = TempDir::new().unwrap();
    let long = format!("contact_id,page_id\n\"{}", "x\n".repeat(1_500_000));
    let files: [(&str, &[u8], i32, &str); 9] = [
        ("empty.csv", b"", 2, "is empty"),
        ("binary.csv", b"a,b\0c", 2, "is a binary file"),
        ("sheet.csv", b"PK\x03\x04\x14\0", 2, "is a spreadsheet"),
        ("people.csv.gz", b"\x1f\x8b\x08\0", 2, "is compressed"),
        ("list.json", b" [{\"contact_id\":\"1\"}]", 2, "is a list of JSON"),
        ("header.csv", b"contact_id,page_id\n", 2, "has no contacts"),
        ("blank.csv", b"contact_id,page_id\n,\n\n , \n", 2, "has no contacts"),
        ("open.csv", long.as_bytes(), 2, "line 2 has more than 2000000 bytes"),
        ("half.csv", b"\xff\xfea\0,\0b", 1, "broken UTF-16"),
    ];
    for (name, content, status, words) in files {
        // Nothing listens there, and nothing is asked.
        let ended = import("http://127.0.0.1:1", &file(&directory, name, content), &[]);
        assert_eq!(
            (ended.status, ended.stdout.as_str()),
            (status, ""),
            "{name}: {}",
            ended.stderr
        );
        assert!(ended.stderr.contains(words), "{name}: {}", ended.stderr);
        assert!(ended.stderr.lines().count() <= 3, "{name}: {}", ended.stderr);
    }
    for (path, words) in [("none.csv", "No such file"), (".", "Is a directory")] {
        let ended = import("http://127.0.0.1:1", &directory.path().join(path), &[]);
        assert_eq!(ended.status, 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

/// The ids that an API got, and the number of the requests that it lets wait, with those that came after it.
#[derive(Clone, Default)]
struct Received {
    requests: Arc<Mutex<Vec<Vec<String>>>>,
    answered: Arc<Mutex<usize>>,
}

impl Received {
    /// Starts an API that stores contacts of CSV, and refuses each id that ends with 13.
    async fn start(&self) -> String {
        let received = self.clone();
        other_api::start(move |_, body| {
            let text = String::from_utf8(body.to_vec()).unwrap();
            let rows: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
            let ids: Vec<String> = rows
                .iter()
                .map(|row| row.split(',').next().unwrap().to_owned())
                .collect();
            let mut requests = received.requests.lock().unwrap();
            if requests.len() >= *received.answered.lock().unwrap() {
                return None;
            }
            let refused: Vec<_> = ids
                .iter()
                .enumerate()
                .filter(|(_, id)| id.ends_with("13"))
                .map(|(n, _)| json!({"field": "", "line": n + 2, "column": "contact_id", "message": "is unlucky"}))
                .collect();
            let upserted = ids.len() - refused.len();
            requests.push(ids);
            Some(other_api::json(200, &json!({"upserted": upserted, "refused": refused})))
        })
        .await
    }

    fn answer(&self, requests: usize) {
        *self.answered.lock().unwrap() = requests;
    }

    fn ids(&self) -> Vec<String> {
        self.requests.lock().unwrap().concat()
    }
}

fn numbered(contacts: usize) -> String {
    let rows: String = (0..contacts).map(|n| format!("{n:08},page-1\n")).collect();
    format!("contact_id,page_id\n{rows}")
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_import_goes_on_where_it_was() {
    let (directory, received) = (TempDir::new().unwrap(), Received::default());
    let api = received.start().await;
    let path = file(&directory, "people.csv", numbered(20_000));
    let arguments = ["contacts", "import", path.to_str().unwrap()];
    let journal = beside(&path, ".oncecast-import");
    let stored = |journal: &Path| -> u64 {
        let text = fs::read(journal).unwrap_or_default();
        let journal: Value = serde_json::from_slice(&text).unwrap_or_default();
        journal["stored"].as_u64().unwrap_or_default()
    };

    for (round, (how, status)) in [("KILL", None), ("INT", Some(130)), ("KILL", None)]
        .into_iter()
        .enumerate()
    {
        let answered = 5 * (round + 1);
        received.answer(answered);
        let mut child = oncecast(&api, &arguments).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        // Ten of a thousand are refused.
        let before = received.requests.lock().unwrap().len();
        while received.requests.lock().unwrap().len() < answered || stored(&journal) < 990 * (before as u64 + 1) {
            assert!(begun.elapsed() < WITHIN);
            sleep(Duration::from_millis(5));
        }
        signal(&child, how);
        let ended = child.wait().unwrap();
        assert_eq!(ended.code(), status);
        if how == "INT" {
            let mut told = String::new();
            std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut told).unwrap();
            assert!(told.contains("going on: "), "{told}");
            assert!(told.contains("; the same command goes on from there\n"), "{told}");
        }
    }
    received.answer(usize::MAX);
    let ended = run(&api, &arguments);

    assert_eq!(ended.status, 6, "{}", ended.stderr);
    assert!(ended.stdout.starts_with("19,800 contacts stored"), "{}", ended.stdout);
    assert!(!journal.exists());
    let ids = received.ids();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 20_000);
    // At most the parts that were under way came again.
    assert!(ids.len() <= 20_000 + 3 * 4_000, "{}", ids.len());
    let refused = fs::read_to_string(beside(&path, ".refused.csv")).unwrap();
    let expected: String = (0..20_000)
        .filter(|n| n % 100 == 13)
        .map(|n| format!("{},contact_id,is unlucky\r\n", n + 2))
        .collect();
    assert_eq!(refused, format!("line,column,message\r\n{expected}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_file_and_another_api_are_not_mixed_with_an_interrupted_import() {
    let (directory, received) = (TempDir::new().unwrap(), Received::default());
    let api = received.start().await;
    let path = file(&directory, "people.csv", numbered(3_000));
    received.answer(1);
    let mut child = oncecast(&api, &["contacts", "import", path.to_str().unwrap()])
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while received.ids().is_empty() || !beside(&path, ".oncecast-import").exists() {
        assert!(begun.elapsed() < WITHIN);
        sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    received.answer(usize::MAX);

    let elsewhere = import("http://127.0.0.1:1", &path, &[]);
    assert_eq!(elsewhere.status, 2, "{}", elsewhere.stderr);
    assert!(
        elsewhere.stderr.contains(&format!("--api {api} goes on with it")),
        "{}",
        elsewhere.stderr
    );
    file(&directory, "people.csv", numbered(3_001));
    let changed = import(&api, &path, &[]);
    assert_eq!(changed.status, 2, "{}", changed.stderr);
    assert!(
        changed.stderr.contains("has changed since its import was interrupted"),
        "{}",
        changed.stderr
    );
    assert!(changed.stderr.contains("--restart"), "{}", changed.stderr);
    assert!(received.ids().len() <= 1_000);
    let again = import(&api, &path, &["--restart"]);
    assert_eq!(again.status, 6, "{}", again.stderr);
    assert_eq!(received.ids().into_iter().collect::<BTreeSet<_>>().len(), 3_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn file_that_is_cut_off_while_it_is_read_is_told() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, "people.csv", numbered(50_000));
    let cut_off = path.clone();
    let api = other_api::start(move |_, _| {
        fs::OpenOptions::new()
            .write(true)
            .open(&cut_off)
            .unwrap()
            .set_len(400_000)
            .unwrap();
        Some(other_api::json(200, &json!({"upserted": 1_000, "refused": []})))
    })
    .await;

    let ended = import(&api, &path, &[]);

    assert_eq!((ended.status, ended.stdout.as_str()), (1, ""));
    assert!(
        ended.stderr.contains("was changed while it was read"),
        "{}",
        ended.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn import_stops_with_a_line_where_it_cannot_go_on() {
    let (directory, received) = (TempDir::new().unwrap(), Received::default());
    let api = received.start().await;
    received.answer(usize::MAX);
    let path = file(&directory, "people.csv", numbered(9_000));
    // The limit for the size of a file takes the part of a full disk; it is in blocks of 512 bytes.
    let script = "trap '' XFSZ; ulimit -S -f 2; exec \"$@\"";
    let mut limited = Command::new("sh");
    limited.args([
        "-c",
        script,
        "sh",
        EXECUTABLE,
        "contacts",
        "import",
        path.to_str().unwrap(),
    ]);
    let full: Ended = limited.env("ONCECAST_API", &api).output().unwrap().into();
    assert_eq!(full.status, 1, "{}", full.stderr);
    assert!(full.stderr.contains(".refused.csv: File too large"), "{}", full.stderr);
    assert!(
        full.stderr.contains("the same command goes on from there"),
        "{}",
        full.stderr
    );
    let rest = import(&api, &path, &[]);
    assert_eq!(rest.status, 6, "{}", rest.stderr);
    let refused = fs::read_to_string(beside(&path, ".refused.csv")).unwrap();
    assert_eq!(refused.lines().count(), 91, "{refused}");

    let up = UpProcess::start(&[], &[]);
    let rows: String = (0..1_500).map(|n| format!("5{n:05},page-1,x\n")).collect();
    let broken = format!("contact_id,page_id,first_name\n{rows}5,page-1,\"open\n6,page-1,x\n");
    let broken = import(up.url(), &file(&directory, "broken.csv", broken), &[]);
    assert_eq!(broken.status, 5, "{}", broken.stderr);
    assert!(
        broken
            .stderr
            .contains("line 1502, column first_name has a quotation that is never closed"),
        "{}",
        broken.stderr
    );
    assert!(
        broken.stderr.contains("1,000 contacts stored before line 1,002"),
        "{}",
        broken.stderr
    );
    let header = import(
        up.url(),
        &file(&directory, "header.csv", "contact_id,pagee\n1,page-1\n"),
        &[],
    );
    assert_eq!(header.status, 5, "{}", header.stderr);
    assert!(
        header.stderr.contains("line 1, column pagee is not a known column"),
        "{}",
        header.stderr
    );
    let api = up.url().to_owned();
    drop(up);
    let gone = import(&api, &path, &[]);
    assert_eq!(gone.status, 3, "{}", gone.stderr);
    assert!(
        gone.stderr.contains("the same command goes on from there"),
        "{}",
        gone.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn import_on_a_terminal_of_80_columns_shows_a_bar() {
    let directory = TempDir::new().unwrap();
    let api = other_api::start(|_, _| Some(other_api::json(200, &json!({"upserted": 1_000, "refused": []})))).await;
    let path = file(&directory, "people.csv", numbered(30_000));
    let terminal = Terminal::start(oncecast(&api, &["contacts", "import", path.to_str().unwrap()]), 80);
    terminal.wait_for("contacts ·");
    let (status, shown) = terminal.end();
    assert_eq!(status, 0, "{shown}");
    assert!(shown.contains("30,000 contacts stored in "), "{shown}");
    let bars = shown.split(['\r', '\n']).filter(|line| line.contains("contacts ·"));
    for bar in bars {
        assert!(
            bar.chars().filter(|c| !c.is_control()).count() <= 80 + "[2K".len(),
            "{bar:?}"
        );
    }
}

fn csv_part(csv: &'static str, next: Option<&'static str>) -> Response {
    (next.map(|next| [("x-next-cursor", next)]), csv).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn export_is_one_file_with_the_columns_of_all_parts() {
    let directory = TempDir::new().unwrap();
    let api = other_api::start(|head, _| {
        let query = head.uri.query().unwrap();
        assert!(query.contains("tag=v+ip") || query.contains("tag=v%20ip"), "{query}");
        Some(match query.contains("cursor=two") {
            false => csv_part(
                "contact_id,page_id,attributes.z\r\n6001,page-1,\"a\nb\"\r\n",
                Some("two"),
            ),
            true => csv_part(
                "contact_id,page_id,attributes.a,attributes.z\r\n6002,page-2,1,2\r\n6003,page-2,\"'=1\",\r\n",
                None,
            ),
        })
    })
    .await;
    let whole = "contact_id,page_id,attributes.a,attributes.z\r\n6001,page-1,,\"a\nb\"\r\n6002,page-2,1,2\r\n6003,page-2,'=1,\r\n";

    let arguments = ["contacts", "export", "--tag", "v ip"];
    let ended = run(&api, &arguments);
    assert_eq!((ended.status, ended.stdout.as_str()), (0, whole), "{}", ended.stderr);
    let output = directory.path().join("vip.csv");
    let ended = run(
        &api,
        &[&arguments[..], &["--output", output.to_str().unwrap()]].concat(),
    );
    assert_eq!((ended.status, ended.stdout.as_str()), (0, ""), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(&output).unwrap(), whole);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);

    // A full disk below `> out.csv`, and a reader that has gone.
    let mut command = oncecast(&api, &arguments);
    command.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let full: Ended = command
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap()
        .into();
    assert_eq!(full.status, 1);
    assert!(
        full.stderr
            .contains("the output cannot be written: No space left on device"),
        "{}",
        full.stderr
    );
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = oncecast(&api, &arguments);
    let closed: Ended = command
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap()
        .into();
    assert_eq!((closed.status, closed.stderr.as_str()), (0, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn contact_is_shown_deleted_and_erased() {
    let up = UpProcess::start(&[], &[]);
    let csv = "contact_id,page_id,first_name,tags,attributes.city\n6001,page-1,\"Ana\u{1b}[31m\",vip;new,Porto\n6002,page-1,Ben,,\n";
    assert_eq!(run_with(up.url(), &["contacts", "import", "-"], csv).status, 0);
    let shown = run(up.url(), &["contacts", "show", "6001"]);
    let expected = "contact_id       6001\npage_id          page-1\nfirst_name       Ana\\u{1b}[31m\ntags             vip, new\n\
        opted_out        false\ntester           false\nsource           api\nattributes.city  Porto\n";
    assert_eq!((shown.status, shown.stdout.as_str()), (0, expected), "{}", shown.stderr);
    assert_eq!(
        run(up.url(), &["contacts", "show", "6001", "--json"]).objects()[0]["tags"],
        json!(["vip", "new"])
    );

    let unasked = run(up.url(), &["contacts", "delete", "6001"]);
    assert_eq!(unasked.status, 2, "{}", unasked.stderr);
    let mut terminal = Terminal::start(oncecast(up.url(), &["contacts", "delete", "6001"]), 80);
    terminal.wait_for("Type the id to delete the contact 6001: ");
    terminal.type_line("6002");
    let (status, shown) = terminal.end();
    assert_eq!(status, 1, "{shown}");
    assert!(shown.contains("nothing was done"), "{shown}");
    let mut terminal = Terminal::start(oncecast(up.url(), &["contacts", "delete", "6001"]), 80);
    terminal.wait_for(": ");
    terminal.type_line("6001");
    assert_eq!(terminal.end().0, 0);
    let gone = run(up.url(), &["contacts", "delete", "6001", "--yes"]);
    assert_eq!(
        (gone.status, gone.stderr.lines().next()),
        (5, Some("error: there is no such contact"))
    );
    let erased = run(up.url(), &["contacts", "delete", "6002", "--erase", "--yes"]);
    assert_eq!(
        (erased.status, erased.stdout.as_str()),
        (0, "erased the contact, 0 deliveries\n")
    );
}
