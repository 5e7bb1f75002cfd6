//! The progress of the demo: a bar on a terminal, or else a line every few seconds.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);
const BAR: &str = "{bar:40} {pos}/{len} messages, {elapsed}";

/// The display of the number of messages that have arrived.
pub enum Progress {
    Bar(ProgressBar),
    Lines { contacts: usize, last: Option<Instant> },
}

impl Progress {
    /// Makes a bar if stderr is a terminal. The count is expected to reach `contacts`.
    pub fn new(contacts: usize) -> Progress {
        if !io::stderr().is_terminal() {
            return Progress::Lines { contacts, last: None };
        }
        let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
        Progress::Bar(ProgressBar::new(contacts as u64).with_style(style))
    }

    /// Shows the number of messages that have arrived.
    pub fn show(&mut self, received: usize) {
        match self {
            Progress::Bar(bar) => bar.set_position(received as u64),
            Progress::Lines { contacts, last } => {
                if last.is_none_or(|last| last.elapsed() >= LINE_EVERY) || received == *contacts {
                    println!("{received} of {contacts} messages");
                    *last = Some(Instant::now());
                }
            }
        }
    }

    /// Prints a line without disturbing the bar.
    pub fn print(&self, text: &str) {
        match self {
            Progress::Bar(bar) => bar.println(text),
            Progress::Lines { .. } => println!("{text}"),
        }
    }

    /// Leaves the bar as it is, so that later output starts on a new line.
    pub fn finish(&self) {
        if let Progress::Bar(bar) = self {
            bar.abandon();
        }
    }
}
