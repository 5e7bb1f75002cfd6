//! Tests of the server with raw requests, as no HTTP client would send them.

use axum::body::Bytes;
use axum::routing::post;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const HEAD: &str = "POST / HTTP/1.1\r\nHost: localhost\r\n";

/// Starts a server that answers with the body of the request.
async fn echo(rules: Rules) -> Server {
    let router = Router::new().route("/", post(|body: Bytes| async { body }));
    let listener = bind(0).await.unwrap();
    Server::serve(listener, TowerToHyperService::new(router), rules).unwrap()
}

/// Rules under which a late request is refused soon, by one of its two time-outs.
fn impatient(head: Duration, body: Duration) -> Rules {
    Rules {
        head,
        body,
        ..Rules::default()
    }
}

async fn connect(server: &Server, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Reads until the server closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// Reads an answer whose body ends with this text.
async fn answer(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut bytes = [0; 1_024];
        let length = stream.read(&mut bytes).await.unwrap();
        assert!(length > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    text
}

const SOON: Duration = Duration::from_millis(200);
const LATE: Duration = Duration::from_secs(600);

#[tokio::test]
async fn request_for_another_host_or_of_another_site_is_refused() {
    let server = echo(Rules::default()).await;
    for head in [
        "POST / HTTP/1.1\r\nHost: evil.example\r\n",
        "POST http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
        "POST / HTTP/1.1\r\n",
        "POST / HTTP/1.0\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n",
        "OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n",
    ] {
        let mut stream = connect(&server, &format!("{head}content-length: 2\r\n\r\nhi")).await;
        let refusal = rest(&mut stream).await;
        assert!(refusal.contains(" 403 Forbidden\r\n"), "{head}: {refusal}");
        assert!(refusal.contains("application/problem+json"), "{head}: {refusal}");
        assert!(refusal.contains("--allow-host"), "{head}: {refusal}");
        assert!(!refusal.contains("evil"), "{head}: {refusal}");
    }
}

#[tokio::test]
async fn head_that_stops_coming_is_answered_with_408() {
    let server = echo(impatient(SOON, LATE)).await;
    let whole = format!("{HEAD}content-length: 2\r\n\r\nhi");
    for begun in ["P", HEAD] {
        let mut stream = connect(&server, begun).await;
        let refusal = rest(&mut stream).await;
        assert!(refusal.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{refusal}");

        // Also after a request that was answered.
        let mut stream = connect(&server, &whole).await;
        answer(&mut stream, "hi").await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let refusal = rest(&mut stream).await;
        assert!(refusal.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{refusal}");
    }
}

/// A byte from time to time does not extend the time.
#[tokio::test]
async fn trickling_head_is_answered_with_408() {
    let server = echo(impatient(SOON, LATE)).await;
    let (mut reading, mut writing) = connect(&server, HEAD).await.into_split();
    let trickling = tokio::spawn(async move {
        while writing.write_all(b"a").await.is_ok() {
            time::sleep(SOON / 10).await;
        }
    });

    let mut refusal = String::new();
    reading.read_to_string(&mut refusal).await.unwrap();

    trickling.abort();
    assert!(refusal.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{refusal}");
}

#[tokio::test]
async fn body_that_stops_coming_is_answered_with_408() {
    let server = echo(impatient(LATE, SOON)).await;
    for begun in [
        "content-length: 2\r\n\r\n",
        "content-length: 2\r\n\r\nh",
        "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",
    ] {
        let mut stream = connect(&server, &format!("{HEAD}{begun}")).await;
        let refusal = rest(&mut stream).await;
        assert!(refusal.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{refusal}");
    }
}

#[tokio::test]
async fn idle_connection_and_long_work_outlive_the_time_outs_of_requests() {
    let router = Router::new().route(
        "/",
        post(|body: Bytes| async {
            time::sleep(SOON * 2).await;
            body
        }),
    );
    let listener = bind(0).await.unwrap();
    let rules = impatient(SOON, SOON);
    let server = Server::serve(listener, TowerToHyperService::new(router), rules).unwrap();
    let mut stream = connect(&server, "").await;
    for _ in 0..2 {
        time::sleep(SOON * 2).await;
        let whole = format!("{HEAD}content-length: 2\r\n\r\nhi");
        stream.write_all(whole.as_bytes()).await.unwrap();
        let answer = answer(&mut stream, "hi").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn connection_without_requests_is_closed_in_the_end() {
    let idle = SOON;
    let server = echo(Rules {
        idle,
        ..Rules::default()
    })
    .await;
    let mut unused = connect(&server, "").await;
    let mut used = connect(&server, &format!("{HEAD}content-length: 2\r\n\r\nhi")).await;
    answer(&mut used, "hi").await;

    assert_eq!(rest(&mut unused).await, "");
    assert_eq!(rest(&mut used).await, "");
}

#[tokio::test]
async fn connection_above_the_bound_is_answered_with_503() {
    let connections = 3;
    let server = echo(Rules {
        connections,
        ..Rules::default()
    })
    .await;
    let whole = format!("{HEAD}content-length: 2\r\n\r\nhi");
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut stream = connect(&server, &whole).await;
        answer(&mut stream, "hi").await;
        open.push(stream);
    }

    let refusal = rest(&mut connect(&server, &whole).await).await;
    assert!(refusal.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{refusal}");
    assert!(refusal.contains("application/problem+json"), "{refusal}");

    // A closed connection makes room.
    drop(open.pop());
    loop {
        let mut stream = connect(&server, &whole).await;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        if &status == b"HTTP/1.1 200" {
            break;
        }
    }
}
