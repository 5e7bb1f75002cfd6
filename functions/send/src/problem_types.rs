//! The types of problems over HTTP: the URI in the `type` of a problem answers with its description.

use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::api::problems::NotFound;
use crate::problem::Problem;
use crate::query::NoParameters;
use crate::request::PathId;

/// `GET /v1/problems/{type}`: describes a type of problem, as the section of `problems.md` with its name does.
///
/// # Errors
/// If there is no such type (404).
#[utoipa::path(
    get, path = "/v1/problems/{name}", operation_id = "getProblemType", tag = "service",
    summary = "Describe a type of problem",
    description = "The `type` of a problem is the URI of its description.",
    params(("name" = String, Path, description = "The name of the type.", example = "invalid-request")),
    responses(
        (
            status = 200, description = "The description.",
            content((String = "text/markdown", example = "# not-found\n\nStatus 404. There is no such path, broadcast, …\n")),
        ),
        (status = 404, response = NotFound),
    ),
    security(("jwt" = []), ("iam" = [])),
)]
pub async fn describe(_: NoParameters, PathId(name): PathId) -> Result<Response, Problem> {
    let section = section(&name).ok_or_else(|| Problem::not_found("There is no such type of problem."))?;
    let content_type = [(header::CONTENT_TYPE, "text/markdown; charset=utf-8")];
    Ok((content_type, section).into_response())
}

/// Returns the section of the document about a type.
fn section(name: &str) -> Option<String> {
    const DOCUMENT: &str = include_str!("../problems.md");
    let mut sections = DOCUMENT.split("\n## ").skip(1);
    let text = sections.find_map(|section| section.strip_prefix(name)?.strip_prefix('\n'))?;
    Some(format!("# {name}\n{}\n", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::problems::Kind;

    #[test]
    fn each_type_is_described_with_its_status() {
        for kind in Kind::ALL {
            let section = section(kind.name()).unwrap();
            let status = kind.status().as_u16().to_string();
            assert!(section.contains(&status), "{section}");
        }
        let sections = include_str!("../problems.md").matches("\n## ").count();
        assert_eq!(sections, Kind::ALL.len());
    }
}
