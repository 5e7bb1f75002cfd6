//! A running `local up`, as its user starts it, calls it and ends it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use reqwest::{RequestBuilder, Response};
use serde_json::Value;

pub const EXECUTABLE: &str = env!("CARGO_BIN_EXE_oncecast-local");

/// Ended, if it still runs, with the test.
pub struct Up {
    child: Child,
    url: String,
    http: reqwest::Client,
    printed: Arc<Mutex<Vec<String>>>,
    log: Option<JoinHandle<String>>,
}

impl Up {
    /// Starts it on a free port, with a quick schedule, and waits until it is ready.
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(EXECUTABLE)
            .args(["up", "--port", "0", "--schedule-every", "1s"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = thread::spawn(move || {
            let mut log = Vec::new();
            stderr.read_to_end(&mut log).unwrap();
            String::from_utf8_lossy(&log).into_owned()
        });
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let api = lines.find(|line| line.trim_start().starts_with("API "));
        let Some(url) = api.and_then(|line| line.split_whitespace().last().map(str::to_owned))
        else {
            panic!("it did not start: {}", log.join().unwrap());
        };
        // What it prints further on must find a reader.
        let printed = Arc::<Mutex<Vec<_>>>::default();
        let further = Arc::clone(&printed);
        thread::spawn(move || lines.for_each(|line| further.lock().unwrap().push(line)));
        Self {
            child,
            url,
            http: reqwest::Client::new(),
            printed,
            log: Some(log),
        }
    }

    /// A call that is yet to be sent.
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.url);
        self.http.request(method.parse().unwrap(), url)
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &Value,
    ) -> Response {
        let mut call = self.request(method, path);
        if let Some(key) = key {
            call = call.header("idempotency-key", key);
        }
        let call = call.header("content-type", "application/json");
        call.body(body.to_string()).send().await.unwrap()
    }

    pub async fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.send(method, path, None, body).await;
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    /// An address that it prints behind, or in, this word when it is ready.
    pub fn address(&self, word: &str) -> String {
        loop {
            let printed = self.printed();
            let line = printed.iter().find(|line| line.contains(word));
            if let Some(address) = line.and_then(|line| line.split_whitespace().last()) {
                return address.to_owned();
            }
            thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// What it and its functions have printed since it was ready.
    pub fn printed(&self) -> Vec<String> {
        self.printed.lock().unwrap().clone()
    }

    /// Ends it as its user does; its exit status, and everything that it and its functions logged.
    pub fn terminate(mut self) -> (ExitStatus, String) {
        let pid = self.child.id().to_string();
        let signal = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(signal.unwrap().success());
        let ended = self.child.wait().unwrap();
        (ended, self.log.take().unwrap().join().unwrap())
    }

    /// Ends its functions and it as a power cut does: none of them can do anything more.
    pub fn kill_all(self) {
        let parent = self.child.id().to_string();
        let killed = Command::new("pkill")
            .args(["-KILL", "--parent", &parent])
            .status();
        assert!(killed.unwrap().success(), "it had no functions running");
        self.kill();
    }

    /// Ends it as `kill -9` does: it can do nothing more, and its functions are left to themselves.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
