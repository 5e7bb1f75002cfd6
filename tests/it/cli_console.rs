//! The console over an API that is elsewhere: `oncecast console`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use reqwest::redirect::Policy;
use serde_json::json;

use crate::fixture::cli::{oncecast, run};
use crate::fixture::console::Page;
use crate::fixture::other_api;

/// A running `oncecast console`, killed when this value is dropped.
struct Console {
    child: Child,
    /// The address that it printed.
    address: String,
}

impl Console {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        Self { child, address }
    }

    fn url(&self) -> &str {
        self.address.split("/enter").next().unwrap()
    }

    /// Opens a path without following a redirect.
    async fn open(&self, path: &str, header: (&str, &str)) -> reqwest::Response {
        let http = reqwest::Client::builder().no_proxy().redirect(Policy::none());
        let request = http.build().unwrap().get(format!("{}{path}", self.url()));
        request.header(header.0, header.1).send().await.unwrap()
    }

    /// Opens the printed address, and then the list.
    async fn enter(&self) -> Page {
        let path = self.address.strip_prefix(self.url()).unwrap();
        let admitted = self.open(path, ("accept", "text/html")).await;
        let cookie = admitted.headers()["set-cookie"].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap();
        Page::read(self.open("/", ("cookie", cookie)).await).await
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts an API with a broadcast and no other thing; returns its URL, and the `Authorization` of each request.
async fn api() -> (String, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let callers = Arc::clone(&seen);
    let url = other_api::start(move |head, _| {
        let caller = head.headers.get("authorization").map(|caller| caller.to_str().unwrap());
        callers.lock().unwrap().push(caller.unwrap_or_default().to_owned());
        Some(match head.uri.path() {
            "/v1/broadcasts" => other_api::json(200, &json!({"items": [], "next_cursor": null})),
            _ => other_api::json(404, &json!({})),
        })
    });
    (url.await, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn console_over_an_api_calls_it_with_the_operators_own_credentials() {
    let (api, callers) = api().await;
    let mut signing = oncecast(&api, &["console", "--port", "0", "--sign", "--region", "eu-west-1"]);
    let credentials = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI"),
    ];
    signing.envs(credentials);
    let mut with_token = oncecast(&api, &["console", "--port", "0"]);
    with_token.env("ONCECAST_TOKEN", "operator-0123456789");

    for (command, credentials) in [
        (signing, "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"),
        (with_token, "Bearer operator-0123456789"),
    ] {
        let console = Console::start(command);
        callers.lock().unwrap().clear();

        let page = console.enter().await;

        assert!(page.has("Nothing has been sent yet."), "{}", page.html);
        let callers = callers.lock().unwrap();
        assert!(!callers.is_empty());
        assert!(
            callers.iter().all(|caller| caller.starts_with(credentials)),
            "{callers:?}"
        );
        for secret in ["AKIDEXAMPLE", "wJalrXUtnFEMI", "operator-0123456789"] {
            assert!(!page.has(secret), "{secret}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn console_over_an_api_is_for_this_machine_and_for_the_printed_key_only() {
    let (api, _) = api().await;
    let console = Console::start(oncecast(&api, &["console", "--port", "0"]));
    assert!(console.url().starts_with("http://127.0.0.1:"), "{}", console.address);

    for (path, header, why) in [
        ("/", ("accept", "text/html"), "no key"),
        ("/enter?key=0", ("accept", "text/html"), "another key"),
        (
            "/",
            ("host", "rebound.example"),
            "a name that an attacker has for this machine",
        ),
    ] {
        assert_eq!(console.open(path, header).await.status(), 403, "{why}");
    }
    let another = Console::start(oncecast(&api, &["console", "--port", "0"]));
    let key = console.address.split_once("key=").unwrap().1;
    assert!(!another.address.contains(key));

    assert_eq!(console.enter().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn console_without_its_api_ends_and_says_why() {
    let api = other_api::start(|_, _| Some(other_api::json(401, &json!({"type": "about:blank"})))).await;

    let refused = run(&api, &["console", "--port", "0"]);

    assert_ne!(refused.status, 0);
    assert_eq!(refused.stdout, "");
    assert!(refused.stderr.contains("401"), "{}", refused.stderr);
}
