//! The contacts that an import refuses: their faults, as JSON or as a CSV file that goes back to the author of the contacts.

use std::collections::HashMap;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::api::problems::Fault;
use crate::csv_answer::{csv_answer, csv_file};
use crate::csv_cells::marked;
use crate::negotiation::Form;
use crate::problem::Problem;

/// The maximum number of faults that a summary lists of one contact, so that it lists every contact in an answer that Lambda
/// sends.
const MAX_FAULTS_OF_CONTACT: usize = 10;

/// Returns the faults as a summary lists them: the first ten of each contact, by line.
pub fn summary(mut faults: Vec<Fault>) -> Vec<Fault> {
    let mut listed = HashMap::<_, usize>::new();
    faults.retain(|fault| {
        // The beginning of a pointer: `/contacts/3`.
        let contact: Vec<_> = fault.field.split('/').take(3).map(str::to_owned).collect();
        let of_contact = match fault.line {
            Some(line) => vec![line.to_string()],
            None => contact,
        };
        let count = listed.entry(of_contact).or_default();
        *count += 1;
        *count <= MAX_FAULTS_OF_CONTACT
    });
    faults.sort_by_key(|fault| fault.line);
    faults
}

/// Returns the answer to an import of which nothing is stored, in the form that the caller accepts.
pub fn refusal(problem: Problem, form: Form) -> Response {
    let faults = problem.faults();
    if form != Form::Csv || faults.is_empty() {
        return problem.into_response();
    }
    match csv(&summary(faults.to_vec())) {
        Ok(answer) => (StatusCode::BAD_REQUEST, answer).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// Returns a summary as CSV: line, column and message, or field and message if the import was no CSV file.
///
/// # Errors
/// If it cannot be written (500).
pub fn csv(faults: &[Fault]) -> Result<impl IntoResponse + use<>, Problem> {
    let of_file = |fault: &Fault| {
        let line = fault.line.map(|line| line.to_string());
        let column = fault.column.as_deref().unwrap_or_default();
        vec![
            line.unwrap_or_default(),
            marked(column).into_owned(),
            fault.message.clone(),
        ]
    };
    let of_body = |fault: &Fault| vec![marked(&fault.field).into_owned(), fault.message.clone()];
    csv_answer(match faults.iter().any(|fault| fault.line.is_none()) {
        false => csv_file(
            ["line", "column", "message"].map(str::to_owned).to_vec(),
            faults.iter().map(of_file),
        ),
        true => csv_file(
            ["field", "message"].map(str::to_owned).to_vec(),
            faults.iter().map(of_body),
        ),
    })
}
