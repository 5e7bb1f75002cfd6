//! `up --notify-url`: a receiver of events gets each of them at least once, signed and under the same id, however often it or the
//! stack fails.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse as _;
use local::notify::{Notifier, NotifySettings};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::fixture::TestStack;
use crate::fixture::installation::{Installation, PATIENCE, completed};
use crate::fixture::up::{EXECUTABLE, UpProcess};

const PAGE: &str = "page-1";
/// The path to which a receiver redirects.
const MOVED: &str = "/moved";

/// The behaviour of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// It takes each event.
    Well,
    /// It answers with this status.
    Answers(StatusCode),
    /// It never answers.
    Hangs,
}

/// A request that a receiver got.
#[derive(Clone, Debug)]
struct Received {
    path: String,
    headers: HeaderMap,
    body: Bytes,
    mood: Mood,
}

impl Received {
    fn id(&self) -> String {
        self.headers["webhook-id"].to_str().unwrap().to_owned()
    }

    fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A receiver of events, which can be killed and started again at the same address.
struct Receiver {
    address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    received: Arc<Mutex<Vec<Received>>>,
    task: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Returns a receiver that is down.
    async fn down() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            mood: Arc::new(Mutex::new(Mood::Well)),
            received: Arc::default(),
            task: None,
        }
    }

    async fn start(mood: Mood) -> Self {
        let mut receiver = Self::down().await;
        receiver.come_back(mood).await;
        receiver
    }

    async fn come_back(&mut self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        let (mood, received) = (Arc::clone(&self.mood), Arc::clone(&self.received));
        let receive = move |uri: Uri, headers: HeaderMap, body: Bytes| async move {
            let (path, mood) = (uri.path().to_owned(), *mood.lock().unwrap());
            received.lock().unwrap().push(Received {
                path,
                headers,
                body,
                mood,
            });
            match mood {
                _ if uri.path() == MOVED => StatusCode::NO_CONTENT.into_response(),
                Mood::Well => StatusCode::NO_CONTENT.into_response(),
                Mood::Answers(status) => (status, [("location", MOVED)]).into_response(),
                Mood::Hangs => pending().await,
            }
        };
        let listener = TcpListener::bind(self.address).await.unwrap();
        let router = Router::new().fallback(receive);
        self.task = Some(tokio::spawn(
            async move { axum::serve(listener, router).await.unwrap() },
        ));
    }

    fn set_mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn url(&self) -> String {
        format!("http://{}/events?key=of-the-receiver", self.address)
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until this holds for what was received; fails after [`PATIENCE`].
    async fn until(&self, what: &str, holds: impl Fn(&[Received]) -> bool) {
        let begun = Instant::now();
        while !holds(&self.received()) {
            assert!(begun.elapsed() < PATIENCE, "not {what}: {:#?}", self.received());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns the events that were taken: the webhook ids of each broadcast.
    fn taken(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut taken = BTreeMap::<_, BTreeSet<_>>::new();
        for received in self.received().iter().filter(|one| one.mood == Mood::Well) {
            let event = received.event();
            let broadcast_id = event["data"]["broadcast_id"].as_str().unwrap().to_owned();
            taken.entry(broadcast_id).or_default().insert(received.id());
        }
        taken
    }

    /// Waits until the events of these broadcasts are taken, and checks that each has one id and that there are no others.
    async fn takes_each_once(&self, broadcasts: &BTreeSet<String>) {
        let begun = Instant::now();
        while self.taken().len() < broadcasts.len() {
            assert!(
                begun.elapsed() < PATIENCE,
                "{} of {} events",
                self.taken().len(),
                broadcasts.len()
            );
            sleep(Duration::from_millis(50)).await;
        }
        let taken = self.taken();
        assert_eq!(taken.keys().cloned().collect::<BTreeSet<_>>(), *broadcasts);
        assert!(
            taken.values().all(|ids| ids.len() == 1),
            "one happening has two ids: {taken:?}"
        );
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

/// Returns the ids of distinct events.
fn distinct(received: &[Received]) -> BTreeSet<String> {
    received.iter().map(Received::id).collect()
}

/// Checks that each request is signed with this secret, and that an event has the same content whenever it comes.
fn check_signatures(received: &[Received], secret: &str) {
    let webhook = Webhook::new(secret.trim()).unwrap();
    let mut contents = BTreeMap::new();
    for one in received {
        webhook.verify(&one.body, &one.headers).unwrap();
        assert_eq!(one.headers["content-type"], "application/json");
        assert_eq!(one.event()["id"], one.id());
        let first = contents.entry(one.id()).or_insert_with(|| one.body.clone());
        assert_eq!(first, &one.body);
    }
}

/// Starts the delivery of a stack's events to a receiver.
fn notify(stack: &TestStack, receiver: &Receiver, secret_file: &Path) -> JoinHandle<()> {
    let settings = NotifySettings {
        url: receiver.url().parse().unwrap(),
        secret_file: secret_file.to_owned(),
    };
    let notifier = Notifier::new(&settings).unwrap();
    tokio::spawn(notifier.run(stack.app.store.clone()))
}

/// Waits until these events are no more in the outbox: the receiver has them a moment before.
async fn leave_the_outbox(stack: &TestStack, ids: &BTreeSet<String>) {
    for id in ids {
        while stack.app.store.events().undelivered(id).await.unwrap().is_some() {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn refused_event_is_tried_again_and_then_comes_no_more() {
    let stack = TestStack::start().await;
    let directory = TempDir::new().unwrap();
    let secret_file = directory.path().join("secret");
    let receiver = Receiver::start(Mood::Answers(StatusCode::INTERNAL_SERVER_ERROR)).await;
    let ids = stack.import_contacts(1).await;
    let mut broadcasts = Vec::new();
    for _ in 0..3 {
        broadcasts.push(stack.another_broadcast(&ids).await.to_string());
    }
    stack.drain_queue().await;
    stack.let_reads_catch_up();

    let notifier = notify(&stack, &receiver, &secret_file);
    receiver
        .until("refused", |received| distinct(received).len() == 3)
        .await;
    receiver.set_mood(Mood::Well);
    let begun = Instant::now();
    let taken = |received: &[Received]| {
        let taken: Vec<_> = received.iter().filter(|one| one.mood == Mood::Well).cloned().collect();
        distinct(&taken).len() == 3
    };
    receiver.until("taken", taken).await;
    leave_the_outbox(&stack, &distinct(&receiver.received())).await;
    notifier.abort();

    assert!(begun.elapsed() > Duration::from_secs(3), "no back-off");
    assert_eq!(
        receiver.taken().into_keys().collect::<BTreeSet<_>>(),
        broadcasts.into_iter().collect()
    );
    check_signatures(&receiver.received(), &std::fs::read_to_string(&secret_file).unwrap());
    let requests = receiver.received().len();
    // A new deliverer tries every event that is not delivered, at once.
    let again = notify(&stack, &receiver, &secret_file);
    let more = stack.another_broadcast(&ids).await;
    stack.drain_queue().await;
    stack.let_reads_catch_up();
    receiver
        .until("told of another", |received| received.len() > requests)
        .await;
    again.abort();
    assert_eq!(receiver.received().len(), requests + 1);
    assert_eq!(
        receiver.received()[requests].event()["data"]["broadcast_id"],
        more.to_string()
    );
}

/// The receiver wants no more events: nothing is lost, in case that it was a mistake.
#[tokio::test]
async fn receiver_that_answers_gone_gets_nothing_until_the_next_start() {
    let stack = TestStack::start().await;
    let directory = TempDir::new().unwrap();
    let secret_file = directory.path().join("secret");
    let receiver = Receiver::start(Mood::Answers(StatusCode::GONE)).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.another_broadcast(&ids).await;
    stack.drain_queue().await;
    stack.let_reads_catch_up();

    let ended = notify(&stack, &receiver, &secret_file).await;
    receiver.set_mood(Mood::Well);
    let restarted = notify(&stack, &receiver, &secret_file);
    receiver.until("taken", |received| received.len() == 2).await;
    restarted.abort();

    ended.unwrap();
    assert!(receiver.taken().contains_key(&id.to_string()));
}

#[tokio::test]
async fn redirect_is_no_answer() {
    let stack = TestStack::start().await;
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(Mood::Answers(StatusCode::PERMANENT_REDIRECT)).await;
    let ids = stack.import_contacts(1).await;
    stack.another_broadcast(&ids).await;
    stack.drain_queue().await;
    stack.let_reads_catch_up();

    let notifier = notify(&stack, &receiver, &directory.path().join("secret"));
    receiver.until("tried again", |received| received.len() == 2).await;
    notifier.abort();

    assert!(receiver.received().iter().all(|one| one.path != MOVED), "followed");
}

#[tokio::test]
async fn event_in_back_off_is_tried_at_the_next_start() {
    let stack = TestStack::start().await;
    let directory = TempDir::new().unwrap();
    let secret_file = directory.path().join("secret");
    let receiver = Receiver::start(Mood::Answers(StatusCode::SERVICE_UNAVAILABLE)).await;
    let ids = stack.import_contacts(1).await;
    stack.another_broadcast(&ids).await;
    stack.drain_queue().await;
    stack.let_reads_catch_up();

    let notifier = notify(&stack, &receiver, &secret_file);
    receiver.until("refused twice", |received| received.len() == 2).await;
    // The next attempt is due in five minutes.
    let event = distinct(&receiver.received()).pop_first().unwrap();
    while stack
        .app
        .store
        .events()
        .undelivered(&event)
        .await
        .unwrap()
        .unwrap()
        .attempts
        < 2
    {
        sleep(Duration::from_millis(20)).await;
    }
    notifier.abort();
    stack.let_reads_catch_up();
    receiver.set_mood(Mood::Well);
    let restarted = notify(&stack, &receiver, &secret_file);
    let taken = receiver.until("taken", |received| received.len() == 3);
    let in_time = tokio::time::timeout(Duration::from_secs(60), taken).await;
    restarted.abort();

    assert!(in_time.is_ok(), "tried when it is due only");
}

/// A receiver that is named long after an event gets no old news, and a later event all the same.
#[tokio::test]
async fn event_of_long_ago_is_not_delivered() {
    let stack = TestStack::start().await;
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start(Mood::Well).await;
    let ids = stack.import_contacts(1).await;
    let old = stack.another_broadcast(&ids).await;
    stack.drain_queue().await;
    stack.age_event_by_hand(&old, Duration::from_secs(5 * 86_400)).await;
    let new = stack.another_broadcast(&ids).await;
    stack.drain_queue().await;
    stack.let_reads_catch_up();

    let notifier = notify(&stack, &receiver, &directory.path().join("secret"));
    receiver.until("told", |received| !received.is_empty()).await;
    let old = stack.events(&old).await[0].id.clone();
    leave_the_outbox(&stack, &[old].into()).await;
    notifier.abort();

    assert_eq!(receiver.taken().into_keys().collect::<Vec<_>>(), [new.to_string()]);
}

async fn import(up: &UpProcess, ids: &[String]) {
    let contact = |id| json!({"contact_id": id, "page_id": PAGE});
    let contacts: Vec<_> = ids.iter().map(contact).collect();
    up.call("PUT", "/v1/contacts", &json!({"contacts": contacts})).await;
}

/// Requests broadcasts to these contacts, one after the other, and returns their ids.
async fn send(up: &UpProcess, ids: &[String], texts: std::ops::Range<usize>) -> Vec<String> {
    let mut broadcasts = Vec::new();
    for n in texts {
        let body = json!({"contact_ids": ids, "message": {"text": format!("Number {n}")}});
        let accepted = up.call("POST", "/v1/broadcasts", &body).await;
        broadcasts.push(accepted["broadcast_id"].as_str().unwrap().to_owned());
    }
    broadcasts
}

/// The receiver is down, answers 500, hangs, and is killed; the stack is killed at each of these, and once while it delivers.
#[tokio::test(flavor = "multi_thread")]
async fn receiver_gets_every_event_although_it_and_the_stack_fail() {
    const BROADCASTS: usize = 12;
    let installation = Installation::new(&[PAGE], 100).await;
    let mut receiver = Receiver::down().await;
    let url = receiver.url();
    let start = || installation.up_with(&["--notify-url", &url]);
    let ids = ["ana".to_owned()];

    let up = start();
    import(&up, &ids).await;
    let mut broadcasts = send(&up, &ids, 0..BROADCASTS).await;
    for id in &broadcasts {
        completed(&up, id).await;
    }
    up.kill();
    receiver
        .come_back(Mood::Answers(StatusCode::INTERNAL_SERVER_ERROR))
        .await;
    let up = start();
    broadcasts.extend(send(&up, &ids, BROADCASTS..2 * BROADCASTS).await);
    receiver
        .until("refused", |received| distinct(received).len() == 2 * BROADCASTS)
        .await;
    let refused = receiver.received().len();
    up.kill();
    receiver.set_mood(Mood::Hangs);
    let up = start();
    broadcasts.extend(send(&up, &ids, 2 * BROADCASTS..3 * BROADCASTS).await);
    receiver
        .until("kept waiting", |received| received.len() >= refused + 8)
        .await;
    let kept_waiting = receiver.received().len() - refused;
    up.kill();
    receiver.task.take().iter().for_each(JoinHandle::abort);
    let up = start();
    broadcasts.extend(send(&up, &ids, 3 * BROADCASTS..4 * BROADCASTS).await);
    receiver.come_back(Mood::Well).await;
    receiver
        .until("taken in part", |received| received.len() > refused + kept_waiting + 3)
        .await;
    up.kill_all();
    let up = start();
    for id in &broadcasts {
        completed(&up, id).await;
    }
    let all: BTreeSet<_> = broadcasts.iter().cloned().collect();
    receiver.takes_each_once(&all).await;
    let secret_file = installation.data().join("notify-secret");
    assert_eq!(secret_file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    check_signatures(&receiver.received(), &std::fs::read_to_string(&secret_file).unwrap());
    let well = receiver.received().iter().filter(|one| one.mood == Mood::Well).count();
    println!(
        "{} broadcasts, the stack killed 4 times: {refused} attempts answered 500, {kept_waiting} not answered, {well} taken for \
         {} events",
        all.len(),
        all.len(),
    );
    let log = up.terminate().1;
    assert!(!log.contains("of-the-receiver") && !log.contains("whsec_"), "{log}");
}

/// The stack is killed again and again while broadcasts end, wherever that is.
#[tokio::test(flavor = "multi_thread")]
async fn every_end_is_told_of_although_the_stack_is_killed_while_broadcasts_end() {
    const BROADCASTS: usize = 20;
    const KILLS: usize = 6;
    let installation = Installation::new(&[PAGE], 1_000).await;
    let receiver = Receiver::start(Mood::Well).await;
    let url = receiver.url();
    let start = || installation.up_with(&["--notify-url", &url]);
    // Each is sent within its request, by one process after the other.
    let ids: Vec<_> = (0..3).map(|n| format!("c{n}")).collect();
    let mut up = start();
    import(&up, &ids).await;
    let mut broadcasts = Vec::new();
    for kill in 0..KILLS {
        broadcasts.extend(send(&up, &ids, kill * BROADCASTS..kill * BROADCASTS + 1).await);
        let sending = async {
            for n in kill * BROADCASTS + 1..(kill + 1) * BROADCASTS {
                let body = json!({"contact_ids": ids, "message": {"text": format!("Number {n}")}});
                let request = up
                    .request("POST", "/v1/broadcasts")
                    .header("content-type", "application/json");
                if request.body(body.to_string()).send().await.is_err() {
                    break;
                }
            }
        };
        // The kill comes at another moment of a broadcast each time.
        let moment = installation.sandbox.received_count() + 5 + 4 * kill;
        tokio::select! {
            () = sending => {}
            () = installation.has_received(moment) => {}
        }
        sleep(Duration::from_millis(7 * kill as u64)).await;
        up.kill_all();
        up = start();
    }

    let mut listed = Vec::new();
    let begun = Instant::now();
    loop {
        let list = up.call("GET", "/v1/broadcasts?limit=100", &Value::Null).await;
        let items = list["items"].as_array().unwrap();
        if items.len() >= broadcasts.len() && items.iter().all(|one| one["status"] == "completed") {
            listed.extend(items.iter().map(|one| one["broadcast_id"].as_str().unwrap().to_owned()));
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{list:#}");
        sleep(Duration::from_millis(200)).await;
    }
    let all: BTreeSet<_> = listed.into_iter().collect();
    receiver.takes_each_once(&all).await;
    println!(
        "{} broadcasts, the stack killed {KILLS} times: {} events, {} requests",
        all.len(),
        all.len(),
        receiver.received().len()
    );
}

/// A running `oncecast listen`, killed when this value is dropped.
struct Listener {
    child: Child,
    url: String,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Listener {
    fn start(secret_file: &Path, further: &[&str]) -> Self {
        let mut child = Command::new(EXECUTABLE)
            .args(["listen", "--port", "0", "--secret-file", secret_file.to_str().unwrap()])
            .args(further)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let url = line.split_whitespace().last().unwrap().to_owned();
        Self {
            child,
            url,
            stdout,
            stderr,
        }
    }

    fn shown(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn noted(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Posts an event that was signed at this time; returns the status of the answer.
    async fn post(&self, event: &Value, webhook: &Webhook, at: i64) -> u16 {
        let (body, id) = (event.to_string(), event["id"].as_str().unwrap());
        let call = reqwest::Client::new()
            .post(&self.url)
            .header("webhook-id", id)
            .header("webhook-timestamp", at)
            .header("webhook-signature", webhook.sign(id, at, body.as_bytes()).unwrap());
        call.body(body).send().await.unwrap().status().as_u16()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn listen_shows_signed_events_and_refuses_others() {
    let directory = TempDir::new().unwrap();
    let secret_file = directory.path().join("secret");
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    std::fs::write(&secret_file, secret).unwrap();
    let (ours, theirs) = (Webhook::new(secret).unwrap(), Webhook::new("whsec_c2VjcmV0").unwrap());
    let mut listener = Listener::start(&secret_file, &[]);
    let broadcast_id = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0";
    let event = json!({
        "id": "e1", "type": "broadcast.halted", "timestamp": "2026-12-01T09:04:11.38Z",
        "data": {"broadcast_id": broadcast_id, "page_id": PAGE},
    });
    let now = jiff::Timestamp::now().as_second();

    assert_eq!(listener.post(&event, &ours, now).await, 204);
    assert_eq!(
        listener.shown(),
        format!("2026-12-01T09:04:11Z  halted     {broadcast_id}  {PAGE}")
    );
    assert_eq!(listener.post(&event, &ours, now).await, 204);
    assert!(listener.shown().ends_with(&format!("{PAGE} (again)")));
    assert_eq!(listener.post(&event, &theirs, now).await, 401);
    assert_eq!(listener.noted(), "refused: signature invalid");
    assert_eq!(listener.post(&event, &ours, now - 301).await, 401);
    assert_eq!(listener.noted(), "refused: signature timestamp too old");
    assert_eq!(listener.post(&json!({"id": "e2"}), &ours, now).await, 400);
    assert!(listener.noted().starts_with("refused: not an event"));
    let mut as_json = Listener::start(&secret_file, &["--json"]);
    assert_eq!(as_json.post(&event, &ours, now).await, 204);
    let shown: Value = serde_json::from_str(&as_json.shown()).unwrap();
    assert_eq!(shown, event);
}

/// `oncecast listen` takes what `up --notify-url` posts.
#[tokio::test(flavor = "multi_thread")]
async fn listen_shows_the_events_of_up() {
    let installation = Installation::new(&[PAGE], 100).await;
    std::fs::create_dir_all(installation.data()).unwrap();
    let secret_file = installation.data().join("notify-secret");
    std::fs::write(&secret_file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let mut listener = Listener::start(&secret_file, &["--json"]);
    let up = installation.up_with(&["--notify-url", &listener.url]);
    import(&up, &["ana".to_owned()]).await;

    let broadcasts = send(&up, &["ana".to_owned()], 0..1).await;

    let shown: Value = serde_json::from_str(&listener.shown()).unwrap();
    assert_eq!(
        (&shown["type"], &shown["data"]["broadcast_id"]),
        (&json!("broadcast.completed"), &json!(broadcasts[0]))
    );
    let printed = up.address("signed with the secret in");
    assert_eq!(Path::new(&printed), secret_file.canonicalize().unwrap());
}
