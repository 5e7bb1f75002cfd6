//! The output of a command: data to stdout, as text or as JSON, and everything else to stderr.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use serde::Serialize;
use tokio::task;

use crate::failure::{Exit, Failure};
use crate::text::plain;

/// The columns of a terminal that does not tell how many it has.
const USUAL_COLUMNS: usize = 80;
/// The rows of such a terminal.
const USUAL_ROWS: usize = 24;
/// The time between two steps of a spinner.
const SPINNER_STEP: Duration = Duration::from_millis(100);

/// The meaning of a coloured text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// A heading.
    Strong,
    /// An aside.
    Faint,
    /// All is well.
    Good,
    /// Something to look at.
    Warning,
    /// Something that needs the operator.
    Bad,
}

/// The output of a command.
#[derive(Clone, Debug)]
pub struct Output {
    json: bool,
    is_terminal: bool,
    has_colours: bool,
    bars: MultiProgress,
}

impl Output {
    /// Returns the output of this process, with progress on stderr if that is a terminal.
    pub fn new(json: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            json,
            is_terminal,
            has_colours: is_terminal && !json && !is_set("NO_COLOR") && !is_dumb,
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
        }
    }

    /// Returns true if the API's own objects are wanted.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Returns true if stdout is a terminal, which people read.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Returns true if bars are shown.
    pub fn has_bars(&self) -> bool {
        !self.bars.is_hidden()
    }

    /// Returns the columns of the terminal now; `None` if stdout is none, where nothing is shortened.
    pub fn columns(&self) -> Option<usize> {
        self.is_terminal.then(|| size().0)
    }

    /// Returns the rows of the terminal now.
    pub fn rows(&self) -> usize {
        size().1
    }

    /// Writes a line of data to stdout. Values of contacts and broadcasts in it must have gone through [`plain`].
    ///
    /// # Errors
    ///
    /// Fails if stdout does not take it; quietly, if its reader has gone.
    pub fn line(&self, line: &str) -> Result<(), Failure> {
        self.write(format!("{line}\n").as_bytes())
    }

    /// Writes an object of the API as one line.
    ///
    /// # Errors
    ///
    /// Fails as [`Output::line`] does.
    pub fn object(&self, object: &impl Serialize) -> Result<(), Failure> {
        let json = serde_json::to_string(object).map_err(io::Error::from)?;
        self.line(&json)
    }

    /// Writes data to stdout as it is.
    ///
    /// # Errors
    ///
    /// Fails as [`Output::line`] does.
    pub fn write(&self, data: &[u8]) -> Result<(), Failure> {
        let written = self.bars.suspend(|| {
            let mut stdout = io::stdout().lock();
            stdout.write_all(data).and_then(|()| stdout.flush())
        });
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::quiet(),
            _ => Failure::new(Exit::Failed, format!("the output cannot be written: {error}")),
        })
    }

    /// Writes a line for people to stderr: a warning, or what happens now. It is lost if stderr does not take it.
    pub fn note(&self, line: &str) {
        self.bars.suspend(|| {
            let _ = writeln!(io::stderr(), "{line}");
        });
    }

    /// Shows a bar on stderr if that is a terminal. It is removed with [`ProgressBar::finish_and_clear`].
    pub fn bar(&self, bar: ProgressBar) -> ProgressBar {
        self.bars.add(bar)
    }

    /// Shows on stderr that something is going on, if that is a terminal.
    pub fn spinner(&self, what: &'static str) -> ProgressBar {
        let spinner = self.bar(ProgressBar::new_spinner().with_message(what));
        spinner.enable_steady_tick(SPINNER_STEP);
        spinner
    }

    /// Returns the text in the colour of its meaning, if stdout has colours.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if !self.has_colours => return text.to_owned(),
            Tone::Strong => 1,
            Tone::Faint => 2,
            Tone::Good => 32,
            Tone::Warning => 33,
            Tone::Bad => 31,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Has the user type a number before something is done that cannot be taken back.
    ///
    /// # Errors
    ///
    /// Fails if nobody can be asked, or another number is typed.
    pub async fn confirm(&self, question: &str, number: u64) -> Result<(), Failure> {
        let typed = self.ask(question).await?;
        let digits: String = typed
            .chars()
            .filter(|c| !matches!(c, ',' | '.' | '_' | ' ' | '\n' | '\r'))
            .collect();
        confirmed(&digits, &number.to_string(), &typed)
    }

    /// Has the user type a word before something is done that cannot be taken back.
    ///
    /// # Errors
    ///
    /// Fails if nobody can be asked, or another word is typed.
    pub async fn confirm_word(&self, question: &str, word: &str) -> Result<(), Failure> {
        let typed = self.ask(question).await?;
        confirmed(typed.trim(), word, &typed)
    }

    async fn ask(&self, question: &str) -> Result<String, Failure> {
        may_ask()?;
        self.bars.suspend(|| {
            let mut stderr = io::stderr();
            let _ = write!(stderr, "{question}: ").and_then(|()| stderr.flush());
        });
        // A thread of its own waits for the line, so that Ctrl-C is seen meanwhile.
        let typed = task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|_| line)
        });
        Ok(typed.await.map_err(io::Error::other)??)
    }
}

fn confirmed(answer: &str, wanted: &str, typed: &str) -> Result<(), Failure> {
    if answer == wanted {
        return Ok(());
    }
    let (wanted, typed) = (plain(wanted), plain(typed.trim()));
    let what = format!("nothing was done: {wanted} was to be typed, and not `{typed}`");
    Err(Failure::new(Exit::Failed, what))
}

/// Checks that a person can be asked.
///
/// # Errors
///
/// Fails if stdin is no terminal.
pub fn may_ask() -> Result<(), Failure> {
    match io::stdin().is_terminal() {
        true => Ok(()),
        false => Err(Failure::new(
            Exit::Arguments,
            "nothing was done: nobody can be asked, as stdin is no terminal",
        )
        .and("--yes does it without asking; --dry-run, where there is one, only shows what would be done")),
    }
}

/// Returns the columns and rows of the terminal that stdout is.
fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let known = |length: Option<u16>, usual| length.filter(|length| *length > 0).map_or(usual, usize::from);
    (
        known(size.map(|size| size.ws_col), USUAL_COLUMNS),
        known(size.map(|size| size.ws_row), USUAL_ROWS),
    )
}
