//! The contacts of a broadcast from a file: ids one a line, or a CSV with a column `contact_id`.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::str;

use shared::domain::ids::ContactId;

use crate::failure::{Exit, Failure};

/// The name of the column of ids.
const COLUMN: &str = "contact_id";
/// The separators of columns.
const SEPARATORS: [char; 3] = [',', ';', '\t'];
/// The most bytes of a file: more hold more contacts than a broadcast takes.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// The most faults that are listed.
const MAX_FAULTS: usize = 10;

/// Reads the ids of a file, or of stdin if its name is `-`. Repeated ones are left to the API, which counts them.
///
/// # Errors
///
/// Fails if the file cannot be read or changes meanwhile, or holds something else than ids.
pub fn read(path: &Path) -> Result<Vec<ContactId>, Failure> {
    let name = match path == Path::new("-") {
        true => "stdin".to_owned(),
        false => path.display().to_string(),
    };
    let bytes = match path == Path::new("-") {
        true => limited(io::stdin()).map_err(|error| Failure::of_file(path, &error))?,
        false => unchanged(path)?,
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(wrong(&name, "is too large for a file of contact ids")
            .and("import the contacts with a tag, and send to --tag TAG: a broadcast to a tag has no limit"));
    }
    ids(&name, text(&name, &bytes)?)
}

/// Reads a file, and checks that nobody wrote to it meanwhile.
fn unchanged(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::of_file(path, &error);
    let mut file = File::open(path).map_err(failed)?;
    let before = file.metadata().map_err(failed)?;
    let bytes = limited(&mut file).map_err(failed)?;
    let after = file.metadata().map_err(failed)?;
    // An editor writes another file, and gives it the name of this one.
    let named = fs::metadata(path).map_err(failed)?;
    let is_whole = bytes.len() as u64 == before.len() || bytes.len() as u64 > MAX_BYTES;
    let is_same = [&after, &named].into_iter().all(|now| version(now) == version(&before));
    match !before.is_file() || (is_whole && is_same) {
        true => Ok(bytes),
        false => Err(Failure::new(
            Exit::Failed,
            format!("{} changed while it was read; nothing was sent", path.display()),
        )
        .and("repeat the command once the file is complete")),
    }
}

fn version(file: &Metadata) -> (u64, Option<std::time::SystemTime>) {
    (file.len(), file.modified().ok())
}

fn limited(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn wrong(name: &str, what: &str) -> Failure {
    Failure::new(Exit::Arguments, format!("{name} {what}"))
}

/// Returns the text of a file, without a byte order mark.
fn text<'b>(name: &str, bytes: &'b [u8]) -> Result<&'b str, Failure> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(wrong(name, "is UTF-16").and("save it as UTF-8"));
    }
    if bytes.contains(&0) {
        return Err(wrong(name, "is a binary file").and("write the ids one a line, or a CSV with a column contact_id"));
    }
    let text = str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        wrong(name, &format!("is not UTF-8 in line {line}")).and("save it as UTF-8")
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// The ids of a file, and what is wrong with its lines.
#[derive(Default)]
struct Found {
    ids: Vec<ContactId>,
    faults: Vec<String>,
}

impl Found {
    fn add(&mut self, line: u64, id: &str) {
        match ContactId::parse(id) {
            Ok(id) => self.ids.push(id),
            Err(fault) => self.faults.push(format!("line {line}: the id `{id}` {fault}")),
        }
    }
}

fn ids(name: &str, text: &str) -> Result<Vec<ContactId>, Failure> {
    let header = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let names_column = |separator: &char| header.split(*separator).any(is_column);
    let found = match SEPARATORS.iter().find(|separator| names_column(separator)) {
        Some(separator) => of_csv(name, text, *separator)?,
        None => of_lines(text),
    };
    let Found { ids, faults } = found;
    if !faults.is_empty() {
        let more = faults.len().saturating_sub(MAX_FAULTS);
        let failure = wrong(
            name,
            &format!(
                "has {} that hold no contact id; nothing was sent",
                crate::text::counted(faults.len() as u64, "line")
            ),
        );
        let failure = faults.into_iter().take(MAX_FAULTS).fold(failure, Failure::and);
        return Err(match more {
            0 => failure,
            more => failure.and(format!("and {more} more")),
        });
    }
    match ids.is_empty() {
        true => Err(wrong(name, "is empty: it holds no contact id")),
        false => Ok(ids),
    }
}

fn is_column(cell: &str) -> bool {
    cell.trim().trim_matches('"').eq_ignore_ascii_case(COLUMN)
}

fn of_lines(text: &str) -> Found {
    let mut found = Found::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.contains(SEPARATORS) {
            let fault = format!("line {number} has several columns, and the first line names none {COLUMN}");
            found.faults.push(fault);
        } else if !line.is_empty() {
            found.add(number, line);
        }
    }
    found
}

fn of_csv(name: &str, text: &str, separator: char) -> Result<Found, Failure> {
    let mut found = Found::default();
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator as u8)
        .flexible(true)
        .from_reader(text.as_bytes());
    let unreadable = |error: csv::Error| wrong(name, &format!("is no CSV that can be read: {error}"));
    let column = reader
        .headers()
        .map_err(unreadable)?
        .iter()
        .position(is_column)
        .unwrap_or_default();
    for record in reader.records() {
        let record = record.map_err(unreadable)?;
        if record.iter().any(|cell| !cell.trim().is_empty()) {
            let line = record.position().map_or(0, csv::Position::line);
            found.add(line, record.get(column).unwrap_or_default().trim());
        }
    }
    Ok(found)
}
