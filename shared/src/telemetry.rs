//! Logs: JSON in Lambda, readable on a terminal; `RUST_LOG` filters, `info` by default. Never a token, never a text.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{EnvFilter, FilterExt, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Warns of every write whose condition is refused, and that is how the protocol decides. What fails, its caller reports.
const ALARMIST: &str = "dynoxide";
/// Below `info` these log requests and events whole, texts and tokens included; so they never do, whatever is asked for.
const INDISCREET: [&str; 9] = [
    "aws", "axum", "h2", "hyper", "lambda", "reqwest", "rustack", "rustls", "tower",
];

/// Sends the log of this process to its standard error; once, at start.
pub fn init() {
    let asked = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    start(asked, std::io::stderr, std::io::stderr().is_terminal());
}

/// Sends it to this writer, as Lambda has it, with what `asked` filters; for a test that reads it.
pub fn log_to(writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static, asked: &str) {
    start(EnvFilter::new(asked), writer, false);
}

fn start(
    asked: EnvFilter,
    writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
    for_a_terminal: bool,
) {
    let discreet = Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_targets(INDISCREET.map(|library| (library, LevelFilter::INFO)))
        .with_target(ALARMIST, LevelFilter::ERROR);
    let log = fmt::layer().with_writer(writer);
    let log = if for_a_terminal {
        log.with_target(false).boxed()
    } else {
        log.json().flatten_event(true).with_span_list(false).boxed()
    };
    // Whoever comes second in one process leaves the first in place.
    let _ = Registry::default()
        .with(log.with_filter(asked.and(discreet)))
        .try_init();
}
