//! The visitors of the console: who is let in, and which forms are taken.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use console::{Entry, Settings};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;

use crate::fixture::console::{Page, Visitor};
use crate::fixture::other_api;
use crate::fixture::up::UpProcess;

const TOKEN: &str = "office-0123456789abcdef0123456789abcdef";
const READER: &str = "reader-0123456789abcdef0123456789abcdef";

/// Returns the position of the switch for sending.
async fn switch(up: &UpProcess) -> Value {
    up.call("GET", "/v1/sending", &Value::Null).await["all_pages"].clone()
}

#[tokio::test]
async fn form_is_taken_only_from_a_page_of_the_same_session() {
    let up = UpProcess::start(&[], &[]);
    let (visitor, other) = (Visitor::open(up.url()).await, Visitor::open(up.url()).await);
    fn with_token(token: &str) -> Vec<(&str, &str)> {
        vec![("csrf", token), ("state", "off"), ("reason", "wrong text")]
    }
    let own = with_token(visitor.csrf());
    let page = visitor.post("/sending", &own);

    for (why, form) in [
        ("without a token", visitor.post("/sending", &with_token("")[1..])),
        (
            "with the token of another session",
            visitor.post("/sending", &with_token(other.csrf())),
        ),
        ("with an empty token", visitor.post("/sending", &with_token(""))),
    ] {
        assert_eq!(form.send().await.unwrap().status(), 403, "{why}");
    }
    let port = up.url().rsplit(':').next().unwrap();
    for origin in [
        "https://evil.example".to_owned(),
        "null".to_owned(),
        // Another program on this machine, whose pages count as the same site.
        "http://127.0.0.1:1".to_owned(),
        format!("http://localhost:{port}"),
        String::new(),
    ] {
        let mut form = page.try_clone().unwrap().build().unwrap();
        form.headers_mut().insert("origin", origin.parse().unwrap());
        let answer = reqwest::Client::new().execute(form).await.unwrap();
        assert_eq!(answer.status(), 403, "{origin}");
    }
    let mut form = page.try_clone().unwrap().build().unwrap();
    form.headers_mut().remove("origin");
    assert_eq!(
        reqwest::Client::new().execute(form).await.unwrap().status(),
        403,
        "no origin"
    );
    assert_eq!(switch(&up).await, "on");

    let changed = Page::read(page.send().await.unwrap()).await;

    assert_eq!((changed.status, changed.location.as_deref()), (303, Some("/sending")));
    assert_eq!(switch(&up).await, "off");
    let list = visitor.page("/").await;
    assert!(
        list.has("Sending is stopped.") && list.has("wrong text"),
        "{}",
        list.html
    );
}

#[tokio::test]
async fn page_tells_the_browser_to_load_and_show_it_nowhere_else() {
    let up = UpProcess::start(&[], &[]);
    let answer = reqwest::get(up.url()).await.unwrap();
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();

    let policy = header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    let cookie = header("set-cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let html = answer.text().await.unwrap();
    for inline in [" style=", "<style", "<script>", " onclick=", "hx-on"] {
        assert!(!html.contains(inline), "{inline}");
    }
    let scripts = html.split("src=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    for script in scripts {
        assert!(script.starts_with("/static/"), "{script}");
        let file = reqwest::get(format!("{}{script}", up.url())).await.unwrap();
        assert_eq!(file.status(), 200, "{script}");
        assert!(file.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    }
    let mut stream = TcpStream::connect(up.url().trim_start_matches("http://")).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: rebound.example\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut refused = String::new();
    stream.read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
}

#[tokio::test]
async fn visitor_of_an_api_with_tokens_signs_in_with_one_of_them() {
    let file = NamedTempFile::new().unwrap();
    let all = ["broadcasts:read", "broadcasts:write", "contacts:write"];
    let tokens = json!([
        {"name": "office", "token": TOKEN, "scopes": all},
        {"name": "reader", "token": READER, "scopes": ["broadcasts:read"]},
    ]);
    std::fs::write(&file, tokens.to_string()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let up = UpProcess::start(&["--api-token", file.path().to_str().unwrap()], &[]);
    let http = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let open = async |path: &str, cookie: &str| {
        let request = http.get(format!("{}{path}", up.url())).header("cookie", cookie);
        Page::read(request.send().await.unwrap()).await
    };
    let sign_in = async |token: &str, next: &str| {
        let form = format!("token={token}&next={next}");
        let request = http
            .post(format!("{}/sign-in", up.url()))
            .header("origin", up.url())
            .body(form);
        request.send().await.unwrap()
    };

    let asked = open("/broadcasts/1?part=live", "").await;
    assert_eq!(asked.status, 303);
    assert_eq!(
        asked.location.as_deref(),
        Some("/sign-in?next=%2Fbroadcasts%2F1%3Fpart%3Dlive")
    );
    let invented = format!("oncecast-{}={}", up.url().rsplit(':').next().unwrap(), "a".repeat(64));
    assert_eq!(
        open("/", &invented).await.status,
        303,
        "a session that was never opened"
    );
    let refused = sign_in("wrong", "/").await;
    assert_eq!(refused.status(), 422);
    assert!(refused.headers().get("set-cookie").is_none());
    for elsewhere in [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "/%09/evil.example",
    ] {
        let admitted = sign_in(TOKEN, elsewhere).await;
        assert_eq!(admitted.headers()["location"], "/", "{elsewhere}");
    }

    let admitted = sign_in(TOKEN, "/sending").await;

    assert_eq!(admitted.headers()["location"], "/sending");
    let cookie = admitted.headers()["set-cookie"].to_str().unwrap().to_owned();
    let cookie = cookie.split(';').next().unwrap();
    assert!(!cookie.contains(TOKEN));
    let office = Visitor::with_cookie(up.url(), cookie).await;
    assert!(!office.page("/").await.html.contains(TOKEN));
    // Whoever may only read is refused what it may not do.
    let reader = sign_in(READER, "/").await;
    let reader = reader.headers()["set-cookie"]
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let reader = Visitor::with_cookie(up.url(), &reader).await;
    assert_eq!(reader.submit("/sending", &[("state", "off")]).await.status, 403);
    assert_eq!(office.submit("/sending", &[("state", "off")]).await.status, 303);
    office.submit("/sign-out", &[]).await;
    assert_eq!(office.page("/").await.status, 303);
    let (_, log) = up.terminate();
    assert!(!log.contains(TOKEN) && !log.contains(READER));
}

#[tokio::test]
async fn console_over_a_deployment_opens_for_the_address_with_the_key_only() {
    let api = other_api::start(|head, _| {
        Some(match head.uri.path() {
            "/v1/broadcasts" => other_api::json(200, &json!({"items": [], "next_cursor": null})),
            _ => other_api::json(404, &json!({})),
        })
    });
    let client = client::Client::new(reqwest::Client::new(), &api.await).unwrap();
    let router = console::router(Settings {
        client,
        entry: Entry::Key("right".into()),
        sandbox: None,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await });
    let http = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let get = async |path: &str, cookie: &str| {
        let request = http.get(format!("{url}{path}")).header("cookie", cookie);
        request.send().await.unwrap()
    };

    let port = url.rsplit(':').next().unwrap();
    for path in ["/", "/enter", "/enter?key=", "/enter?key=wrong", "/sending", "/sign-in"] {
        let refused = get(path, &format!("oncecast-{port}={}", "0".repeat(64))).await;
        assert!(
            [403, 303].contains(&refused.status().as_u16()),
            "{path}: {}",
            refused.status()
        );
        assert!(refused.headers().get("set-cookie").is_none(), "{path}");
    }
    let admitted = get("/enter?key=right", "").await;
    let cookie = admitted.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert_eq!(admitted.headers()["location"], "/");

    let page = Page::read(get("/", cookie.split(';').next().unwrap()).await).await;

    assert_eq!(page.status, 200);
    assert!(page.has("Nothing has been sent yet."), "{}", page.html);
}
