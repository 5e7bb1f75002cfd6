//! Logs: JSON in Lambda, readable on a terminal; `RUST_LOG` filters, `info` by default. They never hold a token or a text, and
//! neither do the spans, which also go to a collector if there is one.

use std::io::IsTerminal;

use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Span, Subscriber, error_span};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{EnvFilter, FilterExt, Targets};
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::{self, FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::domain::ids::{ContactId, JobId};
use crate::runtime::spans;

/// Libraries that below `info` log whole requests and events, texts and tokens included. They are held at `info`, whatever
/// the filter says.
const SECRET_LOGGING_TARGETS: [&str; 9] = [
    "aws", "axum", "h2", "hyper", "lambda", "reqwest", "rustack", "rustls", "tower",
];

/// Returns the span of the work on one job, which gives `job.id` to each line within it.
///
/// It has the level `error`, so that no filter that shows a line leaves its span out.
pub fn job_span(job: &JobId) -> Span {
    error_span!("job", job.id = %job)
}

/// Returns the span of the work on one delivery, which gives `contact.id` to each line within it; used within [`job_span`].
pub fn delivery_span(contact_id: &ContactId) -> Span {
    error_span!("delivery", contact.id = %contact_id)
}

/// Sends the log of this process to its standard error; called once, at start.
pub fn init() {
    let asked = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    start(asked, std::io::stderr, std::io::stderr().is_terminal());
}

/// Sends the log to this writer in the form that it has in Lambda, filtered by `asked`; for a test that reads it.
pub fn log_to(writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static, asked: &str) {
    start(EnvFilter::new(asked), writer, false);
}

fn start(asked: EnvFilter, writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static, for_a_terminal: bool) {
    let discreet = Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_targets(SECRET_LOGGING_TARGETS.map(|library| (library, LevelFilter::INFO)));
    let log = match for_a_terminal {
        true => fmt::layer().with_writer(writer).with_target(false).boxed(),
        false => json(writer),
    };
    let log = Registry::default().with(log.with_filter(asked.and(discreet)));
    // A second call in one process leaves the first logger in place.
    let _ = match spans::layer() {
        Some(layer) => log.with(layer).try_init(),
        None => log.try_init(),
    };
}

fn json<S>(writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    let log = fmt::layer().with_writer(writer).json().flatten_event(true);
    let log = log.with_current_span(false).with_span_list(true);
    log.map_event_format(FlatJson).boxed()
}

/// The JSON format, with the fields of the event's spans beside the event's own: each line about a job has `job.id` at its
/// top level, although only the span says it. By itself the format nests them in a list `spans`.
struct FlatJson(Format<Json>);

impl<S, N> FormatEvent<S, N> for FlatJson
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut nested = String::new();
        self.0.format_event(context, Writer::new(&mut nested), event)?;
        let mut line: Map<String, Value> = serde_json::from_str(&nested).map_err(|_| std::fmt::Error)?;
        let Some(Value::Array(spans)) = line.remove("spans") else {
            return writer.write_str(&nested);
        };
        // The event's own fields prevail, then those of the inner spans.
        for span in spans.into_iter().rev() {
            let Value::Object(fields) = span else { continue };
            for (name, value) in fields.into_iter().filter(|(name, _)| name != "name") {
                line.entry(name).or_insert(value);
            }
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn line_holds_the_fields_of_its_spans() {
        let written = Written::default();
        let writer = written.clone();
        let log = Registry::default().with(json(move || writer.clone()));

        tracing::subscriber::with_default(log, || {
            let _outer = error_span!("request", requestId = "1", job.id = "of the request").entered();
            let _job = error_span!("job", job.id = "b/p").entered();
            let _delivery = delivery_span(&ContactId::parse("ana").unwrap()).entered();
            tracing::info!(job.status = "queued", "job handed over");
        });

        let line: Value = serde_json::from_slice(&written.0.lock().unwrap()).unwrap();
        for (field, expected) in [
            ("message", "job handed over"),
            ("job.id", "b/p"),
            ("job.status", "queued"),
            ("contact.id", "ana"),
            ("requestId", "1"),
            ("level", "INFO"),
        ] {
            assert_eq!(line[field], expected, "{line}");
        }
        assert_eq!(line.get("spans"), None);
    }
}
