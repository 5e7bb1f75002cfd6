//! Export of spans to an OpenTelemetry collector, if the environment names one: the same spans that give the log its ids.
//!
//! Spans are kept until their invocation ends, and exported then, since Lambda freezes the process afterwards. Without a
//! collector there is neither a client nor a layer.

use std::error::Error;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::time::timeout;
use tracing::{Subscriber, warn};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

/// The variable of OpenTelemetry that names the collector: the base URL of OTLP over HTTP.
const COLLECTOR: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The time that the export may add to an invocation.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(1);
/// The most spans of one invocation; further ones are dropped. At 30 sends a second a run of two minutes has fewer.
const MAX_SPANS: usize = 5_000;
/// The crates whose spans are exported. Those of libraries may hold requests.
const CRATES: [&str; 4] = ["process_job", "scheduled", "send", "shared"];

/// The export of this process, if it has one.
static EXPORT: OnceLock<Export> = OnceLock::new();

/// The spans that have ended, and the client of the collector.
struct Export {
    ended: Ended,
    exporter: SpanExporter,
    has_failed: AtomicBool,
    /// Kept, since a tracer whose provider is gone makes no spans.
    _provider: SdkTracerProvider,
}

/// The spans that have ended since the last export.
#[derive(Clone, Debug, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl Ended {
    fn push(&self, span: SpanData) {
        if let Ok(mut spans) = self.0.lock()
            && spans.len() < MAX_SPANS
        {
            spans.push(span);
        }
    }

    fn take(&self) -> Vec<SpanData> {
        self.0
            .lock()
            .map(|mut spans| mem::take(&mut *spans))
            .unwrap_or_default()
    }
}

impl SpanProcessor for Ended {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Returns the layer that makes spans for the collector; `None` if the environment names none, or not rightly.
pub(super) fn layer<S>() -> Option<impl Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s> + Send + Sync,
{
    std::env::var(COLLECTOR).ok().filter(|url| !url.is_empty())?;
    // A second call leaves the first export in place.
    let (export, tracer) = Export::new()
        .inspect_err(|error| eprintln!("{COLLECTOR} cannot be used, and no spans are exported: {error}"))
        .ok()?;
    EXPORT.set(export).ok()?;
    let is_ours = |target: &str| CRATES.iter().any(|name| target.split("::").next() == Some(name));
    let spans = tracing_opentelemetry::layer().with_tracer(tracer);
    let spans = spans
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false);
    Some(spans.with_filter(filter_fn(move |metadata| {
        metadata.is_span() && is_ours(metadata.target())
    })))
}

impl Export {
    fn new() -> Result<(Self, opentelemetry_sdk::trace::Tracer), Box<dyn Error>> {
        // A connection does not outlive its invocation: one that was frozen makes the next export wait.
        let http = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .timeout(EXPORT_TIMEOUT)
            .build()?;
        let mut exporter = SpanExporter::builder().with_http().with_http_client(http).build()?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            let function = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|_| "oncecast".to_owned());
            resource = resource.with_service_name(function);
        }
        let resource = resource.build();
        exporter.set_resource(&resource);
        let ended = Ended::default();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_span_processor(ended.clone())
            .build();
        let tracer = provider.tracer("oncecast");
        let export = Self {
            ended,
            exporter,
            has_failed: AtomicBool::new(false),
            _provider: provider,
        };
        Ok((export, tracer))
    }
}

/// Exports the spans that have ended; called at the end of an invocation. Takes a second at most: the spans of a collector that
/// does not answer are lost, and nothing else.
pub async fn export() {
    let Some(export) = EXPORT.get() else { return };
    let spans = export.ended.take();
    if spans.is_empty() {
        return;
    }
    let count = spans.len();
    let problem = match timeout(EXPORT_TIMEOUT, export.exporter.export(spans)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    // One line for each process, or the log would be of nothing else.
    if !export.has_failed.swap(true, Ordering::Relaxed) {
        warn!(
            spans.lost = count,
            error = problem,
            "spans not exported: the collector does not take them"
        );
    }
}
