//! The forms that values have in cells of CSV, written for spreadsheets and read back as they were.

use std::borrow::Cow;

use serde_json::Value;
use shared::domain::visible::trimmed;

/// The characters with which a spreadsheet begins a formula, or that it leaves out before one.
const FORMULA_BEGINS: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];
/// The mark before a text that a spreadsheet would otherwise change. A spreadsheet shows the text and runs no formula.
const TEXT_MARK: char = '\'';
/// The values that spreadsheets show in place of a result that they could not calculate.
const SPREADSHEET_ERRORS: [&str; 8] = [
    "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!", "#DIV/0!", "#SPILL!",
];
/// The character between tags.
const SEPARATOR: char = ';';
/// The character before a separator that is a part of a tag.
const ESCAPE: char = '\\';

/// Returns the cell of a text. A text that a spreadsheet would run as a formula, or that an import would take for a spreadsheet's
/// error, has a mark before it. So has a text that looks like a marked one: no two texts have the same cell.
pub fn marked(text: &str) -> Cow<'_, str> {
    match needs_mark(text) {
        true => Cow::Owned(format!("{TEXT_MARK}{text}")),
        false => Cow::Borrowed(text),
    }
}

/// Returns the text of a cell that [`marked`] wrote.
pub fn unmarked(cell: &str) -> &str {
    cell.strip_prefix(TEXT_MARK)
        .filter(|text| needs_mark(text))
        .unwrap_or(cell)
}

fn needs_mark(text: &str) -> bool {
    let text = text.trim_start_matches(TEXT_MARK);
    text.starts_with(FORMULA_BEGINS) || is_spreadsheet_error(text)
}

/// Returns true for what a spreadsheet shows in place of a value: an error, or signs where a number is wider than its column.
pub fn is_spreadsheet_error(cell: &str) -> bool {
    let is_cut_off = cell.len() > 2 && cell.bytes().all(|byte| byte == b'#');
    is_cut_off || SPREADSHEET_ERRORS.contains(&cell)
}

/// Returns the tags of a cell, which are separated by semicolons. A semicolon after a backslash is a part of the tag, and two
/// backslashes before a semicolon are one.
pub fn tags(cell: &str) -> Vec<String> {
    let (mut tags, mut tag, mut escapes) = (Vec::new(), String::new(), 0);
    let escaped = |n: usize| String::from(ESCAPE).repeat(n);
    for c in cell.chars() {
        match c {
            ESCAPE => {
                escapes += 1;
                continue;
            }
            SEPARATOR => {
                tag.push_str(&escaped(escapes / 2));
                match escapes % 2 {
                    0 => tags.push(std::mem::take(&mut tag)),
                    _ => tag.push(c),
                }
            }
            c => {
                tag.push_str(&escaped(escapes));
                tag.push(c);
            }
        }
        escapes = 0;
    }
    tag.push_str(&escaped(escapes));
    tags.push(tag);
    let tags = tags.iter().map(|tag| trimmed(tag)).filter(|tag| !tag.is_empty());
    tags.map(str::to_owned).collect()
}

/// Returns the cell of a value of a contact; a list is one of tags, which [`tags`] reads.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => marked(text).into_owned(),
        Value::Array(tags) => marked(&joined(tags)).into_owned(),
        other => other.to_string(),
    }
}

fn joined(tags: &[Value]) -> String {
    let (mut cell, mut ends_with_escapes) = (String::new(), 0);
    for tag in tags.iter().filter_map(Value::as_str) {
        if !cell.is_empty() {
            cell.extend(std::iter::repeat_n(ESCAPE, ends_with_escapes));
            cell.push(SEPARATOR);
        }
        let mut escapes = 0;
        for c in tag.chars() {
            if c == SEPARATOR {
                cell.extend(std::iter::repeat_n(ESCAPE, escapes + 1));
            }
            escapes = if c == ESCAPE { escapes + 1 } else { 0 };
            cell.push(c);
        }
        ends_with_escapes = escapes;
    }
    cell
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_that_a_spreadsheet_would_change_is_marked() {
        for text in [
            "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-", "#N/A", "####", "'#REF!",
        ] {
            assert_eq!(marked(text), format!("'{text}"));
            assert_eq!(unmarked(&marked(text)), text);
        }
        for text in ["", "6001", "a=1", "m_-1", "'", "'a", "O'Hara", "#1", "##", "👋"] {
            assert_eq!(marked(text), text);
            assert_eq!(unmarked(text), text);
        }
    }

    #[test]
    fn tags_are_read_as_they_were_written() {
        for list in [
            json!(["vip"]),
            json!(["vip", "new"]),
            json!(["a;b", "c"]),
            json!(["a;b;", ";"]),
            json!(["a\\", "b\\;c\\\\", "\\\\;;\\", "\\"]),
            json!(["=1", "'x", "\"q\"", "a,b", "é;ज", "👋"]),
            json!(["'=1;2"]),
        ] {
            let cell = cell(&list);
            assert_eq!(json!(tags(unmarked(&cell))), list, "{cell:?}");
        }
        assert_eq!(tags("vip; new;;\t;"), ["vip", "new"]);
        assert_eq!(tags("a\\b;c:\\d"), ["a\\b", "c:\\d"]);
        assert_eq!(tags(" ; "), [] as [String; 0]);
    }
}
