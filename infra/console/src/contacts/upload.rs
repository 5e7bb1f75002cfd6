//! The upload of a file of contacts, and the page of its import.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek as _};
use std::sync::Arc;

use askama::Template;
use askama::filters::HtmlSafe;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{Multipart, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect};
use client::contact_file::{NotContacts, Parts, Source};
use tokio::io::AsyncWriteExt as _;
use tokio::task::spawn_blocking;

use super::export::attachment;
use super::imports::{Import, ImportState, Progress, Upload, unusable};
use crate::Console;
use crate::failure::Failure;
use crate::fields::Fields;
use crate::frame::{Chrome, Section};
use crate::page::{Answer, fresh, html, refused};
use crate::session::{CSRF, Form, Visitor};
use crate::show::size;

/// The most bytes of a file.
const MAX_FILE: u64 = 512 * 1024 * 1024;
/// The most bytes of another value of the form.
const MAX_VALUE: usize = 1_024;
/// The width of a bar, in units of its drawing.
const BAR: u64 = 1_000;

#[derive(Template)]
#[template(path = "import.html")]
struct UploadView {
    chrome: Chrome,
    csrf: String,
    fault: Option<Failure>,
    imports: Vec<(Arc<Import>, Progress)>,
}

#[derive(Template)]
#[template(path = "import-one.html", blocks = ["live"])]
struct ImportView {
    chrome: Chrome,
    csrf: String,
    import: Arc<Import>,
    progress: Progress,
}

impl ImportView {
    fn is_live(&self) -> bool {
        self.progress.ended_at.is_none()
    }

    fn path(&self) -> String {
        format!("/import/{}", self.import.id)
    }
}

/// The state of an import, with the mark of its colour.
struct StateOf<'a>(&'a ImportState);

impl fmt::Display for StateOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (class, words) = match self.0 {
            ImportState::Waiting => ("waiting", "waits for its turn"),
            ImportState::Running => ("processing", "importing"),
            ImportState::Done => ("completed", "completed"),
            ImportState::Stopped => ("cancelled", "stopped"),
            ImportState::Failed => ("failed", "failed"),
        };
        write!(f, "<span class=\"chip {class}\">{words}</span>")
    }
}

impl HtmlSafe for StateOf<'_> {}

/// The part of a file that was read, as a bar.
struct ReadBar<'a>(&'a Progress, &'a u64);

impl fmt::Display for ReadBar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(progress, bytes) = self;
        let (class, read) = match progress.state {
            ImportState::Done => ("completed", **bytes),
            ImportState::Waiting | ImportState::Running => ("processing", progress.read),
            ImportState::Stopped | ImportState::Failed => ("cancelled", progress.read),
        };
        let (width, percent) = (part(read, **bytes, BAR), part(read, **bytes, 100));
        write!(
            f,
            "<svg class=\"bar\" viewBox=\"0 0 {BAR} 8\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{percent} % read\">\
             <rect class=\"{class}\" width=\"{width}\" height=\"8\"/></svg>"
        )
    }
}

impl HtmlSafe for ReadBar<'_> {}

/// Returns the part of a whole in so many units.
fn part(part: u64, whole: u64, units: u64) -> u128 {
    let part = u128::from(part.min(whole)) * u128::from(units);
    part / u128::from(whole.max(1))
}

/// Shows the form, and the imports of this visitor.
pub async fn ask(State(console): State<Arc<Console>>, visitor: Visitor) -> Answer {
    html(&view(&console, visitor, None).await)
}

async fn view(console: &Console, visitor: Visitor, fault: Option<Failure>) -> UploadView {
    let imports = console.imports.of(&visitor).into_iter();
    UploadView {
        chrome: console.chrome(&visitor, Section::Contacts).await,
        imports: imports.map(|import| (Arc::clone(&import), import.now())).collect(),
        csrf: visitor.csrf,
        fault,
    }
}

/// Takes a file, and begins its import.
pub async fn begin(State(console): State<Arc<Console>>, visitor: Visitor, form: Multipart) -> Answer {
    match receive(&visitor, form).await {
        Ok(upload) => {
            let import = console.imports.begin(&visitor, upload);
            Ok(Redirect::to(&format!("/import/{}", import.id)).into_response())
        }
        Err(failure) if failure.is_about_the_form() => refused(&view(&console, visitor, Some(failure)).await),
        Err(failure) => Err(failure),
    }
}

/// Reads the form: its token, and then the file.
async fn receive(visitor: &Visitor, mut form: Multipart) -> Result<Upload, Failure> {
    let mut token = String::new();
    while let Some(field) = form.next_field().await.map_err(|error| broken(&error))? {
        match field.name() {
            Some(CSRF) => token = short(field).await?,
            Some("file") => {
                visitor.check(&token)?;
                return take(field).await;
            }
            _ => {}
        }
    }
    visitor.check(&token)?;
    Err(no_file())
}

/// Reads a value that is no file.
async fn short(mut field: Field<'_>) -> Result<String, Failure> {
    let mut value = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
        if value.len() + chunk.len() > MAX_VALUE {
            return Err(Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "A value of the form is too long",
            ));
        }
        value.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&value).into_owned())
}

/// Writes a file as it comes, and checks that it may be one of contacts.
async fn take(mut field: Field<'_>) -> Result<Upload, Failure> {
    let name = field.file_name().unwrap_or_default().to_owned();
    let file = tempfile::tempfile().map_err(|error| no_room(&error))?;
    let (mut file, mut bytes) = (tokio::fs::File::from_std(file), 0);
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
        bytes += chunk.len() as u64;
        // The rest of a file that is too large is read all the same: a browser shows no answer before it has sent all.
        if bytes <= MAX_FILE {
            file.write_all(&chunk).await.map_err(|error| no_room(&error))?;
        }
    }
    if bytes > MAX_FILE {
        let title = format!("The file is larger than {}", size(&MAX_FILE));
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, title)
            .and("Split it, or import it with the command line: oncecast contacts import FILE"));
    }
    if bytes == 0 && name.is_empty() {
        return Err(no_file());
    }
    file.flush().await.map_err(|error| no_room(&error))?;
    let file = file.into_std().await;
    let opened = spawn_blocking(move || open(file)).await;
    let parts = opened.map_err(|error| no_room(&io::Error::other(error)))??;
    Ok(Upload { name, bytes, parts })
}

/// Opens a file of contacts.
fn open(mut file: File) -> Result<Parts, Failure> {
    let source = file
        .rewind()
        .and_then(|()| Source::new(file))
        .map_err(|error| no_room(&error))?;
    if let Some(form) = source.not_contacts() {
        let failure = Failure::new(StatusCode::UNPROCESSABLE_ENTITY, format!("The file {form}"));
        return Err(failure.and(match form {
            NotContacts::Empty => "Export the contacts again.",
            NotContacts::Archive => "Save it as CSV UTF-8 in the spreadsheet program, and import that file.",
            NotContacts::Compressed => "Unpack it, and import what is in it.",
            NotContacts::Binary => "Choose a file of CSV, or of JSON with a contact in each line.",
        }));
    }
    Parts::new(source).map_err(|error| unusable(&error))
}

fn no_file() -> Failure {
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Choose a file")
}

fn no_room(error: &io::Error) -> Failure {
    Failure::new(
        StatusCode::INSUFFICIENT_STORAGE,
        format!("The file cannot be kept: {error}"),
    )
    .and("It waits in the directory of temporary files (TMPDIR) of the machine on which the console runs.")
}

fn broken(error: &MultipartError) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "The file did not arrive as a whole").and(error.body_text())
}

/// Finds an import of this visitor.
fn find(console: &Console, visitor: &Visitor, id: &str) -> Result<Arc<Import>, Failure> {
    let import = console.imports.find(visitor, id);
    import.ok_or_else(|| {
        Failure::new(StatusCode::NOT_FOUND, "There is no such import")
            .and("The console keeps imports in its memory, for the browser that made them, until it ends.")
            .and("What was stored is stored. Importing the same file again is harmless.")
    })
}

/// Shows an import, or the part of the page that changes.
pub async fn show(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(id): Path<String>,
    fields: Fields,
    headers: HeaderMap,
) -> Answer {
    let import = find(&console, &visitor, &id)?;
    let chrome = match fields.is_live() {
        true => Chrome::bare(Section::Contacts),
        false => console.chrome(&visitor, Section::Contacts).await,
    };
    let view = ImportView {
        chrome,
        csrf: visitor.csrf,
        progress: import.now(),
        import,
    };
    match fields.is_live() {
        true => fresh(&headers, &view.as_live()),
        false => html(&view),
    }
}

/// Ends an import. What is stored stays.
pub async fn stop(State(console): State<Arc<Console>>, visitor: Visitor, Path(id): Path<String>, _: Form) -> Answer {
    find(&console, &visitor, &id)?.stop();
    Ok(Redirect::to(&format!("/import/{id}")).into_response())
}

/// Answers with the refused rows of an import as a file.
pub async fn refused_rows(State(console): State<Arc<Console>>, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let rows = find(&console, &visitor, &id)?
        .refused_rows()
        .map_err(|error| no_room(&error))?;
    let rows = rows.ok_or_else(|| Failure::not_found("file"))?;
    Ok(attachment(rows, "refused.csv"))
}
