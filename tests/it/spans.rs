//! Spans for an OpenTelemetry collector: exported at the end of each invocation, and at no cost to its work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::fixture::PAGES;
use crate::fixture::up::UpProcess;

const COLLECTOR: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// A collector that keeps the requests that it gets.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Bytes>>>);

impl Collector {
    /// Starts a collector and returns it with its base URL.
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        let requests = Arc::clone(&collector.0);
        let keep = move |body: Bytes| async move { requests.lock().unwrap().push(body) };
        let router = Router::new().route("/v1/traces", post(keep));
        tokio::spawn(axum::serve(listener, router).into_future());
        (collector, url)
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap();
        let requests = requests
            .iter()
            .map(|body| ExportTraceServiceRequest::decode(body.clone()).unwrap());
        let scopes = requests
            .flat_map(|request| request.resource_spans)
            .flat_map(|spans| spans.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }
}

/// Sends a broadcast to one contact within the request, and returns its report.
async fn broadcast(up: &UpProcess) -> Value {
    let contact = json!({"contact_id": "ana", "page_id": PAGES[0], "first_name": "Anastasia"});
    up.call("PUT", "/v1/contacts", &json!({"contacts": [contact]})).await;
    let body = json!({"contact_ids": ["ana"], "message": {"text": "Dear {{ first_name }}"}});
    up.call("POST", "/v1/broadcasts", &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn collector_gets_the_spans_of_a_broadcast() {
    let (collector, url) = Collector::start().await;
    let up = UpProcess::start(&[], &[(COLLECTOR, &url)]);

    let report = broadcast(&up).await;

    assert_eq!(report["counters"]["sent"], 1, "{report}");
    let spans = collector.spans();
    let job = spans.iter().find(|span| span.name == "job").unwrap();
    let of_the_trace = spans.iter().filter(|span| span.trace_id == job.trace_id);
    let by_name: BTreeMap<_, _> = of_the_trace.map(|span| (&*span.name, span)).collect();
    assert_eq!(
        by_name.keys().copied().collect::<Vec<_>>(),
        ["delivery", "invocation", "job"]
    );
    assert_eq!(by_name["delivery"].parent_span_id, job.span_id);
    assert_eq!(job.parent_span_id, by_name["invocation"].span_id);
    assert!(by_name["invocation"].parent_span_id.is_empty());
    let attribute = |span: &Span, name: &str| {
        let found = span.attributes.iter().find(|attribute| attribute.key == name);
        format!("{:?}", found.unwrap_or_else(|| panic!("{name} in {span:?}")).value)
    };
    assert!(attribute(by_name["delivery"], "contact.id").contains("ana"));
    let id = report["broadcast_id"].as_str().unwrap();
    assert!(attribute(job, "job.id").contains(&format!("{id}/{}", PAGES[0])));
    for body in collector.0.lock().unwrap().iter() {
        let text = String::from_utf8_lossy(body);
        for secret in ["Anastasia", "Dear", "EAAB"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

/// The collector accepts connections, and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn collector_that_hangs_delays_an_invocation_by_a_second_and_changes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::<Mutex<Vec<_>>>::default();
    let kept = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            kept.lock().unwrap().push(connection);
        }
    });
    let up = UpProcess::start(&[], &[(COLLECTOR, &url)]);

    let begun = Instant::now();
    let report = broadcast(&up).await;

    assert_eq!(
        (&report["status"], &report["counters"]["sent"]),
        (&json!("completed"), &json!(1))
    );
    // Two requests. Without a bound of its own, each would take the exporter's ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(!connections.lock().unwrap().is_empty());
    let (_, log) = up.terminate();
    assert!(log.contains("spans not exported"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_span_is_exported_unless_the_collector_is_named() {
    let (collector, url) = Collector::start().await;
    let traces = format!("{url}/v1/traces");
    let up = UpProcess::start(&[], &[(COLLECTOR, ""), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &traces)]);

    let report = broadcast(&up).await;

    assert_eq!(report["counters"]["sent"], 1, "{report}");
    assert!(collector.0.lock().unwrap().is_empty());
}
