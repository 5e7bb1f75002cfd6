//! How far the demo is: a bar on a terminal, a line every few seconds elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(2);
const TEMPLATE: &str = "{bar:40} {pos}/{len} messages, {elapsed}";

/// The display of one broadcast's progress.
#[derive(Debug)]
pub enum Progress {
    Bar(ProgressBar),
    Lines {
        contacts: usize,
        last: Option<Instant>,
    },
}

impl Progress {
    pub fn new(contacts: usize) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress::Lines {
                contacts,
                last: None,
            };
        }
        let style =
            ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        Progress::Bar(ProgressBar::new(contacts as u64).with_style(style))
    }

    /// Shows how many messages have arrived.
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

    /// Says something without disturbing the bar.
    pub fn say(&self, text: &str) {
        match self {
            Progress::Bar(bar) => bar.println(text),
            Progress::Lines { .. } => println!("{text}"),
        }
    }

    pub fn finish(&self) {
        if let Progress::Bar(bar) = self {
            bar.abandon();
        }
    }
}
